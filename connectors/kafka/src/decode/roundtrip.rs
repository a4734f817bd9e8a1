//! What the encoder writes comes back, cell for cell.

use super::{Record, Shape, decode, decode_selected};
use crate::client::Clients;
use crate::config::Config;
use crate::encode::{EncodeOptions, Encoder};
use crate::format::{Format, Profile};
use crate::topics::Layout;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    Batch, BatchBuilder, Cell, Column, ColumnType, EventHead, KeyKind, Op, Position, SnapshotMark,
    SourcePosition, TableId, TableSchema, Transaction,
};
use caudal_proto::side::TopicNames;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// A cell with its bytes.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Plain(Cell),
    Text(String),
    Bytes(Vec<u8>),
    Decimal(String),
    Json(String),
}

impl Value {
    fn put(&self, batch: &mut BatchBuilder) -> Cell {
        match self {
            Self::Plain(cell) => *cell,
            Self::Text(text) => Cell::Text(batch.copy(text.as_bytes())),
            Self::Bytes(bytes) => Cell::Bytes(batch.copy(bytes)),
            Self::Decimal(text) => Cell::Decimal(batch.copy(text.as_bytes())),
            Self::Json(text) => Cell::Json(batch.copy(text.as_bytes())),
        }
    }

    fn of(batch: &Batch, cell: Cell) -> Self {
        let text = |slice| batch.text(slice).to_owned();
        match cell {
            Cell::Text(slice) => Self::Text(text(slice)),
            Cell::Bytes(slice) => Self::Bytes(batch.bytes(slice).to_vec()),
            Cell::Decimal(slice) => Self::Decimal(text(slice)),
            Cell::Json(slice) => Self::Json(text(slice)),
            plain => Self::Plain(plain),
        }
    }
}

fn types() -> Vec<ColumnType> {
    use ColumnType as T;
    let members = || vec!["a".to_owned(), "b \"c\"".to_owned(), "ñ".to_owned()];
    let mut all =
        vec![T::Bool, T::Float32, T::Float64, T::Year, T::Json, T::Geometry, T::Uuid, T::Inet4, T::Inet6];
    all.extend([8, 16, 24, 32, 64].map(|bits| T::Int { bits }));
    all.extend([8, 16, 24, 32, 64].map(|bits| T::UInt { bits }));
    all.extend(
        [(10, 0), (10, 2), (38, 38), (65, 30)].map(|(precision, scale)| T::Decimal { precision, scale }),
    );
    all.extend([T::Text { max_chars: None }, T::Text { max_chars: Some(9) }, T::Date]);
    all.extend([T::Bytes { max_bytes: None, fixed: false }, T::Bytes { max_bytes: Some(4), fixed: true }]);
    all.extend((0..=6).map(|precision| T::Time { precision }));
    all.extend((0..=6).map(|precision| T::DateTime { precision }));
    all.extend((0..=6).map(|precision| T::Timestamp { precision }));
    all.extend([T::Enum { members: members() }, T::Set { members: members() }, T::Vector { dimensions: 3 }]);
    all.extend([1, 2, 8, 9, 63, 64].map(|bits| T::Bit { bits }));
    all
}

fn numbers(range: std::ops::RangeInclusive<i64>) -> BoxedStrategy<Value> {
    range.prop_map(|n| Value::Plain(Cell::I64(n))).boxed()
}

/// Microseconds to a precision.
fn micros(range: std::ops::RangeInclusive<i64>, precision: u8) -> BoxedStrategy<Value> {
    let unit = 10_i64.pow(6 - u32::from(precision));
    range.prop_map(move |n| Value::Plain(Cell::I64(n.div_euclid(unit) * unit))).boxed()
}

/// What is no moment of the calendar, as the source writes it.
fn zero(text: &str) -> BoxedStrategy<Value> {
    Just(Value::Text(text.to_owned())).boxed()
}

