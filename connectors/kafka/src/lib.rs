//! Kafka as the sink of captures and as the source of sinks.
//!
//! [`Log`] is the door: it holds what every client of one log shares (configuration, topic names). The write half makes the
//! capture sink ([`Log::capture_sink`]): events, position and watermark in one Kafka transaction.

pub mod config;

mod client;
mod decode;
mod encode;
mod faults;
mod log;
mod murmur2;
mod replay;
mod tasks;
mod topic_ids;
mod topics;
mod writer;

pub use config::Config;
pub use encode::{
    EncodeOptions, Encoder, NEW_KEY_HEADER, OLD_KEY_HEADER, TRUNCATE_HEADER, TRUNCATE_KEY, system_clock,
};
pub use log::{CaptureOptions, Log};
pub use writer::statistics::{Counts, Statistics};
