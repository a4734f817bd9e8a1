//! How records are written: what `profile`, `format` and the keys beside them in the `kafka:` node mean.

use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;

/// Whose conventions values follow where Debezium's lose data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Profile {
    /// Debezium's envelope, with each value as the source has it: unsigned BIGINT exact, zero dates as text, TINYINT(1) a boolean.
    #[default]
    #[serde(rename = "safe")]
    Safe,
    /// What Debezium 3.5 writes with its own defaults and those of Kafka Connect; its losses too.
    #[serde(rename = "debezium-3.5")]
    Debezium35,
}

/// The form of keys and values in data topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Debezium's envelope as bare JSON.
    #[default]
    Json,
    /// The same within `{"schema":…,"payload":…}`, as Connect's JsonConverter writes it.
    JsonSchema,
    /// The row after the change alone, with `__deleted`, `__op` and `__source_ts_ms`. No sink of Caudal can read it.
    Flat,
    /// Maxwell's `{database, table, type, ts, xid, commit, data, old}`. No sink of Caudal can read it.
    Maxwell,
    /// CloudEvents 1.0, structured JSON, with Debezium's attributes. No sink of Caudal can read it.
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// The envelope in Avro, framed for a schema registry.
    Avro,
    /// The envelope in Protobuf, framed for a schema registry.
    Protobuf,
    /// Caudal's own envelope in Protobuf, which needs no registry.
    Caudal,
}

impl Format {
    /// As the configuration names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonSchema => "json-schema",
            Self::Flat => "flat",
            Self::Maxwell => "maxwell",
            Self::CloudEvents => "cloudevents",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
            Self::Caudal => "caudal",
        }
    }

    /// Whether a record holds all that a sink needs: both images, and its place in the source.
    pub(crate) fn is_readable(self) -> bool {
        !matches!(self, Self::Flat | Self::Maxwell | Self::CloudEvents)
    }

    /// Whether records name a schema of a registry.
    pub(crate) fn is_registered(self) -> bool {
        matches!(self, Self::Avro | Self::Protobuf)
    }
}

/// A schema registry that speaks Confluent's API.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// `http://host:port` or `https://…`, with the path before `/subjects`, if there is one.
    pub url: String,
    /// User, for basic authentication.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// PEM file of the certificate authorities to trust. Left out: those that are commonly trusted.
    pub ca: Option<String>,
}

// Debug hides the password; the URL may hold one too.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("username", &self.username).finish_non_exhaustive()
    }
}
