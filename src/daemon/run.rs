//! `caudal run`: starts everything, says where it is, stops it on a signal.

use super::cli::Cli;
use super::compose::pipelines;
use super::exit::Failure;
use super::registry::registry;
use super::signals::Signals;
use caudal_api::{Board, Info};
use caudal_control::config;
use caudal_engine::shutdown::{self, Shutdown};
use caudal_engine::{Pipeline, StatusHandle, supervise};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tracing::{info, warn};

/// Everything ends within this time of a signal: the engine's own limit for the batch in flight is below it.
const STOP_WITHIN: Duration = Duration::from_millis(9_500);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let resolved = config::load(&cli.config, &registry())?;
    let listener = caudal_api::bind(resolved.http.listen).await?;
    let address = listener.local_addr()?;

    let (trigger, shutdown) = shutdown::channel();
    let pipelines = pipelines(&resolved);
    let handles: Vec<StatusHandle> = pipelines.iter().map(|p| StatusHandle::new(&p.name)).collect();
    let info = Info {
        version: env!("CARGO_PKG_VERSION").into(),
        prefix: resolved.prefix.clone(),
        log: String::new(),
    };
    let board = Arc::new(Board::new(info, handles.clone()));
    let mut tasks = JoinSet::new();
    serve_http(&mut tasks, listener, resolved.http.clone(), board, &shutdown);
    info!("health, metrics and status: http://{address}/health");
    start(&mut tasks, pipelines, handles, &shutdown);

    let signal = signals.next().await;
    info!("{signal}: stopping; the batches in flight are ended first");
    trigger.stop();
    tokio::select! {
        () = drain(&mut tasks) => info!("stopped"),
        _ = signals.next() => warn!("a second signal: stopped at once; what was in flight is read again at the next start"),
        () = tokio::time::sleep(STOP_WITHIN) => warn!("stopped; what was in flight is read again at the next start"),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve_http(
    tasks: &mut JoinSet<()>,
    listener: tokio::net::TcpListener,
    settings: config::HttpSettings,
    board: Arc<Board>,
    shutdown: &Shutdown,
) {
    let (sampled, stop) = (Arc::clone(&board), shutdown.clone());
    tasks.spawn(async move { sampled.sample(&stop).await });
    let stop = shutdown.clone();
    tasks.spawn(async move { caudal_api::serve(listener, &settings, board, stop).await });
}

fn start(tasks: &mut JoinSet<()>, pipelines: Vec<Pipeline>, handles: Vec<StatusHandle>, shutdown: &Shutdown) {
    for (number, (pipeline, handle)) in pipelines.into_iter().zip(handles).enumerate() {
        tasks.spawn(supervise(pipeline, handle, shutdown.clone(), number as u64));
    }
}

async fn drain(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}
