//! Making topics, and holding what exists against what the log's rules need.
//!
//! A topic is made before the first record goes to it, never by the brokers' auto-creation: that would make it with their
//! defaults. What exists is never altered; settings that would break a promise are refused with the command that mends them.
//!
//! Side topics have one partition per source (see [`crate::tasks`]), `schemas` too: a source's open transaction holds up only
//! its own readers.

use crate::acl::{Resource, classify_doing};
use crate::client::{Clients, Isolation, Quiet, REQUEST_TIMEOUT, blocking, is_of_no_group, serve};
use crate::config::Resolved;
use crate::faults::classify;
use crate::replay::Replayer;
use crate::topic_ids::admin::{self as own_admin, Made};
use crate::topic_ids::{self, TopicIds};
use caudal_core::{Check, Error, Fault, Result, TableSchema};
use caudal_proto::side::TopicNames;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// Partitions of the per-source topics at first; more are added with the sources.
pub(crate) const SIDE_PARTITIONS: u32 = 8;

/// Events of a client's queue that are looked at after an attempt to reach the brokers.
const EVENTS: usize = 200;

/// How a topic is to be.
#[derive(Clone, Debug)]
pub(crate) struct TopicSpec {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    settings: BTreeMap<String, String>,
    /// Settings that an existing topic must have.
    needs: Vec<Need>,
}

/// What an existing topic's setting must be.
#[derive(Clone, Debug)]
enum Need {
    Exactly(&'static str, String),
    AtLeast(&'static str, i64),
}

impl Need {
    fn setting(&self) -> (&'static str, String) {
        match self {
            Self::Exactly(name, value) => (name, value.clone()),
            Self::AtLeast(name, least) => (name, least.to_string()),
        }
    }

    fn met_by(&self, value: &str) -> bool {
        match self {
            Self::Exactly(_, wanted) => value == wanted,
            Self::AtLeast(_, least) => value.parse::<i64>().is_ok_and(|n| n >= *least),
        }
    }
}

/// A topic that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) partitions: u32,
}

impl TopicSpec {
    fn new(name: String, partitions: u32, resolved: &Resolved, needs: Vec<Need>) -> Self {
        let topics = &resolved.config.topics;
        let mut settings: BTreeMap<_, _> =
            needs.iter().map(Need::setting).map(|(k, v)| (k.to_owned(), v)).collect();
        settings.insert("max.message.bytes".into(), topics.max_message_bytes.bytes().to_string());
        if let Some(n) = topics.min_insync_replicas {
            settings.insert("min.insync.replicas".into(), n.to_string());
        }
        Self { name, partitions, settings, needs }
    }

    /// A data topic.
    pub(crate) fn data(name: String, partitions: u32, keyed: bool, resolved: &Resolved) -> Self {
        let topics = &resolved.config.topics;
        let limit = topics.max_message_bytes.bytes() as i64;
        let mut needs = if keyed {
            vec![
                Need::Exactly("cleanup.policy", "compact".into()),
                Need::AtLeast("min.compaction.lag.ms", topics.min_compaction_lag.get().as_millis() as i64),
                Need::AtLeast("delete.retention.ms", topics.delete_retention.get().as_millis() as i64),
            ]
        } else {
            vec![
                Need::Exactly("cleanup.policy", "delete".into()),
                Need::Exactly("retention.ms", "-1".into()),
                Need::Exactly("retention.bytes", "-1".into()),
            ]
        };
        needs.push(Need::AtLeast("max.message.bytes", limit));
        let mut spec = Self::new(name, partitions, resolved, needs);
        spec.settings.extend(topics.settings.clone());
        spec
    }

    /// The topics that all sources of a prefix share. Small segments keep what a start must read small.
    pub(crate) fn side(names: &TopicNames, resolved: &Resolved) -> Vec<Self> {
        let (retention, segment) = watermark_times(resolved.config.topics.watermark_retention.get());
        let compact = || vec![Need::Exactly("cleanup.policy", "compact".into())];
        let mut positions = Self::new(names.positions(), SIDE_PARTITIONS, resolved, compact());
        for (key, value) in [
            ("segment.bytes", "16777216"),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("max.compaction.lag.ms", "600000"),
        ] {
            positions.settings.insert(key.into(), value.into());
        }
        let mut watermarks = Self::new(
            names.watermarks(),
            SIDE_PARTITIONS,
            resolved,
            vec![Need::Exactly("cleanup.policy", "delete".into())],
        );
        watermarks.settings.insert("retention.ms".into(), retention.as_millis().to_string());
        watermarks.settings.insert("segment.ms".into(), segment.as_millis().to_string());
        let schemas = Self::new(names.schemas(), SIDE_PARTITIONS, resolved, compact());
        let mut tasks = Self::new(names.tasks(), SIDE_PARTITIONS, resolved, compact());
        tasks.settings.insert("min.compaction.lag.ms".into(), "3600000".into());
        vec![positions, watermarks, schemas, tasks]
    }

