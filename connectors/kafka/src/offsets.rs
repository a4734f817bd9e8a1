//! Asking where partitions begin and end, and reading a stretch of one.

use crate::client::{Clients, Isolation, REQUEST_TIMEOUT, heals};
use crate::faults::classify;
use crate::replay::{Partition, Record};
use caudal_core::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

/// An end of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The first record that is there.
    First,
    /// Behind the last one: of all for a `read_uncommitted` reader, up to the first open transaction for the other.
    End,
}

/// Where partitions begin or end, in one request per broker. Waits for the network.
///
/// # Errors
/// `Transient` if a partition's leader does not answer.
pub(crate) fn bounds<C: ConsumerContext>(
    reader: &BaseConsumer<C>,
    partitions: &[Partition],
    bound: Bound,
) -> Result<BTreeMap<Partition, i64>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let context = || format!("ask for the offsets of {} partitions", partitions.len());
    let asked = if bound == Bound::First { Offset::Beginning } else { Offset::End };
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, asked).map_err(|e| classify(e, context()))?;
    }
    let answer = reader.offsets_for_times(list, REQUEST_TIMEOUT).map_err(|e| classify(e, context()))?;
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        let what = || format!("ask for the offsets of {}/{}", element.topic(), element.partition());
        element.error().map_err(|e| classify(e, what()))?;
        let Offset::Offset(offset) = element.offset() else {
            return Err(Error::transient(context()));
        };
        offsets.insert((element.topic().to_owned(), element.partition()), offset);
    }
    Ok(offsets)
}

/// Gives each committed record of one partition whose offset is in `range`. Waits for the network.
///
/// # Errors
/// `Transient` if nothing comes for a while: another writer's transaction is open, or the broker is silent.
pub(crate) fn read_range(
    clients: &Clients,
    role: &str,
    (topic, partition): (&str, i32),
    range: Range<i64>,
    mut each: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let what = || format!("read {topic}/{partition} from offset {} to {}", range.start, range.end);
    let reader = clients.reader(role, Isolation::Committed)?;
    let mut list = TopicPartitionList::new();
    let start = if range.start == 0 { Offset::Beginning } else { Offset::Offset(range.start) };
    list.add_partition_offset(topic, partition, start).map_err(|e| classify(e, what()))?;
    reader.assign(&list).map_err(|e| classify(e, what()))?;
    let mut heard = Instant::now();
    while heard.elapsed() < REQUEST_TIMEOUT {
        match reader.poll(std::time::Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                if message.offset() < range.end {
                    each((message.key().unwrap_or_default(), message.payload(), message.offset()))?;
                }
                if message.offset() + 1 >= range.end {
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                let positions = reader.position().map_err(|e| classify(e, what()))?;
                let position = positions.find_partition(topic, partition).map(|element| element.offset());
                if matches!(position, Some(Offset::Offset(offset)) if offset >= range.end) {
                    return Ok(());
                }
            }
            Some(Err(e)) if heals(&reader, &e) => {}
            Some(Err(e)) => return Err(classify(e, what())),
        }
    }
    Err(Error::transient(what()).hint("the brokers are slow, or a transaction on it is still open"))
}
