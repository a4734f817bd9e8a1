//! The capture sink against real brokers (`CAUDAL_TEST_KAFKA`).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod conformance;
mod crash;
mod kit;
mod loose;

use caudal_core::{Ddl, Fault, Op, Position, Severity, TableId};
use caudal_kafka::{CaptureOptions, Log};
use kit::{Changes, brokers, config, log, open, prefix, put, read, table, values, watermarks};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn token(position: Option<Position>) -> Option<String> {
    position.and_then(|p| p.source().map(|s| s.token.clone()))
}

fn produce(brokers: &str, topic: &str, key: &str, value: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    producer.send(BaseRecord::to(topic).partition(0).key(key).payload(value)).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// A transaction with records in it, left open: a writer that was killed before its commit.
fn open_transaction(brokers: &str, id: &str, records: &[(&str, i32, &str, &str)]) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    for (topic, partition, key, value) in records {
        producer.send(BaseRecord::to(topic).partition(*partition).key(*key).payload(*value)).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    producer
}

#[tokio::test]
async fn a_commit_holds_data_schema_watermark_and_position() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let orders = table("orders", true);
    let mut writer = open(&log, "plex").await;
    assert!(writer.resume().await.unwrap().is_none());
    let batch = Changes::new()
        .insert(&orders, 1)
        .insert(&orders, 2)
        .event(&orders, Op::Update, Some(1), Some(1))
        .delete(&orders, 2)
        .boundary()
        .build("p1");
    let position = put(writer.as_mut(), batch).await.unwrap();
    assert_eq!(token(Some(position)).as_deref(), Some("p1"));

    let topic = format!("{prefix}.shop.orders");
    let data = read(&brokers, &topic, 0);
    let ops: Vec<_> = data.iter().map(|r| r.value.as_ref().map(|v| v["op"].clone())).collect();
    assert_eq!(ops, [Some(json!("c")), Some(json!("c")), Some(json!("u")), Some(json!("d")), None]);
    assert_eq!(data[4].key.as_deref(), Some(r#"{"id":2}"#));

    let marks = watermarks(&brokers, &prefix);
    assert_eq!(marks.len(), 1);
    assert_eq!(marks[0]["number"], 1);
    assert_eq!(marks[0]["full"], true);
    assert_eq!(marks[0]["position"], "p1-boundary");
    assert_eq!(marks[0]["ends"][&topic]["ends"], json!([[0, 5]]));
    assert_ne!(marks[0]["ends"][&topic]["id"], json!(uuid::Uuid::nil()), "the broker tells topic ids");

    let positions = read(&brokers, &format!("caudal.{prefix}.positions"), 0);
    let position = &values(&positions, "plex")[0];
    assert_eq!((&position["token"], &position["watermark"]), (&json!("p1"), &json!(1)));
    assert_eq!(position["touched"], json!({}));
    let schemas = read(&brokers, &format!("caudal.{prefix}.schemas"), 0);
    let schema = &values(&schemas, &format!("{topic}/1"))[0];
    assert_eq!(schema["from"], json!([[0, 0]]));
    assert_eq!(schemas.len(), 1);
}

#[tokio::test]
async fn events_behind_the_boundary_belong_to_the_next_watermark() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let (orders, lines) = (table("orders", true), table("lines", false));
    let mut writer = open(&log, "plex").await;
    // Offsets 0, 1 of orders: no boundary yet.
    put(writer.as_mut(), Changes::new().insert(&orders, 1).insert(&orders, 2).build("p1")).await.unwrap();
    assert!(read(&brokers, &format!("caudal.{prefix}.watermarks"), 0).is_empty());
    let topic = format!("{prefix}.shop.orders");
    let touched = |n: usize| {
        let positions = read(&brokers, &format!("caudal.{prefix}.positions"), 0);
        values(&positions, "plex")[n]["touched"].clone()
    };
    assert_eq!(touched(0), json!({ &topic: [[0, 2]] }));
    // 2 is the marker; 3 lies before the boundary, 4 behind it. lines has its only record before it.
    let batch = Changes::new().insert(&orders, 3).insert(&lines, 1).boundary().insert(&orders, 4).build("p2");
    put(writer.as_mut(), batch).await.unwrap();
    let mark = watermarks(&brokers, &prefix).pop().unwrap();
    assert_eq!(mark["ends"][&topic]["ends"], json!([[0, 4]]));
    assert_eq!(mark["ends"][&format!("{prefix}.shop.lines")]["ends"], json!([[0, 1]]));
    assert_eq!(touched(1), json!({ &topic: [[0, 5]] }));
    // After a restart the stray record is still owed: it is in the next watermark though nothing new touches its topic.
    drop(writer);
    let mut writer = open(&log, "plex").await;
    assert_eq!(token(writer.resume().await.unwrap()).as_deref(), Some("p2"));
    put(writer.as_mut(), Changes::new().insert(&lines, 2).boundary().build("p3")).await.unwrap();
    let mark = watermarks(&brokers, &prefix).pop().unwrap();
    assert_eq!(mark["number"], 2);
    assert_eq!(mark["full"], true, "the first of a session lists all");
    let end = mark["ends"][&topic]["ends"][0][1].as_i64().unwrap();
    assert!((5..=6).contains(&end), "{end}");
    // A delta holds only what was touched.
    put(writer.as_mut(), Changes::new().insert(&lines, 3).boundary().build("p4")).await.unwrap();
    let mark = watermarks(&brokers, &prefix).pop().unwrap();
    assert_eq!(mark["full"], false);
    assert_eq!(
        mark["ends"].as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("{prefix}.shop.lines")]
    );
}

