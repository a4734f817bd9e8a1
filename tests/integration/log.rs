//! The embedded log of a running daemon, as `kcat` sees it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;

/// Runs `kcat` against the daemon's log with `input` on its standard input; gives what it printed.
fn kcat(daemon: &Daemon, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("timeout");
    command.args(["60", "kcat", "-b", daemon.brokers()]).args(arguments);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.expect("kcat is installed by tests/services/install kafka");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(
        out.status.success(),
        "kcat {arguments:?}: {}: {complained}{said}\n{}",
        out.status,
        daemon.log_tail()
    );
    said.into_owned()
}

async fn create_topic(brokers: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    made.into_iter().for_each(|topic| drop(topic.unwrap()));
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[tokio::test]
async fn kcat_reads_what_is_captured_and_produces_and_consumes_with_a_group() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("kcat").await.unwrap();
    server.sql(&db, "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20)); INSERT INTO t VALUES (1,'one'),(2,'two'),(3,'three')").await.unwrap();
    let sink = Postgres::shared().database("kcat").await.unwrap();
    let config = DaemonConfig::new("kcat").source("shop", &server.url(&db), &[]).sink("pg", &sink, &[]);
    let mut daemon = Daemon::start_healthy(&config).await.unwrap();
    let pairs = [TablePair::by_default(&db, "t")];
    wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(40)).await.unwrap();
    server.sql(&db, "UPDATE t SET v = 'zwei' WHERE id = 2; DELETE FROM t WHERE id = 3").await.unwrap();
    wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(20)).await.unwrap();

    let topic = format!("kcat.{db}.t");
    let listed = kcat(&daemon, &["-L"], "");
    assert!(listed.contains(&topic) && listed.contains(daemon.brokers()), "{listed}");

    let read = kcat(&daemon, &["-C", "-t", &topic, "-o", "beginning", "-e", "-q", "-Z", "-f", "%s\n"], "");
    let values: Vec<Value> =
        lines(&read).into_iter().map(|l| serde_json::from_str(l).unwrap_or_default()).collect();
    let operations: Vec<&str> = values.iter().filter_map(|v| v["op"].as_str()).collect();
    assert_eq!(operations, ["r", "r", "r", "u", "d"], "{read}");
    assert_eq!(lines(&read).last(), Some(&"NULL"), "the tombstone: {read}");

    // A topic of the user's own (none is made by writing to it), plainly and by transactions of an idempotent producer.
    create_topic(daemon.brokers(), "own").await;
    kcat(&daemon, &["-P", "-t", "own", "-K", ":"], "a:1\nb:2\nc:3\n");
    kcat(
        &daemon,
        &["-P", "-t", "own", "-K", ":", "-X", "enable.idempotence=true", "-z", "zstd"],
        "d:4\ne:5\n",
    );
    let all = ["a:1", "b:2", "c:3", "d:4", "e:5"];
    let consume = ["-C", "-t", "own", "-o", "beginning", "-e", "-q", "-f", "%k:%s\n"];
    assert_eq!(lines(&kcat(&daemon, &consume, "")), all);

    // A group goes on where it was, also over a restart of the daemon.
    let settings = ["-q", "-e", "-f", "%k:%s\n", "-X", "auto.offset.reset=earliest"];
    let grouped = |daemon: &Daemon| kcat(daemon, &[&settings[..], &["-G", "readers", "own"]].concat(), "");
    assert_eq!(lines(&grouped(&daemon)), all);
    kcat(&daemon, &["-P", "-t", "own", "-K", ":"], "f:6\n");
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    daemon.wait_healthy(Duration::from_secs(30)).await.unwrap();
    assert_eq!(lines(&grouped(&daemon)), ["f:6"]);
    assert_eq!(kcat(&daemon, &consume, "").lines().count(), 6);

    // By time: nothing was written an hour from now.
    let late = kcat(&daemon, &["-Q", "-t", "own:0:1"], "");
    assert!(late.contains("offset 0"), "{late}");
}
