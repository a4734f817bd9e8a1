//! What the side topics tell of sources: their numbers, their tables.

use crate::client::{Clients, REQUEST_TIMEOUT, blocking};
use crate::replay::{Partition, Replayer};
use crate::schemas::Schemas;
use caudal_core::Result;
use caudal_proto::side::TopicNames;
use std::collections::BTreeMap;

/// Sources and their partitions of the per-source topics.
pub(crate) type Numbers = BTreeMap<String, i32>;

/// The numbers of all sources that were ever captured; none if there is no such log yet.
///
/// # Errors
/// `Transient` if the brokers do not answer.
pub(crate) async fn numbers(clients: &Clients, names: &TopicNames, role: &str) -> Result<Numbers> {
    if !crate::topics::Topics::new(clients, role)?.list().await?.contains_key(&names.tasks()) {
        return Ok(Numbers::new());
    }
    crate::tasks::numbers(clients, names, role).await
}

/// The shapes of all tables of some sources.
///
/// # Errors
/// `Transient` if the brokers do not answer, `Data` for a damaged record.
pub(crate) async fn schemas(
    clients: &Clients,
    names: &TopicNames,
    role: &str,
    numbers: &Numbers,
) -> Result<Schemas> {
    let (clients, topic, role) = (clients.clone(), names.schemas(), role.to_owned());
    let partitions: Vec<Partition> = numbers.values().map(|number| (topic.clone(), *number)).collect();
    blocking(move || {
        let mut schemas = Schemas::default();
        Replayer::new(&clients, &role)
            .replay(&partitions, REQUEST_TIMEOUT, |_, (_, value, offset)| schemas.take(value, offset))?;
        Ok(schemas)
    })
    .await
}
