//! From events as they stand in the log to the stream's [`Event`]s: unpacks, brackets transactions, keeps the place.
//!
//! No I/O, so recorded and damaged bytes go through the very code that the stream runs.

use super::compression::{Payload, inflate_event};
use super::cursor::{Cursor, Damage, Read, damage};
use super::event::{Begin, Event, EventKind, Query, Rows, RowsOp};
use super::frame::{Checksums, Head, code};
use super::query::{Statement, parse_query};
use super::table_map::TableMaps;
use super::transaction;
use crate::connection::Family;
use crate::spooled::Spooled;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows of no table, which only end their statement.
const NO_TABLE: u64 = 0xff_ffff;
const NO_TABLE_WIDE: u64 = 0xffff_ffff_ffff;
const STATEMENT_END: u16 = 1;
/// No file is that long; sums of positions stay within 64 bits.
const MOST_POSITION: u64 = 1 << 62;

/// Where an event is, and its head.
#[derive(Clone, Copy)]
struct Place {
    pos: u64,
    end_pos: u64,
    timestamp: u32,
    server_id: u32,
    /// May be passed over if its type is not known.
    ignorable: bool,
}

/// Turns events into [`Event`]s: `push` one, then `pop` until there is none.
pub(crate) struct Assembler {
    checksums: Checksums,
    max_event_bytes: usize,
    file: Arc<str>,
    /// Behind the last event.
    pos: u64,
    tables: TableMaps,
    payload: Option<(Payload, Place)>,
    /// MySQL: a GTID event waits for the event behind it, which tells what kind of transaction it is.
    begin: Option<(Place, Box<Begin>)>,
    /// Within a transaction; true if its next statement ends it.
    open: Option<bool>,
    ready: VecDeque<Event>,
}

impl Assembler {
    /// `checksums`: whether the server said that it would send them.
    pub(crate) fn new(family: Family, checksums: bool, max_event_bytes: usize) -> Self {
        Self {
            checksums: Checksums::new(checksums),
            max_event_bytes,
            file: "".into(),
            pos: 4,
            tables: TableMaps::new(family),
            payload: None,
            begin: None,
            open: None,
            ready: VecDeque::new(),
        }
    }

    /// The file and position reached: for messages.
    pub(crate) fn place(&self) -> (&str, u64) {
        (&self.file, self.pos)
    }

    /// Takes one event: header to checksum.
    pub(crate) fn push(&mut self, event: &Bytes) -> Read<()> {
        let (head, body) = self.open(event)?;
        self.take(&head, &body)
    }

    /// Checks that an event came as it was sent.
    pub(crate) fn open(&mut self, event: &Bytes) -> Read<(Head, Bytes)> {
        self.checksums.open(event)
    }

    /// The same of one in a file.
    pub(crate) fn open_spooled(&mut self, event: &Spooled) -> Read<Head> {
        let head = Head::parse(&event.head)?;
        if head.size as usize != event.size {
            return damage("an event's size is not that of its packets");
        }
        if self.checksums.on && !event.fits {
            return damage("the checksum of a compressed transaction does not fit");
        }
        Ok(head)
    }

    /// Takes a compressed transaction in a file.
    pub(crate) fn take_spooled(&mut self, head: &Head, event: Spooled) -> Read<()> {
        let place = self.advance(head);
        let payload = Payload::open_file(event, self.checksums.on, self.max_event_bytes)?;
        self.payload = Some((payload, place));
        Ok(())
    }

    /// Takes an event that was opened.
    pub(crate) fn take(&mut self, head: &Head, body: &Bytes) -> Read<()> {
        let place = self.advance(head);
        match head.code {
            code::ROTATE => self.rotate(place, body),
            code::HEARTBEAT => {
                let file = body.slice(..body.iter().position(|b| *b == 0).unwrap_or(body.len()));
                self.heartbeat(place, &file, u64::from(head.next_pos))
            }
            code::HEARTBEAT_V2 => self.heartbeat_v2(place, body),
            code::TRANSACTION_PAYLOAD => {
                self.payload = Some((Payload::open(body, self.max_event_bytes)?, place));
                Ok(())
            }
            _ => self.inner(head.code, place, body.clone()),
        }
    }

