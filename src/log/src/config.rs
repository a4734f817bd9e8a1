//! How a log is started: what its owner may choose.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one embedded log. Everything has a default but `data_dir`, whose default is `./log`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address that clients connect to. Port 0 takes a free port; [`crate::Log::address`] tells which.
    pub listen: SocketAddr,
    /// Host name that clients are told to connect to; by default the address in `listen`
    /// (or 127.0.0.1 when that is unspecified). May carry a port as `host:port`.
    pub advertised: Option<String>,
    /// Folder of all files. One process at a time holds it.
    pub data_dir: PathBuf,
    /// There is neither TLS nor authentication: listening beyond loopback is refused unless this is set.
    pub allow_remote: bool,
    /// Whether a metadata request for an unknown topic creates it (off: topics are created on purpose).
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without saying how many.
    pub default_partitions: i32,
    /// Size in bytes at which a segment file is closed and the next begun; a topic's `segment.bytes` overrides it.
    pub segment_bytes: u64,
    /// Open client connections; further ones are closed at once.
    pub max_connections: usize,
    /// Largest request in bytes; the connection that sends a larger one is closed.
    pub max_frame_bytes: usize,
    /// Bytes of request frames, and as many of fetched records, that all connections hold in memory together.
    pub buffer_bytes: usize,
    /// Time between two rounds of retention, compaction and expiry.
    pub maintenance_interval: Duration,
    /// Memory in bytes for the key table of one compaction pass.
    pub compaction_buffer_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
            advertised: None,
            data_dir: PathBuf::from("log"),
            allow_remote: false,
            auto_create_topics: false,
            default_partitions: 1,
            segment_bytes: 128 << 20,
            max_connections: 512,
            max_frame_bytes: 32 << 20,
            buffer_bytes: 64 << 20,
            maintenance_interval: Duration::from_secs(30),
            compaction_buffer_bytes: 16 << 20,
        }
    }
}
