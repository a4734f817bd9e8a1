//! The contract of connectors. `connectors/README.md` has it in MUST and SHOULD.
//!
//! The engine drives: `claim` both ends, `sink.open`, `writer.resume`, `source.open(resumed)`, then `next` → `prepare` →
//! `write` … `commit` → `reader.commit`. Pull, not push: back-pressure is not calling `next`, cancelling is dropping.
//! Connectors never retry, reconnect or swallow; they return an [`crate::Error`] with its fault.

use crate::batch::Batch;
use crate::check::Check;
use crate::compare::{SinkSide, SourceSide};
use crate::fault::Result;
use crate::polled::PollStatus;
use crate::position::Position;
use crate::rebuild::Rebuild;
use crate::reread::{Progress, Signal, Written};
use crate::schema::{TableId, TableSchema};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// A system that can be read: what its configuration resolved to. Opens readers.
#[async_trait]
pub trait Source: Send + Sync {
    /// Looks at reachability, privileges and settings. Never changes anything; unreachable is a finding, not an error.
    async fn check(&self) -> Vec<Check>;

    /// The tables that the configuration selects.
    async fn discover(&self) -> Result<Vec<TableSchema>>;

    /// Rows of those tables, as far as the system estimates them without reading: for people, never for decisions.
    async fn estimates(&self) -> Result<Vec<(TableId, u64)>> {
        Ok(Vec::new())
    }

    /// Tells what the log holds of this source's tables: a re-read is reconciled with it. Called once, before `open`.
    fn bind(&self, _written: Arc<dyn Written>) {}

    /// The folder of this instance's data, which outlives the process: for what can be made again, and is better kept. Called once,
    /// before `open`, if there is one.
    fn keep_in(&self, _folder: &Path) {}

    /// A command. A source takes it between two batches, and stores that it did with the next one; after a restart of the
    /// process all commands are given again, in order.
    fn signal(&self, _signal: Signal) {}

    /// What is being read beside the stream, and what was lately.
    fn progress(&self) -> Vec<Progress> {
        Vec::new()
    }

    /// Where polled tables stand, and when they are read next.
    fn polls(&self) -> Vec<PollStatus> {
        Vec::new()
    }

    /// Waits until this instance may read (where instances share work). Dropping the future gives up.
    async fn claim(&self) -> Result<()> {
        Ok(())
    }

    /// Starts reading after `from`; with none, from the beginning (a snapshot first, where the system has one).
    async fn open(&self, from: Option<Position>) -> Result<Box<dyn Reader>>;

    /// Its side of a comparison with a sink; none where it has no way to be asked.
    async fn side(&self) -> Result<Option<Box<dyn SourceSide>>> {
        Ok(None)
    }

    /// Tables that cannot be followed for now, while the others are.
    fn set_aside(&self) -> Vec<SetAside> {
        Vec::new()
    }

    /// What somebody should see to before it is too late, while all still runs.
    fn warnings(&self) -> Vec<Warning> {
        Vec::new()
    }
}

/// Reads batches.
#[async_trait]
pub trait Reader: Send {
    /// The next batch; at least once per heartbeat, an empty one if need be. Dropping the future is how the engine
    /// cancels: the reader is not used again after it, and what was not returned is read again after a reopen.
    async fn next(&mut self) -> Result<Batch>;

    /// Tells that everything up to `position` is durable. Advisory: to publish progress, to free what was kept.
    async fn commit(&mut self, position: &Position) -> Result<()>;
}

/// Which columns of a table a sink looks at.
#[derive(Clone)]
pub struct Selected(Arc<OfShape>);

type OfShape = dyn Fn(&Arc<TableSchema>) -> Option<Box<[bool]>> + Send + Sync;

impl Selected {
    /// By a function, which is asked once for each shape: one flag for each of its columns; none: all are selected. Those of the key must be.
    #[must_use]
    pub fn new(of: impl Fn(&Arc<TableSchema>) -> Option<Box<[bool]>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// Of one shape.
    #[must_use]
    pub fn of(&self, schema: &Arc<TableSchema>) -> Option<Box<[bool]>> {
        (self.0)(schema)
    }
}

impl std::fmt::Debug for Selected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Selected")
    }
}

/// A system that can be written.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Looks at reachability, privileges and the target's shape. Never changes anything.
    async fn check(&self) -> Vec<Check>;

    /// Waits until this instance may write (where instances share work).
    async fn claim(&self) -> Result<()> {
        Ok(())
    }

    /// Connects, fences whoever wrote before.
    async fn open(&self) -> Result<Box<dyn Writer>>;

    /// Its side of a comparison with a source; none where it has no way to be asked.
    async fn side(&self) -> Result<Option<Box<dyn SinkSide>>> {
        Ok(None)
    }

    /// What makes its tables anew from the log; none where that is not possible.
    async fn rebuild(&self) -> Result<Option<Box<dyn Rebuild>>> {
        Ok(None)
    }

    /// Which columns it looks at, if not all: the cells of others may be [`crate::Cell::Unchanged`], whatever the row holds.
    fn selected(&self) -> Option<Selected> {
        None
    }

    /// Whether commits may fall only on boundaries: the engine then keeps writing until the last batch ends at one.
    fn whole_transactions(&self) -> bool {
        false
    }
}

/// Writes batches, in order.
#[async_trait]
pub trait Writer: Send {
    /// The position after the last durable batch; none if there is none yet.
    async fn resume(&mut self) -> Result<Option<Position>>;

    /// Work on a batch that needs no state of the writer (encoding), to be done ahead on another thread.
    fn prepare(&self) -> Option<Arc<dyn Prepare>> {
        None
    }

    /// Accepts a batch. It may stay in memory (bounded) until `commit`.
    async fn write(&mut self, batch: &mut Batch) -> Result<Outcome>;

    /// Makes all that was accepted durable, together with its position, and gives that position. Nothing accepted:
    /// gives the last position again, or an error of fault `Bug` if there never was one.
    async fn commit(&mut self) -> Result<Position>;
}

/// The part of writing that can run ahead, in parallel; the engine keeps the order.
pub trait Prepare: Send + Sync {
    /// Fills `batch.prepared`.
    fn prepare(&self, batch: &mut Batch) -> Result<()>;
}

/// What `write` made of a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Events that the target cannot take. All others were accepted.
    pub rejected: Vec<Rejected>,
}

/// One event that the target cannot take.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Index into the batch's events.
    pub event: u32,
    /// Why, as the target says it, without the row's values.
    pub cause: String,
}

/// Where rejected events go.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Stores `rejected`, and all of the batch's `undecodable`, durably; the engine calls it at most once for a batch,
    /// before the commit that passes them over.
    async fn put(&self, batch: &Batch, rejected: &[Rejected], attempts: u32) -> Result<()>;

    /// How many letters wait for somebody now, where that is known.
    fn open(&self) -> Option<u64> {
        None
    }
}

/// Something to see to before it is too late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is: `binlog_purge`.
    pub kind: String,
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// A table that a source cannot follow for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The table.
    pub table: TableId,
    /// Why, without values of rows.
    pub cause: String,
    /// Since which time of the source, microseconds since the epoch, UTC.
    pub since_us: i64,
}
