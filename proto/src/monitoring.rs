//! What the daemon tells of itself in topics, as JSON; `docs/monitoring.md` explains each member to those who read it there.
//!
//! | topic | key | value | kept |
//! |---|---|---|---|
//! | `caudal.<prefix>.runs` | [`RunRecord::id`] | [`RunRecord`] | for a time |
//! | `caudal.<prefix>.alerts` | [`AlertRecord::id`] | [`AlertRecord`] | all for a time, then the last of each alert |
//! | `caudal.<prefix>.metrics` | `<pipeline>`, or `client/<client.id>/<kind>` | [`MetricsRecord`] | the last of each |
//! | `caudal.<prefix>.freshness` | `<sink>`, or `<sink>/<source>/<table>` | [`FreshnessRecord`] | the last of each |
//! | `<prefix>.notifications` | [`NotificationKey`] | [`Notification`] | as the brokers keep by default |
//!
//! Members are only ever added. Times are microseconds since the epoch, UTC, where their name ends in `_us`.

use crate::side::VERSION;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One bounded piece of work: the first reading of a table, its reading anew, a poll, a comparison. Written when it is first seen and when it
/// has ended, under one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`VERSION`].
    pub v: u32,
    /// Names the run.
    pub id: String,
    /// `snapshot`, `reread`, `poll` or `verify`.
    pub kind: String,
    /// `capture/<source>`, for a comparison `sink/<sink>`.
    pub pipeline: String,
    /// `database.table`.
    pub table: String,
    /// Of a poll of several stores: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The id of the command that asked for it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Why a table is read anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `running`, `done`, `stopped`, `failed` or `refused`.
    pub state: String,
    /// When it began, as far as it was seen.
    pub started_us: i64,
    /// When it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<i64>,
    /// How long it took, or has taken so far.
    pub took_ms: u64,
    /// Rows that were read, or compared.
    pub rows: u64,
    /// Rows that were delivered: new or different ones.
    pub delivered: u64,
    /// Rows that were deleted.
    pub deleted: u64,
    /// Rows that could not be taken; of a comparison: that differ.
    pub rejected: u64,
    /// Bytes that were read, where that is known: what the rows take in memory; of a table that a restart interrupted,
    /// those since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Of a poll of a system that asks for something: bytes that are billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_billed: Option<u64>,
    /// The same: milliseconds of slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_ms: Option<u64>,
    /// The same: what it cost, in the currency of the configured price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Something that somebody should see to: written when it is raised, when it grows, and when it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// [`VERSION`].
    pub v: u32,
    /// `<pipeline>/<kind>`, with the table where it is of one.
    pub id: String,
    /// `parked`, `not_running`, `dead_letters`, `lag`, `table_set_aside`, `binlog_purge` or `poll_failed`.
    pub kind: String,
    /// `critical` where data stands still or may be lost, else `warning`.
    pub severity: String,
    /// `open` or `resolved`.
    pub state: String,
    /// `capture/<source>` or `sink/<sink>`.
    pub pipeline: String,
    /// The table, where it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// What is wrong, without values of rows.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How much: letters, or seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// When it was raised.
    pub since_us: i64,
    /// When this was written.
    pub at_us: i64,
}

/// The counters of a pipeline, or of a client of Kafka, now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsRecord {
    /// [`VERSION`].
    pub v: u32,
    /// When.
    pub at_us: i64,
    /// Of a pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<PipelineMetrics>,
    /// Of a client of Kafka, as librdkafka reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<serde_json::Value>,
}

/// The counters of a pipeline since the daemon began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineMetrics {
    /// `capture/<source>` or `sink/<sink>`.
    pub name: String,
    /// `starting`, `waiting`, `running`, `retrying`, `parked`, `failed` or `stopped`.
    pub state: String,
    /// Since when.
    pub since_us: i64,
    /// Events that went through.
    pub events: u64,
    /// Bytes that went through.
    pub bytes: u64,
    /// Commits.
    pub commits: u64,
    /// Events that the target could not take.
    pub rejected: u64,
    /// Dead letters that wait for somebody.
    pub dead_letters: u64,
    /// Sessions that ended with an error.
    pub errors: u64,
    /// Tables that the source cannot follow for now.
    pub tables_set_aside: u64,
    /// Source time up to which everything is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_us: Option<i64>,
    /// Its age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
}

/// Up to when a sink, or one of its tables, shows everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FreshnessRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The sink.
    pub sink: String,
    /// The source; none for the sink as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `database.table` in the source; none for the sink as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The source's clock: all that was committed there before is shown. None before the first reading is over.
    pub complete_to_us: Option<i64>,
    /// How long that is ago.
    pub lag_seconds: Option<f64>,
    /// The source's position there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Dead letters of the sink that wait for somebody: it is complete but for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<u64>,
    /// When this was written.
    pub at_us: i64,
}

/// The key of a notification, as Debezium writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationKey {
    /// The notification's.
    pub id: String,
}

/// A notification as Debezium writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Its own; that of the signal, if one asked for the snapshot.
    pub id: String,
    /// `STARTED`, `IN_PROGRESS`, `TABLE_SCAN_COMPLETED`, `COMPLETED`, `PAUSED` …
    #[serde(rename = "type")]
    pub kind: String,
    /// `Initial Snapshot` or `Incremental Snapshot`.
    pub aggregate_type: String,
    /// What it is about.
    pub additional_data: BTreeMap<String, String>,
    /// Milliseconds since the epoch, UTC.
    pub timestamp: i64,
}

impl MetricsRecord {
    /// Of a pipeline.
    #[must_use]
    pub fn of_pipeline(at_us: i64, pipeline: PipelineMetrics) -> Self {
        Self { v: VERSION, at_us, pipeline: Some(pipeline), client: None }
    }

    /// Of a client of Kafka.
    #[must_use]
    pub fn of_client(at_us: i64, client: serde_json::Value) -> Self {
        Self { v: VERSION, at_us, pipeline: None, client: Some(client) }
    }
}
