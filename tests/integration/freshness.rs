//! Freshness: what a sink says it is complete up to is there, whoever asks, and whoever waits for it finds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, patience};
use mysql_async::prelude::Queryable;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(180);

struct Shop {
    server: &'static MysqlServer,
    db: String,
    sink: PgDatabase,
    config: DaemonConfig,
}

async fn shop(name: &str, consistency: &str) -> Shop {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", &sink, &[&format!("consistency: {consistency}")]);
    Shop { server, db, sink, config }
}

/// Commits rows 1, 2, … into one table after the other until told to stop; gives the source's clock after each.
async fn write(url: String, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut conn = caudal_tests::mysql::connect(&url).await.unwrap();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let table = ["a", "b"][times.len() % 2];
        conn.query_drop(format!("INSERT INTO {table} VALUES ({})", times.len() + 1)).await.unwrap();
        let now = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
        times.push(conn.query_first::<i64, _>(now).await.unwrap().unwrap());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    times
}

/// What the sink says and what it shows at one moment: (microseconds, greatest id), table by table.
async fn look(sink: &tokio_postgres::Client) -> anyhow::Result<Vec<(String, i64, i64)>> {
    let says = |table: &str| {
        format!(
            "SELECT '{table}', (extract(epoch FROM complete_to) * 1000000)::bigint, (SELECT coalesce(max(id), 0) FROM {table})::bigint \
             FROM caudal.freshness WHERE source_table LIKE '%.{table}'"
        )
    };
    // Before the sink has begun there is nothing to ask.
    let rows = sink.query(&format!("{} UNION ALL {}", says("a"), says("b")), &[]).await?;
    Ok(rows.iter().map(|row| (row.get::<_, &str>(0).to_owned(), row.get(1), row.get(2))).collect())
}

async fn what_is_told_is_there(consistency: &str, name: &str) {
    let Shop { server, db, sink, config } = shop(name, consistency).await;
    server
        .sql(&db, "CREATE TABLE a (id BIGINT PRIMARY KEY); CREATE TABLE b (id BIGINT PRIMARY KEY)")
        .await
        .unwrap();
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(server.admin_url(&db), Arc::clone(&stop)));
    let client = sink.connect().await.unwrap();
    let looks = std::sync::Mutex::new(Vec::new());
    let enough = async || {
        let seen = look(&client).await?;
        let mut looks = looks.lock().unwrap();
        looks.extend(seen);
        let moments: std::collections::BTreeSet<i64> = looks.iter().map(|(_, us, _)| *us).collect();
        Ok(moments.len() >= 8)
    };
    let waited = patience::until("eight watermarks", PATIENCE, Duration::from_millis(5), enough).await;
    stop.store(true, Ordering::Relaxed);
    let times = writer.await.unwrap();
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    let mut counted = 0;
    for (table, complete_to, greatest) in &looks.into_inner().unwrap() {
        let parity = usize::from(table == "b");
        let owed = times.iter().enumerate().filter(|(n, at)| n % 2 == parity && *at <= complete_to).count();
        let last = if owed == 0 { 0 } else { (owed as i64 - 1) * 2 + 1 + parity as i64 };
        assert!(
            *greatest >= last,
            "table {table}: complete to {complete_to}, yet {last} is missing: {greatest}"
        );
        counted += owed;
    }
    assert!(counted > 0, "nothing was ever told");
    answers(&daemon, &client, times).await;
}

