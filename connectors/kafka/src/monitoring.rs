//! What the daemon tells of itself in topics, for whoever watches Kafka and nothing else: how it is set up, and who writes it.
//!
//! No data depends on it. The writer has a client of its own with a small queue, and whoever calls it is no pipeline: a broker that does not
//! answer holds up the telling, and nothing else. What could not be told is told by the next record of its kind, for each holds all that is
//! known of its key.
//!
//! Memory: [`QUEUE_KBYTES`] and the records of one call.

use crate::client::blocking;
use crate::faults::classify;
use crate::log::Log;
use crate::replay::Replayer;
use crate::telemetry::Telemetry;
use crate::topics::{TopicSpec, Topics};
use crate::writer::polled::Polled;
use crate::writer::session::made_for;
use caudal_core::{DurationText, Error, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// Held while records are told: their slots are of one call.
    producer: Shared,
}

type Shared = Arc<Mutex<Option<Polled>>>;

// The end of a producer waits for its thread: not where a task ends.
impl Drop for Teller {
    fn drop(&mut self) {
        let producer = Arc::clone(&self.producer);
        std::thread::spawn(move || producer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
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
        let producer = made_for(&config, "monitoring", (Arc::default(), self.clients.quiet()))?;
        Ok(Teller { log: self.clone(), producer: Arc::new(Mutex::new(Some(producer))) })
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
        let name = |telling: &Telling| (self.log.topic(telling.topic), telling.clone());
        let (producer, named) = (Arc::clone(&self.producer), tellings.iter().map(name).collect::<Vec<_>>());
        let told = blocking(move || {
            let producer = producer.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(producer.as_ref().map(|producer| tell(producer, &named)).unwrap_or_default())
        });
        told.await.unwrap_or_default()
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

/// One slot for each record, so that each is known to be there or not.
fn tell(producer: &Polled, tellings: &[(String, Telling)]) -> Vec<Result<()>> {
    let deliveries = producer.context();
    deliveries.reset();
    let (mut sent, mut failure) = (0, None);
    let wait = |reports, failure: &mut Option<KafkaError>| {
        let deadline = Instant::now() + PATIENCE;
        // A record that failed is no reason not to wait for the others.
        while let Err(e) = deliveries.wait(reports, deadline.saturating_duration_since(Instant::now())) {
            failure.get_or_insert(e);
        }
    };
    for (slot, (topic, telling)) in tellings.iter().enumerate() {
        let record = BaseRecord::with_opaque_to(topic, slot).partition(0);
        let record = record.key(telling.key.as_str()).payload(&telling.value);
        let taken = match producer.send(record) {
            Err((KafkaError::MessageProduction(Code::QueueFull), record)) => {
                wait(sent, &mut failure);
                producer.send(record)
            }
            taken => taken,
        };
        match taken {
            Ok(()) => sent += 1,
            Err((e, _)) => failure = failure.or(Some(e)),
        }
    }
    wait(sent, &mut failure);
    if deliveries.reported() < sent {
        // Reports that came later would count for other records.
        producer.purge(PurgeConfig::default().queue().inflight());
        wait(sent, &mut failure);
    }
    let failure = failure.unwrap_or(KafkaError::MessageProduction(Code::MessageTimedOut));
    let became = |slot: usize, topic: &str| match deliveries.slot(slot).count {
        0 => Err(classify(failure.clone(), format!("write to {topic}"))),
        _ => Ok(()),
    };
    tellings.iter().enumerate().map(|(slot, (topic, _))| became(slot, topic)).collect()
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
