//! `delivery: at_least_once`: nothing is lost, whatever is repeated, and what a displaced daemon wrote never takes a sink back.

use std::process::Command;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{
    Audit, Daemon, DaemonConfig, Family, Kafka, MysqlServer, Postgres, TablePair, Workload, patience,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(180);
const LOOSE: &str = "  delivery: at_least_once";
const KEY: &str = "consistency: key";

/// With the embedded log `kafka:` is not written by the kit.
fn loose(config: DaemonConfig) -> DaemonConfig {
    if config.brokers.is_some() { config.kafka(LOOSE) } else { config.extra(&format!("kafka:\n{LOOSE}")) }
}

async fn killed(family: Family, name: &str, brokers: Option<String>, rounds: u64) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 71, 5_000).await.unwrap().clients(6);
    let prefix = format!("{name}{}", std::process::id());
    let mut config =
        DaemonConfig::new(&prefix).source("shop", &server.url(&db), &[]).sink("pg", &sink, &[KEY]);
    let pause = if brokers.is_some() { 3_000 } else { 300 };
    if let Some(brokers) = brokers {
        config = config.brokers(&brokers);
    }
    let writers = workload.start().await.unwrap();
    let mut daemon = Daemon::start(&loose(config)).unwrap();
    // Events, and not only rows that are read again after each kill.
    daemon.wait_log("all tables done", PATIENCE).await.unwrap();
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(pause + round * 391 % 1_500)).await;
        daemon.kill().unwrap();
        daemon.start_again().unwrap();
    }
    writers.stop().await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    // Each epoch by itself is in order; over a kill the last events come again.
    let audit = Audit::of(daemon.brokers(), &prefix, &[&db]).await.unwrap();
    assert!(audit.creates > 0 && audit.updates > 0, "{audit}");
}

#[tokio::test]
async fn killed_at_random_with_the_embedded_log_nothing_written_at_least_once_is_lost() {
    killed(Family::MariaDb, "loose_a", None, 8).await;
}

#[tokio::test]
async fn killed_at_random_with_kafka_nothing_written_at_least_once_is_lost() {
    killed(Family::Mysql97, "loose_b", Some(Kafka::shared().bootstrap()), 3).await;
}

/// A record of a topic: offset, key, value, place among all.
struct Seen {
    offset: i64,
    key: Vec<u8>,
    value: Vec<u8>,
    order: String,
}

fn read(brokers: &str, topic: &str) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "none")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut seen = Vec::new();
    while let Ok(message) = consumer.poll(Duration::from_secs(60)).expect("an answer") {
        let order = message.headers().into_iter().flat_map(Headers::iter).find(|h| h.key == "caudal.order");
        seen.push(Seen {
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
            order: order
                .map(|h| String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned())
                .unwrap_or_default(),
        });
    }
    seen
}

/// What a daemon that was frozen with a record in hand sends when it wakes.
fn send_late(brokers: &str, topic: &str, record: &Seen) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let headers =
        OwnedHeaders::new().insert(Header { key: "caudal.order", value: Some(record.order.as_str()) });
    let late = BaseRecord::to(topic).partition(0).key(&record.key).payload(&record.value).headers(headers);
    producer.send(late).map_err(|(e, _)| e).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
}