    /// The next event of what was pushed.
    pub(crate) fn pop(&mut self) -> Read<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            // Taken out while it is read: after damage there is nothing more to get from it.
            let Some((mut payload, container)) = self.payload.take() else {
                return Ok(None);
            };
            let Some((head, body)) = payload.next()? else {
                continue;
            };
            self.payload = Some((payload, container));
            let (timestamp, server_id, ignorable) = (head.timestamp, head.server_id, head.is_ignorable());
            let place = Place { timestamp, server_id, ignorable, ..container };
            match head.code {
                code::FORMAT | code::ROTATE | code::TRANSACTION_PAYLOAD => {
                    return damage("a compressed transaction holds an event that can't be in one");
                }
                _ => self.inner(head.code, place, body)?,
            }
        }
    }

    /// Moves on. Headers hold 32 bits of the position; files can be longer than that, so the rest is counted here.
    fn advance(&mut self, head: &Head) -> Place {
        let heartbeat = matches!(head.code, code::HEARTBEAT | code::HEARTBEAT_V2);
        let mut place = Place {
            pos: self.pos,
            end_pos: self.pos,
            timestamp: head.timestamp,
            server_id: head.server_id,
            ignorable: head.is_ignorable(),
        };
        if !head.is_artificial(self.pos) && !heartbeat {
            place.end_pos = widen(head.next_pos, self.pos);
            place.pos = place.end_pos.saturating_sub(u64::from(head.size));
            self.pos = place.end_pos;
        }
        place
    }

    fn rotate(&mut self, place: Place, body: &Bytes) -> Read<()> {
        let mut c = Cursor(body);
        let pos = c.u64()?;
        let file: Arc<str> = match std::str::from_utf8(c.0) {
            Ok(name) if !name.is_empty() => name.into(),
            _ => return damage("a rotation names no file"),
        };
        if pos > MOST_POSITION {
            return damage("a rotation leads to an impossible position");
        }
        // The real one is followed by an artificial one that says the same.
        if *file == *self.file && pos == self.pos {
            return Ok(());
        }
        self.cut(place);
        self.emit(place, EventKind::Rotate { file: Arc::clone(&file), pos });
        self.file = file;
        self.pos = pos;
        Ok(())
    }

    fn heartbeat(&mut self, mut place: Place, file: &[u8], pos: u64) -> Read<()> {
        // The server passes over transactions that we have seen and tells how far it is.
        if file == self.file.as_bytes() && pos <= MOST_POSITION {
            self.pos = self.pos.max(pos);
        }
        (place.pos, place.end_pos) = (self.pos, self.pos);
        self.emit(place, EventKind::Heartbeat);
        Ok(())
    }

    /// Fields of type, length, value: 1 the file's name, 2 the position.
    fn heartbeat_v2(&mut self, place: Place, body: &[u8]) -> Read<()> {
        let mut c = Cursor(body);
        let (mut file, mut pos) = (&[][..], 0);
        while !c.is_empty() {
            let field = c.length_encoded()?;
            if field == 0 {
                break;
            }
            let value = c.counted()?;
            match field {
                1 => file = value,
                2 => pos = Cursor(value).length_encoded()?,
                _ => {}
            }
        }
        self.heartbeat(place, file, pos)
    }

    /// An event of the log itself or out of a compressed transaction.
    fn inner(&mut self, code: u8, place: Place, body: Bytes) -> Read<()> {
        match code {
            code::GTID => self.begin_later(place, transaction::mysql_gtid(&body, false)?),
            code::ANONYMOUS_GTID => self.begin_later(place, transaction::mysql_gtid(&body, true)?),
            code::GTID_TAGGED => self.begin_later(place, transaction::mysql_tagged_gtid(&body)?),
            code::MARIADB_GTID => {
                let begin = transaction::mariadb_gtid(&body, place.server_id)?;
                self.begin_later(place, begin);
                self.begin_now(|_| {});
            }
            code::QUERY => self.query(place, &body)?,
            code::MARIADB_QUERY_COMPRESSED => {
                let plain = self.inflate_query(&body)?;
                self.query(place, &plain)?;
            }
            code::EXECUTE_LOAD_QUERY => {
                let plain = load_as_query(&body)?;
                self.query(place, &plain)?;
            }
            code::XID => self.end(place, EventKind::Commit),
            code::XA_PREPARE => match transaction::xa_prepare(&body)? {
                (true, _) => self.end(place, EventKind::Commit),
                (false, xid) => self.end(place, EventKind::XaPrepare(xid)),
            },
            code::TABLE_MAP => {
                let map = self.tables.map(&body)?;
                self.within(place, EventKind::TableMap(map));
            }
            code::ROWS_QUERY => self.within(place, EventKind::RowsQuery(body.slice(1.min(body.len())..))),
            code::MARIADB_ANNOTATE => self.within(place, EventKind::RowsQuery(body)),
            code::WRITE_ROWS_V1..=code::DELETE_ROWS_V1
            | code::WRITE_ROWS..=code::DELETE_ROWS
            | code::PARTIAL_UPDATE_ROWS
            | code::MARIADB_WRITE_ROWS_COMPRESSED_V1..=code::MARIADB_DELETE_ROWS_COMPRESSED => {
                self.rows(code, place, &body)?;
            }
            code::PREVIOUS_GTIDS => {
                let set = transaction::previous_gtids(&body)?;
                self.emit(place, EventKind::Previous(set));
            }
            code::MARIADB_GTID_LIST => {
                let set = transaction::mariadb_gtid_list(&body)?;
                self.emit(place, EventKind::Previous(set));
            }
            code::INCIDENT => self.incident(place, &body)?,
            other if place.ignorable || code::says_nothing(other) => {
                self.emit(place, EventKind::Other(other));
            }
            other => {
                return Err(Damage::of(format!(
                    "events of type {other} are not known, and the server does not mark them as ones that may be passed over"
                )));
            }
        }
        Ok(())
    }

    fn incident(&mut self, place: Place, body: &[u8]) -> Read<()> {
        let mut c = Cursor(body);
        c.u16()?;
        let length = usize::from(c.u8()?);
        let message = String::from_utf8_lossy(c.take(length)?).into_owned();
        self.emit(place, EventKind::Incident(message));
        Ok(())
    }

    fn query(&mut self, place: Place, body: &[u8]) -> Read<()> {
        let parsed = parse_query(body)?;
        match parsed.statement {
            Statement::Begin => self.begin_by_statement(place, parsed.thread, None),
            Statement::XaStart(xid) => self.begin_by_statement(place, parsed.thread, xid),
            Statement::XaEnd => {}
            Statement::Commit => self.end(place, EventKind::Commit),
            Statement::Rollback => self.end(place, EventKind::Rollback),
            Statement::XaCommit(xid) => self.single(place, parsed.thread, EventKind::XaCommit(xid)),
            Statement::XaRollback(xid) => self.single(place, parsed.thread, EventKind::XaRollback(xid)),
            Statement::Other(query) => self.statement(place, query),
        }
        Ok(())
    }

    /// A statement within a transaction, or one that is its own.
    fn statement(&mut self, place: Place, query: Query) {
        if self.open == Some(false) {
            self.emit(place, EventKind::Query(query));
        } else {
            self.single(place, query.thread, EventKind::Query(query));
        }
    }

    fn single(&mut self, place: Place, thread: u32, kind: EventKind) {
        if self.open.is_none() {
            self.begin.get_or_insert_with(|| (place, Box::default()));
            self.begin_now(|begin| {
                begin.standalone = true;
                begin.thread = thread;
            });
        }
        self.emit(place, kind);
        self.end(place, EventKind::Commit);
    }

    /// What was open and did not end never will: a server that crashed leaves such a piece at a file's end.
    /// No transaction spans files.
    fn cut(&mut self, place: Place) {
        if self.open.is_some() {
            self.end(place, EventKind::Rollback);
        }
    }

    fn begin_later(&mut self, place: Place, begin: Begin) {
        self.begin = Some((place, Box::new(begin)));
        self.cut(place);
    }

    fn begin_by_statement(&mut self, place: Place, thread: u32, xa: Option<super::event::Xid>) {
        if self.open.is_some() {
            // MariaDB's own transaction bracket is its GTID event.
            return;
        }
        self.begin.get_or_insert_with(|| (place, Box::default()));
        self.begin_now(|begin| {
            begin.thread = thread;
            begin.xa = xa;
        });
    }

    fn begin_now(&mut self, fill: impl FnOnce(&mut Begin)) {
        if let Some((place, mut begin)) = self.begin.take() {
            fill(&mut begin);
            self.open = Some(begin.standalone);
            self.tables.new_transaction();
            self.emit(place, EventKind::Begin(begin));
        }
    }

    fn within(&mut self, place: Place, kind: EventKind) {
        self.begin_now(|_| {});
        self.emit(place, kind);
    }

    fn end(&mut self, place: Place, kind: EventKind) {
        self.open = None;
        self.emit(place, kind);
    }

    fn emit(&mut self, place: Place, kind: EventKind) {
        let Place { pos, end_pos, timestamp, server_id, .. } = place;
        self.ready.push_back(Event {
            file: Arc::clone(&self.file),
            pos,
            end_pos,
            timestamp,
            server_id,
            kind,
        });
    }

    fn rows(&mut self, code: u8, place: Place, body: &Bytes) -> Read<()> {
        let mut c = Cursor(body);
        let table = c.little(6)?;
        let flags = c.u16()?;
        let shape = RowsShape::of(code);
        if shape.extra_header {
            // The extra part's length counts itself.
            let extra = usize::from(c.u16()?).checked_sub(2);
            c.take(extra.ok_or_else(|| Damage::of("a rows event has an impossible header"))?)?;
        }
        if table == NO_TABLE || table == NO_TABLE_WIDE {
            return Ok(());
        }
        let body = if shape.compressed { self.inflate_rows(c.0, shape.op)? } else { body.slice_ref(c.0) };
        let rows = Rows {
            op: shape.op,
            table: self.tables.get(table)?,
            body,
            partial_json: code == code::PARTIAL_UPDATE_ROWS,
            statement_end: flags & STATEMENT_END != 0,
        };
        self.within(place, EventKind::Rows(rows));
        Ok(())
    }

    /// The column count and bit maps are plain, the rows behind them compressed.
    fn inflate_rows(&self, bytes: &[u8], op: RowsOp) -> Read<Bytes> {
        let mut c = Cursor(bytes);
        let columns =
            u32::try_from(c.length_encoded()?).map_err(|_| Damage::of("a row has too many columns"))?;
        let maps = if op == RowsOp::Update { 2 } else { 1 };
        c.take(columns.div_ceil(8) as usize * maps)?;
        let mut plain = bytes[..bytes.len() - c.0.len()].to_vec();
        inflate_event(c.0, self.max_event_bytes, &mut plain)?;
        Ok(plain.into())
    }

    fn inflate_query(&self, body: &[u8]) -> Read<Vec<u8>> {
        let mut c = Cursor(body);
        c.take(8)?;
        let database = usize::from(c.u8()?);
        c.u16()?;
        let variables = usize::from(c.u16()?);
        c.take(variables + database + 1)?;
        let mut plain = body[..body.len() - c.0.len()].to_vec();
        inflate_event(c.0, self.max_event_bytes, &mut plain)?;
        Ok(plain)
    }
}

