//! Between the sink and its server: a pooler, a standby, a failover.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::service::Service;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, TablePair, patience};

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until the sink's table has so many rows.
async fn has_rows(sink: &PgDatabase, rows: i64, daemon: &Daemon) {
    let there = async || {
        let counted = sink.connect().await?.query_one("SELECT count(*) FROM items", &[]).await;
        Ok(counted.is_ok_and(|row| row.get::<_, i64>(0) == rows))
    };
    let waited = patience::until("the rows", PATIENCE, Duration::from_millis(100), there).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

fn rows(from: u32, to: u32) -> String {
    let values: Vec<String> = (from..to).map(|id| format!("({id}, 'row {id}')")).collect();
    format!("INSERT INTO items (id, name) VALUES {}", values.join(", "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_behind_a_pooler_relies_on_no_state_of_a_session() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("pooled").await.unwrap();
    server.sql(&db, "CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40))").await.unwrap();
    // Enough for COPY, and for the stage later.
    server.sql(&db, &rows(0, 6_000)).await.unwrap();
    let postgres = Postgres::shared();
    let direct = postgres.database("pooled").await.unwrap();
    // A server's connection is used for one transaction only: whatever a session keeps is gone with it.
    let options = [format!("server={}", postgres.port()), "server_lifetime=0".to_owned()];
    let pooler =
        Service::start("pgbouncer", &options.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let own = format!("127.0.0.1:{}", postgres.port());
    let pooled = PgDatabase { url: direct.url.replace(&own, &format!("127.0.0.1:{}", pooler.port())) };
    let config = DaemonConfig::new("pooled").source("shop", &server.url(&db), &[]).sink(
        "dash",
        &pooled,
        &["tables: {items: {watermark: true}}"],
    );
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    has_rows(&direct, 6_000, &daemon).await;
    server
        .sql(&db, "ALTER TABLE items ADD COLUMN more INT; UPDATE items SET more = id * 2, name = 'ä'")
        .await
        .unwrap();
    server.sql(&db, "DELETE FROM items WHERE id >= 5000").await.unwrap();
    has_rows(&direct, 5_000, &daemon).await;
    pooler.stop(true).unwrap();
    server.sql(&db, &rows(7_000, 7_010)).await.unwrap();
    pooler.start_again().unwrap();
    has_rows(&direct, 5_010, &daemon).await;
    let pairs = [TablePair::by_default(&db, "items")];
    wait_equal(&pairs, &server.url(&db), &direct.url, PATIENCE).await.unwrap();
    for verb in [&["verify", "dash"][..], &["rebuild", "dash", "items"]] {
        let mut command = tokio::process::Command::new("timeout");
        command.arg("240").arg(caudal_tests::daemon::binary().unwrap()).args(verb);
        let out = command.arg("--config").arg(daemon.config_file()).output().await.unwrap();
        let said = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(out.status.success(), "{verb:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_to_a_standby_that_was_behind_nothing_is_missing() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("failover").await.unwrap();
    server.sql(&db, "CREATE TABLE items (id INT PRIMARY KEY, name VARCHAR(40))").await.unwrap();
    server.sql(&db, &rows(0, 100)).await.unwrap();
    let primary = Postgres::start(&[]).unwrap();
    let sink = primary.database("failover").await.unwrap();
    let standby = Postgres::start(&[&format!("standby-of={}", primary.port())]).unwrap();
    let (first, second) = (format!("127.0.0.1:{}", primary.port()), format!("127.0.0.1:{}", standby.port()));
    let other = PgDatabase { url: sink.url.replace(&first, &second) };
    let both = PgDatabase { url: sink.url.replace(&first, &format!("{first},{second}")) };
    let config = DaemonConfig::new(&format!("failover{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("dash", &both, &[]);
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    has_rows(&other, 100, &daemon).await;
    // What the primary has from now on dies with it.
    standby.service().stop(false).unwrap();
    server.sql(&db, &rows(100, 200)).await.unwrap();
    has_rows(&sink, 200, &daemon).await;
    primary.service().stop(true).unwrap();
    server.sql(&db, &rows(200, 300)).await.unwrap();
    standby.service().start_again().unwrap();
    // It answers, and takes no writes yet: that passes by, and nobody has to act.
    let told = async || {
        let log = daemon.log();
        Ok(log.lines().any(|line| line.contains("during recovery") && line.contains("fault=transient")))
    };
    let waited = patience::until("an attempt", PATIENCE, Duration::from_millis(200), told).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    other.sql("SELECT pg_promote()").await.unwrap();
    has_rows(&other, 300, &daemon).await;
    let pairs = [TablePair::by_default(&db, "items")];
    wait_equal(&pairs, &server.url(&db), &other.url, PATIENCE).await.unwrap();
}
