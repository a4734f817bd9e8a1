//! `consistency: transaction`: a reader of the sink never sees half a source transaction.

use std::time::{Duration, Instant};

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair};
use mysql_async::prelude::Queryable;
use rand::{Rng, SeedableRng, rngs::SmallRng};

const ACCOUNTS: i64 = 200;
const EACH: i64 = 1_000;

/// Moves money between two tables for `time`: each transaction takes from one what it gives to the other.
async fn transfer(url: String, seed: u64, time: Duration) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut conn = caudal_tests::mysql::connect(&url).await.unwrap();
    let (end, mut done) = (Instant::now() + time, 0);
    while Instant::now() < end {
        let (from, to, amount) =
            (rng.random_range(0..ACCOUNTS), rng.random_range(0..ACCOUNTS), rng.random_range(1..50));
        let statements = [
            "START TRANSACTION".to_owned(),
            format!("UPDATE checking SET balance = balance - {amount} WHERE id = {from}"),
            format!("UPDATE savings SET balance = balance + {amount} WHERE id = {to}"),
            "COMMIT".to_owned(),
        ];
        for statement in statements {
            conn.query_drop(statement).await.unwrap();
        }
        done += 1;
    }
    conn.disconnect().await.unwrap();
    done
}

async fn total(sink: &PgDatabase, schema: &str) -> i64 {
    let client = sink.connect().await.unwrap();
    let query = format!(
        "SELECT ((SELECT sum(balance) FROM \"{schema}\".checking) + (SELECT sum(balance) FROM \"{schema}\".savings))::bigint"
    );
    client.query_one(&query, &[]).await.unwrap().get(0)
}

async fn never_half(family: Family, kafka: bool, name: &str) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let rows = (0..ACCOUNTS).map(|id| format!("({id},{EACH})")).collect::<Vec<_>>().join(",");
    for table in ["checking", "savings"] {
        let statements = format!(
            "CREATE TABLE {table} (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL); INSERT INTO {table} VALUES {rows}"
        );
        server.sql(&db, &statements).await.unwrap();
    }
    let mut config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("bank", &server.url(&db), &[])
        .sink("books", &sink, &["consistency: transaction"]);
    if kafka {
        config = config.brokers(&Kafka::shared().bootstrap());
    }
    let daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(90)).await.unwrap();

    let writers: Vec<_> = (0..4)
        .map(|seed| tokio::spawn(transfer(server.admin_url(&db), seed, Duration::from_secs(8))))
        .collect();
    let (end, mut looks, mut seen) =
        (Instant::now() + Duration::from_secs(8), 0, std::collections::HashSet::new());
    while Instant::now() < end {
        assert_eq!(total(&sink, "public").await, 2 * ACCOUNTS * EACH, "half a transaction is visible");
        let query = "SELECT sum(balance)::bigint FROM public.checking";
        let half: i64 = sink.connect().await.unwrap().query_one(query, &[]).await.unwrap().get(0);
        seen.insert(half);
        looks += 1;
    }
    let mut transfers = 0;
    for writer in writers {
        transfers += writer.await.unwrap();
    }
    assert!(
        looks > 50 && seen.len() > 10 && transfers > 100,
        "{looks} looks, {} states, {transfers}",
        seen.len()
    );
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(60)).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

#[tokio::test]
async fn a_reader_of_the_sink_never_sees_half_a_mariadb_transaction() {
    never_half(Family::MariaDb, false, "half_a").await;
}

#[tokio::test]
async fn a_reader_of_the_sink_never_sees_half_a_mysql_transaction_over_kafka() {
    never_half(Family::Mysql97, true, "half_b").await;
}
