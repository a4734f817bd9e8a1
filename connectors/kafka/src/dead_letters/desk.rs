//! What happens to dead letters later: they are listed, dropped, and applied again.
//!
//! **Who applies a letter again** is the sink's own reader: it alone knows up to where the sink stands, and its batches are the
//! only ones that pass the sink's fence. Whoever wants a letter replayed writes it again with the header `caudal.replay`; the desk, a
//! thread beside the reader, follows the topic and hands such requests over.
//!
//! **What is applied** is the *current* value of the letter's key: of the last record below the offset up to which the reader has
//! delivered the partition. So it cannot overwrite anything newer: what is newer comes behind it. A table without a
//! key has no current value, and the letter's own record is applied.
//!
//! **Once.** The batch that applies it moves an offset of the dead letters' topic too, stored with the rows in one
//! transaction: the next offset behind the request. A reader that starts anew does not apply requests below it. The letter
//! is dropped when that is durable; if the target has refused it again it was set aside again before, and stays.
//!
//! Memory: of each open letter its id, some 100 bytes; of a request the record.

use super::letter::REPLAY;
use super::{DeadLetter, PATIENCE};
use crate::client::{Clients, Isolation, Quiet, REQUEST_TIMEOUT, blocking, heals, serve};
use crate::faults::classify;
use crate::log::Log;
use crate::topics::Topics;
use caudal_core::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A letter that somebody wants applied again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) letter: DeadLetter,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeSet<String>,
    requests: VecDeque<Request>,
    /// Letters that are being applied again, by the id that a refusal would have, with the attempts so far.
    trying: HashMap<String, u32>,
    /// Of these, those that were refused.
    refused: BTreeSet<String>,
    /// Whether the topic is there.
    exists: bool,
}

/// What a sink's reader and its dead letters know together.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
}

/// The desks of a log, by sink.
pub(crate) type Desks = Arc<Mutex<HashMap<String, Arc<Desk>>>>;

impl Desk {
    /// The desk of a sink.
    pub(crate) fn of(desks: &Desks, sink: &str) -> Arc<Self> {
        let mut desks = desks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(desks.entry(sink.to_owned()).or_default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Letters that wait for somebody.
    pub(crate) fn open_letters(&self) -> u64 {
        self.state().open.len() as u64
    }

    /// A letter is being set aside; gives how often its event was tried before.
    pub(super) fn refused(&self, id: &str) -> u32 {
        let mut state = self.state();
        state.exists = true;
        let Some(attempts) = state.trying.get(id).copied() else { return 0 };
        state.refused.insert(id.to_owned());
        attempts
    }

    /// The next request, if there is one.
    pub(crate) fn next(&self) -> Option<Request> {
        self.state().requests.pop_front()
    }

    /// An event with this id is applied again for a letter.
    pub(crate) fn trying(&self, id: &str, attempts: u32) {
        self.state().trying.insert(id.to_owned(), attempts);
    }

    /// What was tried is durable; gives whether it was refused again.
    pub(crate) fn tried(&self, id: &str) -> bool {
        let mut state = self.state();
        state.trying.remove(id);
        state.refused.remove(id)
    }

    /// A reader starts anew: what was tried and is not durable is requested again.
    fn restart(&self) {
        *self.state() = State::default();
    }

    fn take(&self, message: &impl Message) {
        let id = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        let mut state = self.state();
        match DeadLetter::of(message) {
            None => {
                state.open.remove(&id);
                state.requests.retain(|request| request.letter.id != id);
            }
            Some(letter) => {
                state.open.insert(id.clone());
                state.requests.retain(|request| request.letter.id != id);
                if letter.replay {
                    state.requests.push_back(Request { letter });
                }
            }
        }
    }
}

/// Follows the topic for a desk until `is_over`; `wake` is called when there is something to do.
pub(crate) fn follow(
    clients: &Clients,
    (topic, role): (&str, &str),
    desk: &Desk,
    wake: &dyn Fn(),
    is_over: &dyn Fn() -> bool,
) {
    desk.restart();
    let mut consumer: Option<BaseConsumer<Quiet>> = None;
    let mut looked: Option<Instant> = None;
    while !is_over() {
        let Some(open) = &consumer else {
            let due = desk.state().exists || looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
            if due {
                looked = Some(Instant::now());
                consumer = open(clients, topic, role);
            } else {
                std::thread::sleep(Duration::from_millis(200));
            }
            continue;
        };
        match open.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                desk.take(&message);
                wake();
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) if heals(open, &error) => {}
            Some(Err(error)) => {
                tracing::debug!(topic, %error, "follow the dead letters");
                consumer = None;
            }
        }
    }
}

