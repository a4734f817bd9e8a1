//! Reading rows again beside a stream: what is asked of a source, how far it is, and what it may ask of the log.

use crate::batch::Batch;
use crate::fault::Result;
use crate::schema::TableId;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A command to a running source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Grows from one command to the next: a source remembers the last one that it took, and takes none twice.
    pub number: i64,
    /// Names what the numbers count in, if that is known: another one's numbers begin again.
    pub origin: String,
    /// The sender's name for it; shown with its progress.
    pub id: String,
    /// What to do.
    pub action: Action,
}

impl Signal {
    /// Whether another one's number is known to count in something else.
    #[must_use]
    pub fn is_apart(&self, other: &Self) -> bool {
        are_apart(&self.origin, &other.origin)
    }
}

fn are_apart(a: &str, b: &str) -> bool {
    !a.is_empty() && !b.is_empty() && a != b
}

/// The last command that a source has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    number: i64,
    origin: String,
}

impl Taken {
    /// This command.
    #[must_use]
    pub fn of(signal: &Signal) -> Self {
        Self { number: signal.number, origin: signal.origin.clone() }
    }

    /// From its note.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (number, origin) = text.split_once(' ').unwrap_or((text, ""));
        Self { number: number.parse().unwrap_or(0), origin: origin.to_owned() }
    }

    /// As a note.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} {}", self.number, self.origin).trim_end().to_owned()
    }

    /// Whether a command came after it.
    #[must_use]
    pub fn precedes(&self, signal: &Signal) -> bool {
        signal.number > self.number || are_apart(&self.origin, &signal.origin)
    }
}

/// What a command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read rows again, reconciled with what the log holds.
    Reread {
        /// Names or patterns, as in the source's `tables`.
        tables: Vec<String>,
        /// (table, condition in the source's language): of this table only rows that meet it.
        conditions: Vec<(String, String)>,
    },
    /// Give up re-reads of these tables; with none named, all.
    Stop {
        /// Names or patterns.
        tables: Vec<String>,
    },
    /// Open no further chunk until told to.
    Pause,
    /// Go on.
    Resume,
}

/// What becomes of one table's reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its turn has not come.
    Waiting,
    /// What the log holds of it is being looked up.
    Comparing,
    /// Rows are read.
    Reading,
    /// The operator paused it.
    Paused,
    /// The source is under load: it waits.
    Throttled,
    /// All was delivered.
    Done,
    /// It was given up on request.
    Stopped,
    /// There is no such table.
    Refused,
}

/// How far the reading of one table is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The command's id; empty for the initial snapshot and for what the source asked of itself.
    pub id: String,
    /// `snapshot`, or why it is read again.
    pub reason: String,
    /// The table.
    pub table: String,
    /// What is going on.
    pub phase: Phase,
    /// Rows read so far.
    pub rows: u64,
    /// Of these, how many were delivered: a re-read leaves out what the log holds already.
    pub delivered: u64,
    /// Rows that the log held and the source no more: deleted there.
    pub deleted: u64,
    /// What the rows that were read take in memory, since the daemon was started.
    #[serde(default)]
    pub bytes: u64,
    /// All rows, as the source estimates.
    pub estimated_rows: u64,
    /// Since it began.
    pub rows_per_second: u64,
    /// Until it is done, as far as that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

impl Progress {
    /// 0 to 100; 100 only when it is done.
    #[must_use]
    pub fn percent(&self) -> u64 {
        match self.phase {
            Phase::Done => 100,
            _ => (self.rows * 100).checked_div(self.estimated_rows.max(self.rows)).unwrap_or(0).min(99),
        }
    }
}

/// What the log holds of a captured source's tables.
#[async_trait]
pub trait Written: Send + Sync {
    /// Reads what is committed of a table now, from its beginning.
    async fn open(&self, table: &TableId) -> Result<Box<dyn WrittenRows>>;
}

/// Events of one table as they lie in the log, the oldest first.
#[async_trait]
pub trait WrittenRows: Send {
    /// The next events; none at the end that the table had when this was opened. What could not be decoded is in the batch's
    /// `undecodable`.
    async fn next(&mut self) -> Result<Option<Batch>>;
}
