//! From a resolved configuration to pipelines: one per source (source → log), one per sink (log → sink).

use super::registry::Kafka;
use caudal_control::config::{Consistency, OnReject, Resolved, SinkEntry, SourceEntry};
use caudal_core::{Error, Result};
use caudal_engine::{Limits, OnReject as Policy, Pipeline};
use caudal_kafka::{CaptureOptions, Delivery, Log, ReadOptions};
use std::sync::Arc;

/// The log that a configuration means; `served` is where the daemon serves its own, if it does.
pub(crate) fn log(resolved: &Resolved<Kafka>, served: Option<std::net::SocketAddr>) -> Result<Log> {
    agree(resolved)?;
    let mut kafka = resolved.kafka.clone();
    if let Some(address) = served {
        let embedded = Kafka::embedded(address.to_string());
        (kafka.brokers, kafka.pace) = (embedded.brokers, embedded.pace);
    }
    Log::new(kafka, &resolved.prefix)
}

/// Whether what the sinks promise can be kept with how the log is written.
///
/// # Errors
/// `Config`, with the sink.
pub(crate) fn agree(resolved: &Resolved<Kafka>) -> Result<()> {
    let whole = resolved.sinks.iter().find(|sink| sink.consistency == Consistency::Transaction);
    match whole {
        Some(sink) if resolved.kafka.delivery == Delivery::AtLeastOnce => Err(Error::config(
            "`transaction` cannot be kept with `kafka.delivery: at_least_once`: parts of transactions may come again",
        )
        .field(format!("sinks.{}.consistency", sink.name))
        .hint("set `consistency: key`, or leave `kafka.delivery` out")),
        _ => Ok(()),
    }
}

/// Captures first, then sinks, in the order of the file.
pub(crate) fn pipelines(resolved: &Resolved<Kafka>, log: &Log) -> Vec<Pipeline> {
    let captures = resolved.sources.iter().map(|entry| {
        entry.source.keep_in(&resolved.data_dir);
        capture(entry, log)
    });
    let sinks =
        resolved.sinks.iter().flat_map(|entry| (1..=entry.parallel).map(|number| sink(entry, number, log)));
    captures.chain(sinks).collect()
}

/// Bytes of the source that one transaction of the log holds. Encoded they are about twice as many, once as batches and once in the
/// client's queue: this bounds most of a capture's memory. More makes it no faster.
const CAPTURE_COMMIT_BYTES: usize = 4 << 20;

fn capture(entry: &SourceEntry, log: &Log) -> Pipeline {
    entry.source.bind(log.written(&entry.name));
    let options = CaptureOptions { connector: entry.kind.to_owned(), ..CaptureOptions::default() };
    Pipeline {
        name: format!("capture/{}", entry.name),
        source: Arc::clone(&entry.source),
        transforms: Vec::new(),
        sink: log.capture_sink(&entry.name, options),
        dead_letters: None,
        on_reject: Policy::Park,
        limits: Limits { commit_bytes: CAPTURE_COMMIT_BYTES, ..Limits::default() },
    }
}

/// One of those that apply to a sink side by side, from 1. They share its partitions as daemons do that share a sink: through the
/// group, fenced by the comparison of offsets. Each has its own batch, fetches (16 MiB ahead) and connection.
fn sink(entry: &SinkEntry, number: u32, log: &Log) -> Pipeline {
    let log = log.beside(number);
    let consistency = match entry.consistency {
        Consistency::Transaction => caudal_kafka::Consistency::Transaction,
        Consistency::Key => caudal_kafka::Consistency::Key,
    };
    let options = ReadOptions { selected: entry.sink.selected(), ..ReadOptions::default() };
    let source = log.sink_source(&entry.name, entry.from.clone(), consistency, options);
    Pipeline {
        name: match number {
            1 => format!("sink/{}", entry.name),
            _ => format!("sink/{}#{number}", entry.name),
        },
        source,
        transforms: Vec::new(),
        sink: Arc::clone(&entry.sink),
        dead_letters: Some(log.dead_letters(&entry.name)),
        on_reject: match entry.on_reject {
            OnReject::Park => Policy::Park,
            OnReject::DeadLetter => Policy::DeadLetter,
        },
        limits: Limits::default(),
    }
}
