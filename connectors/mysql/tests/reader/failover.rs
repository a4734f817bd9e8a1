//! A primary that dies, its replica that is promoted, and histories that no longer fit.

use crate::own::Own;
use crate::resume::events;
use crate::server::{Stored, next};
use caudal_core::{Fault, Position, Reader};
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

struct Source {
    text: String,
}

impl Source {
    /// Over these servers, in this order.
    fn of(servers: &[&Own]) -> Self {
        let hosts: Vec<String> = servers[1..].iter().map(|s| format!("\"{}\"", s.place())).collect();
        Self {
            text: format!(
                r#"{{"url":"mysql://cdc:cdc-secret@{}/shop","hosts":[{}],"heartbeat":"200ms","batch_bytes":"64KiB","snapshot":{{"mode":"never"}}}}"#,
                servers[0].place(),
                hosts.join(",")
            ),
        }
    }

    async fn try_open(&self, from: &Stored) -> caudal_core::Result<Box<dyn Reader>> {
        let source = caudal_mysql::source("test", serde_json::from_str(&self.text).unwrap()).unwrap();
        source.open(from.position.clone().map(Position::Source)).await
    }

    async fn open(&self, from: &Stored) -> Box<dyn Reader> {
        self.try_open(from).await.unwrap_or_else(|e| panic!("open: {e}"))
    }

    async fn refused(&self, from: &Stored) -> caudal_core::Error {
        match self.try_open(from).await {
            Ok(_) => panic!("it opens on a history that does not fit"),
            Err(e) => e,
        }
    }
}

/// The tags under which the writers write, in turn: none is a number of the server's alone.
const TAGS: [Option<&str>; 3] = [Some("blue"), None, Some("green")];

/// Writes one row per transaction, each with the next number, until it is stopped or the server is gone. Numbers that were answered for, or
/// may have been, are below `next`.
async fn write(conn: &mut mysql_async::Conn, next: &AtomicU32, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if conn.query_drop(format!("INSERT INTO t VALUES ({n}, REPEAT('x', 100))")).await.is_err() {
            return;
        }
    }
}

fn gtids(stored: &Stored) -> String {
    let token: serde_json::Value =
        serde_json::from_str(&stored.position.as_ref().expect("a position").token).unwrap();
    token["gtid"].as_str().expect("a GTID set").to_owned()
}

/// Each row's event, counted.
#[derive(Default)]
struct Seen(BTreeMap<String, u32>);

impl Seen {
    fn apply(&mut self, batch: &caudal_core::Batch) {
        for event in events(batch) {
            let id = event.split([' ', ',']).nth(2).unwrap().to_owned();
            *self.0.entry(id).or_default() += 1;
        }
    }

    /// Each row that the server has was seen once, and no other.
    async fn assert_is(&self, server: &Own) {
        let mut conn = server.connect().await;
        let ids: Vec<u32> = conn.query("SELECT id FROM shop.t").await.unwrap();
        let expected: BTreeMap<String, u32> = ids.into_iter().map(|id| (id.to_string(), 1)).collect();
        let twice = self.0.iter().filter(|(_, n)| **n != 1).count();
        let lost = expected.keys().filter(|id| !self.0.contains_key(*id)).count();
        let foreign = self.0.keys().filter(|id| !expected.contains_key(*id)).count();
        assert_eq!((twice, lost, foreign), (0, 0, 0), "of {} rows: twice, lost, foreign", expected.len());
    }
}

