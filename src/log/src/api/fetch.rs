//! Fetch: whole batches below the high watermark or the last stable offset, waiting for them if need be.
//!
//! Memory: what is fetched, at most [`MAX_RESPONSE_BYTES`] or one batch, taken from the common budget until it is sent.

use super::Answer;
use crate::node::{BUDGET_UNIT, Node};
use crate::storage::{Fetched, LEADER_EPOCH, Partition, Wakeup};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId, ResponseKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

/// Most bytes of records in one response, unless the first batch is larger.
const MAX_RESPONSE_BYTES: usize = 8 << 20;
/// Longest time that a fetch waits.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// First version in which topics are named by id.
const BY_ID: i16 = 13;

/// One partition to read.
#[derive(Clone)]
struct Job {
    topic: usize,
    index: i32,
    offset: i64,
    max_bytes: usize,
    target: Result<Arc<Partition>, ResponseError>,
}

/// Answers a fetch.
pub(super) async fn fetch(node: &Arc<Node>, request: FetchRequest, version: i16) -> Answer {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let committed = request.isolation_level == 1;
    let jobs = Arc::new(jobs(node, &request, version));
    let wakeup = Wakeup::default();
    let watched = jobs.iter().filter_map(|job| job.target.as_ref().ok());
    let _watching: Vec<_> = watched.map(|partition| partition.watch(&wakeup)).collect();
    let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).clamp(1, MAX_RESPONSE_BYTES);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
    loop {
        let late = Instant::now() >= deadline;
        if late || min_bytes == 0 || jobs.iter().any(|job| job.is_ready(committed)) {
            let (results, bytes, budget) = read(node, &jobs, committed, max_bytes).await;
            let failed = results.iter().any(Result::is_err);
            if late || failed || bytes >= min_bytes {
                let body = ResponseKind::Fetch(respond(&request.topics, &jobs, results, version));
                return Answer { body, _budget: budget };
            }
        }
        let _ = timeout_at(deadline, wakeup.notified()).await;
    }
}

fn jobs(node: &Node, request: &FetchRequest, version: i16) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (at, topic) in request.topics.iter().enumerate() {
        let found = if version >= BY_ID {
            node.topics.by_id(topic.topic_id).ok_or(ResponseError::UnknownTopicId)
        } else {
            node.topics.get(&topic.topic).ok_or(ResponseError::UnknownTopicOrPartition)
        };
        for asked in &topic.partitions {
            let partition = found.as_ref().map_err(|e| *e).and_then(|topic| {
                topic.partition(asked.partition).ok_or(ResponseError::UnknownTopicOrPartition)
            });
            jobs.push(Job {
                topic: at,
                index: asked.partition,
                offset: asked.fetch_offset,
                max_bytes: usize::try_from(asked.partition_max_bytes).unwrap_or(0).max(1),
                target: partition.and_then(|p| check_epoch(asked).map(|()| p)),
            });
        }
    }
    jobs
}

/// A client that knows a newer leader has talked to another log.
fn check_epoch(asked: &FetchPartition) -> Result<(), ResponseError> {
    match asked.current_leader_epoch {
        -1 | LEADER_EPOCH => Ok(()),
        _ => Err(ResponseError::UnknownLeaderEpoch),
    }
}

impl Job {
    /// Whether reading now gives something: records or an error.
    fn is_ready(&self, committed: bool) -> bool {
        let Ok(partition) = &self.target else {
            return true;
        };
        let bounds = partition.bounds();
        let limit = if committed { bounds.stable } else { bounds.high };
        self.offset < limit || self.offset < bounds.start || self.offset > partition.end()
    }

    fn read(&self, committed: bool, left: usize) -> Result<Fetched, ResponseError> {
        let partition = self.target.as_ref().map_err(|e| *e)?;
        match partition.read(self.offset, committed, left.min(self.max_bytes)) {
            Ok(Some(fetched)) => Ok(fetched),
            Ok(None) => Err(ResponseError::OffsetOutOfRange),
            Err(cause) => {
                tracing::error!(partition = %partition.id, offset = self.offset, %cause, "read");
                Err(ResponseError::KafkaStorageError)
            }
        }
    }
}

type Read = (Vec<Result<Fetched, ResponseError>>, usize, Option<OwnedSemaphorePermit>);

/// Reads all partitions in turn until `max_bytes` are reached.
async fn read(node: &Arc<Node>, jobs: &Arc<Vec<Job>>, committed: bool, max_bytes: usize) -> Read {
    let ready = jobs.iter().any(|job| job.is_ready(committed));
    let units = if ready { max_bytes.div_ceil(BUDGET_UNIT) as u32 } else { 0 };
    let budget = node.fetch_budget.clone().acquire_many_owned(units).await.ok();
    let own = jobs.clone();
    let work = move || {
        let mut left = max_bytes;
        let mut bytes = 0;
        let read_one = |job: &Job| {
            let result = job.read(committed, left);
            let length = result.as_ref().map_or(0, |fetched| fetched.records.len());
            left = left.saturating_sub(length);
            bytes += length;
            result
        };
        let results: Vec<_> = own.iter().map(read_one).collect();
        (results, bytes)
    };
    let (results, bytes) = tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| (jobs.iter().map(|_| Err(ResponseError::UnknownServerError)).collect(), 0));
    (results, bytes, keep_used(budget, bytes))
}

/// Gives back what the records did not need.
fn keep_used(budget: Option<OwnedSemaphorePermit>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let mut budget = budget?;
    let used = bytes.div_ceil(BUDGET_UNIT).min(budget.num_permits());
    budget.split(used)
}

fn respond(
    topics: &[FetchTopic],
    jobs: &[Job],
    results: Vec<Result<Fetched, ResponseError>>,
    version: i16,
) -> FetchResponse {
    let mut responses: Vec<_> = topics
        .iter()
        .map(|topic| {
            let response = FetchableTopicResponse::default();
            if version >= BY_ID {
                response.with_topic_id(topic.topic_id)
            } else {
                response.with_topic(topic.topic.clone())
            }
        })
        .collect();
    for (job, result) in jobs.iter().zip(results) {
        responses[job.topic].partitions.push(partition_data(job, result));
    }
    FetchResponse::default().with_responses(responses)
}

fn partition_data(job: &Job, result: Result<Fetched, ResponseError>) -> PartitionData {
    let data = PartitionData::default()
        .with_partition_index(job.index)
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(Bytes::new()));
    let bounds = job.target.as_ref().ok().map(|partition| partition.bounds());
    match result {
        Ok(fetched) => data
            .with_high_watermark(fetched.bounds.high)
            .with_last_stable_offset(fetched.bounds.stable)
            .with_log_start_offset(fetched.bounds.start)
            .with_aborted_transactions(Some(fetched.aborted.iter().map(aborted).collect()))
            .with_records(Some(fetched.records)),
        Err(error) => data
            .with_error_code(error.code())
            .with_high_watermark(bounds.map_or(-1, |b| b.high))
            .with_last_stable_offset(bounds.map_or(-1, |b| b.stable))
            .with_log_start_offset(bounds.map_or(-1, |b| b.start)),
    }
}

fn aborted(transaction: &crate::storage::Aborted) -> AbortedTransaction {
    AbortedTransaction::default()
        .with_producer_id(ProducerId(transaction.producer_id))
        .with_first_offset(transaction.first_offset)
}
