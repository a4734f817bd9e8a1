//! Kafka as a sink of captures and as a source of sinks.

mod decode;
