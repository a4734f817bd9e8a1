//! Produce: append now, answer once it is durable.

use super::{Answer, Reply};
use crate::batch::BatchHeader;
use crate::coordinator::Claim;
use crate::ledger::TopicPartition;
use crate::node::Node;
use crate::storage::{Appended, Durability};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, ResponseKind, TopicName};
use std::sync::Arc;

/// Appends all batches of a request. With acks 0 nothing is answered; 1 and all are the same: after the fsync.
pub(super) async fn produce(node: &Arc<Node>, request: ProduceRequest) -> Reply {
    let wants_answer = request.acks != 0;
    let own = node.clone();
    let transaction = request.transactional_id.as_ref().map(|id| id.to_string());
    // Keeps the transaction from being ended between the check that it is open and the append.
    let open = match &transaction {
        Some(id) => Some(node.coordinator.hold_open(id).await),
        None => None,
    };
    let append = move || {
        let _open = open;
        append_all(&own, request, transaction.as_deref())
    };
    let Ok(results) = tokio::task::spawn_blocking(append).await else {
        tracing::error!("a produce request was not finished");
        return Reply::Nothing;
    };
    if !wants_answer {
        return Reply::Nothing;
    }
    Reply::Later(Box::pin(answer(results)))
}

/// What became of each batch, by topic.
type Results = Vec<(TopicName, Vec<(i32, Result<Appended, ResponseError>)>)>;

fn append_all(node: &Node, request: ProduceRequest, transaction: Option<&str>) -> Results {
    let mut results = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut of_topic = Vec::with_capacity(topic.partition_data.len());
        for partition in topic.partition_data {
            let records = partition.records.unwrap_or_default();
            let result = append(node, &topic.name, partition.index, &records, transaction);
            of_topic.push((partition.index, result));
        }
        results.push((topic.name, of_topic));
    }
    results
}

fn append(
    node: &Node,
    name: &str,
    index: i32,
    records: &Bytes,
    transaction: Option<&str>,
) -> Result<Appended, ResponseError> {
    let topic = node.topics.get(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let partition = topic.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    if let Ok(header) = BatchHeader::decode(records) {
        admit(node, &header, TopicPartition(topic.id, index), transaction)?;
    }
    partition.append(records, &topic.config().rules).map_err(|refused| {
        if let crate::storage::AppendError::Storage(cause) = &refused {
            tracing::error!(partition = %partition.id, %cause, "append");
        }
        refused.response()
    })
}

/// A transactional batch belongs into the open transaction of the id that the request names.
fn admit(
    node: &Node,
    header: &BatchHeader,
    at: TopicPartition,
    transaction: Option<&str>,
) -> Result<(), ResponseError> {
    match transaction {
        Some(id) if header.transactional() => {
            let claim = Claim { id, producer_id: header.producer_id, epoch: header.producer_epoch };
            node.coordinator.admit(claim, at)
        }
        None if !header.transactional() => Ok(()),
        _ => Err(ResponseError::InvalidTxnState),
    }
}

async fn answer(results: Results) -> Answer {
    let mut topics = Vec::with_capacity(results.len());
    for (name, of_topic) in results {
        let mut partitions = Vec::with_capacity(of_topic.len());
        for (index, result) in of_topic {
            partitions.push(partition_answer(index, result).await);
        }
        topics.push(TopicProduceResponse::default().with_name(name).with_partition_responses(partitions));
    }
    ResponseKind::Produce(ProduceResponse::default().with_responses(topics)).into()
}

async fn partition_answer(index: i32, result: Result<Appended, ResponseError>) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default()
        .with_index(index)
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1);
    let appended = match result {
        Ok(appended) => appended,
        Err(error) => return answer.with_error_code(error.code()),
    };
    let Appended { base_offset, log_start, append_time, durability } = appended;
    if Durability::reached(durability).await.is_err() {
        return answer.with_error_code(ResponseError::KafkaStorageError.code());
    }
    answer.with_base_offset(base_offset).with_log_append_time_ms(append_time).with_log_start_offset(log_start)
}
