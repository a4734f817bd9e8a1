//! Topic ids, which tell a recreated topic from the one before. librdkafka's safe interface does not give them, so one
//! Metadata request (version 10 to 12, Apache Kafka protocol guide) goes to a broker on a connection of its own.
//!
//! Plain connections only: through TLS or SASL the ids are nil, and nothing is checked against them.

use crate::config::Resolved;
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, RequestHeader,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Ids by topic name; what is missing is nil.
pub(crate) type TopicIds = HashMap<String, Uuid>;

const PATIENCE: Duration = Duration::from_secs(5);
/// Metadata tells topic ids from this version on.
const FIRST_WITH_IDS: i16 = 10;
const NEWEST_ASKED: i16 = 12;
/// Bound on an answer: 10,000 topics take about 2 MB.
const MAX_ANSWER: usize = 64 << 20;

/// Asks one broker after the other. Never fails: ids are a safety net, and without them are nil.
pub(crate) async fn fetch(resolved: &Resolved, topics: &[String]) -> TopicIds {
    if topics.is_empty() || resolved.config.tls.is_some() || resolved.config.sasl.is_some() {
        return TopicIds::new();
    }
    for broker in &resolved.config.brokers {
        match tokio::time::timeout(PATIENCE, ask(broker, topics)).await {
            Ok(Ok(ids)) => return ids,
            Ok(Err(error)) => tracing::debug!(broker, %error, "ask for topic ids"),
            Err(_) => tracing::debug!(broker, "ask for topic ids: no answer in time"),
        }
    }
    TopicIds::new()
}

async fn ask(broker: &str, topics: &[String]) -> io::Result<TopicIds> {
    let mut connection = Connection { stream: TcpStream::connect(broker).await?, correlation: 0 };
    let versions: ApiVersionsResponse =
        connection.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await?;
    let offered = versions.api_keys.iter().find(|api| api.api_key == ApiKey::Metadata as i16);
    let version = offered.map_or(0, |api| api.max_version.min(NEWEST_ASKED));
    if version < FIRST_WITH_IDS {
        return Ok(TopicIds::new());
    }
    let wanted = topics
        .iter()
        .map(|name| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.clone()))))
        })
        .collect();
    let request = MetadataRequest::default().with_topics(Some(wanted)).with_allow_auto_topic_creation(false);
    let answer: MetadataResponse = connection.call(ApiKey::Metadata, version, &request).await?;
    let found = answer.topics.into_iter().filter(|topic| topic.error_code == 0);
    Ok(found.filter_map(|topic| Some((topic.name?.to_string(), topic.topic_id))).collect())
}

struct Connection {
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    async fn call<A: Decodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &impl Encodable,
    ) -> io::Result<A> {
        self.correlation += 1;
        let mut body = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("caudal-ids")))
            .encode(&mut body, api.request_header_version(version))
            .map_err(io::Error::other)?;
        request.encode(&mut body, version).map_err(io::Error::other)?;
        self.stream.write_all(&(body.len() as u32).to_be_bytes()).await?;
        self.stream.write_all(&body).await?;
        let mut answer = self.answer().await?;
        ResponseHeader::decode(&mut answer, api.response_header_version(version))
            .map_err(io::Error::other)?;
        A::decode(&mut answer, version).map_err(io::Error::other)
    }

    async fn answer(&mut self) -> io::Result<Bytes> {
        let length = self.stream.read_u32().await? as usize;
        if length > MAX_ANSWER {
            return Err(io::Error::other("the answer is too long"));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        let answer = Bytes::from(answer);
        match answer.has_remaining() {
            true => Ok(answer),
            false => Err(io::Error::other("the answer is empty")),
        }
    }
}
