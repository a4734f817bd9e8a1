//! Kafka as the sink of captures and as the source of sinks.
//!
//! [`Log`] is the door: it holds what every client of one log shares (configuration, topic names). The write half makes the
//! capture sink ([`Log::capture_sink`]): events, position and watermark in one Kafka transaction.

pub mod config;
pub mod format;

mod acl;
mod client;
mod dead_letters;
mod decode;
mod encode;
mod export;
mod faults;
mod group;
mod http;
mod log;
pub mod monitoring;
mod murmur2;
mod offsets;
mod reader;
mod registry;
mod replay;
mod schemas;
mod signals;
mod sources;
mod status;
mod tap;
mod tasks;
mod telemetry;
mod tokens;
mod topic_ids;
mod topics;
mod watermarks;
mod writer;
mod written;

pub use config::{Config, Delivery};
pub use dead_letters::DeadLetter;
pub use encode::{NEW_KEY_HEADER, OLD_KEY_HEADER, ORDER_HEADER, TRUNCATE_HEADER, TRUNCATE_KEY, system_clock};
pub use export::{Exported, Progress, Told};
pub use log::{CaptureOptions, Log};
pub use reader::{Consistency, Freshness, HeldTable, LogSource, ReadOptions, TableReader};
pub use signals::Signals;
pub use status::{PartitionStatus, SinkStatus, SourceStatus};
pub use tap::{Tap, TapFrom, Tapped};
pub use telemetry::{BrokerReport, ClientReport, Telemetry};
pub use writer::flush::flush;
pub use writer::statistics::{Counts, Statistics};
