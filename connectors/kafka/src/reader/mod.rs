//! Kafka as the source of a sink: batches of events, with the offsets that are safe once they are durable.
//!
//! | file | what |
//! |---|---|
//! | `whole.rs` | `consistency: transaction`: from watermark to watermark |
//! | `shared.rs` | `consistency: key`: partitions shared among instances |
//! | `sides.rs` | the side topics of a source |
//! | `tables.rs` | one table by itself, up to given ends |
//! | `partitions.rs` | the partitions in hand, their shapes and offsets |
//! | `join.rs` | records that were written in parts |
//! | `feed.rs`, `lanes.rs` | partitions as queues; over librdkafka |
//! | `runner.rs`, `wake.rs` | the thread that reads |
//! | `publication.rs`, `freshness.rs` | what is told to Kafka's tools and to operators |

mod feed;
mod freshness;
mod join;
mod lanes;
mod partitions;
mod publication;
mod replays;
mod runner;
mod scopes;
mod shared;
mod sides;
mod tables;
mod wake;
mod whole;

#[cfg(test)]
mod tests;

pub use freshness::Freshness;
pub use tables::{HeldTable, TableReader};

use crate::client::{Clients, Quiet, blocking};
use crate::dead_letters::{self, Desk, LogDeadLetters};
use crate::group::{self, Member, Partition, Share};
use crate::log::Log;
use crate::replay::Replayer;
use crate::sources::{self, Numbers};
use crate::topic_ids;
use async_trait::async_trait;
use caudal_core::{
    Batch, Check, DeadLetters, Error, LogPosition, Position, Reader, Result, Selected, Source, TableSchema,
};
use caudal_proto::side::TopicNames;
use lanes::{Lanes, Tails};
use partitions::Promise;
use publication::Publication;
use rdkafka::producer::FutureProducer;
use replays::{Ids, Replays};
use runner::{Delivery, Mode, Replayed, Runner};
use shared::Shared;
use sides::{Side, SourceSides};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wake::Wake;
use whole::{Limits, Whole};

/// How often a source that has not started yet is looked for, at last: a new source and its sink mostly start together.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same while other sources are read.
const LOOK_AT_LAST: Duration = Duration::from_secs(30);
/// The first pause before that; it doubles.
const LOOK_SOON: Duration = Duration::from_millis(100);

/// What a sink promises its readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// From one state of the source to the next, over all tables.
    Transaction,
    /// Each row by itself: instances share the tables.
    #[default]
    Key,
}

/// Bounds of a reader.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// A batch is closed at this size in bytes; one larger holds one row more.
    pub batch_bytes: usize,
    /// Small source transactions are delivered together up to about so many records.
    pub step_records: i64,
    /// Bytes fetched ahead over all partitions.
    pub fetch_bytes: usize,
    /// Columns that the sink looks at; none: all.
    pub selected: Option<Selected>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { batch_bytes: 2 << 20, step_records: 20_000, fetch_bytes: 16 << 20, selected: None }
    }
}

/// The log as the source of one sink.
pub struct LogSource {
    clients: Clients,
    names: TopicNames,
    sink: String,
    /// Which of those in this process that read for the sink, from 1.
    number: u32,
    from: Vec<String>,
    consistency: Consistency,
    options: ReadOptions,
    member: Mutex<Option<Arc<Member>>>,
    freshness: Arc<Freshness>,
    desk: Arc<Desk>,
}

impl Log {
    /// The log as the source of `sink`, with the events of the captured sources `from`. `sink` names the consumer group.
    #[must_use]
    pub fn sink_source(
        &self,
        sink: &str,
        from: Vec<String>,
        consistency: Consistency,
        options: ReadOptions,
    ) -> Arc<LogSource> {
        Arc::new(LogSource::new(self, sink, from, consistency, options))
    }

    /// Where the events go that `sink` cannot take.
    #[must_use]
    pub fn dead_letters(&self, sink: &str) -> Arc<dyn DeadLetters> {
        let desk = Desk::of(&self.desks, sink);
        Arc::new(LogDeadLetters::new(self.clients.clone(), self.names.clone(), sink, desk))
    }
}