    /// A sink's dead letters: kept until they are dropped.
    pub(crate) fn dead_letters(names: &TopicNames, sink: &str, resolved: &Resolved) -> Self {
        let needs = vec![Need::Exactly("cleanup.policy", "compact".into())];
        let mut spec = Self::new(names.dead_letters(sink), 1, resolved, needs);
        // A letter is its record and the headers that say why.
        let limit = resolved.config.topics.max_message_bytes.bytes() + (1 << 20);
        spec.settings.insert("max.message.bytes".into(), limit.to_string());
        spec
    }

    /// Commands to sources: a source remembers the last one that it took, so old ones may go.
    pub(crate) fn signals(names: &TopicNames, resolved: &Resolved) -> Self {
        let needs = vec![Need::Exactly("cleanup.policy", "delete".into())];
        let mut spec = Self::new(names.signals(), 1, resolved, needs);
        spec.settings.insert("retention.ms".into(), (7 * 86_400_000u64).to_string());
        spec
    }

    /// What the daemon tells of itself. Runs are kept for a time; of all else the last record of each key for ever, alerts that are over for
    /// that time at least.
    pub(crate) fn monitoring(names: &TopicNames, resolved: &Resolved) -> Vec<Self> {
        let kept = resolved.config.monitoring.retention.get().as_millis().to_string();
        let policy = |policy: &str| vec![Need::Exactly("cleanup.policy", policy.into())];
        let mut runs = Self::new(names.runs(), 1, resolved, policy("delete"));
        runs.settings.insert("retention.ms".into(), kept.clone());
        let mut alerts = Self::new(names.alerts(), 1, resolved, policy("compact"));
        alerts.settings.insert("min.compaction.lag.ms".into(), kept);
        let latest = [names.metrics(), names.freshness()].map(|name| {
            let mut spec = Self::new(name, 1, resolved, policy("compact"));
            for (key, value) in [
                ("segment.bytes", "16777216"),
                ("min.cleanable.dirty.ratio", "0.1"),
                ("max.compaction.lag.ms", "3600000"),
            ] {
                spec.settings.insert(key.into(), value.into());
            }
            spec
        });
        [runs, alerts].into_iter().chain(latest).collect()
    }

    /// Debezium's topic of schema changes: kept for ever.
    pub(crate) fn schema_changes(names: &TopicNames, resolved: &Resolved) -> Self {
        let needs = vec![
            Need::Exactly("cleanup.policy", "delete".into()),
            Need::Exactly("retention.ms", "-1".into()),
        ];
        Self::new(names.prefix().to_owned(), 1, resolved, needs)
    }

    /// A topic of Debezium's that tells of what goes by, transactions or heartbeats: kept as long as the brokers keep by default.
    pub(crate) fn announcements(name: String, resolved: &Resolved) -> Self {
        Self::new(name, 1, resolved, vec![Need::Exactly("cleanup.policy", "delete".into())])
    }

    /// A topic of somebody else's: with what matters of another one's settings.
    pub(crate) fn like(name: String, settings: Option<&Settings>) -> Self {
        const KEPT: [&str; 6] = [
            "cleanup.policy",
            "delete.retention.ms",
            "max.message.bytes",
            "min.compaction.lag.ms",
            "retention.bytes",
            "retention.ms",
        ];
        let kept = settings.into_iter().flatten().filter(|(name, _)| KEPT.contains(&name.as_str()));
        let settings = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { name, partitions: 1, settings, needs: Vec::new() }
    }

    fn made(&self, replication: i32) -> Made<'_> {
        Made { name: &self.name, partitions: self.partitions, replication, settings: &self.settings }
    }

    fn new_topic(&self, replication: i32) -> NewTopic<'_> {
        let topic = NewTopic::new(&self.name, self.partitions as i32, TopicReplication::Fixed(replication));
        self.settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
    }
}

/// Whether topics that were to be made were all missing.
enum Fresh {
    All,
    Some,
}

/// Makes and checks topics.
#[derive(Clone)]
pub(crate) struct Topics {
    clients: Clients,
    /// None where it cannot be given what clients come in by.
    admin: Option<Arc<AdminClient<Quiet>>>,
    /// Asks for metadata.
    asker: Arc<BaseConsumer<Quiet>>,
    /// What there was at the first look.
    seen: Arc<OnceCell<HashMap<String, Topic>>>,
}

