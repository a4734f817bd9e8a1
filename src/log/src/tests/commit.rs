//! A transaction is committed in all its partitions or in none, wherever the process or the power is cut.

use super::kit::{Bench, Client, Producer, until};
use crate::batch::samples;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

const ID: &str = "capture";

/// A transaction with one record in each of two partitions of `t`.
async fn begun(client: &mut Client, sequence: i32, key: &str) -> Producer {
    let producer = client.init_producer(Some(ID), 60_000).await.unwrap();
    fill(client, producer, sequence, key).await;
    producer
}

async fn fill(client: &mut Client, producer: Producer, sequence: i32, key: &str) {
    assert_eq!(client.add_partitions(ID, producer, "t", &[0, 1]).await, 0);
    for partition in [0, 1] {
        let batch = samples::in_transaction(producer.id, producer.epoch, sequence, &[key]);
        client.produce_to("t", partition, Some(ID), batch).await.unwrap();
    }
}

/// What committed readers see of both partitions.
async fn visible(client: &mut Client) -> Vec<String> {
    let mut seen = Vec::new();
    for partition in [0, 1] {
        seen.extend(client.read_partition("t", partition, true).await.into_iter().map(|(_, key)| key));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_records_appear_together_and_aborted_ones_never() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = begun(&mut client, 0, "aborted").await;
    assert!(visible(&mut client).await.is_empty());
    assert_eq!(client.end(ID, producer, false).await, 0);
    assert!(visible(&mut client).await.is_empty());
    fill(&mut client, producer, 1, "committed").await;
    assert!(visible(&mut client).await.is_empty());
    assert_eq!(client.end(ID, producer, true).await, 0);
    assert_eq!(visible(&mut client).await, ["committed", "committed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_marker_per_partition_and_transaction_takes_an_offset() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = begun(&mut client, 0, "a").await;
    assert_eq!(client.end(ID, producer, true).await, 0);
    assert_eq!((client.offset("t", -1, false).await, client.offset("t", -1, true).await), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_answered_when_it_is_visible_and_the_next_transaction_needs_no_pause() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = client.init_producer(Some(ID), 60_000).await.unwrap();
    for n in 0..20 {
        fill(&mut client, producer, n, "x").await;
        assert_eq!(client.end(ID, producer, true).await, 0);
        assert_eq!(visible(&mut client).await.len(), 2 * (n as usize + 1));
    }
}

/// Sends the commit with one step of it held back, then lets power fail there. `none_before`: whether nothing at all may be
/// visible while the step is held (markers of several partitions become durable one by one).
async fn cut_while_held(held: &str, none_before: bool, expected: &[&str]) {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = begun(&mut client, 0, "x").await;
    bench.disk.faults.hold_sync_of(Some(held));
    client.send(ApiKey::EndTxn, 3, &Client::end_request(ID, producer, true)).await;
    until("the step begins", || bench.disk.faults.held() > 0).await;
    let mut reader = bench.client().await;
    assert!(!none_before || visible(&mut reader).await.is_empty(), "visible while {held} is not durable");
    bench.cut_power().await;
    bench.restart().await.unwrap();
    let mut client = bench.client().await;
    // A new instance fences the old one; whatever was decided is finished by then.
    client.init_producer(Some(ID), 60_000).await.unwrap();
    assert_eq!(visible(&mut client).await, expected, "after power failed at {held}");
    assert_eq!(client.read_partition("t", 0, false).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_that_fails_before_the_decision_is_durable_leaves_nothing() {
    cut_while_held("journal-", true, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_that_fails_before_any_marker_is_durable_leaves_everything() {
    cut_while_held("/topics/", true, &["x", "x"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_that_fails_between_two_markers_leaves_everything() {
    cut_while_held("/1/0", false, &["x", "x"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_during_markers_is_survived_and_the_commit_completes() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = begun(&mut client, 0, "x").await;
    bench.disk.faults.fail_writes_to(Some("/1/0"));
    let answer = client.end(ID, producer, true).await;
    assert_eq!(answer, ResponseError::CoordinatorNotAvailable.code());
    bench.disk.faults.fail_writes_to(None);
    assert_eq!(client.end(ID, producer, true).await, 0, "asked again, it goes on where it was");
    assert_eq!(visible(&mut client).await, ["x", "x"]);
    bench.kill().await;
    bench.restart().await.unwrap();
    assert_eq!(visible(&mut bench.client().await).await, ["x", "x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_of_the_journal_decides_nothing_until_it_succeeds() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = begun(&mut client, 0, "x").await;
    bench.disk.faults.fail_sync_of(Some("journal-"));
    assert_eq!(client.end(ID, producer, true).await, ResponseError::CoordinatorNotAvailable.code());
    assert!(visible(&mut client).await.is_empty());
    bench.disk.faults.fail_sync_of(None);
    assert_eq!(client.end(ID, producer, true).await, 0);
    assert_eq!(visible(&mut client).await, ["x", "x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_goes_on_after_the_process_was_killed() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = begun(&mut client, 0, "x").await;
    bench.kill().await;
    bench.restart().await.unwrap();
    let mut client = bench.client().await;
    assert!(visible(&mut client).await.is_empty());
    assert_eq!(client.end(ID, producer, true).await, 0);
    assert_eq!(visible(&mut client).await, ["x", "x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_begin_power_took_is_aborted_and_never_reported_as_committed() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let producer = begun(&mut client, 0, "first").await;
    assert_eq!(client.end(ID, producer, true).await, 0);
    // What is journaled from here on is lost, while the records become durable.
    bench.disk.faults.hold_sync_of(Some("journal-"));
    fill(&mut client, producer, 1, "second").await;
    bench.cut_power().await;
    bench.restart().await.unwrap();
    let mut client = bench.client().await;
    assert_ne!(client.end(ID, producer, true).await, 0);
    assert_eq!(visible(&mut client).await, ["first", "first"]);
    assert_eq!(
        client.offset("t", -1, true).await,
        client.offset("t", -1, false).await,
        "nothing is left open"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_replaced_by_a_snapshot_while_it_runs() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let metadata = "m".repeat(4_000);
    for offset in 0..600 {
        assert_eq!(client.commit_offset("g", "t", offset, &metadata).await, 0);
    }
    let journals = || {
        let files = std::fs::read_dir(bench.folder.path()).unwrap().flatten();
        let journals = files.filter(|f| f.file_name().to_string_lossy().starts_with("journal-"));
        journals.map(|f| f.metadata().unwrap().len()).sum::<u64>()
    };
    until("the journal is short again", || journals() < 1_500_000).await;
    bench.cut_power().await;
    bench.restart().await.unwrap();
    assert_eq!(bench.client().await.committed_offset("g", "t").await, 599);
}
