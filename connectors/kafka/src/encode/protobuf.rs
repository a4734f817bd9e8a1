//! The envelope and the key in Protobuf under a schema registry: for each shape of a table a `.proto` of its own, whose fields have the
//! columns' names.
//!
//! A record is one byte 0, the schema's number in four bytes (big-endian), then which message of the file it is: 0 says "the first". Then
//! the message. Source: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>.
//!
//! *A column's number* follows from its name ([`numbers`]), so it is the same in each shape of the table: to add, drop or move columns
//! is compatible, and to change a type is what the registry must judge. What may be NULL is `optional`, and absent where it is NULL; other
//! columns are always written. Protobuf has no third state: a partial row image cannot be written, and is refused.

use crate::encode::change::Change;
use crate::encode::connect::SOURCE;
use crate::encode::value::{self, How, Mismatch, point};
use crate::encode::{avro, own};
use crate::murmur2::murmur2;
use caudal_core::{Cell, ColumnType, Error, Result, TableSchema};
use caudal_proto::envelope::{begin, bytes, end, fixed32, fixed64, number};
use std::collections::HashSet;
use std::fmt::Write;

/// Fields of the envelope.
pub(crate) mod field {
    pub(crate) const BEFORE: u32 = 1;
    pub(crate) const AFTER: u32 = 2;
    pub(crate) const SOURCE: u32 = 3;
    pub(crate) const TRANSACTION: u32 = 4;
    pub(crate) const OP: u32 = 5;
    pub(crate) const TS_MS: u32 = 6;
    pub(crate) const TS_US: u32 = 7;
    pub(crate) const TS_NS: u32 = 8;
    /// Of a geometry.
    pub(crate) const X: u32 = 1;
    pub(crate) const Y: u32 = 2;
    pub(crate) const WKB: u32 = 3;
    pub(crate) const SRID: u32 = 4;
    /// Of a vector.
    pub(crate) const VALUES: u32 = 1;
}

/// Bytes before a message.
pub(crate) const FRAME: usize = 6;

/// Least number of a column, above those that Protobuf keeps for itself; and the end of the range: tags then take four bytes at most.
const FIRST_NUMBER: u32 = 20_000;
const END: u32 = 1 << 25;

/// The numbers of a shape's columns, in order: of each the hash of its name. The later of two that meet takes the next free one.
pub(crate) fn numbers(schema: &TableSchema) -> Vec<u32> {
    let mut taken = HashSet::with_capacity(schema.columns.len());
    let mut number = |name: &str| {
        let mut n = FIRST_NUMBER + murmur2(name.as_bytes()) as u32 % (END - FIRST_NUMBER);
        while !taken.insert(n) {
            n = if n + 1 == END { FIRST_NUMBER } else { n + 1 };
        }
        n
    };
    schema.columns.iter().map(|column| number(&column.name)).collect()
}

fn package(topic: &str) -> String {
    topic.split('.').map(avro::name).collect::<Vec<_>>().join(".")
}

/// The file of a table's keys.
pub(crate) fn key_schema(schema: &TableSchema, hows: &[How], topic: &str) -> String {
    let mut file = head(topic);
    file.push_str("message Key {\n");
    let (names, numbers) = (names(schema), numbers(schema));
    for &i in &schema.key {
        column_line(&mut file, schema, hows, i as usize, (&names, &numbers));
    }
    file.push_str("}\n");
    file
}

