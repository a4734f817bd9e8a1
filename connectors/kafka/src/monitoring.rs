//! What the daemon tells of itself in topics, for whoever watches Kafka and nothing else: how it is set up, and who writes it.
//!
//! No data depends on it. The writer has a client of its own with a small queue, and whoever calls it is no pipeline: a broker that does not
//! answer holds up the telling, and nothing else. What could not be told is told by the next record of its kind, for each holds all that is
//! known of its key.
//!
//! Memory: [`QUEUE_KBYTES`] and the records of one call.

use crate::client::{Quiet, blocking};
use crate::faults::classify;
use crate::log::Log;
use crate::replay::Replayer;
use crate::telemetry::Telemetry;
use crate::topics::{TopicSpec, Topics};
use caudal_core::{DurationText, Error, Result};
use futures::future::join_all;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// How long a record may take to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bound of the client's queue.
const QUEUE_KBYTES: &str = "4096";

/// The topics `caudal.<prefix>.runs`, `.alerts`, `.metrics` and `.freshness`, in which the daemon tells where it stands.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Monitoring {
    /// Whether they are written.
    pub enabled: bool,
    /// How often `metrics` and `freshness` are. 1 s or more.
    pub interval: DurationText,
    /// An alert is raised when a pipeline is so far behind its source, or has not run for so long.
    pub lag: DurationText,
    /// How long `runs`, and alerts that are over, are kept at least.
    pub retention: DurationText,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: DurationText::secs(10),
            lag: DurationText::secs(300),
            retention: DurationText::secs(30 * 86_400),
        }
    }
}

/// A topic of notifications as Debezium writes them: how far snapshots are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Notifications {
    /// Whether they are written.
    pub enabled: bool,
    /// The topic; left out: `<prefix>.notifications`.
    pub topic: Option<String>,
}

impl Monitoring {
    /// What cannot be: field and cause.
    pub(crate) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        if self.interval.get() < Duration::from_secs(1) {
            return Some(("interval", "is under 1s"));
        }
        if self.lag.get() < Duration::from_secs(1) {
            return Some(("lag", "is under 1s"));
        }
        (self.retention.get() < Duration::from_secs(3600)).then_some(("retention", "is under 1h"))
    }
}

/// A topic of the daemon's telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// `caudal.<prefix>.runs`
    Runs,
    /// `caudal.<prefix>.alerts`
    Alerts,
    /// `caudal.<prefix>.metrics`
    Metrics,
    /// `caudal.<prefix>.freshness`
    Freshness,
    /// Debezium's notifications.
    Notifications,
}

/// One record to be told.
#[derive(Clone, Debug)]
pub struct Telling {
    /// Where.
    pub topic: Told,
    /// Its key.
    pub key: String,
    /// Its value, as JSON.
    pub value: Vec<u8>,
}

/// Writes what is told.
pub struct Teller {
    log: Log,
    producer: FutureProducer<Quiet>,
}

impl Log {
    /// How the daemon is to tell of itself.
    #[must_use]
    pub fn monitoring(&self) -> &Monitoring {
        &self.clients.resolved().config.monitoring
    }

    /// Debezium's notifications.
    #[must_use]
    pub fn notifications(&self) -> &Notifications {
        &self.clients.resolved().config.notifications
    }

    /// What this log's clients report of themselves.
    #[must_use]
    pub fn telemetry(&self) -> Arc<Telemetry> {
        Arc::clone(self.clients.telemetry())
    }

    /// Makes the topics that are told in, and a client for them.
    ///
    /// # Errors
    /// As for any topic: `Transient` if the brokers do not answer, `Config` if this user may not.
    pub async fn teller(&self) -> Result<Teller> {
        let resolved = self.clients.resolved();
        let mut specs = Vec::new();
        if self.monitoring().enabled {
            specs = TopicSpec::monitoring(&self.names, resolved);
        }
        if self.notifications().enabled {
            specs.push(TopicSpec::announcements(self.topic(Told::Notifications), resolved));
        }
        Topics::new(&self.clients, "monitoring")?.ensure(&specs).await?;
        let mut config = self.clients.durable("monitoring");
        config.set("linger.ms", "20");
        config.set("compression.type", resolved.compression());
        config.set("queue.buffering.max.kbytes", QUEUE_KBYTES);
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let producer = config
            .create_with_context(self.clients.quiet())
            .map_err(|e| classify(e, "make a producer for monitoring"))?;
        Ok(Teller { log: self.clone(), producer })
    }

    fn topic(&self, told: Told) -> String {
        let names = &self.names;
        match told {
            Told::Runs => names.runs(),
            Told::Alerts => names.alerts(),
            Told::Metrics => names.metrics(),
            Told::Freshness => names.freshness(),
            Told::Notifications => {
                self.notifications().topic.clone().unwrap_or_else(|| names.notifications())
            }
        }
    }
}

impl Teller {
    /// Writes records, those of one key in this order; gives which of them are there. Nothing is tried again.
    pub async fn tell(&self, tellings: &[Telling]) -> Vec<Result<()>> {
        let sends = tellings.iter().map(|telling| async {
            let topic = self.log.topic(telling.topic);
            let record = FutureRecord::to(&topic).key(&telling.key).partition(0).payload(&telling.value);
            let sent = self.producer.send(record, Timeout::After(PATIENCE)).await;
            sent.map(|_| ()).map_err(|(e, _)| classify(e, format!("write to {topic}")))
        });
        join_all(sends).await
    }

    /// The last record of each key of a topic, as it is now. Memory: all of them.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn told(&self, topic: Told) -> Result<Vec<Vec<u8>>> {
        let (clients, topic) = (self.log.clients.clone(), self.log.topic(topic));
        blocking(move || {
            let mut last = std::collections::BTreeMap::new();
            let patience = crate::client::REQUEST_TIMEOUT;
            Replayer::new(&clients, "monitoring").replay(&[(topic, 0)], patience, |_, (key, value, _)| {
                match value {
                    Some(value) => last.insert(key.to_vec(), value.to_vec()),
                    None => last.remove(key),
                };
                Ok(())
            })?;
            Ok(last.into_values().collect())
        })
        .await
    }
}

/// The topic of notifications must not be one that means something else.
pub(crate) fn mistaken_topic(notifications: &Notifications) -> Result<(), &'static str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match &notifications.topic {
        Some(topic) if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) => {
            Err("is no name of a topic")
        }
        Some(topic) if topic.starts_with("caudal.") || topic.starts_with("__") => {
            Err("is reserved for Caudal's own topics")
        }
        _ => Ok(()),
    }
}

/// Encodes a record of monitoring.
///
/// # Errors
/// `Bug` if it is no JSON.
pub fn encoded<T: serde::Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|e| Error::bug("write a record of monitoring").because(e))
}
