//! The data plane: one loop for captures and for sinks, one fault policy, dead letters and metrics.
//!
//! A [`Pipeline`] is a source, a sink and what lies between; [`supervise`] runs it for the life of the daemon. Kafka is both a
//! source and a sink, so "MySQL → Kafka" and "Kafka → Postgres" are the same loop.

pub mod freshness;
pub mod metrics;
pub mod pipeline;
pub mod policy;
mod session;
pub mod shutdown;
pub mod status;
mod supervisor;
pub mod verify;

pub use pipeline::{Limits, OnReject, Pipeline, Transform};
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use status::{PipelineStatus, State, StatusHandle};
pub use supervisor::supervise;
