//! What a column is in the type system of Kafka Connect, as Debezium maps it: the schemas of JSON with schemas, and of Avro, are made of it.

use crate::encode::value::How;
use caudal_core::temporal::days_from_civil;
use caudal_core::{Column, ColumnType, TableSchema};
use serde_json::Value;

/// A type of Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    String,
    Bytes,
    /// An array of 32-bit floats.
    Floats,
    /// `{wkb, srid}`, with the coordinates before them if so.
    Shape {
        point: bool,
    },
}

impl Kind {
    /// The name in Connect's JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float",
            Self::Float64 => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Floats => "array",
            Self::Shape { .. } => "struct",
        }
    }
}

/// A field of a row.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) kind: Kind,
    pub(crate) optional: bool,
    /// The semantic type: `io.debezium.time.Date`; its version is 1.
    pub(crate) semantic: Option<&'static str>,
    pub(crate) parameters: Vec<(&'static str, String)>,
    pub(crate) default: Option<Value>,
    pub(crate) doc: Option<String>,
}

impl Field {
    /// What a column is.
    pub(crate) fn of(column: &Column, how: How) -> Self {
        let (kind, semantic) = kind(&column.ty, how);
        Self {
            kind,
            optional: column.nullable,
            semantic,
            parameters: parameters(&column.ty, kind),
            default: default(column, kind),
            doc: column.comment.clone().filter(|comment| !comment.is_empty()),
        }
    }

