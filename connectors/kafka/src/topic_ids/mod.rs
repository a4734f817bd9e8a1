//! Topic ids, which tell a recreated topic from the one before. librdkafka's safe interface does not give them, so one
//! Metadata request (version 10 to 12, Apache Kafka protocol guide) goes to a broker on a connection of its own.
//!
//! The ids are a safety net: where they cannot be asked (a key format that is unknown here, a broker without them), they are nil, and
//! nothing is checked against them.

pub(crate) mod admin;
pub(crate) mod connection;
mod scram;

use crate::config::Resolved;
use connection::Connection;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use uuid::Uuid;

/// Ids by topic name; what is missing is nil.
pub(crate) type TopicIds = HashMap<String, Uuid>;

const PATIENCE: Duration = Duration::from_secs(5);
/// Metadata tells topic ids from this version on.
const FIRST_WITH_IDS: i16 = 10;
const NEWEST_ASKED: i16 = 12;

/// Asks one broker after the other. Never fails.
pub(crate) async fn fetch(resolved: &Resolved, topics: &[String]) -> TopicIds {
    if topics.is_empty() {
        return TopicIds::new();
    }
    for broker in &resolved.config.brokers {
        match tokio::time::timeout(PATIENCE, ask(broker, resolved, topics)).await {
            Ok(Ok(ids)) => return ids,
            Ok(Err(error)) => tracing::debug!(broker, %error, "ask for topic ids"),
            Err(_) => tracing::debug!(broker, "ask for topic ids: no answer in time"),
        }
    }
    TopicIds::new()
}

/// What this user may do with topics, by name: bit n stands for Kafka's operation n. Never fails; what is missing is not known.
pub(crate) async fn allowed(resolved: &Resolved, topics: &[String]) -> HashMap<String, i32> {
    for broker in &resolved.config.brokers {
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, metadata(broker, resolved, topics, 8)).await {
            let known = answer.topics.into_iter().filter(|topic| topic.error_code == 0);
            return known
                .filter_map(|topic| Some((topic.name?.to_string(), topic.topic_authorized_operations)))
                .collect();
        }
    }
    HashMap::new()
}

async fn ask(broker: &str, resolved: &Resolved, topics: &[String]) -> io::Result<TopicIds> {
    let answer = metadata(broker, resolved, topics, FIRST_WITH_IDS).await?;
    let found = answer.topics.into_iter().filter(|topic| topic.error_code == 0);
    Ok(found.filter_map(|topic| Some((topic.name?.to_string(), topic.topic_id))).collect())
}

/// Nothing from a broker that does not know version `least`.
async fn metadata(
    broker: &str,
    resolved: &Resolved,
    topics: &[String],
    least: i16,
) -> io::Result<MetadataResponse> {
    let mut connection = Connection::open(broker, resolved).await?;
    let versions: ApiVersionsResponse =
        connection.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await?;
    let offered = versions.api_keys.iter().find(|api| api.api_key == ApiKey::Metadata as i16);
    let version = offered.map_or(0, |api| api.max_version.min(NEWEST_ASKED));
    if version < least {
        return Ok(MetadataResponse::default());
    }
    let name = |name: &String| {
        MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.clone()))))
    };
    let request = MetadataRequest::default()
        .with_topics(Some(topics.iter().map(name).collect()))
        .with_include_topic_authorized_operations(true)
        .with_allow_auto_topic_creation(false);
    connection.call(ApiKey::Metadata, version, &request).await
}
