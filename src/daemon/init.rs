//! `caudal init`: a commented configuration from a live database.

use super::cli::{Cli, InitArguments};
use super::exit::Failure;
use std::process::ExitCode;

pub(crate) async fn init(_: &Cli, _: &InitArguments) -> Result<ExitCode, Failure> {
    Err(Failure::new("x"))
}
