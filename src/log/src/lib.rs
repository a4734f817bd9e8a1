//! The embedded log: a single node that speaks the Kafka protocol over segment files.
//!
//! It exists so that the same client code, and Kafka's own tools, work where no brokers are. It depends on no other crate of
//! this workspace. It has one node, no replicas, no TLS and no passwords, and so listens on loopback unless told otherwise.
//!
//! # Promises
//! * Nothing is visible, and nothing acknowledged, that power can take back: `storage` shows only fsynced bytes, and
//!   `acks` 1 and all are both answered after the fsync.
//! * A transaction is committed in all its partitions or in none: `coordinator`.
//! * What is remembered beside records (topics, offsets, producers) is in one journal: `ledger`.
//! * A topic has an id for life; a recreated one has another. Leader epochs are 0 throughout: offsets once shown never change
//!   their meaning.
//! * A full disk refuses writes; the log goes on when there is room again.
//!
//! # Rooms
//! `connection` reads frames, `api` has one file per family of requests, `topics` and `group` hold what they are about,
//! `inspect` and `compact` are for the operator of a log that is not running; `storage` is a partition on disk, `batch` the format of records, `disk` the only door to the file system.
//!
//! # Memory
//! Request frames and fetched records in flight are bounded by `Config::buffer_bytes` each (64 MiB; small frames of up to
//! 64 KiB per connection come on top, and one batch larger than a response per connection); compaction by
//! `Config::compaction_buffer_bytes` and two batches; the sparse indexes by 24 bytes per 128 KiB stored; a partition takes about
//! 2 KiB and an open file per segment; groups and producers are bounded by number where they are kept.

mod api;
mod batch;
mod clock;
mod compact;
mod config;
mod connection;
mod coordinator;
mod disk;
mod error;
mod group;
mod inspect;
mod ledger;
mod log;
mod maintenance;
mod node;
mod storage;
#[cfg(test)]
mod tests;
mod topic_config;
mod topics;

pub use compact::{CompactedTopic, compact};
pub use config::Config;
pub use error::Error;
pub use inspect::{Finding, Inspection, MOST_FINDINGS, Severity, inspect};
pub use log::Log;
