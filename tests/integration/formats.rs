//! The same rows through each form of records: what a sink can read reaches it unchanged, and what it cannot is said.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair};

const ROWS: &str = "CREATE TABLE t (id INT PRIMARY KEY, u BIGINT UNSIGNED, f TINYINT(1), d DECIMAL(12,3), x DOUBLE, v VARCHAR(20), b VARBINARY(9), \
     ts TIMESTAMP(3) NULL, dt DATETIME(6), j JSON); \
     INSERT INTO t VALUES (1, 18446744073709551615, 1, -1.5, 1e300, '🦫', X'00FF', '2026-02-03 04:05:06.7', '2026-02-03 04:05:06.000007', '[1]'), \
     (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (3, 1, 0, 0, 0, '', X'', NULL, NULL, '{}')";

#[tokio::test]
async fn every_readable_form_carries_rows_from_source_to_sink() {
    let server = MysqlServer::shared(Family::MariaDb);
    let forms = [
        "format: json-schema",
        "format: caudal",
        "profile: debezium-3.5\n  transactions: true\n  heartbeats: 1s",
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let db = server.database("forms").await.unwrap();
        server.sql(&db, ROWS).await.unwrap();
        let sink = Postgres::shared().database("forms").await.unwrap();
        let config = DaemonConfig::new(&format!("forms{number}"))
            .source("all", &server.url(&db), &[])
            .sink("pg", &sink, &[])
            .extra(&format!("kafka:\n  {form}"));
        let daemon = Daemon::start_healthy(&config).await.unwrap();
        let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
        let limit = Duration::from_secs(60);
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, limit).await;
        equal.unwrap_or_else(|e| panic!("{form}, by snapshot: {e:#}\n{}", daemon.log_tail()));
        let changes = "UPDATE t SET v = 'new' WHERE id = 1; UPDATE t SET id = 9 WHERE id = 2; DELETE FROM t WHERE id = 3; \
                       INSERT INTO t SELECT id + 20, u, f, d, x, v, b, ts, dt, j FROM t";
        server.sql(&db, changes).await.unwrap();
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, limit).await;
        equal.unwrap_or_else(|e| panic!("{form}, by stream: {e:#}\n{}", daemon.log_tail()));
    }
}

#[tokio::test]
async fn a_sink_over_a_form_that_it_cannot_read_parks_and_says_which_to_take() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("flat").await.unwrap();
    let sink = Postgres::shared().database("flat").await.unwrap();
    let config = DaemonConfig::new("flat")
        .source("all", &server.url(&db), &[])
        .sink("pg", &sink, &[])
        .extra("kafka:\n  format: flat");
    let daemon = Daemon::start(&config).unwrap();
    daemon.wait_log("cannot read records of the format `flat`", Duration::from_secs(60)).await.unwrap();
    daemon.wait_log("kafka.format", Duration::from_secs(20)).await.unwrap();
}
