//! A sink that was away for longer than the log keeps deletes.

use std::collections::BTreeSet;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{
    Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair, patience,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Delays of seconds in place of weeks.
const DELAYS: &str = "  topics:
    watermark_retention: 3s
    min_compaction_lag: 3s
    delete_retention: 6s
    settings: {segment.ms: \"500\", min.cleanable.dirty.ratio: \"0.01\"}";

/// The keys of all records that are left in a topic of one partition.
fn keys(brokers: &str, topic: &str) -> BTreeSet<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "none")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut keys = BTreeSet::new();
    loop {
        match consumer.poll(Duration::from_secs(60)).expect("an answer") {
            Ok(record) => keys.insert(String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned()),
            Err(KafkaError::PartitionEOF(_)) => return keys,
            Err(error) => panic!("{error}"),
        };
    }
}

/// Goes on writing, so that segments are closed, until nothing of the deleted rows is left in the topic, tombstones included.
async fn wait_forgotten(server: &MysqlServer, db: &str, brokers: &str, topic: &str) {
    let gone: Vec<String> = (10..20).map(|id| format!("{{\"id\":{id}}}")).collect();
    let forgotten = async || {
        server.sql(db, "UPDATE items SET name = CONCAT(name, 'x') WHERE id = 1").await?;
        let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
        let left = tokio::task::spawn_blocking(move || keys(&brokers, &topic)).await?;
        Ok(gone.iter().all(|key| !left.contains(key)))
    };
    let (limit, every) = (Duration::from_secs(180), Duration::from_millis(700));
    patience::until("compaction has removed the tombstones", limit, every, forgotten).await.unwrap();
}

async fn misses_no_delete(brokers: &str, name: &str) {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database(name).await.unwrap();
    let rows: Vec<String> = (1..=50).map(|id| format!("({id}, 'code {id}', 'name {id}')")).collect();
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, code VARCHAR(40) NOT NULL, name TEXT)";
    server.sql(&db, &format!("{table}; INSERT INTO items VALUES {}", rows.join(","))).await.unwrap();
    let whole = Postgres::shared().database(name).await.unwrap();
    let single = Postgres::shared().database(name).await.unwrap();
    let prefix = format!("{name}{}", std::process::id());
    let captured =
        DaemonConfig::new(&prefix).brokers(brokers).kafka(DELAYS).source("shop", &server.url(&db), &[]);
    let all = captured.clone().sink("whole", &whole, &["consistency: transaction"]).sink(
        "single",
        &single,
        &["consistency: key"],
    );
    let mut daemon = Daemon::start(&all).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async |sink: &PgDatabase| {
        wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(120)).await.unwrap();
    };
    equal(&whole).await;
    equal(&single).await;
    // Rows that nobody tells to go any more stand in the way of those that have their unique values now.
    whole.sql("ALTER TABLE items ADD UNIQUE (code)").await.unwrap();
    daemon.terminate(Duration::from_secs(30)).await.unwrap();

    daemon.reconfigure(&captured).unwrap();
    daemon.start_again().unwrap();
    server
        .sql(
            &db,
            "DELETE FROM items WHERE id BETWEEN 10 AND 19; UPDATE items SET name = 'new' WHERE id = 20;
             INSERT INTO items SELECT id + 90, CONCAT('code ', id - 10), 'moved in' FROM items WHERE id BETWEEN 20 AND 25",
        )
        .await
        .unwrap();
    wait_forgotten(server, &db, brokers, &format!("{prefix}.{db}.items")).await;
    daemon.terminate(Duration::from_secs(30)).await.unwrap();

    daemon.reconfigure(&all).unwrap();
    daemon.start_again().unwrap();
    equal(&whole).await;
    equal(&single).await;
    assert!(daemon.log().contains("reading the table anew"), "{}", daemon.log_tail());
    // Streaming goes on.
    server
        .sql(&db, "DELETE FROM items WHERE id = 30; INSERT INTO items VALUES (31000, 'z', 'z')")
        .await
        .unwrap();
    equal(&whole).await;
    equal(&single).await;
}

#[tokio::test]
async fn a_sink_that_missed_deletes_which_kafka_has_forgotten_sweeps_them_away() {
    let kafka = Kafka::start(&["log.cleaner.backoff.ms=200", "log.cleaner.threads=1"]).unwrap();
    misses_no_delete(&kafka.bootstrap(), "catchup_k").await;
}

#[tokio::test]
async fn a_sink_that_missed_deletes_which_the_embedded_log_has_forgotten_sweeps_them_away() {
    let dir = tempfile::tempdir().unwrap();
    let config = caudal_log::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: dir.path().join("log"),
        maintenance_interval: Duration::from_millis(200),
        ..caudal_log::Config::default()
    };
    let log = caudal_log::Log::start(config).await.unwrap();
    misses_no_delete(&log.address().to_string(), "catchup_e").await;
    log.shutdown().await;
}