/// The file of a table's envelopes.
pub(crate) fn value_schema(schema: &TableSchema, hows: &[How], topic: &str) -> String {
    let mut file = head(topic);
    file.push_str(
        "message Envelope {\n  optional Value before = 1;\n  optional Value after = 2;\n  Source source = 3;\n  optional Block transaction = 4;\n  \
         string op = 5;\n  int64 ts_ms = 6;\n  int64 ts_us = 7;\n  int64 ts_ns = 8;\n}\nmessage Value {\n",
    );
    let (names, numbers) = (names(schema), numbers(schema));
    for i in 0..schema.columns.len() {
        column_line(&mut file, schema, hows, i, (&names, &numbers));
    }
    file.push_str("}\nmessage Source {\n");
    for (number, (name, kind, optional)) in (1..).zip(SOURCE) {
        let optional = if optional { "optional " } else { "" };
        let _ = writeln!(file, "  {optional}{kind} {name} = {number};");
    }
    file.push_str("}\nmessage Block {\n  string id = 1;\n  int64 total_order = 2;\n  int64 data_collection_order = 3;\n}\n");
    let has = |wanted: fn(&ColumnType) -> bool| schema.columns.iter().any(|c| wanted(&c.ty));
    if has(|ty| *ty == ColumnType::Geometry) {
        file.push_str("message Geometry {\n  optional double x = 1;\n  optional double y = 2;\n  bytes wkb = 3;\n  optional int32 srid = 4;\n}\n");
    }
    if has(|ty| matches!(ty, ColumnType::Vector { .. })) {
        file.push_str("message Vector {\n  repeated float values = 1;\n}\n");
    }
    file
}

fn head(topic: &str) -> String {
    format!("syntax = \"proto3\";\npackage {};\n\n", package(topic))
}

fn column_line(
    file: &mut String,
    schema: &TableSchema,
    hows: &[How],
    i: usize,
    (names, numbers): (&[String], &[u32]),
) {
    let column = &schema.columns[i];
    let optional = if column.nullable { "optional " } else { "" };
    let _ = writeln!(file, "  {optional}{} {} = {};", type_name(&column.ty, hows[i]), names[i], numbers[i]);
}

/// The names of the fields. Two whose names would be one, in Protobuf or in its JSON, are told apart by the later one's place.
fn names(schema: &TableSchema) -> Vec<String> {
    let mut taken = HashSet::with_capacity(schema.columns.len());
    let bare = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let name = |(i, name): (usize, String)| {
        let mut own = name;
        while !taken.insert(bare(&own)) {
            own = format!("{own}_{i}");
        }
        own
    };
    schema.columns.iter().map(|column| avro::name(&column.name)).enumerate().map(name).collect()
}

fn type_name(ty: &ColumnType, _: How) -> &'static str {
    use ColumnType as T;
    match ty {
        T::Bool | T::Bit { bits: 1 } => "bool",
        T::Int { bits: ..=32 } | T::UInt { bits: ..=24 } | T::Date | T::Year => "int32",
        T::UInt { bits: 64 } => "uint64",
        T::Int { .. } | T::UInt { .. } | T::Time { .. } | T::DateTime { .. } => "int64",
        T::Float32 => "float",
        T::Float64 => "double",
        T::Bytes { .. } | T::Bit { .. } => "bytes",
        T::Geometry => "Geometry",
        T::Vector { .. } => "Vector",
        T::Decimal { .. }
        | T::Text { .. }
        | T::Timestamp { .. }
        | T::Json
        | T::Enum { .. }
        | T::Set { .. }
        | T::Uuid
        | T::Inet4
        | T::Inet6 => "string",
    }
}

/// What goes before each message.
pub(crate) fn frame(out: &mut Vec<u8>, id: u32) {
    avro::frame(out, id);
    out.push(0);
}

/// A key: the cells of the key in its order.
pub(crate) fn key(out: &mut Vec<u8>, change: &Change<'_>, cells: &[Cell], numbers: &[u32]) -> Result<()> {
    let columns = change.plan.schema.key.iter().zip(cells);
    columns
        .into_iter()
        .try_for_each(|(&i, &cell)| column(out, change, (i as usize, numbers[i as usize]), cell))
}

/// An envelope.
pub(crate) fn envelope(out: &mut Vec<u8>, change: &Change<'_>, numbers: &[u32]) -> Result<()> {
    for (field, row) in [(field::BEFORE, change.before), (field::AFTER, change.after)] {
        let Some(cells) = row else { continue };
        own::nested(out, field, change, |out| {
            let columns = cells.iter().zip(numbers).enumerate();
            columns.into_iter().try_for_each(|(i, (&cell, &number))| column(out, change, (i, number), cell))
        })?;
    }
    own::nested(out, field::SOURCE, change, |out| {
        source(out, change);
        Ok(())
    })?;
    if let Some(order) = &change.order {
        own::nested(out, field::TRANSACTION, change, |out| {
            bytes(out, 1, order.id.as_bytes());
            number(out, 2, order.total);
            number(out, 3, order.of_table);
            Ok(())
        })?;
    }
    bytes(out, field::OP, change.op.letter().encode_utf8(&mut [0; 4]).as_bytes());
    for (field, time) in
        [(field::TS_MS, change.now / 1_000), (field::TS_US, change.now), (field::TS_NS, change.now * 1_000)]
    {
        number(out, field, time as u64);
    }
    Ok(())
}

