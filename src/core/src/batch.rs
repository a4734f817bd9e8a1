//! What passes between the stages of a pipeline: events as cells over shared buffers.
//!
//! Memory: a batch holds its buffers (the bytes as they came, plus one arena for what had to be rewritten), 16 bytes a cell
//! and one [`EventHead`] an event. Readers close a batch at their configured bytes; one larger than that holds one row.

use crate::cell::{Cell, Slice};
use crate::position::{Position, SourcePosition};
use crate::schema::{TableId, TableSchema};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// What happened to a row; the letters are those of the wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `r`: the row was read, by a snapshot or a re-read.
    Read,
    /// `c`
    Create,
    /// `u`
    Update,
    /// `d`
    Delete,
    /// `t`: the whole table was emptied. No row images.
    Truncate,
}

impl Op {
    /// The letter of the wire format.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Read => 'r',
            Self::Create => 'c',
            Self::Update => 'u',
            Self::Delete => 'd',
            Self::Truncate => 't',
        }
    }

    /// From the letter of the wire format.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'r' => Self::Read,
            b'c' => Self::Create,
            b'u' => Self::Update,
            b'd' => Self::Delete,
            b't' => Self::Truncate,
            _ => return None,
        })
    }
}

/// The `snapshot` field of an event's source, as Debezium names its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SnapshotMark {
    /// From the stream.
    #[default]
    False,
    /// Read by the initial snapshot.
    True,
    /// The snapshot's first row.
    First,
    /// A table's first row.
    FirstInDataCollection,
    /// A table's last row.
    LastInDataCollection,
    /// The snapshot's last row.
    Last,
    /// Read by a re-read while streaming.
    Incremental,
}

impl SnapshotMark {
    /// As the wire format writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::True => "true",
            Self::First => "first",
            Self::FirstInDataCollection => "first_in_data_collection",
            Self::LastInDataCollection => "last_in_data_collection",
            Self::Last => "last",
            Self::Incremental => "incremental",
        }
    }
}

/// No image: an insert's `before`, a delete's `after`.
pub const NO_ROW: u32 = u32::MAX;

/// One change of one row.
#[derive(Clone, Copy, Debug)]
pub struct EventHead {
    /// Index into `Batch::tables`.
    pub table: u32,
    /// Index into `Batch::transactions`.
    pub transaction: u32,
    /// Index into `Batch::cells` of the first cell of the image before, or [`NO_ROW`].
    pub before: u32,
    /// The same for the image after.
    pub after: u32,
    /// Which row of the source's event this is, from 0.
    pub row: u32,
    /// What happened.
    pub op: Op,
    /// Whether a snapshot read it.
    pub snapshot: SnapshotMark,
    /// Byte position of the event in the source's log file; 0 where there is none.
    pub pos: u64,
    /// Commit time in the source (or of the read), microseconds since the epoch, UTC.
    pub ts_us: i64,
}

/// What the events of one source transaction share. Snapshot rows share one of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transaction {
    /// GTID text, where the source has one.
    pub gtid: Option<Slice>,
    /// The log file's name.
    pub file: Option<Slice>,
    /// The server that wrote it; 0 where unknown.
    pub server_id: u32,
    /// The connection that wrote it; 0 where unknown.
    pub thread: u32,
}

/// A point between two source transactions (or after a snapshot's chunk): the batch's events up to it, with all batches
/// before, are a state of the source that a sink may show.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// How many of the batch's events lie before it.
    pub events: u32,
    /// The source's position there. Its notes are empty: the batch's position carries them.
    pub position: SourcePosition,
    /// "Complete up to": the source's clock, microseconds since the epoch, UTC. Never goes back.
    pub ts_us: i64,
    /// What it is a state of; none where nobody tells.
    pub scope: Option<Arc<Scope>>,
}

/// What "complete up to" is said of. Shared by the boundaries for which it is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The source, as the configuration names it.
    pub source: String,
    /// The tables that the boundary speaks for. A captured source names none: it speaks for all but the `incomplete`.
    pub tables: Vec<TablePart>,
    /// Tables that the boundary does not speak for, though their rows pass: their first reading is not over, or the source
    /// cannot follow them for now.
    pub incomplete: Incomplete,
}

/// A part of a table's rows: those of one partition of its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePart {
    /// The table.
    pub table: TableId,
    /// Which part, from 0. A reader that speaks for the whole table names it once, as part 0 of 1.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
}

/// Tables that a boundary does not speak for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Incomplete {
    /// None.
    #[default]
    None,
    /// These.
    Tables(Vec<TableId>),
    /// So many that nothing is said of any.
    All,
}

impl Incomplete {
    /// More are not named one by one: bounds what each watermark holds.
    pub const MOST: usize = 256;

