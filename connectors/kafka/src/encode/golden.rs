//! What the envelope looks like, to the byte.

use super::*;
use crate::config::Config;
use crate::encode::value::How;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    BatchBuilder, Boundary, Cell, Column, ColumnType, EventHead, KeyKind, Op, Position, SnapshotMark,
    SourcePosition, TableId, Transaction,
};
use caudal_proto::side::TopicNames;

const TS: i64 = 1_700_000_000_123_456;

fn schema(columns: &[(&str, ColumnType)], key: &[u32]) -> Arc<TableSchema> {
    let columns = columns.iter().enumerate().map(|(i, (name, ty))| Column {
        id: i as u32 + 1,
        name: (*name).into(),
        ty: ty.clone(),
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
        key: key.to_vec(),
        key_kind: if key.is_empty() { KeyKind::None } else { KeyKind::Primary },
        unique_keys: vec![],
        foreign_keys: vec![],
        charset: None,
        comment: None,
    })
}

struct Fixture {
    builder: BatchBuilder,
    table: u32,
    profile: Profile,
    format: Format,
    transactions: bool,
    open: Option<OpenTransaction>,
}

impl Fixture {
    fn new(schema: &Arc<TableSchema>) -> Self {
        let mut builder = BatchBuilder::default();
        let file = Some(builder.copy(b"bin.000003"));
        let gtid = Some(builder.copy(b"0-1-42"));
        builder.transaction(Transaction { gtid, file, server_id: 5, thread: 9 });
        let table = builder.table(schema);
        Self { builder, table, profile: Profile::Safe, format: Format::Json, transactions: false, open: None }
    }

    fn text(&mut self, text: &str) -> Cell {
        Cell::Text(self.builder.copy(text.as_bytes()))
    }

    fn event(&mut self, op: Op, before: Option<&[Cell]>, after: Option<&[Cell]>) {
        let mut row = |cells: Option<&[Cell]>| {
            let at = self.builder.cells.len() as u32;
            cells.map_or(NO_ROW, |cells| {
                self.builder.cells.extend_from_slice(cells);
                at
            })
        };
        let (before, after) = (row(before), row(after));
        self.builder.events.push(EventHead {
            table: self.table,
            transaction: 0,
            before,
            after,
            row: 2,
            op,
            snapshot: SnapshotMark::False,
            pos: 1234,
            ts_us: TS,
        });
    }

    fn encoder(&self, partitions: u32) -> Encoder {
        let mut config = Config { brokers: vec!["x:1".into()], ..Config::default() };
        config.topics.partitions = partitions;
        let clients = crate::client::Clients::new(config.resolve("kafka").unwrap());
        let layout = Arc::new(Layout::new(TopicNames::new("shop"), clients));
        let options = EncodeOptions {
            prefix: "shop".into(),
            connector: "mysql".into(),
            max_record: 4096,
            oversize: crate::config::Oversize::Park,
            clock: || 1_700_000_001_000_001,
            profile: self.profile,
            format: self.format,
            registry: None,
            transactions: self.transactions.then(|| self.open.clone()),
        };
        Encoder::new(options, layout)
    }

    fn batch(self, boundary: Option<u32>) -> Batch {
        let position = SourcePosition::default();
        let boundary =
            boundary.map(|events| Boundary { events, position: position.clone(), ts_us: TS, scope: None });
        self.builder.build(Position::Source(position), boundary)
    }

    fn encode(self, partitions: u32, boundary: Option<u32>) -> caudal_core::Result<Encoded> {
        self.encoder(partitions).encode(&self.batch(boundary))
    }
}

/// Key, value and header of a record as text.
fn shown(encoded: &Encoded, i: usize) -> (String, String, String) {
    let text = |span: Option<&Range<usize>>| {
        span.map_or("-".to_owned(), |s| String::from_utf8(encoded.arena[s.clone()].to_vec()).unwrap())
    };
    let record = &encoded.records[i];
    let header = record.header.as_ref();
    let header =
        header.map_or("-".to_owned(), |(kind, span)| format!("{}={}", kind.name(), text(Some(span))));
    (text(record.key.as_ref()), text(record.value.as_ref()), header)
}

