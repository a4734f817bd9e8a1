//! The test kit: real servers that live as long as the test run, the real daemon as a process that can be killed, a seeded
//! workload, a row-by-row comparison of source and sink, and an audit of what lies in the topics.
//!
//! Everything a test needs is private to it: servers are shared by the tests of one run (starting them costs seconds), but each
//! test takes its own source database, topic prefix and sink database on them.

pub mod audit;
pub mod bigquery;
pub mod canon;
pub mod compare;
pub mod daemon;
pub mod http;
pub mod kafka;
pub mod kafka_proxy;
pub mod klk;
pub mod mysql;
pub mod patience;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod service;
pub mod tds;
pub mod workload;

pub use audit::Audit;
pub use compare::{Comparison, TablePair};
pub use daemon::{Daemon, DaemonConfig};
pub use kafka::Kafka;
pub use mysql::{Family, MysqlServer};
pub use postgres::{PgDatabase, Postgres};
pub use registry::SchemaRegistry;
pub use workload::{Tally, Workload};