    /// Of a list.
    #[must_use]
    pub fn of(tables: Vec<TableId>) -> Self {
        match tables.len() {
            0 => Self::None,
            n if n > Self::MOST => Self::All,
            _ => Self::Tables(tables),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether it holds a table.
    #[must_use]
    pub fn contains(&self, table: &TableId) -> bool {
        match self {
            Self::None => false,
            Self::Tables(tables) => tables.contains(table),
            Self::All => true,
        }
    }
}

impl Scope {
    /// The parts of tables that are complete up to the boundary.
    pub fn complete(&self) -> impl Iterator<Item = &TablePart> {
        self.tables.iter().filter(|part| !self.incomplete.contains(&part.table))
    }
}

/// A schema change as the source's log tells it.
#[derive(Clone, Debug)]
pub struct Ddl {
    /// How many of the batch's events lie before it.
    pub events: u32,
    /// The statement. May be long; never logged.
    pub statement: String,
    /// The default database of the statement.
    pub database: String,
    /// Tables that have another shape, or are gone, after it.
    pub tables: Vec<TableId>,
    /// Index into `Batch::transactions`.
    pub transaction: u32,
    /// Byte position in the source's log file.
    pub pos: u64,
    /// Microseconds since the epoch, UTC.
    pub ts_us: i64,
}

/// The record of the log that an event was decoded from: what a dead letter keeps.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Key as it came.
    pub key: Option<Slice>,
    /// Value as it came; a tombstone has none.
    pub value: Option<Slice>,
    /// Headers as they came: name and value.
    pub headers: Vec<(Slice, Slice)>,
}

/// A record of the log that is no event: damaged, or of a shape that nobody announced.
#[derive(Clone, Debug)]
pub struct Undecodable {
    /// The record as it came; its slices are of the batch that holds this.
    pub raw: Raw,
    /// What is wrong with it, without the row's values.
    pub cause: String,
}

/// A part of a *sweep*: a table's topic is read from its beginning, since deletes may have been compacted away while the sink
/// was elsewhere. A sink that has rows in the table collects the keys of all rows that it writes from the begin on, less those
/// deleted, and at the end deletes its rows with other keys. A sink that finds the table empty at the begin has nothing to do.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The topic that is read.
    pub topic: Arc<str>,
    /// The table's newest shape. Without a key (and so without compaction) the begin empties the table, and there is no end.
    pub schema: Arc<TableSchema>,
    /// Over how many partitions the topic spreads the table.
    pub partitions: u32,
    /// Which part.
    pub part: SweepPart,
}

/// Where a sweep stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepPart {
    /// Before the batch's events.
    Begin,
    /// After the batch's events.
    End,
}

/// Events, in order, with the position that is safe once all of them are durable.
pub struct Batch {
    /// The bytes that slices point into.
    pub buffers: Vec<Bytes>,
    /// In the source's order.
    pub events: Vec<EventHead>,
    /// Row images, one cell per column of the event's table.
    pub cells: Vec<Cell>,
    /// The shapes of this batch's tables.
    pub tables: Vec<Arc<TableSchema>>,
    /// The transactions of this batch's events.
    pub transactions: Vec<Transaction>,
    /// The last transaction boundary within the batch; none if a large transaction goes on all through it.
    pub boundary: Option<Boundary>,
    /// Schema changes, in order.
    pub ddl: Vec<Ddl>,
    /// For events read from the log: one for each of `events`; else empty.
    pub raw: Vec<Raw>,
    /// Sweeps that begin before this batch's events or end after them. Empty in all but a few batches.
    pub sweeps: Vec<Sweep>,
    /// Records of the log that could not be decoded. The engine treats them as rejected events: the position passes them.
    pub undecodable: Vec<Undecodable>,
    /// Where a reader resumes once this batch, and all before, are durable.
    pub position: Position,
    /// What a writer's [`crate::Prepare`] made of it ahead of time.
    pub prepared: Option<Box<dyn Any + Send + Sync>>,
}

impl Batch {
    /// A batch without events: a heartbeat, or a mere step of the position.
    #[must_use]
    pub fn empty(position: Position) -> Self {
        Self {
            buffers: Vec::new(),
            events: Vec::new(),
            cells: Vec::new(),
            tables: Vec::new(),
            transactions: Vec::new(),
            boundary: None,
            ddl: Vec::new(),
            raw: Vec::new(),
            sweeps: Vec::new(),
            undecodable: Vec::new(),
            position,
            prepared: None,
        }
    }

    /// The bytes of a slice of this batch.
    ///
    /// # Panics
    /// If the slice is not of this batch: connectors hand slices only to batches that hold their buffers.
    #[must_use]
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        &self.buffers[slice.buffer as usize][slice.offset as usize..][..slice.len as usize]
    }

    /// The text of a slice; what is not UTF-8 (a reader's mistake) reads as empty.
    #[must_use]
    pub fn text(&self, slice: Slice) -> &str {
        std::str::from_utf8(self.bytes(slice)).unwrap_or_default()
    }

    /// The shape of an event's table.
    #[must_use]
    pub fn table(&self, event: &EventHead) -> &Arc<TableSchema> {
        &self.tables[event.table as usize]
    }

    /// The image before, if the event has one.
    #[must_use]
    pub fn before(&self, event: &EventHead) -> Option<&[Cell]> {
        self.row(event, event.before)
    }

    /// The image after, if the event has one.
    #[must_use]
    pub fn after(&self, event: &EventHead) -> Option<&[Cell]> {
        self.row(event, event.after)
    }

    fn row(&self, event: &EventHead, at: u32) -> Option<&[Cell]> {
        (at != NO_ROW).then(|| &self.cells[at as usize..][..self.table(event).width()])
    }

    /// Bytes held: buffers, cells and heads.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buffers.iter().map(Bytes::len).sum::<usize>()
            + self.cells.len() * size_of::<Cell>()
            + self.events.len() * size_of::<EventHead>()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("events", &self.events.len())
            .field("cells", &self.cells.len())
            .field("tables", &self.tables.len())
            .field("bytes", &self.size())
            .field("boundary", &self.boundary.is_some())
            .finish_non_exhaustive()
    }
}

