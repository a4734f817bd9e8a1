//! What is polled, and how.

use caudal_core::TableId;
use std::time::Duration;

/// One table's poll.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The table.
    pub table: TableId,
    /// Which rows a run reads.
    pub mode: Mode,
    /// From the start of one run to the start of the next; a run that takes longer delays the next one, they never overlap.
    pub every: Duration,
    /// Most rows of a page.
    pub page_rows: u32,
    /// Bytes at which a page is cut short.
    pub page_bytes: usize,
    /// How long one page may take.
    pub timeout: Duration,
    /// How often a run is tried before it counts as failed; only what may pass by itself is tried again.
    pub attempts: u32,
    /// The greatest share of the known keys that one refresh may delete, 0 to 1.
    pub most_deleted: f64,
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
}

impl Mode {
    /// As the configuration writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Incremental { .. } => "incremental",
            Self::SlidingWindow { .. } => "sliding_window",
            Self::FullRefresh => "full_refresh",
        }
    }
}
