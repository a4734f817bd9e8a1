//! From the source's rows to those that a table here is meant to hold: columns chosen and renamed, columns of our own added, values that
//! Postgres cannot hold replaced as configured, deletes turned into updates (`deletes: soft`), changes into rows (`history`).
//!
//! It is done first, in place: whoever comes behind (coalescing, shape, writing) sees an ordinary table that happens to have these columns. An
//! event keeps its number, so that a rejected one is still named by it.
//!
//! **Histories.** Each change is a row of its own, under the source's key and `_position`: what is read twice is there once. `_seq` gives
//! the order: a number of a sequence for each batch, then the event's in it. One writer at a time has a key, and takes its number after
//! the writer before has committed, so later changes have greater numbers. A row's `_valid_to` is the `_at` of the next one.
//!
//! Memory: the cells of tables with such options twice, and the texts that are made.

use crate::config::Deletes;
use crate::tables::{Infinite, OutOfRange, TableRules, Tables, ZeroCharacters};
use bytes::Bytes;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    Batch, Cell, Column, ColumnType, Error, EventHead, Op, Result, Slice, TableId, TableSchema,
};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Columns of our own that a table may have. Their ids are the last that there are: no source counts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Deleted,
    DeletedAt,
    Watermark,
    Op,
    At,
    Position,
    Seq,
}

/// In the order of their ids, with their names.
pub(crate) const ROLES: [(Role, &str); 7] = [
    (Role::Deleted, "_deleted"),
    (Role::DeletedAt, "_deleted_at"),
    (Role::Watermark, "_watermark"),
    (Role::Op, "_op"),
    (Role::At, "_at"),
    (Role::Position, "_position"),
    (Role::Seq, "_seq"),
];

/// Columns of a history that the server fills.
pub(crate) const VALID: [&str; 2] = ["_valid_from", "_valid_to"];

impl Role {
    /// What a column of this id is; none for the source's.
    pub(crate) fn of(id: u32) -> Option<Self> {
        ROLES.get((u32::MAX - id) as usize).map(|(role, _)| *role)
    }

    fn column(self) -> Column {
        let at = ROLES.iter().position(|(role, _)| *role == self).unwrap_or_default();
        let ty = match self {
            Self::Deleted => ColumnType::Bool,
            Self::DeletedAt | Self::Watermark | Self::At => ColumnType::Timestamp { precision: 6 },
            Self::Op | Self::Position => ColumnType::Text { max_chars: None },
            Self::Seq => ColumnType::Int { bits: 64 },
        };
        let nullable = matches!(self, Self::DeletedAt | Self::Watermark);
        Column {
            id: u32::MAX - at as u32,
            name: ROLES[at].1.to_owned(),
            ty,
            nullable,
            native: String::new(),
            charset: None,
            // Rows that are there when the column is added are alive.
            default: (self == Self::Deleted).then(|| "0".to_owned()),
            generated: false,
            auto_increment: false,
            comment: None,
        }
    }
}

/// How rows of one shape are projected.
#[derive(Debug)]
struct Projection {
    from: Arc<TableSchema>,
    schema: Arc<TableSchema>,
    /// For each column that is the source's, its index there.
    columns: Vec<usize>,
    own: Vec<Role>,
}