/// Numbered as [`SOURCE`] is.
fn source(out: &mut Vec<u8>, change: &Change<'_>) {
    let (event, plan, transaction) = (change.event, change.plan, change.transaction());
    bytes(out, 1, env!("CARGO_PKG_VERSION").as_bytes());
    bytes(out, 2, plan.connector.as_bytes());
    bytes(out, 3, plan.prefix.as_bytes());
    number(out, 4, event.ts_us.div_euclid(1_000) as u64);
    bytes(out, 5, event.snapshot.as_str().as_bytes());
    bytes(out, 6, plan.schema.id.database.as_bytes());
    number(out, 8, event.ts_us as u64);
    number(out, 9, event.ts_us.saturating_mul(1_000) as u64);
    bytes(out, 10, plan.schema.id.table.as_bytes());
    number(out, 11, transaction.server_id.into());
    if let Some(gtid) = change.gtid() {
        bytes(out, 12, gtid.as_bytes());
    }
    bytes(out, 13, change.file().as_bytes());
    number(out, 14, event.pos);
    number(out, 15, event.row.into());
    if transaction.thread != 0 {
        number(out, 16, transaction.thread.into());
    }
}

fn column(out: &mut Vec<u8>, change: &Change<'_>, (i, number): (usize, u32), cell: Cell) -> Result<()> {
    let column = &change.plan.schema.columns[i];
    let is_null = match cell {
        Cell::Null => true,
        Cell::Text(_) if value::is_moment(&column.ty) => column.nullable,
        Cell::Unchanged => {
            return Err(Error::data(format!(
                "a partial row image of {} cannot be written in the format `protobuf`: {} is missing",
                change.plan.schema.id, column.name
            ))
            .hint("set binlog_row_image=FULL at the source, or take the format `json`"));
        }
        _ => false,
    };
    match (is_null, column.nullable) {
        (true, true) => Ok(()),
        // A column that was made NOT NULL later: its old rows may hold NULL in a before image.
        (true, false) => {
            Err(Error::data(format!("{}.{} is NULL and may not be", change.plan.schema.id, column.name)))
        }
        _ => written(out, change, &column.ty, (change.how(i), number), cell).map_err(change.misfit(i, cell)),
    }
}

