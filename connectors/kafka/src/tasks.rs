//! Who works on a source: its number, and the group that shares the numbers among instances.
//!
//! A source's number is its partition of `positions`, `watermarks`, `schemas` and `tasks`. It is given once, by a record in
//! partition 0 of `tasks`: the first record of a source counts, unless its number was taken before. Whoever finds that the
//! last record of a source (the one that compaction keeps) is not the one that counts, writes the one that counts again;
//! the topic's compaction delay leaves time for it.
//!
//! Instances join the group `caudal.<prefix>.tasks` on that topic; the owner of partition n captures source n. That is
//! sharing, not safety: what fences a displaced instance is its source's `transactional.id`.

use crate::acl::{Resource, classify_doing};
use crate::client::{Clients, REQUEST_TIMEOUT, blocking, complain, log};
use crate::faults::{classify, is_late_token};
use crate::replay::Replayer;
use crate::tokens::Handed;
use crate::topics::{TopicSpec, Topics};
use caudal_core::{Error, Fault, Result};
use caudal_proto::side::{TaskRecord, TopicNames, VERSION};
use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// Rounds of "write my number, read who won" before giving up.
const ROUNDS: usize = 20;

/// The numbers as the records tell them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Numbers {
    by_source: BTreeMap<String, i32>,
    /// What compaction would leave of each source.
    last: BTreeMap<String, i32>,
}

impl Numbers {
    fn take(&mut self, record: TaskRecord) {
        let taken = self.by_source.values().any(|&n| n == record.partition);
        if !taken && !self.by_source.contains_key(&record.source) {
            self.by_source.insert(record.source.clone(), record.partition);
        }
        self.last.insert(record.source, record.partition);
    }

    fn free(&self) -> i32 {
        let taken: BTreeSet<i32> = self.by_source.values().copied().collect();
        (0..).find(|n| !taken.contains(n)).unwrap_or_default()
    }

    /// Sources whose last record is not the one that counts.
    fn to_mend(&self) -> Vec<(String, i32)> {
        let counts = self.by_source.iter().filter(|(source, n)| self.last.get(*source) != Some(n));
        counts.map(|(source, &n)| (source.clone(), n)).collect()
    }
}

/// This instance's place in the group of captures. One per log; joins at the first claim.
pub(crate) struct Membership {
    clients: Clients,
    names: TopicNames,
    member: Mutex<Option<Member>>,
    /// Numbers given; they never change.
    numbers: Mutex<BTreeMap<String, i32>>,
}

impl Membership {
    pub(crate) fn new(clients: Clients, names: TopicNames) -> Self {
        Self { clients, names, member: Mutex::new(None), numbers: Mutex::default() }
    }

    /// The source's number, given to it if it has none yet. Makes the side topics.
    ///
    /// # Errors
    /// As [`Topics::ensure`], and `Transient` if others keep taking the numbers.
    pub(crate) async fn number(&self, source: &str) -> Result<i32> {
        if let Some(number) = self.numbers.lock().ok().and_then(|numbers| numbers.get(source).copied()) {
            return Ok(number);
        }
        let number = self.take_number(source).await?;
        if let Ok(mut numbers) = self.numbers.lock() {
            numbers.insert(source.to_owned(), number);
        }
        Ok(number)
    }

    async fn take_number(&self, source: &str) -> Result<i32> {
        let topics = Topics::new(&self.clients, &format!("{source}-tasks"))?;
        topics.ensure(&TopicSpec::side(&self.names, self.clients.resolved())).await?;
        for _ in 0..ROUNDS {
            let numbers = self.read(source).await?;
            let mend = numbers.to_mend();
            if !mend.is_empty() {
                self.write(source, mend).await?;
            }
            if let Some(&number) = numbers.by_source.get(source) {
                self.make_room(&topics, number).await?;
                return Ok(number);
            }
            self.write(source, vec![(source.to_owned(), numbers.free())]).await?;
        }
        Err(Error::transient(format!("take a number for source {source}")))
    }

