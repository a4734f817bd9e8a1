//! `caudal why`: one row's way, from the source's log to the sink, and what was set aside.

use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, Postgres, TablePair, patience};
use mysql_async::prelude::Queryable;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

async fn why(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = tokio::process::Command::new(caudal_tests::daemon::binary().unwrap());
    command.arg("why").args(arguments).args(["--output", "json", "--config"]).arg(daemon.config_file());
    let out = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code(), value)
}

#[tokio::test]
async fn a_rows_way_is_told_from_the_binlog_to_the_sinks_transaction_and_its_dead_letters() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("why").await.unwrap();
    server.sql(&db, "CREATE TABLE items (region VARCHAR(9), id BIGINT, n INT, PRIMARY KEY (region, id)); INSERT INTO items VALUES ('ñ', 1, 1), ('b', 1, 1)").await.unwrap();
    let sink = Postgres::shared().database("why").await.unwrap();
    let config = DaemonConfig::new(&format!("why{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .sink("dash", &sink, &["on_reject: dead_letter"]);
    let daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    let equal = async || {
        let waited = wait_equal(&pairs, &server.url(&db), &sink.url, PATIENCE).await;
        waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    equal().await;
    let mut conn = server.admin(&db).await.unwrap();
    conn.query_drop("UPDATE items SET n = 2 WHERE region = 'ñ'").await.unwrap();
    let gtid: Option<String> = conn.query_first("SELECT @@last_gtid").await.unwrap();
    equal().await;

    let (code, said) = why(&daemon, &["items", "ñ", "1"]).await;
    assert_eq!(code, Some(0), "{said}\n{}", daemon.log_tail());
    let ops: Vec<&str> =
        said["changes"].as_array().unwrap().iter().map(|c| c["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["r", "u"], "{said}");
    let last = &said["changes"][1];
    assert_eq!(last["gtid"].as_str().map(str::to_owned), gtid, "{said}");
    assert!(last["file"].as_str().is_some_and(|f| !f.is_empty()) && last["pos"].as_u64() > Some(3), "{said}");
    assert!(last["committed"].as_str().unwrap().starts_with("20"), "{said}");
    assert!(
        last["topic"].as_str().unwrap().ends_with(".items") && last["offset"].as_i64() > Some(1),
        "{said}"
    );
    let client = sink.connect().await.unwrap();
    let xmin: String =
        client.query_one("SELECT xmin::text FROM items WHERE region = 'ñ'", &[]).await.unwrap().get(0);
    let arrived = &said["sinks"][0];
    assert_eq!((&arrived["complete"], &arrived["applied_to"]), (&true.into(), &last["offset"]), "{said}");
    assert_eq!(arrived["row"]["transaction"], xmin, "{said}");
    assert_eq!(arrived["dead_letters"], Value::Array(Vec::new()));

    sink.sql("ALTER TABLE items ADD CONSTRAINT small CHECK (n < 100)").await.unwrap();
    conn.query_drop("UPDATE items SET n = 500 WHERE region = 'ñ'").await.unwrap();
    let refused =
        async || Ok(!why(&daemon, &["items", "ñ", "1"]).await.1["sinks"][0]["dead_letters"][0].is_null());
    let waited = patience::until("the dead letter", PATIENCE, Duration::from_millis(300), refused).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    let (_, said) = why(&daemon, &["items", "ñ", "1"]).await;
    let letter = &said["sinks"][0]["dead_letters"][0];
    assert!(letter["cause"].as_str().unwrap().contains("constraint small"), "{said}");
    let (_, other) = why(&daemon, &[&format!("{db}.items"), "b", "1"]).await;
    assert_eq!(
        (other["changes"].as_array().map(Vec::len), &other["sinks"][0]["dead_letters"]),
        (Some(1), &Value::Array(Vec::new()))
    );

    for (arguments, says) in [
        (&["items", "ñ"][..], "(region, id)"),
        (&["nothing", "1"], "items"),
        (&["items", "c", "1"], "\"changes\":[]"),
    ] {
        let (code, said) = why(&daemon, arguments).await;
        assert!(code == Some(1) && said.to_string().contains(says), "{said}");
    }
}
