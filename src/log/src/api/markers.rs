//! Aborting one partition's part of a transaction by hand (`kafka-transactions.sh abort`).
//!
//! Between Kafka's brokers this request carries the coordinator's decisions. Here they never leave the process, so what comes from
//! outside may only abort: a commit is the coordinator's alone.

use super::code;
use crate::node::Node;
use crate::storage::AppendError;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

/// Ends what a producer has open in the partitions named.
pub(super) async fn write(node: &Node, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in &request.markers {
        let mut topics = Vec::with_capacity(marker.topics.len());
        for topic in &marker.topics {
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for &index in &topic.partition_indexes {
                let done = abort(node, marker, &topic.name, index).await;
                let result = WritableTxnMarkerPartitionResult::default().with_partition_index(index);
                partitions.push(result.with_error_code(code(&done)));
            }
            let result = WritableTxnMarkerTopicResult::default().with_name(topic.name.clone());
            topics.push(result.with_partitions(partitions));
        }
        let result = WritableTxnMarkerResult::default().with_producer_id(marker.producer_id);
        markers.push(result.with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(markers)
}

async fn abort(
    node: &Node,
    marker: &WritableTxnMarker,
    topic: &str,
    index: i32,
) -> Result<(), ResponseError> {
    if marker.transaction_result {
        return Err(ResponseError::InvalidRequest);
    }
    let topic = node.topics.get(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let partition = topic.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let (producer, epoch, rules) =
        (marker.producer_id.0, marker.producer_epoch, topic.config().rules.clone());
    let write = move || partition.end_transaction(producer, epoch, false, i64::MAX, &rules);
    let written = tokio::task::spawn_blocking(write).await;
    let written = written.unwrap_or_else(|e| Err(AppendError::Storage(std::io::Error::other(e))));
    match written.map_err(|refused| refused.response())? {
        Some(durability) => durability.reached().await.map_err(|_| ResponseError::KafkaStorageError),
        None => Ok(()),
    }
}
