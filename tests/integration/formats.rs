//! The same rows through each form of records: what a sink can read reaches it unchanged, and what it cannot is said.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use caudal_tests::compare::wait_equal;
use caudal_tests::kafka::{Consumed, consume, produce};
use caudal_tests::patience::until;
use caudal_tests::{Daemon, DaemonConfig, Family, Kafka, MysqlServer, Postgres, TablePair};

const ROWS: &str = "CREATE TABLE t (id INT PRIMARY KEY, u BIGINT UNSIGNED, f TINYINT(1), d DECIMAL(12,3), x DOUBLE, v VARCHAR(20), b VARBINARY(9), \
     ts TIMESTAMP(3) NULL, dt DATETIME(6), j JSON); \
     INSERT INTO t VALUES (1, 18446744073709551615, 1, -1.5, 1e300, '🦫', X'00FF', '2026-02-03 04:05:06.7', '2026-02-03 04:05:06.000007', '[1]'), \
     (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (3, 1, 0, 0, 0, '', X'', NULL, NULL, '{}')";

#[tokio::test]
async fn every_readable_form_carries_rows_from_source_to_sink() {
    let server = MysqlServer::shared(Family::MariaDb);
    let forms = [
        "format: json-schema",
        "format: caudal",
        "profile: debezium-3.5\n  transactions: true\n  heartbeats: 1s",
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let db = server.database("forms").await.unwrap();
        server.sql(&db, ROWS).await.unwrap();
        let sink = Postgres::shared().database("forms").await.unwrap();
        let config = DaemonConfig::new(&format!("forms{number}"))
            .source("all", &server.url(&db), &[])
            .sink("pg", &sink, &[])
            .extra(&format!("kafka:\n  {form}"));
        let daemon = Daemon::start_healthy(&config).await.unwrap();
        let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
        let limit = Duration::from_secs(60);
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, limit).await;
        equal.unwrap_or_else(|e| panic!("{form}, by snapshot: {e:#}\n{}", daemon.log_tail()));
        let changes = "UPDATE t SET v = 'new' WHERE id = 1; UPDATE t SET id = 9 WHERE id = 2; DELETE FROM t WHERE id = 3; \
                       INSERT INTO t SELECT id + 20, u, f, d, x, v, b, ts, dt, j FROM t";
        server.sql(&db, changes).await.unwrap();
        let equal = wait_equal(&pairs, &server.url(&db), &sink.url, limit).await;
        equal.unwrap_or_else(|e| panic!("{form}, by stream: {e:#}\n{}", daemon.log_tail()));
    }
}

#[tokio::test]
async fn a_sink_over_a_form_that_it_cannot_read_parks_and_says_which_to_take() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("flat").await.unwrap();
    let sink = Postgres::shared().database("flat").await.unwrap();
    let config = DaemonConfig::new("flat")
        .source("all", &server.url(&db), &[])
        .sink("pg", &sink, &[])
        .extra("kafka:\n  format: flat");
    let daemon = Daemon::start(&config).unwrap();
    daemon.wait_log("cannot read records of the format `flat`", Duration::from_secs(60)).await.unwrap();
    daemon.wait_log("kafka.format", Duration::from_secs(20)).await.unwrap();
}

/// A row by snapshot; one that is made, changed, moved to another key and deleted by stream.
const LIFE: &str = "BEGIN; INSERT INTO t VALUES (2, -0.25, '2026-02-03 04:05:06', 'x', 'two', NULL); UPDATE t SET v = 'zwei', d = NULL WHERE id = 2; COMMIT; \
     UPDATE t SET id = 3 WHERE id = 2; DELETE FROM t WHERE id = 3";

