//! Polling: systems without a log that is open to us are read again and again, and what changed goes out as events, in the envelope
//! and the topics of a capture.
//!
//! A run of a table: the watermark comes from the stored position → a window of rows is read, page by page → rows are compared with
//! the key index → only what differs is emitted → the watermark moves in the run's last batch.
//!
//! # Why nothing is lost
//!
//! * The watermark is part of the position and goes with the run's last batch. A run that fails or is killed leaves it where it was, and its
//!   window is read again.
//! * The index is never ahead of the log: what a run changes in it takes effect only when the run's last position was called durable
//!   ([`caudal_core::Reader::commit`]). Until then the index says what it said before the run, and the worst that can come of that is the same row
//!   emitted twice. It is never behind either: each run that changes it has a number, which is in the position and in the index's
//!   stamp, and an index with another number than the position's is thrown away. (One
//!   that is merely behind would take a row that changed back for unchanged.)
//! * A run that does not reach its last page has told of rows that no index knows. The position says so from its first batch on, and what is known is learnt from the log, once
//!   all of that is durable, before the next run begins.
//! * A row that was committed late, below the watermark, is read by the overlap of the next runs; one that was committed later than that only by
//!   a window or refresh that reaches back to it.
//!
//! # Why nothing is deleted by mistake
//!
//! Only a refresh that read its last page tells what is not there. A key must be absent from two such runs in a row (one can miss a row that
//! moved while pages were read), or the system itself must say that it is gone. An answer without a row where there were some, and one that lacks more than a share of
//! the known keys, is an error that deletes nothing. A refresh with rows that could not be taken is not complete: their keys are not known.
//!
//! # Why nothing is passed over
//!
//! A page that fails is asked for again, not its run. A run with rows that could not be taken leaves the watermark where it was: they are read
//! again until somebody has mended them. A page that came before within the run ends it with an error: the system repeats itself.
//!
//! # Bounds
//!
//! For each run that goes on: one page of rows, 2 bits per known key, 8 bytes per page, at its end the deletes (as eight pages at most, or `page_rows` of them; the next refreshes delete more), and the index's own
//! (see `caudal_index`). Runs of one system are one after the other; of several systems (stores) so many go on at once as [`Start`] says.

mod absent;
mod asked;
mod content;
mod desk;
mod job;
mod ledger;
mod note;
mod reader;
mod run;
pub mod schedule;
mod shapes;
pub mod stores;

pub use desk::Desk;
pub use job::{Job, Mode, Scope};
pub use note::Record;
pub use reader::{Clock, PollReader, Start};
pub use schedule::{Schedule, ScheduleConfig};
pub use shapes::same as same_shape;

use async_trait::async_trait;
use caudal_core::{BatchBuilder, PollCost, Result, TableId, TableSchema};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a source's hashes are kept: in the folder that the configuration names, or else with the instance's data.
#[must_use]
pub fn folder(named: Option<&Path>, kept: Option<&Path>, source: &str) -> PathBuf {
    let folder = match (named, kept) {
        (Some(named), _) => named.to_owned(),
        (None, Some(kept)) => kept.join("poll"),
        (None, None) => PathBuf::from("caudal-data/poll"),
    };
    folder.join(source)
}

/// A system that is polled.
#[async_trait]
pub trait Polled: Send + Sync {
    /// Connects. A fault here is the whole source's.
    async fn connect(&self) -> Result<Box<dyn Session>>;
}

/// A connection to it.
#[async_trait]
pub trait Session: Send {
    /// The system's clock, microseconds since the epoch.
    async fn now_us(&mut self) -> Result<i64>;

    /// The shape of a table now. It has a key. Version and numbers of columns are the engine's matter.
    async fn schema(&mut self, look: &Look<'_>) -> Result<Arc<TableSchema>>;

    /// One page of a window, in an order that makes `Page::next` a place in it. Its rows must be read in one statement or
    /// request, whose transaction ends with it.
    async fn page(&mut self, request: &Request<'_>) -> Result<Page>;
}

/// What a shape is asked for with.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The table.
    pub table: &'a TableId,
    /// The shape that the log was told last.
    pub known: Option<&'a Arc<TableSchema>>,
    /// What the run is going to read.
    pub window: Window<'a>,
    /// The time that the run is for.
    pub planned: jiff::Timestamp,
}

/// What to read.
#[derive(Debug)]
pub struct Request<'a> {
    /// The table's shape; rows have its cells.
    pub schema: &'a Arc<TableSchema>,
    /// Which rows.
    pub window: Window<'a>,
    /// `Page::next` of the page before; none for the first.
    pub after: Option<&'a str>,
    /// Most rows.
    pub rows: u32,
    /// Bytes at which the page is cut short; a larger row stands alone.
    pub bytes: usize,
    /// The time that the run is for: with runs that are made up for, long ago.
    pub planned: jiff::Timestamp,
}

/// Which rows a run reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Window<'a> {
    /// All.
    All,
    /// Those whose column is at least the watermark less the overlap; all with no watermark.
    Since {
        /// The column.
        column: &'a str,
        /// `Page::watermark` of an earlier run.
        watermark: Option<&'a str>,
        /// How late a row may be committed.
        overlap: std::time::Duration,
    },
    /// Those whose column is at most this long ago, by the system's clock.
    Lookback {
        /// The column.
        column: &'a str,
        /// How far back.
        period: std::time::Duration,
    },
}

/// Rows of a window.
#[derive(Default)]
pub struct Page {
    /// One event per row, with its image after; or, of a row that the system says is gone, with its image before, of which only the key counts.
    /// Everything else of the events is set by the engine.
    pub rows: BatchBuilder,
    /// Where the next page begins, as text of the connector's own; none after the last.
    pub next: Option<String>,
    /// The highest value of the window's column so far, as text of the connector's own; none if nothing was read.
    pub watermark: Option<String>,
    /// Rows that could not be taken.
    pub rejected: u64,
    /// The system says itself that rows are missing: nothing is told of absence, and the watermark stays.
    pub incomplete: bool,
    /// What to know about the rows, without their values.
    pub findings: Vec<String>,
    /// What reading it cost, where the system asks for something.
    pub cost: Option<PollCost>,
    /// The rows do not have the shape that was asked for: the run begins anew, and asks for the shape again.
    pub reshaped: bool,
    /// The place is gone that rows were read from (with the connection that read them): the run begins anew, as often as the job's attempts allow.
    pub lost: bool,
}
