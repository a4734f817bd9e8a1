//! The daemon and its command line: the composition root. Only here do the connectors, the engine, the log and the API meet.

mod check;
mod cli;
mod commands;
mod compose;
mod config;
mod dlq;
mod embedded;
mod exit;
mod init;
mod instance;
mod log;
mod logging;
mod memory;
mod monitor;
mod output;
mod poll;
mod rebuild;
mod registry;
mod run;
mod schema;
mod signals;
mod snapshot;
mod status;
mod tap;
mod verify;
mod why;

use clap::Parser;
use cli::{Cli, Command};
use exit::Failure;
use std::process::ExitCode;

/// Parses, runs the verb, and turns its end into an exit code: 0 done, 1 found something wrong, 2 used wrongly.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Run) {
        memory::settle();
    }
    logging::start(cli.log_format, matches!(cli.command, Command::Run));
    // Fails only if a provider is there already: the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(format!("cannot start threads: {error}")).print(cli.output),
    };
    let ended = runtime.block_on(dispatch(&cli));
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(failure) => failure.print(cli.output),
    }
}

async fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Run => run::run(cli).await,
        Command::Init(arguments) => init::init(cli, arguments).await,
        Command::Check(arguments) => check::check(cli, arguments).await,
        Command::Status => status::status(cli).await,
        Command::Snapshot(arguments) => snapshot::snapshot(cli, arguments).await,
        Command::Poll(arguments) => poll::poll(cli, arguments).await,
        Command::Schedule(arguments) => poll::schedule(cli, arguments).await,
        Command::Tap(arguments) => tap::tap(cli, arguments).await,
        Command::Dlq(arguments) => dlq::dlq(cli, arguments).await,
        Command::Log(arguments) => log::log(cli, arguments).await,
        Command::Rebuild(arguments) => rebuild::rebuild(cli, arguments).await,
        Command::Why(arguments) => why::why(cli, arguments).await,
        Command::Verify(arguments) => verify::verify(cli, arguments).await,
        Command::Schema(arguments) => schema::schema(arguments),
        Command::Config(arguments) => config::config(cli, arguments),
    }
}
