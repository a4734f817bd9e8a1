//! Clients of librdkafka with the settings that the rules of the log need.
//!
//! Memory: a producer queues at most `kafka.queue` bytes; a groupless reader fetches ahead at most 4 MiB.

use crate::config::Resolved;
use crate::faults::classify;
use crate::telemetry::{Reports, Telemetry};
use crate::tokens::Handed;
use caudal_core::{Error, Result};
use rdkafka::admin::AdminClient;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::Arc;
use std::time::Duration;

/// How long one request for metadata, offsets or topics may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long no broker may answer before it is believed that all are down.
const A_WHILE: Duration = Duration::from_secs(5);

/// How often a client reports of itself, unless the operator says otherwise.
pub(crate) const STATISTICS_EVERY_MS: &str = "15000";

/// The longest pause before a broker is connected to again. The library's own 10 s, which it doubles up to whenever connections end within
/// that time, would hold up a stream for long after a network that trembled, or a broker that restarted, works again.
const RECONNECT_MS: &str = "1000";

/// A member of a group that is silent for so long has lost its partitions. The least that brokers allow by default.
const SESSION_TIMEOUT_MS: &str = "6000";

/// What a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Up to the first open transaction, without aborted records.
    Committed,
    /// All, and ends as the high watermark.
    Uncommitted,
}

/// Makes clients; cheap to clone.
#[derive(Clone)]
pub(crate) struct Clients {
    resolved: Arc<Resolved>,
    instance: Option<Arc<str>>,
    telemetry: Arc<Telemetry>,
}

/// What an answer of a broker holds beside its largest record: other partitions' records.
const BESIDE_A_RECORD: u64 = 64 << 20;
/// The library's own default.
const LEAST_ANSWER: u64 = 100_000_000;

impl Clients {
    pub(crate) fn new(resolved: Resolved) -> Self {
        Self { resolved: Arc::new(resolved), instance: None, telemetry: Arc::default() }
    }

    /// The same for another instance within this process.
    pub(crate) fn beside(&self, number: u32) -> Self {
        let instance = self.instance.as_ref().map(|name| Arc::from(format!("{name}-{number}")));
        Self { instance, ..self.clone() }
    }

    /// The same for an instance that has a name for ever.
    pub(crate) fn of_instance(&self, name: &str) -> Self {
        Self { instance: Some(Arc::from(name)), ..self.clone() }
    }

    /// What the clients report of themselves.
    pub(crate) fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// The context of a client that reports.
    pub(crate) fn quiet(&self) -> Quiet {
        Quiet { reports: Some(Arc::clone(&self.telemetry)), handed: self.handed() }
    }

    /// What one client is handed its tokens by.
    pub(crate) fn handed(&self) -> Handed {
        Handed::new(self.resolved.tokens.as_ref())
    }

