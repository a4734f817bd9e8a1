//! The vocabulary of Caudal and the contract of its connectors: no I/O, no drivers.
//!
//! A pipeline is `Reader -> transforms -> Writer`, then commit. Everything that passes between the stages is a [`Batch`]:
//! rows as [`Cell`]s over shared buffers, with the [`Position`] that is safe once the batch is durable.
//! `connectors/README.md` states the contract of the traits in MUST and SHOULD; `conformance` (a feature, for tests) runs it.

pub mod batch;
pub mod cell;
pub mod check;
pub mod compare;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod connector;
pub mod fault;
pub mod polled;
pub mod position;
pub mod quantity;
pub mod rebuild;
pub mod reread;
pub mod schema;
pub mod temporal;

pub use batch::{
    Batch, BatchBuilder, Boundary, Ddl, EventHead, Incomplete, Op, Raw, Scope, SnapshotMark, Sweep,
    SweepPart, TablePart, Transaction, Undecodable,
};
pub use cell::{Cell, Slice};
pub use check::{Check, Severity};
pub use connector::{
    DeadLetters, Outcome, Prepare, Reader, Rejected, Selected, SetAside, Sink, Source, Warning, Writer,
};
pub use fault::{Error, Fault, Result};
pub use polled::{PollCost, PollRun, PollStatus};
pub use position::{LogOffset, LogPosition, Position, SourcePosition};
pub use quantity::{DurationText, SizeText};
pub use reread::{Action, Phase, Progress, Signal, Taken, Written, WrittenRows};
pub use schema::{Column, ColumnType, ForeignKey, KeyKind, TableId, TableSchema, UniqueKey};