/// Projects the rows of one sink.
#[derive(Debug)]
pub(crate) struct Projector {
    tables: Tables,
    /// Whether tables get columns of our own; else they are as a comparison with the source sees them.
    own: bool,
    rules: Mutex<HashMap<TableId, Arc<TableRules>>>,
    /// One for each shape that was met.
    known: Mutex<HashMap<(TableId, u32, u32), Arc<Projection>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Projector {
    pub(crate) fn new(tables: Tables) -> Self {
        Self { tables, own: true, rules: Mutex::default(), known: Mutex::default() }
    }

    /// For comparisons: the source's columns only, one row for each that is alive.
    pub(crate) fn for_comparison(tables: Tables) -> Self {
        Self { own: false, ..Self::new(tables) }
    }

    /// What is said of a table.
    pub(crate) fn rules(&self, id: &TableId) -> Arc<TableRules> {
        let mut known = locked(&self.rules);
        if let Some(rules) = known.get(id) {
            return Arc::clone(rules);
        }
        let mut rules = self.tables.of(id);
        if !self.own {
            rules = TableRules { deletes: Deletes::Apply, history: false, watermark: false, ..rules };
        }
        let rules = Arc::new(rules);
        known.insert(id.clone(), Arc::clone(&rules));
        rules
    }

    /// The shape that a table has here.
    ///
    /// # Errors
    /// `Config` for columns that cannot be chosen or named so.
    pub(crate) fn schema(&self, schema: &Arc<TableSchema>) -> Result<Arc<TableSchema>> {
        Ok(self.of(schema)?.map_or_else(|| Arc::clone(schema), |projection| Arc::clone(&projection.schema)))
    }

    /// Of each column whether it is written; none: all are. What cannot be projected is told when it is written.
    pub(crate) fn selected(&self, schema: &Arc<TableSchema>) -> Option<Box<[bool]>> {
        let projection = self.of(schema).ok()??;
        let flags: Box<[bool]> =
            (0..schema.columns.len()).map(|column| projection.columns.contains(&column)).collect();
        flags.contains(&false).then_some(flags)
    }

    /// Projects the batch's rows; those that are projected already stay.
    ///
    /// # Errors
    /// As [`Projector::schema`].
    pub(crate) fn apply(&self, batch: &mut Batch) -> Result<()> {
        let projections: Result<Vec<_>> = batch.tables.iter().map(|table| self.of(table)).collect();
        let projections = projections?;
        if projections.iter().all(Option::is_none) {
            return Ok(());
        }
        let mut made = Made { buffer: batch.buffers.len() as u32, bytes: Vec::new() };
        for number in 0..batch.events.len() {
            let event = batch.events[number];
            if let Some(projection) = &projections[event.table as usize] {
                let rules = self.rules(&projection.schema.id);
                batch.events[number] = projection.event(batch, number, event, &rules, &mut made);
            }
        }
        for (table, projection) in batch.tables.iter_mut().zip(projections) {
            if let Some(projection) = projection {
                *table = Arc::clone(&projection.schema);
            }
        }
        batch.buffers.push(Bytes::from(made.bytes));
        Ok(())
    }

    /// None where nothing is to be done.
    fn of(&self, schema: &Arc<TableSchema>) -> Result<Option<Arc<Projection>>> {
        let rules = self.rules(&schema.id);
        if rules.as_they_come() {
            return Ok(None);
        }
        let identity = (schema.id.clone(), schema.generation, schema.version);
        let mut known = locked(&self.known);
        if let Some(found) = known.get(&identity) {
            // Where values alone are changed both shapes may be equal: then rows count as the source's. Projected twice they are as once.
            if Arc::ptr_eq(&found.schema, schema) {
                return Ok(None);
            }
            if Arc::ptr_eq(&found.from, schema) || *found.from == **schema {
                return Ok(Some(Arc::clone(found)));
            }
            if *found.schema == **schema {
                return Ok(None);
            }
        }
        let made = Arc::new(Projection::new(schema, &rules)?);
        known.insert(identity, Arc::clone(&made));
        Ok(Some(made))
    }
}

/// Texts that were made.
struct Made {
    buffer: u32,
    bytes: Vec<u8>,
}

impl Made {
    fn text(&mut self, f: impl FnOnce(&mut Vec<u8>)) -> Slice {
        let offset = self.bytes.len();
        f(&mut self.bytes);
        Slice { buffer: self.buffer, offset: offset as u32, len: (self.bytes.len() - offset) as u32 }
    }
}

impl Projection {
    fn new(from: &Arc<TableSchema>, rules: &TableRules) -> Result<Self> {
        let refuse = |what: String, hint: &str| Err(Error::config(format!("{}: {what}", from.id)).hint(hint));
        let columns: Vec<usize> =
            (0..from.columns.len()).filter(|i| rules.takes(&from.columns[*i].name)).collect();
        let mut key = Vec::new();
        for column in &from.key {
            let Some(at) = columns.iter().position(|c| *c == *column as usize) else {
                let name = &from.columns[*column as usize].name;
                return refuse(format!("its key's column {name} is not among `columns`"), "add it");
            };
            key.push(at as u32);
        }
        if rules.deletes == Deletes::Soft && key.is_empty() {
            let what = "it has no key, so that a deleted row could not be told from others".to_owned();
            return refuse(
                what,
                "give it `deletes: apply` (or `ignore`) in `tables`, or a key in the source",
            );
        }
        let own = own(rules);
        let mut shape = TableSchema {
            columns: columns.iter().map(|c| renamed(&from.columns[*c], rules)).collect(),
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            ..(**from).clone()
        };
        shape.columns.extend(own.iter().map(|role| role.column()));
        if rules.history {
            for (at, column) in shape.columns.iter_mut().enumerate() {
                // Of a deletion only the key may be known.
                column.nullable |= Role::of(column.id).is_none() && !key.contains(&(at as u32));
            }
            if !key.is_empty() {
                let position = own.iter().position(|role| *role == Role::Position).unwrap_or_default();
                key.push((columns.len() + position) as u32);
            }
        }
        shape.key = key;
        let mut names: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
        names.extend(VALID.iter().filter(|_| rules.history));
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(
                format!("two of its columns would be called {}", twice[0]),
                "give the source's column another name: tables: { …: { rename: { … } } }",
            );
        }
        Ok(Self { from: Arc::clone(from), schema: Arc::new(shape), columns, own })
    }

