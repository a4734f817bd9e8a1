//! Events that a sink cannot take, from the first refusal to the last: nothing waits for them, and nothing of them is lost.

use std::process::Command;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{
    Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair, patience,
};
use serde_json::Value;

/// Runs `caudal dlq dash …`: exit code and what it printed for scripts.
fn dlq(daemon: &Daemon, verb: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(caudal_tests::daemon::binary().unwrap());
    command.args(["dlq", "dash"]).args(verb).args(["--output", "json", "--config"]);
    let out = command.arg(daemon.config_file()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code(), value)
}

/// Waits until there are so many letters, and gives them.
async fn letters(daemon: &Daemon, wanted: usize) -> Vec<Value> {
    let (limit, pause) = (Duration::from_secs(90), Duration::from_millis(300));
    let enough = async || Ok(dlq(daemon, &["list"]).1.as_array().is_some_and(|all| all.len() == wanted));
    let waited = patience::until(&format!("{wanted} dead letters"), limit, pause, enough).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    dlq(daemon, &["list"]).1.as_array().cloned().unwrap_or_default()
}

async fn row(sink: &PgDatabase, id: i64) -> Option<i32> {
    let client = sink.connect().await.unwrap();
    let rows = client.query("SELECT n FROM items WHERE id = $1", &[&id]).await.unwrap();
    rows.first().map(|row| row.get(0))
}

async fn wait_row(sink: &PgDatabase, id: i64, n: Option<i32>, daemon: &Daemon) {
    let (limit, pause) = (Duration::from_secs(90), Duration::from_millis(100));
    let there = async || Ok(row(sink, id).await == n);
    let waited = patience::until(&format!("row {id} with {n:?}"), limit, pause, there).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

async fn a_life_of_letters(consistency: &str, kafka: bool, name: &str) {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database(name).await.unwrap();
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, n INT NOT NULL); INSERT INTO items VALUES (1, 1)";
    server.sql(&db, table).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let mut config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &[&format!("consistency: {consistency}"), "on_reject: dead_letter"]);
    if kafka {
        config = config.brokers(&Kafka::shared().bootstrap());
    }
    let mut daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(90)).await.unwrap();
    assert_eq!(dlq(&daemon, &["list"]), (Some(0), Value::Array(Vec::new())));

    // A poison row; what comes after it in the same table comes through.
    sink.sql("ALTER TABLE items ADD CONSTRAINT small CHECK (n < 100)").await.unwrap();
    server.sql(&db, "INSERT INTO items VALUES (10, 500); INSERT INTO items VALUES (11, 5)").await.unwrap();
    wait_row(&sink, 11, Some(5), &daemon).await;
    let all = letters(&daemon, 1).await;
    let letter = &all[0];
    assert_eq!((&letter["key"]["id"], &letter["value"]["after"]["n"]), (&10.into(), &500.into()), "{letter}");
    assert!(letter["cause"].as_str().unwrap().contains("constraint small"), "{letter}");
    assert_eq!(letter["attempts"], 1);
    assert!(letter["position"].as_str().unwrap().contains(':'), "{letter}");
    let id = letter["id"].as_str().unwrap().to_owned();
    let shown = dlq(&daemon, &["show", &id]);
    assert_eq!((shown.0, &shown.1), (Some(0), letter));
    let alarm = async || {
        Ok(daemon.get("/metrics").await?.1.contains("caudal_dead_letters{pipeline=\"sink/dash\"} 1"))
    };
    let (limit, pause) = (Duration::from_secs(60), Duration::from_millis(300));
    patience::until("the metric tells of the letter", limit, pause, alarm).await.unwrap();

    // Refused again: it stays, with one more attempt.
    let (code, said) = dlq(&daemon, &["replay", &id]);
    assert_eq!(
        (code, &said["refused"][0]),
        (Some(1), &Value::String(id.clone())),
        "{said}\n{}",
        daemon.log_tail()
    );
    let (_, shown) = dlq(&daemon, &["show", &id]);
    assert_eq!(shown["attempts"], 2);

    // The row has moved on since: what is applied again is what it is now, not what was refused then.
    server.sql(&db, "UPDATE items SET n = 7 WHERE id = 10").await.unwrap();
    wait_row(&sink, 10, Some(7), &daemon).await;
    let (code, said) = dlq(&daemon, &["replay", "--all"]);
    assert_eq!((code, &said["applied"][0]), (Some(0), &Value::String(id)), "{said}\n{}", daemon.log_tail());
    assert_eq!(row(&sink, 10).await, Some(7), "an old value was put over a newer one");

    // Two letters of one row; the target is mended while the daemon is down; one that is dropped is gone for good.
    server
        .sql(&db, "UPDATE items SET n = 700 WHERE id = 10; UPDATE items SET n = 800 WHERE id = 10")
        .await
        .unwrap();
    server.sql(&db, "INSERT INTO items VALUES (20, 900)").await.unwrap();
    let all = letters(&daemon, 3).await;
    let dropped = all.iter().find(|letter| letter["key"]["id"] == 20).unwrap();
    assert_eq!(dlq(&daemon, &["drop", dropped["id"].as_str().unwrap()]).0, Some(0));
    sink.sql("ALTER TABLE items DROP CONSTRAINT small").await.unwrap();
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    daemon.wait_healthy(Duration::from_secs(90)).await.unwrap();
    let (code, said) = dlq(&daemon, &["replay", "--all"]);
    assert_eq!(
        (code, said["applied"].as_array().unwrap().len()),
        (Some(0), 2),
        "{said}\n{}",
        daemon.log_tail()
    );
    assert_eq!((row(&sink, 10).await, row(&sink, 20).await), (Some(800), None));
    assert_eq!(dlq(&daemon, &["list"]).0, Some(0));
}

