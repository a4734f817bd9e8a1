//! Creating, growing and deleting topics; each is durable before it is answered.

use super::{text, topic_name};
use crate::node::Node;
use crate::topic_config::Settings;
use crate::topics::Refusal;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};
use std::sync::Arc;
use uuid::Uuid;

/// First version in which topics can be deleted by id.
const DELETE_BY_ID: i16 = 6;

/// Creates topics.
pub(super) async fn create(
    node: &Arc<Node>,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let created = create_one(node, &topic, request.validate_only).await;
        results.push(create_result(&topic, created, version));
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create_one(
    node: &Arc<Node>,
    topic: &CreatableTopic,
    only_check: bool,
) -> Result<(Uuid, i32), Refusal> {
    if topic.replication_factor > 1 {
        let message = "one node can't hold more than one replica; use replication factor 1 or -1".to_owned();
        return Err(Refusal { error: ResponseError::InvalidReplicationFactor, message });
    }
    let partitions = match topic.assignments.len() {
        0 => topic.num_partitions,
        assigned => assigned as i32,
    };
    let set = topic.configs.iter().filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())));
    let settings: Settings = set.collect();
    let (own, name) = (node.clone(), topic.name.to_string());
    let work = move || own.topics.create(&name, partitions, settings, only_check);
    let (id, partitions, number) = in_background(work).await?;
    durable(node, number).await?;
    Ok((id, partitions))
}

fn create_result(
    topic: &CreatableTopic,
    created: Result<(Uuid, i32), Refusal>,
    version: i16,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic.name.clone()).with_configs(Some(Vec::new()));
    match created {
        Ok((id, partitions)) => {
            let result = result.with_topic_id(id).with_num_partitions(partitions);
            if version >= 5 { result.with_replication_factor(1) } else { result }
        }
        Err(refusal) => result
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_error_code(refusal.error.code())
            .with_error_message(Some(text(refusal.message))),
    }
}

/// Deletes topics, by name or by id.
pub(super) async fn delete(
    node: &Arc<Node>,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let targets: Vec<(Option<String>, Uuid)> = if version < DELETE_BY_ID {
        request.topic_names.iter().map(|name| (Some(name.to_string()), Uuid::nil())).collect()
    } else {
        request.topics.iter().map(|t| (t.name.as_ref().map(|n| n.to_string()), t.topic_id)).collect()
    };
    let mut responses = Vec::with_capacity(targets.len());
    for (name, id) in targets {
        let found = name.clone().or_else(|| node.topics.by_id(id).map(|t| t.name.to_string()));
        let result =
            DeletableTopicResult::default().with_name(name.as_deref().map(topic_name)).with_topic_id(id);
        responses.push(match found {
            None => result.with_error_code(ResponseError::UnknownTopicId.code()),
            Some(found) => match delete_one(node, found.clone()).await {
                Ok(id) => result.with_name(Some(topic_name(&found))).with_topic_id(id),
                Err(refusal) => result.with_error_code(refusal.error.code()),
            },
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete_one(node: &Arc<Node>, name: String) -> Result<Uuid, Refusal> {
    let own = node.clone();
    let (id, number) = in_background(move || own.topics.delete(&name)).await?;
    durable(node, number).await?;
    let own = node.clone();
    in_background(move || {
        own.topics.remove_files(id);
        Ok(id)
    })
    .await
}

/// Gives topics more partitions.
pub(super) async fn create_partitions(
    node: &Arc<Node>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let (own, name) = (node.clone(), topic.name.to_string());
        let grown = in_background(move || own.topics.grow(&name, topic.count, request.validate_only)).await;
        let grown = match grown {
            Ok(number) => durable(node, number).await,
            Err(refusal) => Err(refusal),
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(match grown {
            Ok(()) => result,
            Err(refusal) => {
                result.with_error_code(refusal.error.code()).with_error_message(Some(text(refusal.message)))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

/// Runs work with files off the async threads.
pub(super) async fn in_background<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Refusal> + Send + 'static,
) -> Result<R, Refusal> {
    let failed = |e: tokio::task::JoinError| Refusal {
        error: ResponseError::UnknownServerError,
        message: e.to_string(),
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// Waits for the journal.
pub(super) async fn durable(node: &Node, number: u64) -> Result<(), Refusal> {
    let lost = |e: crate::ledger::LedgerFault| Refusal {
        error: ResponseError::KafkaStorageError,
        message: e.to_string(),
    };
    node.ledger.durable(number).await.map_err(lost)
}
