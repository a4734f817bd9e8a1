//! Making a sink's tables anew from the log alone: what `caudal rebuild` asks of a sink.
//!
//! A *shadow* of each table is filled beside the one that is read, with offsets of its own. Whoever drives it brings the shadow to
//! where the sink itself stands, and has the two exchanged in one transaction of the sink. The shadow, its offsets and what is known
//! of it lie in the sink: who is killed in between leaves the table that is read as it was, and the next call goes on or begins anew.

use crate::compare::SinkSide;
use crate::connector::Writer;
use crate::fault::Result;
use crate::position::LogPosition;
use crate::schema::{TableId, TableSchema};
use async_trait::async_trait;
use std::time::Duration;

/// A table of the sink, before anything is done to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Its name there; none if there is none yet.
    pub target: Option<String>,
    /// Rows, as the server estimates them.
    pub rows: u64,
    /// Bytes with indexes.
    pub bytes: u64,
    /// What could not be preserved over an exchange. Empty: nothing stands in the way.
    pub obstacles: Vec<String>,
    /// Whether it holds what a topic may no longer hold (versions of a history, deleted rows): that is kept as it is.
    pub keeps: bool,
    /// What an earlier call left: rows of a shadow that is not exchanged yet.
    pub begun: bool,
    /// Until when the table before an exchange is kept, milliseconds since the epoch, UTC.
    pub kept_until_ms: Option<i64>,
}

/// With what a shadow begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Empty; or where an earlier call left it.
    Empty,
    /// With a copy of the table's rows as they are, and where the sink stood then; or where an earlier call left it.
    Copy,
    /// The table that the last exchange replaced.
    Kept,
}

/// Drives the exchange. Each table is named by its source's shape.
#[async_trait]
pub trait Rebuild: Send {
    /// What there is, and what stands in the way. Changes nothing.
    async fn look(&mut self, schema: &TableSchema) -> Result<Outlook>;

    /// Makes the shadow, or finds the one that is there. Gives whether it made one.
    async fn begin(&mut self, schema: &TableSchema, topic: &str, begin: Begin) -> Result<bool>;

    /// A writer of the shadow, which keeps offsets of its own.
    async fn writer(&mut self, table: &TableId) -> Result<Box<dyn Writer>>;

    /// Where the sink itself stands in a topic; a partition that it has not met is not there.
    async fn live(&mut self, topic: &str) -> Result<LogPosition>;

    /// Gives the filled shadow what the table has and the topic, which may have been compacted, no longer: ended versions of a history,
    /// rows that were deleted. Gives their number. It may be called again.
    async fn keep(&mut self, table: &TableId) -> Result<u64>;

    /// The shadow's side of a comparison, and its number of rows.
    async fn shadow(&mut self, schema: &TableSchema) -> Result<(Box<dyn SinkSide>, u64)>;

    /// Keeps everybody from writing to these tables, until [`Rebuild::exchange`] or [`Rebuild::release`]. Readers go on. False if
    /// somebody else is at work there now.
    async fn hold(&mut self, tables: &[TableId]) -> Result<bool>;

    /// Exchanges the tables held with their shadows, in one transaction, if sink and shadows stand at the same offsets; the tables before
    /// stay for `keep`, or for as long as the configuration says. False if they do not, or a reader holds on to a table: then nothing has happened, and nothing is held any more.
    async fn exchange(&mut self, keep: Option<Duration>) -> Result<bool>;

    /// Lets go of what is held.
    async fn release(&mut self) -> Result<()>;

    /// What an exchange leaves to be done without locks: foreign keys are checked, materialized views made anew. Gives what cannot be, in
    /// whole sentences.
    async fn settle(&mut self) -> Result<Vec<String>>;

    /// Drops the shadow, if there is one.
    async fn discard(&mut self, table: &TableId) -> Result<bool>;
}
