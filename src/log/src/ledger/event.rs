//! What the journal's lines say.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Format of journal and snapshot.
pub(super) const FORMAT: u32 = 1;

/// A partition by its topic's id, so that a recreated topic is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct TopicPartition(pub(crate) Uuid, pub(crate) i32);

/// A consumer group's place in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: i64,
    /// -1: none.
    pub(crate) leader_epoch: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) metadata: String,
}

/// Topic, partition and offset of a commit.
pub(crate) type GroupOffset = (String, i32, CommittedOffset);

/// How a transaction ends, and up to which offset that holds in every partition it touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decision {
    pub(crate) commit: bool,
    /// Epoch of the markers; above the producer's when the decision fences it.
    pub(crate) epoch: i16,
    /// End offset (exclusive) of the transaction's records in each partition.
    pub(crate) ends: Vec<(TopicPartition, i64)>,
}

/// One change of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// First line of a journal.
    Begun { format: u32 },
    /// A topic was created, got partitions or another configuration.
    Topic { name: String, id: Uuid, partitions: i32, config: BTreeMap<String, String> },
    /// A topic was deleted; so were the offsets in it.
    TopicDeleted { name: String },
    /// A group committed offsets.
    Offsets { group: String, at_ms: i64, offsets: Vec<GroupOffset> },
    /// Offsets of a group were deleted.
    OffsetsDeleted { group: String, partitions: Vec<(String, i32)> },
    /// A group was deleted with its offsets.
    GroupDeleted { group: String },
    /// Producer ids below `next` are given out.
    ProducerIds { next: i64 },
    /// A transactional producer was initialized; its earlier epochs are fenced.
    Producer { id: String, producer_id: i64, epoch: i16, timeout_ms: i32, at_ms: i64 },
    /// A producer's transaction takes in partitions; the first time this begins it.
    Joined { id: String, at_ms: i64, partitions: Vec<TopicPartition> },
    /// A producer's transaction takes in consumed offsets.
    OffsetsJoined { id: String, at_ms: i64, group: String, offsets: Vec<GroupOffset> },
    /// A transaction's fate.
    Decided { id: String, decision: Decision },
    /// All markers are durable; offsets of a committed transaction count from here.
    Finished { id: String, at_ms: i64 },
    /// A transactional id was unused for long.
    ProducerExpired { id: String },
}
