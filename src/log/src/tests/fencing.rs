//! Who may write: epochs, time-outs, and what a zombie is told.

use super::kit::{Bench, Client};
use crate::batch::samples;
use kafka_protocol::error::ResponseError;
use std::time::{Duration, Instant};

const ID: &str = "capture";

async fn with_topic() -> (Bench, Client) {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    (bench, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_instance_fences_the_old_one_and_aborts_what_it_left() {
    let (_bench, mut client) = with_topic().await;
    let old = client.init_producer(Some(ID), 60_000).await.unwrap();
    client.add_partitions(ID, old, "t", &[0]).await;
    client.produce("t", Some(ID), samples::in_transaction(old.id, old.epoch, 0, &["old"])).await.unwrap();
    let new = client.init_producer(Some(ID), 60_000).await.unwrap();
    assert_eq!((new.id, new.epoch), (old.id, old.epoch + 1));
    let zombie = samples::in_transaction(old.id, old.epoch, 1, &["zombie"]);
    let refused = client.produce("t", Some(ID), zombie).await;
    assert_eq!(refused, Err(ResponseError::InvalidProducerEpoch.code()));
    assert_eq!(client.end(ID, old, true).await, ResponseError::ProducerFenced.code());
    assert_eq!(client.add_partitions(ID, old, "t", &[0]).await, ResponseError::ProducerFenced.code());
    client.add_partitions(ID, new, "t", &[0]).await;
    client.produce("t", Some(ID), samples::in_transaction(new.id, new.epoch, 0, &["new"])).await.unwrap();
    assert_eq!(client.end(ID, new, true).await, 0);
    let keys: Vec<String> = client.read_all("t", true).await.into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, ["new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partition_itself_refuses_a_zombie_without_transaction() {
    let (_bench, mut client) = with_topic().await;
    let old = client.init_producer(Some(ID), 60_000).await.unwrap();
    client.add_partitions(ID, old, "t", &[0]).await;
    client.produce("t", Some(ID), samples::in_transaction(old.id, old.epoch, 0, &["old"])).await.unwrap();
    client.init_producer(Some(ID), 60_000).await.unwrap();
    let zombie = samples::of_producer(old.id, old.epoch, 1, &["zombie"]);
    assert_eq!(client.produce("t", None, zombie).await, Err(ResponseError::InvalidProducerEpoch.code()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fencing_survives_power_loss() {
    let (mut bench, mut client) = with_topic().await;
    let old = client.init_producer(Some(ID), 60_000).await.unwrap();
    let new = client.init_producer(Some(ID), 60_000).await.unwrap();
    bench.cut_power().await;
    bench.restart().await.unwrap();
    let mut client = bench.client().await;
    assert_eq!(client.add_partitions(ID, old, "t", &[0]).await, ResponseError::ProducerFenced.code());
    assert_eq!(client.add_partitions(ID, new, "t", &[0]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let (bench, mut client) = with_topic().await;
    let producer = client.init_producer(Some(ID), 5_000).await.unwrap();
    client.add_partitions(ID, producer, "t", &[0]).await;
    let batch = samples::in_transaction(producer.id, producer.epoch, 0, &["late"]);
    client.produce("t", Some(ID), batch).await.unwrap();
    assert_eq!(client.offset("t", -1, true).await, 0);
    bench.clock.advance_ms(5_100);
    let begun = Instant::now();
    while client.offset("t", -1, true).await == 0 {
        assert!(begun.elapsed() < super::kit::SOON, "the transaction was not aborted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(client.read_all("t", true).await.is_empty());
    assert_eq!(client.end(ID, producer, true).await, ResponseError::ProducerFenced.code());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_of_one_producer_does_not_hide_another_partition() {
    let (_bench, mut client) = with_topic().await;
    client.create_topic("u", 1, &[]).await;
    let open = client.init_producer(Some("open"), 60_000).await.unwrap();
    client.add_partitions("open", open, "t", &[0]).await;
    client.produce("t", Some("open"), samples::in_transaction(open.id, open.epoch, 0, &["x"])).await.unwrap();
    client.produce("u", None, samples::plain(&[(Some("k"), Some("v"))])).await.unwrap();
    assert_eq!(client.read_all("u", true).await.len(), 1);
    assert!(client.read_all("t", true).await.is_empty());
    assert_eq!(client.offset("t", -1, false).await, 1, "asked uncommitted, the end counts the open one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_outside_of_its_transaction_is_refused() {
    let (_bench, mut client) = with_topic().await;
    let producer = client.init_producer(Some(ID), 60_000).await.unwrap();
    let batch = samples::in_transaction(producer.id, producer.epoch, 0, &["x"]);
    let state = Err(ResponseError::InvalidTxnState.code());
    assert_eq!(client.produce("t", Some(ID), batch.clone()).await, state, "not begun");
    assert_eq!(client.produce("t", None, batch.clone()).await, state, "no transactional id");
    client.add_partitions(ID, producer, "t", &[0]).await;
    client.produce("t", Some(ID), batch).await.unwrap();
    assert_eq!(client.end(ID, producer, true).await, 0);
    let late = samples::in_transaction(producer.id, producer.epoch, 1, &["late"]);
    assert_eq!(client.produce("t", Some(ID), late).await, state, "ended");
}