/// What the type code of a rows event says.
struct RowsShape {
    op: RowsOp,
    extra_header: bool,
    compressed: bool,
}

impl RowsShape {
    fn of(code: u8) -> Self {
        let op = match code {
            code::UPDATE_ROWS_V1
            | code::UPDATE_ROWS
            | code::PARTIAL_UPDATE_ROWS
            | code::MARIADB_UPDATE_ROWS_COMPRESSED_V1
            | code::MARIADB_UPDATE_ROWS_COMPRESSED => RowsOp::Update,
            code::DELETE_ROWS_V1
            | code::DELETE_ROWS
            | code::MARIADB_DELETE_ROWS_COMPRESSED_V1
            | code::MARIADB_DELETE_ROWS_COMPRESSED => RowsOp::Delete,
            _ => RowsOp::Insert,
        };
        let v1 = code::WRITE_ROWS_V1..=code::DELETE_ROWS_V1;
        let v1_compressed = code::MARIADB_WRITE_ROWS_COMPRESSED_V1..=code::MARIADB_DELETE_ROWS_COMPRESSED_V1;
        let extra_header = !v1.contains(&code) && !v1_compressed.contains(&code);
        Self { op, extra_header, compressed: code >= code::MARIADB_WRITE_ROWS_COMPRESSED_V1 }
    }
}

/// The statement that loads a file, logged as text: a query with 13 bytes about the file behind its fixed part.
/// (`Execute_load_query_event` in MySQL's `load_data_events.h`.)
fn load_as_query(body: &[u8]) -> Read<Vec<u8>> {
    const FIXED: usize = 13;
    const OF_THE_FILE: usize = 4 + 4 + 4 + 1;
    let mut c = Cursor(body);
    let fixed = c.take(FIXED)?;
    c.take(OF_THE_FILE)?;
    Ok([fixed, c.0].concat())
}

/// The 64-bit position whose low half is `low` and that is not before `from`.
fn widen(low: u32, from: u64) -> u64 {
    let candidate = from & !0xffff_ffff | u64::from(low);
    if candidate < from { candidate + (1 << 32) } else { candidate }
}

#[cfg(test)]
#[path = "assembler_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod recorded;

#[cfg(test)]
#[path = "differential_tests.rs"]
mod differential;
