//! The feed of a real log: one groupless consumer with explicit offsets, and a queue of its own for each partition.
//!
//! A queue is split off *before* its partition is assigned: librdkafka then never forwards the partition to the common queue,
//! so no record can overtake another. Partitions are never paused: a full queue stops being fetched by itself.
//!
//! Memory: `budget` bytes shared out over the partitions that were expected, at least [`LEAST_QUEUE`] each, and one fetch
//! ([`FETCH`] as it lies in the log, at least one batch). A partition's queue may pass its share by one fetch. A large
//! record is copied into a buffer that goes on to the batch, and the client's own copy is given back before it is decoded.

use super::feed::{Feed, Fetched, Lane, Polled, Start, Wanted};
use super::wake::Wake;
use crate::acl::{Resource, classify_doing};
use crate::client::{Clients, Isolation, Quiet, heals, serve};
use crate::decode::Header;
use crate::faults::{classify, is_late_token};
use crate::offsets::{Bound, bounds};
use crate::replay::Partition;
use bytes::Bytes;
use caudal_core::{Error, Result};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Least share of a partition, bytes.
const LEAST_QUEUE: usize = 16 << 10;
/// Most that one fetch brings of a partition, as it lies in the log. What was compressed unfolds when it arrives, a whole fetch at
/// once and by a factor that nobody knows beforehand: a hundred where rows are alike. A batch that is larger comes all the same.
const FETCH_OF_PARTITION: usize = 128 << 10;
/// Most that one fetch brings of all partitions, as it lies in the log.
const FETCH: usize = 1 << 20;
/// A reader of more partitions gives no report of itself: it would be megabytes, every few seconds.
const REPORTED: usize = 2_000;
/// How long a broker may hold a fetch that finds nothing. Short, because one fetch is under way at a time: while a partition's
/// queue is full it is left out, and a fetch of the others, which have nothing, keeps it waiting once the queue is empty.
const FETCH_WAIT_MS: &str = "10";
/// Values from so many bytes on have a buffer of their own.
const OWN_BYTES: usize = 1 << 20;

/// A record that the client no longer holds.
struct Detached {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Bytes>,
    ts_ms: i64,
    headers: Vec<(String, Vec<u8>)>,
}

impl Detached {
    /// Gives the client its copy back.
    fn of(message: BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(Bytes::copy_from_slice),
            ts_ms: message.timestamp().to_millis().unwrap_or(0),
            headers: headers.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect(),
        }
    }

    fn hand(&self, take: &mut dyn FnMut(Fetched<'_>)) {
        let headers: Vec<Header<'_>> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        take(Fetched {
            offset: self.offset,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            own: self.value.as_ref().filter(|value| value.len() >= OWN_BYTES),
            ts_ms: self.ts_ms,
            headers: &headers,
        });
    }
}

/// One partition's queue.
struct Queue {
    topic: Arc<str>,
    partition: i32,
    records: PartitionQueue<Quiet>,
    /// The record that showed that an end was reached.
    held: Option<Detached>,
    /// The offset that reading began at.
    start: i64,
    position: i64,
    /// The offset after the last record handed over or held.
    seen: i64,
}

/// How far each partition is known to hold nothing more to read: (offset after the last record seen, position).
pub(super) type Tails = Arc<Mutex<HashMap<(Arc<str>, i32), (i64, i64)>>>;

/// Partitions of a log.
pub(super) struct Lanes {
    clients: Clients,
    consumer: Arc<BaseConsumer<Quiet>>,
    /// Asks for ends with open transactions included.
    observer: BaseConsumer<Quiet>,
    queues: Vec<Queue>,
    names: HashMap<(Arc<str>, i32), Lane>,
    wake: Arc<Wake>,
    tails: Tails,
}

impl Lanes {
    /// For about `expected` partitions within `budget` bytes.
    ///
    /// # Errors
    /// `Config` if the client's settings are refused.
    pub(super) fn new(clients: &Clients, role: &str, expected: usize, budget: usize) -> Result<Self> {
        let share = (budget / expected.max(1)).max(LEAST_QUEUE);
        let mut config = clients.base(role);
        config.set("group.id", format!("{role}-none"));
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error").set("isolation.level", "read_committed");
        config.set("queued.max.messages.kbytes", (share >> 10).max(1).to_string());
        config.set("fetch.message.max.bytes", share.min(FETCH_OF_PARTITION).to_string());
        config.set("fetch.max.bytes", FETCH.to_string());
        if expected > REPORTED {
            config.set("statistics.interval.ms", "0");
        }
        config.set("fetch.wait.max.ms", FETCH_WAIT_MS).set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer<Quiet> =
            config.create_with_context(clients.quiet()).map_err(|e| classify(e, "make a reader"))?;
        serve(&consumer)?;
        Ok(Self {
            clients: clients.clone(),
            consumer: Arc::new(consumer),
            observer: clients.reader(&format!("{role}-ends"), Isolation::Uncommitted)?,
            queues: Vec::new(),
            names: HashMap::new(),
            wake: Arc::default(),
            tails: Tails::default(),
        })
    }

