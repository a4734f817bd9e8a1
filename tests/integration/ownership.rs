//! Who works, when several daemons run with one configuration: one captures, and the one that lost its work does no harm.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{
    Audit, Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair, Workload,
    patience,
};
use serde_json::Value;

/// More lines than this of one daemon in half a minute are a storm.
const CALM: usize = 60;

struct Stage {
    server: &'static MysqlServer,
    db: String,
    sink: PgDatabase,
    prefix: String,
    config: DaemonConfig,
    workload: Workload,
}

impl Stage {
    async fn set(family: Family, name: &str) -> Self {
        let server = MysqlServer::shared(family);
        let db = server.database(name).await.unwrap();
        let sink = Postgres::shared().database(name).await.unwrap();
        let workload = Workload::create(&server.admin_url(&db), 41, 5_000).await.unwrap();
        let prefix = format!("{name}{}", std::process::id());
        let config = DaemonConfig::new(&prefix)
            .brokers(&Kafka::shared().bootstrap())
            .source("shop", &server.url(&db), &[])
            .sink("pg", &sink, &[]);
        // A rest between transactions: two daemons share two cores with the servers.
        Self { server, db, sink, prefix, config, workload: workload.pause(Duration::from_millis(10)) }
    }

    /// Source and sink are equal, with no event twice.
    async fn assert_whole(&self, daemons: [&Daemon; 2]) {
        let pairs = TablePair::all(&self.server.admin_url(&self.db), &self.db).await.unwrap();
        let equal =
            wait_equal(&pairs, &self.server.url(&self.db), &self.sink.url, Duration::from_secs(90)).await;
        equal.unwrap_or_else(|e| {
            panic!("{e:#}\n--- first\n{}\n--- second\n{}", daemons[0].log_tail(), daemons[1].log_tail())
        });
        let audit = Audit::of(&Kafka::shared().bootstrap(), &self.prefix, &[&self.db]).await.unwrap();
        audit.assert_clean();
        assert!(audit.creates > 0, "{audit}");
    }
}

async fn pipeline(daemon: &Daemon, name: &str) -> anyhow::Result<Value> {
    let (_, body) = daemon.get("/status").await?;
    let all: Value = serde_json::from_str(&body)?;
    let found = all["pipelines"].as_array().and_then(|p| p.iter().find(|p| p["name"] == name));
    Ok(found.cloned().unwrap_or_default())
}

/// Waits until the daemon has captured more than `events` events.
async fn wait_captured(daemon: &Daemon, events: u64) {
    let more = async || {
        let found = pipeline(daemon, "capture/shop").await?;
        anyhow::ensure!(found["events"].as_u64().unwrap_or(0) > events, "{found}");
        Ok(true)
    };
    patience::until("captured events", Duration::from_secs(60), Duration::from_millis(100), more)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

fn assert_calm(daemon: &Daemon) {
    let log = daemon.log();
    assert!(log.lines().count() < CALM, "a storm:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
}

async fn frozen(family: Family, name: &str) {
    let stage = Stage::set(family, name).await;
    let first = Daemon::start(&stage.config).unwrap();
    wait_captured(&first, 14_999).await;
    let writers = stage.workload.start().await.unwrap();
    wait_captured(&first, 15_500).await;
    first.signal("STOP").unwrap();
    let second = Daemon::start(&stage.config).unwrap();
    wait_captured(&second, 500).await;
    first.signal("CONT").unwrap();
    // What it had in hand is refused, and it says why.
    let told = async || {
        let found = pipeline(&first, "capture/shop").await?;
        let error = found["last_error"].to_string();
        anyhow::ensure!(error.contains("fenced"), "{found}");
        Ok(true)
    };
    patience::until("the first being fenced", Duration::from_secs(30), Duration::from_millis(100), told)
        .await
        .unwrap_or_else(|e| {
            panic!("{e:#}\n--- first\n{}\n--- second\n{}", first.log_tail(), second.log_tail())
        });
    tokio::time::sleep(Duration::from_secs(10)).await;
    writers.stop().await.unwrap();
    stage.assert_whole([&first, &second]).await;
    [&first, &second].into_iter().for_each(assert_calm);
}

#[tokio::test]
async fn a_daemon_frozen_while_another_took_over_is_fenced_and_repeats_nothing() {
    frozen(Family::MariaDb, "frozen_a").await;
}

#[tokio::test]
async fn two_daemons_with_one_configuration_share_the_work_in_peace() {
    let stage = Stage::set(Family::Mysql97, "twins").await;
    let (mut first, mut second) =
        (Daemon::start(&stage.config).unwrap(), Daemon::start(&stage.config).unwrap());
    let writers = stage.workload.start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut working = 0;
    for daemon in [&first, &second] {
        let found = pipeline(daemon, "capture/shop").await.unwrap();
        assert!(["running", "waiting"].contains(&found["state"].as_str().unwrap_or_default()), "{found}");
        working += u32::from(found["state"] == "running");
    }
    assert_eq!(working, 1, "one captures:\n{}\n---\n{}", first.log_tail(), second.log_tail());
    // The one that works goes: the other takes over.
    let (gone, left) = if pipeline(&first, "capture/shop").await.unwrap()["state"] == "running" {
        (&mut first, &second)
    } else {
        (&mut second, &first)
    };
    assert!(gone.terminate(Duration::from_secs(12)).await.unwrap().success());
    wait_captured(left, 100).await;
    writers.stop().await.unwrap();
    stage.assert_whole([&first, &second]).await;
    [&first, &second].into_iter().for_each(assert_calm);
}
