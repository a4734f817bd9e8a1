//! Reading partitions from their start to an end that was asked for before.
//!
//! Why not "until there is no more": what a `read_committed` reader takes for the end is the first open transaction, and a
//! commit that is still being marked lies behind it. So the end is asked with `read_uncommitted`, and reading goes on until
//! the position (or the next record's offset) has reached it, however often the reader stands at its own end before.

use crate::client::{Clients, Isolation, REQUEST_TIMEOUT};
use crate::faults::classify;
use caudal_core::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A record as it is replayed: (key, value, offset).
pub(crate) type Record<'a> = (&'a [u8], Option<&'a [u8]>, i64);

/// (topic, partition)
pub(crate) type Partition = (String, i32);

/// The offsets after the last record of each partition, markers and open transactions included: what the log's next record
/// gets if nobody else writes. One request per broker.
///
/// # Errors
/// `Transient` if a partition's leader does not answer.
pub(crate) fn ends<C: ConsumerContext>(
    reader: &BaseConsumer<C>,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let context = || format!("ask for the ends of {} partitions", partitions.len());
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, Offset::End).map_err(|e| classify(e, context()))?;
    }
    let answer = reader.offsets_for_times(list, REQUEST_TIMEOUT).map_err(|e| classify(e, context()))?;
    let mut ends = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(|e| classify(e, context()))?;
        let Offset::Offset(end) = element.offset() else {
            return Err(Error::transient(context()));
        };
        ends.insert((element.topic().to_owned(), element.partition()), end);
    }
    Ok(ends)
}

/// Gives each committed record of one partition, from its start up to the end that it has now.
///
/// # Errors
/// `Transient` if the end is not reached within `patience`: another writer's transaction is open, or the broker is silent.
pub(crate) fn replay(
    clients: &Clients,
    role: &str,
    (topic, partition): (&str, i32),
    patience: Duration,
    each: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<i64> {
    let what = || format!("read {topic}/{partition} to its end");
    let end = {
        let reader = clients.reader(role, Isolation::Uncommitted)?;
        let (low, high) =
            reader.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).map_err(|e| classify(e, what()))?;
        if low == high {
            return Ok(high);
        }
        high
    };
    replay_range(clients, role, (topic, partition), (Offset::Beginning, end), patience, each)
}

/// As [`replay`], from `start` up to `end`.
///
/// # Errors
/// `Transient` if the end is not reached within `patience`.
pub(crate) fn replay_range(
    clients: &Clients,
    role: &str,
    (topic, partition): (&str, i32),
    (start, end): (Offset, i64),
    patience: Duration,
    mut each: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<i64> {
    let what = || format!("read {topic}/{partition} to offset {end}");
    let reader = clients.reader(role, Isolation::Committed)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, start).map_err(|e| classify(e, what()))?;
    reader.assign(&list).map_err(|e| classify(e, what()))?;
    let deadline = Instant::now() + patience;
    loop {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                if message.offset() < end {
                    each(record(&message))?;
                }
                if message.offset() + 1 >= end {
                    return Ok(end);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                if position(&reader, topic, partition) >= end {
                    return Ok(end);
                }
            }
            Some(Err(e)) => return Err(classify(e, what())),
        }
        if Instant::now() > deadline {
            return Err(
                Error::transient(what()).hint("the brokers are slow, or a transaction on it is still open")
            );
        }
    }
}

fn record<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    (message.key().unwrap_or_default(), message.payload(), message.offset())
}

fn position<C: ConsumerContext>(reader: &BaseConsumer<C>, topic: &str, partition: i32) -> i64 {
    let Ok(list) = reader.position() else { return -1 };
    match list.find_partition(topic, partition).map(|e| e.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => -1,
    }
}
