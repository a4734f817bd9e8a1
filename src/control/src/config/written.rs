//! Stage one: the configuration as it is written. Each text here is what the reference page says.

use caudal_core::{DurationText, SizeText};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// The configuration of Caudal: one YAML file. Unknown keys are errors. `${env:NAME}` and `${file:/path}` may stand in any
/// text; `$${` is a plain `${`. Durations are written `5s`, sizes `8MiB`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    /// Names everything in the log: topics are `<prefix>.<database>.<table>`. Letters, digits, `.`, `_`, `-`. Changing it later starts from nothing.
    pub(crate) prefix: String,
    /// Where the embedded log and rebuildable state are kept. A relative path starts at this file's folder.
    #[serde(default = "default_data_dir")]
    pub(crate) data_dir: String,
    /// The Kafka cluster. Left out (or without `brokers`), the log is served by the daemon itself, from `data_dir`.
    #[serde(default)]
    #[allow(dead_code)]
    pub(crate) kafka: Opaque,
    /// The embedded log: what the daemon serves where `kafka.brokers` is left out.
    #[serde(default)]
    pub(crate) log: LogWritten,
    /// Health, metrics and status over HTTP.
    #[serde(default)]
    pub(crate) http: HttpWritten,
    /// What is captured: name → source. Letters, digits, `_` and `-` in names.
    #[serde(default)]
    #[allow(dead_code)]
    pub(crate) sources: Opaque,
    /// Where it goes: name → sink.
    #[serde(default)]
    #[allow(dead_code)]
    pub(crate) sinks: Opaque,
}

fn default_data_dir() -> String {
    "caudal-data".to_owned()
}

/// The embedded log, a single node that speaks the Kafka protocol (`kcat -b 127.0.0.1:9092 -L`).
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogWritten {
    /// Address and port; port 0 takes a free one.
    pub(crate) listen: String,
    /// Listen beyond loopback all the same: there is neither TLS nor a password.
    pub(crate) allow_remote: bool,
    /// Size at which a segment file is closed and the next begun.
    pub(crate) segment_size: SizeText,
}

impl Default for LogWritten {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9092".to_owned(), allow_remote: false, segment_size: SizeText::mib(128) }
    }
}

/// `GET /health`, `/metrics`, `/status`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpWritten {
    /// Address and port; port 0 takes a free one.
    pub(crate) listen: String,
    /// Asked for as `Authorization: Bearer …` or `X-API-Key: …`. Required when `listen` is not a loopback address; at least 16 characters.
    pub(crate) api_key: Option<String>,
}

impl Default for HttpWritten {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".to_owned(), api_key: None }
    }
}

/// Read in a second step, by whom it concerns.
#[derive(Default)]
pub(crate) struct Opaque;

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Consistency {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Key => "key",
        }
    }
}

impl JsonSchema for Opaque {
    fn schema_name() -> Cow<'static, str> {
        "Group".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

/// The key that every source has beside its connector's own.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct SourceCommon {
    /// The kind of system.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// The keys that every sink has beside its connector's own.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct SinkCommon {
    /// The kind of system.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The sources whose tables it takes.
    pub(crate) from: Vec<String>,
    /// What a reader of the target sees: `transaction` (whole source transactions) or `key` (each row by itself, the fastest).
    #[serde(default)]
    pub(crate) consistency: Consistency,
    /// What happens to an event that the target cannot take: `park` stops the sink there, `dead_letter` stores the event in
    /// `caudal.<prefix>.dlq.<sink>` and goes on. Default: `park` with `consistency: transaction`, else `dead_letter`.
    #[serde(default)]
    pub(crate) on_reject: Option<OnReject>,
    /// How many tables (or partitions of tables) are applied at the same time, each over its own connection. More than one needs
    /// `consistency: key`.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub(crate) parallel: u32,
    /// Compare its tables with their sources again and again, while both live, as `caudal verify` does: what differs is an alert, and the
    /// moment up to which all was equal is a metric.
    #[serde(default)]
    pub(crate) verify: Option<VerifySettings>,
}

/// How tables are compared again and again.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifySettings {
    /// From the beginning of one round over all tables to the next.
    #[serde(default = "every_day")]
    pub every: DurationText,
    /// Rows per second at most, at each end.
    #[serde(default = "gently")]
    #[schemars(range(min = 1))]
    pub rate: u64,
}

fn one() -> u32 {
    1
}

fn every_day() -> DurationText {
    DurationText::secs(24 * 3600)
}

fn gently() -> u64 {
    5_000
}

/// What a reader of the target sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Whole source transactions across tables: never half of one.
    #[default]
    Transaction,
    /// Each row in the order of its changes; rows of one source transaction may appear at different moments. The fastest.
    Key,
}

/// What happens to an event that the target cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The sink stops there and says so; nothing is passed over.
    Park,
    /// The event goes to the topic `caudal.<prefix>.dlq.<sink>`, and the sink goes on.
    DeadLetter,
}