    /// What all members of groups share. An instance with a name takes its own place again after a crash, at once; without
    /// one the group waits for the session of the one before to time out.
    pub(crate) fn member(&self, role: &str, group: &str) -> ClientConfig {
        let mut config = self.base(role);
        config.set("group.id", group);
        // A report names all partitions of the group, and what is worth knowing the readers tell.
        config.set("statistics.interval.ms", "0");
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", format!("{instance}-{group}"));
        }
        // An owner keeps what it has when others come and go; range would give the first partition of each topic to one.
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "latest");
        config.set("session.timeout.ms", SESSION_TIMEOUT_MS).set("heartbeat.interval.ms", "1500");
        config.set("topic.metadata.refresh.interval.ms", "10000");
        config
    }

    pub(crate) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// What all clients share. `role` names the pipeline and the job in the client id that brokers show.
    pub(crate) fn base(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("statistics.interval.ms", STATISTICS_EVERY_MS);
        config.set("reconnect.backoff.max.ms", RECONNECT_MS);
        for (key, value) in &self.resolved.properties {
            config.set(key, value);
        }
        config.set("client.id", format!("{}-{role}", self.resolved.config.client_id));
        config.set("allow.auto.create.topics", "false");
        // A fetch holds at least one record, however large it is.
        let record = self.resolved.config.topics.max_message_bytes.bytes();
        config.set("receive.message.max.bytes", (record + BESIDE_A_RECORD).max(LEAST_ANSWER).to_string());
        config.set_log_level(RDKafkaLogLevel::Notice);
        config
    }

    /// What all producers share: each record counts once all replicas in sync have it, and is written once and in order, however often it is
    /// sent. Nothing that the operator may set weakens it (`config.rs` refuses that).
    pub(crate) fn durable(&self, role: &str) -> ClientConfig {
        let mut config = self.base(role);
        config.set("acks", "all").set("enable.idempotence", "true");
        config
    }

    /// A client for topics and their settings.
    pub(crate) fn admin(&self, role: &str) -> Result<AdminClient<Quiet>> {
        self.base(role).create_with_context(self.quiet()).map_err(|e| classify(e, "make an admin client"))
    }

    /// A reader of assigned partitions from explicit offsets. It belongs to no group: the id is needed by the library, and
    /// nothing is ever committed under it.
    ///
    /// Waits for a token where clients come in by tokens.
    pub(crate) fn reader(&self, role: &str, isolation: Isolation) -> Result<BaseConsumer<Quiet>> {
        let reader = self.unserved_reader(role, isolation)?;
        serve(&reader)?;
        Ok(reader)
    }

    /// The same for one that stays and waits for what comes: brokers hold its questions longer. They answer as soon as there is something.
    pub(crate) fn watcher(&self, role: &str) -> Result<BaseConsumer<Quiet>> {
        let mut config = self.of_no_group(role, Isolation::Committed);
        config.set("fetch.wait.max.ms", "1000");
        let watcher = config.create_with_context(self.quiet()).map_err(|e| classify(e, "make a reader"))?;
        serve(&watcher)?;
        Ok(watcher)
    }

    /// The same without waiting: to be served ([`serve`]) before it is asked something.
    pub(crate) fn unserved_reader(&self, role: &str, isolation: Isolation) -> Result<BaseConsumer<Quiet>> {
        let config = self.of_no_group(role, isolation);
        config.create_with_context(self.quiet()).map_err(|e| classify(e, "make a reader"))
    }

    fn of_no_group(&self, role: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.base(role);
        config.set("group.id", format!("{}-{role}-none", self.resolved.config.client_id));
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("enable.partition.eof", "true");
        config.set("queued.max.messages.kbytes", "4096");
        config.set("fetch.message.max.bytes", "131072");
        config.set("fetch.wait.max.ms", "50");
        config.set(
            "isolation.level",
            match isolation {
                Isolation::Committed => "read_committed",
                Isolation::Uncommitted => "read_uncommitted",
            },
        );
        config
    }
}

/// Serves the wish of a client that nobody polls for a token, where clients come in by tokens: when it is made, and before it is asked
/// something later. It must have no partitions: their records would be lost.
pub(crate) fn serve(client: &BaseConsumer<Quiet>) -> Result<()> {
    client.context().handed.serve(client)
}

/// Sends what librdkafka says to `tracing`, at levels that suit: its "errors" are mostly connections that it retries. Keeps what it
/// reports of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quiet {
    reports: Reports,
    handed: Handed,
}

impl Quiet {
    /// Takes a report; gives it in our form.
    pub(crate) fn report(&self, report: &[u8]) -> Option<crate::telemetry::ClientReport> {
        self.reports.as_ref()?.take(report)
    }
}

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        self.handed.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats_raw(&self, report: &[u8]) {
        self.report(report);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// An "error" of librdkafka's.
pub(crate) fn complain(error: &KafkaError, reason: &str) {
    tracing::debug!(target: "librdkafka", %error, reason);
}

/// Whether an error is about the group that a reader outside of all groups has by name only, because the library wants one: who lacks
/// the right to it lacks nothing.
pub(crate) fn is_of_no_group(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed)
}

/// Whether a reader goes on after an error of its client, which connects again by itself: a broker that is down holds nobody up whose
/// partitions others lead by now. That all are down is told too when one was tried and the others were not yet, so it is
/// believed when none answers. Waits up to [`A_WHILE`].
pub(crate) fn heals<C: ConsumerContext>(client: &BaseConsumer<C>, error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    match error.rdkafka_error_code() {
        Some(BrokerTransportFailure | OperationTimedOut | Resolve) => true,
        Some(AllBrokersDown) => client.fetch_metadata(None, A_WHILE).is_ok(),
        _ => is_of_no_group(error),
    }
}

/// One line of librdkafka's log.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// Runs `work`, which waits for the network, on a thread of its own.
///
/// # Errors
/// What `work` gives; fault `Bug` if it panics.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(Error::bug("a client thread ended early").because(panic)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Delivery};

    #[test]
    fn producers_wait_for_all_replicas_and_write_once_whatever_is_configured() {
        for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
            let properties = [("linger.ms", "0"), ("retries", "3"), ("socket.keepalive.enable", "true")];
            let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let config = Config { brokers: vec!["k:9092".into()], delivery, properties, ..Config::default() };
            let clients = Clients::new(config.resolve("kafka").unwrap());
            for settings in [clients.durable("r"), crate::writer::session::settings_for(&clients, "r")] {
                assert_eq!(settings.get("acks"), Some("all"));
                assert_eq!(settings.get("enable.idempotence"), Some("true"));
                assert_eq!(settings.get("retries"), Some("3"), "what does no harm is passed on");
            }
        }
    }
}