impl Topics {
    pub(crate) fn new(clients: &Clients, role: &str) -> Result<Self> {
        let admin = match clients.resolved().tokens {
            None => Some(Arc::new(clients.admin(role)?)),
            Some(_) => None,
        };
        Ok(Self {
            clients: clients.clone(),
            admin,
            asker: Arc::new(clients.unserved_reader(role, Isolation::Uncommitted)?),
            seen: Arc::default(),
        })
    }

    /// Makes those that are missing, checks the others, and waits until all have a leader. Gives what is there, by name.
    ///
    /// # Errors
    /// `Config` for a setting or partition count that would break a promise, with the command that mends it.
    pub(crate) async fn ensure(&self, specs: &[TopicSpec]) -> Result<HashMap<String, Topic>> {
        let existing = self.list().await?;
        let (present, missing): (Vec<_>, Vec<_>) =
            specs.iter().partition(|spec| existing.contains_key(&spec.name));
        self.check(&present, &existing).await?;
        self.create(&missing).await?;
        self.ready(specs, &missing).await
    }

    /// The same for a writer, which meets its topics one after the other: what there is was looked at once, not for each of them, or 5,000 tables
    /// would take 10,000 lists of up to 5,000 topics. A topic that was taken away since fails its writer, whose next one looks anew.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub(crate) async fn meet(&self, specs: &[TopicSpec]) -> Result<()> {
        let seen = self.seen.get_or_try_init(|| self.list()).await?;
        let (present, missing): (Vec<_>, Vec<_>) =
            specs.iter().partition(|spec| seen.contains_key(&spec.name));
        self.check(&present, seen).await?;
        match self.create(&missing).await? {
            Fresh::All => self.leaders_answer(&missing, Instant::now() + REQUEST_TIMEOUT).await,
            // Somebody else made it since, in whatever way.
            Fresh::Some => self.ensure(specs).await.map(|_| ()),
        }
    }

    /// All topics that this user may see. Asks for all at once: a request for one by name would have it auto-created.
    ///
    /// # Errors
    /// `Config` for a wrong password or certificate, `Transient` if no broker answers.
    pub(crate) async fn list(&self) -> Result<HashMap<String, Topic>> {
        let asker = Arc::clone(&self.asker);
        let brokers = self.clients.resolved().config.brokers.join(", ");
        blocking(move || {
            let metadata = ask(&asker).map_err(|e| e.context(format!("list the topics of {brokers}")))?;
            let led = metadata.topics().iter().filter(|t| t.partitions().iter().all(|p| p.leader() >= 0));
            Ok(led
                .map(|t| (t.name().to_owned(), Topic { partitions: t.partitions().len() as u32 }))
                .collect())
        })
        .await
    }

    /// The ids of topics; nil for those of a broker that has none, or that is reached by a way the id request does not know.
    pub(crate) async fn ids(&self, names: &[String]) -> TopicIds {
        topic_ids::fetch(self.clients.resolved(), names).await
    }

    async fn create(&self, missing: &[&TopicSpec]) -> Result<Fresh> {
        if missing.is_empty() {
            return Ok(Fresh::All);
        }
        let mut fresh = Fresh::All;
        let resolved = self.clients.resolved();
        let replication = resolved.config.topics.replication_factor.map_or(-1, i32::from);
        let results = match &self.admin {
            Some(admin) => {
                let topics: Vec<_> = missing.iter().map(|spec| spec.new_topic(replication)).collect();
                admin.create_topics(&topics, &options()).await.map_err(|e| classify(e, "make topics"))?
            }
            None => {
                let topics: Vec<_> = missing.iter().map(|spec| spec.made(replication)).collect();
                own_admin::create(resolved, &topics).await?
            }
        };
        for result in results {
            match result {
                Ok(_) => {}
                Err((_, Code::TopicAlreadyExists)) => fresh = Fresh::Some,
                Err((topic, code)) => {
                    let (error, doing) = (KafkaError::AdminOp(code), ("Create", Resource::Topic(&topic)));
                    return Err(classify_doing(
                        error,
                        format!("make topic {topic}: {code}"),
                        resolved,
                        doing,
                    ));
                }
            }
        }
        Ok(fresh)
    }

    /// Waits until the topics are told of and, those just made, until their leaders answer: a broker may be told to lead
    /// a moment after the others say so.
    async fn ready(&self, specs: &[TopicSpec], made: &[&TopicSpec]) -> Result<HashMap<String, Topic>> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let existing = self.list().await?;
            match specs.iter().find(|spec| !existing.contains_key(&spec.name)) {
                None => {
                    self.leaders_answer(made, deadline).await?;
                    return Ok(existing);
                }
                Some(spec) if Instant::now() > deadline => {
                    return Err(Error::transient(format!("topic {} has no leader yet", spec.name)));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    async fn leaders_answer(&self, made: &[&TopicSpec], deadline: Instant) -> Result<()> {
        let partitions: Vec<_> =
            made.iter().flat_map(|s| (0..s.partitions as i32).map(|p| (s.name.clone(), p))).collect();
        let clients = self.clients.clone();
        blocking(move || {
            if partitions.is_empty() {
                return Ok(());
            }
            let mut reader = Replayer::new(&clients, "topics");
            loop {
                match reader.ends(&partitions) {
                    Ok(_) => return Ok(()),
                    Err(e) if e.fault() != Fault::Transient || Instant::now() > deadline => return Err(e),
                    Err(_) => std::thread::sleep(Duration::from_millis(25)),
                }
            }
        })
        .await
    }

    /// Grows a topic to `partitions`.
    pub(crate) async fn grow(&self, topic: &str, partitions: u32) -> Result<()> {
        let results = match &self.admin {
            Some(admin) => {
                let wanted = [NewPartitions::new(topic, partitions as usize)];
                let results = admin.create_partitions(&wanted, &options()).await;
                results.map_err(|e| classify(e, format!("add partitions to {topic}")))?
            }
            None => own_admin::grow(self.clients.resolved(), topic, partitions).await?,
        };
        match results.into_iter().next() {
            // Another instance may have grown it meanwhile.
            None | Some(Ok(_) | Err((_, Code::InvalidPartitions))) => Ok(()),
            Some(Err((_, code))) => Err(classify(
                rdkafka::error::KafkaError::AdminOp(code),
                format!("add partitions to {topic}: {code}"),
            )),
        }
    }

    /// Holds existing topics against what the rules need.
    async fn check(&self, present: &[&TopicSpec], existing: &HashMap<String, Topic>) -> Result<()> {
        let names: Vec<&str> = present.iter().map(|spec| spec.name.as_str()).collect();
        let settings = self.settings(&names).await?;
        for spec in present {
            if let Some(settings) = settings.get(&spec.name) {
                refuse(spec, settings)?;
            }
        }
        match present.iter().find(|spec| existing[&spec.name].partitions < spec.partitions) {
            Some(spec) => Err(Error::config(format!(
                "topic {} has {} partitions, {} are needed",
                spec.name, existing[&spec.name].partitions, spec.partitions
            ))
            .hint(format!("kafka-topics.sh --alter --topic {} --partitions {}", spec.name, spec.partitions))),
            None => Ok(()),
        }
    }

    /// The settings of existing topics, by topic; those that this user may not see are missing.
    pub(crate) async fn settings(&self, topics: &[&str]) -> Result<HashMap<String, Settings>> {
        let mut all = HashMap::new();
        for chunk in topics.chunks(100) {
            let Some(admin) = &self.admin else {
                all.extend(own_admin::settings(self.clients.resolved(), chunk).await?);
                continue;
            };
            let resources: Vec<_> = chunk.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
            let answers = admin
                .describe_configs(&resources, &options())
                .await
                .map_err(|e| classify(e, "read the settings of topics"))?;
            for resource in answers.into_iter().flatten() {
                if let OwnedResourceSpecifier::Topic(name) = resource.specifier {
                    let entries = resource.entries.into_iter().filter_map(|e| Some((e.name, e.value?)));
                    all.insert(name, entries.collect());
                }
            }
        }
        Ok(all)
    }

    /// What `caudal check` finds in the topics of a prefix that exist.
    ///
    /// # Errors
    /// If the brokers do not answer.
    pub(crate) async fn findings(&self, names: &TopicNames) -> Result<Vec<Check>> {
        let existing = self.list().await?;
        let resolved = self.clients.resolved();
        let data = format!("{}.", names.prefix());
        let others = [names.transactions(), names.notifications()];
        let is_data = |name: &&str| name.starts_with(&data) && !others.iter().any(|other| other == name);
        let of_prefix: Vec<&str> = existing.keys().map(String::as_str).filter(is_data).collect();
        let settings = self.settings(&of_prefix).await?;
        let mut findings = Vec::new();
        for (name, settings) in &settings {
            // The policy tells for which kind of table the topic was made.
            let keyed = settings.get("cleanup.policy").is_none_or(|policy| policy.contains("compact"));
            if let Err(error) = refuse(&TopicSpec::data(name.clone(), 1, keyed, resolved), settings) {
                let fix = error.hint_text().unwrap_or_default().to_owned();
                findings.push(Check::error(name.clone(), error.to_string(), fix));
            }
        }
        findings.sort_by(|a, b| a.subject.cmp(&b.subject));
        if findings.is_empty() {
            let brokers = resolved.config.brokers.join(", ");
            let count = of_prefix.len();
            findings.push(Check::ok(
                "kafka",
                format!("{brokers}: reachable, {count} data topics, settings as needed"),
            ));
        }
        Ok(findings)
    }
}

/// Asks for the cluster's metadata. What is wrong with the connections (a password, a certificate, nobody there) only the
/// client's event queue tells: it is looked at between attempts, each of which is more patient.
fn ask(asker: &BaseConsumer<Quiet>) -> Result<Metadata> {
    serve(asker)?;
    for patience in [1, 2, 4, 8].map(Duration::from_secs) {
        let failure = match asker.fetch_metadata(None, patience) {
            Ok(metadata) => return Ok(metadata),
            Err(e) => classify(e, "no answer"),
        };
        let mut down = false;
        // Each look takes one event of the queue, and most are lines of the library's log.
        for event in (0..EVENTS).filter_map(|_| asker.poll(Duration::ZERO)).filter_map(Result::err) {
            if is_of_no_group(&event) {
                continue;
            }
            down |= event.rdkafka_error_code() == Some(Code::AllBrokersDown);
            let event = classify(event, "connect");
            if event.fault() == Fault::Config {
                return Err(event);
            }
        }
        if down || failure.fault() == Fault::Config {
            return Err(failure.hint("start the brokers, or correct `kafka.brokers`"));
        }
    }
    Err(Error::transient("no answer").hint("is a broker reachable at `kafka.brokers`?"))
}

/// A topic's settings by name.
pub(crate) type Settings = HashMap<String, String>;

/// A setting that the broker does not tell passes: it has no such setting.
fn refuse(spec: &TopicSpec, settings: &Settings) -> Result<()> {
    let unmet = spec.needs.iter().find_map(|need| {
        let value = settings.get(need.setting().0)?;
        (!need.met_by(value)).then_some((need, value))
    });
    let Some((need, value)) = unmet else { return Ok(()) };
    let (name, wanted) = need.setting();
    Err(Error::config(format!("topic {} has {name}={value}, {wanted} is needed", spec.name)).hint(format!(
        "kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {name}={wanted}",
        spec.name
    )))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT)).request_timeout(Some(REQUEST_TIMEOUT))
}