/// How often a topic that is not there is looked for; one that this daemon makes is known at once.
const LOOK_EVERY: Duration = Duration::from_secs(30);

fn open(clients: &Clients, topic: &str, role: &str) -> Option<BaseConsumer<Quiet>> {
    let mut config = clients.base(role);
    config.set("group.id", format!("{role}-none")).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
    config.set("queued.max.messages.kbytes", "1024").set("fetch.wait.max.ms", "1000");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(clients.quiet()).ok()?;
    serve(&consumer).ok()?;
    // Of all topics: to ask for one by name may make it.
    let there = consumer.fetch_metadata(None, REQUEST_TIMEOUT).ok()?;
    there.topics().iter().find(|t| t.name() == topic && !t.partitions().is_empty())?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).ok()?;
    consumer.assign(&list).ok()?;
    Some(consumer)
}

/// A producer of dead letters.
pub(crate) fn producer(clients: &Clients, role: &str) -> Result<FutureProducer<Quiet>> {
    let limit = clients.resolved().config.topics.max_message_bytes.bytes() + (1 << 20);
    let mut config = clients.durable(role);
    config.set("linger.ms", "5");
    config.set("message.max.bytes", limit.to_string());
    config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
    config.create_with_context(clients.quiet()).map_err(|e| classify(e, "make a producer of dead letters"))
}

/// Writes a letter again, or (none) drops it.
pub(crate) async fn write(
    producer: &FutureProducer<Quiet>,
    topic: &str,
    id: &str,
    letter: Option<&DeadLetter>,
) -> Result<()> {
    let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(topic).key(id).partition(0);
    if let Some(letter) = letter {
        let mut headers = OwnedHeaders::new();
        for (key, value) in letter.all_headers.iter().filter(|(name, _)| name != REPLAY) {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        if letter.replay {
            headers = headers.insert(Header { key: REPLAY, value: Some(b"1") });
        }
        record = record.headers(headers).payload(letter.value.as_deref().unwrap_or_default());
    }
    let sent = producer.send(record, Timeout::After(PATIENCE)).await;
    sent.map(|_| ()).map_err(|(error, _)| classify(error, format!("write {id} to {topic}")))
}

impl Log {
    /// The dead letters of a sink, oldest first. Memory: all of them.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn letters(&self, sink: &str) -> Result<Vec<DeadLetter>> {
        let topic = self.names.dead_letters(sink);
        let role = format!("{sink}-dlq-list");
        if !Topics::new(&self.clients, &role)?.list().await?.contains_key(&topic) {
            return Ok(Vec::new());
        }
        let clients = self.clients.clone();
        let letters = blocking(move || read_all(&clients, &role, &topic)).await?;
        let mut letters: Vec<DeadLetter> = letters.into_values().collect();
        letters.sort_by_key(|letter| letter.at);
        Ok(letters)
    }

    /// Drops letters of a sink by their ids.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn drop_letters(&self, sink: &str, ids: &[String]) -> Result<()> {
        let (topic, producer) =
            (self.names.dead_letters(sink), producer(&self.clients, &format!("{sink}-dlq-drop"))?);
        let drops = ids.iter().map(|id| write(&producer, &topic, id, None));
        futures::future::try_join_all(drops).await.map(|_| ())
    }

    /// Asks the sink's reader to apply letters again.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn replay_letters(&self, sink: &str, letters: &[DeadLetter]) -> Result<()> {
        let (topic, producer) =
            (self.names.dead_letters(sink), producer(&self.clients, &format!("{sink}-dlq-replay"))?);
        for letter in letters {
            let asked = DeadLetter { replay: true, ..letter.clone() };
            write(&producer, &topic, &letter.id, Some(&asked)).await?;
        }
        Ok(())
    }
}

fn read_all(clients: &Clients, role: &str, topic: &str) -> Result<BTreeMap<String, DeadLetter>> {
    let consumer = clients.reader(role, Isolation::Committed)?;
    let mut list = TopicPartitionList::new();
    let what = || format!("read {topic}");
    list.add_partition_offset(topic, 0, Offset::Beginning).map_err(|e| classify(e, what()))?;
    consumer.assign(&list).map_err(|e| classify(e, what()))?;
    let mut letters = BTreeMap::new();
    let mut heard = Instant::now();
    while heard.elapsed() < REQUEST_TIMEOUT {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let id = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                match DeadLetter::of(&message) {
                    Some(letter) => letters.insert(id, letter),
                    None => letters.remove(&id),
                };
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(letters),
            Some(Err(error)) if heals(&consumer, &error) => {}
            Some(Err(error)) => return Err(classify(error, what())),
            None => {}
        }
    }
    Err(Error::transient(what()).hint("the brokers are slow, or out of reach"))
}