/// What lies in the topic of a table with that life, in a form.
async fn told(format: &str, records: usize) -> Vec<Consumed> {
    // MariaDB takes JSON for text.
    let server = MysqlServer::shared(Family::Mysql97);
    let name = format!("told_{}", format.replace('-', "_"));
    let db = server.database(&name).await.unwrap();
    let table = "CREATE TABLE t (id INT PRIMARY KEY, d DECIMAL(6,2), at DATETIME, s SET('x','y'), v VARCHAR(20), j JSON); \
                 INSERT INTO t VALUES (1, 1.50, '2026-02-03 04:05:06', 'x,y', 'one', '{\"a\": 1}')";
    server.sql(&db, table).await.unwrap();
    let config = DaemonConfig::new(&name)
        .source("all", &server.url(&db), &[])
        .extra(&format!("kafka:\n  format: {format}"));
    let daemon = Daemon::start_healthy(&config).await.unwrap();
    let topic = format!("{name}.{db}.t");
    let (limit, pause) = (Duration::from_secs(90), Duration::from_millis(200));
    let reached = async |wanted: usize| {
        let there = async || Ok(consume(daemon.brokers(), &topic).await?.len() >= wanted);
        let waited = until(&format!("{wanted} records in {format}"), limit, pause, there).await;
        waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    reached(1).await;
    server.sql(&db, LIFE).await.unwrap();
    reached(records).await;
    let all = consume(daemon.brokers(), &topic).await.unwrap();
    assert_eq!(all.len(), records, "{format}: {:?}", all.iter().map(Consumed::json).collect::<Vec<_>>());
    all
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[tokio::test]
async fn flat_rows_carry_the_operation_and_whether_they_are_deleted() {
    let all = told("flat", 8).await;
    let short = |record: &Consumed| {
        let value = record.json();
        let text = |name: &str| value[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {}", record.key(), text("__op"), text("__deleted"), text("v"))
    };
    let wanted = [
        r#"{"id":1} r false one"#,
        r#"{"id":2} c false two"#,
        r#"{"id":2} u false zwei"#,
        r#"{"id":2} d true zwei"#,
        r#"{"id":2} - - -"#,
        r#"{"id":3} c false zwei"#,
        r#"{"id":3} d true zwei"#,
        r#"{"id":3} - - -"#,
    ];
    assert_eq!(all.iter().map(short).collect::<Vec<_>>(), wanted);
    let columns = ["__deleted", "__op", "__source_ts_ms", "at", "d", "id", "j", "s", "v"];
    assert_eq!(keys(&all[0].json()), BTreeSet::from(columns));
    assert!(all[1].json()["__source_ts_ms"].is_i64() && all[4].value.is_none());
}

#[tokio::test]
async fn maxwells_records_have_its_documented_members_and_values() {
    let all = told("maxwell", 5).await;
    let values: Vec<Value> = all.iter().map(Consumed::json).collect();
    let types: Vec<&str> = values.iter().filter_map(|v| v["type"].as_str()).collect();
    // A change of key is one update, and a deletion has no tombstone.
    assert_eq!(types, ["bootstrap-insert", "insert", "update", "update", "delete"], "{values:#?}");
    let db = values[1]["database"].clone();
    assert_eq!(
        serde_json::from_str::<Value>(&all[1].key()).unwrap(),
        json!({"database": db, "table": "t", "pk.id": 2})
    );
    // Row by row: the first of its transaction, the last of it, and one that is alone.
    let common = ["data", "database", "gtid", "position", "table", "ts", "type", "xid"];
    let with = |more: &[&'static str]| -> BTreeSet<&str> { common.iter().chain(more).copied().collect() };
    assert_eq!(keys(&values[1]), with(&["xoffset"]));
    assert_eq!(keys(&values[2]), with(&["commit", "old"]));
    assert_eq!(keys(&values[3]), with(&["commit", "old"]));
    assert_eq!(keys(&values[4]), with(&["commit"]));
    for value in &values[1..] {
        assert_eq!((&value["table"], &value["database"]), (&json!("t"), &db));
        assert!(
            value["ts"].as_i64() > Some(1_700_000_000) && value["ts"].as_i64() < Some(100_000_000_000),
            "seconds: {value}"
        );
        assert!(value["xid"].is_u64() && value["position"].as_str().unwrap().contains(':'), "{value}");
    }
    assert_eq!(values[1]["xid"], values[2]["xid"], "one transaction");
    assert_ne!(values[2]["xid"], values[3]["xid"]);
    // Values: decimals are numbers, moments text, sets lists, JSON stands inline.
    let first =
        json!({"id": 1, "d": 1.5, "at": "2026-02-03 04:05:06", "s": ["x", "y"], "v": "one", "j": {"a": 1}});
    assert_eq!(values[0]["data"], first);
    assert_eq!(values[2]["data"]["v"], "zwei");
    assert_eq!(values[2]["old"], json!({"v": "two", "d": -0.25}), "what changed, as it was");
    assert_eq!((&values[3]["old"], &values[3]["data"]["id"]), (&json!({"id": 2}), &json!(3)));
    assert_eq!(values[4]["data"]["id"], 3, "the row as it was");
}

#[tokio::test]
async fn cloudevents_have_the_required_attributes_one_id_each_and_debeziums_own() {
    let all = told("cloudevents", 8).await;
    let events: Vec<Value> = all.iter().filter(|r| r.value.is_some()).map(Consumed::json).collect();
    let operations: Vec<&str> = events.iter().filter_map(|e| e["iodebeziumop"].as_str()).collect();
    assert_eq!(operations, ["r", "c", "u", "d", "c", "d"]);
    for event in &events {
        assert_eq!(
            (&event["specversion"], &event["datacontenttype"]),
            (&json!("1.0"), &json!("application/json"))
        );
        assert_eq!(event["type"], "io.debezium.connector.mysql.DataChangeEvent");
        assert!(event["source"].as_str().unwrap().starts_with("/debezium/mysql/told_cloudevents"), "{event}");
        let time = event["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        // Attributes are lower-case letters and digits, and text, numbers or null.
        for (name, value) in event.as_object().unwrap().iter().filter(|(name, _)| *name != "data") {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{name}");
            assert!(!value.is_object() && !value.is_array(), "{name}: {value}");
        }
    }
    let ids: BTreeSet<String> = events.iter().map(|e| format!("{}{}", e["id"], e["iodebeziumop"])).collect();
    assert_eq!(ids.len(), events.len(), "an id names one event: {ids:?}");
    let update = &events[2]["data"];
    assert_eq!((&update["before"]["v"], &update["after"]["v"]), (&json!("two"), &json!("zwei")));
    assert!(events[1]["data"]["before"].is_null() && events[3]["data"]["after"].is_null());
}

/// Whether a value is what its Connect schema says; else where it is not.
fn fits(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if value.is_null() {
        return if schema["optional"] == true { Ok(()) } else { Err(format!("{at} is null")) };
    }
    let kind = schema["type"].as_str().unwrap_or_default();
    let right = match kind {
        "struct" => {
            let fields = schema["fields"].as_array().ok_or(format!("{at} has no fields"))?;
            let names: BTreeSet<&str> = fields.iter().filter_map(|f| f["field"].as_str()).collect();
            if names != keys(value) {
                return Err(format!("{at} has {:?}, not {names:?}", keys(value)));
            }
            let each = |field: &Value| {
                let name = field["field"].as_str().unwrap_or_default();
                fits(field, &value[name], &format!("{at}.{name}"))
            };
            return fields.iter().try_for_each(each);
        }
        "int16" | "int32" | "int64" => value.is_i64(),
        "float" | "double" => value.is_number(),
        "boolean" => value.is_boolean(),
        "string" | "bytes" => value.is_string(),
        _ => false,
    };
    if right { Ok(()) } else { Err(format!("{at} is no {kind}: {value}")) }
}

#[tokio::test]
async fn json_with_schemas_fits_its_schema_to_the_last_field() {
    let all = told("json-schema", 8).await;
    for record in &all {
        let key: Value = serde_json::from_str(&record.key()).unwrap();
        fits(&key["schema"], &key["payload"], "key").unwrap();
        if record.value.is_some() {
            let value = record.json();
            fits(&value["schema"], &value["payload"], "value").unwrap();
            assert!(
                value["schema"]["name"].as_str().unwrap().ends_with(".t.Envelope"),
                "{}",
                value["schema"]
            );
        }
    }
    assert_eq!(all[2].json()["payload"]["op"], "u");
}

#[tokio::test]
async fn a_column_that_the_sink_leaves_out_is_not_even_decoded() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("left_out").await.unwrap();
    let table =
        "CREATE TABLE items (id INT PRIMARY KEY, n INT, note TEXT); INSERT INTO items VALUES (1, 10, 'x')";
    server.sql(&db, table).await.unwrap();
    let sink = Postgres::shared().database("left_out").await.unwrap();
    let prefix = format!("left_out{}", std::process::id());
    let config = DaemonConfig::new(&prefix)
        .source("shop", &server.url(&db), &[])
        .sink("pg", &sink, &["consistency: key", "tables: {items: {columns: ['!note']}}"])
        .brokers(&Kafka::shared().bootstrap());
    let daemon = Daemon::start(&config).unwrap();
    let client = sink.connect().await.unwrap();
    let arrive = async |wanted: &str| {
        let told = "SELECT coalesce(string_agg(id || '=' || n, ' ' ORDER BY id), '') FROM items";
        let there =
            async || Ok(client.query_one(told, &[]).await.is_ok_and(|row| row.get::<_, String>(0) == wanted));
        let waited = until(wanted, Duration::from_secs(90), Duration::from_millis(100), there).await;
        waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    };
    arrive("1=10").await;
    // What no text is, in the place of one.
    let topic = format!("{prefix}.{db}.items");
    let record = consume(daemon.brokers(), &topic).await.unwrap().remove(0);
    let mut value = record.json();
    (value["after"]["id"], value["after"]["note"]) = (2.into(), json!({"no": "text"}));
    let key = record.key().replace("\"id\":1", "\"id\":2");
    assert_ne!(key, record.key());
    produce(daemon.brokers(), &topic, &key, &value.to_string()).await.unwrap();
    server.sql(&db, "INSERT INTO items VALUES (3, 30, 'z')").await.unwrap();
    arrive("1=10 2=10 3=30").await;
}
