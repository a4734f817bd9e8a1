//! The connectors of this binary: one line each.

use caudal_control::registry::Registry;
use caudal_core::Result;

/// How the log is configured.
pub(crate) type Kafka = caudal_kafka::Config;

/// What a configuration may name.
pub(crate) fn registry() -> Registry<Kafka> {
    let registry = Registry::new(usable);
    let registry = registry.source("mysql", &["mysql"], caudal_mysql::source);
    // The same connector under the name that Debezium's is known by: it is told in each event's `source.connector`.
    let registry = registry.source("mariadb", &["mariadb"], caudal_mysql::source);
    let registry = registry.source("rest", &[], caudal_rest::source);
    let registry = registry.source("sqlserver", &["sqlserver", "mssql"], caudal_sqlserver::source);
    let registry = registry.source("bigquery", &[], caudal_bigquery::source);
    let registry = registry.database("mysql");
    registry.sink("postgres", &["postgres", "postgresql"], caudal_postgres::sink)
}

/// Without brokers the daemon serves the log itself: then all but the address can be checked.
fn usable(kafka: &Kafka) -> Result<()> {
    let mut kafka = kafka.clone();
    if kafka.brokers.is_empty() {
        kafka.brokers = Kafka::embedded("127.0.0.1:9092").brokers;
    }
    kafka.resolve("kafka").map(drop)
}
