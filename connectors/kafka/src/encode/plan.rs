//! What is the same for all rows of one shape of one table, worked out once.

use crate::encode::form::Form;
use crate::encode::text;
use crate::encode::value::How;
use crate::format::{Format, Profile};
use crate::registry::Client;
use caudal_core::{Op, Result, TableSchema};
use std::sync::Arc;

/// How rows of one shape are written.
pub(crate) struct TablePlan {
    pub(crate) schema: Arc<TableSchema>,
    /// The data topic.
    pub(crate) topic: String,
    /// `database.table`: how transactions name it.
    pub(crate) data_collection: String,
    /// What keys are spread over.
    pub(crate) partitions: u32,
    /// `"name":` of each column.
    pub(crate) names: Vec<Vec<u8>>,
    pub(crate) form: Form,
    /// `source.name`
    pub(crate) prefix: String,
    /// `source.connector`
    pub(crate) connector: String,
    /// What the values of each column depend on beside its type.
    pub(crate) hows: Vec<How>,
    /// `"source":{…,"name":…,"ts_ms":`
    pub(crate) source_head: Vec<u8>,
    /// `","db":…,"sequence":null,"ts_us":`
    pub(crate) source_db: Vec<u8>,
    /// `,"table":…,"server_id":`
    pub(crate) source_table: Vec<u8>,
}

impl TablePlan {
    pub(crate) fn new(
        schema: Arc<TableSchema>,
        topic: String,
        partitions: u32,
        (prefix, connector): (&str, &str),
        (profile, format): (Profile, Format),
        registry: Option<&Client>,
    ) -> Result<Self> {
        let hows: Vec<How> = schema.columns.iter().map(|column| How::of(profile, format, column)).collect();
        let names = schema.columns.iter().map(|c| joined(&["", ":"], &[&c.name])).collect();
        let version = env!("CARGO_PKG_VERSION");
        Ok(Self {
            names,
            form: Form::new((format, registry), &schema, &hows, (&topic, connector))?,
            hows,
            prefix: prefix.to_owned(),
            connector: connector.to_owned(),
            source_head: joined(
                &["\"source\":{\"version\":", ",\"connector\":", ",\"name\":", ",\"ts_ms\":"],
                &[version, connector, prefix],
            ),
            source_db: joined(&["\",\"db\":", ",\"sequence\":null,\"ts_us\":"], &[&schema.id.database]),
            source_table: joined(&[",\"table\":", ",\"server_id\":"], &[&schema.id.table]),
            data_collection: schema.id.to_string(),
            topic,
            partitions,
            schema,
        })
    }

    /// Whether records carry a key, and the topic is compacted.
    pub(crate) fn keyed(&self) -> bool {
        !self.schema.key.is_empty()
    }
}

/// Literal text with JSON strings between its parts.
fn joined(parts: &[&str], strings: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        out.extend_from_slice(part.as_bytes());
        if let Some(s) = strings.get(i) {
            text::string(&mut out, s.as_bytes());
        }
    }
    out
}

/// `,"op":"c"`
pub(crate) fn op(op: Op) -> &'static [u8] {
    match op {
        Op::Read => b",\"op\":\"r\"",
        Op::Create => b",\"op\":\"c\"",
        Op::Update => b",\"op\":\"u\"",
        Op::Delete => b",\"op\":\"d\"",
        Op::Truncate => b",\"op\":\"t\"",
    }
}
