//! The `kafka:` node of the configuration: as written ([`Config`]), then resolved ([`Resolved`]).
//!
//! After [`Config::resolve`] nothing can be "invalid config": what is left to fail depends on the brokers.

use crate::format::{Format, Profile, Registry};
use crate::monitoring::{Monitoring, Notifications, mistaken_topic};
use crate::tokens::Tokens;
use caudal_core::quantity::{DurationText, SizeText};
use caudal_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How the log is reached and how its topics are made.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `host:port` of one or more brokers.
    pub brokers: Vec<String>,
    /// Start of the client ids that brokers show; the topics' prefix and the pipeline's name follow it.
    pub client_id: String,
    /// Encrypts the connections. Left out: plain text.
    pub tls: Option<Tls>,
    /// Authenticates this client. Left out: none, or the TLS certificate.
    pub sasl: Option<Sasl>,
    /// How topics are made.
    pub topics: Topics,
    /// Whose conventions values follow.
    pub profile: Profile,
    /// The form of keys and values in data topics.
    pub format: Format,
    /// The schema registry: for the formats `avro` and `protobuf`.
    pub registry: Option<Registry>,
    /// Announces the source's transactions in `<prefix>.transaction`, and says in each event which is its transaction.
    pub transactions: bool,
    /// How often a record goes to `__debezium-heartbeat.<prefix>`. `0s`: never.
    pub heartbeats: DurationText,
    /// What the daemon tells of itself in topics.
    pub monitoring: Monitoring,
    /// Debezium's notifications of snapshots.
    pub notifications: Notifications,
    /// Compression of what is produced.
    pub compression: Compression,
    /// What a crash may do to the events in flight.
    pub delivery: Delivery,
    /// After this time brokers abort a transaction whose daemon is silent. 10 s to 15 min.
    pub transaction_timeout: DurationText,
    /// Least time between two transactions where brokers cannot be asked whether they are done with the last one (before 3.0): one that
    /// begins sooner meets a client back-off of 20 ms. `0s`: never ask, nor wait; the embedded log needs neither.
    pub pace: DurationText,
    /// Bound on bytes waiting in the client's queue of one capture.
    pub queue: SizeText,
    /// Any other property of librdkafka. Those that the rules of exactly-once depend on are refused.
    pub properties: BTreeMap<String, String>,
}

/// TLS towards the brokers.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// PEM file of the certificate authorities to trust. Left out: the system's.
    pub ca: Option<String>,
    /// PEM file of this client's certificate (mutual TLS).
    pub certificate: Option<String>,
    /// PEM file of its private key.
    pub key: Option<String>,
    /// The key's password.
    pub key_password: Option<String>,
    /// Accepts any certificate. For tests only.
    pub insecure: bool,
}

/// SASL towards the brokers.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// User. With `OAUTHBEARER` and an endpoint: the client's id.
    pub username: String,
    /// Password. With `OAUTHBEARER` and an endpoint: the client's secret.
    pub password: String,
    /// For `OAUTHBEARER`: where tokens come from.
    pub token: Option<TokenSource>,
}

/// Where bearer tokens come from: one of `url`, `command` and `file`. A new one is fetched before the last one ends.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenSource {
    /// Endpoint of the client credentials grant of OAuth 2.0, `https://…`; `username` and `password` are the client's.
    pub url: Option<String>,
    /// The scope that the endpoint is asked for.
    pub scope: Option<String>,
    /// PEM file of the authorities that the endpoint is trusted by. Left out: those that browsers trust.
    pub ca: Option<String>,
    /// A program with its arguments that prints a token, or JSON with `access_token` and `expires_in` (seconds).
    pub command: Vec<String>,
    /// A file that holds the same, and that somebody else keeps fresh.
    pub file: Option<String>,
}

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// Password in the clear: over TLS only.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM-SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM-SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// Bearer tokens (OAuth 2.0, OIDC).
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl Mechanism {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

/// Compression of record batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// Fast, larger.
    #[default]
    Lz4,
    /// Slower, smaller.
    Zstd,
}

