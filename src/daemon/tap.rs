//! `caudal tap`: events as they arrive in the log.

use super::cli::{Cli, TapArguments};
use super::exit::Failure;
use std::process::ExitCode;

pub(crate) async fn tap(_: &Cli, _: &TapArguments) -> Result<ExitCode, Failure> {
    Err(Failure::new("x"))
}
