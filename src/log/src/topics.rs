//! The topics that are served: names, ids, settings and open partitions.
//!
//! A topic's folder is `topics/<id>/<partition>`, so that a recreated topic never meets files of the former one.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::Error;
use crate::ledger::{Event, Ledger, LedgerFault, TopicPartition};
use crate::storage::{Flusher, Partition, PartitionId};
use crate::topic_config::{self, Settings, TopicConfig};
use kafka_protocol::error::ResponseError;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use uuid::Uuid;

/// Most partitions of one topic.
const MAX_PARTITIONS: i32 = 10_000;
/// Most partitions of all topics together: each costs an open file and some memory.
const MAX_ALL_PARTITIONS: usize = 50_000;

/// A topic that is served.
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    config: RwLock<Arc<TopicConfig>>,
    partitions: RwLock<Vec<Arc<Partition>>>,
}

/// A request about topics that can't be granted: the protocol's error and what to tell the user.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: ResponseError,
    pub(crate) message: String,
}

/// All topics.
pub(crate) struct Topics {
    dir: PathBuf,
    disk: Disk,
    clock: Clock,
    flusher: Arc<Flusher>,
    ledger: Arc<Ledger>,
    default_partitions: i32,
    segment_bytes: u64,
    served: RwLock<Served>,
    /// One change at a time, so that journal and memory agree.
    changing: Mutex<()>,
}

#[derive(Default)]
struct Served {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: BTreeMap<Uuid, Arc<Topic>>,
}