impl Compression {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// What a crash may do to the events in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Events and position are one transaction: a `read_committed` reader sees each event once.
    #[default]
    ExactlyOnce,
    /// Events are visible as soon as the brokers have them, sooner than a transaction ends; after a crash the last ones come again.
    /// Sinks need `consistency: key`, and drop what a displaced daemon still wrote; other readers see that too.
    AtLeastOnce,
}

/// What becomes of a row that makes a record over `max_message_bytes`. It is never skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Oversize {
    /// The capture stops there and says so, until the limit is raised or the column left out.
    #[default]
    Park,
    /// It is written in several records, which Caudal's sinks join again. Other readers of the topic see the parts.
    Split,
}

/// How topics are made. What exists is checked against it, never altered.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Copies of each partition. Left out: the brokers' default.
    pub replication_factor: Option<u16>,
    /// How many of them must have a record before it counts. Left out: the brokers' default.
    pub min_insync_replicas: Option<u16>,
    /// Partitions of a data topic. One keeps the order of a whole table.
    pub partitions: u32,
    /// Partitions by table: `database.table`, with `*` for any text. The longest pattern that matches counts.
    pub partitions_by_table: BTreeMap<String, u32>,
    /// Largest record (key, value and headers) of a data topic.
    pub max_message_bytes: SizeText,
    /// What becomes of a row that makes a larger record.
    pub oversize: Oversize,
    /// How long watermarks are kept, and so how long a sink may be away before it must catch up by a sweep.
    pub watermark_retention: DurationText,
    /// For how long no record of a data topic may be compacted away: at least `watermark_retention`.
    pub min_compaction_lag: DurationText,
    /// For how long deletes stay readable after that: at least twice `watermark_retention`.
    pub delete_retention: DurationText,
    /// Any other setting of data topics, by its Kafka name.
    pub settings: BTreeMap<String, String>,
}

const WEEK: u64 = 7 * 86_400;

impl Default for Topics {
    fn default() -> Self {
        Self {
            replication_factor: None,
            min_insync_replicas: None,
            partitions: 1,
            partitions_by_table: BTreeMap::new(),
            max_message_bytes: SizeText::mib(16),
            oversize: Oversize::default(),
            watermark_retention: DurationText::secs(WEEK),
            min_compaction_lag: DurationText::secs(WEEK),
            delete_retention: DurationText::secs(2 * WEEK),
            settings: BTreeMap::new(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            client_id: "caudal".into(),
            tls: None,
            sasl: None,
            topics: Topics::default(),
            profile: Profile::default(),
            format: Format::default(),
            registry: None,
            transactions: false,
            heartbeats: DurationText::secs(0),
            monitoring: Monitoring::default(),
            notifications: Notifications::default(),
            compression: Compression::default(),
            delivery: Delivery::default(),
            transaction_timeout: DurationText::secs(20),
            pace: DurationText::millis(4),
            queue: SizeText::mib(16),
            properties: BTreeMap::new(),
        }
    }
}

impl Config {
    /// For the embedded log at `address` (`127.0.0.1:9092`): plain text, one copy, no pause between transactions.
    #[must_use]
    pub fn embedded(address: impl Into<String>) -> Self {
        Self { brokers: vec![address.into()], pace: DurationText::millis(0), ..Self::default() }
    }

    /// Checks all that can be checked without the brokers. `name` is the node's path in the configuration.
    ///
    /// # Errors
    /// Of fault `Config`, with the field, the cause and the fix.
    pub fn resolve(self, name: &str) -> Result<Resolved> {
        let wrong = |field: &str, message: &str, fix: &str| {
            Err(Error::config(message).field(format!("{name}.{field}")).hint(fix))
        };
        if self.brokers.is_empty() || self.brokers.iter().any(|b| !is_address(b)) {
            return wrong(
                "brokers",
                "is not a list of host:port",
                "write it as [kafka-1:9092, kafka-2:9092]",
            );
        }
        if self.delivery == Delivery::AtLeastOnce && self.profile != Profile::Safe {
            return wrong(
                "delivery",
                "at_least_once needs a header on each record, which this profile does not have",
                "take `profile: safe`, or leave `delivery` out: events are written exactly once",
            );
        }
        let timeout = self.transaction_timeout.get();
        if timeout < Duration::from_secs(10) || timeout > Duration::from_secs(900) {
            return wrong("transaction_timeout", "is out of 10s to 15m", "20s suits most");
        }
        if let Some(key) = self.properties.keys().find(|key| RESERVED.contains(&key.as_str())) {
            return wrong(&format!("properties.{key}"), "is set by Caudal itself", "remove it");
        }
        if self.queue.bytes() < 1 << 20 {
            return wrong("queue", "is under 1MiB", "16MiB suits most");
        }
        if let Some((field, cause)) = self.monitoring.mistake() {
            return wrong(&format!("monitoring.{field}"), cause, "leave it out: the default suits most");
        }
        if let Err(cause) = mistaken_topic(&self.notifications) {
            return wrong("notifications.topic", cause, "leave it out, or name a topic of your own");
        }
        self.resolve_sasl(name)?;
        self.resolve_topics(name)?;
        self.resolve_format(name)?;
        let tokens = Tokens::of(self.sasl.as_ref());
        Ok(Resolved { properties: self.client_properties(), config: self, tokens })
    }

