//! `delivery: at_least_once`: fenced all the same, and faster.

use crate::kit::{Changes, brokers, config, prefix, put, read, table, values, watermarks};
use caudal_core::Fault;
use caudal_kafka::{CaptureOptions, Config, Delivery, Log};
use std::time::{Duration, Instant};

fn loose(brokers: &str, prefix: &str) -> Log {
    Log::new(Config { delivery: Delivery::AtLeastOnce, ..config(brokers) }, prefix).unwrap()
}

async fn open(log: &Log) -> Box<dyn caudal_core::Writer> {
    log.capture_sink("plex", CaptureOptions::default()).open().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_lie_without_markers_and_the_position_follows_them() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = loose(&brokers, &prefix);
    let orders = table("orders", true);
    let mut writer = open(&log).await;
    for n in 0..5 {
        let batch = Changes::new().insert(&orders, 2 * n).insert(&orders, 2 * n + 1).boundary();
        put(writer.as_mut(), batch.build(&format!("p{n}"))).await.unwrap();
    }
    let topic = format!("{prefix}.shop.orders");
    let offsets: Vec<i64> = read(&brokers, &topic, 0).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>(), "no marker took an offset");
    // The last position is stored without anything more being written.
    let deadline = Instant::now() + Duration::from_secs(60);
    let stored = || {
        let positions = read(&brokers, &format!("caudal.{prefix}.positions"), 0);
        values(&positions, "plex").pop().map(|position| position["token"].clone())
    };
    while stored() != Some("p4".into()) {
        assert!(Instant::now() < deadline, "{:?}", stored());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = watermarks(&brokers, &prefix).pop().unwrap();
    assert_eq!(last["position"], "p4-boundary");
    assert_eq!(last["at_least_once"], true);
    assert_eq!(last["ends"][&topic]["ends"], serde_json::json!([[0, 10]]));
    // It resumes there, as another writer.
    drop(writer);
    let mut writer = open(&log).await;
    let resumed = writer.resume().await.unwrap().unwrap();
    assert_eq!(resumed.source().unwrap().token, "p4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_displaced_writer_stores_no_position() {
    let Some(brokers) = brokers() else { return };
    let prefix = prefix();
    let log = loose(&brokers, &prefix);
    let orders = table("orders", true);
    let mut old = open(&log).await;
    put(old.as_mut(), Changes::new().insert(&orders, 1).boundary().build("p1")).await.unwrap();
    let mut new = open(&log).await;
    put(new.as_mut(), Changes::new().insert(&orders, 2).boundary().build("p2")).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut n = 0;
    let error = loop {
        assert!(Instant::now() < deadline, "it was never told");
        n += 1;
        match put(old.as_mut(), Changes::new().insert(&orders, n).boundary().build("zombie")).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.fault(), Fault::Fenced, "{error}");
    let positions = read(&brokers, &format!("caudal.{prefix}.positions"), 0);
    let tokens: Vec<_> = values(&positions, "plex").iter().map(|p| p["token"].clone()).collect();
    assert!(!tokens.contains(&"zombie".into()), "{tokens:?}");
    let epochs: Vec<u64> =
        values(&positions, "plex#epoch").iter().filter_map(|claim| claim["epoch"].as_u64()).collect();
    assert_eq!(epochs, [1, 2], "each writer has a number of its own");
}

/// Small batches, each committed: what a transaction's end costs is seen.
async fn batches(log: &Log, count: i64) -> Duration {
    let orders = table("orders", true);
    let mut writer = open(log).await;
    put(writer.as_mut(), Changes::new().insert(&orders, 0).boundary().build("p")).await.unwrap();
    let begun = Instant::now();
    for n in 1..=count {
        put(writer.as_mut(), Changes::new().insert(&orders, n).boundary().build("p")).await.unwrap();
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_batches_take_less_time_than_in_transactions() {
    let Some(brokers) = brokers() else { return };
    let exactly = Log::new(config(&brokers), &prefix()).unwrap();
    // The first run of each warms the brokers up.
    let loose = loose(&brokers, &prefix());
    batches(&exactly, 5).await;
    batches(&loose, 5).await;
    let (once, least) = (batches(&exactly, 60).await, batches(&loose, 60).await);
    println!("60 batches: exactly once {once:?}, at least once {least:?}");
    assert!(least < once, "exactly once {once:?}, at least once {least:?}");
}