/// Whoever waits finds the row; the other surfaces tell the same.
async fn answers(daemon: &Daemon, client: &tokio_postgres::Client, times: Vec<i64>) {
    let last = times.len() as i64;
    let table = if last % 2 == 1 { "a" } else { "b" };
    let path =
        format!("/api/v1/freshness/{table}?at_least={}&timeout=3s", *times.last().unwrap() as f64 / 1e6);
    let reached = async || Ok(daemon.get(&path).await?.0 == 200);
    let waited = patience::until("the last row", PATIENCE, Duration::from_millis(20), reached).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    let row = client.query_one(&format!("SELECT max(id) FROM {table}"), &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), last, "it was said to be there");
    let (code, body) = daemon.get(&path).await.unwrap();
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &told["reached"], &told["source"]), (200, &true.into(), &"shop".into()), "{body}");
    assert!(told["complete_to_us"].as_i64().unwrap() >= *times.last().unwrap(), "{body}");
    let (code, body) = daemon
        .get(&format!("/api/v1/freshness/{table}?at_least=2999-01-01T00:00:00Z&timeout=100ms"))
        .await
        .unwrap();
    assert_eq!(code, 504, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["reached"], false, "{body}");
    for (path, code) in
        [("nothing?timeout=1s", 404), ("a?at_least=soon", 400), ("a?sink=none", 404), ("a?timeout=x", 400)]
    {
        assert_eq!(daemon.get(&format!("/api/v1/freshness/{path}")).await.unwrap().0, code, "{path}");
    }
    let metrics = daemon.get("/metrics").await.unwrap().1;
    assert!(
        metrics.contains("caudal_table_complete_to_seconds{pipeline=\"sink/dash\",source=\"shop\",table="),
        "{metrics}"
    );
    let status: Value = serde_json::from_str(&daemon.get("/status").await.unwrap().1).unwrap();
    let tables = &status["pipelines"][1]["tables"];
    assert_eq!(tables.as_array().map(Vec::len), Some(2), "{status}");
    let all = daemon.get("/api/v1/freshness").await.unwrap().1;
    assert_eq!(serde_json::from_str::<Value>(&all).unwrap().as_array().map(Vec::len), Some(2), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freshness_of_whole_transactions_never_says_more_than_is_there() {
    what_is_told_is_there("transaction", "fresh_t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freshness_of_rows_never_says_more_than_is_there() {
    what_is_told_is_there("key", "fresh_k").await;
}

/// A table whose first reading is held up by a lock: the others are complete, and of it nothing is said until all of it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_fresh_once_its_first_reading_is_over_and_not_before() {
    let Shop { server, db, sink, config } = shop("fresh_first", "transaction").await;
    let rows: Vec<String> = (1..=500).map(|id| format!("({id})")).collect();
    let rows = rows.join(",");
    let tables = "CREATE TABLE a (id BIGINT PRIMARY KEY); CREATE TABLE b (id BIGINT PRIMARY KEY)";
    server
        .sql(&db, &format!("{tables}; INSERT INTO a VALUES {rows}; INSERT INTO b VALUES {rows}"))
        .await
        .unwrap();
    let mut lock = server.admin(&db).await.unwrap();
    lock.query_drop("LOCK TABLES b WRITE").await.unwrap();
    let daemon = Daemon::start(&config).unwrap();
    let client = sink.connect().await.unwrap();
    let fresh = async |table: &str| {
        let query = "SELECT count(*) FROM caudal.freshness WHERE source_table LIKE '%.' || $1";
        // Before the sink has begun there is no such view.
        Ok(client.query_one(query, &[&table]).await?.get::<_, i64>(0) == 1)
    };
    let pause = Duration::from_millis(20);
    let waited = patience::until("table a is complete", PATIENCE, pause, async || fresh("a").await).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    // The stream goes on with rows of b, which make its topic known; b is not complete for all that.
    lock.query_drop("INSERT INTO b VALUES (1001)").await.unwrap();
    let there = async || {
        Ok(client.query_one("SELECT count(*) FROM b WHERE id = 1001", &[]).await?.get::<_, i64>(0) == 1)
    };
    let waited = patience::until("the row of the stream", PATIENCE, pause, there).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    assert!(!fresh("b").await.unwrap(), "most of b is not there, and it was said to be complete");
    let (_, body) = daemon.get("/api/v1/freshness/b").await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["complete_to"], Value::Null, "{body}");
    lock.query_drop("UNLOCK TABLES").await.unwrap();
    let waited = patience::until("table b is complete", PATIENCE, pause, async || fresh("b").await).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    let count: i64 = client.query_one("SELECT count(*) FROM b", &[]).await.unwrap().get(0);
    assert_eq!(count, 501, "it was said to be complete");
}
