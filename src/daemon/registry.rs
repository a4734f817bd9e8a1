//! The connectors of this binary: one line each.

use caudal_control::registry::Registry;

/// What a configuration may name.
pub(crate) fn registry() -> Registry<Kafka> {
    Registry::new(|_: &Kafka| Ok(()))
}

#[derive(serde::Deserialize, schemars::JsonSchema, Default, Clone)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(crate) brokers: Vec<String>,
}
