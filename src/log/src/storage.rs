//! A partition on disk: a folder of append-only segment files that hold clients' record batches verbatim.
//!
//! **Why nothing is shown that power can take back.** Three offsets bound a partition: `start <= high <= end`. `end` is where
//! the next batch goes; bytes below it are written, not durable. Only [`sync`] moves `high` (the high watermark): it takes the
//! files written since its last round and `end` under the lock, fsyncs those files outside of it, and then sets `high` to *that*
//! `end`. Every reader is bounded by `high`, every producer is answered once `high` has passed its batch. A power cut loses only
//! bytes that no fsync covered, hence only offsets at or above `high`.
//!
//! **Why a torn tail is harmless.** A batch carries its CRC. After a crash everything beyond the last checkpoint is checked; the
//! first batch that fails ends the partition, what follows is cut. No batch below `high` can be among it, unless the disk itself
//! lost fsynced bytes.
//!
//! **Failures.** A write that fails is undone by cutting the file to its former length, before the next write at the latest. An
//! fsync that fails leaves it unknown what is durable: the partition is cut back to `high` and read again from disk, whoever
//! waited is told so, and work goes on.

mod append;
mod checkpoint;
mod compaction;
mod index;
mod lookup;
mod partition;
mod producers;
mod read;
mod recovery;
mod segment;
mod sync;
mod transactions;
mod trim;
mod waiters;

pub(crate) use append::{AppendError, Appended, TopicRules};
pub(crate) use checkpoint::durable_end;
pub(crate) use compaction::CompactionRules;
pub(crate) use partition::{KnownProducer, Partition, PartitionId};
pub(crate) use read::Fetched;
pub(crate) use recovery::segments;
pub(crate) use segment::HeaderWalk;
pub(crate) use sync::{Durability, Flusher, NotDurable};
pub(crate) use transactions::Aborted;
pub(crate) use trim::Retention;
pub(crate) use waiters::Wakeup;

/// Leader epoch of every batch: there is one leader, and what it showed it never takes back.
pub(crate) const LEADER_EPOCH: i32 = 0;
