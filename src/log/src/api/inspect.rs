//! What administration tools and web pages look at.

use super::{text, topic_name};
use crate::ledger::{Phase, Transaction};
use crate::node::Node;
use crate::storage::Partition;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::describe_transactions_response::{
    TopicData, TransactionState as DescribedTransaction,
};
use kafka_protocol::messages::list_transactions_response::TransactionState as ListedTransaction;
use kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest, DescribeProducersResponse,
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse, ProducerId, TransactionalId,
};
use std::collections::BTreeMap;

/// Answers how large partitions are.
pub(super) fn log_dirs(
    node: &Node,
    request: &DescribeLogDirsRequest,
    version: i16,
) -> DescribeLogDirsResponse {
    let wanted = |name: &str, index: i32| {
        let topics = request.topics.as_ref();
        topics.is_none_or(|ts| ts.iter().any(|t| t.topic.as_str() == name && t.partitions.contains(&index)))
    };
    let partition = |p: &Partition| {
        DescribeLogDirsPartition::default()
            .with_partition_index(p.id.index)
            .with_partition_size(p.size() as i64)
    };
    let mut topics = Vec::new();
    for topic in node.topics.all() {
        let partitions = topic.partitions();
        let partitions = partitions.iter().filter(|p| wanted(&topic.name, p.id.index));
        let partitions: Vec<_> = partitions.map(|p| partition(p)).collect();
        if !partitions.is_empty() {
            let described = DescribeLogDirsTopic::default().with_name(topic_name(&topic.name));
            topics.push(described.with_partitions(partitions));
        }
    }
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(text(node.config.data_dir.display().to_string()))
        .with_topics(topics);
    if version >= 4 {
        result = result.with_total_bytes(-1).with_usable_bytes(-1);
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// Answers which producers partitions know.
pub(super) fn producers(node: &Node, request: &DescribeProducersRequest) -> DescribeProducersResponse {
    let one = |name: &str, index: i32| {
        let response = PartitionResponse::default().with_partition_index(index);
        match node.topics.partition(name, index) {
            None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            Some(partition) => response.with_active_producers(states(&partition)),
        }
    };
    let topics = request.topics.iter().map(|t| {
        let partitions = t.partition_indexes.iter().map(|index| one(&t.name, *index)).collect();
        TopicResponse::default().with_name(t.name.clone()).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn states(partition: &Partition) -> Vec<ProducerState> {
    let state = |p: crate::storage::KnownProducer| {
        ProducerState::default()
            .with_producer_id(ProducerId(p.id))
            .with_producer_epoch(i32::from(p.epoch))
            .with_last_sequence(p.last_sequence)
            .with_last_timestamp(p.last_ms)
            .with_coordinator_epoch(0)
            .with_current_txn_start_offset(p.open_from.unwrap_or(-1))
    };
    partition.known_producers().into_iter().map(state).collect()
}

fn state_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Empty => "Empty",
        Phase::Ongoing => "Ongoing",
        Phase::Decided(decision) if decision.commit => "PrepareCommit",
        Phase::Decided(_) => "PrepareAbort",
        Phase::Done { commit: true } => "CompleteCommit",
        Phase::Done { commit: false } => "CompleteAbort",
    }
}

/// Answers which transactional ids there are.
pub(super) fn list_transactions(node: &Node, request: &ListTransactionsRequest) -> ListTransactionsResponse {
    let wanted = |t: &Transaction| {
        let states = &request.state_filters;
        let ids = &request.producer_id_filters;
        (states.is_empty() || states.iter().any(|s| s.as_str() == state_name(&t.phase)))
            && (ids.is_empty() || ids.iter().any(|id| id.0 == t.producer_id))
    };
    let listed = |(id, t): (&String, &Transaction)| {
        ListedTransaction::default()
            .with_transactional_id(TransactionalId(text(id.clone())))
            .with_producer_id(ProducerId(t.producer_id))
            .with_transaction_state(text(state_name(&t.phase)))
    };
    let states =
        node.ledger.read(|state| state.transactions.iter().filter(|(_, t)| wanted(t)).map(listed).collect());
    ListTransactionsResponse::default().with_transaction_states(states)
}

/// Answers where transactions stand.
pub(super) fn describe_transactions(
    node: &Node,
    request: &DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let one = |id: &TransactionalId| {
        let found = node.ledger.read(|state| state.transactions.get(id.as_str()).cloned());
        let described = DescribedTransaction::default().with_transactional_id(id.clone());
        match found {
            None => described.with_error_code(ResponseError::TransactionalIdNotFound.code()),
            Some(t) => described
                .with_transaction_state(text(state_name(&t.phase)))
                .with_transaction_timeout_ms(t.timeout_ms)
                .with_transaction_start_time_ms(if t.phase == Phase::Ongoing { t.at_ms } else { -1 })
                .with_producer_id(ProducerId(t.producer_id))
                .with_producer_epoch(t.epoch)
                .with_topics(touched(node, &t)),
        }
    };
    let states = request.transactional_ids.iter().map(one).collect();
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn touched(node: &Node, transaction: &Transaction) -> Vec<TopicData> {
    let mut by_topic: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for at in &transaction.partitions {
        if let Some(topic) = node.topics.by_id(at.0) {
            by_topic.entry(topic.name.to_string()).or_default().push(at.1);
        }
    }
    let data = |(name, partitions): (String, Vec<i32>)| {
        TopicData::default().with_topic(topic_name(&name)).with_partitions(partitions)
    };
    by_topic.into_iter().map(data).collect()
}
