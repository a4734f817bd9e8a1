//! What a broker's refusal lacks: operation, resource, user, and the command that grants it.
//!
//! A broker says only that something is not allowed. What was being done tells operation and resource; for topics of a transaction, where
//! it could be any, the brokers are asked what this user may do (Metadata with the topics' authorized operations, version 8 on).

use crate::config::{Config, Mechanism, Resolved};
use crate::faults::classify;
use crate::topic_ids;
use caudal_core::Error;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::fmt;

/// What an operation is done to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource<'a> {
    /// One topic.
    Topic(&'a str),
    /// Those that begin so.
    Topics(&'a str),
    /// A consumer group.
    Group(&'a str),
    /// A transactional id.
    TransactionalId(&'a str),
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Topics(start) => write!(f, "topics starting with {start}"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::TransactionalId(id) => write!(f, "transactional id {id}"),
        }
    }
}

impl Resource<'_> {
    /// As `kafka-acls.sh` names it.
    fn option(&self) -> String {
        match self {
            Self::Topic(name) => format!("--topic '{name}'"),
            Self::Topics(start) => format!("--topic '{start}' --resource-pattern-type prefixed"),
            Self::Group(name) => format!("--group '{name}'"),
            Self::TransactionalId(id) => format!("--transactional-id '{id}'"),
        }
    }
}

/// Whether an error says that something is not allowed.
fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
        )
    )
}

/// The user as brokers know it, where that is known here.
fn principal(config: &Config) -> Option<String> {
    match (&config.sasl, &config.tls) {
        // The name in a token is the provider's affair.
        (Some(sasl), _) if sasl.mechanism == Mechanism::OauthBearer => None,
        (Some(sasl), _) if !sasl.username.is_empty() => Some(format!("User:{}", sasl.username)),
        (None, None) => Some("User:ANONYMOUS".to_owned()),
        _ => None,
    }
}

/// An error with its fault; a refusal with what is lacking, of what was being done.
pub(crate) fn classify_doing(
    error: KafkaError,
    context: impl Into<String>,
    resolved: &Resolved,
    (operation, resource): (&str, Resource<'_>),
) -> Error {
    if !is_refusal(&error) {
        return classify(error, context);
    }
    lacking(&resolved.config, classify(error, context), operation, resource)
}

/// The same for records of a transaction: which of the topics may not be written to, the brokers tell. Waits for the network.
pub(crate) fn classify_writing(
    error: KafkaError,
    context: impl Into<String>,
    resolved: &Resolved,
    topics: &[String],
    prefix: &str,
) -> Error {
    // Where a partition may not become part of the transaction, the library fails the transaction with the refusal, and the records that
    // wait for it as purged: those may be told first.
    let is_refused = match error.rdkafka_error_code() {
        Some(Code::TopicAuthorizationFailed) => true,
        Some(Code::PurgeQueue) => false,
        _ => return classify(error, context),
    };
    const WRITE: i32 = 1 << 4;
    let asked = topic_ids::allowed(resolved, topics);
    let allowed = tokio::runtime::Handle::current().block_on(asked);
    let refused = topics.iter().find(|topic| allowed.get(*topic).is_some_and(|bits| bits & WRITE == 0));
    if refused.is_none() && !is_refused {
        return classify(error, context);
    }
    let resource = refused.map_or(Resource::Topics(prefix), |topic| Resource::Topic(topic));
    lacking(&resolved.config, classify(error, context), "Write", resource)
}

fn lacking(config: &Config, error: Error, operation: &str, resource: Resource<'_>) -> Error {
    let user = principal(config);
    let who = user.as_deref().unwrap_or("this user");
    let brokers = config.brokers.first().map_or("BROKER", String::as_str);
    let command = format!(
        "kafka-acls.sh --bootstrap-server {brokers} --add --allow-principal '{}' --operation {operation} {}",
        user.as_deref().unwrap_or("User:NAME"),
        resource.option()
    );
    Error::config(format!("{error}: {who} lacks {operation} on {resource}")).hint(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sasl;
    use caudal_core::Fault;

    fn resolved(sasl: Option<Sasl>) -> Resolved {
        Config { brokers: vec!["k:9092".into()], sasl, ..Config::default() }.resolve("kafka").unwrap()
    }

    #[test]
    fn a_refusal_names_operation_resource_user_and_the_command() {
        let sasl = Sasl {
            mechanism: Mechanism::Plain,
            username: "cdc".into(),
            password: "hunter2".into(),
            token: None,
        };
        let error = classify_doing(
            KafkaError::Global(Code::GroupAuthorizationFailed),
            "join",
            &resolved(Some(sasl)),
            ("Read", Resource::Group("caudal.shop.dash")),
        );
        assert_eq!(error.fault(), Fault::Config);
        assert!(error.to_string().contains("User:cdc lacks Read on group caudal.shop.dash"), "{error}");
        assert_eq!(
            error.hint_text(),
            Some(
                "kafka-acls.sh --bootstrap-server k:9092 --add --allow-principal 'User:cdc' --operation Read --group 'caudal.shop.dash'"
            )
        );
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn other_errors_are_what_they_were() {
        let down = KafkaError::Global(Code::BrokerTransportFailure);
        let doing = ("Read", Resource::Topics("shop."));
        assert_eq!(classify_doing(down, "read", &resolved(None), doing).fault(), Fault::Transient);
    }
}
