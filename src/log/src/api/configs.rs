//! Settings of topics, and the few of the broker that clients look at.

use super::text;
use super::topics::durable;
use crate::node::{NODE_ID, Node};
use crate::topic_config::{SETTINGS, Settings};
use crate::topics::Refusal;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as AlterResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use std::sync::Arc;

/// Kinds of resources in the protocol.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Where a value comes from, in the protocol.
const SET_ON_TOPIC: i8 = 1;
const SET_ON_BROKER: i8 = 4;
const DEFAULT: i8 = 5;
/// Operations of an incremental change.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// One change: name, operation, value.
type Change = (String, i8, Option<String>);

/// Answers the settings of topics and of the broker.
pub(super) fn describe(node: &Node, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let one = |resource: &DescribeConfigsResource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match settings_of(node, resource) {
            Err(refusal) => {
                result.with_error_code(refusal.error.code()).with_error_message(Some(text(refusal.message)))
            }
            Ok(settings) => {
                let wanted = |name: &str| {
                    let keys = resource.configuration_keys.as_ref();
                    keys.is_none_or(|keys| keys.iter().any(|k| k.as_str() == name))
                };
                result
                    .with_configs(settings.into_iter().filter(|(name, ..)| wanted(name)).map(entry).collect())
            }
        }
    };
    DescribeConfigsResponse::default().with_results(request.resources.iter().map(one).collect())
}

fn entry((name, value, source): (String, String, i8)) -> DescribeConfigsResourceResult {
    const TYPE_STRING: i8 = 2;
    DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_read_only(source == SET_ON_BROKER)
        .with_config_source(source)
        .with_config_type(TYPE_STRING)
}

fn settings_of(
    node: &Node,
    resource: &DescribeConfigsResource,
) -> Result<Vec<(String, String, i8)>, Refusal> {
    match resource.resource_type {
        TOPIC => {
            let topic = node.topics.get(&resource.resource_name);
            let topic = topic.ok_or_else(|| unknown_topic(&resource.resource_name))?;
            let config = topic.config();
            let one = |setting: &crate::topic_config::Setting| {
                let set = config.settings.get(setting.name);
                let source = if set.is_some() { SET_ON_TOPIC } else { DEFAULT };
                let value = match set {
                    Some(value) => value.clone(),
                    None if setting.name == "segment.bytes" => config.rules.segment_bytes.to_string(),
                    None => setting.default.to_owned(),
                };
                (setting.name.to_owned(), value, source)
            };
            Ok(SETTINGS.iter().map(one).collect())
        }
        BROKER => Ok(broker_settings(node)),
        _ => Err(Refusal {
            error: ResponseError::InvalidRequest,
            message: "only topics and the broker have settings".into(),
        }),
    }
}

fn broker_settings(node: &Node) -> Vec<(String, String, i8)> {
    let set = |name: &str, value: String| (name.to_owned(), value, SET_ON_BROKER);
    vec![
        set("auto.create.topics.enable", node.config.auto_create_topics.to_string()),
        set("broker.id", NODE_ID.to_string()),
        set("default.replication.factor", "1".into()),
        set("delete.topic.enable", "true".into()),
        set("log.segment.bytes", node.config.segment_bytes.to_string()),
        set("message.max.bytes", "16777216".into()),
        set("num.partitions", node.config.default_partitions.to_string()),
        set("transaction.max.timeout.ms", "900000".into()),
    ]
}

/// Replaces all settings of topics.
pub(super) async fn alter(node: &Arc<Node>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let as_change = |c: &kafka_protocol::messages::alter_configs_request::AlterableConfig| {
            (c.name.to_string(), SET, c.value.as_ref().map(|v| v.to_string()))
        };
        let changes = resource.configs.iter().map(as_change).collect();
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let altered = alter_one(node, kind, name, changes, true, request.validate_only).await;
        let (error_code, message) = outcome(altered);
        responses.push(
            AlterResponse::default()
                .with_error_code(error_code)
                .with_error_message(message.map(text))
                .with_resource_type(kind)
                .with_resource_name(resource.resource_name),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes single settings of topics.
pub(super) async fn alter_incrementally(
    node: &Arc<Node>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let as_change = |c: &kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig| {
            (c.name.to_string(), c.config_operation, c.value.as_ref().map(|v| v.to_string()))
        };
        let changes = resource.configs.iter().map(as_change).collect();
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let altered = alter_one(node, kind, name, changes, false, request.validate_only).await;
        let (error_code, message) = outcome(altered);
        responses.push(
            IncrementalResponse::default()
                .with_error_code(error_code)
                .with_error_message(message.map(text))
                .with_resource_type(kind)
                .with_resource_name(resource.resource_name),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter_one(
    node: &Arc<Node>,
    kind: i8,
    name: &str,
    changes: Vec<Change>,
    replace: bool,
    only_check: bool,
) -> Result<(), Refusal> {
    if kind != TOPIC {
        let message = "only settings of topics can be changed".to_owned();
        return Err(Refusal { error: ResponseError::InvalidRequest, message });
    }
    let apply = |current: Settings| {
        let mut settings = if replace { Settings::new() } else { current };
        for change in changes {
            apply_change(&mut settings, change)?;
        }
        Ok(settings)
    };
    let number = node.topics.configure(name, only_check, apply)?;
    durable(node, number).await
}

fn apply_change(settings: &mut Settings, (name, operation, value): Change) -> Result<(), Refusal> {
    let default = || SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default).to_owned();
    let mut items = |keep: &dyn Fn(&str) -> bool, add: &str| {
        let current = settings.get(&name).cloned().unwrap_or_else(default);
        let kept = current.split(',').map(str::trim).filter(|i| !i.is_empty() && keep(i));
        let items: Vec<&str> = kept.chain((!add.is_empty()).then_some(add)).collect();
        settings.insert(name.clone(), items.join(","));
    };
    match (operation, value) {
        (SET, Some(value)) => {
            settings.insert(name, value);
        }
        (SET, None) | (DELETE, _) => {
            settings.remove(&name);
        }
        (APPEND, Some(value)) => items(&|item| item != value, &value),
        (SUBTRACT, Some(value)) => items(&|item| item != value, ""),
        _ => {
            let message = format!("unknown operation {operation} on '{name}'");
            return Err(Refusal { error: ResponseError::InvalidRequest, message });
        }
    }
    Ok(())
}

fn outcome(altered: Result<(), Refusal>) -> (i16, Option<String>) {
    match altered {
        Ok(()) => (0, None),
        Err(refusal) => (refusal.error.code(), Some(refusal.message)),
    }
}

fn unknown_topic(name: &str) -> Refusal {
    let message = format!("topic '{name}' does not exist");
    Refusal { error: ResponseError::UnknownTopicOrPartition, message }
}
