//! A log moves to another: `caudal log export`.
//!
//! Records are copied in order, so that a partition of the copy holds what a `read_committed` reader of the original sees; offsets
//! differ, for markers of transactions and what compaction took are not copied. So every offset that is kept anywhere is
//! *translated*: the place, in the copy, of the first record at or behind it ([`marks`]). These are the offsets in the records of side
//! topics (positions, watermarks, shapes), those that consumer groups have committed, those of dead letters, and those that sinks
//! store: a sink is opened as its pipeline would, and moved by a batch that holds nothing but the new position, behind its own fence.
//!
//! Why nothing is read again. The source's position is copied as it is: capture goes on there. A sink's offsets name the same
//! records as before, under the ids of the new topics.
//!
//! Why nothing is lost if it ends half-way, or a sink is not moved. Positions are copied last: without them a capture begins anew. A
//! sink that was not moved finds other topic ids than it stored, and reads the tables anew, with a sweep: correct, and slower.
//!
//! Of each source one watermark is written, the last, with all ends: a sink that is behind goes to it in one step. Commands
//! (`signals`) are not copied: those taken would be taken again.
//!
//! The original must be at rest: nobody may write to it. It is not changed.
//!
//! Memory: 4 MiB of the reader for each of [`copy::AT_ONCE`] partitions, the producer's queue, 16 bytes for each translated offset.

mod copy;
mod groups;
mod letters;
mod marks;
mod sides;
mod sinks;

use crate::client::{Clients, blocking};
use crate::log::Log;
use crate::replay::{Partition, Replayer};
use crate::topic_ids::{self, TopicIds};
use crate::topics::{Topic, TopicSpec, Topics};
use caudal_core::{Error, Result, Sink};
use caudal_proto::side::TopicNames;
use marks::Book;
use sides::Sides;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How far an export has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Partitions to copy.
    pub partitions: u64,
    /// Those that are copied.
    pub done: u64,
    /// Records copied.
    pub records: u64,
    /// Their bytes: keys and values.
    pub bytes: u64,
}

/// What an export has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Topics made and filled.
    pub topics: u64,
    /// Records and bytes.
    pub progress: Progress,
    /// Sources whose position is there now.
    pub sources: Vec<String>,
    /// Consumer groups whose offsets are there now.
    pub groups: Vec<String>,
    /// Sinks that go on where they were.
    pub sinks: Vec<String>,
    /// Topics that were left out.
    pub left_out: Vec<String>,
}

/// Told now and then.
pub type Told = Arc<dyn Fn(Progress) + Send + Sync>;

impl Log {
    /// Copies all topics of this log to `to`, with the offsets of consumer groups, and moves `sinks` there. Nobody may write to
    /// either meanwhile.
    ///
    /// # Errors
    /// `Config` if `to` has one of the topics already and it is not empty; else as the brokers and the sinks give them.
    pub async fn export_to(
        &self,
        to: &Log,
        sinks: &[(String, Arc<dyn Sink>)],
        told: Told,
    ) -> Result<Exported> {
        let plan = Plan::of(self, to).await?;
        let stored = sinks::stored(sinks).await?;
        let (from, target, names) = (self.clients.clone(), to.clients.clone(), self.names.clone());
        let own = stored.clone();
        let (plan, book, progress, groups) = blocking(move || {
            let groups = groups::read(&from, &plan.all())?;
            let letters = letters::places(&from, &plan.letters)?;
            let mut book = Book::new(plan.ids.clone());
            plan.sides.want(&mut book);
            groups.values().flatten().for_each(|(partition, offset)| book.want(partition, *offset));
            letters.iter().for_each(|(partition, offset)| book.want(partition, *offset));
            sinks::want(&own, &names, &mut book);
            let mut copier = copy::Copier::new(&from, &target, plan.count(), told)?;
            copier.copy(&plan.plain, &mut book, None)?;
            copier.copy(&plan.letters, &mut book, Some(&names))?;
            plan.sides.write(&target, &names, &mut book)?;
            groups::write(&target, &groups, &book, &names)?;
            Ok((plan, book, copier.progress(), groups))
        })
        .await?;
        let sinks = sinks::moved(sinks, &stored, &self.names, &book).await?;
        Ok(Exported {
            topics: plan.topics,
            progress,
            sources: plan.sides.sources(),
            groups: groups.into_keys().collect(),
            sinks,
            left_out: plan.left_out,
        })
    }
}

/// What is to be copied, with the topics that it goes to.
struct Plan {
    /// Partitions that are copied as they are.
    plain: Vec<Partition>,
    /// Partitions of dead letters.
    letters: Vec<Partition>,
    sides: Sides,
    /// Ids of the topics there, and of those that stand for them.
    ids: BTreeMap<String, (uuid::Uuid, uuid::Uuid)>,
    topics: u64,
    left_out: Vec<String>,
}

