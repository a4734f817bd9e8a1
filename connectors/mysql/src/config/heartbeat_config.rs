//! `heartbeat: 5s`, or `heartbeat: {every: 5s, table: caudal.heartbeat}`.

use caudal_core::quantity::DurationText;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// How often, and where a row is written each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// The period.
    pub every: DurationText,
    /// `database.table`.
    pub table: Option<String>,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { every: DurationText::secs(5), table: None }
    }
}

/// The long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Group {
    /// The period.
    every: DurationText,
    /// A table with the columns `id` and `ts`, in which this source's row gets the time of each heartbeat. It is captured, too.
    table: Option<String>,
}

impl Default for Group {
    fn default() -> Self {
        let HeartbeatConfig { every, table } = HeartbeatConfig::default();
        Self { every, table }
    }
}

impl<'de> Deserialize<'de> for HeartbeatConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = HeartbeatConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like 5s, or a group with `every` and `table`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HeartbeatConfig, E> {
        text.parse().map(|every| HeartbeatConfig { every, table: None }).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeartbeatConfig, A::Error> {
        let Group { every, table } = Group::deserialize(MapAccessDeserializer::new(map))?;
        Ok(HeartbeatConfig { every, table })
    }
}

impl JsonSchema for HeartbeatConfig {
    fn schema_name() -> Cow<'static, str> {
        "Heartbeat".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let group = Group::json_schema(generator);
        let duration = DurationText::json_schema(generator);
        json_schema!({ "anyOf": [duration, group] })
    }
}