    /// As Connect's JsonConverter writes a schema.
    fn json(&self, name: &str) -> String {
        let mut all = vec![("type", quoted(self.kind.name()))];
        match self.kind {
            Kind::Floats => all.push(("items", r#"{"type":"float","optional":false}"#.into())),
            Kind::Shape { point } => all.push(("fields", shape(point))),
            _ => {}
        }
        all.push(("optional", self.optional.to_string()));
        if let Some(semantic) = self.semantic {
            all.extend([("name", quoted(semantic)), ("version", "1".into())]);
        }
        if let Some(doc) = &self.doc {
            all.push(("doc", quoted(doc)));
        }
        if !self.parameters.is_empty() {
            let parameters: Vec<_> = self.parameters.iter().map(|(k, v)| (*k, quoted(v))).collect();
            all.push(("parameters", object(&parameters)));
        }
        if let Some(default) = &self.default {
            all.push(("default", default.to_string()));
        }
        all.push(("field", quoted(name)));
        object(&all)
    }
}

/// A JSON object of members that are JSON already, in this order.
pub(crate) fn object(members: &[(&str, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(k, v)| format!("{}:{v}", quoted(k))).collect();
    format!("{{{}}}", members.join(","))
}

/// A JSON array of elements that are JSON already.
pub(crate) fn array(elements: &[String]) -> String {
    format!("[{}]", elements.join(","))
}

/// A JSON string.
pub(crate) fn quoted(string: &str) -> String {
    Value::from(string).to_string()
}

fn plain(kind: &str, optional: bool, name: &str) -> String {
    object(&[("type", quoted(kind)), ("optional", optional.to_string()), ("field", quoted(name))])
}

fn shape(point: bool) -> String {
    let mut fields = Vec::new();
    if point {
        fields.extend([plain("double", false, "x"), plain("double", false, "y")]);
    }
    fields.extend([plain("bytes", false, "wkb"), plain("int32", true, "srid")]);
    array(&fields)
}

fn kind(ty: &ColumnType, how: How) -> (Kind, Option<&'static str>) {
    use ColumnType as T;
    match ty {
        T::Bool if how.debezium => (Kind::Int16, None),
        T::Bool | T::Bit { bits: 1 } => (Kind::Boolean, None),
        T::Int { bits: ..=16 } | T::UInt { bits: ..=8 } => (Kind::Int16, None),
        T::Int { bits: ..=32 } | T::UInt { bits: ..=24 } => (Kind::Int32, None),
        T::UInt { bits: 64 } if !how.debezium => (Kind::Bytes, Some(DECIMAL)),
        T::Int { .. } | T::UInt { .. } => (Kind::Int64, None),
        T::Float32 if how.wide && how.debezium => (Kind::Float64, None),
        T::Float32 => (Kind::Float32, None),
        T::Float64 => (Kind::Float64, None),
        T::Decimal { .. } => (Kind::Bytes, Some(DECIMAL)),
        T::Text { .. } | T::Inet4 | T::Inet6 => (Kind::String, None),
        T::Bytes { .. } => (Kind::Bytes, None),
        T::Date => (Kind::Int32, Some("io.debezium.time.Date")),
        T::Time { .. } => (Kind::Int64, Some("io.debezium.time.MicroTime")),
        T::DateTime { precision: ..=3 } => (Kind::Int64, Some("io.debezium.time.Timestamp")),
        T::DateTime { .. } => (Kind::Int64, Some("io.debezium.time.MicroTimestamp")),
        T::Timestamp { .. } => (Kind::String, Some("io.debezium.time.ZonedTimestamp")),
        T::Year => (Kind::Int32, Some("io.debezium.time.Year")),
        T::Json => (Kind::String, Some("io.debezium.data.Json")),
        T::Enum { .. } => (Kind::String, Some("io.debezium.data.Enum")),
        T::Set { .. } => (Kind::String, Some("io.debezium.data.EnumSet")),
        T::Bit { .. } => (Kind::Bytes, Some("io.debezium.data.Bits")),
        T::Geometry if how.point => (Kind::Shape { point: true }, Some("io.debezium.data.geometry.Point")),
        T::Geometry => (Kind::Shape { point: false }, Some("io.debezium.data.geometry.Geometry")),
        T::Vector { .. } => (Kind::Floats, Some("io.debezium.data.FloatVector")),
        T::Uuid => (Kind::String, Some("io.debezium.data.Uuid")),
    }
}

const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";

fn parameters(ty: &ColumnType, kind: Kind) -> Vec<(&'static str, String)> {
    let decimal = |scale: u8, precision: u8| {
        vec![("scale", scale.to_string()), ("connect.decimal.precision", precision.to_string())]
    };
    match ty {
        ColumnType::Decimal { precision, scale } => decimal(*scale, *precision),
        ColumnType::UInt { bits: 64 } if kind == Kind::Bytes => decimal(0, 20),
        ColumnType::Bit { bits } if *bits > 1 => vec![("length", bits.to_string())],
        ColumnType::Enum { members } | ColumnType::Set { members } => {
            let escaped: Vec<String> = members.iter().map(|m| m.replace(',', "\\,")).collect();
            vec![("allowed", escaped.join(","))]
        }
        _ => Vec::new(),
    }
}

/// The default as a value of the field's kind, where it is a constant.
fn default(column: &Column, kind: Kind) -> Option<Value> {
    let text = column.default.as_deref()?;
    match (&column.ty, kind) {
        (ColumnType::Timestamp { .. }, _) => {
            let moving = text.to_ascii_uppercase().starts_with("CURRENT_TIMESTAMP");
            moving.then(|| "1970-01-01T00:00:00Z".into())
        }
        (ColumnType::Date, _) => Some(days(text)?.into()),
        (ColumnType::DateTime { precision }, _) => {
            let micros = days(text.get(..10)?)? * 86_400_000_000 + micros(text.get(11..)?)?;
            Some(if *precision <= 3 { micros.div_euclid(1_000) } else { micros }.into())
        }
        (_, Kind::Boolean) => Some((text == "1" || text == "b'1'").into()),
        (_, Kind::Int16 | Kind::Int32 | Kind::Int64) => text.parse::<i64>().ok().map(Value::from),
        (_, Kind::Float32 | Kind::Float64) => text.parse::<f64>().ok().map(Value::from),
        (ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. }, Kind::String) => {
            Some(text.into())
        }
        _ => None,
    }
}

fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(str::parse::<i32>);
    let mut part = || parts.next()?.ok();
    days_from_civil(part()?, part()? as u32, part()? as u32)
}

fn micros(time: &str) -> Option<i64> {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let seconds = whole.split(':').try_fold(0_i64, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?))?;
    let fraction = format!("{fraction:0<6}").get(..6)?.parse::<i64>().ok()?;
    Some(seconds * 1_000_000 + fraction)
}

