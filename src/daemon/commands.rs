//! Commands from the log to the sources of this daemon, as long as it runs.

use caudal_control::config::SourceEntry;
use caudal_core::{Result, Source};
use caudal_engine::shutdown::Shutdown;
use caudal_kafka::Log;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info};

/// Between two attempts, while the log cannot be read.
const AGAIN: Duration = Duration::from_secs(2);

/// Sources by name.
pub(crate) type Sources = HashMap<String, Arc<dyn Source>>;

/// The sources of a configuration.
pub(crate) fn sources(entries: &[SourceEntry]) -> Sources {
    entries.iter().map(|entry| (entry.name.clone(), Arc::clone(&entry.source))).collect()
}

/// Hands commands on until the daemon stops.
pub(crate) async fn forward(log: Log, prefix: String, sources: Sources, shutdown: Shutdown) {
    // Each attempt begins with the oldest command: what was handed on before is not handed on again.
    let mut last = (0, String::new());
    loop {
        let ended = tokio::select! {
            ended = read(&log, &prefix, &sources, &mut last) => ended,
            () = shutdown.wait() => return,
        };
        if let Err(error) = ended {
            debug!(%error, "commands cannot be read now");
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.wait() => return,
        }
    }
}

async fn read(log: &Log, prefix: &str, sources: &Sources, last: &mut (i64, String)) -> Result<()> {
    let mut signals = log.signals().await?;
    loop {
        let (source, signal) = signals.next().await?;
        // In a topic that was made again numbers begin again.
        if signal.number <= last.0 && signal.origin == last.1 {
            continue;
        }
        *last = (signal.number, signal.origin.clone());
        // Debezium's signals go by the prefix of the topics: here those are all sources.
        let is_all = source == prefix && !sources.contains_key(prefix);
        for (name, meant) in sources.iter().filter(|(name, _)| is_all || **name == source) {
            info!(source = name, id = signal.id, "a command");
            meant.signal(signal.clone());
        }
    }
}
