//! Exactly once where it is hard: the answer to a commit is lost, a table gets another key.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::kafka_proxy::{KafkaProxy, Loss};
use caudal_tests::{
    Audit, Daemon, DaemonConfig, Family, Kafka, MysqlServer, Postgres, TablePair, Workload, patience,
};

const PATIENCE: Duration = Duration::from_secs(180);

/// Clients write while ends of transactions are lost; in the end nothing is missing, and nothing is there twice.
async fn unknown_outcomes(name: &str, proxy: &KafkaProxy, brokers: &str) {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 61, 500).await.unwrap().clients(3);
    let prefix = format!("{name}{}", std::process::id());
    let config = DaemonConfig::new(&prefix)
        .brokers(&proxy.address())
        .kafka("  transaction_timeout: 10s")
        .source("shop", &server.url(&db), &[])
        .sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async || {
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    equal().await;
    let writers = workload.pause(Duration::from_millis(20)).start().await.unwrap();
    proxy.lose(Loss::Some);
    let lost = async || Ok(proxy.lost().0 >= 8 && proxy.lost().1 >= 8);
    patience::until("lost requests and answers", PATIENCE, Duration::from_millis(100), lost).await.unwrap();
    // Longer than one call waits: the commit is called again, until it is answered.
    proxy.lose(Loss::Answers);
    tokio::time::sleep(Duration::from_secs(12)).await;
    proxy.lose(Loss::Nothing);
    writers.stop().await.unwrap();
    equal().await;
    let audit = Audit::of(brokers, &prefix, &[&db]).await.unwrap();
    audit.assert_clean();
    assert!(audit.updates > 0, "{audit}");
}

#[tokio::test]
async fn a_commit_whose_answer_kafka_lost_is_settled_and_neither_doubled_nor_missing() {
    let proxy = KafkaProxy::listen().await.unwrap();
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", proxy.address());
    // A broker talks to itself by what it advertises: it must find itself while it starts.
    let port = caudal_tests::ports::free_port().unwrap();
    proxy.to(port);
    let kafka = Kafka::start_at(port, &[&advertised]).unwrap();
    unknown_outcomes("lost_k", &proxy, &kafka.bootstrap()).await;
}

#[tokio::test]
async fn a_commit_whose_answer_the_embedded_log_lost_is_settled_and_neither_doubled_nor_missing() {
    let proxy = KafkaProxy::listen().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = caudal_log::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        advertised: Some(proxy.address()),
        data_dir: dir.path().join("log"),
        ..caudal_log::Config::default()
    };
    let log = caudal_log::Log::start(config).await.unwrap();
    proxy.to(log.address().port());
    unknown_outcomes("lost_e", &proxy, &log.address().to_string()).await;
    log.shutdown().await;
}

/// A table's keys change what they are made of: its rows go on in a topic of their own, and the sink has just the rows that are there.
async fn another_key(family: Family, name: &str, brokers: Option<String>) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let rows: Vec<String> = (1..=40).map(|id| format!("({id}, 'code {id}', 'name {id}')")).collect();
    server
        .sql(
            &db,
            &format!(
                "CREATE TABLE items (id BIGINT NOT NULL PRIMARY KEY, code VARCHAR(40) NOT NULL, name TEXT);
                 INSERT INTO items VALUES {}",
                rows.join(",")
            ),
        )
        .await
        .unwrap();
    let prefix = format!("{name}{}", std::process::id());
    let mut config = DaemonConfig::new(&prefix).source("shop", &server.url(&db), &[]).sink("pg", &sink, &[]);
    if let Some(brokers) = brokers {
        config = config.brokers(&brokers);
    }
    let mut daemon = Daemon::start(&config).unwrap();
    let pairs = [TablePair::by_default(&db, "items")];
    let equal = async |daemon: &Daemon| {
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    equal(&daemon).await;
    server
        .sql(
            &db,
            "ALTER TABLE items DROP PRIMARY KEY, ADD PRIMARY KEY (code);
             UPDATE items SET id = id + 1000, name = 'moved' WHERE id <= 10; DELETE FROM items WHERE id BETWEEN 11 AND 15;
             INSERT INTO items VALUES (20, 'again 20', 'the id of another row')",
        )
        .await
        .unwrap();
    equal(&daemon).await;
    let topics = caudal_tests::kafka::Offsets::of(daemon.brokers()).unwrap();
    let old = format!("{prefix}.{db}.items");
    let found = topics.topics(&old).unwrap();
    assert!(found.contains(&format!("{old}.g2")), "{found:?}");
    // The old one gets nothing more, whatever happens: a restart goes on in the new one.
    let end = topics.end(&old).unwrap();
    daemon.kill().unwrap();
    daemon.start_again().unwrap();
    server
        .sql(&db, "UPDATE items SET name = 'after' WHERE id = 20; DELETE FROM items WHERE code = 'code 30'")
        .await
        .unwrap();
    equal(&daemon).await;
    assert_eq!(caudal_tests::kafka::Offsets::of(daemon.brokers()).unwrap().end(&old).unwrap(), end);
}

#[tokio::test]
async fn another_primary_key_starts_another_topic_of_a_mariadb_table() {
    another_key(Family::MariaDb, "rekey_a", None).await;
}

#[tokio::test]
async fn another_primary_key_starts_another_topic_of_a_mysql_table_over_kafka() {
    another_key(Family::Mysql97, "rekey_b", Some(Kafka::shared().bootstrap())).await;
}
