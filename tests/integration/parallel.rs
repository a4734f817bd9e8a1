//! `parallel`: several pipelines of one daemon apply the tables of one sink side by side.

use std::collections::BTreeMap;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{
    Daemon, DaemonConfig, Family, Kafka, MysqlServer, Postgres, TablePair, Workload, patience,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(180);
const SIDE_BY_SIDE: &[&str] = &["consistency: key", "parallel: 3"];

/// Events by pipeline since the daemon's start.
async fn applied(daemon: &Daemon) -> anyhow::Result<BTreeMap<String, u64>> {
    let status: Value = serde_json::from_str(&daemon.get("/status").await?.1)?;
    let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
    let of = |p: &Value| Some((p["name"].as_str()?.to_owned(), p["events"].as_u64()?));
    Ok(pipelines.iter().filter_map(of).filter(|(name, _)| name.starts_with("sink/")).collect())
}

async fn killed(family: Family, name: &str, brokers: Option<String>, rounds: u64) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 73, 5_000).await.unwrap().clients(6);
    let prefix = format!("{name}{}", std::process::id());
    let pause = if brokers.is_some() { 3_000 } else { 300 };
    let mut config =
        DaemonConfig::new(&prefix).source("shop", &server.url(&db), &[]).sink("pg", &sink, SIDE_BY_SIDE);
    if let Some(brokers) = brokers {
        config = config.brokers(&brokers).kafka("  topics: {partitions: 3}");
    }
    let writers = workload.start().await.unwrap();
    let mut daemon = Daemon::start(&config).unwrap();
    daemon.wait_log("all tables done", PATIENCE).await.unwrap();
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(pause + round * 391 % 1_500)).await;
        daemon.kill().unwrap();
        daemon.start_again().unwrap();
    }
    // Each of them has a part of the tables, and works.
    let shared = async || {
        let applied = applied(&daemon).await?;
        let names: Vec<&str> = applied.keys().map(String::as_str).collect();
        anyhow::ensure!(names == ["sink/pg", "sink/pg#2", "sink/pg#3"], "{names:?}");
        Ok(applied.values().all(|events| *events > 0))
    };
    let all = patience::until("all three applying", PATIENCE, Duration::from_millis(200), shared).await;
    all.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    writers.stop().await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));

    // To whoever asks for a table it is one sink, of whose pipelines each may have a part of the table.
    let (code, body) = daemon.get("/api/v1/freshness").await.unwrap();
    let told: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert!(code == 200 && told.iter().all(|table| table["sink"] == "pg"), "{code} {body}");
    for table in ["people", "orders", "tags"] {
        // Once each pipeline has heard of the source's time.
        let known = async || {
            let (code, body) = daemon.get(&format!("/api/v1/freshness/{table}?sink=pg")).await?;
            anyhow::ensure!(code == 200 || code == 404 || code == 409, "{code} {body}");
            Ok(code == 200)
        };
        let waited = patience::until(table, PATIENCE, Duration::from_millis(200), known).await;
        waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    }
}

#[tokio::test]
async fn tables_that_are_applied_side_by_side_are_equal_after_kills_with_the_embedded_log() {
    killed(Family::MariaDb, "side_a", None, 5).await;
}

#[tokio::test]
async fn tables_that_are_applied_side_by_side_are_equal_after_kills_with_kafka() {
    killed(Family::Mysql97, "side_b", Some(Kafka::shared().bootstrap()), 2).await;
}