    /// What wakes the reading thread.
    pub(super) fn wake(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }

    /// What is known of the partitions' tails, for the offsets that are published.
    pub(super) fn tails(&self) -> Tails {
        Arc::clone(&self.tails)
    }

    /// Offsets at which to begin, each checked to be in its partition.
    fn starts(&mut self, wanted: &[Wanted]) -> Result<Vec<i64>> {
        let names: Vec<_> = wanted.iter().map(|w| (Arc::clone(&w.topic), w.partition)).collect();
        let spans = self.spans(&names)?;
        wanted.iter().zip(spans).map(|(wanted, (first, end))| start(wanted, first, end)).collect()
    }

    fn split(&mut self, wanted: &Wanted, start: i64) -> Result<Lane> {
        let records = self.consumer.split_partition_queue(&wanted.topic, wanted.partition);
        let mut records =
            records.ok_or_else(|| Error::bug(format!("split off partition of {}", wanted.topic)))?;
        let wake = Arc::clone(&self.wake);
        records.set_nonempty_callback(move || wake.set());
        let topic = Arc::clone(&wanted.topic);
        self.names.insert((Arc::clone(&topic), wanted.partition), self.queues.len());
        self.queues.push(Queue {
            topic,
            partition: wanted.partition,
            records,
            held: None,
            start,
            position: start,
            seen: start,
        });
        Ok(self.queues.len() - 1)
    }

    /// Serves what does not belong to a partition: errors of the client.
    fn serve(&self) -> Result<()> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                Ok(message) => {
                    let (topic, partition) = (message.topic(), message.partition());
                    return Err(Error::bug(format!(
                        "a record of {topic}/{partition} came on the common queue"
                    )));
                }
                Err(error) if heals(&*self.consumer, &error) => {}
                Err(error) => judge(error, "read the log", (&self.clients, Resource::Topics("")))?,
            }
        }
        Ok(())
    }
}

impl Feed for Lanes {
    fn spans(&mut self, partitions: &[(Arc<str>, i32)]) -> Result<Vec<(i64, i64)>> {
        serve(&self.observer)?;
        let names: Vec<Partition> = partitions.iter().map(|(topic, p)| (topic.to_string(), *p)).collect();
        let first = bounds(&self.observer, &names, Bound::First)?;
        let end = bounds(&self.observer, &names, Bound::End)?;
        let span = |name: &Partition| match (first.get(name), end.get(name)) {
            (Some(&first), Some(&end)) => Ok((first, end)),
            _ => Err(Error::transient(format!("ask for the offsets of {}/{}", name.0, name.1))),
        };
        names.iter().map(span).collect()
    }

    fn open(&mut self, wanted: &[Wanted]) -> Result<Vec<Lane>> {
        let starts = self.starts(wanted)?;
        let mut list = TopicPartitionList::with_capacity(wanted.len());
        let mut lanes = Vec::with_capacity(wanted.len());
        for (wanted, start) in wanted.iter().zip(starts) {
            lanes.push(self.split(wanted, start)?);
            // The first offset may move on until the first fetch: then it is the client's to find.
            let at = match wanted.start {
                Start::First => Offset::Beginning,
                Start::At(_) | Start::End => Offset::Offset(start),
            };
            list.add_partition_offset(&wanted.topic, wanted.partition, at)
                .map_err(|e| classify(e, "assign partitions"))?;
        }
        self.consumer.incremental_assign(&list).map_err(|e| classify(e, "assign partitions"))?;
        Ok(lanes)
    }

