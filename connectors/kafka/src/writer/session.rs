//! One opened capture: the fenced producer and what it knows of its log.

use crate::acl::{Resource, classify_doing, classify_writing};
use crate::client::{Clients, Quiet};
use crate::config::Delivery;
use crate::faults::{classify, is_fenced};
use crate::replay::{Partition, Replayer};
use crate::topic_ids;
use crate::topics::{Layout, Topic};
use crate::writer::polled::Polled;
use crate::writer::at_least_once::{self, Loose};
use crate::writer::deliveries::Deliveries;
use crate::writer::ledger::Ledger;
use crate::writer::markers::Markers;
use crate::writer::statistics::Statistics;
use crate::writer::stored::Stored;
use caudal_core::{Error, Result, SourcePosition, TableSchema};
use caudal_proto::side::{OpenTransaction, TopicNames};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Which source, and where its records go.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) clients: Clients,
    pub(crate) names: TopicNames,
    pub(crate) source: String,
    /// Its partition of the per-source topics.
    pub(crate) number: i32,
}

/// A data topic of the source, as far as the session has met it.
#[derive(Debug, Default)]
pub(crate) struct KnownTopic {
    pub(crate) id: Uuid,
    /// Shapes whose schema record is committed.
    pub(crate) shapes: HashMap<u32, Arc<TableSchema>>,
}

/// A fenced producer with its books. All methods wait for the network: call them on a blocking thread.
pub(crate) struct Session {
    pub(crate) identity: Identity,
    pub(crate) producer: Polled,
    /// Writes records outside of transactions, where they are written at least once.
    pub(crate) loose: Option<Loose>,
    pub(crate) ledger: Ledger,
    pub(crate) topics: HashMap<String, KnownTopic>,
    /// End offsets of the partitions touched since the last watermark.
    pub(crate) touched: BTreeMap<Partition, i64>,
    /// The last watermark's number.
    pub(crate) watermark: u64,
    pub(crate) epoch: u64,
    /// Source time of the last watermark of this session.
    pub(crate) ts_us: i64,
    /// When the last full watermark was written; none yet: the next one is full.
    pub(crate) last_full: Option<Instant>,
    /// A topic was met since then: the next one should be full, if the last is not too near.
    pub(crate) full_wanted: bool,
    pub(crate) last_end: Option<Instant>,
    /// Of the last transaction.
    pub(crate) markers: Markers,
    /// When another writer was last told of.
    pub(crate) last_warning: Option<Instant>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) resumed: Option<SourcePosition>,
    /// The announced transaction that went on at the stored position.
    pub(crate) transaction: Option<OpenTransaction>,
    /// Headers of each data record and schema change: Debezium's, in its profile.
    pub(crate) context: Vec<(&'static str, String)>,
    /// When the last heartbeat was written.
    pub(crate) last_heartbeat: Option<Instant>,
}

