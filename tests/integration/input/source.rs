//! Sources that cannot be captured, or only with a warning.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Audit, Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair};

use super::{MENDED_WITHIN, assert_told, caudal, wait_state};

/// A database with one table of its own name, so that several of them can share a sink.
async fn table(server: &MysqlServer, name: &str) -> (String, TablePair) {
    let db = server.database(name).await.unwrap();
    let rows = (1..=500).map(|n| format!("({n},'row {n}')")).collect::<Vec<_>>().join(",");
    let make =
        format!("CREATE TABLE {name} (id INT PRIMARY KEY, v VARCHAR(50)); INSERT INTO {name} VALUES {rows}");
    server.sql(&db, &make).await.unwrap();
    let pair = TablePair::by_default(&db, name);
    (db, pair)
}

/// Changes that only the binlog tells.
async fn change(server: &MysqlServer, pair: &TablePair) {
    let t = &pair.table;
    let statements = format!(
        "INSERT INTO {t} SELECT id + 1000, v FROM {t} WHERE id <= 100; UPDATE {t} SET v = CONCAT(v, '!') WHERE id < 50; DELETE FROM {t} WHERE id BETWEEN 60 AND 70"
    );
    server.sql(&pair.database, &statements).await.unwrap();
}

/// A wrong password, a missing REPLICATION SLAVE, a missing SELECT: each parks its own source, and the others go on.
async fn accounts(family: Family, name: &str) {
    let server = MysqlServer::shared(family);
    let mut pairs = Vec::new();
    let mut config = DaemonConfig::new(&format!("{name}{}", std::process::id()));
    let troubles = [
        ("well", ""),
        ("pass", "ALL"),
        ("slave", "SELECT, REPLICATION CLIENT"),
        ("select", "REPLICATION SLAVE, REPLICATION CLIENT"),
    ];
    for (source, grants) in troubles {
        let (db, pair) = table(server, &format!("{name}_{source}")).await;
        let user = if grants.is_empty() { "cdc".to_owned() } else { format!("{name}_{source}") };
        if !grants.is_empty() {
            let real = if source == "pass" { "another" } else { "cdc-secret" };
            let account =
                format!("CREATE USER {user}@'%' IDENTIFIED BY '{real}'; GRANT {grants} ON *.* TO {user}@'%'");
            server.sql("mysql", &account).await.unwrap();
        }
        let password = if source == "pass" { "guessed-badly" } else { "cdc-secret" };
        config = config.source(source, &server.url_as(&user, password, &db), &[]);
        pairs.push(pair);
    }
    let sink = Postgres::shared().database(name).await.unwrap();
    let mut daemon = Daemon::start(&config.sink("pg", &sink, &[])).unwrap();

    let told = [
        ("capture/pass", ["sources.pass.url", "Access denied", "password"]),
        ("capture/slave", ["sources.slave.url", "REPLICATION SLAVE", "GRANT"]),
        ("capture/select", ["sources.select", "SELECT", "GRANT SELECT"]),
    ];
    for (pipeline, words) in told {
        wait_state(&daemon, pipeline, "parked", &words).await;
    }
    let checked = caudal(&daemon.config_file(), &["check"]);
    checked.assert(
        1,
        &["sources.pass", "Access denied", "REPLICATION SLAVE", "GRANT SELECT", "fix:", "3 to mend"],
    );

    // The source that is well goes on, by snapshot and by stream.
    let urls = (server.admin_url("mysql"), &sink.url);
    wait_equal(&pairs[..1], &urls.0, urls.1, Duration::from_secs(30))
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    change(server, &pairs[0]).await;
    wait_equal(&pairs[..1], &urls.0, urls.1, Duration::from_secs(30))
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    assert_ne!(daemon.get("/health").await.unwrap().0, 200, "three sources are parked");

    let mend = format!(
        "ALTER USER {name}_pass@'%' IDENTIFIED BY 'guessed-badly'; GRANT REPLICATION SLAVE ON *.* TO {name}_slave@'%'; GRANT SELECT ON *.* TO {name}_select@'%'"
    );
    server.sql("mysql", &mend).await.unwrap();
    wait_equal(&pairs, &urls.0, urls.1, MENDED_WITHIN)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    for pair in &pairs[1..] {
        change(server, pair).await;
    }
    wait_equal(&pairs, &urls.0, urls.1, Duration::from_secs(30))
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    daemon.wait_healthy(Duration::from_secs(10)).await.unwrap();
    assert_told(
        &daemon.log(),
        &["capture/pass", "capture/slave", "capture/select", "parked until that is mended"],
    );
}

