//! The embedded log: the Kafka protocol over segment files.
mod api;
mod batch;
mod clock;
mod config;
mod connection;
mod coordinator;
mod disk;
mod error;
mod group;
mod ledger;
mod log;
mod maintenance;
mod node;
mod storage;
#[cfg(test)]
mod tests;
mod topic_config;
mod topics;

pub use config::Config;
pub use error::Error;
pub use log::Log;
