//! Topics have ids; records are kept and deleted as their settings say.

use super::kit::{Bench, name, text};
use crate::batch::samples;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use uuid::Uuid;

async fn topic_id(client: &mut super::kit::Client, topic: &str) -> (i16, Uuid) {
    let asked = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request =
        MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true);
    match client.ask(ApiKey::Metadata, 12, RequestKind::Metadata(request)).await {
        ResponseKind::Metadata(r) => (r.topics[0].error_code, r.topics[0].topic_id),
        other => panic!("{other:?}"),
    }
}

async fn fetch_by_id(client: &mut super::kit::Client, id: Uuid, offset: i64) -> i16 {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1000)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default().with_topic_id(id).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_max_bytes(1000).with_topics(vec![topic]);
    match client.ask(ApiKey::Fetch, 13, RequestKind::Fetch(request)).await {
        ResponseKind::Fetch(r) => r.responses[0].partitions[0].error_code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_has_another_id_and_the_old_one_is_unknown() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    let (_, first) = topic_id(&mut client, "t").await;
    client.produce("t", None, samples::plain(&[(Some("k"), Some("v"))])).await.unwrap();
    assert_eq!(fetch_by_id(&mut client, first, 0).await, 0);
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
    client.ask(ApiKey::DeleteTopics, 5, RequestKind::DeleteTopics(request)).await;
    client.create_topic("t", 1, &[]).await;
    let (_, second) = topic_id(&mut client, "t").await;
    assert_ne!(first, second);
    assert_eq!(fetch_by_id(&mut client, first, 0).await, ResponseError::UnknownTopicId.code());
    assert_eq!(client.offset("t", -1, false).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_and_their_ids_survive_power_loss() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 3, &[("retention.ms", "1000")]).await;
    let before = topic_id(&mut client, "t").await;
    bench.cut_power().await;
    bench.restart().await.unwrap();
    assert_eq!(topic_id(&mut bench.client().await, "t").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_for_a_topic_does_not_create_it_unless_that_is_switched_on() {
    let bench = Bench::start().await;
    let (error, _) = topic_id(&mut bench.client().await, "unknown").await;
    assert_eq!(error, ResponseError::UnknownTopicOrPartition.code());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_topic_refuses_records_without_a_key() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[("cleanup.policy", "compact")]).await;
    let rows = [(Some("k"), Some("v")), (None, Some("w"))];
    let refused = Err(ResponseError::InvalidRecord.code());
    assert_eq!(client.produce("t", None, samples::plain(&rows)).await, refused);
    let zstd = samples::compressed(kafka_protocol::records::Compression::Zstd, &rows);
    assert_eq!(client.produce("t", None, zstd).await, refused);
    assert_eq!(client.offset("t", -1, false).await, 0, "none of the batch is in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_gone_also_after_a_restart() {
    let mut bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    for n in 0..5 {
        client.produce("t", None, samples::plain(&[(Some(&n.to_string()), Some("v"))])).await.unwrap();
    }
    assert_eq!(client.delete_records("t", 3).await, (0, 3));
    assert_eq!(client.delete_records("t", 9).await.0, ResponseError::OffsetOutOfRange.code());
    let expected = [(3, "3".to_owned()), (4, "4".to_owned())];
    assert_eq!(client.read_all("t", false).await, expected);
    let below = client.fetch("t", 2, false, 0).await;
    assert_eq!(below.responses[0].partitions[0].error_code, ResponseError::OffsetOutOfRange.code());
    bench.kill().await;
    bench.restart().await.unwrap();
    assert_eq!(bench.client().await.read_all("t", false).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_removes_segments_by_age_and_by_size() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let now_ms = bench.clock.now_ms();
    let batch = |key: &str, timestamp| {
        let from = samples::From { timestamp, ..samples::ANYONE };
        samples::encode(from, kafka_protocol::records::Compression::None, &[(Some(key), Some("v"))])
    };
    client.create_topic("age", 1, &[("retention.ms", "60000"), ("segment.bytes", "1024")]).await;
    client.create_topic("size", 1, &[("retention.bytes", "2048"), ("segment.bytes", "1024")]).await;
    for n in 0..60 {
        let old = if n < 30 { now_ms - 120_000 } else { now_ms };
        client.produce("age", None, batch(&n.to_string(), old)).await.unwrap();
        client.produce("size", None, batch(&n.to_string(), now_ms)).await.unwrap();
    }
    bench.maintain().await;
    let first = client.offset("age", -2, false).await;
    assert!((15..=30).contains(&first), "first is {first}");
    let kept = 60 - client.offset("size", -2, false).await;
    assert!((25..=50).contains(&kept), "{kept} kept");
    bench.clock.advance_ms(120_000);
    bench.maintain().await;
    assert_eq!(client.offset("age", -2, false).await, 60, "even the active segment grows old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_found_by_time() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[("segment.bytes", "1024")]).await;
    for n in 0..100 {
        let from = samples::From { timestamp: 1_000 + n * 10, ..samples::ANYONE };
        let batch =
            samples::encode(from, kafka_protocol::records::Compression::None, &[(Some("k"), Some("v"))]);
        client.produce("t", None, batch).await.unwrap();
    }
    for n in [0, 1, 37, 99] {
        assert_eq!(client.offset("t", 1_000 + n * 10, false).await, n);
        assert_eq!(client.offset("t", 995 + n * 10, false).await, n);
    }
    assert_eq!(client.offset("t", 2_000, false).await, -1);
    assert_eq!(client.offset("t", -3, false).await, 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_checked_and_shown() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let refused = client.create_topic("t", 1, &[("cleanup.polcy", "compact")]).await;
    assert_eq!(refused, ResponseError::InvalidConfig.code());
    client.create_topic("t", 1, &[("cleanup.policy", "compact")]).await;
    let resource = describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    match client.ask(ApiKey::DescribeConfigs, 4, RequestKind::DescribeConfigs(request)).await {
        ResponseKind::DescribeConfigs(r) => {
            let policy = r.results[0].configs.iter().find(|c| c.name.as_str() == "cleanup.policy").unwrap();
            assert_eq!(policy.value.as_deref(), Some("compact"));
        }
        other => panic!("{other:?}"),
    }
}