#[tokio::test]
async fn a_foreign_record_is_noticed_and_the_watermark_tells_the_offsets_as_they_are() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let orders = table("orders", true);
    let options = CaptureOptions::default();
    let statistics = Arc::clone(&options.statistics);
    let mut writer = log.capture_sink("plex", options).open().await.unwrap();
    put(writer.as_mut(), Changes::new().insert(&orders, 1).boundary().build("p1")).await.unwrap();
    let topic = format!("{prefix}.shop.orders");
    // Offset 0, marker 1; the stranger takes 2, where the next record was predicted.
    produce(&brokers, &topic, "stranger", "{}");
    let batch = Changes::new().insert(&orders, 2).boundary().insert(&orders, 3).build("p2");
    put(writer.as_mut(), batch).await.unwrap();
    assert_eq!(statistics.counts().repeated, 1);
    let data = read(&brokers, &topic, 0);
    let offset = |id: i64| {
        let found: Vec<_> = data.iter().filter(|r| r.key == Some(format!("{{\"id\":{id}}}"))).collect();
        assert_eq!(found.len(), 1, "the aborted attempt is not visible");
        found[0].offset
    };
    let mark = watermarks(&brokers, &prefix).pop().unwrap();
    assert_eq!(mark["ends"][&topic]["ends"], json!([[0, offset(2) + 1]]));
    assert!(offset(3) > offset(2));
    // The books are right again: the next transaction goes through in one step.
    put(writer.as_mut(), Changes::new().insert(&orders, 4).boundary().build("p3")).await.unwrap();
    assert_eq!(statistics.counts().repeated, 1);
}

