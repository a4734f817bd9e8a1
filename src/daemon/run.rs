//! `caudal run`: starts everything, says where it is, stops it on a signal.
//!
//! Order: what can fail (the embedded log, the HTTP port) comes first, so that a daemon that starts has all it needs; pipelines
//! mend themselves. At the end pipelines stop before the log that they write to.

use super::cli::Cli;
use super::commands;
use super::compose;
use super::embedded;
use super::exit::Failure;
use super::instance::Instance;
use super::monitor;
use super::registry::{Kafka, registry};
use super::signals::Signals;
use super::verify::again_and_again;
use caudal_api::{Board, Info};
use caudal_control::config::{self, Resolved};
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
    let served = match &resolved.log {
        Some(settings) => {
            let largest_record = resolved.kafka.topics.max_message_bytes.bytes();
            Some(embedded::start(settings, &resolved.data_dir, largest_record).await?)
        }
        None => None,
    };
    let mut log = compose::log(&resolved, served.as_ref().map(embedded::Log::address))?;
    // The embedded log's groups end with the daemon: nobody waits for them.
    let instance = served.is_none().then(|| Instance::of(&resolved.data_dir)).flatten();
    if let Some(instance) = &instance {
        log = log.of_instance(instance.name());
    }
    let pipelines = compose::pipelines(&resolved, &log);
    let whereabouts = whereabouts(&resolved, served.as_ref());
    announce(&resolved, &whereabouts, address);

    let (trigger, shutdown) = shutdown::channel();
    let handles: Vec<StatusHandle> = pipelines.iter().map(StatusHandle::of).collect();
    let info =
        Info { version: env!("CARGO_PKG_VERSION").into(), prefix: resolved.prefix.clone(), log: whereabouts };
    let telemetry = log.telemetry();
    let board = Board::new(info, handles.clone()).exposing(move || telemetry.exposition());
    let board = Arc::new(board);
    let mut tasks = JoinSet::new();
    serve_http(&mut tasks, listener, resolved.http.clone(), board, &shutdown);
    tasks.spawn(monitor::run(log.clone(), resolved.prefix.clone(), handles.clone(), shutdown.clone()));
    let verifier = log.clone();
    tasks.spawn(commands::forward(
        log,
        resolved.prefix.clone(),
        commands::sources(&resolved.sources),
        shutdown.clone(),
    ));
    for entry in resolved.sinks.iter().filter(|sink| sink.verify.is_some()) {
        let sources = resolved.sources.iter().filter(|source| entry.from.contains(&source.name));
        let handle = handles.iter().find(|handle| handle.name() == format!("sink/{}", entry.name));
        let Some((settings, handle)) = entry.verify.zip(handle) else { continue };
        tasks.spawn(again_and_again(
            (entry.name.clone(), Arc::clone(&entry.sink)),
            commands::sources(&sources.cloned().collect::<Vec<_>>()),
            (settings, handle.clone(), verifier.clone()),
            shutdown.clone(),
        ));
    }
    start(&mut tasks, pipelines, handles, &shutdown);

    let signal = signals.next().await;
    info!("{signal}: stopping; batches in flight are ended first");
    trigger.stop();
    tokio::select! {
        () = drain(&mut tasks, served) => info!("stopped"),
        _ = signals.next() => warn!("a second signal: stopped at once; what was in flight is read again at the next start"),
        () = tokio::time::sleep(STOP_WITHIN) => warn!("stopped; what was in flight is read again at the next start"),
    }
    Ok(ExitCode::SUCCESS)
}

fn whereabouts(resolved: &Resolved<Kafka>, served: Option<&embedded::Log>) -> String {
    match served {
        Some(log) => format!("embedded at {}", log.address()),
        None => format!("Kafka at {}", resolved.kafka.brokers.join(", ")),
    }
}

fn announce(resolved: &Resolved<Kafka>, log: &str, http: std::net::SocketAddr) {
    info!("caudal {}: prefix {}, log: {log}", env!("CARGO_PKG_VERSION"), resolved.prefix);
    if resolved.log.is_some() {
        info!("the log is kept in {}", resolved.data_dir.join("log").display());
        info!(
            "the embedded log is one node without replicas, TLS or passwords: what its disk loses is lost, and sources are read anew; \
             `caudal log export` moves it to a Kafka cluster"
        );
    }
    info!("health, metrics and status: http://{http}/health, /metrics, /status, /api/v1/freshness");
    for source in &resolved.sources {
        info!("capture/{}: {} -> log", source.name, source.kind);
    }
    for sink in &resolved.sinks {
        info!(
            "sink/{}: {} -> {}, consistency: {}",
            sink.name,
            sink.from.join(", "),
            sink.kind,
            sink.consistency.as_str()
        );
    }
    if resolved.sources.is_empty() && resolved.sinks.is_empty() {
        warn!("the configuration has neither sources nor sinks: only the log is served");
    }
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

/// One supervised task each. The clock seeds the jitter: daemons that start together do not retry together.
fn start(tasks: &mut JoinSet<()>, pipelines: Vec<Pipeline>, handles: Vec<StatusHandle>, shutdown: &Shutdown) {
    let seed = caudal_engine::status::now_us() as u64;
    for (number, (pipeline, handle)) in (0..).zip(pipelines.into_iter().zip(handles)) {
        tasks.spawn(supervise(pipeline, handle, shutdown.clone(), seed.wrapping_add(number)));
    }
}

async fn drain(tasks: &mut JoinSet<()>, served: Option<embedded::Log>) {
    while tasks.join_next().await.is_some() {}
    if let Some(log) = served {
        log.shutdown().await;
    }
}
