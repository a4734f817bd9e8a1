//! Idempotent and transactional producers.

use super::committed::acceptable;
use super::{code, code_of};
use crate::coordinator::Claim;
use crate::ledger::{CommittedOffset, GroupOffset, TopicPartition};
use crate::node::Node;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use std::sync::Arc;

/// Gives out a producer id; for a transactional id, ends what was open and fences who had it.
pub(super) async fn init_producer(
    node: &Arc<Node>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let known = (request.producer_id.0 >= 0).then_some((request.producer_id.0, request.producer_epoch));
    let given = match &request.transactional_id {
        None => node.coordinator.new_producer().await,
        Some(id) => node.coordinator.initialize(id, request.transaction_timeout_ms, known).await,
    };
    let (id, epoch) = *given.as_ref().unwrap_or(&(-1, -1));
    InitProducerIdResponse::default()
        .with_error_code(code(&given))
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(epoch)
}

/// Takes partitions into a transaction: all or none.
pub(super) async fn add_partitions(
    node: &Arc<Node>,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let mut partitions = Vec::new();
    let mut all_known = true;
    for topic in &request.v3_and_below_topics {
        for index in &topic.partitions {
            match find(node, &topic.name, *index) {
                Some(at) => partitions.push(at),
                None => all_known = false,
            }
        }
    }
    let claim = Claim {
        id: &request.v3_and_below_transactional_id,
        producer_id: request.v3_and_below_producer_id.0,
        epoch: request.v3_and_below_producer_epoch,
    };
    let outcome = if all_known { node.coordinator.join(claim, partitions).await } else { Ok(()) };
    let result_of = |topic: &str, index: i32| match find(node, topic, index) {
        None => ResponseError::UnknownTopicOrPartition.code(),
        Some(_) if !all_known => ResponseError::OperationNotAttempted.code(),
        Some(_) => code(&outcome),
    };
    let topics = request.v3_and_below_topics.iter().map(|topic| {
        let partition = |index: &i32| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(result_of(&topic.name, *index))
        };
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(topic.partitions.iter().map(partition).collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics.collect())
}

fn find(node: &Node, topic: &str, index: i32) -> Option<TopicPartition> {
    let topic = node.topics.get(topic)?;
    topic.partition(index)?;
    Some(TopicPartition(topic.id, index))
}

/// Begins a transaction that will hold consumed offsets.
pub(super) async fn add_offsets(
    node: &Arc<Node>,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let claim = Claim {
        id: &request.transactional_id,
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let joined = node.coordinator.join(claim, Vec::new()).await;
    AddOffsetsToTxnResponse::default().with_error_code(code(&joined))
}

/// Takes consumed offsets into a transaction; they count when it is committed.
pub(super) async fn commit_offsets(
    node: &Arc<Node>,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let outcome = join_offsets(node, &request).await;
    let topics = request.topics.iter().map(|topic| {
        let partition =
            |p: &kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition| {
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code_of(outcome.err()))
            };
        TxnOffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(topic.partitions.iter().map(partition).collect())
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

async fn join_offsets(node: &Arc<Node>, request: &TxnOffsetCommitRequest) -> Result<(), ResponseError> {
    let instance = request.group_instance_id.as_ref().map(|i| i.as_str());
    if request.generation_id >= 0 || !request.member_id.is_empty() {
        let now_ms = node.clock.now_ms();
        node.groups.with(&request.group_id, |group| {
            group.check(&request.member_id, request.generation_id, instance, now_ms)
        })?;
    }
    let mut offsets: Vec<GroupOffset> = Vec::new();
    for topic in &request.topics {
        for asked in &topic.partitions {
            let metadata = asked.committed_metadata.as_ref().map_or("", |m| m.as_str());
            acceptable(node, &topic.name, asked.partition_index, metadata)?;
            let offset = CommittedOffset {
                offset: asked.committed_offset,
                leader_epoch: asked.committed_leader_epoch,
                metadata: metadata.to_owned(),
            };
            offsets.push((topic.name.to_string(), asked.partition_index, offset));
        }
    }
    let claim = Claim {
        id: &request.transactional_id,
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    node.coordinator.join_offsets(claim, &request.group_id, offsets).await
}

/// Commits or aborts.
pub(super) async fn end(node: &Arc<Node>, request: EndTxnRequest) -> EndTxnResponse {
    let claim = Claim {
        id: &request.transactional_id,
        producer_id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let ended = node.coordinator.end(claim, request.committed).await;
    EndTxnResponse::default().with_error_code(code(&ended))
}
