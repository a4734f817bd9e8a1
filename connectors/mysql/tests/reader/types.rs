//! Every column type: by snapshot, by stream, and as the server selects it.

use crate::server::{Database, Kind, Server, Stored, full_servers, next, servers};
use crate::state::{Row, row};
use caudal_core::Op;
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use mysql_async::Value;
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;

/// A column type and literals for it.
type Case = (&'static str, &'static [&'static str]);

const COMMON: &[Case] = &[
    ("TINYINT", &["-128", "0", "127", "NULL"]),
    ("TINYINT UNSIGNED", &["0", "255"]),
    ("TINYINT(1)", &["0", "1", "NULL"]),
    ("TINYINT(1) UNSIGNED", &["0", "200"]),
    ("BOOLEAN", &["TRUE", "FALSE"]),
    ("SMALLINT", &["-32768", "32767"]),
    ("SMALLINT UNSIGNED", &["65535"]),
    ("MEDIUMINT", &["-8388608", "-1", "8388607"]),
    ("MEDIUMINT UNSIGNED", &["16777215"]),
    ("INT", &["-2147483648", "2147483647"]),
    ("INT UNSIGNED", &["4294967295"]),
    ("INT(5) ZEROFILL", &["42"]),
    ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
    ("BIGINT UNSIGNED", &["18446744073709551615", "0"]),
    ("FLOAT", &["0.1", "-3.4028235e38", "16777217", "0"]),
    ("FLOAT(7,3)", &["1234.567"]),
    ("DOUBLE", &["0.1", "1e308", "-0.0", "2.2250738585072014e-308"]),
    ("DECIMAL(10,2)", &["-12.50", "0", "99999999.99", "-0.01"]),
    ("DECIMAL(65,30)", &["12345678901234567890123456789012345.123456789012345678901234567890"]),
    ("DECIMAL(5,0)", &["-99999", "7"]),
    ("DECIMAL(8,2) ZEROFILL", &["12.5", "0"]),
    ("BIT(1)", &["b'0'", "b'1'"]),
    ("BIT(12)", &["b'101010101010'", "b'1'"]),
    ("BIT(64)", &["0xFFFFFFFFFFFFFFFF", "0x8000000000000001"]),
    ("CHAR(5)", &["'a'", "'añ€😀b'", "''"]),
    ("CHAR(5) CHARACTER SET latin1", &["'añÿ'"]),
    ("VARCHAR(20)", &["'hello'", "'  trailing  '", "'日本語'"]),
    ("VARCHAR(300) CHARACTER SET latin1", &["'€ñ'", "'smart ’ quote'"]),
    ("VARCHAR(20) CHARACTER SET utf8mb3", &["'žluť'"]),
    ("VARCHAR(20) CHARACTER SET gbk", &["'中文'"]),
    ("VARCHAR(20) CHARACTER SET sjis", &["'日本'"]),
    ("VARCHAR(20) CHARACTER SET cp1251", &["'привет'"]),
    ("VARCHAR(20) CHARACTER SET ucs2", &["'añ'"]),
    ("VARCHAR(20) CHARACTER SET utf16", &["'a😀'"]),
    ("VARCHAR(20) CHARACTER SET ascii", &["'plain'"]),
    ("TEXT", &["'text'", "REPEAT('x', 70000 % 65000)"]),
    ("MEDIUMTEXT", &["REPEAT('ñ', 100000)"]),
    ("TINYTEXT", &["'t'"]),
    ("LONGTEXT", &["'l'"]),
    ("TEXT CHARACTER SET latin1", &["'ñ'"]),
    ("BINARY(6)", &["'ab'", "0x610000", "0x000000000000", "0xFF00FF"]),
    ("BINARY(255)", &["0x01"]),
    ("VARBINARY(10)", &["0x00FF00", "''"]),
    ("BLOB", &["0x0001FF", "''"]),
    ("TINYBLOB", &["0xAB"]),
    ("LONGBLOB", &["REPEAT('z', 200000)"]),
    ("DATE", &["'2024-02-29'", "'0000-00-00'", "'2024-00-00'", "'9999-12-31'", "'1000-01-01'", "NULL"]),
    ("TIME", &["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"]),
    ("TIME(1)", &["'-12:34:56.7'", "'12:34:56.7'"]),
    ("TIME(3)", &["'-00:00:00.001'", "'10:11:12.345'"]),
    ("TIME(6)", &["'-838:59:58.999999'", "'01:02:03.000004'"]),
    (
        "DATETIME",
        &["'2024-03-31 02:30:00'", "'0000-00-00 00:00:00'", "'1000-01-01 00:00:00'", "'2024-01-00 01:02:03'"],
    ),
    ("DATETIME(3)", &["'2024-01-02 03:04:05.678'", "'0000-00-00 00:00:00'"]),
    ("DATETIME(6)", &["'9999-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.5'"]),
    ("TIMESTAMP NULL", &["'2024-03-31 02:30:00'", "'0000-00-00 00:00:00'", "'1970-01-01 00:00:01'", "NULL"]),
    ("TIMESTAMP(3) NULL", &["'2024-01-02 03:04:05.678'", "'0000-00-00 00:00:00'"]),
    ("TIMESTAMP(6) NULL", &["'2038-01-19 03:14:07.999999'"]),
    ("YEAR", &["1901", "2155", "0", "NULL"]),
    (
        "ENUM('a','it''s','x,y','','ñ','back\\\\slash')",
        &["'a'", "'it''s'", "'x,y'", "'ñ'", "'back\\\\slash'", "'nonsense'", "NULL"],
    ),
    ("ENUM('ñ','b') CHARACTER SET latin1", &["'ñ'"]),
    ("SET('a','b','it''s','ñ')", &["''", "'a,ñ'", "'a,b,it''s'", "NULL"]),
    ("SET('x','y') CHARACTER SET latin1", &["'x,y'"]),
    ("GEOMETRY", &["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"]),
    ("POINT", &["ST_GeomFromText('POINT(-1.5 2.25)')"]),
    ("LINESTRING", &["ST_GeomFromText('LINESTRING(0 0,1 1,2 2)')"]),
];

const MYSQL: &[Case] = &[
    (
        "JSON",
        &[
            r#"'{"b": [1, 2.5, null, true, "x\\"y"], "a": {"c": -1, "long": 18446744073709551615}}'"#,
            r#"'"text"'"#,
            "'null'",
            "'[]'",
            "'{}'",
            "'1.0'",
            "'1e100'",
            "CAST(CAST('2024-01-02 03:04:05.678901' AS DATETIME(6)) AS JSON)",
            "JSON_OBJECT('d', CAST('12.50' AS DECIMAL(10,2)), 't', CAST('10:11:12' AS TIME), 'dt', CAST('2024-01-02' AS DATE), 'b', x'00FF')",
            "JSON_ARRAY(CAST('2024-01-02 03:04:05' AS DATETIME(3)), REPEAT('k', 300), -32769, 2147483648)",
            "NULL",
        ],
    ),
    ("GEOMETRY SRID 4326", &["ST_GeomFromText('POINT(10 20)', 4326)"]),
    ("VECTOR(3)", &["TO_VECTOR('[1,-2.5,3e5]')"]),
];

const MARIADB: &[Case] = &[
    ("JSON", &[r#"'{"b":  [1, 2.50]}'"#, "NULL"]),
    ("UUID", &["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'", "NULL"]),
    ("INET4", &["'192.168.0.1'", "'0.0.0.0'", "'10.0.0.0'"]),
    ("INET6", &["'::1'", "'2001:db8::ff00:42:8329'", "'::'", "'::ffff:1.2.3.4'"]),
    ("VARCHAR(200) COMPRESSED", &["REPEAT('abc', 50)", "'a'"]),
    ("BLOB COMPRESSED", &["REPEAT('abc', 500)", "''"]),
    ("TEXT COMPRESSED", &["REPEAT('ñ', 500)"]),
];

fn cases(server: &Server) -> Vec<Case> {
    let newer = |case: &Case| server.kind == Kind::Old && case.0.contains("VECTOR");
    let all = COMMON.iter().chain(if server.mariadb { MARIADB } else { MYSQL });
    all.copied().filter(|case| !newer(case)).collect()
}

async fn tables(database: &Database) -> BTreeMap<String, Case> {
    let mut tables = BTreeMap::new();
    for (i, case) in cases(&database.server).into_iter().enumerate() {
        let name = format!("t{i:03}");
        database
            .run(&[&format!(
                "CREATE TABLE {name} (id INT PRIMARY KEY, v {}, tail INT NOT NULL DEFAULT 7)",
                case.0
            )])
            .await;
        tables.insert(name, case);
    }
    tables
}

async fn insert(database: &Database, tables: &BTreeMap<String, Case>, from: usize) {
    let mut conn = database.connect().await;
    for (name, (ty, values)) in tables {
        for (i, value) in values.iter().enumerate() {
            let statement = format!("INSERT INTO {name} (id, v) VALUES ({}, {value})", from + i);
            conn.query_drop(&statement).await.unwrap_or_else(|e| panic!("{ty}: {statement}: {e}"));
        }
    }
}

/// The value that the server selects by the text protocol, in the form of [`row`], for the types whose text is the value.
async fn selected(database: &Database, table: &str, id: usize, ty: &str) -> Option<String> {
    let mut conn = database.connect().await;
    let plain = |value: Option<Value>| match value? {
        Value::NULL => Some("NULL".to_owned()),
        Value::Bytes(b) => Some(String::from_utf8_lossy(&b).into_owned()),
        other => Some(other.as_sql(true)),
    };
    let expression = match ty.split(['(', ' ']).next().unwrap_or_default() {
        "BIT" => "v+0",
        "BINARY" | "VARBINARY" | "BLOB" | "TINYBLOB" | "LONGBLOB" | "GEOMETRY" | "POINT" | "LINESTRING"
        | "VECTOR" => "LOWER(HEX(v))",
        // As text they are rounded.
        "FLOAT" | "DOUBLE" => return None,
        _ => "v",
    };
    let text =
        plain(conn.query_first(format!("SELECT {expression} FROM {table} WHERE id = {id}")).await.unwrap())?;
    Some(text)
}

/// A rendered cell as the server's text has it.
fn as_text(rendered: &str, ty: &str) -> String {
    let body =
        rendered.split_once(':').filter(|(kind, _)| kind.len() == 1).map_or(rendered, |(_, body)| body);
    let body = body.strip_prefix('u').filter(|b| b.bytes().all(|c| c.is_ascii_digit())).unwrap_or(body);
    let number: Option<i64> = rendered.parse().ok();
    match (ty.split(['(', ' ']).next().unwrap_or_default(), number) {
        ("TIME", Some(us)) => return time_text(us, fraction_digits(ty)),
        ("DATE", Some(days)) => return date_text(days),
        ("DATETIME" | "TIMESTAMP", Some(us)) => {
            let (days, rest) = (us.div_euclid(MICROS_PER_DAY), us.rem_euclid(MICROS_PER_DAY));
            return format!("{} {}", date_text(days), time_text(rest, fraction_digits(ty)));
        }
        _ => {}
    }
    match ty {
        "INT(5) ZEROFILL" => format!("{:0>5}", body),
        "DECIMAL(8,2) ZEROFILL" => format!("{body:0>9}"),
        "YEAR" if body == "0" => "0000".to_owned(),
        _ => body.to_owned(),
    }
}

fn fraction_digits(ty: &str) -> usize {
    ty.split_once('(').and_then(|(_, n)| n[..1].parse().ok()).unwrap_or(0)
}

fn date_text(days: i64) -> String {
    let (y, m, d) = civil_from_days(days);
    format!("{y:04}-{m:02}-{d:02}")
}

fn time_text(us: i64, digits: usize) -> String {
    let (sign, us) = (if us < 0 { "-" } else { "" }, us.abs());
    let seconds = us / 1_000_000;
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if digits > 0 {
        text.push('.');
        text.push_str(&format!("{:06}", us % 1_000_000)[..digits]);
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_the_same_by_snapshot_by_stream_and_as_selected() {
    const STREAMED: usize = 1_000;
    for server in servers() {
        let database = Database::create(&server).await;
        let tables = tables(&database).await;
        insert(&database, &tables, 0).await;
        let mut reader = database.open(None, "").await;
        let mut stored = Stored::default();
        let mut rows: BTreeMap<(String, usize), (Row, Op)> = BTreeMap::new();
        let names: Vec<&str> = tables.keys().map(String::as_str).collect();
        let mut types = BTreeMap::new();
        let mut inserted = false;
        let expected: usize = tables.values().map(|(_, values)| values.len()).sum();
        while rows.len() < 2 * expected {
            let batch = next(&mut reader).await;
            stored.apply(&batch);
            for event in &batch.events {
                let schema = batch.table(event);
                let row = row(&batch, batch.after(event).expect("an image after"));
                types.insert(schema.id.table.clone(), schema.columns[1].ty.clone());
                rows.insert((schema.id.table.clone(), row[0].parse().unwrap()), (row, event.op));
            }
            if stored.done(&names) && !inserted {
                inserted = true;
                insert(&database, &tables, STREAMED).await;
            }
        }
        let mut wrong = Vec::new();
        for (name, (ty, values)) in &tables {
            for (i, value) in values.iter().enumerate() {
                let (by_snapshot, op) = &rows[&(name.clone(), i)];
                let (by_stream, stream_op) = &rows[&(name.clone(), STREAMED + i)];
                assert_eq!((*op, *stream_op), (Op::Read, Op::Create), "{ty}");
                if by_snapshot[1..] != by_stream[1..] {
                    wrong.push(format!(
                        "{ty} {value}: snapshot {:.80} stream {:.80}",
                        by_snapshot[1], by_stream[1]
                    ));
                }
                if let Some(text) = selected(&database, name, i, ty).await
                    && as_text(&by_snapshot[1], ty) != text
                {
                    wrong.push(format!("{ty} {value}: snapshot {:.80} selected {text:.80}", by_snapshot[1]));
                }
            }
        }
        assert!(wrong.is_empty(), "mariadb: {}\n{}", server.mariadb, wrong.join("\n"));
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_and_invisible_columns_are_the_same_by_snapshot_and_by_stream() {
    for server in full_servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE g (id INT PRIMARY KEY, a INT INVISIBLE, v INT GENERATED ALWAYS AS (id * 2) VIRTUAL, \
                 s INT GENERATED ALWAYS AS (id * 3) STORED, z VARCHAR(9))",
                "INSERT INTO g (id, a, z) VALUES (1, 5, 'x'), (2, NULL, 'y')",
            ])
            .await;
        let mut reader = database.open(None, "").await;
        let (mut stored, mut rows) = (Stored::default(), Vec::new());
        let mut inserted = false;
        while rows.len() < 4 {
            let batch = next(&mut reader).await;
            stored.apply(&batch);
            rows.extend(batch.events.iter().map(|e| row(&batch, batch.after(e).expect("an image after"))));
            if stored.done(&["g"]) && !inserted {
                inserted = true;
                database.run(&["INSERT INTO g (id, a, z) VALUES (11, 5, 'x'), (12, NULL, 'y')"]).await;
            }
        }
        assert_eq!(rows[0].join(" "), "1 5 2 3 t:x", "mariadb: {}", server.mariadb);
        assert_eq!(rows[2].join(" "), "11 5 22 33 t:x", "mariadb: {}", server.mariadb);
        assert_eq!(rows[3].join(" "), "12 NULL 24 36 t:y", "mariadb: {}", server.mariadb);
        database.drop().await;
    }
}