#[tokio::test]
async fn a_displaced_writer_is_fenced_and_leaves_nothing() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let orders = table("orders", true);
    let mut old = open(&log, "plex").await;
    put(old.as_mut(), Changes::new().insert(&orders, 1).boundary().build("p1")).await.unwrap();
    let mut new = open(&log, "plex").await;
    assert_eq!(token(new.resume().await.unwrap()).as_deref(), Some("p1"));
    let error =
        put(old.as_mut(), Changes::new().insert(&orders, 9).boundary().build("zombie")).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Fenced, "{error}");
    put(new.as_mut(), Changes::new().insert(&orders, 2).boundary().build("p2")).await.unwrap();
    let keys: Vec<_> =
        read(&brokers, &format!("{prefix}.shop.orders"), 0).into_iter().map(|r| r.key).collect();
    assert_eq!(keys, [Some(r#"{"id":1}"#.to_owned()), Some(r#"{"id":2}"#.to_owned())]);
}

#[tokio::test]
async fn death_between_produce_and_commit_leaves_nothing_visible() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let orders = table("orders", true);
    let mut writer = open(&log, "plex").await;
    put(writer.as_mut(), Changes::new().insert(&orders, 1).boundary().build("p1")).await.unwrap();
    drop(writer);
    let topic = format!("{prefix}.shop.orders");
    let positions = format!("caudal.{prefix}.positions");
    let lost = r#"{"v":1,"token":"lost","touched":{},"watermark":9,"epoch":1}"#;
    let id = format!("caudal.{prefix}.plex");
    let _killed =
        open_transaction(&brokers, &id, &[(&topic, 0, r#"{"id":7}"#, "{}"), (&positions, 0, "plex", lost)]);
    let start = Instant::now();
    let mut writer = open(&log, "plex").await;
    assert!(start.elapsed() < Duration::from_secs(15), "no wait for the transaction's time-out");
    assert_eq!(token(writer.resume().await.unwrap()).as_deref(), Some("p1"));
    put(writer.as_mut(), Changes::new().insert(&orders, 2).boundary().build("p2")).await.unwrap();
    let keys: Vec<_> = read(&brokers, &topic, 0).into_iter().filter_map(|r| r.key).collect();
    assert_eq!(keys, [r#"{"id":1}"#, r#"{"id":2}"#]);
    assert_eq!(watermarks(&brokers, &prefix).pop().unwrap()["number"], 2);
}

#[tokio::test]
async fn resume_does_not_wait_for_another_sources_open_transaction() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let orders = table("orders", true);
    let mut a = open(&log, "a").await;
    let _b = open(&log, "b").await;
    put(a.as_mut(), Changes::new().insert(&orders, 1).boundary().build("p1")).await.unwrap();
    let topics = ["positions", "watermarks", "schemas"].map(|t| format!("caudal.{prefix}.{t}"));
    let records: Vec<_> = topics.iter().map(|t| (t.as_str(), 1, "b", "{}")).collect();
    let _hung = open_transaction(&brokers, "hung", &records);
    put(a.as_mut(), Changes::new().insert(&orders, 2).boundary().build("p2")).await.unwrap();
    drop(a);
    let start = Instant::now();
    let mut a = open(&log, "a").await;
    assert_eq!(token(a.resume().await.unwrap()).as_deref(), Some("p2"));
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn resume_waits_out_an_open_transaction_in_its_own_partition_and_never_reads_an_old_position() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let orders = table("orders", true);
    let mut a = open(&log, "a").await;
    put(a.as_mut(), Changes::new().insert(&orders, 1).boundary().build("p1")).await.unwrap();
    let positions = format!("caudal.{prefix}.positions");
    let stranger = open_transaction(&brokers, &format!("{prefix}-stranger"), &[(&positions, 0, "x", "{}")]);
    put(a.as_mut(), Changes::new().insert(&orders, 2).boundary().build("p2")).await.unwrap();
    drop(a);
    let reopened = tokio::spawn({
        let log = log.clone();
        async move { token(open(&log, "a").await.resume().await.unwrap()) }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!reopened.is_finished(), "what is committed behind the open transaction is not visible yet");
    stranger.abort_transaction(PATIENCE).unwrap();
    assert_eq!(reopened.await.unwrap().as_deref(), Some("p2"));
}

#[tokio::test]
async fn notes_live_until_they_are_deleted() {
    let Some(brokers) = brokers() else { return };
    let log = log(&brokers, &prefix());
    let orders = table("orders", true);
    let mut writer = open(&log, "plex").await;
    let first =
        Changes::new().insert(&orders, 1).build_with_notes("p1", &[("a", Some("1")), ("b", Some("2"))]);
    put(writer.as_mut(), first).await.unwrap();
    put(writer.as_mut(), Changes::new().build_with_notes("p2", &[("a", None), ("c", Some("3"))]))
        .await
        .unwrap();
    drop(writer);
    let position = open(&log, "plex").await.resume().await.unwrap().unwrap();
    let notes: Vec<_> = position.source().unwrap().notes.clone().into_iter().collect();
    assert_eq!(notes, [("b".into(), Some("2".into())), ("c".into(), Some("3".into()))]);
}

#[tokio::test]
async fn a_change_of_key_leaves_a_tombstone_and_points_both_ways() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let mut writer = open(&log(&brokers, &prefix), "plex").await;
    let batch =
        Changes::new().event(&table("orders", true), Op::Update, Some(1), Some(2)).boundary().build("p1");
    put(writer.as_mut(), batch).await.unwrap();
    let topic = format!("{prefix}.shop.orders");
    let data = read(&brokers, &topic, 0);
    let (old, new) = (r#"{"id":1}"#.to_owned(), r#"{"id":2}"#.to_owned());
    let keys: Vec<_> = data.iter().map(|r| r.key.clone().unwrap()).collect();
    assert_eq!(keys, [old.clone(), old.clone(), new.clone()]);
    // As Debezium does, on the tombstone too.
    let newkey = [("__debezium.newkey".to_owned(), new)];
    assert_eq!((&data[0].headers[..], &data[1].headers[..]), (&newkey[..], &newkey[..]));
    assert!(data[1].value.is_none());
    assert_eq!(data[2].headers, [("__debezium.oldkey".to_owned(), old)]);
    let mark = watermarks(&brokers, &prefix).pop().unwrap();
    assert_eq!(mark["ends"][&topic]["ends"], json!([[0, 3]]));
}

#[tokio::test]
async fn a_new_shape_is_recorded_with_the_offset_where_it_starts() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let mut writer = open(&log(&brokers, &prefix), "plex").await;
    let first = table("orders", true);
    let mut second = first.as_ref().clone();
    second.version = 2;
    second.columns[1].name = "title".into();
    let second = Arc::new(second);
    put(writer.as_mut(), Changes::new().insert(&first, 1).build("p1")).await.unwrap();
    let batch = Changes::new().insert(&first, 2).insert(&first, 3).insert(&second, 4).boundary().build("p2");
    put(writer.as_mut(), batch).await.unwrap();
    let topic = format!("{prefix}.shop.orders");
    let schemas = read(&brokers, &format!("caudal.{prefix}.schemas"), 0);
    assert_eq!(schemas.len(), 2);
    let starts = |version: u32| values(&schemas, &format!("{topic}/{version}"))[0]["from"].clone();
    // 0, marker, 2, 3 have the first shape.
    assert_eq!((starts(1), starts(2)), (json!([[0, 0]]), json!([[0, 4]])));
    // The same version with other columns would have old records read by the wrong names.
    let mut wrong = first.as_ref().clone();
    wrong.columns[1].name = "other".into();
    let error =
        put(writer.as_mut(), Changes::new().insert(&Arc::new(wrong), 5).build("p3")).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Bug);
}

#[tokio::test]
async fn schema_changes_go_to_the_prefixs_topic() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let mut writer = open(&log(&brokers, &prefix), "plex").await;
    let mut batch = Changes::new().insert(&table("orders", true), 1).boundary().build("p1");
    batch.ddl.push(Ddl {
        events: 0,
        statement: "ALTER TABLE orders ADD x INT".into(),
        database: "shop".into(),
        tables: vec![TableId::new("shop", "orders")],
        transaction: 0,
        pos: 99,
        ts_us: 1,
    });
    put(writer.as_mut(), batch).await.unwrap();
    let changes = read(&brokers, &prefix, 0);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].key.as_deref(), Some(r#"{"databaseName":"shop"}"#));
    let value = changes[0].value.clone().unwrap();
    assert_eq!(value["ddl"], "ALTER TABLE orders ADD x INT");
    assert_eq!(value["tableChanges"][0]["table"]["columns"][1]["name"], "name");
}

#[tokio::test]
async fn several_batches_are_one_transaction_with_one_watermark_at_the_last_boundary() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let options = CaptureOptions::default();
    let statistics = Arc::clone(&options.statistics);
    let mut writer = log(&brokers, &prefix).capture_sink("plex", options).open().await.unwrap();
    let orders = table("orders", true);
    for mut batch in [
        Changes::new().insert(&orders, 1).boundary().build("p1"),
        Changes::new().insert(&orders, 2).boundary().insert(&orders, 3).build("p2"),
        Changes::new().insert(&orders, 4).build("p3"),
    ] {
        writer.write(&mut batch).await.unwrap();
    }
    assert_eq!(token(Some(writer.commit().await.unwrap())).as_deref(), Some("p3"));
    assert_eq!(statistics.counts().transactions, 1);
    assert_eq!(statistics.counts().records, 4);
    let marks = watermarks(&brokers, &prefix);
    assert_eq!(marks.len(), 1);
    assert_eq!(marks[0]["ends"][&format!("{prefix}.shop.orders")]["ends"], json!([[0, 2]]));
    // Nothing accepted: the last position again.
    assert_eq!(token(Some(writer.commit().await.unwrap())).as_deref(), Some("p3"));
}

#[tokio::test]
async fn a_heartbeat_moves_the_watermark_without_data() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = log(&brokers, &prefix);
    let mut writer = open(&log, "plex").await;
    put(writer.as_mut(), Changes::new().boundary().build("p1")).await.unwrap();
    put(writer.as_mut(), Changes::new().boundary().build("p2")).await.unwrap();
    let marks = watermarks(&brokers, &prefix);
    assert_eq!(marks.len(), 2);
    assert_eq!((&marks[1]["number"], &marks[1]["ends"]), (&json!(2), &json!({})));
}

#[tokio::test]
async fn sources_have_numbers_of_their_own_and_are_claimed_through_the_group() {
    let Some(brokers) = brokers() else { return };
    let log = log(&brokers, &prefix());
    for source in ["a", "b"] {
        let sink = log.capture_sink(source, CaptureOptions::default());
        tokio::time::timeout(PATIENCE, sink.claim()).await.expect("claimed in time").unwrap();
    }
    let (mut a, mut b) = (open(&log, "a").await, open(&log, "b").await);
    let orders = table("orders", true);
    put(a.as_mut(), Changes::new().insert(&orders, 1).build("a1")).await.unwrap();
    put(b.as_mut(), Changes::new().insert(&table("other", true), 1).build("b1")).await.unwrap();
    drop((a, b));
    assert_eq!(token(open(&log, "a").await.resume().await.unwrap()).as_deref(), Some("a1"));
    assert_eq!(token(open(&log, "b").await.resume().await.unwrap()).as_deref(), Some("b1"));
}

#[tokio::test]
async fn two_instances_share_the_sources_and_the_one_that_stays_takes_all() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let (first, second) = (log(&brokers, &prefix), log(&brokers, &prefix));
    let sources: Vec<String> = (0..8).map(|i| format!("s{i}")).collect();
    for source in &sources {
        first.capture_sink(source, CaptureOptions::default()).claim().await.unwrap();
    }
    let mut claims: Vec<_> = sources.iter().map(|source| claim(&second, source)).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    while claims.iter().filter(|c| c.is_finished()).count() < 4 {
        assert!(Instant::now() < deadline, "the newcomer gets its half");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (source, claimed) in sources.iter().zip(&claims) {
        let sink = first.capture_sink(source, CaptureOptions::default());
        let again = tokio::time::timeout(Duration::from_secs(1), sink.claim()).await;
        assert_ne!(again.is_ok(), claimed.is_finished(), "{source} has exactly one owner");
    }
    drop(first);
    for claim in &mut claims {
        tokio::time::timeout(Duration::from_secs(60), claim).await.unwrap().unwrap();
    }
}

fn claim(log: &Log, source: &str) -> tokio::task::JoinHandle<()> {
    let sink = log.capture_sink(source, CaptureOptions::default());
    tokio::spawn(async move { sink.claim().await.unwrap() })
}

#[tokio::test]
async fn keys_spread_over_the_partitions_that_the_topic_was_made_with() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let mut wide = config(&brokers);
    wide.topics.partitions_by_table.insert("shop.*".into(), 3);
    let orders = table("orders", true);
    let mut writer = open(&Log::new(wide, &prefix).unwrap(), "plex").await;
    let mut batch = Changes::new();
    for id in 0..30 {
        batch = batch.insert(&orders, id);
    }
    put(writer.as_mut(), batch.boundary().build("p1")).await.unwrap();
    drop(writer);
    let topic = format!("{prefix}.shop.orders");
    let keys = |p| read(&brokers, &topic, p).into_iter().filter_map(|r| r.key).collect::<Vec<_>>();
    let before: Vec<_> = (0..3).map(keys).collect();
    assert!(before.iter().all(|keys| !keys.is_empty()));
    // Another setting later changes nothing for a topic in use.
    let mut wider = config(&brokers);
    wider.topics.partitions = 5;
    let mut writer = open(&Log::new(wider, &prefix).unwrap(), "plex").await;
    let mut batch = Changes::new();
    for id in 0..30 {
        batch = batch.delete(&orders, id);
    }
    put(writer.as_mut(), batch.boundary().build("p2")).await.unwrap();
    for (p, old) in before.iter().enumerate() {
        assert!(keys(p as i32).iter().all(|key| old.contains(key)));
    }
}

