//! The replication client.

use crate::binlog::event::Event;
use crate::connection::{Endpoint, Family, ServerVersion};
use crate::gtid::GtidSet;
use caudal_core::Result;
use std::time::Duration;

/// Where to begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// After these transactions. An empty set: from the oldest one that the server still has.
    Gtid(GtidSet),
    /// At a byte position, which must be an event's first byte; 4 is a file's first event.
    File {
        /// Name of the log file.
        name: String,
        /// Position in it.
        pos: u64,
    },
}

/// How to stream.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Our own id among the source's replicas: not 0, and used by nobody else.
    pub server_id: u32,
    /// Where to begin.
    pub start: Start,
    /// How often the idle source shows that it lives. Silence of three periods is an error. At least 1 ms.
    pub heartbeat: Duration,
    /// The largest event, compressed or not, in bytes. The server's own limit is 1 GiB.
    pub max_event_bytes: usize,
}

impl StreamOptions {
    /// A heartbeat each 5 s, events up to 1 GiB + 1 MiB.
    #[must_use]
    pub fn new(server_id: u32, start: Start) -> Self {
        Self { server_id, start, heartbeat: Duration::from_secs(5), max_event_bytes: (1 << 30) + (1 << 20) }
    }
}

/// A running dump of the source's binlog.
///
/// Memory: one event (at most `max_event_bytes`), of a compressed transaction the compressed bytes and one inner event, and
/// the parsed table maps (at most 4,096).
pub struct BinlogStream {
    family: Family,
    version: ServerVersion,
}

impl BinlogStream {
    /// Connects, registers and asks for the log.
    ///
    /// # Errors
    /// `Config` with a hint where the operator must act (password, privileges, purged or diverged history, checksum of
    /// another kind), `Transient` where the network or the server fails.
    pub async fn open(endpoint: &Endpoint, options: StreamOptions) -> Result<Self> {
        let _ = (endpoint, options);
        Err(caudal_core::Error::bug("open the stream"))
    }

    /// The next event. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// `Transient` when the connection is lost or silent, `Data` when bytes are damaged or not understood (a checksum that
    /// does not fit, an unknown column type), `Config` when the server refuses (error 1236: purged, unknown GTID, …).
    pub async fn next(&mut self) -> Result<Event> {
        Err(caudal_core::Error::bug("next event"))
    }

    /// Whose server it is.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> &ServerVersion {
        &self.version
    }
}