    /// The event's rows are appended to the batch's cells.
    fn event(
        &self,
        batch: &mut Batch,
        number: usize,
        event: EventHead,
        rules: &TableRules,
        made: &mut Made,
    ) -> EventHead {
        let deletes = event.op == Op::Delete;
        let gone = deletes && event.before != NO_ROW && (rules.history || rules.deletes == Deletes::Soft);
        let row = |batch: &mut Batch, at: u32, made: &mut Made| {
            if at == NO_ROW {
                return NO_ROW;
            }
            let start = batch.cells.len() as u32;
            for (to, from) in self.columns.iter().enumerate() {
                let cell = batch.cells[at as usize + from];
                let cell = value(batch, cell, &self.schema.columns[to].ty, rules, made);
                let unknown = rules.history && deletes && cell == Cell::Unchanged;
                batch.cells.push(if unknown { Cell::Null } else { cell });
            }
            for role in &self.own {
                let cell = role.cell(batch, number, &event, gone, made);
                batch.cells.push(cell);
            }
            start
        };
        if gone {
            let after = row(batch, event.before, made);
            let op = if rules.history { Op::Create } else { Op::Update };
            return EventHead { before: NO_ROW, after, op, ..event };
        }
        let after = row(batch, event.after, made);
        if rules.history && event.op == Op::Update {
            return EventHead { before: NO_ROW, after, op: Op::Create, ..event };
        }
        let before = row(batch, event.before, made);
        EventHead { before, after, ..event }
    }
}

fn own(rules: &TableRules) -> Vec<Role> {
    let mut own = Vec::new();
    if rules.history {
        own.extend([Role::Op, Role::At, Role::Position, Role::Seq]);
    } else if rules.deletes == Deletes::Soft {
        own.extend([Role::Deleted, Role::DeletedAt]);
    }
    own.extend(rules.watermark.then_some(Role::Watermark));
    own
}

fn renamed(column: &Column, rules: &TableRules) -> Column {
    let name = rules.rename.get(&column.name).unwrap_or(&column.name).clone();
    Column { name, ..column.clone() }
}

impl Role {
    fn cell(self, batch: &Batch, number: usize, event: &EventHead, gone: bool, made: &mut Made) -> Cell {
        // A deletion that only its tombstone tells of has no time.
        let at = if event.ts_us == 0 { Cell::Null } else { Cell::I64(event.ts_us) };
        match self {
            Self::Deleted => Cell::I64(gone.into()),
            Self::DeletedAt if !gone => Cell::Null,
            Self::DeletedAt | Self::Watermark | Self::At => at,
            Self::Op => Cell::Text(made.text(|out| out.push(event.op.letter() as u8))),
            Self::Position => Cell::Text(made.text(|out| position(out, batch, number, event))),
            Self::Seq => Cell::I64(number as i64),
        }
    }
}