fn tail(op: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        concat!(
            r#","source":{{"version":"{}","connector":"mysql","name":"shop","ts_ms":1700000000123,"#,
            r#""snapshot":"false","db":"db","sequence":null,"ts_us":1700000000123456,"#,
            r#""ts_ns":1700000000123456000,"table":"t","server_id":5,"gtid":"0-1-42","file":"bin.000003","#,
            r#""pos":1234,"row":2,"thread":9,"query":null}},"transaction":null,"op":"{}","#,
            r#""ts_ms":1700000001000,"ts_us":1700000001000001,"ts_ns":1700000001000001000}}"#
        ),
        version, op
    )
}

fn int() -> ColumnType {
    ColumnType::Int { bits: 32 }
}

fn text() -> ColumnType {
    ColumnType::Text { max_chars: None }
}

#[test]
fn an_insert_an_update_and_a_delete_with_its_tombstone() {
    let mut fixture = Fixture::new(&schema(&[("id", int()), ("na\"me", text())], &[0]));
    let (old, new) = (fixture.text("a\nb"), fixture.text("ñ"));
    fixture.event(Op::Create, None, Some(&[Cell::I64(1), old]));
    fixture.event(Op::Update, Some(&[Cell::I64(1), old]), Some(&[Cell::I64(1), new]));
    fixture.event(Op::Delete, Some(&[Cell::I64(1), new]), None);
    let encoded = fixture.encode(1, Some(2)).unwrap();
    assert_eq!(encoded.records.len(), 4);
    assert_eq!(encoded.boundary, Some(2));
    assert_eq!(encoded.tables[0].topic, "shop.db.t");
    let key = r#"{"id":1}"#.to_owned();
    let (a, b) = (r#"{"id":1,"na\"me":"a\nb"}"#, r#"{"id":1,"na\"me":"ñ"}"#);
    let value = |before: &str, after: &str, op| format!(r#"{{"before":{before},"after":{after}{}"#, tail(op));
    assert_eq!(shown(&encoded, 0), (key.clone(), value("null", a, "c"), "-".into()));
    assert_eq!(shown(&encoded, 1), (key.clone(), value(a, b, "u"), "-".into()));
    assert_eq!(shown(&encoded, 2), (key.clone(), value(b, "null", "d"), "-".into()));
    assert_eq!(shown(&encoded, 3), (key, "-".into(), "-".into()));
}

#[test]
fn a_change_of_key_is_a_delete_a_tombstone_and_a_create_that_point_at_each_other() {
    let mut fixture = Fixture::new(&schema(&[("a", int()), ("k", text()), ("v", int())], &[1, 0]));
    let (old, new) = (fixture.text("x"), fixture.text("y"));
    fixture.event(
        Op::Update,
        Some(&[Cell::I64(1), old, Cell::I64(5)]),
        Some(&[Cell::Unchanged, new, Cell::I64(6)]),
    );
    let encoded = fixture.encode(1, None).unwrap();
    let (from, to) = (r#"{"k":"x","a":1}"#, r#"{"k":"y","a":1}"#);
    let (key, value, header) = shown(&encoded, 0);
    assert_eq!((key.as_str(), header), (from, format!("__debezium.newkey={to}")));
    assert!(
        value.starts_with(r#"{"before":{"a":1,"k":"x","v":5},"after":null,"#) && value.ends_with(&tail("d"))
    );
    assert_eq!(shown(&encoded, 1), (from.into(), "-".into(), format!("__debezium.newkey={to}")));
    let (key, value, header) = shown(&encoded, 2);
    assert_eq!((key.as_str(), header), (to, format!("__debezium.oldkey={from}")));
    assert!(value.starts_with(r#"{"before":null,"after":{"k":"y","v":6},"#) && value.ends_with(&tail("c")));
}

#[test]
fn an_update_whose_key_stays_is_one_record_even_if_its_bytes_lie_elsewhere() {
    let mut fixture = Fixture::new(&schema(&[("k", text())], &[0]));
    let (a, b) = (fixture.text("same"), fixture.text("same"));
    fixture.event(Op::Update, Some(&[a]), Some(&[b]));
    assert_eq!(fixture.encode(1, None).unwrap().records.len(), 1);
}

#[test]
fn a_table_without_a_key_has_null_keys_and_no_tombstones() {
    let mut fixture = Fixture::new(&schema(&[("a", int())], &[]));
    fixture.event(Op::Update, Some(&[Cell::I64(1)]), Some(&[Cell::I64(2)]));
    fixture.event(Op::Delete, Some(&[Cell::I64(2)]), None);
    fixture.event(Op::Truncate, None, None);
    let encoded = fixture.encode(1, None).unwrap();
    assert_eq!(encoded.records.len(), 3);
    assert!(encoded.records.iter().all(|r| r.key.is_none()));
    let (_, value, header) = shown(&encoded, 2);
    assert!(value.starts_with(r#"{"before":null,"after":null,"#) && value.ends_with(&tail("t")));
    assert_eq!(header, "caudal.truncate=bin.000003:1234:2");
}

#[test]
fn a_truncation_is_one_keyed_control_record_in_each_partition_with_one_id() {
    let mut fixture = Fixture::new(&schema(&[("a", int())], &[0]));
    fixture.event(Op::Truncate, None, None);
    let encoded = fixture.encode(3, Some(1)).unwrap();
    assert_eq!(encoded.boundary, Some(3));
    let partitions: Vec<_> = encoded.records.iter().map(|r| r.partition).collect();
    assert_eq!(partitions, [0, 1, 2]);
    for i in 0..3 {
        let (key, _, header) = shown(&encoded, i);
        assert_eq!(key, TRUNCATE_KEY);
        assert_eq!(header, "caudal.truncate=bin.000003:1234:2");
    }
}

#[test]
fn a_row_over_the_limit_names_table_key_hash_and_size_but_no_value() {
    let mut fixture = Fixture::new(&schema(&[("id", int()), ("b", text())], &[0]));
    let big = fixture.text(&"secret".repeat(1_000));
    fixture.event(Op::Create, None, Some(&[Cell::I64(1), big]));
    let error = fixture.encode(1, None).err().unwrap();
    assert_eq!(error.fault(), caudal_core::Fault::Data);
    let text = error.to_string();
    assert!(text.contains("db.t (key hash ") && text.contains("4096") && !text.contains("secret"), "{text}");
}

#[test]
fn a_cell_of_the_wrong_kind_is_our_mistake_and_shows_no_value() {
    let mut fixture = Fixture::new(&schema(&[("id", int())], &[0]));
    let wrong = fixture.text("secret");
    fixture.event(Op::Create, None, Some(&[wrong]));
    let error = fixture.encode(1, None).err().unwrap();
    assert_eq!(error.fault(), caudal_core::Fault::Bug);
    assert!(!error.to_string().contains("secret"));
}

/// Every column type, and what its values look like.
#[test]
fn every_type_has_its_json() {
    let mut f = Fixture::new(&schema(&[("x", int())], &[]));
    let b = |f: &mut Fixture, bytes: &[u8]| Cell::Bytes(f.builder.copy(bytes));
    let d = |f: &mut Fixture, digits: &str| Cell::Decimal(f.builder.copy(digits.as_bytes()));
    let mut point = vec![0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0];
    point.extend(1.5_f64.to_le_bytes());
    point.extend((-2.0_f64).to_le_bytes());
    let line = [0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0];
    let floats: Vec<u8> = [0.1_f32, -3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let json = Cell::Json(f.builder.copy(br#"{"a": "b"}"#));
    let words = ["señal", "a", "a,b", "0000-00-00", "2024-02-00 00:00:00", "127.0.0.1", "::1"];
    let [word, label, set, date, moment, v4, v6] = words.map(|w| f.text(w));
    let uuid = f.text("123e4567-e89b-12d3-a456-426655440000");
    let second = 1_704_164_645_000_000;
    use ColumnType as T;
    let enumerated = T::Enum { members: vec!["a".into()] };
    let set_type = T::Set { members: vec!["a".into(), "b".into()] };
    let bytes = T::Bytes { max_bytes: None, fixed: false };
    let decimal = T::Decimal { precision: 10, scale: 2 };
    let cases: Vec<(T, Cell, &str)> = vec![
        (T::Bool, Cell::I64(1), "true"),
        (T::Bool, Cell::I64(0), "false"),
        (T::Int { bits: 64 }, Cell::I64(i64::MIN), "-9223372036854775808"),
        (T::UInt { bits: 32 }, Cell::I64(4_294_967_295), "4294967295"),
        (T::UInt { bits: 64 }, Cell::U64(u64::MAX), "18446744073709551615"),
        (T::Float32, Cell::F32(0.1), "0.1"),
        (T::Float64, Cell::F64(-1.0), "-1.0"),
        (T::Float64, Cell::F64(1e300), "1e+300"),
        (T::Float64, Cell::F64(0.1 + 0.2), "0.30000000000000004"),
        (decimal.clone(), d(&mut f, "123.45"), r#""MDk=""#),
        (decimal, d(&mut f, "-0.01"), r#""/w==""#),
        (T::Text { max_chars: Some(9) }, word, r#""señal""#),
        (bytes, b(&mut f, &[0, 255, 16]), r#""AP8Q""#),
        (T::Bytes { max_bytes: Some(0), fixed: true }, b(&mut f, &[]), r#""""#),
        (T::Date, Cell::I64(19_724), "19724"),
        (T::Date, date, r#""0000-00-00""#),
        (T::Time { precision: 6 }, Cell::I64(-3_020_399_000_001), "-3020399000001"),
        (T::DateTime { precision: 3 }, Cell::I64(second + 123_000), "1704164645123"),
        (T::DateTime { precision: 0 }, Cell::I64(-1_000_000), "-1000"),
        (T::DateTime { precision: 6 }, Cell::I64(second + 1), "1704164645000001"),
        (T::DateTime { precision: 6 }, moment, r#""2024-02-00 00:00:00""#),
        (T::Timestamp { precision: 0 }, Cell::I64(second), r#""2024-01-02T03:04:05Z""#),
        (T::Timestamp { precision: 2 }, Cell::I64(second + 120_000), r#""2024-01-02T03:04:05.12Z""#),
        (T::Timestamp { precision: 6 }, Cell::I64(second + 120_000), r#""2024-01-02T03:04:05.120000Z""#),
        (T::Year, Cell::I64(2024), "2024"),
        (T::Json, json, r#""{\"a\": \"b\"}""#),
        (enumerated, label, r#""a""#),
        (set_type, set, r#""a,b""#),
        (T::Bit { bits: 1 }, Cell::U64(1), "true"),
        (T::Bit { bits: 9 }, Cell::U64(0x0102), r#""AgE=""#),
        (T::Bit { bits: 64 }, Cell::U64(1), r#""AQAAAAAAAAA=""#),
        (
            T::Geometry,
            b(&mut f, &point),
            r#"{"x":1.5,"y":-2.0,"wkb":"AQEAAAAAAAAAAAD4PwAAAAAAAADA","srid":4326}"#,
        ),
        (T::Geometry, b(&mut f, &line), r#"{"wkb":"AQIAAAAAAAAA","srid":0}"#),
        (T::Vector { dimensions: 2 }, b(&mut f, &floats), "[0.1,-3.0]"),
        (T::Uuid, uuid, r#""123e4567-e89b-12d3-a456-426655440000""#),
        (T::Inet4, v4, r#""127.0.0.1""#),
        (T::Inet6, v6, r#""::1""#),
        (T::Inet6, Cell::Null, "null"),
    ];
    let batch = f.builder.build(Position::Source(SourcePosition::default()), None);
    for (ty, cell, json) in cases {
        let mut out = Vec::new();
        value::cell(&mut out, &batch, &ty, How::default(), cell)
            .unwrap_or_else(|_| panic!("{ty:?} refuses {cell:?}"));
        assert_eq!(String::from_utf8(out).unwrap(), json, "{ty:?}");
    }
}

fn schema_of(columns: &[(&str, ColumnType, &str, bool)]) -> Arc<TableSchema> {
    let plain: Vec<(&str, ColumnType)> = columns.iter().map(|(n, ty, ..)| (*n, ty.clone())).collect();
    let mut schema = Arc::unwrap_or_clone(schema(&plain, &[0]));
    for (column, (_, _, native, nullable)) in schema.columns.iter_mut().zip(columns) {
        (column.native, column.nullable) = ((*native).into(), *nullable);
    }
    Arc::new(schema)
}

/// What Debezium 3.5 was seen to write.
#[test]
fn the_debezium_profile_takes_its_losses_and_its_notation() {
    use ColumnType as T;
    let schema = schema_of(&[
        ("id", int(), "int(11)", false),
        ("flag", T::Bool, "tinyint(1)", true),
        ("bu", T::UInt { bits: 64 }, "bigint unsigned", true),
        ("f", T::Float32, "float(7,3)", true),
        ("d", T::Float64, "double", true),
        ("v", text(), "varchar(9)", true),
        ("z", T::Date, "date", true),
        ("zn", T::Timestamp { precision: 0 }, "timestamp", false),
        ("p", T::Geometry, "point", true),
        ("g", T::Geometry, "geometry", true),
        ("ts", T::Timestamp { precision: 3 }, "timestamp(3)", true),
    ]);
    let mut fixture = Fixture::new(&schema);
    fixture.profile = Profile::Debezium35;
    let mut point = vec![0, 0, 0, 0, 1, 1, 0, 0, 0];
    point.extend(1.5_f64.to_le_bytes());
    point.extend((-2.0_f64).to_le_bytes());
    let (beaver, zero) = (fixture.text("🦫"), fixture.text("0000-00-00"));
    let point = Cell::Bytes(fixture.builder.copy(&point));
    let row = [
        Cell::I64(1),
        Cell::I64(1),
        Cell::U64(u64::MAX),
        Cell::F32(1234.567),
        Cell::F64(1e21),
        beaver,
        zero,
        zero,
        point,
        point,
        Cell::I64(1_700_000_000_500_000),
    ];
    fixture.event(Op::Create, None, Some(&row));
    fixture.event(Op::Read, None, Some(&row));
    fixture.event(Op::Truncate, None, None);
    let encoded = fixture.encode(1, None).unwrap();
    let after = concat!(
        r#""after":{"id":1,"flag":1,"bu":-1,"f":1234.5670166015625,"d":1.0E21,"v":"\uD83E\uDDAB","z":null,"#,
        r#""zn":"1970-01-01T00:00:00Z","p":{"x":1.5,"y":-2.0,"wkb":"AQEAAAAAAAAAAAD4PwAAAAAAAADA","srid":null},"#,
        r#""g":{"wkb":"AQEAAAAAAAAAAAD4PwAAAAAAAADA","srid":null},"ts":"#,
    );
    let streamed = shown(&encoded, 0).1;
    assert!(streamed.contains(&format!("{after}\"2023-11-14T22:13:20.500Z\"}},")), "{streamed}");
    let read = shown(&encoded, 1).1;
    assert!(read.contains(&format!("{after}\"2023-11-14T22:13:20.5Z\"}},")), "{read}");
    assert_eq!(shown(&encoded, 2).2, "-");
}

#[test]
fn transactions_are_announced_and_counted_over_batches() {
    let schema = schema(&[("id", int())], &[0]);
    let mut fixture = Fixture::new(&schema);
    fixture.transactions = true;
    fixture.event(Op::Create, None, Some(&[Cell::I64(1)]));
    fixture.event(Op::Update, Some(&[Cell::I64(1)]), Some(&[Cell::I64(2)]));
    let encoder = fixture.encoder(1);
    let first = encoder.encode(&fixture.batch(None)).unwrap();
    let block = |encoded: &Encoded, i: usize| {
        let value = shown(encoded, i).1;
        let start = value.find("\"transaction\":").unwrap();
        value[start..value.find(",\"op\":").unwrap()].to_owned()
    };
    let order =
        |n: u32| format!(r#""transaction":{{"id":"0-1-42","total_order":{n},"data_collection_order":{n}}}"#);
    assert_eq!(block(&first, 0), order(1));
    // A change of key is a delete and a create, and counts twice.
    assert_eq!((block(&first, 1), block(&first, 3)), (order(2), order(3)));
    let told = |encoded: &Encoded| -> Vec<String> {
        let text = |span: &Range<usize>| String::from_utf8(encoded.arena[span.clone()].to_vec()).unwrap();
        encoded.transactions.iter().map(|(key, value)| format!("{} {}", text(key), text(value))).collect()
    };
    let begin = r#"{"id":"0-1-42"} {"status":"BEGIN","id":"0-1-42","event_count":null,"data_collections":null,"ts_ms":1700000000123}"#;
    assert_eq!(told(&first), [begin]);
    let open = first.open.unwrap();
    assert_eq!((open.events, open.tables.clone()), (3, vec![("db.t".to_owned(), 3)]));

    // Another daemon goes on from what was stored.
    let mut fixture = Fixture::new(&schema);
    fixture.transactions = true;
    fixture.open = Some(open);
    fixture.event(Op::Create, None, Some(&[Cell::I64(3)]));
    let encoder = fixture.encoder(1);
    let second = encoder.encode(&fixture.batch(Some(1))).unwrap();
    assert_eq!(block(&second, 0), order(4));
    let end = r#"{"id":"0-1-42"} {"status":"END","id":"0-1-42","event_count":4,"data_collections":[{"data_collection":"db.t","event_count":4}],"ts_ms":1700000000123}"#;
    assert_eq!(told(&second), [end]);
    assert_eq!(second.open, None);
}

#[test]
fn other_forms_are_what_their_readers_know() {
    let schema = schema_of(&[
        ("id", int(), "int", false),
        ("d", ColumnType::Decimal { precision: 5, scale: 1 }, "decimal(5,1)", true),
    ]);
    let in_form = |format: Format| {
        let mut fixture = Fixture::new(&schema);
        fixture.format = format;
        let (a, b) = (fixture.builder.copy(b"1.5"), fixture.builder.copy(b"2.5"));
        fixture.event(
            Op::Update,
            Some(&[Cell::I64(1), Cell::Decimal(a)]),
            Some(&[Cell::I64(1), Cell::Decimal(b)]),
        );
        let encoded = fixture.encode(1, Some(1)).unwrap();
        let (key, value, _) = shown(&encoded, 0);
        (key, value)
    };
    let flat = in_form(Format::Flat);
    assert_eq!(flat.0, r#"{"id":1}"#);
    assert_eq!(
        flat.1,
        r#"{"id":1,"d":"GQ==","__deleted":"false","__op":"u","__source_ts_ms":1700000000123}"#
    );
    let maxwell = in_form(Format::Maxwell);
    assert_eq!(maxwell.0, r#"{"database":"db","table":"t","pk.id":1}"#);
    assert_eq!(
        maxwell.1,
        concat!(
            r#"{"database":"db","table":"t","type":"update","ts":1700000000,"xid":42,"commit":true,"gtid":"0-1-42","#,
            r#""position":"bin.000003:1234","data":{"id":1,"d":2.5},"old":{"d":1.5}}"#
        )
    );
    let (_, event) = in_form(Format::CloudEvents);
    assert!(event.starts_with(concat!(
        r#"{"id":"name:shop;file:bin.000003;pos:1234;row:2","source":"/debezium/mysql/shop","specversion":"1.0","#,
        r#""type":"io.debezium.connector.mysql.DataChangeEvent","time":"2023-11-14T22:13:20.123Z","datacontenttype":"application/json","#
    )));
    assert!(
        event.ends_with(r#","data":{"before":{"id":1,"d":"Dw=="},"after":{"id":1,"d":"GQ=="}}}"#),
        "{event}"
    );
    let (key, value) = in_form(Format::JsonSchema);
    assert_eq!(
        key,
        concat!(
            r#"{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false,"#,
            r#""name":"shop.db.t.Key"},"payload":{"id":1}}"#
        )
    );
    assert!(value.contains(concat!(
        r#"{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"#,
        r#""parameters":{"scale":"1","connect.decimal.precision":"5"},"field":"d"}"#
    )));
    assert!(
        value.contains(
            r#""optional":false,"name":"shop.db.t.Envelope","version":2},"payload":{"before":{"id":1"#
        ),
        "{value}"
    );
    serde_json::from_str::<serde_json::Value>(&value).unwrap();
}