    /// Waits until this instance owns partition `number` of the tasks.
    pub(crate) async fn own(&self, number: i32) -> Result<()> {
        let mut state = self.join()?;
        let mut waited = false;
        loop {
            {
                let now = state.borrow_and_update();
                if let Some((failure, hint)) = &now.failure {
                    return Err(Error::config(failure.clone()).hint(hint.clone()));
                }
                if now.owned.contains(&number) {
                    return Ok(());
                }
            }
            match tokio::time::timeout(Duration::from_secs(30), state.changed()).await {
                Ok(Err(_)) => {
                    return Err(Error::transient("the membership in the group of captures has ended"));
                }
                Ok(Ok(())) => {}
                Err(_) if !waited => {
                    waited = true;
                    tracing::info!(
                        number,
                        "waiting for the group of captures to give the source to this instance: another one works, or the group's broker is out of reach"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// What tells whether this instance still owns `number`; none if it does not now (it was opened without a claim).
    pub(crate) fn ownership(&self, number: i32) -> Option<Ownership> {
        let state = self.member.lock().ok()?.as_ref()?.state.clone();
        let owned = state.borrow().owned.contains(&number);
        owned.then_some(Ownership { number, state })
    }

    fn join(&self) -> Result<watch::Receiver<State>> {
        let mut member =
            self.member.lock().map_err(|_| Error::bug("the group membership was left half-made"))?;
        if member.as_ref().is_none_or(|m| m.state.has_changed().is_err()) {
            *member = Some(Member::start(&self.clients, self.names.tasks())?);
        }
        member.as_ref().map(|m| m.state.clone()).ok_or_else(|| Error::bug("no group membership"))
    }

    async fn read(&self, source: &str) -> Result<Numbers> {
        read(&self.clients, &self.names, &format!("{source}-tasks")).await
    }

    async fn write(&self, role: &str, records: Vec<(String, i32)>) -> Result<()> {
        let mut config = self.clients.durable(&format!("{role}-tasks"));
        config.set("linger.ms", "0").set("message.timeout.ms", "15000");
        let (topic, handed) = (self.names.tasks(), self.clients.handed());
        blocking(move || {
            let producer: BaseProducer<Failures> = config
                .create_with_context(Failures { first: Mutex::default(), handed })
                .map_err(|e| classify(e, "make a producer"))?;
            for (source, partition) in records {
                let record = TaskRecord { v: VERSION, source: source.clone(), partition };
                let value =
                    serde_json::to_vec(&record).map_err(|e| Error::bug("encode a task record").because(e))?;
                producer
                    .send(BaseRecord::with_opaque_to(&topic, ()).partition(0).key(&source).payload(&value))
                    .map_err(|(e, _)| classify(e, format!("write to {topic}")))?;
            }
            producer.flush(REQUEST_TIMEOUT).map_err(|e| classify(e, format!("write to {topic}")))?;
            let failure = producer.context().first.lock().ok().and_then(|mut f| f.take());
            failure.map_or(Ok(()), |e| Err(classify(e, format!("write to {topic}"))))
        })
        .await
    }

    /// Adds partitions to the per-source topics until `number` is one of them.
    async fn make_room(&self, topics: &Topics, number: i32) -> Result<()> {
        let needed = number as u32 + 1;
        let names =
            [self.names.positions(), self.names.watermarks(), self.names.schemas(), self.names.tasks()];
        let existing = topics.list().await?;
        for name in names {
            if existing.get(&name).is_some_and(|t| t.partitions < needed) {
                topics.grow(&name, needed.next_multiple_of(crate::topics::SIDE_PARTITIONS)).await?;
            }
        }
        Ok(())
    }
}

/// The sources that have a number, and it.
///
/// # Errors
/// `Transient` if the tasks topic is not there, or its broker does not answer.
pub(crate) async fn numbers(
    clients: &Clients,
    names: &TopicNames,
    role: &str,
) -> Result<BTreeMap<String, i32>> {
    Ok(read(clients, names, role).await?.by_source)
}

/// The same with clients that are there already. Waits for the network.
pub(crate) fn replay(replayer: &mut Replayer, tasks: (String, i32)) -> Result<BTreeMap<String, i32>> {
    Ok(replay_all(replayer, tasks)?.by_source)
}

fn replay_all(replayer: &mut Replayer, tasks: (String, i32)) -> Result<Numbers> {
    let mut numbers = Numbers::default();
    replayer.replay(&[tasks], REQUEST_TIMEOUT, |_, (_, value, _)| {
        if let Some(record) = value.and_then(|v| serde_json::from_slice(v).ok()) {
            numbers.take(record);
        }
        Ok(())
    })?;
    Ok(numbers)
}

async fn read(clients: &Clients, names: &TopicNames, role: &str) -> Result<Numbers> {
    let (clients, topic, role) = (clients.clone(), names.tasks(), role.to_owned());
    blocking(move || replay_all(&mut Replayer::new(&clients, &role), (topic, 0))).await
}

struct Failures {
    first: Mutex<Option<KafkaError>>,
    handed: Handed,
}

impl ClientContext for Failures {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        self.handed.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let (Err((error, _)), Ok(mut first)) = (result, self.first.lock()) {
            first.get_or_insert_with(|| error.clone());
        }
    }
}

/// What the group has given to this instance.
#[derive(Clone, Debug, Default)]
struct State {
    owned: BTreeSet<i32>,
    /// Something that only the operator can mend, and how.
    failure: Option<(String, String)>,
}

/// A source that the group gave to this instance.
pub(crate) struct Ownership {
    number: i32,
    state: watch::Receiver<State>,
}

impl Ownership {
    /// Whether it is still this instance's.
    ///
    /// # Errors
    /// `Fenced` if the group has taken it away: whoever has it now fences this writer anyway, sooner or later.
    pub(crate) fn check(&self, source: &str) -> Result<()> {
        if self.state.borrow().owned.contains(&self.number) {
            return Ok(());
        }
        Err(Error::fenced(format!("the group of captures has taken source {source} from this instance")))
    }
}

/// A group member, polled by a thread of its own until it is dropped.
struct Member {
    state: watch::Receiver<State>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn start(clients: &Clients, topic: String) -> Result<Self> {
        let config = clients.member("tasks", &topic);
        let (sender, state) = watch::channel(State::default());
        let consumer: BaseConsumer<Owned> = config
            .create_with_context(Owned { sender, handed: clients.handed() })
            .map_err(|e| classify(e, "join the group of captures"))?;
        consumer.subscribe(&[&topic]).map_err(|e| classify(e, format!("subscribe to {topic}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("caudal-tasks".into())
            .spawn({
                let clients = clients.clone();
                move || poll(&consumer, &stopped, &clients, &topic)
            })
            .map_err(|e| Error::transient("start the thread of the group membership").because(e))?;
        Ok(Self { state, stop, thread: Some(thread) })
    }
}

// Waits (some 100 ms, at the end of the daemon) until the group is told: else it gives the sources to nobody for a while.
impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its hook, and nothing is left to undo.
            let _ = thread.join();
        }
    }
}

/// Serves the membership. The records themselves are read elsewhere.
fn poll(consumer: &BaseConsumer<Owned>, stop: &AtomicBool, clients: &Clients, group: &str) {
    while !stop.load(Ordering::Relaxed) {
        if let Some((_, reason)) = consumer.client().fatal_error() {
            tracing::warn!(reason, "the membership in the group of captures is over");
            consumer.context().sender.send_modify(|s| s.owned.clear());
            return;
        }
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(50)) {
            if is_late_token(&error, clients.resolved().tokens.is_some()) {
                continue;
            }
            let doing = ("Read", Resource::Group(group));
            let error =
                classify_doing(error, "take part in the group of captures", clients.resolved(), doing);
            if error.fault() == Fault::Config {
                let hint = error.hint_text().unwrap_or_default().to_owned();
                consumer.context().sender.send_modify(|s| s.failure = Some((error.to_string(), hint)));
            }
        }
    }
}

struct Owned {
    sender: watch::Sender<State>,
    handed: Handed,
}

impl ClientContext for Owned {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        self.handed.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl ConsumerContext for Owned {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &TopicPartitionList| -> Vec<i32> {
            list.elements().iter().map(|e| e.partition()).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => self.sender.send_modify(|s| {
                s.owned.extend(partitions(list));
                s.failure = None;
            }),
            Rebalance::Revoke(list) => self.sender.send_modify(|s| {
                for partition in partitions(list) {
                    s.owned.remove(&partition);
                }
            }),
            Rebalance::Error(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(records: &[(&str, i32)]) -> Numbers {
        let mut numbers = Numbers::default();
        for &(source, partition) in records {
            numbers.take(TaskRecord { v: VERSION, source: source.into(), partition });
        }
        numbers
    }

    #[test]
    fn the_first_record_of_a_source_that_takes_a_free_number_counts() {
        let n = numbers(&[("a", 0), ("b", 0), ("b", 1), ("a", 3)]);
        assert_eq!(n.by_source, BTreeMap::from([("a".into(), 0), ("b".into(), 1)]));
        assert_eq!(n.free(), 2);
    }

    #[test]
    fn a_contradicting_last_record_is_mended_before_compaction_makes_it_the_only_one() {
        let n = numbers(&[("a", 0), ("b", 1), ("a", 2)]);
        assert_eq!(n.to_mend(), [("a".to_owned(), 0)]);
        assert!(numbers(&[("a", 0), ("b", 0), ("b", 1)]).to_mend().is_empty());
    }
}
