//! Kafka brokers.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::patience;
use crate::service::Service;

/// A running single-node broker.
pub struct Kafka {
    service: Service,
}

impl Kafka {
    /// A broker of the test's own; `properties` as `name=value`.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start(properties: &[&str]) -> Result<Self> {
        Ok(Self { service: Service::start("kafka", properties)? })
    }

    /// The same on a port that the test has chosen.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start_at(port: u16, properties: &[&str]) -> Result<Self> {
        Ok(Self { service: Service::start_at("kafka", port, properties)? })
    }

    /// The broker with default properties that the tests of this process share; each takes its own topic prefix.
    ///
    /// # Panics
    /// When it doesn't start: every test that needs it fails with the reason.
    #[must_use]
    pub fn shared() -> &'static Self {
        static BROKER: OnceLock<Kafka> = OnceLock::new();
        BROKER.get_or_init(|| Self::start(&[]).unwrap_or_else(|e| panic!("shared Kafka: {e:#}")))
    }

    /// The process behind it, to stop and start it again.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// `host:port` of the broker.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.service.port())
    }
}

/// A record as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// The key; none where there is none.
    pub key: Option<Vec<u8>>,
    /// The value; none for a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Consumed {
    /// The key as text.
    #[must_use]
    pub fn key(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        self.value.as_deref().and_then(|v| serde_json::from_slice(v).ok()).unwrap_or_default()
    }
}

/// Reads a topic from its beginning to the end that it has now, committed records only, as any consumer may; nothing for one that is not
/// there.
///
/// # Errors
/// When the broker doesn't answer, or the end is not reached within a minute.
pub async fn consume(brokers: &str, topic: &str) -> Result<Vec<Consumed>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || consume_now(&brokers, &topic)).await?
}

fn consume_now(brokers: &str, topic: &str) -> Result<Vec<Consumed>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "caudal-tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()?;
    // The list of all: asking for one topic by name could create it.
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(30)).context("list the topics")?;
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(Vec::new()) };
    let mut assignment = TopicPartitionList::new();
    for partition in found.partitions() {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let (mut left, mut records) = (assignment.count(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    while left > 0 {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => records.push(Consumed {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error).with_context(|| format!("read {topic}")),
            None => {}
        }
        if Instant::now() > deadline {
            bail!("{topic} was not read to its end within a minute");
        }
    }
    Ok(records)
}

/// Produces one record, durably.
///
/// # Errors
/// When the broker doesn't take it within 30 seconds.
pub async fn produce(brokers: &str, topic: &str, key: &str, value: &str) -> Result<()> {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let record = FutureRecord::to(topic).key(key).payload(value);
    let sent = producer.send(record, Timeout::After(Duration::from_secs(30))).await;
    sent.map(|_| ()).map_err(|(error, _)| error).with_context(|| format!("write to {topic}"))
}

/// Deletes a topic, and waits until the broker does not list it any more.
///
/// # Errors
/// When the broker doesn't delete it within 30 seconds.
pub async fn delete(brokers: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    for deleted in admin.delete_topics(&[topic], &AdminOptions::new()).await? {
        deleted.map_err(|(topic, code)| anyhow!("delete {topic}: {code}"))?;
    }
    let (limit, pause) = (Duration::from_secs(30), Duration::from_millis(100));
    let gone = async || Ok(Offsets::of(brokers)?.topics(topic)?.is_empty());
    patience::until(&format!("{topic} is deleted"), limit, pause, gone).await
}

/// Asks a broker (a Kafka or the embedded log) for the ends of topics.
pub struct Offsets {
    consumer: BaseConsumer,
}

impl Offsets {
    /// Asks the broker at `bootstrap`.
    ///
    /// # Errors
    /// When the client can't be made; the broker is only contacted by the first question.
    pub fn of(bootstrap: &str) -> Result<Self> {
        let consumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        Ok(Self { consumer })
    }

    /// The end offset of a topic, summed over its partitions; 0 when there is no such topic. Markers of transactions count as records.
    ///
    /// # Errors
    /// When the broker doesn't answer within five seconds.
    pub fn end(&self, topic: &str) -> Result<i64> {
        let limit = Duration::from_secs(5);
        // The list of all: asking for one topic by name could create it.
        let metadata = self.consumer.fetch_metadata(None, limit).context("list the topics")?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(0) };
        let ends = found.partitions().iter().map(|p| self.consumer.fetch_watermarks(topic, p.id(), limit));
        Ok(ends.collect::<Result<Vec<_>, _>>()?.iter().map(|(_, end)| end).sum())
    }

    /// The names of the topics that begin with `start`.
    ///
    /// # Errors
    /// When the broker doesn't answer within five seconds.
    pub fn topics(&self, start: &str) -> Result<Vec<String>> {
        let metadata =
            self.consumer.fetch_metadata(None, Duration::from_secs(5)).context("list the topics")?;
        let names = metadata.topics().iter().map(|t| t.name().to_owned());
        Ok(names.filter(|n| n.starts_with(start)).collect())
    }
}
