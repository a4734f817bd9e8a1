//! Reading partitions from their start to an end that was asked for before.
//!
//! Why not "until there is no more": what a `read_committed` reader takes for the end is the first open transaction, and a
//! commit that is still being marked lies behind it. So the end is asked with `read_uncommitted`, and reading goes on until
//! the position (or the next record's offset) has reached it, however often the reader stands at its own end before.

use crate::client::{Clients, Isolation, Quiet, REQUEST_TIMEOUT, heals, serve};
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

/// Reads to ends. Its two consumers are made when first needed, and end on a thread of their own: that takes a while.
///
/// All methods wait for the network: call them on a blocking thread.
pub(crate) struct Replayer {
    clients: Clients,
    role: String,
    committed: Option<BaseConsumer<Quiet>>,
    uncommitted: Option<BaseConsumer<Quiet>>,
}

impl Replayer {
    /// Makes nothing yet. `role` is for the client ids.
    pub(crate) fn new(clients: &Clients, role: &str) -> Self {
        Self { clients: clients.clone(), role: format!("{role}-replay"), committed: None, uncommitted: None }
    }

    fn uncommitted(&mut self) -> Result<&BaseConsumer<Quiet>> {
        if self.uncommitted.is_none() {
            self.uncommitted = Some(self.clients.reader(&self.role, Isolation::Uncommitted)?);
        }
        let reader = self.uncommitted.as_ref().ok_or_else(|| Error::bug("no reader"))?;
        serve(reader)?;
        Ok(reader)
    }

    fn committed(&mut self) -> Result<&BaseConsumer<Quiet>> {
        if self.committed.is_none() {
            self.committed = Some(self.clients.reader(&self.role, Isolation::Committed)?);
        }
        self.committed.as_ref().ok_or_else(|| Error::bug("no reader"))
    }

    /// The offsets after the last record of each partition, markers and open transactions included: what the log's next
    /// record gets if nobody else writes. One request per broker.
    ///
    /// # Errors
    /// `Transient` if a partition's leader does not answer.
    pub(crate) fn ends(&mut self, partitions: &[Partition]) -> Result<BTreeMap<Partition, i64>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        ends(self.uncommitted()?, partitions)
    }

    /// Gives each committed record of the partitions, from their starts up to the ends that they have now; the first
    /// argument is the partition's index. All at once, since a consumer takes a second to turn to another partition.
    ///
    /// # Errors
    /// `Transient` if an end is not reached within `patience`: another writer's transaction is open, or the broker is silent.
    pub(crate) fn replay(
        &mut self,
        partitions: &[Partition],
        patience: Duration,
        mut each: impl FnMut(usize, Record<'_>) -> Result<()>,
    ) -> Result<()> {
        self.messages(partitions, patience, |i, message| each(i, record(message)))
    }

    /// The same with all that a record has.
    ///
    /// # Errors
    /// As [`Replayer::replay`].
    pub(crate) fn messages(
        &mut self,
        partitions: &[Partition],
        patience: Duration,
        mut each: impl FnMut(usize, &BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<()> {
        let what = || match partitions {
            [(topic, partition), ..] => {
                format!("read {topic}/{partition} and {} more to the end", partitions.len() - 1)
            }
            [] => "read nothing".into(),
        };
        let mut open = self.unread(partitions)?;
        if open.is_empty() {
            return Ok(());
        }
        let reader = self.committed()?;
        let mut list = TopicPartitionList::with_capacity(open.len());
        for (&i, &(low, _)) in &open {
            let (topic, partition) = &partitions[i];
            list.add_partition_offset(topic, *partition, Offset::Offset(low))
                .map_err(|e| classify(e, what()))?;
        }
        reader.assign(&list).map_err(|e| classify(e, what()))?;
        let deadline = Instant::now() + patience;
        while !open.is_empty() {
            match reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let found = open.iter().find(|(i, _)| {
                        let (topic, partition) = &partitions[**i];
                        *partition == message.partition() && topic == message.topic()
                    });
                    let Some((&i, &(_, end))) = found else { continue };
                    if message.offset() < end {
                        each(i, &message)?;
                    }
                    if message.offset() + 1 >= end {
                        open.remove(&i);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {
                    let positions = reader.position().map_err(|e| classify(e, what()))?;
                    open.retain(|&i, &mut (_, end)| position(&positions, &partitions[i]) < end);
                }
                Some(Err(e)) if heals(reader, &e) => {}
                Some(Err(e)) => return Err(classify(e, what())),
            }
            if !open.is_empty() && Instant::now() > deadline {
                return Err(Error::transient(what())
                    .hint("the brokers are slow, or a transaction on it is still open"));
            }
        }
        // Else it would go on asking for what comes behind the end.
        reader.unassign().map_err(|e| classify(e, what()))
    }

    /// (start, end) of the partitions that hold something, by index.
    fn unread(&mut self, partitions: &[Partition]) -> Result<BTreeMap<usize, (i64, i64)>> {
        let reader = self.uncommitted()?;
        let mut unread = BTreeMap::new();
        for (i, (topic, partition)) in partitions.iter().enumerate() {
            let (low, end) = reader
                .fetch_watermarks(topic, *partition, REQUEST_TIMEOUT)
                .map_err(|e| classify(e, format!("ask for the end of {topic}/{partition}")))?;
            if low < end {
                unread.insert(i, (low, end));
            }
        }
        Ok(unread)
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        let consumers = (self.committed.take(), self.uncommitted.take());
        if consumers.0.is_some() || consumers.1.is_some() {
            std::thread::spawn(move || drop(consumers));
        }
    }
}

fn record<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    (message.key().unwrap_or_default(), message.payload(), message.offset())
}

fn position(positions: &TopicPartitionList, (topic, partition): &Partition) -> i64 {
    match positions.find_partition(topic, *partition).map(|e| e.offset()) {
        Some(Offset::Offset(offset)) => offset,
        _ => -1,
    }
}

/// Where partitions end for `reader`: with `read_uncommitted` the log's end, with `read_committed` the first open
/// transaction. One request per broker.
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
        let what = || format!("ask for the end of {}/{}", element.topic(), element.partition());
        element.error().map_err(|e| classify(e, what()))?;
        let Offset::Offset(end) = element.offset() else {
            return Err(Error::transient(context()));
        };
        ends.insert((element.topic().to_owned(), element.partition()), end);
    }
    Ok(ends)
}