#[tokio::test]
async fn what_a_displaced_daemon_still_wrote_never_takes_a_sink_back() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("late").await.unwrap();
    server
        .sql(
            &db,
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20)); INSERT INTO t VALUES (1,'old'),(2,'two')",
        )
        .await
        .unwrap();
    let sink = Postgres::shared().database("late").await.unwrap();
    let config = DaemonConfig::new("late").source("shop", &server.url(&db), &[]).sink("pg", &sink, &[KEY]);
    let mut daemon = Daemon::start(&loose(config)).unwrap();
    let pairs = [TablePair::by_default(&db, "t")];
    let equal = async |daemon: &Daemon| {
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    equal(&daemon).await;
    server.sql(&db, "UPDATE t SET v = 'older' WHERE id = 1").await.unwrap();
    equal(&daemon).await;
    let topic = format!("late.{db}.t");
    let (brokers, name) = (daemon.brokers().to_owned(), topic.clone());
    let first = tokio::task::spawn_blocking(move || read(&brokers, &name)).await.unwrap();
    let offsets: Vec<i64> = first.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 1, 2], "no transaction, so no marker takes an offset");
    let places: Vec<&str> = first.iter().map(|record| record.order.as_str()).collect();
    assert_eq!(places, ["1/1", "1/2", "1/3"]);

    // Another daemon takes over; the row moves on.
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    server.sql(&db, "UPDATE t SET v = 'new' WHERE id = 1").await.unwrap();
    equal(&daemon).await;
    // The first one wakes: it had one more record in hand than it had sent.
    let mut late = first.into_iter().next_back().unwrap();
    late.order = "1/4".into();
    let (brokers, name) = (daemon.brokers().to_owned(), topic.clone());
    let late = tokio::task::spawn_blocking(move || {
        send_late(&brokers, &name, &late);
        late
    });
    let mut late = late.await.unwrap();
    server.sql(&db, "UPDATE t SET v = 'behind' WHERE id = 2").await.unwrap();
    equal(&daemon).await;
    // Nor one that started again since, and has read nothing of the second daemon.
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    daemon.wait_healthy(Duration::from_secs(60)).await.unwrap();
    late.order = "1/5".into();
    let (brokers, name) = (daemon.brokers().to_owned(), topic);
    tokio::task::spawn_blocking(move || send_late(&brokers, &name, &late)).await.unwrap();
    server.sql(&db, "UPDATE t SET v = 'last' WHERE id = 2").await.unwrap();
    equal(&daemon).await;
}

#[tokio::test]
async fn a_frozen_daemon_that_writes_at_least_once_is_fenced_and_the_sink_is_equal() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("loose_z").await.unwrap();
    let sink = Postgres::shared().database("loose_z").await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 72, 1_000).await.unwrap();
    let workload = workload.pause(Duration::from_millis(5));
    let prefix = format!("loose_z{}", std::process::id());
    let config = DaemonConfig::new(&prefix)
        .brokers(&Kafka::shared().bootstrap())
        .source("shop", &server.url(&db), &[])
        .sink("pg", &sink, &[KEY]);
    let config = loose(config);
    let first = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    let writers = workload.start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.signal("STOP").unwrap();
    let second = Daemon::start(&config).unwrap();
    let captured = async || {
        let (_, body) = second.get("/status").await?;
        let all: serde_json::Value = serde_json::from_str(&body)?;
        let found = all["pipelines"].as_array().and_then(|p| p.iter().find(|p| p["name"] == "capture/shop"));
        Ok(found.is_some_and(|p| p["events"].as_u64().unwrap_or(0) > 200))
    };
    patience::until("the second capturing", PATIENCE, Duration::from_millis(200), captured).await.unwrap();
    first.signal("CONT").unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    writers.stop().await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
    equal.unwrap_or_else(|e| {
        panic!("{e:#}\n--- first\n{}\n--- second\n{}", first.log_tail(), second.log_tail())
    });
}

#[tokio::test]
async fn whole_transactions_are_refused_where_events_are_written_at_least_once() {
    let sink = Postgres::shared().database("loose_c").await.unwrap();
    let config = DaemonConfig::new("loose_c").source("shop", "mysql://a:b@127.0.0.1:1/d", &[]).sink(
        "pg",
        &sink,
        &["consistency: transaction"],
    );
    let daemon = Daemon::prepare(&loose(config)).unwrap();
    for verb in [&["check", "--offline"][..], &["run"]] {
        let caudal = caudal_tests::daemon::binary().unwrap();
        let said =
            Command::new(caudal).args(verb).arg("--config").arg(daemon.config_file()).output().unwrap();
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(said.status.code(), Some(1), "{text}");
        assert!(text.contains("sinks.pg.consistency") && text.contains("consistency: key"), "{text}");
    }
}
