//! `caudal log`: what the operator of an embedded log can do with its files.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Audit, Daemon, DaemonConfig, Family, Kafka, MysqlServer, Postgres, TablePair, Workload};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(180);

/// Runs `caudal log VERB…`; gives its exit code, and what it printed as JSON.
async fn log(daemon: &Daemon, verb: &[&str]) -> (Option<i32>, Value) {
    let mut command = tokio::process::Command::new(caudal_tests::daemon::binary().unwrap());
    command.arg("log").args(verb).args(["--output", "json", "--config"]).arg(daemon.config_file());
    let said = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&said.stderr)));
    (said.status.code(), value)
}

/// All files below a folder that end so, the largest first.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).map_or(0, |m| m.len())));
    found
}

fn flip(file: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// A daemon that has filled its log and its sink, and is stopped.
async fn filled(name: &str, sink: &caudal_tests::PgDatabase) -> (Daemon, DaemonConfig, String, Workload) {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database(name).await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 81, 1_000).await.unwrap().clients(3);
    let config = DaemonConfig::new(name).source("shop", &server.url(&db), &[]).sink("pg", sink, &[]).sink(
        "rows",
        &Postgres::shared().database(name).await.unwrap(),
        &["consistency: key"],
    );
    let daemon = Daemon::start(&config).unwrap();
    workload.run(Duration::from_secs(1)).await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    for (_, url, _) in &config.sinks {
        let equal = wait_equal(&pairs, &server.url(&db), url, PATIENCE).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    }
    (daemon, config, db, workload)
}

#[tokio::test]
async fn a_stopped_log_is_checked_and_each_damage_is_named_with_its_place() {
    let sink = Postgres::shared().database("oplog").await.unwrap();
    let (mut daemon, _, _, _) = filled("oplog", &sink).await;
    let (code, value) = log(&daemon, &["check"]).await;
    assert_eq!(code, Some(1));
    let text = value.to_string();
    assert!(text.contains("in use") && text.contains("stop the daemon"), "{text}");
    daemon.terminate(Duration::from_secs(30)).await.unwrap();

    let (code, value) = log(&daemon, &["check"]).await;
    assert_eq!(
        (code, &value["ok"], &value["found"]),
        (Some(0), &Value::Bool(true), &Value::from(0)),
        "{value}"
    );
    assert!(value["records"].as_u64().unwrap() > 1_000, "{value}");

    let dir = daemon.data_dir().join("log");
    let segment = files(&dir.join("topics"), ".log").remove(0);
    let length = fs::metadata(&segment).unwrap().len();
    flip(&segment, length / 2);
    let (code, value) = log(&daemon, &["check"]).await;
    assert_eq!((code, &value["ok"]), (Some(1), &Value::Bool(false)), "{value}");
    let finding = &value["findings"][0];
    assert_eq!(finding["file"], segment.display().to_string());
    assert_eq!(finding["severity"], "damage");
    let position = finding["position"].as_u64().unwrap();
    assert!(position <= length / 2 && finding["offset"].as_i64().unwrap() >= 0, "{finding}");
    assert!(finding["partition"].as_str().unwrap().starts_with("oplog."), "{finding}");
    assert!(finding["fix"].as_str().unwrap().contains("restore"), "{finding}");
    flip(&segment, length / 2);

    // What a crash leaves at an end is told apart.
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, [&whole[..], &whole[..100]].concat()).unwrap();
    let (code, value) = log(&daemon, &["check"]).await;
    assert_eq!((code, &value["findings"][0]["severity"]), (Some(0), &Value::from("unfinished")), "{value}");
    fs::write(&segment, &whole).unwrap();

    // A line of the journal before others.
    let journal = files(&dir, ".log").into_iter().find(|f| f.to_string_lossy().contains("journal-")).unwrap();
    let lines = fs::read(&journal).unwrap();
    let second = lines.iter().position(|b| *b == b'\n').unwrap() as u64 + 20;
    flip(&journal, second);
    let (code, value) = log(&daemon, &["check"]).await;
    let finding = &value["findings"][0];
    assert_eq!((code, &finding["file"]), (Some(1), &Value::from(journal.display().to_string())), "{value}");
    flip(&journal, second);

    let (code, value) = log(&daemon, &["check"]).await;
    assert_eq!((code, &value["found"]), (Some(0), &Value::from(0)), "{value}");
}

