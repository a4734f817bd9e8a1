//! Postgres as a sink: batches applied as upserts, exactly once.
//!
//! Rows, the log's offsets and the freshness are one database transaction (`state` says why only one writer's is ever visible),
//! so a crash at any point leaves both or neither. Batches are coalesced by key (`prepare`), written in an order that holds
//! unique indexes (`apply`), and a row that the server refuses is named, alone (`writer`).
//!
//! For users: `select * from caudal.freshness` tells up to which moment of its source's clock each table is complete;
//! `caudal.offsets` what it has consumed.

mod after;
mod apply;
mod catalog;
mod check;
mod client;
mod compare;
mod config;
mod encode;
mod freshness;
mod parameter;
mod plan;
mod prepare;
mod project;
mod quote;
mod ready;
mod rebuild;
mod shape;
mod sink;
mod state;
mod sweep;
mod tables;
mod tls;
mod types;
mod url;
mod writer;

pub use config::{AfterLoad, Config, Consistency, Deletes, OnFailure, Resolved, Step};
pub use ready::{Abc, Per, PhantomZeros, SameDay, Snapshot};
pub use tables::{Changes, Infinite, OutOfRange, TableOptions, ZeroCharacters};
pub use types::JsonAs;

use caudal_core::{Result, Sink};
use std::sync::Arc;

/// The sink of a configuration; `name` is its key in the `sinks` of the configuration.
///
/// # Errors
/// Fault `Config` with the field, if the configuration cannot be used.
pub fn sink(name: &str, config: Config) -> Result<Arc<dyn Sink>> {
    Ok(Arc::new(sink::PgSink { config: Arc::new(config.resolve(name)?) }))
}
