//! Where polled tables stand, for people.

use serde::{Deserialize, Serialize};

/// A table that is polled; of a table that several stores share, one store's part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PollStatus {
    /// `database.table`.
    pub table: String,
    /// The store, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Which rows a run reads: `full_refresh`.
    pub mode: String,
    /// When it runs, as people write it: `every 5m`.
    pub schedule: String,
    /// Whether a run goes on.
    pub running: bool,
    /// The next runs' times, microseconds since the epoch, UTC; the first may be over, if it waits for its turn.
    pub next_us: Vec<i64>,
    /// The last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<PollRun>,
}

/// A run of a polled table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PollRun {
    /// Counts runs.
    pub number: u64,
    /// The time that it was for, microseconds since the epoch, UTC.
    pub planned_us: i64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that were new or different.
    pub changed: u64,
    /// Rows that were deleted.
    pub deleted: u64,
    /// Rows that could not be taken.
    pub rejected: u64,
    /// What the rows that were read take in memory.
    #[serde(default)]
    pub bytes: u64,
    /// Up to where the table had been read when the run began, as its connector writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_before: Option<String>,
    /// Up to where it was read then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// What to know about the rows, without their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// What it cost, where the system asks for something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<PollCost>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What reading cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PollCost {
    /// Bytes that are billed.
    pub bytes_billed: u64,
    /// Milliseconds of slots (a slot is a unit of computing).
    pub slot_ms: u64,
    /// In the currency of the configured price.
    pub price: f64,
}

impl PollCost {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes_billed: self.bytes_billed + other.bytes_billed,
            slot_ms: self.slot_ms + other.slot_ms,
            price: self.price + other.price,
        }
    }
}
