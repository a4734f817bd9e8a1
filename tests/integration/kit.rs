//! The kit itself: what it starts is there, what it compares is really compared.

use std::time::Duration;

use caudal_tests::compare::compare_all;
use caudal_tests::workload::TABLES;
use caudal_tests::{Family, Kafka, MysqlServer, Postgres, TablePair, Workload};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// The sink's tables as a copy of the source's, typed by hand.
const SINK: &str = "
CREATE SCHEMA s;
CREATE TABLE s.people (id bigint PRIMARY KEY, name text, balance numeric(12,2), score float8, active boolean, born date,
    seen timestamptz, doc text, photo bytea, version bigint);
CREATE TABLE s.orders (region text, number int, person bigint, amount numeric(10,2), state text, placed timestamp(3), note text,
    version bigint, PRIMARY KEY (region, number));
CREATE TABLE s.tags (code text PRIMARY KEY, body text, hits numeric(20,0), version bigint)";

async fn eight_clients_write(family: Family) {
    let server = MysqlServer::shared(family);
    let db = server.database("kit").await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 1, 1_000).await.unwrap();
    let tally = workload.run(Duration::from_secs(2)).await.unwrap();
    for (what, n) in [
        ("inserted", tally.inserted),
        ("updated", tally.updated),
        ("deleted", tally.deleted),
        ("rekeyed", tally.rekeyed),
        ("rolled back", tally.rolled_back),
    ] {
        assert!(n > 0, "nothing {what}: {tally:?}");
    }
    let mut conn = server.admin(&db).await.unwrap();
    let mut rows = 0;
    for table in TABLES {
        let n: Option<u64> =
            mysql_async::prelude::Queryable::query_first(&mut conn, format!("SELECT COUNT(*) FROM {table}"))
                .await
                .unwrap();
        rows += n.unwrap();
    }
    assert_eq!(rows, 3_000 + tally.inserted - tally.deleted, "{tally:?}");
}

#[tokio::test]
async fn the_workload_counts_what_mariadb_committed() {
    eight_clients_write(Family::MariaDb).await;
}

#[tokio::test]
async fn the_workload_counts_what_mysql_committed() {
    eight_clients_write(Family::Mysql97).await;
}

#[tokio::test]
async fn the_comparison_names_missing_surplus_and_different_rows() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("kit").await.unwrap();
    server.sql(&db, "CREATE TABLE tags (code VARCHAR(40) PRIMARY KEY, body TEXT NOT NULL, hits BIGINT UNSIGNED, version INT UNSIGNED)").await.unwrap();
    server
        .sql(&db, "INSERT INTO tags VALUES ('a','x',1,1), ('b','x',18446744073709551615,1), ('c','x',NULL,1)")
        .await
        .unwrap();
    let sink = Postgres::shared().database("kit").await.unwrap();
    sink.sql(SINK).await.unwrap();
    sink.sql("INSERT INTO s.tags VALUES ('b','x',18446744073709551615,1), ('c','x',0,1), ('d','x',1,1)")
        .await
        .unwrap();
    let pair = TablePair { sink_schema: "s".into(), ..TablePair::by_default(&db, "tags") };
    let found = pair.compare(&server.url(&db), &sink.url).await.unwrap();
    assert_eq!((found.missing, found.surplus, found.different), (1, 1, 1), "{found}");

    sink.sql("DELETE FROM s.tags WHERE code = 'd'; UPDATE s.tags SET hits = NULL WHERE code = 'c'; INSERT INTO s.tags VALUES ('a','x',1,1)").await.unwrap();
    let found = compare_all(&[pair], &server.url(&db), &sink.url).await;
    assert!(found.is_equal() && found.sink_rows == 3, "{found}");
}

#[tokio::test]
async fn the_capture_account_cannot_write() {
    for family in [Family::MariaDb, Family::Mysql97] {
        let server = MysqlServer::shared(family);
        let db = server.database("kit").await.unwrap();
        let mut conn = caudal_tests::mysql::connect(&server.url(&db)).await.unwrap();
        mysql_async::prelude::Queryable::query_drop(&mut conn, "CREATE TABLE t (a INT)").await.unwrap_err();
    }
}

#[tokio::test]
async fn a_server_keeps_its_data_over_a_crash() {
    let server = Postgres::start(&["fsync=on"]).unwrap();
    let db = server.database("kit").await.unwrap();
    db.sql("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    server.service().stop(true).unwrap();
    db.connect().await.map(drop).unwrap_err();
    server.service().start_again().unwrap();
    let n: i32 = db.connect().await.unwrap().query_one("SELECT n FROM t", &[]).await.unwrap().get(0);
    assert_eq!(n, 7);
}

#[tokio::test]
async fn a_server_that_refuses_to_start_says_why() {
    let Err(error) = Postgres::start(&["shared_buffers=nonsense"]) else { panic!("it started") };
    assert!(format!("{error:#}").contains("shared_buffers"), "{error:#}");
}

#[tokio::test]
async fn the_broker_answers() {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", Kafka::shared().bootstrap()).create().unwrap();
    assert_eq!(consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap().brokers().len(), 1);
}