#[tokio::test]
async fn a_topic_whose_settings_would_break_a_promise_is_refused_with_the_command_that_mends_it() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let admin: rdkafka::admin::AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let topic = format!("{prefix}.shop.orders");
    let spec = rdkafka::admin::NewTopic::new(&topic, 1, rdkafka::admin::TopicReplication::Fixed(1))
        .set("cleanup.policy", "delete");
    admin.create_topics([&spec], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let log = log(&brokers, &prefix);
    let mut writer = open(&log, "plex").await;
    let mut batch = Changes::new().insert(&table("orders", true), 1).build("p1");
    let error = writer.write(&mut batch).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Config);
    assert!(error.hint_text().unwrap().contains("cleanup.policy=compact"), "{error}");
    let checks = log.capture_sink("plex", CaptureOptions::default()).check().await;
    assert_eq!((checks[0].severity, checks[0].subject.as_str()), (Severity::Error, topic.as_str()));
    assert!(checks[0].fix.as_ref().unwrap().contains("retention.ms=-1"), "{checks:?}");
}

#[tokio::test]
async fn a_row_over_the_limit_is_a_data_fault_before_anything_is_sent() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let mut config = config(&brokers);
    config.topics.max_message_bytes = caudal_core::quantity::SizeText::mib(1);
    let log = Log::new(config, &prefix).unwrap();
    let writer = open(&log, "plex").await;
    let mut batch = Changes::new().insert(&table("orders", true), 1).build("p1");
    let big = vec![b'x'; 2 << 20];
    batch.buffers.push(big.into());
    let buffer = batch.buffers.len() as u32 - 1;
    batch.cells[1] = caudal_core::Cell::Text(caudal_core::Slice { buffer, offset: 0, len: 2 << 20 });
    let error = writer.prepare().unwrap().prepare(&mut batch).unwrap_err();
    assert_eq!(error.fault(), Fault::Data);
    let text = error.to_string();
    assert!(text.contains("shop.orders") && text.contains("key hash") && text.contains("1048576"), "{text}");
}

