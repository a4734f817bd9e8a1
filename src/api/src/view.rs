//! What `GET /status` says, as JSON: written by the daemon, read by `caudal status`. Keys are only ever added.

use crate::freshness::Told;
use caudal_core::{PollStatus, Progress, SetAside, Warning};
use caudal_engine::status::{LastError, PipelineStatus};
use serde::{Deserialize, Serialize};

/// Where the whole daemon stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// First part of the topics' names.
    pub prefix: String,
    /// The log: `embedded, 127.0.0.1:9092` or the brokers.
    pub log: String,
    /// When the daemon started, microseconds since the epoch, UTC.
    pub started_us: i64,
    /// When this was asked, on the daemon's clock.
    pub now_us: i64,
    /// Captures first, then sinks.
    pub pipelines: Vec<Pipeline>,
}

/// Where a pipeline stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pipeline {
    /// `capture/plex`, `sink/dashboards`.
    pub name: String,
    /// `starting`, `waiting`, `running`, `retrying`, `parked`, `failed` or `stopped`.
    pub state: String,
    /// Since when.
    pub since_us: i64,
    /// Events that went through since the daemon started.
    pub events: u64,
    /// Events per second over the last seconds.
    pub events_per_second: f64,
    /// Bytes that went through.
    pub bytes: u64,
    /// Commits.
    pub commits: u64,
    /// Events that the sink could not take.
    pub rejected: u64,
    /// Sessions that ended with an error.
    pub errors: u64,
    /// Source time up to which everything is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_us: Option<i64>,
    /// Now minus the watermark, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness_seconds: Option<f64>,
    /// The last durable position, as the source writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// The last error; stays after recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Trouble>,
    /// What a capture reads beside its stream (the initial snapshot, re-reads), and did lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reading: Vec<Progress>,
    /// Of a sink: up to when each table is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Told>,
    /// Where polled tables stand, and when they are read next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub polls: Vec<PollStatus>,
    /// Tables that a capture cannot follow for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<SetAside>,
    /// What somebody should see to before it is too late.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// An error, as the operator should see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// `transient`, `config`, `data`, `fenced` or `bug`.
    pub fault: String,
    /// Field, what failed, cause.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When.
    pub at_us: i64,
}

impl From<LastError> for Trouble {
    fn from(error: LastError) -> Self {
        Self { fault: error.fault, message: error.message, hint: error.hint, at_us: error.at_us }
    }
}

impl Pipeline {
    pub(crate) fn of(status: PipelineStatus, events_per_second: f64, now_us: i64) -> Self {
        let behind = |watermark: i64| (now_us - watermark).max(0) as f64 / 1e6;
        Self {
            state: state_name(&status),
            name: status.name,
            since_us: status.since_us,
            events: status.events,
            events_per_second,
            bytes: status.bytes,
            commits: status.commits,
            rejected: status.rejected,
            errors: status.errors,
            freshness_seconds: status.watermark_us.map(behind),
            watermark_us: status.watermark_us,
            position: status.position,
            last_error: status.last_error.map(Trouble::from),
            reading: status.reading,
            tables: Vec::new(),
            polls: status.polls,
            set_aside: status.set_aside,
            warnings: status.warnings,
        }
    }
}

fn state_name(status: &PipelineStatus) -> String {
    match serde_json::to_value(status.state) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{:?}", status.state).to_lowercase(),
    }
}

/// What `GET /health` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, or `failing` when a pipeline does not run.
    pub status: String,
    /// The pipelines that do not run, each with what is wrong. Empty for who has not shown the API key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<Failing>,
}

/// A pipeline that does not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failing {
    /// The pipeline.
    pub pipeline: String,
    /// Its state.
    pub state: String,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