    fn resolve_sasl(&self, name: &str) -> Result<()> {
        let Some(sasl) = &self.sasl else { return Ok(()) };
        let wrong = |field: &str, message: &str, fix: &str| {
            Err(Error::config(message).field(format!("{name}.sasl.{field}")).hint(fix))
        };
        let by_token = sasl.mechanism == Mechanism::OauthBearer;
        match &sasl.token {
            Some(_) if !by_token => {
                return wrong(
                    "token",
                    "is not used by this mechanism",
                    "remove it, or set mechanism: OAUTHBEARER",
                );
            }
            None if by_token => {
                return wrong(
                    "token",
                    "is missing",
                    "write token: {url: https://…}, {command: […]} or {file: …}",
                );
            }
            Some(token) => {
                if let Some((field, cause, fix)) = token.mistake() {
                    return wrong(field, cause, fix);
                }
                // Topics are made on a connection of our own then, which knows neither.
                let tls = self.tls.as_ref();
                if tls.is_some_and(|tls| tls.key_password.is_some() || tls.insecure) {
                    let cause =
                        "does not go with an encrypted key, nor with certificates that nobody looks at";
                    return wrong(
                        "mechanism",
                        cause,
                        "leave `kafka.tls.key_password` and `kafka.tls.insecure` out",
                    );
                }
                if token.url.is_none() {
                    return Ok(());
                }
            }
            None => {}
        }
        for (field, value) in [("username", &sasl.username), ("password", &sasl.password)] {
            if value.is_empty() {
                return wrong(field, "is missing", "write it, the password as ${env:NAME}");
            }
        }
        Ok(())
    }

    fn resolve_topics(&self, name: &str) -> Result<()> {
        let wrong = |field: &str, message: &str, fix: &str| {
            Err(Error::config(message).field(format!("{name}.topics.{field}")).hint(fix))
        };
        let topics = &self.topics;
        let counts = topics.partitions_by_table.values().chain([&topics.partitions]);
        if counts.into_iter().any(|&n| n == 0 || n > 10_000) {
            return wrong("partitions", "is out of 1 to 10000", "1 keeps the order of a whole table");
        }
        if !(1 << 20..=900 << 20).contains(&topics.max_message_bytes.bytes()) {
            return wrong("max_message_bytes", "is out of 1MiB to 900MiB", "16MiB suits most");
        }
        if topics.min_compaction_lag < topics.watermark_retention {
            return wrong(
                "min_compaction_lag",
                "is shorter than watermark_retention: sinks would see parts of transactions",
                "make it at least as long",
            );
        }
        if topics.delete_retention.get() < topics.watermark_retention.get() * 2 {
            return wrong(
                "delete_retention",
                "is shorter than twice watermark_retention: sinks would miss deletes",
                "make it at least twice as long",
            );
        }
        Ok(())
    }