impl Session {
    /// Opens in the one order that is right: fence, then read what is committed, then the ends.
    ///
    /// `existing`: the topics of the log. `layout` learns the partition counts that keys were spread over.
    pub(crate) fn open(
        identity: Identity,
        existing: &HashMap<String, Topic>,
        layout: &Layout,
        statistics: Arc<Statistics>,
    ) -> Result<Self> {
        let producer = producer(&identity, Arc::clone(&statistics))?;
        let patience = identity.clients.resolved().config.transaction_timeout.get();
        producer.init_transactions(patience * 2).map_err(|e| {
            let context = format!("fence the former writer of source {}", identity.source);
            match is_displaced(&producer, &e, &context) {
                Some(error) => error,
                None => {
                    let id = transactional_id(&identity);
                    let doing = ("Write", Resource::TransactionalId(&id));
                    classify_doing(e, context, identity.clients.resolved(), doing)
                }
            }
        })?;
        let names = &identity.names;
        let mut replayer = Replayer::new(&identity.clients, &identity.source);
        let who = (identity.source.as_str(), identity.number);
        let Stored { position: stored, topics: known } =
            Stored::read(&mut replayer, names, who, patience * 2)?;
        let mut session = Self {
            producer,
            loose: None,
            ledger: Ledger::default(),
            topics: HashMap::new(),
            touched: BTreeMap::new(),
            watermark: 0,
            epoch: stored.epoch(),
            ts_us: i64::MIN,
            last_full: None,
            full_wanted: false,
            last_end: None,
            markers: Markers::of(transactional_id(&identity)),
            last_warning: None,
            statistics,
            resumed: stored.position(),
            transaction: None,
            context: Vec::new(),
            last_heartbeat: None,
            identity,
        };
        if let Some(record) = stored.record {
            session.watermark = record.watermark;
            session.transaction = record.transaction;
            for (topic, ends) in record.touched {
                let ends = ends.into_iter().map(|(partition, end)| ((topic.clone(), partition), end));
                // Nobody can reach an end in a topic that is gone.
                if existing.contains_key(&topic) {
                    session.touched.extend(ends);
                }
            }
        }
        let mut partitions = Vec::new();
        for (name, topic) in known {
            layout.fix(&name, topic.partitions);
            if existing.contains_key(&name) {
                partitions.extend((0..topic.partitions as i32).map(|p| (name.clone(), p)));
            }
            let shapes =
                topic.shapes.into_iter().map(|(version, shape)| (version, Arc::new(shape))).collect();
            session.topics.insert(name, KnownTopic { id: topic.id, shapes });
        }
        if session.identity.clients.resolved().config.delivery == Delivery::AtLeastOnce {
            // Before the ends are asked: who displaces this writer from here on has a greater number.
            at_least_once::claim(&session)?;
            session.loose = Some(Loose::new(&session.identity, Arc::clone(&session.statistics))?);
        }
        session.ledger.learn(replayer.ends(&partitions)?);
        Ok(session)
    }

    /// Asks the broker where partitions end.
    pub(crate) fn learn_ends(&mut self, partitions: &[Partition]) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut replayer = Replayer::new(&self.identity.clients, &self.identity.source);
        self.ledger.learn(replayer.ends(partitions)?);
        Ok(())
    }

    /// Asks the ids of the partitions' topics anew.
    pub(crate) fn meet_again(&mut self, partitions: &[Partition]) {
        let topics: std::collections::BTreeSet<String> =
            partitions.iter().map(|(topic, _)| topic.clone()).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        let resolved = self.identity.clients.resolved();
        let ids = tokio::runtime::Handle::current().block_on(topic_ids::fetch(resolved, &topics));
        for (name, id) in ids {
            self.meet(&name, id);
        }
    }

    /// What the broker says of a topic's id now. A topic that was made anew under an old name has no shapes yet; nil tells
    /// nothing.
    pub(crate) fn meet(&mut self, name: &str, id: Uuid) {
        let known = self.topics.entry(name.to_owned()).or_default();
        if known.id != id && !id.is_nil() {
            *known = KnownTopic { id, shapes: HashMap::new() };
        }
    }

    /// Commits; a retriable error leaves the outcome open, and committing again settles it.
    pub(crate) fn commit_transaction(&self) -> Result<()> {
        let patience = self.identity.clients.resolved().config.transaction_timeout.get();
        let deadline = Instant::now() + patience * 2;
        self.drain();
        loop {
            match self.producer.commit_transaction(patience) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(e)) if e.is_retriable() && Instant::now() < deadline => {}
                Err(e) => {
                    if let KafkaError::Transaction(e) = &e
                        && e.txn_requires_abort()
                    {
                        self.abort();
                    }
                    return Err(self.failure(e, "commit a transaction"));
                }
            }
        }
    }

    /// Aborts; whatever comes of it, the next `init_transactions` sees to it.
    pub(crate) fn abort(&self) {
        let patience = self.identity.clients.resolved().config.transaction_timeout.get();
        if let Err(error) = self.producer.abort_transaction(patience) {
            tracing::debug!(source = self.identity.source, %error, "abort a transaction");
        }
        self.drain();
    }

    /// The last reports are counted a moment before the library lets go of their records, and a flush that finds one waits
    /// 100 ms: so let go first.
    fn drain(&self) {
        let deadline = Instant::now() + Duration::from_millis(500);
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }

    /// An error of the producer with its fault: fenced beats all.
    pub(crate) fn failure(&self, error: KafkaError, context: &str) -> Error {
        let context = format!("{context} of source {}", self.identity.source);
        if let Some(error) = is_displaced(&self.producer, &error, &context) {
            return error;
        }
        let names = &self.identity.names;
        let sides = [names.positions(), names.watermarks(), names.schemas(), names.prefix().to_owned()];
        let topics: Vec<String> = self.topics.keys().cloned().chain(sides).collect();
        classify_writing(error, context, self.identity.clients.resolved(), &topics, names.prefix())
    }
}

