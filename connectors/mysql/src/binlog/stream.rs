//! The replication client.

use super::assembler::Assembler;
use super::cursor::Damage;
use super::dump;
use super::event::{Event, EventKind};
use crate::connection::{Connection, Endpoint, Family, ServerVersion};
use crate::gtid::GtidSet;
use crate::packet::Incoming;
use crate::refusal::error_packet;
use bytes::{Buf, Bytes};
use caudal_core::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;

/// Where to begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// After these transactions. An empty set: from the very first one, which the server must still have.
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
    /// Where compressed transactions over 1 MiB are kept while they are read.
    pub spool_dir: PathBuf,
}

impl StreamOptions {
    /// A heartbeat each 5 s, events up to 1 GiB + 1 MiB, files in the system's place for temporary ones.
    #[must_use]
    pub fn new(server_id: u32, start: Start) -> Self {
        let (heartbeat, max_event_bytes) = (Duration::from_secs(5), (1 << 30) + (1 << 20));
        Self { server_id, start, heartbeat, max_event_bytes, spool_dir: std::env::temp_dir() }
    }
}

/// Silence of so many heartbeat periods is a dead connection.
const PATIENCE_PERIODS: u32 = 3;
/// The shortest patience: a busy server may be late.
const LEAST_PATIENCE: Duration = Duration::from_secs(3);
/// The same until the first event or heartbeat: a server that looks for the place in its log need not beat.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// A running dump of the source's binlog.
///
/// Memory: one event (at most `max_event_bytes`, twice that while it is collected), of a compressed transaction zstd's window
/// and one inner event (the compressed bytes are in a file), and the parsed table maps (at most 4,096).
pub struct BinlogStream {
    connection: Connection,
    assembler: Assembler,
    /// Events before this position of the first file were seen.
    skip_below: Option<u64>,
    /// The longest silence, once it streams.
    patience: Duration,
}

impl BinlogStream {
    /// Connects, registers and asks for the log.
    ///
    /// # Errors
    /// `Config` with a hint where the operator must act (password, privileges, purged or diverged history, checksum of
    /// another kind), `Transient` where the network or the server fails.
    pub async fn open(endpoint: &Endpoint, options: StreamOptions) -> Result<Self> {
        if options.server_id == 0 {
            return Err(Error::config("0 is no server_id")
                .field("server_id")
                .hint("give one that no replica uses"));
        }
        let mut connection = Connection::connect(endpoint, options.max_event_bytes).await?;
        let checksums = dump::start(&mut connection, &options).await?;
        let patience = (options.heartbeat * PATIENCE_PERIODS).max(LEAST_PATIENCE);
        connection.wire.patience = patience.max(FIRST_PATIENCE);
        connection.wire.start_dump(options.spool_dir);
        let assembler = Assembler::new(connection.family(), checksums, options.max_event_bytes);
        let skip_below = match options.start {
            Start::File { pos, .. } if pos > u64::from(u32::MAX) => Some(pos),
            _ => None,
        };
        Ok(Self { connection, assembler, skip_below, patience })
    }

    /// The next event. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// `Transient` when the connection is lost or silent, or when an event did not come as it was written (a checksum or a
    /// length that does not fit: the next connection may bring it whole), `Data` when an event is whole but not understood (an
    /// unknown column type), `Config` when the server refuses (error 1236: purged, unknown GTID, …).
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            while let Some(event) = self.assembler.pop().map_err(|d| self.place(d.into()))? {
                if !matches!(event.kind, EventKind::Rotate { .. }) {
                    self.connection.wire.patience = self.patience;
                }
                if !self.skips(&event) {
                    return Ok(event);
                }
            }
            match self.connection.wire.receive_event().await? {
                Incoming::Memory(packet) => {
                    let event = opened(packet)?;
                    let (head, body) = self.assembler.open(&event).map_err(|d| self.place(damaged(d)))?;
                    self.assembler.take(&head, &body).map_err(|d| self.place(d.into()))?;
                }
                Incoming::File(event) => {
                    let head = self.assembler.open_spooled(&event).map_err(|d| self.place(damaged(d)))?;
                    self.assembler.take_spooled(&head, event).map_err(|d| self.place(d.into()))?;
                }
            }
        }
    }

    fn place(&self, e: Error) -> Error {
        let (file, pos) = self.assembler.place();
        e.context(format_args!("read the binlog near {file}:{pos}"))
    }

    /// Events of the first file that lie before a start beyond 4 GiB.
    fn skips(&mut self, event: &Event) -> bool {
        let Some(start) = self.skip_below else {
            return false;
        };
        if matches!(event.kind, EventKind::Rotate { .. }) && !event.file.is_empty() || event.pos >= start {
            self.skip_below = None;
            return false;
        }
        !matches!(event.kind, EventKind::Rotate { .. } | EventKind::Heartbeat)
    }

    /// Whose server it is.
    #[must_use]
    pub fn family(&self) -> Family {
        self.connection.family()
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> &ServerVersion {
        self.connection.version()
    }
}

/// An event that did not come as it was written.
fn damaged(damage: Damage) -> Error {
    Error::transient(damage.0).hint(
        "the connection, or the log on the server's disk, is damaged; if it happens at the same place again and again, look at the file with mysqlbinlog --verify-binlog-checksum",
    )
}

/// The event in a packet of the dump: 0 in front of an event, else an error or the end.
fn opened(mut packet: Bytes) -> Result<Bytes> {
    match (packet.first(), packet.get(3)) {
        (Some(0x00), _) => {
            packet.advance(1);
            Ok(packet)
        }
        // A marker in front of the SQL state: without it these are damaged bytes.
        (Some(0xff), Some(b'#')) => Err(error_packet("read the binlog", &packet)),
        (Some(0xfe), _) => Err(Error::transient("the server ended the dump")),
        _ => Err(Error::transient("the server's packet is no event")),
    }
}
