//! What is polled, and how.

use crate::schedule::Schedule;
use caudal_core::TableId;
use std::time::Duration;

/// One table's poll; of a table that several systems share (stores), one system's part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The table.
    pub table: TableId,
    /// Which of the source's systems has it: an index into [`crate::Start::systems`].
    pub system: usize,
    /// Which rows of the table are this system's, where it is shared.
    pub scope: Option<Scope>,
    /// Which rows a run reads.
    pub mode: Mode,
    /// When it runs. A run that takes longer delays the next one, they never overlap.
    pub schedule: Schedule,
    /// Most rows of a page.
    pub page_rows: u32,
    /// Bytes at which a page is cut short.
    pub page_bytes: usize,
    /// How long one page may take.
    pub timeout: Duration,
    /// How often a page is tried before its run counts as failed; only what may pass by itself is tried again.
    pub attempts: u32,
    /// The greatest share of the known keys that one refresh may delete, 0 to 1.
    pub most_deleted: f64,
    /// What it is asked with names a part of the rows, by a time: even of a forced run nothing is gone that is not in the answer.
    pub partial: bool,
}

/// One system's part of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// The system's name: a store's id.
    pub name: String,
    /// Columns of text, all of the key, that together tell whose a row is, and what each holds in this system's rows.
    pub columns: Vec<(String, String)>,
}

impl Job {
    /// Its name in positions and files: `d.t`, `d.t@store`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.scope {
            Some(scope) => format!("{}@{}", self.table, scope.name),
            None => self.table.to_string(),
        }
    }
}

/// Which rows a run reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// Rows whose column has grown past the last run's highest value. Deletes are not seen.
    Incremental {
        /// A column that grows with every change of a row.
        column: String,
        /// How long before the watermark the window begins: rows that were committed late.
        overlap: Duration,
    },
    /// Rows of the last days. Deletes are not seen.
    SlidingWindow {
        /// A column that holds a time.
        column: String,
        /// How far back.
        lookback: Duration,
    },
    /// All rows; keys that are gone are deleted.
    FullRefresh,
    /// The same, and all rows go out, changed or not.
    Force,
}

impl Mode {
    /// Whether a run reads all rows, and so can tell which are gone.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::FullRefresh | Self::Force)
    }

    /// As the configuration writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Incremental { .. } => "incremental",
            Self::SlidingWindow { .. } => "sliding_window",
            Self::FullRefresh => "full_refresh",
            Self::Force => "force",
        }
    }
}