#[tokio::test]
async fn dead_letters_of_a_sink_of_whole_transactions_live_and_are_replayed_with_the_current_value() {
    a_life_of_letters("transaction", false, "letters_t").await;
}

#[tokio::test]
async fn dead_letters_of_a_sink_of_rows_over_kafka_live_and_are_replayed_with_the_current_value() {
    a_life_of_letters("key", true, "letters_k").await;
}

#[tokio::test]
async fn letters_of_a_topic_that_was_made_again_are_replayed_like_those_of_the_first() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("letters_anew").await.unwrap();
    server.sql(&db, "CREATE TABLE items (id BIGINT PRIMARY KEY, n INT NOT NULL)").await.unwrap();
    server.sql(&db, "INSERT INTO items VALUES (1, 1)").await.unwrap();
    let sink = Postgres::shared().database("letters_anew").await.unwrap();
    let prefix = format!("letters_anew{}", std::process::id());
    let config = DaemonConfig::new(&prefix)
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &["on_reject: dead_letter"])
        .brokers(&Kafka::shared().bootstrap());
    let mut daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(90)).await.unwrap();
    let refuse = "ALTER TABLE items ADD CONSTRAINT small CHECK (n < 100) NOT VALID";
    let take = "ALTER TABLE items DROP CONSTRAINT small";
    // The first topic's letters end far behind those of the second one.
    sink.sql(refuse).await.unwrap();
    server.sql(&db, "INSERT INTO items VALUES (10, 500), (11, 500), (12, 500), (13, 500)").await.unwrap();
    letters(&daemon, 4).await;
    sink.sql(take).await.unwrap();
    assert_eq!(dlq(&daemon, &["replay", "--all"]).1["applied"].as_array().map(Vec::len), Some(4));
    daemon.kill().unwrap();
    caudal_tests::kafka::delete(daemon.brokers(), &format!("caudal.{prefix}.dlq.dash")).await.unwrap();
    daemon.start_again().unwrap();
    daemon.wait_healthy(Duration::from_secs(90)).await.unwrap();
    sink.sql(refuse).await.unwrap();
    server.sql(&db, "INSERT INTO items VALUES (20, 700)").await.unwrap();
    letters(&daemon, 1).await;
    sink.sql(take).await.unwrap();
    let (code, said) = dlq(&daemon, &["replay", "--all"]);
    assert_eq!((code, said["applied"].as_array().map(Vec::len)), (Some(0), Some(1)), "{said}");
    assert_eq!(row(&sink, 20).await, Some(700), "the letter was dropped and not applied");
    // What the sink stores of the new topic holds after a restart, too.
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    daemon.wait_healthy(Duration::from_secs(90)).await.unwrap();
    server.sql(&db, "INSERT INTO items VALUES (30, 1)").await.unwrap();
    wait_row(&sink, 30, Some(1), &daemon).await;
}