#[tokio::test]
async fn a_stopped_log_is_compacted_and_the_daemon_goes_on() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("opcomp").await.unwrap();
    server
        .sql(
            &db,
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(2000)); INSERT INTO t VALUES (1,'a'),(2,'b')",
        )
        .await
        .unwrap();
    let sink = Postgres::shared().database("opcomp").await.unwrap();
    let config = DaemonConfig::new("opcomp").source("shop", &server.url(&db), &[]).sink("pg", &sink, &[]).extra(
        "kafka:\n  topics: {watermark_retention: 1s, min_compaction_lag: 1s, delete_retention: 2s, settings: {min.cleanable.dirty.ratio: \"1\"}}",
    );
    let mut daemon = Daemon::start(&config).unwrap();
    let pairs = [TablePair::by_default(&db, "t")];
    let equal = async |daemon: &Daemon| {
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    equal(&daemon).await;
    for _ in 0..30 {
        server.sql(&db, "UPDATE t SET v = CONCAT(REPEAT('x', 1000), RAND())").await.unwrap();
    }
    equal(&daemon).await;
    daemon.terminate(Duration::from_secs(30)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (code, topics) = log(&daemon, &["compact"]).await;
    assert_eq!(code, Some(0), "{topics}");
    let topic = topics.as_array().unwrap().iter().find(|t| t["topic"] == format!("opcomp.{db}.t")).unwrap();
    let size = |when: &str| topic[when].as_u64().unwrap();
    assert!(size("bytes_after") * 3 < size("bytes_before"), "{topic}");
    let (code, value) = log(&daemon, &["check"]).await;
    assert_eq!((code, &value["found"]), (Some(0), &Value::from(0)), "{value}");
    daemon.start_again().unwrap();
    server.sql(&db, "UPDATE t SET v = 'after' WHERE id = 1; DELETE FROM t WHERE id = 2").await.unwrap();
    equal(&daemon).await;
}

/// Commits, and gives, an offset of a group of somebody else's.
fn group(brokers: &str, topic: &str, commit: Option<i64>) -> Option<i64> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "auditors").create().unwrap();
    let mut list = TopicPartitionList::new();
    if let Some(offset) = commit {
        list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
        return Some(offset);
    }
    list.add_partition(topic, 0);
    let committed = consumer.committed_offsets(list, Duration::from_secs(60)).unwrap();
    match committed.elements().first().map(|e| e.offset()) {
        Some(Offset::Offset(offset)) => Some(offset),
        _ => None,
    }
}

/// The key and value of the record at an offset, or the next one.
fn record_at(brokers: &str, topic: &str, offset: i64) -> (Vec<u8>, Vec<u8>) {
    use rdkafka::message::Message;
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "none").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    consumer.assign(&list).unwrap();
    let message = consumer.poll(Duration::from_secs(60)).expect("an answer").unwrap();
    (message.key().unwrap_or_default().to_vec(), message.payload().unwrap_or_default().to_vec())
}