/// Which topic a table's rows go to, and what its keys are spread over: the count at which the topic was first used, for
/// ever, whatever partitions are added to it later.
pub(crate) struct Layout {
    names: TopicNames,
    clients: Clients,
    fixed: RwLock<HashMap<String, u32>>,
}

impl Layout {
    pub(crate) fn new(names: TopicNames, clients: Clients) -> Self {
        Self { names, clients, fixed: RwLock::default() }
    }

    /// Topic and partitions of a shape.
    pub(crate) fn of(&self, schema: &TableSchema) -> (String, u32) {
        let (database, table) = (&schema.id.database, &schema.id.table);
        let topic = self.names.data(database, table, schema.generation);
        let fixed = self.fixed.read().ok().and_then(|fixed| fixed.get(&topic).copied());
        let partitions = fixed.unwrap_or_else(|| self.clients.resolved().partitions(database, table));
        (topic, partitions)
    }

    /// Remembers what the `schemas` topic tells. Before the first batch is encoded.
    pub(crate) fn fix(&self, topic: &str, partitions: u32) {
        if let Ok(mut fixed) = self.fixed.write() {
            fixed.insert(topic.to_owned(), partitions);
        }
    }
}

/// `retention.ms` and `segment.ms` with which no watermark outlives `kept`, after which data may be compacted. A sink that
/// still found its watermark then would resume over deletes that are gone, in silence. Only closed segments are dropped, by
/// Kafka's default of a week up to a week late; and brokers look only now and then.
fn watermark_times(kept: Duration) -> (Duration, Duration) {
    let segment = (kept / 8).min(Duration::from_secs(3600));
    (kept - 2 * segment, segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_is_gone_before_the_data_below_it_may_be_compacted() {
        for kept in [60, 3_600, 7 * 86_400].map(Duration::from_secs) {
            let (retention, segment) = watermark_times(kept);
            assert!(retention + segment < kept && retention > kept / 2, "{kept:?}");
        }
    }
}
