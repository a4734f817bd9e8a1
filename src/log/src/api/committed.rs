//! Groups' offsets: committed, fetched, deleted. A commit is durable before it is answered.

use super::{code, text, topic_name};
use crate::ledger::{CommittedOffset, Event, GroupOffset, LedgerState, Phase};
use crate::node::Node;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use std::sync::Arc;

/// Longest metadata of a commit, in bytes.
pub(super) const MAX_METADATA_BYTES: usize = 4096;
/// First version in which several groups are asked at once.
const MANY_GROUPS: i16 = 8;

/// Commits a group's offsets.
pub(super) async fn commit(node: &Arc<Node>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let now_ms = node.clock.now_ms();
    let instance = request.group_instance_id.as_ref().map(|i| i.to_string());
    let generation = request.generation_id_or_member_epoch;
    let allowed = node.groups.with(&request.group_id, |group| {
        group.may_commit(&request.member_id, generation, instance.as_deref(), now_ms)
    });
    let mut accepted: Vec<GroupOffset> = Vec::new();
    let mut outcomes = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut of_topic = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let metadata = asked.committed_metadata.as_ref().map_or("", |m| m.as_str());
            let good = allowed.and_then(|()| acceptable(node, &topic.name, asked.partition_index, metadata));
            if good.is_ok() {
                let offset = CommittedOffset {
                    offset: asked.committed_offset,
                    leader_epoch: asked.committed_leader_epoch,
                    metadata: metadata.to_owned(),
                };
                accepted.push((topic.name.to_string(), asked.partition_index, offset));
            }
            of_topic.push((asked.partition_index, good));
        }
        outcomes.push((topic.name.clone(), of_topic));
    }
    let stored = store(node, request.group_id.to_string(), now_ms, accepted).await;
    let topics = outcomes.into_iter().map(|(name, of_topic)| {
        let partitions = of_topic.into_iter().map(|(index, outcome)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code(&outcome.and(stored)))
        });
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Whether an offset of the partition may be stored.
pub(super) fn acceptable(node: &Node, topic: &str, index: i32, metadata: &str) -> Result<(), ResponseError> {
    if node.topics.partition(topic, index).is_none() {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    if metadata.len() > MAX_METADATA_BYTES {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(())
}

async fn store(
    node: &Node,
    group: String,
    at_ms: i64,
    offsets: Vec<GroupOffset>,
) -> Result<(), ResponseError> {
    if offsets.is_empty() {
        return Ok(());
    }
    let unavailable = |_| ResponseError::CoordinatorNotAvailable;
    let number = node.ledger.record(&Event::Offsets { group, at_ms, offsets }).map_err(unavailable)?;
    node.ledger.durable(number).await.map_err(unavailable)
}

/// Answers groups' offsets.
pub(super) fn fetch(node: &Node, request: &OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    node.ledger.read(|state| {
        let lookup = Lookup { state, stable: request.require_stable };
        if version >= MANY_GROUPS {
            let groups = request.groups.iter().map(|asked| {
                let asked_topics = asked.topics.as_ref();
                let wanted = asked_topics
                    .map(|ts| ts.iter().map(|t| (t.name.to_string(), t.partition_indexes.clone())).collect());
                let topics = lookup.topics(&asked.group_id, wanted).into_iter().map(topic_of_group);
                OffsetFetchResponseGroup::default()
                    .with_group_id(asked.group_id.clone())
                    .with_topics(topics.collect())
            });
            return OffsetFetchResponse::default().with_groups(groups.collect());
        }
        let asked_topics = request.topics.as_ref();
        let wanted = asked_topics
            .map(|ts| ts.iter().map(|t| (t.name.to_string(), t.partition_indexes.clone())).collect());
        let topics = lookup.topics(&request.group_id, wanted).into_iter().map(topic_of_one);
        OffsetFetchResponse::default().with_topics(topics.collect())
    })
}

/// Topic, and offset or error of its partitions.
type Found = (String, Vec<(i32, Result<CommittedOffset, ResponseError>)>);

struct Lookup<'a> {
    state: &'a LedgerState,
    /// Whether offsets that a transaction is about to change are withheld.
    stable: bool,
}

impl Lookup<'_> {
    /// Offsets in the wanted partitions, or in all that the group has.
    fn topics(&self, group: &str, wanted: Option<Vec<(String, Vec<i32>)>>) -> Vec<Found> {
        let wanted = wanted.unwrap_or_else(|| self.all_of(group));
        let of_topic = |(topic, indexes): (String, Vec<i32>)| {
            let partitions = indexes.into_iter().map(|i| (i, self.offset(group, &topic, i))).collect();
            (topic, partitions)
        };
        wanted.into_iter().map(of_topic).collect()
    }

    fn all_of(&self, group: &str) -> Vec<(String, Vec<i32>)> {
        let entry = self.state.groups.get(group);
        let topics = entry.into_iter().flat_map(|g| &g.offsets);
        topics.map(|(topic, partitions)| (topic.clone(), partitions.keys().copied().collect())).collect()
    }

    fn offset(&self, group: &str, topic: &str, index: i32) -> Result<CommittedOffset, ResponseError> {
        if self.stable && self.pending(group, topic, index) {
            return Err(ResponseError::UnstableOffsetCommit);
        }
        let none = CommittedOffset { offset: -1, leader_epoch: -1, metadata: String::new() };
        Ok(self.state.offset(group, topic, index).cloned().unwrap_or(none))
    }

    fn pending(&self, group: &str, topic: &str, index: i32) -> bool {
        let open = |phase: &Phase| match phase {
            Phase::Ongoing => true,
            Phase::Decided(decision) => decision.commit,
            Phase::Empty | Phase::Done { .. } => false,
        };
        let of_open = self.state.transactions.values().filter(|t| open(&t.phase)).flat_map(|t| &t.offsets);
        of_open.into_iter().any(|(g, (t, p, _))| g == group && t == topic && *p == index)
    }
}

