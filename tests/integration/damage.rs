//! The network between the source and the daemon damages, cuts, delays: the daemon starts anew by itself, and nothing is wrong,
//! missing or there twice.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::proxy::{Harm, Plan, Proxy};
use caudal_tests::{Audit, Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair, Workload};

async fn survives(family: Family, name: &str) {
    let server = MysqlServer::shared(family);
    let db = server.database(name).await.unwrap();
    let sink = Postgres::shared().database(name).await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 11, 500).await.unwrap().clients(4);
    let proxy = Proxy::start(&format!("127.0.0.1:{}", server.port()), 5).await.unwrap();
    let url = server.url(&db).replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let prefix = format!("{name}{}", std::process::id());
    let config = DaemonConfig::new(&prefix)
        .source("shop", &url, &[])
        .source_line("shop", "tls: {mode: disabled}")
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", &sink, &["consistency: transaction"]);
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    let writers = workload.start().await.unwrap();
    // One harm for each stream, at a place near its beginning; when it has ended, the next stream has another.
    let harms = Harm::ALL.into_iter().filter(|h| *h != Harm::Silence).collect();
    proxy.plan(Some(Plan { harms, within: 60_000, again: true }));
    // The stream that is open is not harmed: the daemon opens one that is when it starts anew.
    let before = daemon.log().len();
    tokio::time::timeout(Duration::from_secs(120), async {
        proxy.cut();
        while proxy.done().len() < 12 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("only {:?}:\n{}", proxy.done(), daemon.log_tail()));
    proxy.plan(None);
    let tally = writers.stop().await.unwrap();
    assert!(tally.inserted > 0 && tally.updated > 0 && tally.deleted > 0, "{tally:?}");
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&db), &sink.url, Duration::from_secs(180)).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    Audit::of(daemon.brokers(), &prefix, &[&db]).await.unwrap().assert_clean();
    let log = daemon.log();
    println!("{:?}", proxy.done());
    assert!(
        log[before..].contains("read the binlog") || log[before..].contains("closed the connection"),
        "errors are told"
    );
}

#[tokio::test]
async fn a_damaged_stream_of_mariadb_heals_without_gap_or_duplicate() {
    survives(Family::MariaDb, "damage_a").await;
}

#[tokio::test]
async fn a_damaged_stream_of_mysql_heals_without_gap_or_duplicate() {
    survives(Family::Mysql97, "damage_b").await;
}
