//! Every request works in every version that is offered: one that can't be encoded makes old clients see "all brokers down".

use super::kit::{Bench, frame, name, text};
use crate::api::OFFERED;
use crate::connection::check_shape;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

fn id() -> TransactionalId {
    TransactionalId(text("x"))
}

fn null_or<T>(value: T, there: bool) -> Option<T> {
    there.then_some(value)
}

/// A request with something in each of its lists.
fn sample(key: ApiKey, v: i16, topic_id: Uuid) -> RequestKind {
    use RequestKind as Q;
    let t = || name("t");
    match key {
        ApiKey::Produce => super::kit::Client::produce_request(
            "t",
            0,
            None,
            crate::batch::samples::plain(&[(Some("k"), Some("v"))]),
        ),
        ApiKey::Fetch => {
            let partition = fetch_request::FetchPartition::default()
                .with_partition_max_bytes(100)
                .with_current_leader_epoch(-1);
            let topic = fetch_request::FetchTopic::default().with_partitions(vec![partition]);
            let topic = if v >= 13 { topic.with_topic_id(topic_id) } else { topic.with_topic(t()) };
            let forgotten = fetch_request::ForgottenTopic::default().with_partitions(vec![1, 2]);
            let forgotten =
                if v >= 13 { forgotten.with_topic_id(topic_id) } else { forgotten.with_topic(t()) };
            let request =
                FetchRequest::default().with_max_bytes(1).with_isolation_level(1).with_topics(vec![topic]);
            Q::Fetch(if v >= 7 { request.with_forgotten_topics_data(vec![forgotten]) } else { request })
        }
        ApiKey::ListOffsets => {
            let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
            let topic = list_offsets_request::ListOffsetsTopic::default()
                .with_name(t())
                .with_partitions(vec![partition]);
            Q::ListOffsets(ListOffsetsRequest::default().with_topics(vec![topic]))
        }
        ApiKey::Metadata => {
            let known = metadata_request::MetadataRequestTopic::default().with_name(Some(t()));
            let unknown = metadata_request::MetadataRequestTopic::default().with_name(Some(name("unknown")));
            let mut topics = vec![known, unknown];
            if v >= 12 {
                let by_id = metadata_request::MetadataRequestTopic::default().with_name(None);
                topics.push(by_id.with_topic_id(topic_id));
            }
            Q::Metadata(MetadataRequest::default().with_topics(Some(topics)))
        }
        ApiKey::OffsetCommit => {
            let partition = offset_commit_request::OffsetCommitRequestPartition::default();
            let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(t())
                .with_partitions(vec![partition]);
            let request = OffsetCommitRequest::default().with_generation_id_or_member_epoch(-1);
            Q::OffsetCommit(request.with_group_id(group("g")).with_topics(vec![topic]))
        }
        ApiKey::OffsetFetch if v >= 8 => {
            let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
                .with_name(t())
                .with_partition_indexes(vec![0, 1]);
            let some = offset_fetch_request::OffsetFetchRequestGroup::default().with_group_id(group("g"));
            let all = some.clone().with_topics(None);
            Q::OffsetFetch(
                OffsetFetchRequest::default().with_groups(vec![some.with_topics(Some(vec![topic])), all]),
            )
        }
        ApiKey::OffsetFetch => {
            let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(t())
                .with_partition_indexes(vec![0, 1]);
            Q::OffsetFetch(
                OffsetFetchRequest::default().with_group_id(group("g")).with_topics(Some(vec![topic])),
            )
        }
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest::default();
            Q::FindCoordinator(if v >= 4 {
                request.with_coordinator_keys(vec![text("g"), text("h")])
            } else {
                request.with_key(text("g"))
            })
        }
        ApiKey::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(bytes::Bytes::from_static(b"m"));
            Q::JoinGroup(
                JoinGroupRequest::default()
                    .with_group_id(group(&format!("j{v}")))
                    .with_session_timeout_ms(6000)
                    .with_protocol_type(text("consumer"))
                    .with_protocols(vec![protocol]),
            )
        }
        ApiKey::Heartbeat => Q::Heartbeat(HeartbeatRequest::default().with_group_id(group("g"))),
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest::default().with_group_id(group("g"));
            let member = leave_group_request::MemberIdentity::default().with_member_id(text("m"));
            Q::LeaveGroup(if v >= 3 { request.with_members(vec![member]) } else { request })
        }
        ApiKey::SyncGroup => {
            let assignment =
                sync_group_request::SyncGroupRequestAssignment::default().with_member_id(text("m"));
            let request =
                SyncGroupRequest::default().with_group_id(group("g")).with_assignments(vec![assignment]);
            Q::SyncGroup(request)
        }
        ApiKey::DescribeGroups => {
            Q::DescribeGroups(DescribeGroupsRequest::default().with_groups(vec![group("g"), group("j0")]))
        }
        ApiKey::ListGroups => {
            let states = if v >= 4 { vec![text("Stable"), text("Empty")] } else { vec![] };
            Q::ListGroups(ListGroupsRequest::default().with_states_filter(states))
        }
        ApiKey::ApiVersions => {
            let request = ApiVersionsRequest::default();
            let software = |s: &'static str| StrBytes::from_static_str(s);
            Q::ApiVersions(if v >= 3 {
                request.with_client_software_name(software("c")).with_client_software_version(software("1"))
            } else {
                request
            })
        }
        ApiKey::CreateTopics => {
            let assigned = create_topics_request::CreatableReplicaAssignment::default()
                .with_broker_ids(vec![BrokerId(1)]);
            let config = create_topics_request::CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1000")));
            let new = create_topics_request::CreatableTopic::default()
                .with_name(name(&format!("n{v}")))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![assigned])
                .with_configs(vec![config]);
            let there = create_topics_request::CreatableTopic::default().with_name(t());
            Q::CreateTopics(CreateTopicsRequest::default().with_topics(vec![new, there]))
        }
        ApiKey::DeleteTopics => {
            let request = DeleteTopicsRequest::default();
            let unknown = delete_topics_request::DeleteTopicState::default().with_topic_id(Uuid::new_v4());
            let named = delete_topics_request::DeleteTopicState::default().with_name(Some(name("n3")));
            Q::DeleteTopics(if v >= 6 {
                request.with_topics(vec![named, unknown.with_name(None)])
            } else {
                request.with_topic_names(vec![name("unknown"), name("n2")])
            })
        }
        ApiKey::DeleteRecords => {
            let partition = delete_records_request::DeleteRecordsPartition::default();
            let topic = delete_records_request::DeleteRecordsTopic::default()
                .with_name(t())
                .with_partitions(vec![partition]);
            Q::DeleteRecords(DeleteRecordsRequest::default().with_topics(vec![topic]))
        }
        ApiKey::InitProducerId => Q::InitProducerId(
            InitProducerIdRequest::default()
                .with_transactional_id(Some(id()))
                .with_transaction_timeout_ms(1000)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        ),
        ApiKey::OffsetForLeaderEpoch => {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(t())
                .with_partitions(vec![partition]);
            Q::OffsetForLeaderEpoch(OffsetForLeaderEpochRequest::default().with_topics(vec![topic]))
        }
        ApiKey::AddPartitionsToTxn => {
            let topic = add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
                .with_name(t())
                .with_partitions(vec![0, 7]);
            let request = AddPartitionsToTxnRequest::default().with_v3_and_below_transactional_id(id());
            Q::AddPartitionsToTxn(request.with_v3_and_below_topics(vec![topic]))
        }
        ApiKey::AddOffsetsToTxn => Q::AddOffsetsToTxn(
            AddOffsetsToTxnRequest::default().with_transactional_id(id()).with_group_id(group("g")),
        ),
        ApiKey::EndTxn => Q::EndTxn(EndTxnRequest::default().with_transactional_id(id())),
        ApiKey::WriteTxnMarkers => {
            let topic = write_txn_markers_request::WritableTxnMarkerTopic::default()
                .with_name(t())
                .with_partition_indexes(vec![0, 9]);
            let marker = |commit| {
                write_txn_markers_request::WritableTxnMarker::default()
                    .with_producer_id(ProducerId(1000))
                    .with_transaction_result(commit)
                    .with_topics(vec![topic.clone()])
            };
            Q::WriteTxnMarkers(
                WriteTxnMarkersRequest::default().with_markers(vec![marker(false), marker(true)]),
            )
        }
        ApiKey::TxnOffsetCommit => {
            let partition = txn_offset_commit_request::TxnOffsetCommitRequestPartition::default();
            let topic = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
                .with_name(t())
                .with_partitions(vec![partition]);
            let request =
                TxnOffsetCommitRequest::default().with_transactional_id(id()).with_group_id(group("g"));
            Q::TxnOffsetCommit(request.with_topics(vec![topic]))
        }
        ApiKey::DescribeConfigs => {
            let resource = |kind, n: &str, keys| {
                describe_configs_request::DescribeConfigsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(text(n))
                    .with_configuration_keys(null_or(vec![text("retention.ms")], keys))
            };
            let resources = vec![
                resource(2, "t", true),
                resource(2, "t", false),
                resource(4, "1", false),
                resource(9, "", false),
            ];
            Q::DescribeConfigs(DescribeConfigsRequest::default().with_resources(resources))
        }
        ApiKey::AlterConfigs => {
            let config = alter_configs_request::AlterableConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("5")));
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configs(vec![config]);
            Q::AlterConfigs(AlterConfigsRequest::default().with_resources(vec![resource]))
        }
        ApiKey::IncrementalAlterConfigs => {
            let config = incremental_alter_configs_request::AlterableConfig::default()
                .with_name(text("cleanup.policy"))
                .with_config_operation(2)
                .with_value(Some(text("compact")));
            let resource = incremental_alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configs(vec![config]);
            Q::IncrementalAlterConfigs(
                IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
            )
        }
        ApiKey::DescribeLogDirs => {
            let topic = describe_log_dirs_request::DescribableLogDirTopic::default()
                .with_topic(t())
                .with_partitions(vec![0]);
            Q::DescribeLogDirs(DescribeLogDirsRequest::default().with_topics(Some(vec![topic])))
        }
        ApiKey::CreatePartitions => {
            let assigned = create_partitions_request::CreatePartitionsAssignment::default()
                .with_broker_ids(vec![BrokerId(1)]);
            let topic = create_partitions_request::CreatePartitionsTopic::default()
                .with_name(t())
                .with_count(1)
                .with_assignments(Some(vec![assigned]));
            Q::CreatePartitions(CreatePartitionsRequest::default().with_topics(vec![topic]))
        }
        ApiKey::DeleteGroups => {
            Q::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(vec![group("none")]))
        }
        ApiKey::OffsetDelete => {
            let partition = offset_delete_request::OffsetDeleteRequestPartition::default();
            let topic = offset_delete_request::OffsetDeleteRequestTopic::default()
                .with_name(t())
                .with_partitions(vec![partition]);
            Q::OffsetDelete(OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![topic]))
        }
        ApiKey::DescribeCluster => Q::DescribeCluster(DescribeClusterRequest::default()),
        ApiKey::DescribeProducers => {
            let topic = describe_producers_request::TopicRequest::default()
                .with_name(t())
                .with_partition_indexes(vec![0, 9]);
            Q::DescribeProducers(DescribeProducersRequest::default().with_topics(vec![topic]))
        }
        ApiKey::DescribeTransactions => Q::DescribeTransactions(
            DescribeTransactionsRequest::default()
                .with_transactional_ids(vec![id(), TransactionalId(text("unknown"))]),
        ),
        ApiKey::ListTransactions => Q::ListTransactions(
            ListTransactionsRequest::default()
                .with_state_filters(vec![text("Empty"), text("Ongoing")])
                .with_producer_id_filters(vec![ProducerId(1000)]),
        ),
        other => panic!("{other:?} is offered without a sample"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_offered_version_of_every_request_is_answered() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 2, &[]).await;
    let topic_id = bench.log().node().topics.get("t").unwrap().id;
    for (key, low, high) in OFFERED {
        for version in *low..=*high {
            let request = sample(*key, version, topic_id);
            client.send(*key, version, &request).await;
            assert!(client.try_receive(*key, version).await.is_some(), "{key:?} version {version}");
        }
    }
}

#[test]
fn the_shape_of_every_offered_version_fits_to_the_byte() {
    for (key, low, high) in OFFERED {
        for version in *low..=*high {
            let request = sample(*key, version, Uuid::new_v4());
            let mut body = bytes::BytesMut::new();
            request.encode(&mut body, version).unwrap();
            assert_eq!(check_shape(*key, version, &body), Ok(0), "{key:?} version {version}");
            for at in 0..body.len() {
                let _ = check_shape(*key, version, &body[..at]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_in_a_newer_version_is_told_which_there_are() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let mut bytes =
        frame(ApiKey::ApiVersions, 3, 1, &RequestKind::ApiVersions(ApiVersionsRequest::default()));
    bytes[7] = 99;
    client.send_raw(&bytes).await;
    match client.receive(ApiKey::ApiVersions, 0).await {
        ResponseKind::ApiVersions(r) => {
            assert_eq!(r.error_code, kafka_protocol::error::ResponseError::UnsupportedVersion.code());
            assert_eq!(r.api_keys.len(), OFFERED.len());
        }
        other => panic!("{other:?}"),
    }
}
