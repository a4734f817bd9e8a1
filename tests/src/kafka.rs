//! Kafka brokers.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

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
