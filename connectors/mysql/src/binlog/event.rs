//! What the stream gives: events of both families in one form.
//!
//! A source transaction is always `Begin`, then any of `TableMap`, `RowsQuery`, `Rows` and `Query`, then one of `Commit`,
//! `Rollback` or `XaPrepare`. Where the log itself has no end event (a statement that commits by itself), the stream adds
//! the `Commit`. `Rotate`, `Heartbeat` and `Other` may stand anywhere.

use crate::binlog::table_map::TableMap;
use crate::gtid::{Gtid, GtidSet};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// One event with its place in the log.
#[derive(Clone, Debug)]
pub struct Event {
    /// The log file it is in.
    pub file: Arc<str>,
    /// Byte position of its first byte in the file. Events of one compressed transaction all have that of their container.
    pub pos: u64,
    /// Byte position behind it: where a file/position client resumes, if it is at a transaction's end.
    pub end_pos: u64,
    /// Seconds since the epoch when its statement began, by the source's clock; 0 in artificial events.
    pub timestamp: u32,
    /// The server that wrote it first.
    pub server_id: u32,
    /// What it says.
    pub kind: EventKind,
}

/// What an event says.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A transaction begins.
    Begin(Box<Begin>),
    /// The shape of a table whose rows follow. The same `Arc` as long as the server sends the same bytes.
    TableMap(Arc<TableMap>),
    /// Changes of rows of one table.
    Rows(Rows),
    /// A statement: DDL, or something that the server logs as text.
    Query(Query),
    /// The statement that caused the rows behind it, where the server logs it (`binlog_rows_query_log_events`, annotate).
    RowsQuery(Bytes),
    /// The transaction is committed.
    Commit,
    /// The transaction was rolled back (a table outside of transactions took part in it).
    Rollback,
    /// The transaction is prepared: its rows are not visible, and may never be. (`XA COMMIT … ONE PHASE` is a `Commit`.)
    XaPrepare(Xid),
    /// Within a transaction of its own: what was prepared under this id is committed.
    XaCommit(Xid),
    /// Within a transaction of its own: what was prepared under this id is gone.
    XaRollback(Xid),
    /// The log goes on in another file at a position. Also sent first, for where the stream begins.
    Rotate {
        /// The next file.
        file: Arc<str>,
        /// Where in it.
        pos: u64,
    },
    /// What the files before this one hold, told at a file's start (not when a dump begins in mid-file).
    Previous(GtidSet),
    /// The server is there and has nothing new; the event's `file` and `end_pos` say up to where.
    Heartbeat,
    /// The source reports that events may be missing here (an incident).
    Incident(String),
    /// An event without meaning for a capture, by its type code.
    Other(u8),
}

/// How a transaction begins.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// Its id; none where the server has GTIDs off.
    pub gtid: Option<Gtid>,
    /// Commit time on the server that committed first, microseconds since the epoch; 0 where not logged (MariaDB).
    pub original_commit_us: u64,
    /// Commit time on the server that is read, microseconds since the epoch; 0 where not logged.
    pub commit_us: u64,
    /// The connection that wrote it; 0 where not logged (MariaDB).
    pub thread: u32,
    /// It is one statement that commits by itself: DDL, mostly.
    pub standalone: bool,
    /// Its id, if it is an XA transaction that will end in `XaPrepare` or one-phase `Commit`.
    pub xa: Option<Xid>,
    /// MariaDB's ALTER in two phases.
    pub alter: Option<AlterPhase>,
    /// Bytes of the whole transaction in the log; 0 where not logged.
    pub length: u64,
}

/// MariaDB logs a long ALTER when it starts and when it ends. Only `Commit` changes the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterPhase {
    /// It starts: nothing has changed yet.
    Start,
    /// It took effect. Holds the sequence number of its start.
    Commit(u64),
    /// It failed. Holds the sequence number of its start.
    Rollback(u64),
}

/// A statement of the log.
#[derive(Clone)]
pub struct Query {
    /// The statement, as UTF-8 (converted from the connection's character set). Never logged: it may hold values.
    pub statement: String,
    /// The default database; empty where there is none.
    pub database: String,
    /// The connection that ran it.
    pub thread: u32,
    /// The error the statement ended with; 0 is success.
    pub error_code: u16,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("statement_bytes", &self.statement.len())
            .field("database", &self.database)
            .field("error_code", &self.error_code)
            .finish_non_exhaustive()
    }
}

/// The id of an XA transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Xid {
    /// Format number, 1 by default.
    pub format: u32,
    /// Global part.
    pub global: Bytes,
    /// Branch.
    pub branch: Bytes,
}

/// What rows events do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOp {
    /// Images after.
    Insert,
    /// Pairs of images.
    Update,
    /// Images before.
    Delete,
}

/// Rows of one table, not decoded yet.
#[derive(Clone)]
pub struct Rows {
    /// What happened to them.
    pub op: RowsOp,
    /// Their shape.
    pub table: Arc<TableMap>,
    /// From the column count on, decompressed. Shares the stream's buffer.
    pub body: Bytes,
    /// Whether images after hold JSON as differences (`binlog_row_value_options=PARTIAL_JSON`).
    pub partial_json: bool,
    /// Whether it ends its statement.
    pub statement_end: bool,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("op", &self.op)
            .field("table", &format_args!("{}.{}", self.table.database, self.table.table))
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
