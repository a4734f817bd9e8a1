//! `caudal snapshot` on a running daemon, through the log and into the sink; tables that are added to a running configuration.

use std::process::Output;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair};

const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a verb beside the daemon.
async fn caudal(daemon: &Daemon, arguments: &[&str]) -> Output {
    let binary = caudal_tests::daemon::binary().unwrap();
    let mut command = tokio::process::Command::new("timeout");
    command.arg("300").arg(binary).args(arguments).arg("--config").arg(daemon.config_file());
    command.output().await.unwrap()
}

async fn unlogged(server: &MysqlServer, db: &str, statements: &str) {
    server.sql(db, &format!("SET SESSION sql_log_bin = 0; {statements}")).await.unwrap();
}

async fn repairs(family: Family, name: &str) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let rows: Vec<String> = (1..=2_000).map(|id| format!("({id}, 'name {id}')")).collect();
    let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT)";
    server.sql(&db, &format!("{table}; INSERT INTO items VALUES {}", rows.join(","))).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let config = DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &["consistency: transaction"]);
    let daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async || wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    equal().await;
    unlogged(server, &db, "DELETE FROM items WHERE id <= 50; UPDATE items SET name = 'x' WHERE id > 1990")
        .await;
    let done = caudal(&daemon, &["snapshot", "shop", "items", "--output", "json"]).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said} {}", String::from_utf8_lossy(&done.stderr));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let table = &said["tables"][0];
    assert_eq!((&table["deleted"], &table["delivered"]), (&50.into(), &10.into()), "{said}");
    equal().await;
    // The one that was deleted and the one that changed since, by a condition.
    unlogged(server, &db, "UPDATE items SET name = 'y' WHERE id IN (100, 200)").await;
    let done = caudal(&daemon, &["snapshot", "shop", "items", "--where", "id < 150"]).await;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("1 delivered, 0 deleted"), "{said}");
    let wrong = caudal(&daemon, &["snapshot", "shop", "nothing"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    let none = caudal(&daemon, &["snapshot", "nobody", "items"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("there are: shop"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_repairs_what_no_log_shows_mariadb() {
    repairs(Family::MariaDb, "reread_mariadb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_repairs_what_no_log_shows_mysql() {
    repairs(Family::Mysql97, "reread_mysql").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_added_is_read_while_the_others_stream_on() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("reread_added").await.unwrap();
    let rows: Vec<String> = (1..=500).map(|id| format!("({id})")).collect();
    let rows = rows.join(",");
    server
        .sql(&db, &format!("CREATE TABLE a (id BIGINT PRIMARY KEY); CREATE TABLE b (id BIGINT PRIMARY KEY); INSERT INTO a VALUES {rows}; INSERT INTO b VALUES {rows}"))
        .await
        .unwrap();
    let sink = Postgres::shared().database("reread_added").await.unwrap();
    let base = DaemonConfig::new(&format!("added{}", std::process::id()));
    let with = |tables: &[&str]| {
        base.clone().source("shop", &server.url(&db), tables).sink(
            "dash",
            &sink,
            &["consistency: transaction"],
        )
    };
    let mut daemon = Daemon::start(&with(&["a"])).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|p| p.table == "a");
    assert_eq!((a.len(), b.len()), (1, 1));
    wait_equal(&a, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    daemon.terminate(Duration::from_secs(30)).await.unwrap();
    server
        .sql(&db, "DELETE FROM a WHERE id < 10; INSERT INTO b VALUES (1000); DELETE FROM b WHERE id = 3")
        .await
        .unwrap();
    daemon.reconfigure(&with(&["a", "b"])).unwrap();
    daemon.start_again().unwrap();
    server.sql(&db, "INSERT INTO a VALUES (2000); UPDATE b SET id = 4000 WHERE id = 4").await.unwrap();
    wait_equal(&a, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
    wait_equal(&b, &server.url(&db), &sink.url, PATIENCE).await.unwrap();
}