fn topic_of_group((name, partitions): Found) -> OffsetFetchResponseTopics {
    let partition = |(index, found): (i32, Result<CommittedOffset, ResponseError>)| {
        let error_code = code(&found);
        let answer = OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_error_code(error_code)
            .with_committed_offset(-1)
            .with_metadata(Some(text("")));
        match found {
            Ok(o) => answer
                .with_committed_offset(o.offset)
                .with_committed_leader_epoch(o.leader_epoch)
                .with_metadata(Some(text(o.metadata))),
            Err(_) => answer,
        }
    };
    OffsetFetchResponseTopics::default()
        .with_name(topic_name(&name))
        .with_partitions(partitions.into_iter().map(partition).collect())
}

fn topic_of_one((name, partitions): Found) -> OffsetFetchResponseTopic {
    let partition = |(index, found): (i32, Result<CommittedOffset, ResponseError>)| {
        let error_code = code(&found);
        let answer = OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(error_code)
            .with_committed_offset(-1)
            .with_metadata(Some(text("")));
        match found {
            Ok(o) => answer
                .with_committed_offset(o.offset)
                .with_committed_leader_epoch(o.leader_epoch)
                .with_metadata(Some(text(o.metadata))),
            Err(_) => answer,
        }
    };
    OffsetFetchResponseTopic::default()
        .with_name(topic_name(&name))
        .with_partitions(partitions.into_iter().map(partition).collect())
}

/// Deletes single offsets of a group without members.
pub(super) async fn delete(node: &Arc<Node>, request: &OffsetDeleteRequest) -> OffsetDeleteResponse {
    let busy = node.groups.with(&request.group_id, |group| !group.members.is_empty());
    let known = node.ledger.read(|state| state.groups.contains_key(request.group_id.as_str()));
    let refusal = match (busy, known) {
        (true, _) => Some(ResponseError::NonEmptyGroup),
        (false, false) => Some(ResponseError::GroupIdNotFound),
        (false, true) => None,
    };
    if let Some(error) = refusal {
        return OffsetDeleteResponse::default().with_error_code(error.code());
    }
    let named = |t: &kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic| {
        t.partitions.iter().map(|p| (t.name.to_string(), p.partition_index)).collect::<Vec<_>>()
    };
    let partitions = request.topics.iter().flat_map(named).collect();
    let event = Event::OffsetsDeleted { group: request.group_id.to_string(), partitions };
    let stored = match node.ledger.record(&event) {
        Ok(number) => node.ledger.durable(number).await,
        Err(fault) => Err(fault),
    };
    let outcome = stored.map_err(|_| ResponseError::CoordinatorNotAvailable);
    let topics = request.topics.iter().map(|t| {
        let partition =
            |p: &kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestPartition| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code(&outcome))
            };
        OffsetDeleteResponseTopic::default()
            .with_name(t.name.clone())
            .with_partitions(t.partitions.iter().map(partition).collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
