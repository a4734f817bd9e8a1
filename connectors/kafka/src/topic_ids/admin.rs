//! Topics made, grown and described on a connection of our own: for mechanisms that the library's admin client cannot take part in.
//!
//! That client has a queue of its own for answers, and nobody can poll the common one, by which it would ask for a token. What is needed of
//! it is three requests of Apache Kafka's protocol: CreateTopics (version 4: replicas by the brokers' default), CreatePartitions and
//! DescribeConfigs (version 1 each). The first two go to the controller, which other brokers of old clusters do not stand in for.

use super::connection::Connection;
use crate::config::Resolved;
use caudal_core::{Error, Result};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    ApiKey, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::error::RDKafkaErrorCode as Code;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::time::Duration;

/// For a connection and its requests.
const PATIENCE: Duration = Duration::from_secs(30);
/// What brokers are given for one request, milliseconds.
const REQUEST_MS: i32 = 15_000;
/// A resource that is a topic.
const TOPIC: i8 = 2;

/// A topic to be made.
pub(crate) struct Made<'a> {
    pub(crate) name: &'a str,
    pub(crate) partitions: u32,
    /// -1: the brokers' default.
    pub(crate) replication: i32,
    pub(crate) settings: &'a BTreeMap<String, String>,
}

/// By topic, what became of it.
pub(crate) type Outcomes = Vec<std::result::Result<String, (String, Code)>>;

/// Makes topics.
///
/// # Errors
/// `Transient` if no broker answers.
pub(crate) async fn create(resolved: &Resolved, topics: &[Made<'_>]) -> Result<Outcomes> {
    let setting = |(name, value): (&String, &String)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = |made: &Made<'_>| {
        CreatableTopic::default()
            .with_name(TopicName(text(made.name)))
            .with_num_partitions(made.partitions as i32)
            .with_replication_factor(made.replication as i16)
            .with_configs(made.settings.iter().map(setting).collect())
    };
    let request = CreateTopicsRequest::default()
        .with_topics(topics.iter().map(topic).collect())
        .with_timeout_ms(REQUEST_MS);
    let answer: CreateTopicsResponse = in_time(resolved, "make topics", |broker| {
        let request = &request;
        async move { controller(&broker, resolved).await?.call(ApiKey::CreateTopics, 4, request).await }
    })
    .await?;
    let outcome = |name: &TopicName, error| outcome(name.to_string(), error);
    Ok(answer.topics.iter().map(|topic| outcome(&topic.name, topic.error_code)).collect())
}

/// Grows a topic to that many partitions.
///
/// # Errors
/// `Transient` if no broker answers.
pub(crate) async fn grow(resolved: &Resolved, topic: &str, partitions: u32) -> Result<Outcomes> {
    let wanted = CreatePartitionsTopic::default()
        .with_name(TopicName(text(topic)))
        .with_count(partitions as i32)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(REQUEST_MS);
    let what = format!("add partitions to {topic}");
    let answer: CreatePartitionsResponse = in_time(resolved, &what, |broker| {
        let request = &request;
        async move { controller(&broker, resolved).await?.call(ApiKey::CreatePartitions, 1, request).await }
    })
    .await?;
    Ok(answer.results.iter().map(|result| outcome(result.name.to_string(), result.error_code)).collect())
}

/// The settings of topics, by topic; those that this user may not see are missing.
///
/// # Errors
/// `Transient` if no broker answers.
pub(crate) async fn settings(
    resolved: &Resolved,
    topics: &[&str],
) -> Result<HashMap<String, HashMap<String, String>>> {
    let resource = |name: &&str| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    let request = DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
    let answer: DescribeConfigsResponse =
        in_time(resolved, "read the settings of topics", |broker| {
            let request = &request;
            async move {
                Connection::open(&broker, resolved).await?.call(ApiKey::DescribeConfigs, 1, request).await
            }
        })
        .await?;
    let seen = answer.results.into_iter().filter(|result| result.error_code == 0);
    Ok(seen
        .map(|result| {
            let settings = result.configs.into_iter();
            let settings = settings.filter_map(|c| Some((c.name.to_string(), c.value?.to_string())));
            (result.resource_name.to_string(), settings.collect())
        })
        .collect())
}

/// Tries one broker after the other.
async fn in_time<T, F: Future<Output = io::Result<T>>>(
    resolved: &Resolved,
    what: &str,
    mut work: impl FnMut(String) -> F,
) -> Result<T> {
    let mut last = io::Error::other("there is no broker");
    for broker in &resolved.config.brokers {
        match tokio::time::timeout(PATIENCE, work(broker.clone())).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(Error::transient(what.to_owned()).because(last))
}

/// A connection to the broker that makes topics.
async fn controller(broker: &str, resolved: &Resolved) -> io::Result<Connection> {
    let mut connection = Connection::open(broker, resolved).await?;
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let answer: MetadataResponse = connection.call(ApiKey::Metadata, 4, &request).await?;
    let found = answer.brokers.iter().find(|known| known.node_id == answer.controller_id);
    match found.map(|found| format!("{}:{}", found.host, found.port)) {
        Some(address) if address != broker => Connection::open(&address, resolved).await,
        _ => Ok(connection),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn outcome(name: String, error: i16) -> std::result::Result<String, (String, Code)> {
    match code(error) {
        None => Ok(name),
        Some(code) => Err((name, code)),
    }
}

/// The library's name of an error that these requests have; none for none.
fn code(error: i16) -> Option<Code> {
    Some(match error {
        0 => return None,
        7 => Code::RequestTimedOut,
        17 => Code::InvalidTopic,
        29 => Code::TopicAuthorizationFailed,
        31 => Code::ClusterAuthorizationFailed,
        36 => Code::TopicAlreadyExists,
        37 => Code::InvalidPartitions,
        38 => Code::InvalidReplicationFactor,
        40 => Code::InvalidConfig,
        41 => Code::NotController,
        42 => Code::InvalidRequest,
        44 => Code::PolicyViolation,
        _ => Code::Unknown,
    })
}
