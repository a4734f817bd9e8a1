//! Every column type of both families arrives with the value that `SELECT` returns: rows that were there before the daemon (by the
//! snapshot) and the same rows written while it runs (by the binlog).

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair};

/// A column's type and values for it, as SQL.
type Column = (&'static str, &'static [&'static str]);

const BOTH: &[Column] = &[
    ("TINYINT", &["-128", "127", "0"]),
    ("TINYINT(1)", &["0", "1"]),
    ("TINYINT UNSIGNED", &["255", "128"]),
    ("SMALLINT", &["-32768", "32767"]),
    ("SMALLINT UNSIGNED", &["65535"]),
    ("MEDIUMINT", &["-8388608", "8388607", "-1"]),
    ("MEDIUMINT UNSIGNED", &["16777215"]),
    ("INT", &["-2147483648", "2147483647"]),
    ("INT UNSIGNED", &["4294967295"]),
    ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
    ("BIGINT UNSIGNED", &["18446744073709551615", "9223372036854775808"]),
    ("BIT(1)", &["0", "1"]),
    ("BIT(5)", &["b'10101'"]),
    ("BIT(64)", &["18446744073709551615", "1"]),
    ("DECIMAL(5,0)", &["-99999", "7"]),
    ("DECIMAL(10,2)", &["-12345678.90", "0.05", "-0.01"]),
    ("DECIMAL(65,30)", &["-12345678901234567890123456789012345.123456789012345678901234567890", "1"]),
    ("DECIMAL(9,9)", &["0.123456789"]),
    ("FLOAT", &["0.1", "-1.5e30", "16777217", "1e-38"]),
    ("DOUBLE", &["0.1", "-1.7976931348623157e308", "3.141592653589793", "1e-300"]),
    ("YEAR", &["1901", "2155", "2026"]),
    ("DATE", &["'1000-01-01'", "'9999-12-31'", "'1969-12-31'"]),
    ("TIME", &["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"]),
    ("TIME(1)", &["'-12:34:56.7'", "'-00:00:00.1'"]),
    ("TIME(2)", &["'-12:34:56.78'"]),
    ("TIME(3)", &["'12:34:56.789'", "'-12:34:56.001'"]),
    ("TIME(6)", &["'-00:00:00.000001'", "'100:00:00.123456'"]),
    ("DATETIME", &["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'"]),
    ("DATETIME(1)", &["'2026-02-03 04:05:06.7'"]),
    ("DATETIME(3)", &["'2026-02-03 04:05:06.789'"]),
    ("DATETIME(6)", &["'1969-12-31 23:59:59.999999'", "'2026-02-03 04:05:06.000001'"]),
    ("TIMESTAMP NULL", &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"]),
    ("TIMESTAMP(3) NULL", &["'2026-02-03 04:05:06.789'"]),
    ("TIMESTAMP(6) NULL", &["'2026-02-03 04:05:06.000001'"]),
    ("CHAR(10)", &["'ab'", "''", "'ñandú'"]),
    ("VARCHAR(50)", &["'trailing '", "'汉字 🦫'", "'it''s \"quoted\"\\\\ and\\ttabbed\\n'"]),
    ("VARCHAR(300)", &["REPEAT('x', 300)"]),
    ("VARCHAR(30) CHARACTER SET latin1", &["'España €'"]),
    ("VARCHAR(30) CHARACTER SET gbk", &["'汉字'"]),
    ("VARCHAR(30) CHARACTER SET utf16", &["'añ🦫'"]),
    ("VARCHAR(30) CHARACTER SET ascii", &["'plain'"]),
    ("TINYTEXT", &["'tiny'"]),
    ("TEXT", &["REPEAT('río ', 1000)"]),
    ("MEDIUMTEXT", &["REPEAT('m', 70000)"]),
    ("LONGTEXT", &["'long'"]),
    ("BINARY(8)", &["X'0102'", "X'0000000000000000'", "X'FF00'"]),
    ("VARBINARY(20)", &["X'00FF00'", "X''"]),
    ("TINYBLOB", &["X'00'"]),
    ("BLOB", &["REPEAT(X'00FF', 500)"]),
    ("MEDIUMBLOB", &["X'DEADBEEF'"]),
    ("LONGBLOB", &["X'00'"]),
    ("ENUM('a','b''c','ñ')", &["'a'", "'b''c'", "'ñ'"]),
    ("SET('x','y','z')", &["'x,z'", "''", "'x,y,z'"]),
    (
        "JSON",
        &[
            r#"'{"a": [1, 2.5, "ñ", null, true], "b": {"c": -1}}'"#,
            "'[]'",
            "'\"text\"'",
            "'12345678901234567890'",
            "'null'",
        ],
    ),
    ("POINT", &["ST_GeomFromText('POINT(1.5 -2.25)')", "ST_GeomFromText('POINT(40.25 -3.5)', 4326)"]),
    ("GEOMETRY", &["ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0))')"]),
    ("LINESTRING", &["ST_GeomFromText('LINESTRING(0 0,1 1,2 3)')"]),
];

const MARIADB: &[Column] = &[
    ("UUID", &["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'"]),
    ("INET6", &["'2001:db8::ff00:42:8329'", "'::'", "'::ffff:192.0.2.1'"]),
    ("INET4", &["'192.0.2.1'", "'0.0.0.0'"]),
    ("TEXT COMPRESSED", &["REPEAT('compressed ', 100)", "'x'"]),
    ("VARBINARY(1000) COMPRESSED", &["REPEAT(X'01', 900)"]),
];

const MYSQL: &[Column] = &[
    ("VECTOR(3)", &["TO_VECTOR('[1,-2.5,3.25]')"]),
    (
        "JSON",
        &[
            "JSON_OBJECT('d', CAST(1.10 AS DECIMAL(10,2)), 't', CAST('12:00:01.5' AS TIME(1)), 'when', CAST('2026-02-03' AS DATE))",
            "JSON_ARRAY(1e20, -0.5, 18446744073709551615, CAST('x' AS CHAR))",
        ],
    ),
];

/// One table per column type, so that a type that fails names itself; each has a row of NULL too.
fn tables(family: Family) -> Vec<(String, &'static Column)> {
    let own = if family == Family::MariaDb { MARIADB } else { MYSQL };
    BOTH.iter().chain(own).enumerate().map(|(i, column)| (table_name(i, column.0), column)).collect()
}

/// `VARCHAR(50)` becomes `t35_varchar_50`.
fn table_name(number: usize, kind: &str) -> String {
    let ascii: String =
        kind.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' }).collect();
    let words: Vec<&str> = ascii.split_whitespace().collect();
    format!("t{number:02}_{}", words.join("_"))
}

fn rows(first: usize, values: &[&str]) -> String {
    let values = values.iter().chain(&["NULL"]).enumerate();
    values.map(|(i, v)| format!("({},{v})", first + i)).collect::<Vec<_>>().join(",")
}

async fn every_type_arrives(family: Family) {
    let server = MysqlServer::shared(family);
    let db = server.database("types").await.unwrap();
    let sink = Postgres::shared().database("types").await.unwrap();
    let tables = tables(family);
    for (table, (kind, values)) in &tables {
        let create = format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, v {kind} COMMENT '{table}') DEFAULT CHARSET utf8mb4"
        );
        let fill = format!("INSERT INTO {table} VALUES {}", rows(1, values));
        server.sql(&db, &format!("{create}; {fill}")).await.unwrap();
    }
    let prefix = format!("types{}_{family:?}", std::process::id()).to_lowercase();
    let config = DaemonConfig::new(&prefix).source("all", &server.url(&db), &[]).sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    // The comparison itself must know every type, or the wait below is in vain.
    for pair in &pairs {
        let texts = pair.source_texts(&server.url(&db)).await;
        texts.unwrap_or_else(|e| panic!("{}.{}: {e:#}", pair.database, pair.table));
    }
    let limit = Duration::from_secs(60);
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, limit).await;
    equal.unwrap_or_else(|e| panic!("by snapshot: {e:#}\n{}", daemon.log_tail()));

    for (table, (_, values)) in &tables {
        let count = values.len() + 1;
        // Inserted, and updated from one value to the next: both images of a row are decoded.
        let insert = format!("INSERT INTO {table} VALUES {}", rows(101, values));
        let update = format!(
            "UPDATE {table} a JOIN {table} b ON b.id = 101 + (a.id + 1) MOD {count} SET a.v = b.v WHERE a.id < 100"
        );
        let delete = format!("DELETE FROM {table} WHERE id = 101");
        server.sql(&db, &format!("{insert}; {update}; {delete}")).await.unwrap();
    }
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, limit).await;
    let equal = equal.unwrap_or_else(|e| panic!("by stream: {e:#}\n{}", daemon.log_tail()));
    assert!(equal.source_rows > 200, "{equal}");
}

#[tokio::test]
async fn every_mariadb_type_arrives_unchanged_by_snapshot_and_by_stream() {
    every_type_arrives(Family::MariaDb).await;
}

#[tokio::test]
async fn every_mysql_type_arrives_unchanged_by_snapshot_and_by_stream() {
    every_type_arrives(Family::Mysql97).await;
}