#[tokio::test]
async fn an_embedded_log_moves_to_kafka_and_nothing_is_read_again() {
    let server = MysqlServer::shared(Family::MariaDb);
    let sink = Postgres::shared().database("opmove").await.unwrap();
    let (mut daemon, config, db, workload) = filled("opmove", &sink).await;
    let topic = format!("opmove.{db}.{}", caudal_tests::workload::TABLES[0]);
    let (embedded, place) = (daemon.brokers().to_owned(), topic.clone());
    // Somebody else has read most of a topic, which is full of markers.
    let (most, wanted) = tokio::task::spawn_blocking(move || {
        let end = caudal_tests::kafka::Offsets::of(&embedded).unwrap().end(&place).unwrap();
        let most = end * 9 / 10;
        let wanted = record_at(&embedded, &place, most);
        (group(&embedded, &place, Some(most)).unwrap(), wanted)
    })
    .await
    .unwrap();
    // A sink that has not read all: it goes on where it is, too.
    let ahead = config.clone();
    let mut behind = config.clone();
    behind.sinks.retain(|(name, _, _)| name != "rows");
    daemon.terminate(Duration::from_secs(30)).await.unwrap();
    daemon.reconfigure(&behind).unwrap();
    daemon.start_again().unwrap();
    workload.run(Duration::from_secs(1)).await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async |daemon: &Daemon, url: &str| {
        let equal = wait_equal(&pairs, &server.url(&db), url, PATIENCE).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    equal(&daemon, &sink.url).await;
    let before = Audit::of(daemon.brokers(), "opmove", &[&db]).await.unwrap();
    before.assert_clean();
    daemon.terminate(Duration::from_secs(30)).await.unwrap();
    // Changes that no log has yet.
    workload.run(Duration::from_secs(1)).await.unwrap();

    let kafka = Kafka::start(&[]).unwrap();
    let on_kafka = ahead.brokers(&kafka.bootstrap());
    let other = Daemon::prepare(&on_kafka).unwrap();
    let to = other.config_file().display().to_string();
    daemon.reconfigure(&config).unwrap();
    let (code, exported) = log(&daemon, &["export", "--to", &to]).await;
    assert_eq!(code, Some(0), "{exported}");
    assert_eq!(exported["sources"], serde_json::json!(["shop"]), "{exported}");
    assert_eq!(exported["sinks"], serde_json::json!(["pg", "rows"]), "{exported}");
    assert!(exported["records"].as_u64().unwrap() >= before.records, "{exported}");
    // What is there is as it was, offset by offset translated.
    let (brokers, place) = (kafka.bootstrap(), topic.clone());
    let (there, found) = tokio::task::spawn_blocking(move || {
        let there = group(&brokers, &place, None).expect("the group's offset moved");
        (there, record_at(&brokers, &place, there))
    })
    .await
    .unwrap();
    // All of it may lie before the first marker, if the machine was slow.
    assert!(there <= most, "markers are not copied: {there} for {most}");
    assert!(found == wanted, "the group reads on at the same record");
    let after = Audit::of(&kafka.bootstrap(), "opmove", &[&db]).await.unwrap();
    assert_eq!((after.records, after.reads), (before.records, before.reads));

    let mut moved = other;
    moved.start_again().unwrap();
    for (_, url, _) in &config.sinks {
        equal(&moved, url).await;
    }
    workload.run(Duration::from_secs(1)).await.unwrap();
    for (_, url, _) in &config.sinks {
        equal(&moved, url).await;
    }
    let text = moved.log();
    assert!(!text.contains("reading the table anew"), "a sink began anew:\n{text}");
    let after = Audit::of(&kafka.bootstrap(), "opmove", &[&db]).await.unwrap();
    after.assert_clean();
    assert_eq!(after.reads, before.reads, "the source was read again: {after}");
    assert!(after.records > before.records, "{after}");

    // A second export would mix two logs: it is refused.
    moved.terminate(Duration::from_secs(30)).await.unwrap();
    let (code, refused) = log(&daemon, &["export", "--to", &to]).await;
    assert_eq!(code, Some(1));
    assert!(refused.to_string().contains("not empty"), "{refused}");
}

#[test]
fn each_verb_says_how_it_is_used() {
    for verb in [
        &["log", "--help"][..],
        &["log", "check", "--help"],
        &["log", "compact", "--help"],
        &["log", "export", "--help"],
    ] {
        let said = Command::new(caudal_tests::daemon::binary().unwrap()).args(verb).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("Examples:") && text.contains("caudal log"), "{text}");
    }
}
