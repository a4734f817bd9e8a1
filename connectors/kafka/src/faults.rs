//! Which fault an error of librdkafka is.
//!
//! Authentication, authorization and settings need the operator; a fenced producer belongs to another instance; a record
//! that the broker cannot take is data; all else may pass by itself.

use caudal_core::{Error, Fault};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Gives an error of librdkafka its fault, its context ("verb object") and, where one is known, the fix.
pub(crate) fn classify(error: KafkaError, context: impl Into<String>) -> Error {
    let (fault, hint) = verdict(&error);
    let made = Error::new(fault, context).because(error);
    match hint {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

fn verdict(error: &KafkaError) -> (Fault, Option<&'static str>) {
    if let KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) = error {
        return (Fault::Config, Some("look at `kafka.properties`, `kafka.tls` and `kafka.sasl`"));
    }
    let Some(code) = error.rdkafka_error_code() else { return (Fault::Transient, None) };
    match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
            (Fault::Fenced, Some("another daemon with the same prefix and source has taken over"))
        }
        Code::SaslAuthenticationFailed | Code::Authentication | Code::UnsupportedSASLMechanism => (
            Fault::Config,
            Some("check `kafka.sasl`: mechanism, username and password, or where its tokens come from"),
        ),
        Code::SSL => (Fault::Config, Some("check `kafka.tls`: certificate authority, certificate and key")),
        Code::TopicAuthorizationFailed => {
            (Fault::Config, Some("grant this user Create, Describe, Read and Write on the prefix's topics"))
        }
        Code::GroupAuthorizationFailed => {
            (Fault::Config, Some("grant this user Read on groups starting with `caudal.`"))
        }
        Code::ClusterAuthorizationFailed => {
            (Fault::Config, Some("grant this user IdempotentWrite and Create on the cluster"))
        }
        Code::TransactionalIdAuthorizationFailed => (
            Fault::Config,
            Some("grant this user Write and Describe on transactional ids starting with `caudal.`"),
        ),
        Code::InvalidTransactionTimeout => (
            Fault::Config,
            Some("lower `kafka.transaction_timeout` to the brokers' transaction.max.timeout.ms"),
        ),
        Code::PolicyViolation | Code::InvalidConfig | Code::InvalidReplicationFactor => {
            (Fault::Config, Some("look at `kafka.topics`: the brokers refuse these settings"))
        }
        Code::MessageSizeTooLarge | Code::InvalidRecord => (Fault::Data, None),
        _ => (Fault::Transient, None),
    }
}

/// Whether a client came with a token that had ended. It connects again with the next one, which it is given when it asks.
pub(crate) fn is_late_token(error: &KafkaError, by_token: bool) -> bool {
    by_token
        && matches!(error.rdkafka_error_code(), Some(Code::SaslAuthenticationFailed | Code::Authentication))
}

/// Whether the producer's epoch is no longer the newest: another instance has taken over.
pub(crate) fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_who_must_act() {
        let fault = |code| classify(KafkaError::Global(code), "x").fault();
        assert_eq!(fault(Code::ProducerFenced), Fault::Fenced);
        assert_eq!(fault(Code::SaslAuthenticationFailed), Fault::Config);
        assert_eq!(fault(Code::BrokerTransportFailure), Fault::Transient);
    }
}