    fn resolve_format(&self, name: &str) -> Result<()> {
        let wrong = |field: &str, message: &str, fix: &str| {
            Err(Error::config(message).field(format!("{name}.{field}")).hint(fix))
        };
        match &self.registry {
            None if self.format.is_registered() => {
                return wrong(
                    "registry",
                    &format!("is missing: the format `{}` needs a schema registry", self.format.as_str()),
                    "write registry: {url: \"http://registry:8081\"}, or take the format `caudal`, which needs none",
                );
            }
            Some(_) if !self.format.is_registered() => {
                return wrong(
                    "registry",
                    &format!("is not used by the format `{}`", self.format.as_str()),
                    "leave it out, or take the format `avro` or `protobuf`",
                );
            }
            Some(registry) => {
                if let Err(cause) = crate::http::Address::parse(&registry.url) {
                    return wrong("registry.url", cause, "write it as http://host:8081 or https://host");
                }
            }
            None => {}
        }
        if self.format.is_registered() && self.profile != Profile::Safe {
            return wrong(
                "profile",
                &format!("is not offered with the format `{}`", self.format.as_str()),
                "leave it out: values then are as the source has them",
            );
        }
        let unenveloped = matches!(self.format, Format::Flat | Format::Maxwell);
        if self.transactions && unenveloped {
            return wrong(
                "transactions",
                &format!("have no place in the format `{}`", self.format.as_str()),
                "leave it out, or take another format",
            );
        }
        Ok(())
    }

    fn client_properties(&self) -> BTreeMap<String, String> {
        let mut all = self.properties.clone();
        let mut set = |key: &str, value: &str| all.insert(key.into(), value.into());
        set("bootstrap.servers", &self.brokers.join(","));
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            let files = [
                ("ssl.ca.location", &tls.ca),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
                ("ssl.key.password", &tls.key_password),
            ];
            for (key, value) in files {
                if let Some(value) = value {
                    set(key, value);
                }
            }
            if tls.insecure {
                set("enable.ssl.certificate.verification", "false");
            }
        }
        if let Some(sasl) = &self.sasl {
            set("sasl.mechanism", sasl.mechanism.as_str());
            if sasl.mechanism != Mechanism::OauthBearer {
                set("sasl.username", &sasl.username);
                set("sasl.password", &sasl.password);
            }
        }
        all
    }
}

impl TokenSource {
    /// What is wrong with it: field, cause, fix.
    fn mistake(&self) -> Option<(&'static str, &'static str, &'static str)> {
        let ways = [self.url.is_some(), !self.command.is_empty(), self.file.is_some()];
        if ways.into_iter().filter(|way| *way).count() != 1 {
            return Some(("token", "is not one of url, command and file", "write just one of them"));
        }
        if self.url.is_none() && (self.scope.is_some() || self.ca.is_some()) {
            return Some(("token", "has `scope` or `ca` without an endpoint", "remove them, or write `url`"));
        }
        let url = self.url.as_deref()?;
        let cause = crate::http::Address::parse(url).err()?;
        Some(("token.url", cause, "write it as https://host/path"))
    }
}

/// Properties that durability, exactly-once, the bounds on memory or the rules of reading depend on, each by all its names.
const RESERVED: [&str; 23] = [
    "acks",
    "auto.commit.enable",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "client.id",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.idempotence",
    "group.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "queue.buffering.max.kbytes",
    "request.required.acks",
    "security.protocol",
    "transaction.timeout.ms",
    "transactional.id",
];

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// A checked configuration.
#[derive(Clone)]
pub struct Resolved {
    pub(crate) config: Config,
    /// What every client of librdkafka gets: addresses, TLS, SASL and the operator's own.
    pub(crate) properties: BTreeMap<String, String>,
    /// What clients come in by, if they do by tokens.
    pub(crate) tokens: Option<Arc<Tokens>>,
}

impl Resolved {
    /// Partitions that a table's keys are spread over, when its topic is made.
    pub(crate) fn partitions(&self, database: &str, table: &str) -> u32 {
        let name = format!("{database}.{table}");
        let topics = &self.config.topics;
        let matching = topics.partitions_by_table.iter().filter(|(pattern, _)| matches(pattern, &name));
        matching.max_by_key(|(pattern, _)| pattern.len()).map_or(topics.partitions, |(_, &n)| n)
    }

    /// The librdkafka name of the compression.
    pub(crate) fn compression(&self) -> &'static str {
        self.config.compression.as_str()
    }
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).filter(|&i| tail.is_char_boundary(i)).any(|i| matches(rest, &tail[i..]))
        }),
    }
}

