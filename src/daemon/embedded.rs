//! The embedded log is not part of this build yet: a cluster must be configured.

use caudal_control::config::{LogSettings, Problem};
use std::net::SocketAddr;
use std::path::Path;

pub(crate) enum Log {}

impl Log {
    pub(crate) fn address(&self) -> SocketAddr {
        match *self {}
    }

    pub(crate) async fn shutdown(self) {}
}

pub(crate) async fn start(_: &LogSettings, _: &Path) -> Result<Log, Problem> {
    Err(Problem::new("kafka.brokers", "missing: this build serves no log of its own")
        .fix("name a Kafka cluster"))
}
