//! `caudal verify`: under live writes it finds what was planted in the sink, all of it, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair};
use mysql_async::prelude::Queryable;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(240);
const ROWS: i64 = 100_000;

/// Runs `caudal verify dash …`: exit code, and what it printed for scripts.
async fn verify(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, Value) {
    let binary = caudal_tests::daemon::binary().unwrap();
    let mut command = tokio::process::Command::new("timeout");
    command.arg("400").arg(binary).args(["verify", "dash", "--output", "json"]).args(arguments);
    let out = command.arg("--config").arg(daemon.config_file()).output().await.unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code(), value)
}

/// What was found of a table: kind, key and columns of each difference, in order.
fn found(said: &Value, table: &str) -> Vec<(String, String, String)> {
    let tables = said["tables"].as_array().unwrap();
    let one = tables.iter().find(|t| t["table"].as_str().unwrap().ends_with(table)).unwrap();
    let list = |value: &Value| {
        let all = value.as_array().into_iter().flatten();
        all.map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(",")
    };
    let told = one["differences"].as_array().unwrap_or_else(|| panic!("{said}")).iter();
    let mut all: Vec<_> = told
        .map(|d| (d["kind"].as_str().unwrap().to_owned(), list(&d["key"]), list(&d["columns"])))
        .collect();
    all.sort();
    all
}

/// Inserts, updates and deletes, all over both tables but in rows whose id is a multiple of 1,000; some rows again and again.
async fn live(url: String, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut conn = caudal_tests::mysql::connect(&url).await.unwrap();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = rng.random_range(1..ROWS) / 1_000 * 1_000 + rng.random_range(1..1_000);
        let statement = match rng.random_range(0..10) {
            0 => format!("REPLACE INTO items VALUES ({}, 'new', {done}.25, NULL)", ROWS * 2 + id),
            1 => format!("DELETE FROM items WHERE id = {}", ROWS * 2 + rng.random_range(1..ROWS)),
            2 => format!("UPDATE items SET name = 'hot {done}' WHERE id = {}", 1 + seed),
            3 => format!("UPDATE mixed SET score = score + 0.1 WHERE code = 'code {}'", 1 + id % 499),
            _ => format!("UPDATE items SET price = price + 1, name = 'name {done}' WHERE id = {id}"),
        };
        conn.query_drop(statement).await.unwrap();
        done += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    done
}

async fn source(server: &MysqlServer, db: &str) {
    server.sql(db, "CREATE TABLE items (id BIGINT PRIMARY KEY, name VARCHAR(60), price DECIMAL(12,2), seen DATETIME(3));
        CREATE TABLE mixed (code VARCHAR(40) PRIMARY KEY, score DOUBLE, doc JSON, at TIMESTAMP(6) NOT NULL, t TIME(3), b VARBINARY(20));
        CREATE TABLE loose (a INT, b INT)").await.unwrap();
    for part in 0..20 {
        let ids = part * ROWS / 20 + 1..=(part + 1) * ROWS / 20;
        let rows: Vec<String> = ids
            .map(|id| format!("({id}, 'näme {id}', {id}.50, '2024-02-29 12:00:00.{:03}')", id % 1000))
            .collect();
        server.sql(db, &format!("INSERT INTO items VALUES {}", rows.join(","))).await.unwrap();
    }
    let rows: Vec<String> = (1..=500)
        .map(|n| format!("('code {n}', {n}.1, '{{\"n\":{n}}}', '2024-01-01 00:00:00.000{:03}', '-12:00:00.5', X'00ff')", n % 1000))
        .collect();
    server.sql(db, &format!("INSERT INTO mixed VALUES {}", rows.join(","))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_just_what_was_planted_among_100_000_rows_under_live_writes() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("verify").await.unwrap();
    source(server, &db).await;
    let sink = Postgres::shared().database("verify").await.unwrap();
    let config = DaemonConfig::new(&format!("verify{}", std::process::id()))
        .source("shop", &server.url(&db), &["items", "mixed"])
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", &sink, &["consistency: transaction"]);
    let daemon = Daemon::start(&config).unwrap();
    let mut pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    pairs.retain(|pair| pair.table != "loose");
    wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..2).map(|seed| tokio::spawn(live(server.admin_url(&db), seed, Arc::clone(&stop)))).collect();
    let (code, said) = verify(&daemon, &[]).await;
    assert_eq!(
        (code, &said["equal"]),
        (Some(0), &true.into()),
        "nothing was planted: {said}\n{}",
        daemon.log_tail()
    );
    let items = said["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["table"].as_str().unwrap().ends_with(".items"))
        .unwrap();
    assert!(items["rows"].as_u64().unwrap() >= 100_000, "{said}");

    sink.sql("UPDATE items SET name = 'flipped' WHERE id = 50000; DELETE FROM items WHERE id = 77000;
        INSERT INTO items VALUES (-5, 'surplus', 1, NULL); UPDATE mixed SET doc = '{\"n\":-1}' WHERE code = 'code 500'").await.unwrap();
    let (code, said) = verify(&daemon, &[]).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    assert!(written > 200, "{written} statements are no live workload");
    let row = |kind: &str, key: &str, columns: &str| (kind.to_owned(), key.to_owned(), columns.to_owned());
    let planted = [row("different", "50000", "name"), row("missing", "77000", ""), row("surplus", "-5", "")];
    assert_eq!(found(&said, ".items"), planted, "{said}");
    assert_eq!(found(&said, ".mixed"), [row("different", "code 500", "doc")], "{said}");
    assert_eq!(code, Some(3), "{said}");

    // At rest: nearly all of it by digests alone.
    let (code, said) = verify(&daemon, &["items", "--rate", "1000000"]).await;
    assert_eq!((code, found(&said, ".items").len()), (Some(3), 3), "{said}");
    let items = &said["tables"][0];
    assert!(items["equal_by_digest"].as_u64() > items["read"].as_u64(), "no digests: {said}");
    wrong_use(&daemon).await;
}

async fn wrong_use(daemon: &Daemon) {
    let binary = caudal_tests::daemon::binary().unwrap();
    for (arguments, says) in [(["nobody", "items"], "one of: dash"), (["dash", "nothing"], "no such table")] {
        let mut command = tokio::process::Command::new(&binary);
        let out = command
            .arg("verify")
            .args(arguments)
            .arg("--config")
            .arg(daemon.config_file())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && text.contains(says), "{text}");
    }
}
