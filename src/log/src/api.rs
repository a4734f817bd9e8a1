//! One file per family of requests: what Kafka's protocol asks of the rooms behind.

mod committed;
mod configs;
mod fetch;
mod groups;
mod inspect;
mod markers;
mod membership;
mod metadata;
mod offsets;
mod produce;
mod topics;
mod transactions;
mod versions;

#[cfg(test)]
pub(crate) use versions::OFFERED;
pub(crate) use versions::{is_supported, unsupported_version};

use crate::node::Node;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{RequestKind, ResponseKind, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) client: String,
    pub(crate) host: String,
}

/// An answer, with the memory budget it holds until it is sent.
pub(crate) struct Answer {
    pub(crate) body: ResponseKind,
    pub(crate) _budget: Option<OwnedSemaphorePermit>,
}

/// What becomes of a request.
pub(crate) enum Reply {
    Now(Box<Answer>),
    /// Later requests of the connection may be worked on meanwhile; the answer keeps its place.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
    /// The client wants none.
    Nothing,
}

impl From<ResponseKind> for Answer {
    fn from(body: ResponseKind) -> Answer {
        Answer { body, _budget: None }
    }
}

impl From<ResponseKind> for Reply {
    fn from(body: ResponseKind) -> Reply {
        Reply::Now(Box::new(body.into()))
    }
}

/// A request that is in the protocol but not offered.
#[derive(Debug, thiserror::Error)]
#[error("request is not served")]
pub(crate) struct NotServed;

/// Works on a request. The version was checked to be offered.
pub(crate) async fn handle(
    node: &Arc<Node>,
    caller: &Caller,
    version: i16,
    request: RequestKind,
) -> Result<Reply, NotServed> {
    use RequestKind as Q;
    use ResponseKind as R;
    let body = match request {
        Q::Produce(r) => return Ok(produce::produce(node, r).await),
        Q::Fetch(r) => return Ok(Reply::Now(Box::new(fetch::fetch(node, r, version).await))),
        Q::ApiVersions(_) => R::ApiVersions(versions::offered(None)),
        Q::Metadata(r) => R::Metadata(metadata::metadata(node, r, version).await),
        Q::DescribeCluster(_) => R::DescribeCluster(metadata::describe_cluster(node)),
        Q::FindCoordinator(r) => R::FindCoordinator(metadata::find_coordinator(node, r, version)),
        Q::ListOffsets(r) => R::ListOffsets(offsets::list_offsets(node, r, version).await),
        Q::OffsetForLeaderEpoch(r) => R::OffsetForLeaderEpoch(offsets::for_leader_epoch(node, r)),
        Q::DeleteRecords(r) => R::DeleteRecords(offsets::delete_records(node, r).await),
        Q::CreateTopics(r) => R::CreateTopics(topics::create(node, r, version).await),
        Q::DeleteTopics(r) => R::DeleteTopics(topics::delete(node, r, version).await),
        Q::CreatePartitions(r) => R::CreatePartitions(topics::create_partitions(node, r).await),
        Q::DescribeConfigs(r) => R::DescribeConfigs(configs::describe(node, r)),
        Q::AlterConfigs(r) => R::AlterConfigs(configs::alter(node, r).await),
        Q::IncrementalAlterConfigs(r) => {
            R::IncrementalAlterConfigs(configs::alter_incrementally(node, r).await)
        }
        Q::JoinGroup(r) => R::JoinGroup(membership::join(node, caller, r, version).await),
        Q::SyncGroup(r) => R::SyncGroup(membership::sync(node, r).await),
        Q::Heartbeat(r) => R::Heartbeat(membership::heartbeat(node, &r)),
        Q::LeaveGroup(r) => R::LeaveGroup(membership::leave(node, &r, version)),
        Q::OffsetCommit(r) => R::OffsetCommit(committed::commit(node, r).await),
        Q::OffsetFetch(r) => R::OffsetFetch(committed::fetch(node, &r, version)),
        Q::OffsetDelete(r) => R::OffsetDelete(committed::delete(node, &r).await),
        Q::DescribeGroups(r) => R::DescribeGroups(groups::describe(node, &r)),
        Q::ListGroups(r) => R::ListGroups(groups::list(node, &r, version)),
        Q::DeleteGroups(r) => R::DeleteGroups(groups::delete(node, &r).await),
        Q::InitProducerId(r) => R::InitProducerId(transactions::init_producer(node, r).await),
        Q::AddPartitionsToTxn(r) => R::AddPartitionsToTxn(transactions::add_partitions(node, r).await),
        Q::AddOffsetsToTxn(r) => R::AddOffsetsToTxn(transactions::add_offsets(node, r).await),
        Q::TxnOffsetCommit(r) => R::TxnOffsetCommit(transactions::commit_offsets(node, r).await),
        Q::EndTxn(r) => R::EndTxn(transactions::end(node, r).await),
        Q::WriteTxnMarkers(r) => R::WriteTxnMarkers(markers::write(node, r).await),
        Q::DescribeLogDirs(r) => R::DescribeLogDirs(inspect::log_dirs(node, &r, version)),
        Q::DescribeProducers(r) => R::DescribeProducers(inspect::producers(node, &r)),
        Q::ListTransactions(r) => R::ListTransactions(inspect::list_transactions(node, &r)),
        Q::DescribeTransactions(r) => R::DescribeTransactions(inspect::describe_transactions(node, &r)),
        _ => return Err(NotServed),
    };
    Ok(Reply::from(body))
}

/// A protocol string.
fn text(s: impl Into<String>) -> StrBytes {
    StrBytes::from_string(s.into())
}

/// A topic's name as the protocol has it.
fn topic_name(s: &str) -> TopicName {
    TopicName(text(s))
}

/// 0 for success, else the error's number.
fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    match result {
        Ok(_) => 0,
        Err(e) => e.code(),
    }
}

/// 0 for none, else the error's number.
fn code_of(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |e| e.code())
}
