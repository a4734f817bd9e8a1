//! After-load SQL: it runs once its tables have advanced, sees what has come, is recorded, and is not forgotten over a crash.

use std::time::Duration;

use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, patience};

const PATIENCE: Duration = Duration::from_secs(120);

async fn until(sink: &PgDatabase, sql: &str, wanted: i64, daemon: &Daemon) {
    let client = sink.connect().await.unwrap();
    let there = async || Ok(client.query_one(sql, &[]).await?.get::<_, i64>(0) == wanted);
    let waited =
        patience::until(&format!("{wanted}: {sql}"), PATIENCE, Duration::from_millis(100), there).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

const JOBS: &str = "after_load: [
      {name: refresh, tables: [items], debounce: 200ms, run: [{sql: REFRESH MATERIALIZED VIEW totals}, {file: FILE}]},
      {name: broken, tables: [items], debounce: 200ms, on_failure: skip, run: [{sql: INSERT INTO seen VALUES (-1)}, {sql: SELECT 1/0}]},
      {name: slow, tables: [items], debounce: 200ms, timeout: 1s, on_failure: skip, run: [{sql: SELECT pg_sleep(600)}]},
      {name: other, tables: [nothing], debounce: 200ms, run: [{sql: INSERT INTO seen VALUES (-2)}]},
      {name: late, tables: ['*'], debounce: 4s, run: [{sql: INSERT INTO late SELECT count(*) FROM items}]}]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_after_the_load_sees_it_is_recorded_and_outlives_a_crash() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("after").await.unwrap();
    server
        .sql(&db, "CREATE TABLE items (id BIGINT PRIMARY KEY, n INT); INSERT INTO items VALUES (1, 1)")
        .await
        .unwrap();
    let sink = Postgres::shared().database("after").await.unwrap();
    sink.sql("CREATE TABLE items (id bigint PRIMARY KEY, n integer); CREATE TABLE seen (n bigint); CREATE TABLE late (n bigint);
        CREATE MATERIALIZED VIEW totals AS SELECT coalesce(sum(n), 0)::bigint AS n FROM items").await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "INSERT INTO seen SELECT n FROM totals;").unwrap();
    let jobs = JOBS.replace("FILE", &file.path().display().to_string()).replace('\n', " ");
    let config = DaemonConfig::new(&format!("after{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &[&jobs]);
    let mut daemon = Daemon::start(&config).unwrap();
    until(&sink, "SELECT coalesce(max(n), 0) FROM seen", 1, &daemon).await;
    server.sql(&db, "INSERT INTO items VALUES (2, 10), (3, 100)").await.unwrap();
    until(&sink, "SELECT max(n) FROM seen", 111, &daemon).await;

    // What fails is undone as a whole, and named; what comes behind it runs all the same, and nothing runs for ever.
    until(
        &sink,
        "SELECT count(DISTINCT job) FROM caudal.after_load_runs WHERE error IS NOT NULL",
        2,
        &daemon,
    )
    .await;
    let said = "SELECT count(*) FROM caudal.after_load_runs WHERE (job = 'broken' AND error LIKE '%22012%') OR (job = 'slow' AND error LIKE '%57014%')";
    let failed = "SELECT count(*) FROM caudal.after_load_runs WHERE error IS NOT NULL";
    let client = sink.connect().await.unwrap();
    let row = client
        .query_one(&format!("SELECT ({said}) = ({failed}), (SELECT count(*) FROM seen WHERE n < 0)"), &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, i64>(1) == 0, "{}", daemon.log_tail());
    until(&sink, "SELECT coalesce(max(n), 0) FROM late", 3, &daemon).await;
    until(&sink, "SELECT count(*) FROM caudal.after_load WHERE changed > done", 0, &daemon).await;

    // Killed between the load and what runs after it: the next start runs it.
    server.sql(&db, "INSERT INTO items VALUES (4, 1000)").await.unwrap();
    until(&sink, "SELECT count(*) FROM items", 4, &daemon).await;
    daemon.kill().unwrap();
    let row = client.query_one("SELECT max(n) FROM late", &[]).await.unwrap();
    let pending = client
        .query_one("SELECT changed > done FROM caudal.after_load WHERE job = 'late'", &[])
        .await
        .unwrap();
    // Of a slow machine: it may have run.
    assert!(
        row.get::<_, i64>(0) == 4 || pending.get::<_, bool>(0),
        "what is to run is not stored with the rows"
    );
    daemon.start_again().unwrap();
    until(&sink, "SELECT max(n) FROM late", 4, &daemon).await;
    until(&sink, "SELECT max(n) FROM seen", 1111, &daemon).await;
}