/// The error of a producer that another has displaced.
fn is_displaced(producer: &Polled, error: &KafkaError, context: &str) -> Option<Error> {
    let hint = "another daemon has taken over this source";
    match producer.client().fatal_error() {
        Some((code, reason)) if is_fenced(code) => {
            Some(Error::fenced(format!("{context}: {reason}")).hint(hint))
        }
        _ if error.rdkafka_error_code().is_some_and(is_fenced) => {
            Some(Error::fenced(format!("{context}: {error}")).hint(hint))
        }
        _ => None,
    }
}

/// Longer than a batch is usually on its way; see [`crate::writer::flush`].
pub(crate) const LINGER: Duration = Duration::from_millis(25);

fn transactional_id(identity: &Identity) -> String {
    format!("caudal.{}.{}", identity.names.prefix(), identity.source)
}

/// The producer that all must have before they write to the source's topics: making it fences the one before.
fn producer(identity: &Identity, statistics: Arc<Statistics>) -> Result<Polled> {
    let mut client = settings(identity, "capture");
    let timeout = identity.clients.resolved().config.transaction_timeout.get().as_millis().to_string();
    client.set("transactional.id", transactional_id(identity));
    client.set("transaction.timeout.ms", &timeout);
    made(&client, identity, statistics)
}

/// A producer with these settings, for a source.
pub(crate) fn made(
    client: &rdkafka::ClientConfig,
    identity: &Identity,
    statistics: Arc<Statistics>,
) -> Result<Polled> {
    made_for(client, &format!("source {}", identity.source), (statistics, identity.clients.quiet()))
}

/// A producer with these settings.
pub(crate) fn made_for(
    client: &rdkafka::ClientConfig,
    what: &str,
    (statistics, quiet): (Arc<Statistics>, Quiet),
) -> Result<Polled> {
    let producer = client
        .create_with_context(Deliveries::new(statistics, quiet))
        .map_err(|e| classify(e, format!("make the producer of {what}")))?;
    Polled::new(producer).map_err(|e| Error::transient("start the thread that takes reports").because(e))
}

/// What all producers of events are set to: each record counts once all replicas in sync have it, and is written once.
pub(crate) fn settings(identity: &Identity, job: &str) -> rdkafka::ClientConfig {
    settings_for(&identity.clients, &format!("{}-{job}", identity.source))
}

/// The same for a client of that role.
pub(crate) fn settings_for(clients: &Clients, role: &str) -> rdkafka::ClientConfig {
    let resolved = clients.resolved();
    let config = &resolved.config;
    let timeout = config.transaction_timeout.get().as_millis().to_string();
    let mut client = clients.durable(role);
    client.set("message.timeout.ms", &timeout);
    client.set("compression.type", resolved.compression());
    client.set("message.max.bytes", (config.topics.max_message_bytes.bytes() + (1 << 20)).to_string());
    client.set(
        "queue.buffering.max.kbytes",
        (config.queue.bytes().max(config.topics.max_message_bytes.bytes()) / 1024).to_string(),
    );
    client.set("queue.buffering.max.messages", "100000");
    set_default(&mut client, resolved, "linger.ms", &LINGER.as_millis().to_string());
    set_default(&mut client, resolved, "batch.num.messages", "10000");
    set_default(&mut client, resolved, "statistics.interval.ms", "10000");
    client
}

/// Sets what the operator has not.
fn set_default(
    client: &mut rdkafka::ClientConfig,
    resolved: &crate::config::Resolved,
    key: &str,
    value: &str,
) {
    if !resolved.properties.contains_key(key) {
        client.set(key, value);
    }
}