#[tokio::test]
async fn unreachable_brokers_are_a_finding_of_check_with_a_fix() {
    let log = Log::new(config("127.0.0.1:1"), "p").unwrap();
    let start = Instant::now();
    let checks = log.capture_sink("plex", CaptureOptions::default()).check().await;
    assert_eq!(checks[0].severity, Severity::Error);
    assert!(checks[0].message.contains("127.0.0.1:1") && checks[0].fix.is_some(), "{checks:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Brokers that want SASL/PLAIN and know the user `cdc` with the password `right` (`CAUDAL_TEST_KAFKA_SASL`).
#[tokio::test]
async fn a_wrong_password_is_for_the_operator() {
    let Some(brokers) = std::env::var("CAUDAL_TEST_KAFKA_SASL").ok().filter(|b| !b.is_empty()) else {
        return;
    };
    let mut config = config(&brokers);
    config.sasl = Some(caudal_kafka::config::Sasl {
        mechanism: caudal_kafka::config::Mechanism::Plain,
        username: "cdc".into(),
        password: "wrong".into(),
        token: None,
    });
    let mut right = config.clone();
    if let Some(sasl) = &mut right.sasl {
        sasl.password = "right".into();
    }
    let mut writer = open(&Log::new(right, &prefix()).unwrap(), "plex").await;
    put(writer.as_mut(), Changes::new().insert(&table("orders", true), 1).boundary().build("p1"))
        .await
        .unwrap();
    let log = Log::new(config, &prefix()).unwrap();
    let error = log.capture_sink("plex", CaptureOptions::default()).open().await.err().unwrap();
    assert_eq!(error.fault(), Fault::Config, "{error}");
    assert!(error.hint_text().unwrap().contains("kafka.sasl"));
    assert!(!error.to_string().contains("wrong"));
}
