//! Where a reader resumes.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// Where a source resumes. A batch carries the position that is safe once the batch is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Position {
    /// Of a captured source: opaque to all but the connector that issued it.
    Source(SourcePosition),
    /// Of the log: what a sink has consumed.
    Log(LogPosition),
}

impl Position {
    /// The source position, if it is one.
    #[must_use]
    pub fn source(&self) -> Option<&SourcePosition> {
        match self {
            Self::Source(p) => Some(p),
            Self::Log(_) => None,
        }
    }

    /// Takes in one that was reached later. Of the log each tells only the partitions that moved: what the later one does not tell of stays.
    pub fn advance(&mut self, later: Self) {
        match (self, later) {
            (Self::Log(held), Self::Log(later)) => {
                let mut offsets: HashMap<(Arc<str>, i32), LogOffset> =
                    held.offsets.drain(..).map(|o| ((Arc::clone(&o.topic), o.partition), o)).collect();
                offsets.extend(later.offsets.into_iter().map(|o| ((Arc::clone(&o.topic), o.partition), o)));
                held.offsets = offsets.into_values().collect();
            }
            (held, later) => *held = later,
        }
    }

    /// The log position, if it is one.
    #[must_use]
    pub fn log(&self) -> Option<&LogPosition> {
        match self {
            Self::Log(p) => Some(p),
            Self::Source(_) => None,
        }
    }
}

/// A captured source's position: a small token that moves with every batch, and notes that change rarely
/// (the snapshot's progress of one table, say).
///
/// In a batch, `notes` holds only what changed since the batch before (`None` deletes a note). What a writer's `resume`
/// gives back holds all notes that are alive. Notes are stored each under a key of its own, so a source with 10,000 tables
/// does not write 10,000 entries at each commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    /// Text that only the issuer reads; JSON by custom. At most a few KiB.
    pub token: String,
    /// Name to text; `None` deletes.
    pub notes: BTreeMap<String, Option<String>>,
}

/// What a sink has consumed of the log: one entry for each partition concerned. In a batch, the partitions that moved;
/// in what `resume` gives back, all that are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogPosition {
    /// In no order of meaning; at most one entry for a (topic, partition).
    pub offsets: Vec<LogOffset>,
}

/// The next offset to read in one partition. Offsets are not identities: the topic's id and the leader's epoch go with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOffset {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's id: another one under the same name is another topic. Nil where the broker tells none.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// The leader's epoch when the last record was read; -1 where unknown.
    pub leader_epoch: i32,
    /// The log's clock, milliseconds since the epoch: what was written before is read, so nothing at or above `offset` is
    /// older. 0 where unknown.
    #[serde(default)]
    pub as_of_ms: i64,
    /// Whether a sweep of the topic's table has begun and is not over ([`crate::Sweep`]): who resumes begins it again.
    #[serde(default)]
    pub unswept: bool,
    /// The newest of the writers whose records are read, where records tell theirs (`delivery: at_least_once`): what one before it
    /// wrote later is dropped. 0 where they tell none.
    #[serde(default)]
    pub writer_epoch: i64,
}