impl LogSource {
    fn new(log: &Log, sink: &str, from: Vec<String>, consistency: Consistency, options: ReadOptions) -> Self {
        let (clients, names) = (log.clients.clone(), log.names.clone());
        let desk = Desk::of(&log.desks, sink);
        let (sink, number) = (sink.to_owned(), log.number);
        let (member, freshness) = (Mutex::default(), Arc::default());
        Self { clients, names, sink, number, from, consistency, options, member, freshness, desk }
    }

    /// Whether the log's records hold what a sink needs.
    fn readable(&self) -> Result<()> {
        let format = self.clients.resolved().config.format;
        if format.is_readable() {
            return Ok(());
        }
        Err(Error::config(format!(
            "the sink `{}` cannot read records of the format `{}`: they lack the row before, or the place in the source",
            self.sink,
            format.as_str()
        ))
        .field("kafka.format")
        .hint("take `json`, or run the sink in a daemon of its own over a log that has it"))
    }

    /// Up to which moment of each source the sink is complete.
    #[must_use]
    pub fn freshness(&self) -> Arc<Freshness> {
        Arc::clone(&self.freshness)
    }

    fn role(&self, job: &str) -> String {
        match self.number {
            1 => format!("{}-{job}", self.sink),
            number => format!("{}-{number}-{job}", self.sink),
        }
    }

    /// This instance's membership, made at the first claim.
    fn member(&self) -> Result<Arc<Member>> {
        let mut member = self.member.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = member.as_ref().filter(|member| !member.share().borrow().over) {
            return Ok(Arc::clone(member));
        }
        let group = group::name(&self.names, &self.sink);
        let joined = Arc::new(Member::join(&self.clients, &group, &self.role("group"))?);
        *member = Some(Arc::clone(&joined));
        Ok(joined)
    }

    /// The numbers of this sink's sources that have one.
    async fn numbers(&self) -> Result<Numbers> {
        let mut numbers = sources::numbers(&self.clients, &self.names, &self.role("tasks")).await?;
        numbers.retain(|source, _| self.from.contains(source));
        Ok(numbers)
    }

    /// Waits until at least one of the sources has been captured.
    async fn wait_for_sources(&self) -> Result<Numbers> {
        let mut said = false;
        let mut pause = LOOK_SOON;
        loop {
            let numbers = self.numbers().await?;
            if !numbers.is_empty() {
                return Ok(numbers);
            }
            if !said {
                tracing::info!(
                    sink = self.sink,
                    from = self.from.join(", "),
                    "waiting for a source's first capture"
                );
                said = true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_EVERY);
        }
    }

