//! Of every key the newest record stays, tombstones for their time, and nobody sees another order or another end.

use super::kit::{Bench, Client};
use crate::batch::samples::{self, From};
use bytes::Bytes;
use kafka_protocol::records::Compression;

const SETTINGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1024"),
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "60000"),
];

fn record(bench: &Bench, key: &str, value: Option<&str>, compression: Compression) -> Bytes {
    let from = From { timestamp: bench.clock.now_ms(), ..samples::ANYONE };
    samples::encode(from, compression, &[(Some(key), value)])
}

async fn keys(client: &mut Client) -> Vec<(i64, String)> {
    client.read_all("t", true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_record_of_each_key_stays_at_its_offset() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, SETTINGS).await;
    for compression in
        [Compression::None, Compression::Zstd, Compression::Lz4, Compression::Gzip, Compression::Snappy]
    {
        for n in 0..40 {
            let batch = record(&bench, &format!("k{}", n % 10), Some("value"), compression);
            client.produce("t", None, batch).await.unwrap();
        }
    }
    let size = bench.size("t");
    bench.clock.advance_ms(1_001);
    bench.maintain().await;
    let expected: Vec<(i64, String)> = (190..200).map(|n| (n, format!("k{}", n % 10))).collect();
    assert_eq!(keys(&mut client).await, expected);
    assert!(bench.size("t") < size / 4);
    assert_eq!(client.offset("t", -1, false).await, 200);
    bench.kill().await;
    bench.restart().await.unwrap();
    assert_eq!(keys(&mut bench.client().await).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_one_batch_are_compacted_each() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, SETTINGS).await;
    let rows = [(Some("a"), Some("1")), (Some("b"), Some("2")), (Some("a"), Some("3"))];
    let from = From { timestamp: bench.clock.now_ms(), ..samples::ANYONE };
    client.produce("t", None, samples::encode(from, Compression::Zstd, &rows)).await.unwrap();
    bench.clock.advance_ms(1_001);
    bench.maintain().await;
    assert_eq!(keys(&mut client).await, [(1, "b".to_owned()), (2, "a".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_younger_than_the_lag_are_not_touched() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let settings = [SETTINGS, &[("min.compaction.lag.ms", "3600000")]].concat();
    client.create_topic("t", 1, &settings).await;
    for _ in 0..40 {
        client.produce("t", None, record(&bench, "k", Some("v"), Compression::None)).await.unwrap();
    }
    bench.clock.advance_ms(1_001);
    bench.maintain().await;
    assert_eq!(keys(&mut client).await.len(), 40);
    bench.clock.advance_ms(3_600_000);
    bench.maintain().await;
    assert_eq!(keys(&mut client).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_stays_for_its_time_after_the_pass_and_then_goes() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, SETTINGS).await;
    client.produce("t", None, record(&bench, "gone", Some("v"), Compression::None)).await.unwrap();
    client.produce("t", None, record(&bench, "gone", None, Compression::None)).await.unwrap();
    client.produce("t", None, record(&bench, "kept", Some("v"), Compression::None)).await.unwrap();
    bench.clock.advance_ms(1_001);
    bench.maintain().await;
    assert_eq!(keys(&mut client).await, [(1, "gone".to_owned()), (2, "kept".to_owned())]);
    bench.clock.advance_ms(59_000);
    bench.maintain().await;
    assert_eq!(keys(&mut client).await.len(), 2, "its time is not over");
    bench.clock.advance_ms(1_001);
    bench.maintain().await;
    assert_eq!(keys(&mut client).await, [(2, "kept".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_records_and_markers_go_and_committed_ones_stay_readable() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, SETTINGS).await;
    let producer = client.init_producer(Some("x"), 60_000).await.unwrap();
    for n in 0..30 {
        client.add_partitions("x", producer, "t", &[0]).await;
        let key = format!("{}{}", if n % 3 == 0 { "aborted" } else { "k" }, n % 5);
        let batch = samples::in_transaction(producer.id, producer.epoch, n, &[&key]);
        client.produce("t", Some("x"), batch).await.unwrap();
        assert_eq!(client.end("x", producer, n % 3 != 0).await, 0);
    }
    let before = keys(&mut client).await;
    bench.clock.advance_ms(1_001);
    bench.maintain().await;
    let mut newest: Vec<(i64, String)> = Vec::new();
    for (offset, key) in before {
        newest.retain(|(_, k)| *k != key);
        newest.push((offset, key));
    }
    assert_eq!(keys(&mut client).await, newest);
    let uncommitted = client.read_all("t", false).await;
    assert_eq!(uncommitted, newest, "nothing aborted is left for uncommitted readers either");
    bench.kill().await;
    bench.restart().await.unwrap();
    let mut client = bench.client().await;
    assert_eq!(keys(&mut client).await, newest);
    assert_eq!(client.offset("t", -1, true).await, 60, "nothing is left open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_is_not_compacted() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, SETTINGS).await;
    let producer = client.init_producer(Some("x"), 600_000).await.unwrap();
    client.produce("t", None, record(&bench, "k", Some("1"), Compression::None)).await.unwrap();
    client.add_partitions("x", producer, "t", &[0]).await;
    for n in 0..30 {
        let batch = samples::in_transaction(producer.id, producer.epoch, n, &["k"]);
        client.produce("t", Some("x"), batch).await.unwrap();
    }
    bench.clock.advance_ms(1_001);
    bench.maintain().await;
    assert_eq!(keys(&mut client).await, [(0, "k".to_owned())], "the newest decided one is still there");
    assert_eq!(client.end("x", producer, false).await, 0);
    assert_eq!(keys(&mut client).await, [(0, "k".to_owned())]);
}
