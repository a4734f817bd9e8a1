//! Nothing is shown that power can take back, and nothing acknowledged is lost.

use super::kit::{Bench, Client, produced, until};
use crate::batch::samples;
use crate::{Error, Log};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_neither_acknowledged_nor_visible_before_its_fsync() {
    let bench = Bench::start().await;
    let (mut producer, mut reader) = (bench.client().await, bench.client().await);
    producer.create_topic("t", 1, &[]).await;
    bench.disk.faults.hold_sync_of(Some(".log"));
    let request = Client::produce_request("t", 0, None, samples::plain(&[(Some("k"), Some("v"))]));
    producer.send(ApiKey::Produce, 9, &request).await;
    until("the fsync begins", || bench.disk.faults.held() == 1).await;
    assert_eq!(reader.offset("t", -1, false).await, 0, "ListOffsets shows it");
    assert_eq!(reader.offset("t", 0, false).await, -1, "a lookup by time shows it");
    let fetched = reader.fetch("t", 0, false, 50).await;
    let partition = &fetched.responses[0].partitions[0];
    assert_eq!(partition.high_watermark, 0);
    assert!(partition.records.as_ref().unwrap().is_empty(), "Fetch shows it");
    bench.disk.faults.hold_sync_of(None);
    assert_eq!(produced(producer.receive(ApiKey::Produce, 9).await), Ok(0));
    assert_eq!(reader.read_all("t", false).await, [(0, "k".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_one_waits_for_the_fsync_too() {
    let bench = Bench::start().await;
    let mut producer = bench.client().await;
    producer.create_topic("t", 1, &[]).await;
    bench.disk.faults.hold_sync_of(Some(".log"));
    let mut request = Client::produce_request("t", 0, None, samples::plain(&[(None, Some("v"))]));
    if let kafka_protocol::messages::RequestKind::Produce(r) = &mut request {
        r.acks = 1;
    }
    producer.send(ApiKey::Produce, 9, &request).await;
    until("the fsync begins", || bench.disk.faults.held() == 1).await;
    let mut bench = bench;
    bench.cut_power().await;
    assert!(producer.try_receive(ApiKey::Produce, 9).await.is_none_or(|r| produced(r).is_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_takes_only_what_was_not_acknowledged() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[("segment.bytes", "2048")]).await;
    for n in 0..40 {
        let key = format!("k{n}");
        let batch = samples::plain(&[(Some(&key), Some("a value that fills segments quickly"))]);
        assert_eq!(client.produce("t", None, batch).await, Ok(n));
    }
    bench.disk.faults.hold_sync_of(Some(".log"));
    let request = Client::produce_request("t", 0, None, samples::plain(&[(Some("lost"), Some("v"))]));
    client.send(ApiKey::Produce, 9, &request).await;
    until("the fsync begins", || bench.disk.faults.held() == 1).await;
    bench.cut_power().await;
    bench.restart().await.unwrap();
    let keys: Vec<String> =
        bench.client().await.read_all("t", true).await.into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, (0..40).map(|n| format!("k{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut_at_every_length() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    client.produce("t", None, samples::plain(&[(Some("kept"), Some("v"))])).await.unwrap();
    bench.kill().await;
    let path = segment_of(&bench);
    let whole = std::fs::read(&path).unwrap();
    let torn = samples::plain(&[(Some("torn"), Some("v"))]);
    for length in (1..torn.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&torn[..length]);
        std::fs::write(&path, &bytes).unwrap();
        bench.restart().await.unwrap();
        assert_eq!(bench.client().await.read_all("t", false).await, [(0, "kept".to_owned())], "{length}");
        bench.kill().await;
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_what_was_durable_is_named_and_nothing_is_cut() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    for n in 0..3 {
        let key = format!("k{n}");
        client.produce("t", None, samples::plain(&[(Some(&key), Some("v"))])).await.unwrap();
    }
    drop(client);
    bench.log.take().unwrap().shutdown().await;
    let path = segment_of(&bench);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16] = 1;
    std::fs::write(&path, &bytes).unwrap();
    let refused = bench.restart().await.unwrap_err();
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_the_partition_goes_on_afterwards() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    let batch = |key: &str| samples::plain(&[(Some(key), Some("v"))]);
    client.produce("t", None, batch("before")).await.unwrap();
    for room in [0, 1, 16, 40, 70] {
        bench.disk.faults.room(Some(room));
        let refused = client.produce("t", None, batch("refused")).await;
        assert_eq!(refused, Err(ResponseError::KafkaStorageError.code()), "room for {room} bytes");
    }
    bench.disk.faults.room(None);
    assert_eq!(client.produce("t", None, batch("after")).await, Ok(1));
    let expected = [(0, "before".to_owned()), (1, "after".to_owned())];
    assert_eq!(client.read_all("t", false).await, expected);
    bench.kill().await;
    bench.restart().await.unwrap();
    assert_eq!(bench.client().await.read_all("t", false).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_loses_nothing_that_was_acknowledged_and_shows_nothing_that_was_not() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = client.init_producer(None, 0).await.unwrap();
    let batch = |sequence, key: &str| samples::of_producer(producer.id, producer.epoch, sequence, &[key]);
    assert_eq!(client.produce("t", None, batch(0, "before")).await, Ok(0));
    bench.disk.faults.fail_sync_of(Some(".log"));
    let refused = client.produce("t", None, batch(1, "again")).await;
    assert_eq!(refused, Err(ResponseError::KafkaStorageError.code()));
    assert_eq!(client.offset("t", -1, false).await, 1);
    bench.disk.faults.fail_sync_of(None);
    assert_eq!(client.produce("t", None, batch(1, "again")).await, Ok(1), "the retry is no duplicate");
    let expected = [(0, "before".to_owned()), (1, "again".to_owned())];
    assert_eq!(client.read_all("t", false).await, expected);
    bench.cut_power().await;
    bench.restart().await.unwrap();
    assert_eq!(bench.client().await.read_all("t", false).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_batch_is_one_batch_also_after_a_restart() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = client.init_producer(None, 0).await.unwrap();
    let batch = samples::of_producer(producer.id, producer.epoch, 0, &["a", "b"]);
    assert_eq!(client.produce("t", None, batch.clone()).await, Ok(0));
    assert_eq!(client.produce("t", None, batch.clone()).await, Ok(0));
    bench.kill().await;
    bench.restart().await.unwrap();
    let mut client = bench.client().await;
    assert_eq!(client.produce("t", None, batch).await, Ok(0));
    assert_eq!(client.offset("t", -1, false).await, 2);
    let gap = samples::of_producer(producer.id, producer.epoch, 3, &["c"]);
    assert_eq!(client.produce("t", None, gap).await, Err(ResponseError::OutOfOrderSequenceNumber.code()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_log_on_the_folder_is_told_so() {
    let bench = Bench::start().await;
    let refused = Log::start(super::kit::config(bench.folder.path())).await.err().unwrap();
    assert!(matches!(refused, Error::FolderLocked(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_and_a_remote_address_are_named() {
    let bench = Bench::start().await;
    let other = tempfile::tempdir().unwrap();
    let mut config = super::kit::config(other.path());
    config.listen = bench.log().address();
    let refused = Log::start(config.clone()).await.err().unwrap();
    assert!(refused.to_string().contains(&config.listen.port().to_string()), "{refused}");
    config.listen = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(Log::start(config).await, Err(Error::NotLoopback(_))));
}

fn segment_of(bench: &Bench) -> std::path::PathBuf {
    let topics = bench.folder.path().join("topics");
    let topic = std::fs::read_dir(topics).unwrap().next().unwrap().unwrap().path();
    topic.join("0").join(format!("{:020}.log", 0))
}