fn written(
    out: &mut Vec<u8>,
    change: &Change<'_>,
    ty: &ColumnType,
    (how, field): (How, u32),
    cell: Cell,
) -> std::result::Result<(), Mismatch> {
    use ColumnType as T;
    let batch = change.batch;
    match (ty, cell) {
        (T::Bool, Cell::I64(n)) => number(out, field, (n != 0).into()),
        (T::Bit { bits: 1 }, Cell::U64(n)) => number(out, field, (n != 0).into()),
        (T::Bit { bits }, Cell::U64(n)) => {
            bytes(out, field, &n.to_le_bytes()[..usize::from(bits.div_ceil(8)).min(8)]);
        }
        (T::UInt { .. }, Cell::U64(n)) => number(out, field, n),
        (T::DateTime { precision: ..=3 }, Cell::I64(n)) => number(out, field, n.div_euclid(1_000) as u64),
        (T::Date | T::DateTime { .. }, Cell::Text(_)) => number(out, field, 0),
        (T::Timestamp { .. }, Cell::Text(_)) => bytes(out, field, b"1970-01-01T00:00:00Z"),
        (T::Timestamp { precision }, Cell::I64(n)) => {
            let mut text = Vec::with_capacity(32);
            value::timestamp(&mut text, n, *precision, false);
            bytes(out, field, &text[1..text.len() - 1]);
        }
        (
            T::Int { .. } | T::UInt { .. } | T::Date | T::Time { .. } | T::DateTime { .. } | T::Year,
            Cell::I64(n),
        ) => number(out, field, n as u64),
        (T::Float32, Cell::F32(f)) => fixed32(out, field, f.to_le_bytes()),
        (T::Float64, Cell::F64(f)) => fixed64(out, field, f.to_le_bytes()),
        (T::Decimal { .. }, Cell::Decimal(s)) | (T::Json, Cell::Json(s)) => bytes(out, field, batch.bytes(s)),
        (ty, Cell::Text(s)) if value::holds_text(ty) => bytes(out, field, batch.bytes(s)),
        (T::Bytes { .. }, Cell::Bytes(s)) => bytes(out, field, batch.bytes(s)),
        (T::Geometry, Cell::Bytes(s)) => geometry(out, (how, field), batch.bytes(s))?,
        (T::Vector { .. }, Cell::Bytes(s)) => {
            let start = begin(out, field);
            bytes(out, self::field::VALUES, batch.bytes(s));
            if !end(out, start) {
                return Err(Mismatch);
            }
        }
        _ => return Err(Mismatch),
    }
    Ok(())
}

fn geometry(out: &mut Vec<u8>, (how, field): (How, u32), cell: &[u8]) -> std::result::Result<(), Mismatch> {
    let (srid, wkb) = cell.split_first_chunk::<4>().ok_or(Mismatch)?;
    let start = begin(out, field);
    if how.point {
        let (x, y) = point(wkb).ok_or(Mismatch)?;
        fixed64(out, self::field::X, x.to_le_bytes());
        fixed64(out, self::field::Y, y.to_le_bytes());
    }
    bytes(out, self::field::WKB, wkb);
    number(out, self::field::SRID, i64::from(u32::from_le_bytes(*srid) as i32) as u64);
    if end(out, start) { Ok(()) } else { Err(Mismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::{Column, KeyKind, TableId};

    fn schema(names: &[&str]) -> TableSchema {
        let column = |(i, name): (usize, &&str)| Column {
            id: i as u32,
            name: (*name).to_owned(),
            ty: ColumnType::Int { bits: 32 },
            nullable: i > 0,
            native: "int".to_owned(),
            charset: None,
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        };
        TableSchema {
            id: TableId::new("db", "t"),
            version: 1,
            generation: 1,
            columns: names.iter().enumerate().map(column).collect(),
            key: vec![0],
            key_kind: KeyKind::Primary,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: None,
            comment: None,
        }
    }

    #[test]
    fn a_column_keeps_its_number_whatever_stands_around_it() {
        let before = numbers(&schema(&["id", "name", "total"]));
        let after = numbers(&schema(&["total", "added", "id"]));
        assert_eq!((before[0], before[2]), (after[2], after[0]));
        assert!(before.iter().all(|n| (FIRST_NUMBER..END).contains(n)));
        let twice = numbers(&schema(&["id", "id"]));
        assert_eq!(twice[1], twice[0] + 1);
    }

    #[test]
    fn a_table_has_a_file_whose_first_message_is_the_envelope() {
        let schema = schema(&["id", "order line", "orderLine"]);
        let hows = vec![How::default(); 3];
        let file = value_schema(&schema, &hows, "shop.db.t-1");
        assert!(
            file.starts_with("syntax = \"proto3\";\npackage shop.db.t_1;\n\nmessage Envelope {\n"),
            "{file}"
        );
        let n = numbers(&schema);
        assert!(file.contains(&format!(
            "message Value {{\n  int32 id = {};\n  optional int32 order_line = {};\n  optional int32 orderLine_2 = {};\n}}",
            n[0], n[1], n[2]
        )), "{file}");
        assert!(
            file.contains("  string version = 1;\n") && file.contains("  optional int64 thread = 16;\n"),
            "{file}"
        );
        assert_eq!(key_schema(&schema, &hows, "s.db.t").lines().filter(|l| l.contains('=')).count(), 2);
    }
}
