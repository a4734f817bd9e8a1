//! Kafka brokers.

use std::sync::OnceLock;

use anyhow::Result;

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
