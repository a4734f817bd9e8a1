//! Where partitions begin and end, by offset, time and leader epoch; and moving their begin.

use super::{code, code_of};
use crate::node::Node;
use crate::storage::{LEADER_EPOCH, Partition};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use std::io;
use std::sync::Arc;

/// Times with a meaning of their own.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const GREATEST_TIME: i64 = -3;
/// The protocol's "the high watermark" for record deletion.
const TO_THE_END: i64 = -1;

/// Answers which offset stands at a time, at the begin or at the end.
pub(super) async fn list_offsets(
    node: &Arc<Node>,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let own = node.clone();
    let committed = request.isolation_level == 1;
    let work = move || {
        let one_topic = |topic: kafka_protocol::messages::list_offsets_request::ListOffsetsTopic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let found = find(&own, &topic.name, asked.partition_index, asked.timestamp, committed);
                answer(asked.partition_index, found, version)
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
        };
        request.topics.into_iter().map(one_topic).collect()
    };
    let topics = tokio::task::spawn_blocking(work).await.unwrap_or_default();
    ListOffsetsResponse::default().with_topics(topics)
}

/// Offset and time, -1 for what there is none of.
fn find(
    node: &Node,
    topic: &str,
    index: i32,
    time: i64,
    committed: bool,
) -> Result<(i64, i64), ResponseError> {
    let partition = node.topics.partition(topic, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let bounds = partition.bounds();
    let by_time = |found: io::Result<Option<crate::batch::RecordHead>>| match found {
        Ok(found) => Ok(found.map_or((-1, -1), |head| (head.offset, head.timestamp))),
        Err(cause) => {
            tracing::error!(partition = %partition.id, time, %cause, "look up an offset by time");
            Err(ResponseError::KafkaStorageError)
        }
    };
    match time {
        EARLIEST => Ok((bounds.start, -1)),
        LATEST => Ok((if committed { bounds.stable } else { bounds.high }, -1)),
        GREATEST_TIME => by_time(partition.newest(committed)),
        time if time < 0 => Err(ResponseError::InvalidRequest),
        time => by_time(partition.first_at(time, committed)),
    }
}

fn answer(
    index: i32,
    found: Result<(i64, i64), ResponseError>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let (offset, timestamp) = found.unwrap_or((-1, -1));
    let epoch = if version >= 4 && offset >= 0 { LEADER_EPOCH } else { -1 };
    ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code(&found))
        .with_timestamp(timestamp)
        .with_offset(offset)
        .with_leader_epoch(epoch)
}

/// Answers where a leader's epoch ended. There was one epoch; a client that knows another has talked to another log.
pub(super) fn for_leader_epoch(
    node: &Node,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let one_topic =
        |topic: kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let partition = node.topics.partition(&topic.topic, asked.partition);
                end_of_epoch(asked, partition.as_deref())
            });
            let partitions = partitions.collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
        };
    let topics = request.topics.into_iter().map(one_topic).collect();
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

fn end_of_epoch(asked: &OffsetForLeaderPartition, partition: Option<&Partition>) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(asked.partition);
    let Some(partition) = partition else {
        return answer.with_error_code(ResponseError::UnknownTopicOrPartition.code());
    };
    if asked.current_leader_epoch > LEADER_EPOCH {
        return answer.with_error_code(ResponseError::UnknownLeaderEpoch.code());
    }
    if asked.leader_epoch != LEADER_EPOCH {
        return answer.with_leader_epoch(-1).with_end_offset(-1);
    }
    answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.bounds().high)
}

/// Deletes records below an offset.
pub(super) async fn delete_records(node: &Arc<Node>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let own = node.clone();
    let work = move || {
        let one_topic = |topic: kafka_protocol::messages::delete_records_request::DeleteRecordsTopic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let moved = delete_before(&own, &topic.name, asked.partition_index, asked.offset);
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_low_watermark(*moved.as_ref().unwrap_or(&-1))
                    .with_error_code(code_of(moved.err()))
            });
            let partitions = partitions.collect();
            DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
        };
        request.topics.into_iter().map(one_topic).collect()
    };
    let topics = tokio::task::spawn_blocking(work).await.unwrap_or_default();
    DeleteRecordsResponse::default().with_topics(topics)
}

fn delete_before(node: &Node, topic: &str, index: i32, offset: i64) -> Result<i64, ResponseError> {
    let partition = node.topics.partition(topic, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let offset = if offset == TO_THE_END { partition.bounds().high } else { offset };
    if offset < 0 {
        return Err(ResponseError::OffsetOutOfRange);
    }
    match partition.delete_before(offset) {
        Ok(Some(start)) => Ok(start),
        Ok(None) => Err(ResponseError::OffsetOutOfRange),
        Err(cause) => {
            tracing::error!(partition = %partition.id, offset, %cause, "delete records");
            Err(ResponseError::KafkaStorageError)
        }
    }
}