/// Fills a [`Batch`]. Buffer 0 is the arena for bytes that had to be made (converted text, decimals, labels); whole
/// source buffers are added beside it without a copy.
pub struct BatchBuilder {
    arena: Vec<u8>,
    buffers: Vec<Bytes>,
    foreign_bytes: usize,
    /// Heads so far.
    pub events: Vec<EventHead>,
    /// Cells so far.
    pub cells: Vec<Cell>,
    /// Transactions so far.
    pub transactions: Vec<Transaction>,
    /// Schema changes so far.
    pub ddl: Vec<Ddl>,
    /// Records of the log so far.
    pub raw: Vec<Raw>,
    /// Parts of sweeps so far.
    pub sweeps: Vec<Sweep>,
    /// Records that could not be decoded so far.
    pub undecodable: Vec<Undecodable>,
    tables: Vec<Arc<TableSchema>>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self {
            arena: Vec::new(),
            buffers: vec![Bytes::new()],
            foreign_bytes: 0,
            events: Vec::new(),
            cells: Vec::new(),
            transactions: Vec::new(),
            ddl: Vec::new(),
            raw: Vec::new(),
            sweeps: Vec::new(),
            undecodable: Vec::new(),
            tables: Vec::new(),
        }
    }
}

impl BatchBuilder {
    /// Whether nothing but arena bytes may be in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.ddl.is_empty()
    }

    /// Bytes held so far: what a reader compares with its limit.
    #[must_use]
    pub fn size(&self) -> usize {
        self.arena.len()
            + self.foreign_bytes
            + self.cells.len() * size_of::<Cell>()
            + self.events.len() * size_of::<EventHead>()
    }

    /// The bytes of a slice of this builder: for readers that compare rows before they hand them on.
    ///
    /// # Panics
    /// If the slice is not of this builder.
    #[must_use]
    pub fn bytes(&self, slice: Slice) -> &[u8] {
        let buffer = match slice.buffer {
            0 => &self.arena[..],
            n => &self.buffers[n as usize][..],
        };
        &buffer[slice.offset as usize..][..slice.len as usize]
    }

    /// Adds a buffer and gives its number.
    pub fn buffer(&mut self, bytes: Bytes) -> u32 {
        self.foreign_bytes += bytes.len();
        self.buffers.push(bytes);
        (self.buffers.len() - 1) as u32
    }

    /// Copies bytes into the arena.
    pub fn copy(&mut self, bytes: &[u8]) -> Slice {
        self.write(|arena| arena.extend_from_slice(bytes))
    }

    /// Appends to the arena by `f` and gives what was appended.
    pub fn write(&mut self, f: impl FnOnce(&mut Vec<u8>)) -> Slice {
        let offset = self.arena.len();
        f(&mut self.arena);
        Slice { buffer: 0, offset: offset as u32, len: (self.arena.len() - offset) as u32 }
    }

    /// The arena's length: with [`BatchBuilder::slice_from`], for code that appends in steps.
    pub fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// What was appended to the arena since it had the length `start`.
    #[must_use]
    pub fn slice_from(&self, start: usize) -> Slice {
        Slice { buffer: 0, offset: start as u32, len: (self.arena.len() - start) as u32 }
    }

    /// The number of a table's shape in this batch; added at its first use. Looks from the newest back, so runs of one
    /// table find it at once.
    pub fn table(&mut self, schema: &Arc<TableSchema>) -> u32 {
        if let Some(i) = self.tables.iter().rposition(|t| Arc::ptr_eq(t, schema)) {
            return i as u32;
        }
        self.tables.push(Arc::clone(schema));
        (self.tables.len() - 1) as u32
    }

    /// Adds a transaction and gives its number.
    pub fn transaction(&mut self, transaction: Transaction) -> u32 {
        self.transactions.push(transaction);
        (self.transactions.len() - 1) as u32
    }

    /// The batch.
    #[must_use]
    pub fn build(mut self, position: Position, boundary: Option<Boundary>) -> Batch {
        self.buffers[0] = Bytes::from(self.arena);
        Batch {
            buffers: self.buffers,
            events: self.events,
            cells: self.cells,
            tables: self.tables,
            transactions: self.transactions,
            boundary,
            ddl: self.ddl,
            raw: self.raw,
            sweeps: self.sweeps,
            undecodable: self.undecodable,
            position,
            prepared: None,
        }
    }
}
