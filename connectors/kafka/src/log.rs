//! The door of this crate: one log, under one prefix.

use crate::client::Clients;
use crate::config::Config;
use crate::dead_letters::Desks;
use crate::encode::system_clock;
use crate::tasks::Membership;
use crate::writer::sink::CaptureSink;
use crate::writer::statistics::Statistics;
use caudal_core::{Error, Result, Sink};
use caudal_proto::side::TopicNames;
use std::sync::Arc;

/// A log: its brokers and the topics under one prefix. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    pub(crate) clients: Clients,
    pub(crate) names: TopicNames,
    pub(crate) membership: Arc<Membership>,
    pub(crate) desks: Desks,
    /// Which of those in this process that share a sink; the first is 1.
    pub(crate) number: u32,
}

/// What a capture sink must know beside the log.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// `source.connector` of the envelopes: `mysql`, `mariadb`.
    pub connector: String,
    /// Counted into by the sink's writers; the caller keeps it for metrics.
    pub statistics: Arc<Statistics>,
    /// Microseconds since the epoch: the envelopes' processing time.
    pub clock: fn() -> i64,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self { connector: "mysql".into(), statistics: Arc::default(), clock: system_clock }
    }
}

impl Log {
    /// A log with the topics `<prefix>…` and `caudal.<prefix>…`. Connects to nothing yet.
    ///
    /// # Errors
    /// Of fault `Config`, with the field.
    pub fn new(config: Config, prefix: &str) -> Result<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.is_empty() || prefix.len() > 100 || !prefix.chars().all(legal) {
            return Err(Error::config(format!("`{prefix}` cannot start the name of a topic"))
                .field("prefix")
                .hint("use letters, digits, `.`, `_` and `-`, at most 100"));
        }
        // Brokers and their tools show whose client it is: several prefixes may be on one cluster.
        let client_id = format!("{}-{prefix}", config.client_id);
        let clients = Clients::new(Config { client_id, ..config }.resolve("kafka")?);
        let names = TopicNames::new(prefix);
        let membership = Arc::new(Membership::new(clients.clone(), names.clone()));
        Ok(Self { clients, names, membership, desks: Desks::default(), number: 1 })
    }

    /// The same log for an instance that keeps `name` (letters, digits, `-`) over its restarts: after a crash its groups give
    /// its work back to it at once. Two instances that run at a time must have different names.
    #[must_use]
    pub fn of_instance(self, name: &str) -> Self {
        let clients = self.clients.of_instance(name);
        let membership = Arc::new(Membership::new(clients.clone(), self.names.clone()));
        Self { clients, membership, names: self.names, desks: self.desks, number: self.number }
    }

    /// The same log for the `number`-th pipeline (from 1) that reads for one sink in this process: to the sink's group it is an
    /// instance of its own, with a name of its own if this one has one, and it follows the dead letters for itself.
    #[must_use]
    pub fn beside(&self, number: u32) -> Self {
        if number == 1 {
            return self.clone();
        }
        let mut log = self.clone();
        log.clients = self.clients.beside(number);
        (log.desks, log.number) = (Desks::default(), number);
        log
    }

    /// The sink of a captured source. `source` names it within the prefix, for ever: its partition of the side topics and
    /// its `transactional.id` follow from it.
    #[must_use]
    pub fn capture_sink(&self, source: &str, options: CaptureOptions) -> Arc<dyn Sink> {
        Arc::new(CaptureSink::new(self.clone(), source, options))
    }
}
