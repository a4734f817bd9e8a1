//! Every column type, with the values at its edges, compared with what `SELECT` shows; by each of the three ways of writing.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, put, table};
use caudal_core::{ColumnType as C, Op, TableSchema};
use std::sync::Arc;

/// Days and microseconds since 1970 at the edges of MySQL's calendar.
const DAY_MIN: i64 = -719_162; // 0001-01-01
const DAY_MAX: i64 = 2_932_896; // 9999-12-31
const DAY: i64 = 86_400_000_000;

/// A type, what it is in Postgres, and values with what `SELECT` shows of them.
type Case = (C, &'static str, Vec<(V, &'static str)>);

fn cases() -> Vec<Case> {
    use V::{B, D, F32, F64, J, Null, U};
    let enumeration = || vec!["small".to_owned(), "large".to_owned()];
    let point = b"\xE6\x10\0\0\x01\x01\0\0\0\0\0\0\0\0\0\xF0?\0\0\0\0\0\0\0@";
    let plain_point = b"\0\0\0\0\x01\x01\0\0\0\0\0\0\0\0\0\xF0?\0\0\0\0\0\0\0@";
    vec![
        (C::Bool, "boolean", vec![(I(0), "f"), (I(1), "t"), (Null, "∅")]),
        (C::Int { bits: 8 }, "smallint", vec![(I(-128), "-128"), (I(127), "127")]),
        (C::Int { bits: 16 }, "smallint", vec![(I(-32_768), "-32768"), (I(32_767), "32767")]),
        (C::Int { bits: 24 }, "integer", vec![(I(-8_388_608), "-8388608"), (I(8_388_607), "8388607")]),
        (
            C::Int { bits: 32 },
            "integer",
            vec![(I(i32::MIN.into()), "-2147483648"), (I(i32::MAX.into()), "2147483647")],
        ),
        (
            C::Int { bits: 64 },
            "bigint",
            vec![(I(i64::MIN), "-9223372036854775808"), (I(i64::MAX), "9223372036854775807")],
        ),
        (C::UInt { bits: 8 }, "smallint", vec![(I(255), "255")]),
        (C::UInt { bits: 16 }, "integer", vec![(I(65_535), "65535")]),
        (C::UInt { bits: 24 }, "integer", vec![(I(16_777_215), "16777215")]),
        (C::UInt { bits: 32 }, "bigint", vec![(I(u32::MAX.into()), "4294967295")]),
        (
            C::UInt { bits: 64 },
            "numeric(20,0)",
            vec![(U(0), "0"), (U(10_000), "10000"), (U(u64::MAX), "18446744073709551615")],
        ),
        (C::Float32, "real", vec![(F32(0.1), "0.1"), (F32(f32::MAX), "3.4028235e+38"), (F32(-0.0), "-0")]),
        (
            C::Float64,
            "double precision",
            vec![(F64(0.1), "0.1"), (F64(f64::MIN_POSITIVE), "2.2250738585072014e-308")],
        ),
        (
            C::Decimal { precision: 65, scale: 30 },
            "numeric(65,30)",
            vec![
                (D("0.000000000000000000000000000001"), "0.000000000000000000000000000001"),
                (
                    D("-99999999999999999999999999999999999.999999999999999999999999999999"),
                    "-99999999999999999999999999999999999.999999999999999999999999999999",
                ),
            ],
        ),
        (
            C::Decimal { precision: 10, scale: 2 },
            "numeric(10,2)",
            vec![(D("-0.05"), "-0.05"), (D("10000.00"), "10000.00")],
        ),
        (C::Text { max_chars: Some(3) }, "text", vec![(T(""), ""), (T("ñ😀'\"\\"), "ñ😀'\"\\")]),
        (
            C::Bytes { max_bytes: None, fixed: false },
            "bytea",
            vec![(B(b""), "\\x"), (B(b"\0\xff"), "\\x00ff")],
        ),
        (C::Bytes { max_bytes: Some(3), fixed: true }, "bytea", vec![(B(b"a\0\0"), "\\x610000")]),
        (
            C::Date,
            "date",
            vec![
                (I(DAY_MIN), "0001-01-01"),
                (I(-1), "1969-12-31"),
                (I(DAY_MAX), "9999-12-31"),
                (T("0000-00-00"), "∅"),
            ],
        ),
        (
            C::Time { precision: 6 },
            "interval(6)",
            vec![
                (I(-(838 * 3_600 + 59 * 60 + 59) * 1_000_000), "-838:59:59"),
                (I((838 * 3_600 + 59 * 60 + 59) * 1_000_000), "838:59:59"),
                (I(-500_000), "-00:00:00.5"),
            ],
        ),
        (
            C::DateTime { precision: 6 },
            "timestamp(6) without time zone",
            vec![
                (I(DAY_MIN * DAY), "0001-01-01 00:00:00"),
                (I(DAY_MAX * DAY + DAY - 1), "9999-12-31 23:59:59.999999"),
                (T("2024-02-00 00:00:00"), "∅"),
            ],
        ),
        (
            C::DateTime { precision: 0 },
            "timestamp(0) without time zone",
            vec![(I(1_000_000), "1970-01-01 00:00:01")],
        ),
        (
            C::Timestamp { precision: 3 },
            "timestamp(3) with time zone",
            vec![(I(1_704_164_645_120_000), "2024-01-02 03:04:05.12+00"), (T("0000-00-00 00:00:00"), "∅")],
        ),
        (C::Year, "smallint", vec![(I(0), "0"), (I(2155), "2155")]),
        (
            C::Json,
            "jsonb",
            vec![(
                J(r#"{"a":1.10,"bb":[null,true,"\\u0000"]}"#),
                r#"{"a": 1.10, "bb": [null, true, "\\u0000"]}"#,
            )],
        ),
        (C::Enum { members: enumeration() }, "text", vec![(T("large"), "large"), (T(""), "")]),
        (C::Set { members: enumeration() }, "text", vec![(T("small,large"), "small,large")]),
        (C::Bit { bits: 1 }, "boolean", vec![(U(1), "t"), (U(0), "f")]),
        (C::Bit { bits: 10 }, "bit(10)", vec![(U(5), "0000000101"), (U(1023), "1111111111")]),
        (
            C::Bit { bits: 64 },
            "bit(64)",
            vec![(U(1), "0000000000000000000000000000000000000000000000000000000000000001")],
        ),
        (
            C::Geometry,
            "bytea",
            vec![
                (B(point), "\\x0101000020e6100000000000000000f03f0000000000000040"),
                (B(plain_point), "\\x0101000000000000000000f03f0000000000000040"),
            ],
        ),
        (
            C::Uuid,
            "uuid",
            vec![(T("123e4567-e89b-12d3-a456-426655440000"), "123e4567-e89b-12d3-a456-426655440000")],
        ),
        (C::Inet4, "inet", vec![(T("10.0.0.255"), "10.0.0.255")]),
        (
            C::Inet6,
            "inet",
            vec![
                (T("2001:db8::ff00:42:8329"), "2001:db8::ff00:42:8329"),
                (T("::ffff:1.2.3.4"), "::ffff:1.2.3.4"),
            ],
        ),
    ]
}

fn vectors() -> Case {
    let floats = b"\0\0\xC0?\0\0\0\xC0";
    (
        C::Vector { dimensions: 2 },
        "real[]",
        vec![(V::B(floats), "{1.5,-2}"), (V::B(b""), "{}"), (V::Null, "∅")],
    )
}

/// Writes each case's values as rows 0, 1, … of one table, with `padding` rows of NULLs behind them; compares.
async fn round_trip(cases: &[Case], padding: i64, op: Op) {
    let Some(db) = Database::new().await else { return };
    db.run("SET timezone = 'UTC'").await;
    let names: Vec<String> = (0..cases.len()).map(|i| format!("c{i}")).collect();
    let mut columns = vec![("id", C::Int { bits: 64 })];
    columns.extend(names.iter().zip(cases).map(|(name, (ty, ..))| (name.as_str(), ty.clone())));
    let t: Arc<TableSchema> = Arc::new(table("every_type", &columns));
    let depth = cases.iter().map(|(_, _, values)| values.len()).max().unwrap() as i64;
    let mut rows = Rows::new();
    for id in 0..depth + padding {
        let value = |(_, _, values): &Case| values.get(id as usize).map_or(V::Null, |v| v.0.clone());
        let row: Vec<V> = std::iter::once(I(id)).chain(cases.iter().map(value)).collect();
        rows.push(&t, op, (op == Op::Update).then_some(row.as_slice()), Some(&row));
    }
    put(db.writer().await.as_mut(), rows.at(1)).await;
    db.run("SET timezone = 'UTC'").await;
    for (name, (ty, sql, values)) in names.iter().zip(cases) {
        let declared = format!(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'every_type'::regclass AND attname = '{name}'"
        );
        assert_eq!(db.value(&declared).await, *sql, "{ty:?}");
        let shown =
            db.rows(&format!("SELECT {name} FROM every_type ORDER BY id LIMIT {}", values.len())).await;
        let expected: Vec<&str> = values.iter().map(|v| v.1).collect();
        assert_eq!(shown, expected, "{ty:?}");
    }
    assert_eq!(db.value("SELECT count(*) FROM every_type").await, (depth + padding).to_string());
}

#[tokio::test]
async fn every_type_by_arrays() {
    round_trip(&cases(), 0, Op::Create).await;
}

#[tokio::test]
async fn every_type_by_copy_into_the_table() {
    let mut cases = cases();
    cases.push(vectors());
    round_trip(&cases, 600, Op::Read).await;
}

#[tokio::test]
async fn every_type_by_the_stage() {
    let mut cases = cases();
    cases.push(vectors());
    round_trip(&cases, 5_000, Op::Update).await;
}

#[tokio::test]
async fn each_type_can_be_a_key() {
    let Some(db) = Database::new().await else { return };
    let mut w = db.writer().await;
    for (number, (ty, _, values)) in cases().into_iter().enumerate() {
        if matches!(ty, C::Float32 | C::Float64 | C::Json | C::Geometry) {
            continue;
        }
        let name = format!("keyed_{number}");
        let t = Arc::new(table(&name, &[("k", ty.clone()), ("v", crate::rows::int())]));
        let keys: Vec<V> = values.into_iter().filter(|(_, shown)| *shown != "∅").map(|(v, _)| v).collect();
        let count = keys.len();
        let rows = keys.iter().fold(Rows::new(), |rows, k| rows.create(&t, &[k.clone(), I(1)]));
        put(w.as_mut(), rows.at(number as i64 * 2 + 1)).await;
        let rows = keys.iter().skip(1).fold(Rows::new(), |rows, k| rows.create(&t, &[k.clone(), I(2)]));
        put(w.as_mut(), rows.delete(&t, &[keys[0].clone(), I(1)]).at(number as i64 * 2 + 2)).await;
        let left = db.value(&format!("SELECT count(*) FROM {name} WHERE v = 2")).await;
        assert_eq!(left, (count - 1).to_string(), "{ty:?}");
        assert_eq!(
            db.value(&format!("SELECT count(*) FROM {name}")).await,
            (count - 1).to_string(),
            "{ty:?}"
        );
    }
}

#[tokio::test]
async fn json_can_be_kept_as_text() {
    let Some(db) = Database::new().await else { return };
    let config = db.config_with(serde_json::json!({"json": "json"}));
    let mut w = caudal_postgres::sink("exact", config).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let t = Arc::new(table("docs", &[("id", crate::rows::int()), ("doc", C::Json)]));
    for offset in 1..3 {
        // Twice: the second compares with the first.
        put(w.as_mut(), Rows::new().create(&t, &[I(1), V::J(r#"{"b":1e2, "a":"\u0000"}"#)]).at(offset)).await;
    }
    assert_eq!(db.value("SELECT doc FROM docs").await, r#"{"b":1e2, "a":"\u0000"}"#);
}

#[tokio::test]
async fn decimals_of_all_lengths_read_as_they_were_written() {
    let Some(db) = Database::new().await else { return };
    // Every place of the point in groups of four digits, both signs, zeros in front, behind and between.
    let digits = "9000012340000000567800010000000009";
    let mut values: Vec<String> = Vec::new();
    for scale in 0..=9 {
        for len in scale + 1..digits.len() {
            let text = &digits[digits.len() - len..];
            let (whole, fraction) = text.split_at(len - scale);
            let whole = whole.trim_start_matches('0');
            let whole = if whole.is_empty() { "0" } else { whole };
            let zero = text.bytes().all(|b| b == b'0');
            let sign = if len % 2 == 0 && !zero { "-" } else { "" };
            let point = if scale > 0 { "." } else { "" };
            values.push(format!("{sign}{whole}{point}{fraction}"));
        }
    }
    db.run("CREATE TABLE d (id int PRIMARY KEY, v numeric, w text)").await;
    let decimal = C::Decimal { precision: 65, scale: 30 };
    let t = Arc::new(table("d", &[("id", crate::rows::int()), ("v", decimal), ("w", crate::rows::text())]));
    let mut rows = Rows::new();
    for (id, value) in values.iter().enumerate() {
        let value: &'static str = value.clone().leak();
        rows.push(&t, Op::Create, None, Some(&[I(id as i64), V::D(value), T(value)]));
    }
    put(db.writer().await.as_mut(), rows.at(1)).await;
    assert_eq!(db.rows("SELECT v, w FROM d WHERE v::text <> w").await, Vec::<String>::new());
    assert_eq!(db.value("SELECT count(*) FROM d").await, values.len().to_string());
}