/// Which families are tested: those whose servers `tests/run` has.
fn wanted(variable: &str) -> bool {
    let wanted = std::env::var_os(variable).is_some();
    if !wanted {
        println!("needs {variable}: run it by tests/run");
    }
    wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_mysql_is_followed_without_gap_or_repetition() {
    if wanted("CAUDAL_TEST_MYSQL_URL") {
        follow("mysql97", "--server-id=98", false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_mysql_with_tagged_gtids_is_followed_without_gap_or_repetition() {
    if wanted("CAUDAL_TEST_MYSQL_URL") {
        follow("mysql97", "--server-id=96", true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_mariadb_is_followed_without_gap_or_repetition() {
    if wanted("CAUDAL_TEST_MARIADB_URL") {
        follow("mariadb", "--server-id=20", false).await;
    }
}

async fn follow(kind: &'static str, other_id: &str, tagged: bool) {
    let own = other_id.to_owned();
    let start = move || (Own::start(kind, &[]), Own::start(kind, &[&own]));
    let (a, b) = tokio::task::spawn_blocking(start).await.unwrap();
    // The promoted server's files must have other numbers than the first one's, lower ones here.
    a.run(&["FLUSH BINARY LOGS", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS"]).await;
    a.run(&["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY, pad VARCHAR(3000))"]).await;
    b.follow(&a).await;
    let both = Source::of(&[&a, &b]);
    let (mut stored, mut seen) = (Stored::default(), Seen::default());
    let mut reader = both.open(&stored).await;
    stored.apply(&next(&mut reader).await);

    // One transaction of many batches, left within; then writers run, and the first server is killed under them.
    let values: Vec<String> = (1..=300).map(|n| format!("({n}, REPEAT('y', 2500))")).collect();
    a.run(&[&format!("INSERT INTO shop.t VALUES {}", values.join(","))]).await;
    while !stored.position.as_ref().expect("a position").token.contains(r#""row":"#) {
        let batch = next(&mut reader).await;
        seen.apply(&batch);
        stored.apply(&batch);
    }
    if tagged {
        // One of each kind that surely gets to the other server; how many the writers add depends on the machine.
        for (n, tag) in (501..).zip(TAGS) {
            let mut conn = a.connect().await;
            let next = tag.map_or_else(|| "AUTOMATIC".to_owned(), |tag| format!("AUTOMATIC:{tag}"));
            conn.query_drop(format!("SET gtid_next = '{next}'")).await.unwrap();
            conn.query_drop(format!("INSERT INTO shop.t VALUES ({n}, 'tagged')")).await.unwrap();
        }
    }
    b.catch_up(&a).await;
    let (number, stop) = (Arc::new(AtomicU32::new(1_000)), Arc::new(AtomicBool::new(false)));
    let mut writers = Vec::new();
    for tag in TAGS {
        let mut conn = a.connect().await;
        conn.query_drop("USE shop").await.unwrap();
        if let (true, Some(tag)) = (tagged, tag) {
            conn.query_drop(format!("SET gtid_next = 'AUTOMATIC:{tag}'")).await.unwrap();
        }
        let (number, stop) = (Arc::clone(&number), Arc::clone(&stop));
        writers.push(tokio::spawn(async move { write(&mut conn, &number, &stop).await }));
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while number.load(Ordering::Relaxed) < 1_200 {
        assert!(std::time::Instant::now() < deadline, "the writers write");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    a.kill();
    for writer in writers {
        writer.await.unwrap();
    }
    // What was read after the last stored batch is lost, and the connection with it.
    let broken = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        loop {
            if let Err(e) = reader.next().await {
                return e;
            }
        }
    });
    assert_eq!(broken.await.expect("the reader sees it").fault(), Fault::Transient);
    b.promote().await;
    let mut conn = b.connect().await;
    conn.query_drop("USE shop").await.unwrap();
    if tagged {
        conn.query_drop("SET gtid_next = 'AUTOMATIC:blue'").await.unwrap();
    }
    for n in 10_001..=10_050 {
        conn.query_drop(format!("INSERT INTO t VALUES ({n}, 'after')")).await.unwrap();
    }
    let mut reader = both.open(&stored).await;
    while !seen.0.contains_key("10050") {
        let batch = next(&mut reader).await;
        seen.apply(&batch);
        stored.apply(&batch);
    }
    seen.assert_is(&b).await;
    // Both servers' transactions, under both tags and none.
    let told = gtids(&stored);
    assert_eq!(tagged, told.matches(":blue:").count() == 2 && told.contains(":green:"), "{told}");
    let before_purge = stored.clone();
    drop(reader);

    // The first server comes back with a history that lacks what the second one wrote: it is passed over, and alone refused by name.
    a.start_again();
    let wrong = Source::of(&[&a]).refused(&stored).await;
    assert_eq!(wrong.fault(), Fault::Config, "{wrong}");
    let missing = if kind == "mariadb" {
        gtids(&stored)
    } else {
        let known = a.ask("SELECT @@GLOBAL.gtid_executed").await;
        b.ask(&format!("SELECT GTID_SUBTRACT('{}', '{known}')", gtids(&stored))).await.replace('\n', "")
    };
    assert!(wrong.to_string().contains(&missing), "names {missing}: {wrong}");
    assert!(wrong.hint_text().is_some());
    conn.query_drop("INSERT INTO t VALUES (20000, 'x')").await.unwrap();
    let mut reader = both.open(&stored).await;
    while !seen.0.contains_key("20000") {
        let batch = next(&mut reader).await;
        seen.apply(&batch);
        stored.apply(&batch);
    }
    seen.assert_is(&b).await;
    drop(reader);
    purged(kind, &b, &before_purge).await;
}

/// What was not delivered and is purged is named.
async fn purged(kind: &str, server: &Own, stored: &Stored) {
    let show = if kind == "mariadb" { "SHOW MASTER STATUS" } else { "SHOW BINARY LOG STATUS" };
    server.run(&["FLUSH BINARY LOGS", "INSERT INTO shop.t VALUES (30000, 'x')"]).await;
    let file = server.ask(show).await;
    let oldest = || server.ask("SHOW BINARY LOGS");
    // The server keeps a file for as long as a stream that has just ended still reads it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while oldest().await != file {
        assert!(std::time::Instant::now() < deadline, "the files can be purged");
        server.run(&[&format!("PURGE BINARY LOGS TO '{file}'")]).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let error = Source::of(&[server]).refused(stored).await;
    assert_eq!(error.fault(), Fault::Config, "{error}");
    let missing = if kind == "mariadb" {
        let last = gtids(stored);
        let number: u64 = last.rsplit('-').next().unwrap().parse().unwrap();
        format!("0-20-{}", number + 1)
    } else {
        let purged = server.ask("SELECT @@GLOBAL.gtid_purged").await;
        server.ask(&format!("SELECT GTID_SUBTRACT('{purged}', '{}')", gtids(stored))).await.replace('\n', "")
    };
    assert!(!missing.is_empty() && error.to_string().contains(&missing), "names {missing}: {error}");
    assert!(error.hint_text().is_some_and(|h| h.contains("binlog_expire_logs_seconds")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_replica_waits_while_it_lags() {
    for (kind, variable) in [("mariadb", "CAUDAL_TEST_MARIADB_URL"), ("mysql97", "CAUDAL_TEST_MYSQL_URL")] {
        if wanted(variable) {
            lagging(kind).await;
        }
    }
}

async fn lagging(kind: &'static str) {
    let start = move || (Own::start(kind, &[]), Own::start(kind, &["--server-id=77"]));
    let (a, b) = tokio::task::spawn_blocking(start).await.unwrap();
    let table = "CREATE TABLE shop.t (id INT PRIMARY KEY)";
    a.run(&["CREATE DATABASE shop", table, "CREATE TABLE shop.other (id INT PRIMARY KEY)"]).await;
    a.run(&["INSERT INTO shop.t VALUES (1), (2), (3)"]).await;
    if kind == "mariadb" {
        a.run(&["GRANT REPLICA MONITOR ON *.* TO cdc"]).await;
    }
    b.follow(&a).await;
    b.catch_up(&a).await;
    // A lock on the replica holds its applier up: it lags, and says so.
    let mut lock = b.connect().await;
    lock.query_drop("LOCK TABLES shop.other READ").await.unwrap();
    a.run(&["INSERT INTO shop.other VALUES (1)"]).await;
    let text = format!(
        r#"{{"url":"mysql://cdc:cdc-secret@{}/shop","tables":["t"],"heartbeat":"200ms","snapshot":{{"max_replica_lag":"2s"}}}}"#,
        b.place()
    );
    let source = caudal_mysql::source("test", serde_json::from_str(&text).unwrap()).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    // Lag is time: the clock alone makes it.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let mut reader = source.open(None).await.unwrap();
    let throttled = || source.progress().iter().any(|p| p.phase == caudal_core::Phase::Throttled);
    let mut rows = 0;
    // Seen to wait, and for several of its looks at the lag.
    let mut waits = 0;
    while waits < 15 {
        assert!(std::time::Instant::now() < deadline, "{kind}: the snapshot does not wait");
        rows += next(&mut reader).await.events.len();
        assert_eq!(rows, 0, "{kind}: nothing is read while the replica lags");
        waits += usize::from(throttled());
    }
    lock.query_drop("UNLOCK TABLES").await.unwrap();
    while rows < 3 {
        rows += next(&mut reader).await.events.len();
    }
}
