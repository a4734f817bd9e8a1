//! What the log must remember beside records: topics, committed offsets, producers and the fate of transactions.
//!
//! One journal holds it, so that its order is total. An event is written to the journal first, then applied to the state in
//! memory; one thread fsyncs (group commit), and who needs an event to be durable waits for its number. From time to time the
//! state is written as a snapshot and a new journal is begun, so that the journal stays bounded.
//!
//! **Why a decision can't be lost or doubled.** [`Event::Decided`] is the only thing that makes a transaction committed or aborted.
//! It is acted upon (markers, offsets) only after it is durable, and names the offset up to which it holds in every
//! partition, so that repeating it after a crash never touches a later transaction of the same producer.
//!
//! **Files.** `state-<n>.json` is the state at the begin of `journal-<n>.log`. A start reads the newest whole snapshot and the
//! journals from its number on, up to the first line that is cut or fails its CRC: what follows was never durable.
//!
//! Memory: the state itself; a few hundred bytes per topic, per partition of a group with offsets, per transactional id.

mod event;
mod files;
mod inspect;
mod journal;
mod state;

pub(crate) use event::{CommittedOffset, Decision, Event, GroupOffset, TopicPartition};
pub(crate) use inspect::{Known, inspect};
pub(crate) use journal::Ledger;
pub(crate) use state::{LedgerState, Phase, Transaction};

/// The journal could not be written or fsynced.
#[derive(Debug, thiserror::Error)]
#[error("journal: {0}")]
pub(crate) struct LedgerFault(pub(crate) String);