impl Plan {
    /// Makes the topics.
    async fn of(from: &Log, to: &Log) -> Result<Self> {
        let here = Topics::new(&from.clients, "export")?;
        let there = Topics::new(&to.clients, "export")?;
        let existing: BTreeMap<String, Topic> = here.list().await?.into_iter().collect();
        let all: Vec<String> = existing.keys().cloned().collect();
        let old = topic_ids::fetch(from.clients.resolved(), &all).await;
        let sides = sides(from, &existing, &old).await?;
        let (copied, left_out): (Vec<_>, Vec<_>) = all.into_iter().partition(|topic| {
            !is_internal(topic) && !is_foreign(&from.names, topic) && *topic != from.names.signals()
        });
        let specs = specs(&here, &to.clients, &from.names, (&copied, &existing), &sides).await?;
        let there_now = there.ensure(&specs).await?;
        refuse_filled(&to.clients, &specs, &there_now).await?;
        let new = topic_ids::fetch(to.clients.resolved(), &copied).await;
        let id = |ids: &TopicIds, topic: &str| ids.get(topic).copied().unwrap_or_default();
        let ids = copied.iter().map(|topic| (topic.clone(), (id(&old, topic), id(&new, topic)))).collect();
        let own = Sides::topics(&from.names);
        let dlq = from.names.dead_letters("");
        let partitions = |wanted: &dyn Fn(&str) -> bool| -> Vec<Partition> {
            let topics = copied.iter().filter(|topic| wanted(topic));
            topics
                .flat_map(|topic| (0..existing[topic].partitions as i32).map(move |p| (topic.clone(), p)))
                .collect()
        };
        Ok(Self {
            plain: partitions(&|topic| !own.iter().any(|own| own == topic) && !topic.starts_with(&dlq)),
            letters: partitions(&|topic| topic.starts_with(&dlq)),
            topics: copied.len() as u64,
            sides,
            ids,
            left_out: left_out.into_iter().filter(|topic| !is_internal(topic)).collect(),
        })
    }

    fn all(&self) -> Vec<Partition> {
        let sides = self.sides.partitions();
        [&self.plain[..], &self.letters, &sides].concat()
    }

    fn count(&self) -> u64 {
        (self.plain.len() + self.letters.len()) as u64
    }
}

async fn sides(from: &Log, existing: &BTreeMap<String, Topic>, ids: &TopicIds) -> Result<Sides> {
    if !existing.contains_key(&from.names.tasks()) {
        return Ok(Sides::default());
    }
    let numbers = crate::tasks::numbers(&from.clients, &from.names, "export").await?;
    let (clients, names, ids) = (from.clients.clone(), from.names.clone(), ids.clone());
    blocking(move || Sides::read(&mut Replayer::new(&clients, "export"), &names, &numbers, &ids)).await
}

/// Topics of brokers themselves.
fn is_internal(topic: &str) -> bool {
    topic.starts_with("__") && !topic.starts_with("__debezium")
}

/// Topics of another prefix that hold offsets: they are exported with its configuration.
fn is_foreign(names: &TopicNames, topic: &str) -> bool {
    topic.starts_with("caudal.") && !topic.starts_with(&format!("caudal.{}.", names.prefix()))
}

/// How the topics are made there: those that Caudal knows as it would make them, others as they are.
async fn specs(
    here: &Topics,
    to: &Clients,
    names: &TopicNames,
    (copied, existing): (&[String], &BTreeMap<String, Topic>),
    sides: &Sides,
) -> Result<Vec<TopicSpec>> {
    let resolved = to.resolved();
    let known: HashMap<String, bool> = sides.tables();
    let own: HashMap<String, TopicSpec> =
        TopicSpec::side(names, resolved).into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    let borrowed: Vec<&str> = copied.iter().map(String::as_str).collect();
    let settings = here.settings(&borrowed).await?;
    let specs = copied.iter().map(|topic| {
        let partitions = existing[topic].partitions;
        let mut spec = match (own.get(topic), known.get(topic)) {
            (Some(side), _) => side.clone(),
            (None, Some(keyed)) => TopicSpec::data(topic.clone(), partitions, *keyed, resolved),
            (None, None) => TopicSpec::like(topic.clone(), settings.get(topic)),
        };
        spec.partitions = partitions;
        spec
    });
    Ok(specs.collect())
}

/// What lies there already would stand before what is copied, at the offsets that it gets.
async fn refuse_filled(to: &Clients, specs: &[TopicSpec], there: &HashMap<String, Topic>) -> Result<()> {
    let partitions: Vec<Partition> = specs
        .iter()
        .filter_map(|spec| Some((spec, there.get(&spec.name)?)))
        .flat_map(|(spec, topic)| (0..topic.partitions as i32).map(|p| (spec.name.clone(), p)))
        .collect();
    let clients = to.clone();
    let ends = blocking(move || Replayer::new(&clients, "export").ends(&partitions)).await?;
    let filled: BTreeSet<String> =
        ends.into_iter().filter(|(_, end)| *end > 0).map(|((topic, _), _)| topic).collect();
    let Some(first) = filled.first() else { return Ok(()) };
    Err(Error::config(format!("topic {first} is there already and not empty ({} such topics)", filled.len()))
        .field("kafka.brokers")
        .hint("an export needs a cluster without topics of this prefix: delete those of an earlier attempt with kafka-topics.sh --delete"))
}
