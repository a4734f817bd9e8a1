//! The state that the journal's events add up to.

use super::event::{CommittedOffset, Decision, Event, GroupOffset, TopicPartition};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const FIRST_PRODUCER_ID: i64 = 1000;

/// Everything that the ledger remembers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerState {
    pub(super) format: u32,
    /// Name of this log towards clients, made once.
    pub(crate) cluster_id: Uuid,
    pub(crate) topics: BTreeMap<String, TopicEntry>,
    pub(crate) groups: BTreeMap<String, GroupEntry>,
    pub(crate) transactions: BTreeMap<String, Transaction>,
    pub(crate) next_producer_id: i64,
}

/// A topic as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicEntry {
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    pub(crate) config: BTreeMap<String, String>,
}

/// Offsets of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupEntry {
    /// Last commit in milliseconds since the epoch.
    pub(crate) at_ms: i64,
    /// By topic, then partition.
    pub(crate) offsets: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
}

/// A transactional producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transaction {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) phase: Phase,
    pub(crate) partitions: BTreeSet<TopicPartition>,
    /// Group and offset.
    pub(crate) offsets: Vec<(String, GroupOffset)>,
    /// Begin of the transaction, or last use, in milliseconds since the epoch.
    pub(crate) at_ms: i64,
}

/// Where a producer's transaction stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// None since the producer was initialized.
    Empty,
    /// Begun.
    Ongoing,
    /// Its fate is journaled, markers are being written.
    Decided(Decision),
    /// The last one is over.
    Done {
        /// Whether it was committed.
        commit: bool,
    },
}

impl LedgerState {
    /// The state of a new log.
    pub(super) fn new(cluster_id: Uuid) -> LedgerState {
        LedgerState {
            format: super::event::FORMAT,
            cluster_id,
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            transactions: BTreeMap::new(),
            next_producer_id: FIRST_PRODUCER_ID,
        }
    }

    /// A group's offset in a partition.
    pub(crate) fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.offsets.get(topic)?.get(&partition)
    }

    /// Applies one event. Events of unknown ids change nothing, so that any prefix of the journal can be applied.
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Begun { .. } => {}
            Event::Topic { name, id, partitions, config } => {
                let entry = TopicEntry { id: *id, partitions: *partitions, config: config.clone() };
                self.topics.insert(name.clone(), entry);
            }
            Event::TopicDeleted { name } => self.delete_topic(name),
            Event::Offsets { group, at_ms, offsets } => {
                for offset in offsets {
                    self.set_offset(group, *at_ms, offset.clone());
                }
            }
            Event::OffsetsDeleted { group, partitions } => self.delete_offsets(group, partitions),
            Event::GroupDeleted { group } => {
                self.groups.remove(group);
            }
            Event::ProducerIds { next } => self.next_producer_id = *next,
            Event::ProducerExpired { id } => {
                self.transactions.remove(id);
            }
            Event::Producer { id, producer_id, epoch, timeout_ms, at_ms } => {
                self.transactions
                    .insert(id.clone(), Transaction::new(*producer_id, *epoch, *timeout_ms, *at_ms));
            }
            Event::Joined { id, at_ms, partitions } => {
                if let Some(t) = self.begun(id, *at_ms) {
                    t.partitions.extend(partitions);
                }
            }
            Event::OffsetsJoined { id, at_ms, group, offsets } => {
                if let Some(t) = self.begun(id, *at_ms) {
                    t.offsets.extend(offsets.iter().map(|o| (group.clone(), o.clone())));
                }
            }
            Event::Decided { id, decision } => {
                if let Some(t) = self.transactions.get_mut(id) {
                    t.epoch = decision.epoch;
                    t.phase = Phase::Decided(decision.clone());
                }
            }
            Event::Finished { id, at_ms } => self.finish(id, *at_ms),
        }
    }

    fn begun(&mut self, id: &str, at_ms: i64) -> Option<&mut Transaction> {
        let transaction = self.transactions.get_mut(id)?;
        if transaction.phase != Phase::Ongoing {
            transaction.phase = Phase::Ongoing;
            transaction.at_ms = at_ms;
        }
        Some(transaction)
    }

    fn finish(&mut self, id: &str, at_ms: i64) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        let Phase::Decided(decision) = &transaction.phase else {
            return;
        };
        let commit = decision.commit;
        transaction.phase = Phase::Done { commit };
        transaction.at_ms = at_ms;
        transaction.partitions.clear();
        let offsets = std::mem::take(&mut transaction.offsets);
        if commit {
            for (group, offset) in offsets {
                self.set_offset(&group, at_ms, offset);
            }
        }
    }

    fn set_offset(&mut self, group: &str, at_ms: i64, (topic, partition, offset): GroupOffset) {
        let entry = self.groups.entry(group.to_owned()).or_default();
        entry.at_ms = at_ms;
        entry.offsets.entry(topic).or_default().insert(partition, offset);
    }

    fn delete_topic(&mut self, name: &str) {
        self.topics.remove(name);
        for group in self.groups.values_mut() {
            group.offsets.remove(name);
        }
        self.groups.retain(|_, group| !group.offsets.is_empty());
    }

    fn delete_offsets(&mut self, group: &str, partitions: &[(String, i32)]) {
        let Some(entry) = self.groups.get_mut(group) else {
            return;
        };
        for (topic, partition) in partitions {
            if let Some(of_topic) = entry.offsets.get_mut(topic) {
                of_topic.remove(partition);
            }
        }
        entry.offsets.retain(|_, of_topic| !of_topic.is_empty());
    }
}

impl Transaction {
    fn new(producer_id: i64, epoch: i16, timeout_ms: i32, at_ms: i64) -> Transaction {
        Transaction {
            producer_id,
            epoch,
            timeout_ms,
            phase: Phase::Empty,
            partitions: BTreeSet::new(),
            offsets: Vec::new(),
            at_ms,
        }
    }
}
