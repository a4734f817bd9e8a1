//! Sessions that log less than whole rows (minimal images, images without blobs, JSON as differences): what they leave out
//! stays what it was, and is never NULL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, TablePair};
use mysql_async::prelude::Queryable;

const TABLE: &str = "CREATE TABLE p (id INT NOT NULL, part CHAR(4) NOT NULL, n INT NOT NULL, name VARCHAR(40) NOT NULL DEFAULT 'as declared', \
     note TEXT NOT NULL, doc JSON NOT NULL, maybe INT NULL, PRIMARY KEY (id, part))";

/// Looks all the time whether a column that cannot be NULL is.
fn look_for_nulls(sink: &PgDatabase, over: Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let url = sink.url.clone();
    tokio::spawn(async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let query =
            "SELECT COUNT(*) FROM public.p WHERE n IS NULL OR name IS NULL OR note IS NULL OR doc IS NULL";
        let mut looks = 0;
        while !over.load(Ordering::Relaxed) {
            // The table is not there at first.
            if let Ok(row) = client.query_one(query, &[]).await {
                assert_eq!(row.get::<_, i64>(0), 0, "what was left out became NULL");
                looks += 1;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        looks
    })
}

/// A round of changes of rows from `base` on, under the session's settings.
async fn changes(conn: &mut mysql_async::Conn, base: i32) {
    let big = "REPEAT('a note of some length ', 50)";
    for sql in [
        format!("UPDATE p SET n = n + 1 WHERE id = {base}"),
        format!("UPDATE p SET maybe = 7 WHERE id = {base} + 1"),
        format!("UPDATE p SET maybe = NULL, n = 5 WHERE id = {base} + 1"),
        format!("UPDATE p SET note = CONCAT(note, '!') WHERE id = {base} + 2"),
        format!(
            "UPDATE p SET doc = JSON_SET(doc, '$.a', 'longer than it was before', '$.b[1]', NULL) WHERE id = {base} + 3"
        ),
        format!("UPDATE p SET doc = JSON_REMOVE(doc, '$.a') WHERE id = {base} + 3"),
        // Keys that change, one of two columns.
        format!("UPDATE p SET id = id + 500000 WHERE id = {base} + 4"),
        format!("UPDATE p SET part = 'z' WHERE id = {base} + 5"),
        format!("UPDATE p SET part = 'y', name = 'moved and changed' WHERE id = {base} + 5"),
        // What an INSERT does not name gets its default.
        format!("INSERT INTO p (id, part, n, note, doc) VALUES ({base} + 6, 'x', 1, {big}, '{{}}')"),
        format!("UPDATE p SET n = 2 WHERE id = {base} + 6"),
        format!("DELETE FROM p WHERE id = {base} + 7"),
        format!("INSERT INTO p (id, part, n, note, doc) VALUES ({base} + 7, 'a', 1, 'again', '[1]')"),
        format!("DELETE FROM p WHERE id = {base} + 8"),
    ] {
        conn.query_drop(&sql).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
    }
}

async fn nothing_becomes_null(family: Family, name: &str) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    server.sql(&db, TABLE).await.unwrap();
    let mut conn = server.admin(&db).await.unwrap();
    for part in 0..20 {
        let rows: Vec<String> = (0..200)
            .map(|i| {
                format!(
                    "({}, 'a', {i}, 'row', REPEAT('n', 300), '{{\"a\": {i}, \"b\": [1, 2, 3]}}', NULL)",
                    part * 200 + i
                )
            })
            .collect();
        conn.query_drop(format!("INSERT INTO p VALUES {}", rows.join(","))).await.unwrap();
    }
    let over = Arc::new(AtomicBool::new(false));
    let looking = look_for_nulls(&sink, Arc::clone(&over));
    let config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("src", &server.url(&db), &[])
        .source_line("src", "snapshot: {chunk_rows: 100}")
        .sink("pg", &sink, &["consistency: transaction"]);
    let daemon = Daemon::start(&config).unwrap();
    let mut settings = vec![
        "SET SESSION binlog_row_image=MINIMAL",
        "SET SESSION binlog_row_image=NOBLOB",
        "SET SESSION binlog_row_image=FULL",
    ];
    if family != Family::MariaDb {
        settings.push("SET SESSION binlog_row_value_options=PARTIAL_JSON, SESSION binlog_row_image=MINIMAL");
        settings.push("SET SESSION binlog_row_image=FULL");
    }
    // While the table is read at first, and after.
    for half in 0..2 {
        for (i, setting) in settings.iter().enumerate() {
            conn.query_drop(*setting).await.unwrap();
            for n in 0..10 {
                changes(&mut conn, half * 2_000 + i as i32 * 100 + n * 10).await;
            }
        }
        conn.query_drop("SET SESSION binlog_row_image=FULL").await.unwrap();
        if half == 0 {
            daemon.wait_log("all tables done", Duration::from_secs(120)).await.unwrap();
        }
    }
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(180)).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    over.store(true, Ordering::Relaxed);
    assert!(looking.await.unwrap() > 0);
}

#[tokio::test]
async fn what_mariadb_leaves_out_of_its_log_stays_what_it_was() {
    nothing_becomes_null(Family::MariaDb, "partial_a").await;
}

#[tokio::test]
async fn what_mysql_leaves_out_of_its_log_stays_what_it_was() {
    nothing_becomes_null(Family::Mysql97, "partial_b").await;
}

/// A change that is logged as a statement cannot be captured: the table is named, and what comes after it arrives.
async fn statements_are_named(family: Family, name: &str) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    server
        .sql(&db, "CREATE TABLE rows_of (id INT PRIMARY KEY, v TEXT); CREATE TABLE told (id INT PRIMARY KEY)")
        .await
        .unwrap();
    let config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("src", &server.url(&db), &[])
        .sink("pg", &sink, &["consistency: transaction"]);
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    daemon.wait_log("all tables done", Duration::from_secs(60)).await.unwrap();
    let mut conn = server.admin(&db).await.unwrap();
    for sql in [
        "SET SESSION binlog_format=STATEMENT, SESSION sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
        "INSERT INTO told VALUES (1)",
        "SET SESSION binlog_format=ROW",
        "INSERT INTO rows_of VALUES (7, 'a row behind it')",
    ] {
        conn.query_drop(sql).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
    }
    let pair = TablePair::by_default(&db, "rows_of");
    let equal = wait_equal(&[pair], &server.url(&db), &sink.url, Duration::from_secs(60)).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    let log = daemon.log();
    let line = log.lines().find(|l| l.contains("logged as a statement")).expect("the operator is told");
    assert!(line.contains(&format!("{db}.told")) && line.contains("cannot be captured"), "{line}");
}

#[tokio::test]
async fn a_statement_in_mariadbs_log_is_named_and_the_stream_goes_on() {
    statements_are_named(Family::MariaDb, "told_a").await;
}

#[tokio::test]
async fn a_statement_in_mysqls_log_is_named_and_the_stream_goes_on() {
    statements_are_named(Family::Mysql97, "told_b").await;
}
