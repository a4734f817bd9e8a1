//! From a resolved configuration to pipelines: one per source (source → log), one per sink (log → sink).

use super::registry::Kafka;
use caudal_control::config::Resolved;
use caudal_engine::Pipeline;

pub(crate) fn pipelines(_: &Resolved<Kafka>) -> Vec<Pipeline> {
    Vec::new()
}