    fn poll(&mut self, lane: Lane, end: i64, take: &mut dyn FnMut(Fetched<'_>)) -> Result<Polled> {
        let queue = &mut self.queues[lane];
        if let Some(held) = queue.held.take_if(|held| held.offset < end) {
            held.hand(take);
            return Ok(Polled::Taken);
        }
        if queue.held.is_some() {
            return Ok(Polled::Reached);
        }
        let message = match queue.records.poll(Duration::ZERO) {
            Some(Ok(message)) => message,
            Some(Err(error)) if heals(&*self.consumer, &error) => return Ok(Polled::Empty),
            Some(Err(error)) => {
                let what = format!("read {}/{} from offset {}", queue.topic, queue.partition, queue.seen);
                let resource = Resource::Topic(&queue.topic);
                return judge(error, &what, (&self.clients, resource)).map(|()| Polled::Empty);
            }
            None => return Ok(Polled::Empty),
        };
        queue.seen = message.offset() + 1;
        if message.offset() >= end {
            queue.held = Some(Detached::of(message));
            return Ok(Polled::Reached);
        }
        if message.payload_len() >= OWN_BYTES {
            Detached::of(message).hand(take);
        } else {
            hand(&message, take);
        }
        Ok(Polled::Taken)
    }

    fn locate(&mut self) -> Result<()> {
        self.serve()?;
        let list = self.consumer.position().map_err(|e| classify(e, "ask for positions"))?;
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        for element in list.elements() {
            let name = (Arc::<str>::from(element.topic()), element.partition());
            let Some(queue) = self.names.get(&name).map(|lane| &mut self.queues[*lane]) else { continue };
            if let Offset::Offset(offset) = element.offset() {
                queue.position = offset.max(queue.start);
            }
            // A held record is not passed: what follows it is not known to be the tail.
            if queue.held.is_none() {
                tails.insert(name, (queue.seen, queue.position));
            } else {
                tails.remove(&name);
            }
        }
        Ok(())
    }

    fn position(&self, lane: Lane) -> i64 {
        let Queue { position, held, .. } = &self.queues[lane];
        // The client has handed the held record over; its reader has not.
        held.as_ref().map_or(*position, |held| held.offset.min(*position))
    }

    fn end(&mut self, lane: Lane) -> Result<i64> {
        let name = named(&self.queues[lane]);
        serve(&self.observer)?;
        let end = bounds(&self.observer, std::slice::from_ref(&name), Bound::End)?;
        end.get(&name).copied().ok_or_else(|| Error::transient(format!("ask for the end of {}", name.0)))
    }

    fn committed(&mut self, lanes: &[Lane]) -> Result<Vec<i64>> {
        let names: Vec<Partition> = lanes.iter().map(|lane| named(&self.queues[*lane])).collect();
        // The reader is read_committed, so what it is told is the first open transaction.
        let ends = bounds(&self.consumer, &names, Bound::End)?;
        Ok(names.iter().map(|name| ends.get(name).copied().unwrap_or(0)).collect())
    }
}

fn named(queue: &Queue) -> Partition {
    (queue.topic.to_string(), queue.partition)
}

/// Hands a record over.
fn hand(message: &impl Message, take: &mut dyn FnMut(Fetched<'_>)) {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let headers: Vec<Header<'_>> = headers.map(|h| (h.key, h.value.unwrap_or_default())).collect();
    take(Fetched {
        offset: message.offset(),
        key: message.key(),
        value: message.payload(),
        own: None,
        ts_ms: message.timestamp().to_millis().unwrap_or(0),
        headers: &headers,
    });
}

/// Where to begin: a stored offset must be in its partition, else what is missing would be missing in silence.
fn start(wanted: &Wanted, first: i64, end: i64) -> Result<i64> {
    let Wanted { topic, partition, start } = wanted;
    let offset = match *start {
        Start::First => return Ok(first),
        Start::End => return Ok(end),
        Start::At(offset) => offset,
    };
    if (first..=end).contains(&offset) {
        return Ok(offset);
    }
    let why = if offset < first {
        "older records were deleted: the sink was away for longer than they are kept"
    } else {
        "the topic was made again, or its brokers lost records"
    };
    Err(Error::data(format!(
        "topic {topic} partition {partition}: the sink stands at offset {offset}, and the log has {first} to {end}; {why}"
    ))
    .hint("rebuild the sink's tables from the topics (caudal rebuild)"))
}

/// What an error is that does not heal by itself. An offset that was removed under the reader is judged when it is opened again: it begins
/// elsewhere, or says why it cannot.
fn judge(error: KafkaError, what: &str, (clients, resource): (&Clients, Resource<'_>)) -> Result<()> {
    match error.rdkafka_error_code() {
        _ if is_late_token(&error, clients.resolved().tokens.is_some()) => Ok(()),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
            Err(Error::transient(format!("{what}: that offset is no longer there")).because(error))
        }
        _ => Err(classify_doing(error, what, clients.resolved(), ("Read", resource))),
    }
}