/// `{"schema":…,"payload":` of a table's keys.
pub(crate) fn key_head(schema: &TableSchema, hows: &[How], topic: &str) -> Vec<u8> {
    let fields: Vec<String> = schema.key.iter().map(|&i| field(schema, hows, i as usize)).collect();
    head(&structure(&fields, false, &format!("{topic}.Key"), None, None))
}

/// `{"schema":…,"payload":` of a table's envelopes.
pub(crate) fn value_head(schema: &TableSchema, hows: &[How], topic: &str, connector: &str) -> Vec<u8> {
    let row = |name: &str| {
        let fields: Vec<String> = (0..schema.columns.len()).map(|i| field(schema, hows, i)).collect();
        structure(&fields, true, &format!("{topic}.Value"), None, Some(name))
    };
    let block = [
        plain("string", false, "id"),
        plain("int64", false, "total_order"),
        plain("int64", false, "data_collection_order"),
    ];
    let source_name = format!("io.debezium.connector.{connector}.Source");
    let fields = [
        row("before"),
        row("after"),
        structure(&source_fields(), false, &source_name, Some(1), Some("source")),
        structure(&block, true, "event.block", Some(1), Some("transaction")),
        plain("string", false, "op"),
        plain("int64", true, "ts_ms"),
        plain("int64", true, "ts_us"),
        plain("int64", true, "ts_ns"),
    ];
    head(&structure(&fields, false, &format!("{topic}.Envelope"), Some(2), None))
}

fn field(schema: &TableSchema, hows: &[How], column: usize) -> String {
    let column_of = &schema.columns[column];
    Field::of(column_of, hows[column]).json(&column_of.name)
}

/// The members of a source block: name, Connect type, whether optional.
pub(crate) const SOURCE: [(&str, &str, bool); 17] = [
    ("version", "string", false),
    ("connector", "string", false),
    ("name", "string", false),
    ("ts_ms", "int64", false),
    ("snapshot", "string", true),
    ("db", "string", false),
    ("sequence", "string", true),
    ("ts_us", "int64", true),
    ("ts_ns", "int64", true),
    ("table", "string", true),
    ("server_id", "int64", false),
    ("gtid", "string", true),
    ("file", "string", false),
    ("pos", "int64", false),
    ("row", "int32", false),
    ("thread", "int64", true),
    ("query", "string", true),
];

/// What `source.snapshot` may say.
pub(crate) const SNAPSHOT: &str =
    "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental";

fn source_fields() -> Vec<String> {
    let field = |(name, kind, optional): (&str, &str, bool)| match name {
        "snapshot" => object(&[
            ("type", quoted(kind)),
            ("optional", optional.to_string()),
            ("name", quoted("io.debezium.data.Enum")),
            ("version", "1".into()),
            ("parameters", object(&[("allowed", quoted(SNAPSHOT))])),
            ("default", quoted("false")),
            ("field", quoted(name)),
        ]),
        _ => plain(kind, optional, name),
    };
    SOURCE.into_iter().map(field).collect()
}

fn structure(
    fields: &[String],
    optional: bool,
    name: &str,
    version: Option<u32>,
    field: Option<&str>,
) -> String {
    let mut all = vec![
        ("type", quoted("struct")),
        ("fields", array(fields)),
        ("optional", optional.to_string()),
        ("name", quoted(name)),
    ];
    all.extend(version.map(|version| ("version", version.to_string())));
    all.extend(field.map(|field| ("field", quoted(field))));
    object(&all)
}

fn head(schema: &str) -> Vec<u8> {
    format!("{{\"schema\":{schema},\"payload\":").into_bytes()
}
