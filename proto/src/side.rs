//! The records of the side topics, as JSON. Keys are plain UTF-8 text.
//!
//! | topic | key | value |
//! |---|---|---|
//! | `caudal.<prefix>.positions` | `<source>` | [`PositionRecord`] |
//! | `caudal.<prefix>.positions` | `<source>/<note>` | the note's text; a tombstone deletes it |
//! | `caudal.<prefix>.positions` | `<source>#epoch` | [`EpochRecord`] |
//! | `caudal.<prefix>.watermarks` | `<source>` | [`WatermarkRecord`] |
//! | `caudal.<prefix>.schemas` | `<topic>/<version>` | [`SchemaRecord`] |
//! | `caudal.<prefix>.tasks` | `<source>` | [`TaskRecord`] |
//! | `caudal.<prefix>.signals` | `<source>` | [`SignalRecord`] |
//!
//! What the daemon tells of itself is in [`crate::monitoring`]. Beside them stand topics in Debezium's form: schema changes, transactions,
//! heartbeats and notifications.

use caudal_core::{Action, Incomplete, Signal, TableSchema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The version of these records' format.
pub const VERSION: u32 = 1;

/// Names of a prefix's topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicNames {
    prefix: String,
}

impl TopicNames {
    /// Names under `prefix`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix itself: also the topic of schema changes.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The data topic of a table: `<prefix>.<db>.<table>`; from the second generation on with `.g<n>`.
    #[must_use]
    pub fn data(&self, database: &str, table: &str, generation: u32) -> String {
        let name = format!("{}.{}.{}", self.prefix, legal(database), legal(table));
        if generation > 1 { format!("{name}.g{generation}") } else { name }
    }

    /// `caudal.<prefix>.positions`
    #[must_use]
    pub fn positions(&self) -> String {
        self.side("positions")
    }

    /// `caudal.<prefix>.watermarks`
    #[must_use]
    pub fn watermarks(&self) -> String {
        self.side("watermarks")
    }

    /// `caudal.<prefix>.schemas`
    #[must_use]
    pub fn schemas(&self) -> String {
        self.side("schemas")
    }

    /// `caudal.<prefix>.tasks`
    #[must_use]
    pub fn tasks(&self) -> String {
        self.side("tasks")
    }

    /// `caudal.<prefix>.signals`
    #[must_use]
    pub fn signals(&self) -> String {
        self.side("signals")
    }

    /// `<prefix>.transaction`: where transactions are announced.
    #[must_use]
    pub fn transactions(&self) -> String {
        format!("{}.transaction", self.prefix)
    }

    /// `__debezium-heartbeat.<prefix>`
    #[must_use]
    pub fn heartbeats(&self) -> String {
        format!("__debezium-heartbeat.{}", self.prefix)
    }

    /// `caudal.<prefix>.dlq.<sink>`
    #[must_use]
    pub fn dead_letters(&self, sink: &str) -> String {
        self.side(&format!("dlq.{}", legal(sink)))
    }

    /// `caudal.<prefix>.runs`
    #[must_use]
    pub fn runs(&self) -> String {
        self.side("runs")
    }

    /// `caudal.<prefix>.alerts`
    #[must_use]
    pub fn alerts(&self) -> String {
        self.side("alerts")
    }

    /// `caudal.<prefix>.metrics`
    #[must_use]
    pub fn metrics(&self) -> String {
        self.side("metrics")
    }

    /// `caudal.<prefix>.freshness`
    #[must_use]
    pub fn freshness(&self) -> String {
        self.side("freshness")
    }

    /// `<prefix>.notifications`: Debezium's, unless another name is configured.
    #[must_use]
    pub fn notifications(&self) -> String {
        format!("{}.notifications", self.prefix)
    }

    fn side(&self, name: &str) -> String {
        format!("caudal.{}.{name}", self.prefix)
    }
}

/// Kafka allows letters, digits, `.`, `_` and `-` in topic names; Debezium puts `_` for anything else.
fn legal(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect()
}

