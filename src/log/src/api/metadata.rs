//! Topics, brokers and coordinators: there is one of the latter two.

use super::{code, text, topic_name};
use crate::node::{NODE_ID, Node};
use crate::storage::LEADER_EPOCH;
use crate::topics::{Topic, valid_name};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
    MetadataResponse,
};
use std::sync::Arc;

/// The protocol's "not asked for" in fields of permitted operations.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;

/// Answers which topics there are; creates those asked for, when that is switched on.
pub(super) async fn metadata(node: &Arc<Node>, request: MetadataRequest, version: i16) -> MetadataResponse {
    let may_create = node.config.auto_create_topics && (version < 4 || request.allow_auto_topic_creation);
    let topics = match request.topics {
        Some(asked) if !(version == 0 && asked.is_empty()) => {
            let mut found = Vec::with_capacity(asked.len());
            for topic in asked {
                found.push(one_topic(node, &topic, may_create).await);
            }
            found
        }
        _ => node.topics.all().iter().map(|topic| describe(topic)).collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(node.host.clone()))
        .with_port(i32::from(node.port));
    MetadataResponse::default()
        .with_cluster_id(Some(text(node.cluster_id.clone())))
        .with_controller_id(BrokerId(NODE_ID))
        .with_cluster_authorized_operations(OPERATIONS_UNKNOWN)
        .with_brokers(vec![broker])
        .with_topics(topics)
}

async fn one_topic(
    node: &Arc<Node>,
    asked: &MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    // Java's client asks by id with an empty name.
    let Some(name) = asked.name.as_ref().filter(|_| asked.topic_id.is_nil()) else {
        let found = node.topics.by_id(asked.topic_id);
        return found.map_or_else(
            || missing(ResponseError::UnknownTopicId).with_topic_id(asked.topic_id),
            |topic| describe(&topic),
        );
    };
    if !valid_name(name) {
        return missing(ResponseError::InvalidTopicException).with_name(Some(name.clone()));
    }
    if may_create && node.topics.get(name).is_none() {
        create(node, name).await;
    }
    match node.topics.get(name) {
        Some(topic) => describe(&topic),
        None => missing(ResponseError::UnknownTopicOrPartition).with_name(Some(name.clone())),
    }
}

async fn create(node: &Arc<Node>, name: &str) {
    match node.topics.create(name, -1, Default::default(), false) {
        Ok((_, _, number)) => {
            let _ = node.ledger.durable(number).await;
        }
        Err(refusal) => {
            tracing::warn!(topic = name, reason = refusal.message, "create a topic that was asked for")
        }
    }
}

fn missing(error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_topic_authorized_operations(OPERATIONS_UNKNOWN)
        .with_partitions((0..topic.partition_count()).map(partition).collect())
}

/// Answers who the brokers are.
pub(super) fn describe_cluster(node: &Node) -> DescribeClusterResponse {
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(text(node.host.clone()))
        .with_port(i32::from(node.port));
    DescribeClusterResponse::default()
        .with_endpoint_type(1)
        .with_cluster_id(text(node.cluster_id.clone()))
        .with_controller_id(BrokerId(NODE_ID))
        .with_cluster_authorized_operations(OPERATIONS_UNKNOWN)
        .with_brokers(vec![broker])
}

/// Answers who coordinates a group or a transactional id: the one broker.
pub(super) fn find_coordinator(
    node: &Node,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let known = if request.key_type > 1 { Err(ResponseError::InvalidRequest) } else { Ok(()) };
    let (host, port) = (text(node.host.clone()), i32::from(node.port));
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(code(&known))
            .with_node_id(BrokerId(NODE_ID))
            .with_host(host)
            .with_port(port);
    }
    let coordinator = |key| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(code(&known))
            .with_node_id(BrokerId(NODE_ID))
            .with_host(host.clone())
            .with_port(port)
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
}
