//! Where sources and sinks stand, read from the log alone: what `caudal status` shows without asking the daemon.

use crate::client::{Clients, Isolation, Quiet, REQUEST_TIMEOUT, blocking, serve};
use crate::faults::classify;
use crate::group;
use crate::log::Log;
use crate::offsets::{Bound, bounds, read_range};
use crate::replay::Partition;
use crate::sources::{self, Numbers};
use caudal_core::{Error, Result};
use caudal_proto::side::WatermarkRecord;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;

/// How far a source has been captured.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SourceStatus {
    /// The source.
    pub source: String,
    /// Number of its newest watermark.
    pub watermark: u64,
    /// The source's position there.
    pub position: String,
    /// The source's clock there, microseconds since the epoch, UTC.
    pub ts_us: i64,
}

/// How far a sink is, by the offsets that it publishes (within a second of what it has stored).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SinkStatus {
    /// By source: the source's clock (microseconds since the epoch, UTC) at the newest watermark applied. Only sinks with
    /// `consistency: transaction` publish it.
    pub applied: BTreeMap<String, i64>,
    /// Data partitions, in order.
    pub partitions: Vec<PartitionStatus>,
}

/// How far a sink is in one partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read; none if the sink has published none yet.
    pub offset: Option<i64>,
    /// The partition's end, open transactions excluded.
    pub end: i64,
}

impl SinkStatus {
    /// Offsets still to be read, markers included.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.partitions.iter().map(|p| (p.end - p.offset.unwrap_or(0)).max(0)).sum()
    }
}

impl Log {
    /// Where the captured sources stand. A source without a watermark yet is missing.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn source_status(&self) -> Result<Vec<SourceStatus>> {
        let numbers = sources::numbers(&self.clients, &self.names, "status").await?;
        let (clients, topic) = (self.clients.clone(), self.names.watermarks());
        blocking(move || {
            let names: Vec<Partition> = numbers.values().map(|n| (topic.clone(), *n)).collect();
            let ends = bounds(&clients.reader("status", Isolation::Committed)?, &names, Bound::End)?;
            let mut all = Vec::new();
            for (source, number) in numbers {
                let end = ends.get(&(topic.clone(), number)).copied().unwrap_or(0);
                if let Some(record) = watermark_below(&clients, (&topic, number), end)? {
                    let WatermarkRecord { number: watermark, position, ts_us, .. } = record;
                    all.push(SourceStatus { source, watermark, position, ts_us });
                }
            }
            Ok(all)
        })
        .await
    }

    /// Where a sink of the sources `from` stands.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn sink_status(&self, sink: &str, from: &[String]) -> Result<SinkStatus> {
        let mut numbers = sources::numbers(&self.clients, &self.names, "status").await?;
        numbers.retain(|source, _| from.contains(source));
        let schemas = sources::schemas(&self.clients, &self.names, "status", &numbers).await?;
        let topics = numbers.keys().flat_map(|source| schemas.topics(source));
        let mut data: Vec<Partition> = topics
            .flat_map(|(topic, partitions)| (0..partitions as i32).map(move |p| (topic.to_owned(), p)))
            .collect();
        data.sort();
        let (clients, watermarks) = (self.clients.clone(), self.names.watermarks());
        let group = group::name(&self.names, sink);
        blocking(move || read_sink(&clients, &group, &watermarks, &numbers, data)).await
    }
}

fn read_sink(
    clients: &Clients,
    group: &str,
    watermarks: &str,
    numbers: &Numbers,
    data: Vec<Partition>,
) -> Result<SinkStatus> {
    let ends = bounds(&clients.reader("status", Isolation::Committed)?, &data, Bound::End)?;
    let sides = numbers.values().map(|n| (watermarks.to_owned(), *n));
    let committed = committed(clients, group, data.iter().cloned().chain(sides))?;
    let mut status = SinkStatus::default();
    for (source, number) in numbers {
        let at = (watermarks.to_owned(), *number);
        if let Some(offset) = committed.get(&at)
            && let Some(record) = watermark_below(clients, (watermarks, *number), *offset)?
        {
            status.applied.insert(source.clone(), record.ts_us);
        }
    }
    status.partitions = data
        .into_iter()
        .map(|at| PartitionStatus {
            offset: committed.get(&at).copied(),
            end: ends.get(&at).copied().unwrap_or(0),
            topic: at.0,
            partition: at.1,
        })
        .collect();
    Ok(status)
}

/// A group's committed offsets, asked without joining it.
fn committed(
    clients: &Clients,
    group: &str,
    partitions: impl Iterator<Item = Partition>,
) -> Result<BTreeMap<Partition, i64>> {
    let context = || format!("ask for the offsets of group {group}");
    let mut config = clients.base("status");
    config.set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer<Quiet> =
        config.create_with_context(clients.quiet()).map_err(|e| classify(e, context()))?;
    serve(&consumer)?;
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition(&topic, partition);
    }
    if list.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let answer = consumer.committed_offsets(list, REQUEST_TIMEOUT).map_err(|e| classify(e, context()))?;
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(|e| classify(e, context()))?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Ok(offsets)
}

/// The last watermark below an offset: looks back in growing steps, for markers and aborted records lie between.
fn watermark_below(
    clients: &Clients,
    (topic, partition): (&str, i32),
    offset: i64,
) -> Result<Option<WatermarkRecord>> {
    let reader = clients.reader("status", Isolation::Committed)?;
    let (first, _) = reader
        .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
        .map_err(|e| classify(e, format!("ask for the beginning of {topic}/{partition}")))?;
    let mut back = 16;
    loop {
        if offset <= first {
            return Ok(None);
        }
        let start = (offset - back).max(first);
        let mut last = None;
        read_range(clients, "status", (topic, partition), start..offset, |(_, value, _)| {
            last = value.map(<[u8]>::to_vec);
            Ok(())
        })?;
        if let Some(value) = last {
            let record = serde_json::from_slice(&value);
            return record.map(Some).map_err(|e| {
                Error::data(format!("read the last watermark of {topic}/{partition} below {offset}"))
                    .because(e)
            });
        }
        if start == first {
            return Ok(None);
        }
        back *= 16;
    }
}