/// In every capture transaction: what resume reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The reader's token.
    pub token: String,
    /// End offsets of the partitions touched since the last watermark, this transaction included: what the next watermark
    /// starts from after a restart. Topic to (partition, end).
    pub touched: BTreeMap<String, Vec<(i32, i64)>>,
    /// The number of the last watermark written before this record.
    pub watermark: u64,
    /// Grows by one each time the capture is opened.
    pub epoch: u64,
    /// Where transactions are announced: the one that goes on after this position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<OpenTransaction>,
}

/// A writer has taken a source over whose records are written at least once: they carry this number, and what those before it write
/// from now on counts no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// [`VERSION`].
    pub v: u32,
    /// Greater than that of any writer before.
    pub epoch: u64,
}

/// What was counted so far of a source transaction that is not yet at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// GTID, or the place where it began.
    pub id: String,
    /// Events so far.
    pub events: u64,
    /// `database.table` and its events so far, in the order of their first events.
    pub tables: Vec<(String, u64)>,
    /// Its commit time in the source, microseconds since the epoch, UTC.
    pub ts_us: i64,
}

/// At the end of source transactions: "complete up to this position and time" is "these offsets are applied".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The source.
    pub source: String,
    /// Counts up by one.
    pub number: u64,
    /// Whether `ends` lists all partitions of the source, or only those touched since watermark `number - 1`.
    pub full: bool,
    /// The source position reached.
    pub position: String,
    /// Source commit time, microseconds since the epoch, UTC; never goes back.
    pub ts_us: i64,
    /// By topic.
    pub ends: BTreeMap<String, TopicEnds>,
    /// Tables that are not complete up to there: `{"tables":[…]}` or `"all"`; absent where all are.
    #[serde(default, skip_serializing_if = "Incomplete::is_none")]
    pub incomplete: Incomplete,
    /// Whether its records were written at least once: they are all there, and so may later ones be; it is no state of the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least_once: bool,
}

/// How far one topic belongs to a watermark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEnds {
    /// The topic's id, nil where the broker tells none.
    pub id: Uuid,
    /// (partition, end): all records with an offset below `end` belong to the watermark, none at or above it.
    pub ends: Vec<(i32, i64)>,
}

/// A version of a table's shape, written in the transaction of the first row that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The source.
    pub source: String,
    /// The data topic.
    pub topic: String,
    /// Its id.
    pub topic_id: Uuid,
    /// How many partitions keys are spread over: the producer takes its hash modulo this, whatever the topic has.
    pub partitions: u32,
    /// (partition, first offset) from which records have this shape, for each partition of `partitions`.
    pub from: Vec<(i32, i64)>,
    /// The source position at which it took effect.
    pub position: String,
    /// The shape.
    pub schema: TableSchema,
}

/// Which partition of the per-source topics belongs to a source. The first record of a source in partition 0 of the tasks topic, and the
/// first that takes a number, count; later contradicting ones are void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The source.
    pub source: String,
    /// Its partition of `positions`, `watermarks` and `tasks`.
    pub partition: i32,
}

/// A command to a running source, as Debezium's signals are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRecord {
    /// The sender's name for it.
    #[serde(default)]
    pub id: String,
    /// `execute-snapshot`, `stop-snapshot`, `pause-snapshot`, `resume-snapshot` or `log`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about.
    #[serde(default, deserialize_with = "data")]
    pub data: SignalData,
}

/// Debezium takes what a signal is about as JSON, or as a text that holds JSON; nothing is as good as an empty object.
fn data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignalData, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let value = match value {
        serde_json::Value::String(text) if text.trim().is_empty() => return Ok(SignalData::default()),
        serde_json::Value::String(text) => serde_json::from_str(&text).map_err(D::Error::custom)?,
        serde_json::Value::Null => return Ok(SignalData::default()),
        value => value,
    };
    serde_json::from_value(value).map_err(D::Error::custom)
}

