//! The embedded log: the Kafka protocol over segment files.
