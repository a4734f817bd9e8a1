//! `caudal verify`: under live writes it finds what was planted in the sink, all of it, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, TablePair};
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
            // About once a second: a row that changes faster than a look takes is undecided, on a slow machine.
            2 if done % 10 == 0 => format!("UPDATE items SET name = 'hot {done}' WHERE id = {}", 1 + seed),
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
    a_sink_that_is_behind_is_not_wrong(server, &db, &sink, &daemon).await;
    what_differs_is_mended_through_the_log(server, &db, &sink, &daemon).await;
    wrong_use(&daemon).await;
}

/// Rows that somebody's lock keeps from the sink for some seconds are in flight: what was planted is found, and they are not.
async fn a_sink_that_is_behind_is_not_wrong(
    server: &MysqlServer,
    db: &str,
    sink: &PgDatabase,
    daemon: &Daemon,
) {
    let client = sink.connect().await.unwrap();
    client.batch_execute("BEGIN; LOCK TABLE items IN EXCLUSIVE MODE").await.unwrap();
    let late = "UPDATE items SET name = 'late' WHERE id BETWEEN 10 AND 20; DELETE FROM items WHERE id = 30";
    server.sql(db, late).await.unwrap();
    let release = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        client.batch_execute("COMMIT").await.unwrap();
    };
    let ((code, said), ()) = tokio::join!(verify(daemon, &["items"]), release);
    assert_eq!((code, found(&said, ".items").len()), (Some(3), 3), "{said}\n{}", daemon.log_tail());
}

/// What the sink alone has wrong comes from the topic again, with rows that nobody else ever had, of any key; what the topic has wrong
/// comes from the source.
async fn what_differs_is_mended_through_the_log(
    server: &MysqlServer,
    db: &str,
    sink: &PgDatabase,
    daemon: &Daemon,
) {
    sink.sql("INSERT INTO mixed SELECT 'it''s \"surplus\"', score, doc, at, t, b FROM mixed LIMIT 1")
        .await
        .unwrap();
    let (_, said) = verify(daemon, &["mixed"]).await;
    let surplus = ("surplus".to_owned(), "it's \"surplus\"".to_owned(), String::new());
    assert!(found(&said, ".mixed").contains(&surplus), "{said}");
    // Behind the log's back: neither the topic nor the sink knows.
    server
        .sql(db, "SET SESSION sql_log_bin = 0; UPDATE items SET name = 'unseen' WHERE id = 5000; DELETE FROM items WHERE id = 6000")
        .await
        .unwrap();
    let (code, said) = verify(daemon, &["--repair"]).await;
    assert_eq!((code, &said["equal"]), (Some(0), &true.into()), "{said}\n{}", daemon.log_tail());
    let tables = said["tables"].as_array().unwrap();
    let of = |name: &str| tables.iter().find(|t| t["table"].as_str().unwrap().ends_with(name)).unwrap();
    let repaired = &of(".items")["repaired"];
    assert_eq!((&repaired["differed"], &repaired["from_source"]), (&5.into(), &2.into()), "{said}");
    assert_eq!(of(".mixed")["repaired"]["from_source"], 0, "{said}");
    let client = sink.connect().await.unwrap();
    let sql = "SELECT (SELECT count(*) FROM items WHERE id IN (-5, 6000)), (SELECT name FROM items WHERE id = 5000)";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (0, "unseen"));
    // Nothing is left of the requests.
    let topics = verify(daemon, &["items"]).await;
    assert_eq!(topics.0, Some(0), "{}", topics.1);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_compared_again_and_again_tell_up_to_when_they_are_right_and_warn_when_not() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("again").await.unwrap();
    server
        .sql(&db, "CREATE TABLE items (id INT PRIMARY KEY, n INT); INSERT INTO items VALUES (1, 1), (2, 2)")
        .await
        .unwrap();
    let sink = Postgres::shared().database("again").await.unwrap();
    let config = DaemonConfig::new(&format!("again{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", &sink, &["verify: {every: 1s, rate: 100000}"]);
    let daemon = Daemon::start(&config).unwrap();
    let gauge = async |name: &str| {
        let text = daemon.get("/metrics").await.map_or(String::new(), |(_, text)| text);
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{pipeline=\"sink/dash\"}}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let until = async |what: &str, condition: &dyn Fn(Option<f64>, Option<f64>) -> bool| {
        let (to, rows) = ("caudal_verified_to_seconds", "caudal_verify_differing_rows");
        let there = async || Ok(condition(gauge(to).await, gauge(rows).await));
        let waited = caudal_tests::patience::until(what, PATIENCE, Duration::from_millis(200), there).await;
        waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    until("a first round", &|to, _| to.is_some()).await;
    let first = gauge("caudal_verified_to_seconds").await.unwrap();
    until("a later moment", &|to, rows| to > Some(first) && rows == Some(0.0)).await;
    sink.sql("UPDATE items SET n = 3 WHERE id = 2").await.unwrap();
    until("the difference", &|_, rows| rows == Some(1.0)).await;
    let stands = gauge("caudal_verified_to_seconds").await;
    let (_, status) = daemon.get("/status").await.unwrap();
    assert!(status.contains("verify_differs") && status.contains("items: 1 row(s)"), "{status}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(gauge("caudal_verified_to_seconds").await, stands, "what differs is not verified");
    let (code, said) = verify(&daemon, &["--repair"]).await;
    assert_eq!(code, Some(0), "{said}\n{}", daemon.log_tail());
    until("that it is over", &|to, rows| to > stands && rows == Some(0.0)).await;
    let over = async || Ok(!daemon.get("/status").await?.1.contains("verify_differs"));
    caudal_tests::patience::until("no warning", PATIENCE, Duration::from_millis(200), over).await.unwrap();
}