/// What a signal is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalData {
    /// Tables, as `database.table`; patterns are allowed.
    #[serde(rename = "data-collections", default, skip_serializing_if = "Vec::is_empty")]
    pub collections: Vec<String>,
    /// `incremental` or `blocking`: both are read while the stream goes on.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of some tables only rows that meet a condition.
    #[serde(rename = "additional-conditions", default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<SignalCondition>,
    /// The same, as it was written before that: for all tables.
    #[serde(rename = "additional-condition", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Of `log`: what is to be said in the daemon's log; `{}` stands for the signal's offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A condition on one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalCondition {
    /// The table.
    #[serde(rename = "data-collection")]
    pub collection: String,
    /// SQL, as behind WHERE.
    pub filter: String,
}

impl SignalRecord {
    /// As a source takes it; none for a type that is not of these. `number` is its place in the topic.
    #[must_use]
    pub fn signal(self, number: i64) -> Option<Signal> {
        let SignalRecord { id, kind, data } = self;
        let action = match kind.as_str() {
            "execute-snapshot" => {
                let all = data
                    .condition
                    .map(|c| data.collections.iter().map(move |t| (t.clone(), c.clone())).collect());
                let of = data.conditions.into_iter().map(|c| (c.collection, c.filter)).collect::<Vec<_>>();
                let conditions = if of.is_empty() { all.unwrap_or_default() } else { of };
                Action::Reread { tables: data.collections, conditions }
            }
            "stop-snapshot" => Action::Stop { tables: data.collections },
            "pause-snapshot" => Action::Pause,
            "resume-snapshot" => Action::Resume,
            _ => return None,
        };
        Some(Signal { number, origin: String::new(), id, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_debezium_writes_them() {
        let text = r#"{"id":"d139b9b7","type":"execute-snapshot","data":{"data-collections":["db.products","db.orders"],"type":"INCREMENTAL","additional-conditions":[{"data-collection":"db.orders","filter":"color='blue'"}]}}"#;
        let record: SignalRecord = serde_json::from_str(text).unwrap();
        let Some(Signal { number: 7, id, action: Action::Reread { tables, conditions }, .. }) =
            record.signal(7)
        else {
            panic!("a re-read")
        };
        assert_eq!((id.as_str(), tables.len()), ("d139b9b7", 2));
        assert_eq!(conditions, [("db.orders".to_owned(), "color='blue'".to_owned())]);
        let read = |text| serde_json::from_str::<SignalRecord>(text).unwrap().signal(0).map(|s| s.action);
        assert_eq!(read(r#"{"type":"pause-snapshot","data":{"type":"incremental"}}"#), Some(Action::Pause));
        assert_eq!(read(r#"{"type":"log","data":{"message":"x"}}"#), None);
        let table = Action::Reread { tables: vec!["db.t".into()], conditions: Vec::new() };
        let blocking = r#"{"type":"execute-snapshot","data":{"data-collections":["db.t"],"type":"BLOCKING","surrogate-key":"k"}}"#;
        let text = r#"{"type":"execute-snapshot","data":"{\"data-collections\":[\"db.t\"],\"type\":\"incremental\"}"}"#;
        assert_eq!([read(blocking), read(text)], [Some(table.clone()), Some(table)]);
        let stop = Some(Action::Stop { tables: Vec::new() });
        for text in [
            r#"{"type":"stop-snapshot"}"#,
            r#"{"type":"stop-snapshot","data":null}"#,
            r#"{"type":"stop-snapshot","data":""}"#,
        ] {
            assert_eq!(read(text), stop, "{text}");
        }
        let said: SignalRecord =
            serde_json::from_str(r#"{"id":"1","type":"log","data":{"message":"at {}"}}"#).unwrap();
        assert_eq!(said.data.message.as_deref(), Some("at {}"));
    }

    #[test]
    fn names_are_legal_for_kafka_whatever_the_table_is_called() {
        let names = TopicNames::new("shop");
        assert_eq!(names.data("db", "orders", 1), "shop.db.orders");
        assert_eq!(names.data("db", "señal $x", 2), "shop.db.se_al__x.g2");
        assert_eq!(names.dead_letters("dash"), "caudal.shop.dlq.dash");
    }
}