// Debug hides what may be secret: passwords, and properties whose values are unknown to us.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("tls", &self.tls.is_some())
            .field("sasl", &self.sasl.as_ref().map(|s| s.mechanism))
            .field("delivery", &self.delivery)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { brokers: vec!["kafka:9092".into()], ..Config::default() }
    }

    fn refusal(config: Config) -> String {
        let error = config.resolve("kafka").unwrap_err();
        assert!(error.hint_text().is_some());
        error.to_string()
    }

    #[test]
    fn what_would_break_a_promise_is_refused_with_its_field() {
        assert!(refusal(Config::default()).starts_with("kafka.brokers: "));
        let delivery = Config { delivery: Delivery::AtLeastOnce, profile: Profile::Debezium35, ..config() };
        assert!(refusal(delivery).starts_with("kafka.delivery: "));
        let mut short = config();
        short.topics.delete_retention = DurationText::secs(60);
        assert!(refusal(short).starts_with("kafka.topics.delete_retention: "));
        for (name, value) in [
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("enable.idempotence", "false"),
            ("max.in.flight.requests.per.connection", "100"),
            ("transactional.id", "mine"),
        ] {
            let mut weaker = config();
            weaker.properties.insert(name.into(), value.into());
            assert!(refusal(weaker).starts_with(&format!("kafka.properties.{name}: ")));
        }
    }

    #[test]
    fn tokens_come_from_one_source_and_what_it_needs_is_asked_for() {
        let sasl = |token: Option<TokenSource>, username: &str| Config {
            sasl: Some(Sasl {
                mechanism: Mechanism::OauthBearer,
                username: username.into(),
                password: "p".into(),
                token,
            }),
            ..config()
        };
        let url = |text: &str| TokenSource { url: Some(text.into()), ..TokenSource::default() };
        let command = TokenSource { command: vec!["token".into()], ..TokenSource::default() };
        assert!(refusal(sasl(None, "u")).starts_with("kafka.sasl.token: "));
        assert!(refusal(sasl(Some(TokenSource::default()), "u")).starts_with("kafka.sasl.token: "));
        assert!(refusal(sasl(Some(url("ftp://x")), "u")).starts_with("kafka.sasl.token.url: "));
        assert!(refusal(sasl(Some(url("https://x/t")), "")).starts_with("kafka.sasl.username: "));
        let both = TokenSource { file: Some("f".into()), ..command.clone() };
        assert!(refusal(sasl(Some(both), "u")).starts_with("kafka.sasl.token: "));
        let mut other = sasl(Some(command.clone()), "u");
        other.sasl.as_mut().unwrap().mechanism = Mechanism::Plain;
        assert!(refusal(other).starts_with("kafka.sasl.token: "));
        let resolved = sasl(Some(command), "").resolve("kafka").unwrap();
        assert_eq!(resolved.properties["sasl.mechanism"], "OAUTHBEARER");
        assert!(!resolved.properties.contains_key("sasl.password"));
    }

    #[test]
    fn a_user_without_a_password_is_told() {
        let sasl = Some(Sasl { username: "u".into(), ..Sasl::default() });
        assert!(refusal(Config { sasl, ..config() }).starts_with("kafka.sasl.password: "));
    }

    #[test]
    fn the_longest_pattern_gives_a_table_its_partitions() {
        let mut config = config();
        config.topics.partitions_by_table =
            BTreeMap::from([("shop.*".into(), 3), ("shop.orders".into(), 6), ("*_log".into(), 2)]);
        let resolved = config.resolve("kafka").unwrap();
        assert_eq!(resolved.partitions("shop", "orders"), 6);
        assert_eq!(resolved.partitions("shop", "lines"), 3);
        assert_eq!(resolved.partitions("app", "audit_log"), 2);
        assert_eq!(resolved.partitions("app", "users"), 1);
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut config = config();
        config.sasl = Some(Sasl { username: "u".into(), password: "hunter2".into(), ..Sasl::default() });
        config.properties.insert("ssl.key.password".into(), "hunter2".into());
        assert!(!format!("{config:?} {:?}", config.clone().resolve("kafka")).contains("hunter2"));
    }
}