fn decimal(precision: u8, scale: u8) -> BoxedStrategy<Value> {
    let (whole, scale) = (usize::from(precision - scale), usize::from(scale));
    let digits = |least: usize, most: usize| {
        vec(b'0'..=b'9', least..=most).prop_map(|d| String::from_utf8(d).unwrap())
    };
    (any::<bool>(), digits(0, whole), digits(scale, scale))
        .prop_map(|(negative, whole, fraction)| {
            let whole = whole.trim_start_matches('0');
            let whole = if whole.is_empty() { "0" } else { whole };
            let zero = whole.bytes().chain(fraction.bytes()).all(|b| b == b'0');
            let sign = if negative && !zero { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            Value::Decimal(format!("{sign}{whole}{point}{fraction}"))
        })
        .boxed()
}

fn geometry() -> BoxedStrategy<Value> {
    let coordinate = || -1e9_f64..1e9;
    let point = (any::<u32>(), coordinate(), coordinate()).prop_map(|(srid, x, y)| {
        let mut wkb = srid.to_le_bytes().to_vec();
        wkb.extend([1, 1, 0, 0, 0]);
        wkb.extend(x.to_le_bytes());
        wkb.extend(y.to_le_bytes());
        Value::Bytes(wkb)
    });
    let line = (any::<u32>(), vec(any::<u8>(), 0..40)).prop_map(|(srid, rest)| {
        let mut wkb = srid.to_le_bytes().to_vec();
        wkb.extend([1, 2, 0, 0, 0]);
        wkb.extend(rest);
        Value::Bytes(wkb)
    });
    prop_oneof![point, line].boxed()
}

fn value(ty: &ColumnType) -> BoxedStrategy<Value> {
    use ColumnType as T;
    const LONG: i64 = 838 * 3_600_000_000;
    const FIRST: i64 = -62_135_596_800_000_000;
    const LAST: i64 = 253_402_300_799_999_999;
    let full = match ty.clone() {
        T::Bool => numbers(0..=1),
        T::Int { bits } => numbers(i64::MIN >> (64 - bits)..=i64::MAX >> (64 - bits)),
        T::UInt { bits: 64 } => any::<u64>().prop_map(|n| Value::Plain(Cell::U64(n))).boxed(),
        T::UInt { bits } => numbers(0..=(1 << bits) - 1),
        T::Float32 => any::<f32>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(|f| Value::Plain(Cell::F32(f)))
            .boxed(),
        T::Float64 => any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(|f| Value::Plain(Cell::F64(f)))
            .boxed(),
        T::Decimal { precision, scale } => decimal(precision, scale),
        T::Text { .. } => any::<String>().prop_map(Value::Text).boxed(),
        T::Enum { members } | T::Set { members } => {
            prop::sample::select(members).prop_map(Value::Text).boxed()
        }
        T::Uuid | T::Inet4 | T::Inet6 => "[0-9a-f:.-]{2,36}".prop_map(Value::Text).boxed(),
        T::Bytes { .. } => vec(any::<u8>(), 0..70).prop_map(Value::Bytes).boxed(),
        T::Date => prop_oneof![numbers(-719_162..=2_932_896), zero("0000-00-00"), zero("2024-02-00")].boxed(),
        T::Time { precision } => micros(-LONG..=LONG, precision),
        T::DateTime { precision } => {
            prop_oneof![micros(FIRST..=LAST, precision), zero("0000-00-00 00:00:00")].boxed()
        }
        T::Timestamp { precision } => {
            prop_oneof![micros(0..=4_294_967_295_999_999, precision), zero("0000-00-00 00:00:00")].boxed()
        }
        T::Year => numbers(0..=2155),
        T::Json => any::<String>().prop_map(|text| Value::Json(format!("{text:?}"))).boxed(),
        T::Bit { bits } => any::<u64>().prop_map(move |n| Value::Plain(Cell::U64(n >> (64 - bits)))).boxed(),
        T::Geometry => geometry(),
        T::Vector { dimensions } => vec(-1e9_f32..1e9, dimensions as usize)
            .prop_map(|floats| Value::Bytes(floats.iter().flat_map(|f| f.to_le_bytes()).collect()))
            .boxed(),
    };
    prop_oneof![8 => full, 1 => Just(Value::Plain(Cell::Null)), 1 => Just(Value::Plain(Cell::Unchanged))]
        .boxed()
}

fn row() -> BoxedStrategy<Vec<Value>> {
    types().iter().map(value).collect::<Vec<_>>().boxed()
}

fn schema() -> Arc<TableSchema> {
    let columns = types().into_iter().enumerate().map(|(i, ty)| Column {
        id: i as u32,
        name: format!("c{i}\"\\ñ"),
        ty,
        nullable: true,
        native: String::new(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    });
    Arc::new(TableSchema {
        id: TableId::new("db", "t"),
        version: 1,
        generation: 1,
        columns: columns.collect(),
        key: Vec::new(),
        key_kind: KeyKind::None,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    })
}

fn encoder(profile: Profile, format: Format) -> Encoder {
    let config = Config { brokers: vec!["127.0.0.1:1".into()], ..Config::default() };
    let clients = Clients::new(config.resolve("kafka").unwrap());
    let layout = Arc::new(Layout::new(TopicNames::new("p"), clients));
    let options = EncodeOptions {
        prefix: "p".into(),
        connector: "mysql".into(),
        max_record: 1 << 30,
        oversize: crate::config::Oversize::Park,
        clock: || 1,
        profile,
        format,
        registry: format.is_registered().then(|| crate::registry::fake::always(7)),
        transactions: None,
    };
    Encoder::new(options, layout)
}

fn event(op: Op, before: u32, after: u32) -> EventHead {
    let (snapshot, pos) = (SnapshotMark::LastInDataCollection, 1 << 40);
    EventHead {
        table: 0,
        transaction: 0,
        before,
        after,
        row: 3,
        op,
        snapshot,
        pos,
        ts_us: 1_700_000_000_123_456,
    }
}

/// Encodes and decodes a batch.
fn there_and_back(batch: &Batch, schema: &Arc<TableSchema>) -> Batch {
    by(&encoder(Profile::Safe, Format::Json), batch, schema)
}

fn by(encoder: &Encoder, batch: &Batch, schema: &Arc<TableSchema>) -> Batch {
    selecting(encoder, batch, schema, None)
}

/// With some of the columns.
fn selecting(
    encoder: &Encoder,
    batch: &Batch,
    schema: &Arc<TableSchema>,
    selected: Option<&[bool]>,
) -> Batch {
    let encoded = encoder.encode(batch).unwrap();
    let topic: Arc<str> = "p.db.t".into();
    let mut decoded = BatchBuilder::default();
    for (offset, record) in encoded.records.iter().enumerate() {
        let value = record.value.clone().map(|range| &encoded.arena[range]);
        // Some lie in the batch's arena, some in a buffer of their own.
        let own = value.filter(|_| offset % 2 == 1).map(bytes::Bytes::copy_from_slice);
        let record = Record {
            topic: &topic,
            partition: 0,
            offset: offset as i64,
            spread: 1,
            key: None,
            value,
            own: own.as_ref(),
            headers: &[],
        };
        decode_selected(&record, Some(Shape { schema, selected }), &mut decoded);
    }
    decoded.build(Position::Source(SourcePosition::default()), None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_cell_of_every_type_comes_back(before in row(), after in row()) {
        let schema = schema();
        let mut builder = BatchBuilder::default();
        builder.table(&schema);
        let gtid = Some(builder.copy("aa-bb:7 \"é\"".as_bytes()));
        let file = Some(builder.copy(b"bin.000007"));
        builder.transaction(Transaction { gtid, file, server_id: 5, thread: 77 });
        for value in before.iter().chain(&after) {
            let cell = value.put(&mut builder);
            builder.cells.push(cell);
        }
        let width = schema.width() as u32;
        builder.events.extend([
            event(Op::Update, 0, width),
            event(Op::Create, NO_ROW, width),
            event(Op::Delete, 0, NO_ROW),
            event(Op::Truncate, NO_ROW, NO_ROW),
        ]);
        let batch = builder.build(Position::Source(SourcePosition::default()), None);
        let back = there_and_back(&batch, &schema);
        prop_assert!(back.undecodable.is_empty(), "{}", back.undecodable[0].cause);
        prop_assert_eq!(back.events.len(), 4);
        prop_assert_eq!(back.transactions.len(), 1);
        for (was, is) in batch.events.iter().zip(&back.events) {
            prop_assert_eq!((was.op, was.row, was.pos, was.ts_us), (is.op, is.row, is.pos, is.ts_us));
            prop_assert_eq!(was.snapshot, is.snapshot);
            let values = |batch: &Batch, row: Option<&[Cell]>| {
                row.map(|row| row.iter().map(|cell| Value::of(batch, *cell)).collect::<Vec<_>>())
            };
            prop_assert_eq!(values(&batch, batch.before(was)), values(&back, back.before(is)));
            prop_assert_eq!(values(&batch, batch.after(was)), values(&back, back.after(is)));
        }
        let (was, is) = (&batch.transactions[0], &back.transactions[0]);
        prop_assert_eq!(was.gtid.map(|s| batch.text(s)), is.gtid.map(|s| back.text(s)));
        prop_assert_eq!(was.file.map(|s| batch.text(s)), is.file.map(|s| back.text(s)));
        prop_assert_eq!((was.server_id, was.thread), (is.server_id, is.thread));
    }

    /// Some names are as JSON writes them, some are not.
    #[test]
    fn of_a_table_with_a_key_an_update_has_the_key_before_and_a_deletion_the_whole_row(
        before in row(), after in row(), id in any::<i64>(),
    ) {
        let mut schema = schema().as_ref().clone();
        let key = schema.columns.iter().position(|c| c.ty == ColumnType::Int { bits: 64 }).unwrap();
        schema.key = vec![key as u32];
        schema.key_kind = KeyKind::Primary;
        for (i, column) in schema.columns.iter_mut().enumerate().filter(|(i, _)| i % 3 > 0) {
            column.name = format!("c{i}");
        }
        let (schema, width) = (Arc::new(schema), types().len());
        let mut builder = BatchBuilder::default();
        builder.table(&schema);
        builder.transaction(Transaction { server_id: 5, ..Transaction::default() });
        for (i, value) in before.iter().chain(&after).enumerate() {
            let cell = if i % width == key { Cell::I64(id) } else { value.put(&mut builder) };
            builder.cells.push(cell);
        }
        builder.events.extend([event(Op::Update, 0, width as u32), event(Op::Delete, 0, NO_ROW), event(Op::Create, NO_ROW, 0)]);
        let batch = builder.build(Position::Source(SourcePosition::default()), None);
        let back = there_and_back(&batch, &schema);
        prop_assert!(back.undecodable.is_empty(), "{}", back.undecodable[0].cause);
        let values = |batch: &Batch, row: Option<&[Cell]>| {
            row.map(|row| row.iter().map(|cell| Value::of(batch, *cell)).collect::<Vec<_>>())
        };
        prop_assert_eq!(back.events.len(), 3);
        for (was, is) in batch.events.iter().zip(&back.events) {
            prop_assert_eq!(values(&batch, batch.after(was)), values(&back, back.after(is)));
            let mut expected = values(&batch, batch.before(was));
            if was.op == Op::Update {
                let mut only_key = vec![Value::Plain(Cell::Unchanged); width];
                only_key[key] = Value::Plain(Cell::I64(id));
                expected = Some(only_key);
            }
            prop_assert_eq!(expected, values(&back, back.before(is)));
        }
    }

    #[test]
    fn columns_that_nobody_wants_are_left_out_and_others_come_back(
        before in row(), after in row(), selected in prop::collection::vec(any::<bool>(), types().len()), keyed in any::<bool>(),
    ) {
        let (mut schema, mut selected) = (schema().as_ref().clone(), selected);
        let key = schema.columns.iter().position(|c| c.ty == ColumnType::Int { bits: 64 }).unwrap();
        if keyed {
            (schema.key, schema.key_kind, selected[key]) = (vec![key as u32], KeyKind::Primary, true);
        }
        let (schema, width) = (Arc::new(schema), types().len());
        let mut builder = BatchBuilder::default();
        builder.table(&schema);
        builder.transaction(Transaction { server_id: 5, ..Transaction::default() });
        for (i, value) in before.iter().chain(&after).enumerate() {
            let cell = if keyed && i % width == key { Cell::I64(7) } else { value.put(&mut builder) };
            builder.cells.push(cell);
        }
        builder.events.extend([event(Op::Update, 0, width as u32), event(Op::Delete, 0, NO_ROW), event(Op::Create, NO_ROW, 0)]);
        let batch = builder.build(Position::Source(SourcePosition::default()), None);
        for format in [Format::Json, Format::Caudal] {
            let encoder = encoder(Profile::Safe, format);
            let (all, some) = (by(&encoder, &batch, &schema), selecting(&encoder, &batch, &schema, Some(&selected)));
            prop_assert_eq!((all.events.len(), some.events.len()), (3, 3));
            for (whole, part) in all.events.iter().zip(&some.events) {
                for (whole, part) in [(all.before(whole), some.before(part)), (all.after(whole), some.after(part))] {
                    let told = |batch: &Batch, row: Option<&[Cell]>, leave: bool| {
                        row.map(|row| {
                            let cells = row.iter().zip(&selected);
                            let cell = |(cell, selected): (&Cell, &bool)| if leave && !selected { Value::Plain(Cell::Unchanged) } else { Value::of(batch, *cell) };
                            cells.map(cell).collect::<Vec<_>>()
                        })
                    };
                    prop_assert_eq!(told(&all, whole, true), told(&some, part, false), "{:?}", format);
                }
            }
        }
    }

    /// Where there is a schema, or Debezium's conventions, zero dates are NULL; all else comes back.
    #[test]
    fn every_readable_form_comes_back(row in row()) {
        let schema = schema();
        let mut builder = BatchBuilder::default();
        builder.table(&schema);
        builder.transaction(Transaction { server_id: 5, ..Transaction::default() });
        for (value, column) in row.iter().zip(&schema.columns) {
            let whole = if *value == Value::Plain(Cell::Unchanged) { Value::Plain(Cell::Null) } else { value.clone() };
            let moment = matches!(column.ty, ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. });
            let whole = if moment && matches!(whole, Value::Text(_)) { Value::Plain(Cell::Null) } else { whole };
            let cell = whole.put(&mut builder);
            builder.cells.push(cell);
        }
        builder.events.extend([event(Op::Create, NO_ROW, 0), event(Op::Delete, 0, NO_ROW), event(Op::Truncate, NO_ROW, NO_ROW)]);
        let batch = builder.build(Position::Source(SourcePosition::default()), None);
        let forms = [(Profile::Debezium35, Format::Json), (Profile::Safe, Format::JsonSchema), (Profile::Safe, Format::Avro), (Profile::Safe, Format::Protobuf), (Profile::Safe, Format::Caudal)];
        for (profile, format) in forms {
            let back = by(&encoder(profile, format), &batch, &schema);
            prop_assert!(back.undecodable.is_empty(), "{format:?}: {}", back.undecodable[0].cause);
            prop_assert_eq!(back.events.len(), 3);
            let values = |batch: &Batch, row: Option<&[Cell]>| {
                row.map(|row| row.iter().map(|cell| Value::of(batch, *cell)).collect::<Vec<_>>())
            };
            for (was, is) in batch.events.iter().zip(&back.events) {
                prop_assert_eq!((was.op, was.row, was.pos, was.ts_us, was.snapshot), (is.op, is.row, is.pos, is.ts_us, is.snapshot));
                prop_assert_eq!(values(&batch, batch.after(was)), values(&back, back.after(is)), "{:?}", format);
                prop_assert_eq!(values(&batch, batch.before(was)), values(&back, back.before(is)), "{:?}", format);
            }
        }
    }

    #[test]
    fn a_tombstones_key_is_its_deletion_in_every_readable_form(id in any::<i64>(), name in any::<String>()) {
        let mut schema = Arc::unwrap_or_clone(schema());
        let of = |ty: &ColumnType| schema.columns.iter().position(|c| c.ty == *ty).unwrap() as u32;
        let (number, text) = (of(&ColumnType::Int { bits: 64 }), of(&ColumnType::Text { max_chars: None }));
        (schema.key, schema.key_kind) = (vec![text, number], KeyKind::Primary);
        let schema = Arc::new(schema);
        let forms = [Format::Json, Format::JsonSchema, Format::Avro, Format::Protobuf, Format::Caudal];
        for format in forms {
            let mut builder = BatchBuilder::default();
            builder.table(&schema);
            builder.transaction(Transaction::default());
            builder.cells.resize(schema.width(), Cell::Null);
            builder.cells[number as usize] = Cell::I64(id);
            builder.cells[text as usize] = Value::Text(name.clone()).put(&mut builder);
            builder.events.push(event(Op::Delete, 0, NO_ROW));
            let batch = builder.build(Position::Source(SourcePosition::default()), None);
            let encoded = encoder(Profile::Safe, format).encode(&batch).unwrap();
            let key = &encoded.arena[encoded.records[1].key.clone().unwrap()];
            let topic: Arc<str> = "t".into();
            let mut decoded = BatchBuilder::default();
            let record = Record { topic: &topic, partition: 0, offset: 0, spread: 1, key: Some(key), value: None, own: None, headers: &[] };
            super::tombstone(&record, Some(&schema), &mut decoded);
            let back = decoded.build(Position::Source(SourcePosition::default()), None);
            prop_assert_eq!(back.events.len(), 1, "{:?}", format);
            let row = back.before(&back.events[0]).unwrap();
            prop_assert_eq!(Value::of(&back, row[number as usize]), Value::Plain(Cell::I64(id)));
            prop_assert_eq!(Value::of(&back, row[text as usize]), Value::Text(name.clone()));
        }
    }

    #[test]
    fn a_cut_or_changed_record_under_a_registry_never_panics(
        row in row(), cut in any::<prop::sample::Index>(), byte in any::<u8>(), avro in any::<bool>(),
    ) {
        let schema = schema();
        let mut builder = BatchBuilder::default();
        builder.table(&schema);
        builder.transaction(Transaction::default());
        for value in &row {
            let whole = if *value == Value::Plain(Cell::Unchanged) { Value::Plain(Cell::Null) } else { value.clone() };
            let cell = whole.put(&mut builder);
            builder.cells.push(cell);
        }
        builder.events.push(event(Op::Create, NO_ROW, 0));
        let batch = builder.build(Position::Source(SourcePosition::default()), None);
        let encoded = encoder(Profile::Safe, if avro { Format::Avro } else { Format::Protobuf }).encode(&batch).unwrap();
        let value = encoded.arena[encoded.records[0].value.clone().unwrap()].to_vec();
        let at = cut.index(value.len() - 1) + 1;
        let topic: Arc<str> = "t".into();
        let mut decoded = BatchBuilder::default();
        let record = |value| Record { topic: &topic, partition: 0, offset: 0, spread: 1, key: None, value: Some(value), own: None, headers: &[] };
        decode(&record(&value[..at]), Some(&schema), &mut decoded);
        prop_assert!(decoded.cells.is_empty() && decoded.undecodable.len() == 1);
        let mut changed = value.clone();
        changed[at.min(value.len() - 1)] = byte;
        decode(&record(&changed), Some(&schema), &mut decoded);
        prop_assert_eq!(decoded.events.len() + decoded.undecodable.len(), 2);
    }

    #[test]
    fn a_cut_or_changed_record_never_panics_and_leaves_no_cells(
        after in row(), cut in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let schema = schema();
        let mut builder = BatchBuilder::default();
        builder.table(&schema);
        builder.transaction(Transaction::default());
        for value in &after {
            let cell = value.put(&mut builder);
            builder.cells.push(cell);
        }
        builder.events.push(event(Op::Create, NO_ROW, 0));
        let batch = builder.build(Position::Source(SourcePosition::default()), None);
        let encoded = encoder(Profile::Safe, Format::Json).encode(&batch).unwrap();
        let value = encoded.arena[encoded.records[0].value.clone().unwrap()].to_vec();
        let at = cut.index(value.len());
        let topic: Arc<str> = "t".into();
        let mut decoded = BatchBuilder::default();
        let record = |value| Record { topic: &topic, partition: 0, offset: 0, spread: 1, key: None, value: Some(value), own: None, headers: &[] };
        decode(&record(&value[..at]), Some(&schema), &mut decoded);
        prop_assert!(decoded.cells.is_empty() && decoded.undecodable.len() == 1);
        let mut changed = value.clone();
        changed[at] = byte;
        decode(&record(&changed), Some(&schema), &mut decoded);
        prop_assert_eq!(decoded.events.len() + decoded.undecodable.len(), 2);
    }
}