impl Topic {
    /// The settings as they are now.
    pub(crate) fn config(&self) -> Arc<TopicConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many partitions there are.
    pub(crate) fn partition_count(&self) -> i32 {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).len() as i32
    }

    /// A partition by its index.
    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        let partitions = self.partitions.read().unwrap_or_else(PoisonError::into_inner);
        partitions.get(usize::try_from(index).ok()?).cloned()
    }

    /// All partitions.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Topics {
    /// Opens the partitions of all topics that the ledger knows; removes folders that belong to none.
    pub(crate) fn open(
        config: &crate::Config,
        disk: &Disk,
        clock: &Clock,
        flusher: &Arc<Flusher>,
        ledger: &Arc<Ledger>,
    ) -> Result<Topics, Error> {
        let topics = Topics {
            dir: config.data_dir.join("topics"),
            disk: disk.clone(),
            clock: clock.clone(),
            flusher: flusher.clone(),
            ledger: ledger.clone(),
            default_partitions: config.default_partitions,
            segment_bytes: config.segment_bytes,
            served: RwLock::default(),
            changing: Mutex::default(),
        };
        let known = ledger.read(|state| state.topics.clone());
        for (name, entry) in known {
            let topic = topics.build(&name, entry.id, entry.partitions, entry.config)?;
            topics.serve(topic);
        }
        topics.remove_strays()?;
        Ok(topics)
    }

    /// A topic by name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    /// A topic by id.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    /// A partition by its topic's name.
    pub(crate) fn partition(&self, name: &str, index: i32) -> Option<Arc<Partition>> {
        self.get(name)?.partition(index)
    }

    /// A partition by its topic's id, with the topic.
    pub(crate) fn partition_by_id(&self, at: TopicPartition) -> Option<(Arc<Topic>, Arc<Partition>)> {
        let topic = self.by_id(at.0)?;
        let partition = topic.partition(at.1)?;
        Some((topic, partition))
    }

    /// All topics in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).by_name.values().cloned().collect()
    }

    /// Creates a topic (`partitions` -1: as many as configured), or says whether that would do. Returns its id, its number
    /// of partitions and the journal's event to wait for.
    pub(crate) fn create(
        &self,
        name: &str,
        partitions: i32,
        settings: Settings,
        only_check: bool,
    ) -> Result<(Uuid, i32, u64), Refusal> {
        let partitions = if partitions == -1 { self.default_partitions } else { partitions };
        check_name(name)?;
        for (key, value) in &settings {
            topic_config::check(key, value).map_err(|m| refuse(ResponseError::InvalidConfig, m))?;
        }
        let _changing = self.changing();
        if self.get(name).is_some() {
            return Err(refuse(ResponseError::TopicAlreadyExists, format!("topic '{name}' exists already")));
        }
        self.check_count(partitions, 0)?;
        let id = Uuid::new_v4();
        if only_check {
            return Ok((id, partitions, 0));
        }
        let topic = self.build(name, id, partitions, settings.clone()).map_err(storage)?;
        let event = Event::Topic { name: name.into(), id, partitions, config: settings };
        let number = self.ledger.record(&event).map_err(|e| unwritten(&e))?;
        self.serve(topic);
        Ok((id, partitions, number))
    }

    /// Deletes a topic with its records and the groups' offsets in it; returns its id and the event to wait for.
    pub(crate) fn delete(&self, name: &str) -> Result<(Uuid, u64), Refusal> {
        let _changing = self.changing();
        let Some(topic) = self.get(name) else {
            return Err(unknown(name));
        };
        let event = Event::TopicDeleted { name: name.into() };
        let number = self.ledger.record(&event).map_err(|e| unwritten(&e))?;
        {
            let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
            served.by_name.remove(name);
            served.by_id.remove(&topic.id);
        }
        for partition in topic.partitions() {
            partition.delete();
        }
        Ok((topic.id, number))
    }

    /// Removes the files of a deleted topic; call it once the deletion is durable. What can't be removed now is removed by
    /// the next start.
    pub(crate) fn remove_files(&self, id: Uuid) {
        let dir = self.dir.join(id.to_string());
        if let Err(cause) = fs::remove_dir_all(&dir) {
            tracing::warn!(path = %dir.display(), %cause, "remove the files of a deleted topic");
        }
    }

    /// Gives a topic more partitions; returns the event to wait for.
    pub(crate) fn grow(&self, name: &str, partitions: i32, only_check: bool) -> Result<u64, Refusal> {
        let _changing = self.changing();
        let topic = self.get(name).ok_or_else(|| unknown(name))?;
        let have = topic.partition_count();
        if partitions <= have {
            let message = format!("topic '{name}' has {have} partitions already");
            return Err(refuse(ResponseError::InvalidPartitions, message));
        }
        self.check_count(partitions, have)?;
        if only_check {
            return Ok(0);
        }
        let more = (have..partitions).map(|index| self.open_partition(name, topic.id, index));
        let more: Vec<_> = more.collect::<Result<_, _>>().map_err(storage)?;
        let config = topic.config().settings.clone();
        let event = Event::Topic { name: name.into(), id: topic.id, partitions, config };
        let number = self.ledger.record(&event).map_err(|e| unwritten(&e))?;
        topic.partitions.write().unwrap_or_else(PoisonError::into_inner).extend(more);
        Ok(number)
    }

    /// Changes a topic's settings; returns the event to wait for.
    pub(crate) fn configure(
        &self,
        name: &str,
        only_check: bool,
        change: impl FnOnce(Settings) -> Result<Settings, Refusal>,
    ) -> Result<u64, Refusal> {
        let _changing = self.changing();
        let topic = self.get(name).ok_or_else(|| unknown(name))?;
        let settings = change(topic.config().settings.clone())?;
        for (key, value) in &settings {
            topic_config::check(key, value).map_err(|m| refuse(ResponseError::InvalidConfig, m))?;
        }
        if only_check {
            return Ok(0);
        }
        let partitions = topic.partition_count();
        let event = Event::Topic { name: name.into(), id: topic.id, partitions, config: settings.clone() };
        let number = self.ledger.record(&event).map_err(|e| unwritten(&e))?;
        let config = Arc::new(TopicConfig::new(settings, self.segment_bytes));
        *topic.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(number)
    }

    fn build(&self, name: &str, id: Uuid, partitions: i32, settings: Settings) -> Result<Arc<Topic>, Error> {
        let partitions = (0..partitions).map(|index| self.open_partition(name, id, index));
        Ok(Arc::new(Topic {
            name: name.into(),
            id,
            config: RwLock::new(Arc::new(TopicConfig::new(settings, self.segment_bytes))),
            partitions: RwLock::new(partitions.collect::<Result<_, _>>()?),
        }))
    }

    fn open_partition(&self, name: &str, topic_id: Uuid, index: i32) -> Result<Arc<Partition>, Error> {
        let dir = self.dir.join(topic_id.to_string()).join(index.to_string());
        let id = PartitionId { topic: name.into(), topic_id, index };
        Ok(Arc::new(Partition::open(id, &dir, &self.disk, &self.clock, &self.flusher)?))
    }

    fn serve(&self, topic: Arc<Topic>) {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        served.by_id.insert(topic.id, topic.clone());
        served.by_name.insert(topic.name.clone(), topic);
    }

    fn check_count(&self, partitions: i32, have: i32) -> Result<(), Refusal> {
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            let message = format!("a topic has 1 to {MAX_PARTITIONS} partitions");
            return Err(refuse(ResponseError::InvalidPartitions, message));
        }
        let all: usize = self.all().iter().map(|t| t.partition_count() as usize).sum();
        if all + (partitions - have) as usize > MAX_ALL_PARTITIONS {
            let message = format!("all topics together have at most {MAX_ALL_PARTITIONS} partitions");
            return Err(refuse(ResponseError::PolicyViolation, message));
        }
        Ok(())
    }

    fn remove_strays(&self) -> Result<(), Error> {
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| Error::storage("list topics", e))?,
        };
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| Uuid::parse_str(name).ok());
            if let Some(id) = id.filter(|id| self.by_id(*id).is_none()) {
                self.remove_files(id);
            }
        }
        Ok(())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a topic may be called so: 1 to 249 letters, digits, `.`, `_` and `-`.
pub(crate) fn valid_name(name: &str) -> bool {
    let fits = (1..=249).contains(&name.len()) && name != "." && name != "..";
    fits && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if valid_name(name) {
        return Ok(());
    }
    let message = "a topic's name has 1 to 249 letters, digits, '.', '_' and '-'".to_owned();
    Err(refuse(ResponseError::InvalidTopicException, message))
}

fn refuse(error: ResponseError, message: String) -> Refusal {
    Refusal { error, message }
}

fn unknown(name: &str) -> Refusal {
    refuse(ResponseError::UnknownTopicOrPartition, format!("topic '{name}' does not exist"))
}

fn unwritten(fault: &LedgerFault) -> Refusal {
    refuse(ResponseError::KafkaStorageError, fault.to_string())
}

fn storage(error: Error) -> Refusal {
    refuse(ResponseError::KafkaStorageError, error.to_string())
}