    /// What is shared in the group, of the sources captured so far: the seat of the one that works, or the partitions of their
    /// tables. In `key` mode it waits for a first table, be it of a source that is captured meanwhile.
    async fn shared(&self) -> Result<(Numbers, BTreeSet<Partition>)> {
        loop {
            let numbers = self.wait_for_sources().await?;
            if self.consistency == Consistency::Transaction {
                return Ok((numbers, BTreeSet::from([group::seat(&self.names)])));
            }
            let schemas =
                sources::schemas(&self.clients, &self.names, &self.role("schemas"), &numbers).await?;
            let topics = numbers.keys().flat_map(|source| schemas.topics(source));
            let shared: BTreeSet<Partition> = topics
                .flat_map(|(topic, partitions)| (0..partitions as i32).map(move |p| (topic.to_owned(), p)))
                .collect();
            if !shared.is_empty() {
                return Ok((numbers, shared));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes part in sharing what there is now. Subscribed anew each time: a source or a table that has come since the claim
    /// would have no owner, and its rows no reader.
    async fn take_part(&self) -> Result<Part> {
        let (numbers, shared) = self.shared().await?;
        let member = self.member()?;
        let topics: BTreeSet<&str> = shared.iter().map(|(topic, _)| topic.as_str()).collect();
        member.subscribe(&topics.into_iter().collect::<Vec<_>>())?;
        let mut share = member.share();
        let owned = group::own(&mut share, |partition| shared.contains(partition)).await?;
        Ok(Part { numbers, member, share, shared, owned })
    }

    /// Opens the reading half, on a thread that may wait.
    async fn read(
        &self,
        sides: &[SourceSides],
        owned: &BTreeSet<Partition>,
        shared: &BTreeSet<Partition>,
        from: LogPosition,
    ) -> Result<(Box<dyn Mode>, Arc<Wake>, Tails)> {
        let (clients, role, options) = (self.clients.clone(), self.role("read"), self.options.clone());
        let (sides, owned, shared) = (sides.to_vec(), owned.clone(), shared.clone());
        let (consistency, desk) = (self.consistency, Arc::clone(&self.desk));
        let letters = self.names.dead_letters(&self.sink);
        let runtime = tokio::runtime::Handle::current();
        blocking(move || {
            let expected = from.offsets.len().max(owned.len()).max(16);
            let lanes = Lanes::new(&clients, &role, expected, options.fetch_bytes)?;
            let (wake, tails) = (lanes.wake(), lanes.tails());
            let resolved = clients.clone();
            let ids =
                move |topics: &[String]| runtime.block_on(topic_ids::fetch(resolved.resolved(), topics));
            let ids: Ids = Arc::new(ids);
            let as_who = (clients.clone(), format!("{role}-replay"));
            let replays = Replays::new(as_who, (&letters, Arc::clone(&ids)), desk, Arc::clone(&wake));
            let lag_ms = clients.resolved().config.topics.min_compaction_lag.get().as_millis() as i64;
            let promise = Promise { lag_ms, now: now_ms };
            let limits =
                Limits { batch_bytes: options.batch_bytes, step_records: options.step_records, promise };
            let mode: Box<dyn Mode> = match consistency {
                Consistency::Transaction => Box::new(
                    Whole::open(lanes, &sides, &from, limits, &*ids)?
                        .selecting(options.selected)
                        .with(replays),
                ),
                Consistency::Key => Box::new(
                    Shared::open(lanes, &sides, (&owned, &shared), &from, limits, &*ids)?
                        .selecting(options.selected)
                        .with(replays),
                ),
            };
            Ok((mode, wake, tails))
        })
        .await
    }

    async fn sides(&self, numbers: &Numbers) -> Vec<SourceSides> {
        let (watermarks, schemas) = (self.names.watermarks(), self.names.schemas());
        let ids = topic_ids::fetch(self.clients.resolved(), &[watermarks.clone(), schemas.clone()]).await;
        let side = |topic: &str, partition| Side {
            topic: Arc::from(topic),
            topic_id: ids.get(topic).copied().unwrap_or_default(),
            partition,
        };
        let sides = numbers.iter().map(|(source, &n)| SourceSides {
            source: source.clone(),
            watermarks: side(&watermarks, n),
            schemas: side(&schemas, n),
        });
        sides.collect()
    }
}

#[async_trait]
impl Source for LogSource {
    async fn check(&self) -> Vec<Check> {
        if let Err(error) = self.readable() {
            let fix = error.hint_text().unwrap_or_default().to_owned();
            return vec![Check::error("kafka.format", error.to_string(), fix)];
        }
        match self.numbers().await {
            Ok(numbers) => self.from.iter().map(|source| known(source, &numbers)).collect(),
            Err(error) => {
                let fix =
                    error.hint_text().unwrap_or("is the log running, and reachable from here?").to_owned();
                vec![Check::error("kafka.brokers", error.to_string(), fix)]
            }
        }
    }

    async fn discover(&self) -> Result<Vec<TableSchema>> {
        let numbers = self.numbers().await?;
        let schemas = sources::schemas(&self.clients, &self.names, &self.role("discover"), &numbers).await?;
        Ok(numbers.keys().flat_map(|source| schemas.tables(source).cloned().collect::<Vec<_>>()).collect())
    }

    async fn claim(&self) -> Result<()> {
        self.readable()?;
        self.take_part().await.map(|_| ())
    }

    async fn open(&self, from: Option<Position>) -> Result<Box<dyn Reader>> {
        let from = match from {
            None => LogPosition::default(),
            Some(Position::Log(position)) => position,
            Some(Position::Source(_)) => {
                return Err(Error::bug("a source's position was given to the log's reader"));
            }
        };
        let Part { numbers, member, share, shared, owned } = self.take_part().await?;
        let sides = self.sides(&numbers).await;
        let (mode, wake, tails) = self.read(&sides, &owned, &shared, from).await?;
        self.freshness.restart();
        let letters = Letters::follow(self, Arc::clone(&wake))?;
        Ok(Box::new(LogReader {
            letters,
            runner: Runner::start(mode, wake, &self.sink)?,
            publication: Publication::new(member, tails),
            share,
            owned,
            shared,
            sources: sides.iter().map(|side| side.source.clone()).collect(),
            delivered: BTreeMap::new(),
            consistency: self.consistency,
            freshness: Arc::clone(&self.freshness),
            missing: Missing::of(self, &numbers),
        }))
    }
}

/// An instance's part in the sink's group.
struct Part {
    /// The sources that it was of.
    numbers: Numbers,
    member: Arc<Member>,
    share: watch::Receiver<Share>,
    /// What the group shares of this sink.
    shared: BTreeSet<Partition>,
    /// What of it this instance has.
    owned: BTreeSet<Partition>,
}

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    crate::encode::system_clock() / 1_000
}

fn known(source: &str, numbers: &Numbers) -> Check {
    if numbers.contains_key(source) {
        return Check::ok(format!("from {source}"), "has been captured into this log");
    }
    Check::warning(
        format!("from {source}"),
        "has not been captured into this log yet",
        format!("the sink waits for it; check source {source}"),
    )
}

/// Sources that had not started when the reader was opened. Looks with the same clients each time, and ever more seldom: what
/// starts is read a moment later, and what never does costs nothing.
struct Missing {
    replayer: Arc<Mutex<Replayer>>,
    tasks: Partition,
    sources: Vec<String>,
    looked: Instant,
    pause: Duration,
}

impl Missing {
    fn of(source: &LogSource, numbers: &Numbers) -> Self {
        let sources = source.from.iter().filter(|name| !numbers.contains_key(*name)).cloned().collect();
        let replayer = Arc::new(Mutex::new(Replayer::new(&source.clients, &source.role("tasks"))));
        let tasks = (source.names.tasks(), 0);
        Self { replayer, tasks, sources, looked: Instant::now(), pause: LOOK_EVERY }
    }

    /// Looks now and then. One that has started is read after a reopen.
    async fn look(&mut self) -> Result<()> {
        if self.sources.is_empty() || self.looked.elapsed() < self.pause {
            return Ok(());
        }
        self.pause = (self.pause * 2).min(LOOK_AT_LAST);
        let (replayer, tasks) = (Arc::clone(&self.replayer), self.tasks.clone());
        let numbers = blocking(move || {
            let mut replayer = replayer.lock().unwrap_or_else(PoisonError::into_inner);
            crate::tasks::replay(&mut replayer, tasks)
        })
        .await?;
        self.looked = Instant::now();
        match self.sources.iter().find(|source| numbers.contains_key(*source)) {
            Some(source) => Err(Error::transient(format!("source {source} has started; reading it too"))),
            None => Ok(()),
        }
    }
}

/// The sink's dead letters: followed while the reader lives, and dropped when they have been applied after all.
struct Letters {
    clients: Clients,
    topic: String,
    role: String,
    desk: Arc<Desk>,
    over: Arc<AtomicBool>,
    /// Delivered and not yet durable. Bound: the batches in flight.
    in_flight: Vec<Replayed>,
    producer: Option<FutureProducer<Quiet>>,
}

impl Letters {
    fn follow(source: &LogSource, wake: Arc<Wake>) -> Result<Self> {
        let topic = source.names.dead_letters(&source.sink);
        let (clients, role) = (source.clients.clone(), source.role("dlq"));
        let (desk, over) = (Arc::clone(&source.desk), Arc::new(AtomicBool::new(false)));
        let letters = Self {
            clients: clients.clone(),
            topic: topic.clone(),
            role: role.clone(),
            desk: Arc::clone(&desk),
            over: Arc::clone(&over),
            in_flight: Vec::new(),
            producer: None,
        };
        let follow = move || {
            let is_over = || over.load(Ordering::Relaxed);
            dead_letters::follow(&clients, (&topic, &role), &desk, &|| wake.set(), &is_over);
        };
        let thread = std::thread::Builder::new().name("caudal-letters".into());
        thread.spawn(follow).map_err(|e| Error::transient("start the thread of dead letters").because(e))?;
        Ok(letters)
    }

    /// A position is durable: what it tells of letters is taken out of it, and letters that were applied are dropped.
    async fn durable(&mut self, position: &LogPosition) -> Result<LogPosition> {
        let (of_letters, others): (Vec<_>, Vec<_>) =
            position.offsets.iter().cloned().partition(|offset| *offset.topic == *self.topic);
        let is_durable = |replayed: &Replayed| {
            of_letters.iter().any(|o| o.partition == replayed.stored.0 && o.offset >= replayed.stored.1)
        };
        let (done, in_flight): (Vec<_>, Vec<_>) = self.in_flight.drain(..).partition(is_durable);
        self.in_flight = in_flight;
        for replayed in done {
            let refused = self.desk.tried(&replayed.event);
            if !refused || replayed.event != replayed.letter {
                let producer = match self.producer.take() {
                    Some(producer) => producer,
                    None => dead_letters::producer(&self.clients, &self.role)?,
                };
                dead_letters::write(&producer, &self.topic, &replayed.letter, None).await?;
                self.producer = Some(producer);
            }
        }
        Ok(LogPosition { offsets: others })
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Reads the log for one sink.
struct LogReader {
    runner: Runner,
    publication: Publication,
    share: watch::Receiver<Share>,
    owned: BTreeSet<Partition>,
    /// What the group shares of this sink.
    shared: BTreeSet<Partition>,
    /// By the number that deliveries give.
    sources: Vec<String>,
    /// In `key` mode: the offsets delivered so far.
    delivered: BTreeMap<Partition, i64>,
    consistency: Consistency,
    freshness: Arc<Freshness>,
    missing: Missing,
    letters: Letters,
}

impl LogReader {
    /// Whether this instance still owns just what it did when it opened.
    fn check_share(&self) -> Result<()> {
        group::check(&self.owned, &self.shared, &self.share.borrow().owned)
    }

    /// Notes what must be durable for the watermark that a delivery completes.
    fn note(&mut self, delivery: &Delivery) {
        let Delivery { batch, complete, .. } = delivery;
        let Position::Log(position) = &batch.position else { return };
        if delivery.replayed.is_some() {
            return;
        }
        let offsets = position.offsets.iter().map(|o| ((o.topic.to_string(), o.partition), o.offset));
        if self.consistency == Consistency::Key {
            self.delivered.extend(offsets.clone());
        }
        let (Some(source), Some(boundary)) = (complete, &batch.boundary) else { return };
        let source = &self.sources[*source];
        match self.consistency {
            Consistency::Transaction => self.freshness.delivered(source, offsets.collect(), boundary.ts_us),
            // One at a time: each notes all partitions.
            Consistency::Key if self.freshness.in_flight(source) => {}
            Consistency::Key => {
                let needs = self.delivered.iter().map(|(partition, offset)| (partition.clone(), *offset));
                self.freshness.delivered(source, needs.collect(), boundary.ts_us);
            }
        }
    }
}

#[async_trait]
impl Reader for LogReader {
    async fn next(&mut self) -> Result<Batch> {
        self.check_share()?;
        self.missing.look().await?;
        let delivery = loop {
            tokio::select! {
                biased;
                changed = self.share.changed() => match changed {
                    Ok(()) => self.check_share()?,
                    Err(_) => return Err(Error::transient("the group's membership has ended")),
                },
                delivery = self.runner.next() => break delivery?,
            }
        };
        self.note(&delivery);
        self.letters.in_flight.extend(delivery.replayed.clone());
        self.publication.refresh();
        Ok(delivery.batch)
    }

    async fn commit(&mut self, position: &Position) -> Result<()> {
        let Position::Log(position) = position else {
            return Err(Error::bug("a source's position was committed to the log's reader"));
        };
        let position = self.letters.durable(position).await?;
        let durable = self.publication.durable(&position);
        self.freshness.durable(durable);
        Ok(())
    }
}
