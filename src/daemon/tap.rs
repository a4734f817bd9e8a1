//! `caudal tap` follows.

use super::cli::{Cli, TapArguments};
use super::exit::Failure;
use std::process::ExitCode;

pub(crate) async fn tap(_: &Cli, _: &TapArguments) -> Result<ExitCode, Failure> {
    Err(Failure::new("this build cannot tap yet; use `kcat -b BROKER -C -t TOPIC`"))
}