/// Where the change is in the source's log; of what has no place there, where it is in the topic.
fn position(out: &mut Vec<u8>, batch: &Batch, number: usize, event: &EventHead) {
    let transaction = batch.transactions.get(event.transaction as usize).copied().unwrap_or_default();
    if let Some(file) = transaction.file.filter(|file| file.len > 0) {
        if let Some(gtid) = transaction.gtid.filter(|gtid| gtid.len > 0) {
            out.extend_from_slice(batch.bytes(gtid));
            out.push(b' ');
        }
        out.extend_from_slice(batch.bytes(file));
        write_to(out, format_args!(":{}:{}", event.pos, event.row));
    } else if let Some(raw) = batch.raw.get(number) {
        write_to(out, format_args!("{}/{}/{}@{}", raw.topic, raw.partition, raw.offset, event.ts_us));
    } else {
        write_to(out, format_args!("{}:{}@{}", event.pos, event.row, event.ts_us));
    }
}

fn write_to(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = out.write_fmt(text);
}

/// A value as the rules want it.
fn value(batch: &Batch, cell: Cell, ty: &ColumnType, rules: &TableRules, made: &mut Made) -> Cell {
    if rules.values_as_they_come() {
        return cell;
    }
    match cell {
        Cell::Text(slice) => Cell::Text(without_zeros(batch, slice, "\0", rules.zero_characters, made)),
        Cell::Json(slice) => Cell::Json(without_zeros(batch, slice, "\\u0000", rules.zero_characters, made)),
        cell if rules.infinite == Infinite::Null && is_infinite(batch, cell) => Cell::Null,
        cell if rules.out_of_range == OutOfRange::Null && !fits(batch, cell, ty) => Cell::Null,
        cell => cell,
    }
}

fn without_zeros(batch: &Batch, slice: Slice, zero: &str, policy: ZeroCharacters, made: &mut Made) -> Slice {
    let instead: &[u8] = match policy {
        ZeroCharacters::Reject => return slice,
        ZeroCharacters::Remove => b"",
        ZeroCharacters::Replace => "\u{fffd}".as_bytes(),
    };
    let bytes = batch.bytes(slice);
    let zero = zero.as_bytes();
    if !bytes.windows(zero.len()).any(|window| window == zero) {
        return slice;
    }
    made.text(|out| {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if rest.starts_with(zero) {
                out.extend_from_slice(instead);
                rest = &rest[zero.len()..];
            } else if *first == b'\\' && zero.len() > 1 && rest.len() > 1 {
                // An escape of another character: its second byte begins none.
                out.extend_from_slice(&rest[..2]);
                rest = &rest[2..];
            } else {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    })
}

/// Whether a value is a number without end, or none (NaN).
pub(crate) fn is_infinite(batch: &Batch, cell: Cell) -> bool {
    match cell {
        Cell::F32(v) => !v.is_finite(),
        Cell::F64(v) => !v.is_finite(),
        Cell::Decimal(slice) => !is_plain(batch.bytes(slice)),
        _ => false,
    }
}

fn is_plain(decimal: &[u8]) -> bool {
    decimal.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.'))
}

/// Whether a number is one of its declared type.
fn fits(batch: &Batch, cell: Cell, ty: &ColumnType) -> bool {
    match (cell, ty) {
        (Cell::I64(v), ColumnType::Int { bits }) if *bits < 64 => {
            let most = 1i64 << (bits - 1);
            (-most..most).contains(&v)
        }
        (Cell::I64(v), ColumnType::UInt { bits }) if *bits < 64 => (0..1i64 << bits).contains(&v),
        (Cell::I64(v), ColumnType::Year) => (0..=9_999).contains(&v),
        (Cell::Decimal(slice), ColumnType::Decimal { precision, scale }) => {
            let text = batch.bytes(slice);
            let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
            let point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
            let whole = digits[..point].iter().skip_while(|b| **b == b'0').count();
            let fraction = digits.len().saturating_sub(point + 1);
            whole as u64 + u64::from(*scale) <= u64::from(*precision) && fraction as u64 <= u64::from(*scale)
        }
        _ => true,
    }
}