#[tokio::test]
async fn a_mariadb_account_without_what_it_needs_parks_its_source_alone_until_that_is_mended() {
    accounts(Family::MariaDb, "acc_a").await;
}

#[tokio::test]
async fn a_mysql_account_without_what_it_needs_parks_its_source_alone_until_that_is_mended() {
    accounts(Family::Mysql97, "acc_b").await;
}

#[tokio::test]
async fn a_source_that_is_down_and_then_logs_statements_is_captured_when_it_logs_rows() {
    let server = MysqlServer::start(Family::MariaDb, &["--binlog-format=MIXED"]).unwrap();
    let (db, pair) = table(&server, "format").await;
    let sink = Postgres::shared().database("format").await.unwrap();
    server.service().stop(false).unwrap();
    let config = DaemonConfig::new("format").source("late", &server.url(&db), &[]).sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let port = server.port().to_string();
    wait_state(&daemon, "capture/late", "retrying", &["sources.late.url", &port, "Connection refused"]).await;
    caudal(&daemon.config_file(), &["check"])
        .assert(1, &["sources.late", &port, "Connection refused", "fix:"]);

    server.service().start_again().unwrap();
    wait_state(
        &daemon,
        "capture/late",
        "parked",
        &["sources.late.url", "binlog_format", "MIXED", "SET GLOBAL binlog_format = ROW"],
    )
    .await;
    caudal(&daemon.config_file(), &["check"])
        .assert(1, &["binlog_format", "MIXED", "SET GLOBAL binlog_format = ROW"]);

    server.sql(&db, "SET GLOBAL binlog_format = ROW").await.unwrap();
    change(&server, &pair).await;
    let pairs = [pair];
    wait_equal(&pairs, &server.url(&db), &sink.url, MENDED_WITHIN)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    change_more(&server, &pairs[0]).await;
    wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(30))
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    assert_told(&daemon.log(), &["trying again", "parked until that is mended"]);
}

async fn change_more(server: &MysqlServer, pair: &TablePair) {
    let t = &pair.table;
    let statements = format!(
        "INSERT INTO {t} VALUES (5000, 'new'); UPDATE {t} SET v = 'last' WHERE id = 100; DELETE FROM {t} WHERE id = 101"
    );
    server.sql(&pair.database, &statements).await.unwrap();
}

/// Without a key, whole rows are matched: equal rows must stay as many as they are.
async fn keyless(family: Family, name: &str) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let rows = (0..300)
        .map(|n| format!("({},'v{}',{})", n / 3, n / 3, if n % 2 == 0 { "NULL" } else { "1.5" }))
        .collect::<Vec<_>>()
        .join(",");
    server
        .sql(
            &db,
            &format!("CREATE TABLE bag (a INT, b VARCHAR(20), c DOUBLE); INSERT INTO bag VALUES {rows}"),
        )
        .await
        .unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let prefix = format!("{name}{}", std::process::id());
    let config = DaemonConfig::new(&prefix).source("all", &server.url(&db), &[]).sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    caudal(&daemon.config_file(), &["check"])
        .assert(0, &["warning", ".bag", "no primary key", "ADD PRIMARY KEY"]);
    let pairs = [TablePair::by_default(&db, "bag")];
    wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(40))
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    let changes = [
        "INSERT INTO bag VALUES (7, 'v7', NULL), (7, 'v7', NULL), (NULL, NULL, NULL)",
        "UPDATE bag SET b = 'changed' WHERE a = 5 LIMIT 1",
        "UPDATE bag SET c = 2.5 WHERE a BETWEEN 20 AND 30",
        "DELETE FROM bag WHERE a = 7 LIMIT 2",
        "DELETE FROM bag WHERE a IS NULL OR a BETWEEN 40 AND 45",
    ];
    server.sql(&db, &changes.join("; ")).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(30)).await;
    let equal = equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    assert_eq!(equal.source_rows, 300 + 3 - 2 - 19, "{equal}");
    let audit = Audit::of(daemon.brokers(), &prefix, &[&db]).await.unwrap();
    assert_eq!((audit.reads, audit.creates, audit.updates, audit.deletes), (300, 3, 34, 21), "{audit}");
    assert_told(&daemon.log(), &[]);
}

#[tokio::test]
async fn a_mariadb_table_without_a_key_is_warned_of_and_kept_equal() {
    keyless(Family::MariaDb, "bag_a").await;
}

#[tokio::test]
async fn a_mysql_table_without_a_key_is_warned_of_and_kept_equal() {
    keyless(Family::Mysql97, "bag_b").await;
}
