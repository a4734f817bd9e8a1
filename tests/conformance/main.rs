//! Debezium and Caudal on the same server and workload: their topics, keys, partitions, values and headers are compared record by
//! record. What differs must be on the list of `deviations`, which the user guide explains.

// A test that can't go on says so by panicking.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs)]

mod compare;
mod debezium;
mod deviations;
mod json;
mod topics;

use std::time::Duration;

use caudal_tests::patience::until;
use caudal_tests::{Daemon, DaemonConfig, Family, Kafka, MysqlServer};
use compare::compare;
use debezium::Debezium;
use topics::{Topics, read};

/// Generous: two JVMs start, and other tests run beside.
const PATIENCE: Duration = Duration::from_secs(240);

/// The statements of a file, with `@base` in place.
fn script(text: &str, base: u32) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("--"));
    lines.collect::<Vec<_>>().join("\n").replace("@base", &base.to_string())
}

async fn run(server: &MysqlServer, database: &str, files: &[&str], base: u32) {
    for file in files {
        let zone = "SET time_zone = '+00:00', NAMES utf8mb4;";
        server.sql(database, &format!("{zone}\n{}", script(file, base))).await.unwrap();
    }
}

/// Snapshot rows so far, of all topics.
fn reads(topics: &Topics) -> usize {
    topics.values().flatten().filter(|record| record.is_read()).count()
}

/// Whether the row with this number has come in the table that marks ends.
fn reached(topics: &Topics, database: &str, prefix: &str, number: u32) -> bool {
    let ends = topics.get(&format!("{prefix}.{database}.ends"));
    ends.is_some_and(|records| records.iter().any(|r| r.key() == format!("{{\"id\":{number}}}")))
}

async fn are_the_same(family: Family) {
    let (own_tables, own_rows) = match family {
        Family::MariaDb => (include_str!("workload/mariadb.sql"), include_str!("workload/mariadb_rows.sql")),
        _ => (include_str!("workload/mysql.sql"), include_str!("workload/mysql_rows.sql")),
    };
    let (tables, rows) = (include_str!("workload/tables.sql"), include_str!("workload/rows.sql"));
    let server = MysqlServer::start(family, &[]).unwrap();
    let kafka = Kafka::shared();
    let database = server.database("shop").await.unwrap();
    let prefix = format!("conform_{family:?}").to_lowercase();
    run(&server, &database, &[tables, own_tables, rows, own_rows], 0).await;

    let debezium = Debezium::start(&server, &database, &prefix, kafka).unwrap();
    let connector = if family == Family::MariaDb { "mariadb" } else { "mysql" };
    let records = "profile: debezium-3.5\n  transactions: true\n  heartbeats: 1s\n  notifications: {enabled: true}\n  topics: {partitions: 3}";
    let config = DaemonConfig::new(&prefix)
        .source_of("all", connector, &server.url(&database), &[])
        .extra(&format!("kafka:\n  {records}"));
    let daemon = Daemon::start_healthy(&config).await.unwrap();

    let (theirs, ours) = (kafka.bootstrap(), daemon.brokers().to_owned());
    let snapshot_done = async || {
        let log = read(&theirs, &prefix).await?;
        let last = log.values().flatten().any(|r| r.value().contains("\"snapshot\":\"last\""));
        Ok(last && reads(&read(&ours, &prefix).await?) == reads(&log))
    };
    let pause = Duration::from_millis(300);
    let told = until("both snapshots", PATIENCE, pause, snapshot_done).await;
    told.unwrap_or_else(|e| panic!("{e:#}\n{}\n{}", debezium.errors(), daemon.log_tail()));

    run(&server, &database, &[rows, own_rows, include_str!("workload/stream.sql")], 1000).await;
    for number in [1, 2] {
        server.sql(&database, &format!("INSERT INTO ends VALUES ({number})")).await.unwrap();
        let both = async || {
            Ok(reached(&read(&theirs, &prefix).await?, &database, &prefix, number)
                && reached(&read(&ours, &prefix).await?, &database, &prefix, number))
        };
        let told = until("the last row in both logs", PATIENCE, pause, both).await;
        told.unwrap_or_else(|e| panic!("{e:#}\n{}\n{}", debezium.errors(), daemon.log_tail()));
    }
    let ended = async |brokers: &str| {
        let log = read(brokers, &prefix).await?;
        let last = log.get(&format!("{prefix}.transaction")).and_then(|announced| announced.last());
        anyhow::Ok(last.is_some_and(|record| record.value().contains("END")))
    };
    let both = async || Ok(ended(&theirs).await? && ended(&ours).await?);
    until("the end of the last transaction", PATIENCE, pause, both).await.unwrap();

    let report =
        compare(&prefix, &read(&theirs, &prefix).await.unwrap(), &read(&ours, &prefix).await.unwrap());
    println!("\nDebezium 3.5 and Caudal (profile debezium-3.5), {family:?}\n{report}");
    assert!(report.compared() > 100, "{report}");
    assert_eq!(report.unlisted, 0, "{report}");
}

#[tokio::test]
async fn mysql_topics_are_debeziums() {
    are_the_same(Family::Mysql97).await;
}

#[tokio::test]
async fn mariadb_topics_are_debeziums() {
    are_the_same(Family::MariaDb).await;
}

#[test]
fn every_deviation_is_explained_to_users() {
    let guide = include_str!("../../docs/formats.md");
    for (name, _) in deviations::ALL {
        assert!(guide.contains(&format!("| `{name}` |")), "docs/formats.md does not explain {name}");
    }
}
