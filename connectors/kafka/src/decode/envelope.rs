//! The envelope: `{"before","after","source","transaction","op","ts_ms",…}`, members in any order; bare, or as `payload` beside its
//! `schema`.

use super::avro;
use super::protobuf;
use super::scan::{Malformed, Quoted, Scanner, unescape};
use super::value::{Text, cell};
use super::{Place, Shape};
use crate::encode::connect::SOURCE;
use caudal_core::batch::NO_ROW;
use caudal_core::{BatchBuilder, Cell, EventHead, Op, Slice, SnapshotMark, TableSchema, Transaction};
use std::sync::Arc;

/// Decodes one envelope. The record's value lies at `place` in the batch. In the image before an update only the columns of the
/// table's key are there, if it has one: the others are [`Cell::Unchanged`], and so are columns that nobody wants.
pub(super) fn event(
    value: &str,
    place: Place,
    shape: Shape<'_>,
    batch: &mut BatchBuilder,
) -> Result<EventHead, Malformed> {
    let mut text = Text { scanner: Scanner::new(value), place };
    let mut found = Envelope::default();
    members(&mut text, &mut found, shape, batch, true)?;
    text.scanner.end()?;
    if let (Some(at), Some(Op::Delete)) = (found.passed, found.op) {
        text.scanner.back_to(at);
        // In the place of the key's cells, if nothing came after them.
        let cells = found.before.filter(|_| found.after.is_none());
        batch.cells.truncate(cells.map_or(batch.cells.len(), |at| at as usize));
        found.before = row(&mut text, shape, batch, Columns::Selected).map_err(|e| e.of("before"))?;
    }
    found.head(shape.schema, batch)
}

/// The image before. Of an update of a table with a key nobody looks at more than the key, which tells whether it has changed; whether
/// this is one is told further on.
fn before(
    text: &mut Text<'_>,
    found: &mut Envelope,
    shape: Shape<'_>,
    batch: &mut BatchBuilder,
) -> Result<(), Malformed> {
    let columns = if shape.schema.key.is_empty() { Columns::Selected } else { Columns::Key };
    found.passed = (columns == Columns::Key).then(|| text.scanner.at());
    found.before = row(text, shape, batch, columns)?;
    Ok(())
}

/// The members of the envelope; of that in `payload`, if this is the `outer` one and has it.
fn members(
    text: &mut Text<'_>,
    found: &mut Envelope,
    shape: Shape<'_>,
    batch: &mut BatchBuilder,
    outer: bool,
) -> Result<(), Malformed> {
    text.scanner.expect(b'{')?;
    let mut first = true;
    while let Some(name) = text.scanner.member(&mut first)? {
        match name.raw {
            "payload" if outer => members(text, found, shape, batch, false)?,
            "before" => before(text, found, shape, batch).map_err(|e| e.of("before"))?,
            "after" => found.after = row(text, shape, batch, Columns::Selected).map_err(|e| e.of("after"))?,
            "source" => found.source = Some(source(text, batch).map_err(|e| e.of("source"))?),
            "op" => found.op = Some(op(text)?),
            _ => text.scanner.skip()?,
        }
    }
    Ok(())
}

/// The deletion that a tombstone's key means. The key lies at `place` in the batch.
pub(super) fn deletion(
    key: &[u8],
    place: Place,
    schema: &Arc<TableSchema>,
    batch: &mut BatchBuilder,
) -> Result<EventHead, Malformed> {
    let before = match key.first() {
        Some(0) => match protobuf::key(key, place, schema, batch) {
            Some(found) => found?,
            None => avro::key(key, place, schema, batch)?,
        },
        _ => json_key(key, place, schema, batch)?,
    };
    let of_key = |column: &u32| !matches!(batch.cells[(before + column) as usize], Cell::Unchanged);
    if !schema.key.iter().all(of_key) {
        return Err(Malformed::new("a column of the key is missing"));
    }
    let transaction = shared(Transaction::default(), batch);
    Ok(EventHead {
        table: batch.table(schema),
        transaction,
        before,
        after: NO_ROW,
        row: 0,
        op: Op::Delete,
        snapshot: SnapshotMark::False,
        pos: 0,
        ts_us: 0,
    })
}

/// How a key begins that stands beside its schema.
const WITH_SCHEMA: &str = r#"{"schema":{"type":"struct","#;

/// A key as JSON, bare or beside its schema: gives the index of the row's first cell.
fn json_key(
    key: &[u8],
    place: Place,
    schema: &Arc<TableSchema>,
    batch: &mut BatchBuilder,
) -> Result<u32, Malformed> {
    let shape = Shape { schema, selected: None };
    let key = std::str::from_utf8(key).map_err(|_| Malformed::new("UTF-8 expected"))?;
    let mut text = Text { scanner: Scanner::new(key), place };
    let before = if key.starts_with(WITH_SCHEMA) {
        text.scanner.expect(b'{')?;
        let (mut first, mut found) = (true, None);
        while let Some(name) = text.scanner.member(&mut first)? {
            match name.raw {
                "payload" => found = row(&mut text, shape, batch, Columns::Selected)?,
                _ => text.scanner.skip()?,
            }
        }
        found
    } else {
        row(&mut text, shape, batch, Columns::Selected)?
    };
    text.scanner.end()?;
    before.ok_or_else(|| Malformed::new("an object expected"))
}

/// What an envelope holds: of rows the index of the first cell.
#[derive(Default)]
pub(super) struct Envelope {
    pub(super) before: Option<u32>,
    /// Where the image before stands of which only the key was taken.
    pub(super) passed: Option<usize>,
    pub(super) after: Option<u32>,
    pub(super) source: Option<SourceBlock>,
    pub(super) op: Option<Op>,
}

impl Envelope {
    pub(super) fn head(
        self,
        schema: &Arc<TableSchema>,
        batch: &mut BatchBuilder,
    ) -> Result<EventHead, Malformed> {
        let op = self.op.ok_or_else(|| Malformed::new("op is missing"))?;
        let source = self.source.ok_or_else(|| Malformed::new("source is missing"))?;
        match op {
            Op::Read | Op::Create | Op::Update if self.after.is_none() => {
                return Err(Malformed::new(format!("op {} without after", op.letter())));
            }
            Op::Delete if self.before.is_none() => return Err(Malformed::new("op d without before")),
            _ => {}
        }
        Ok(EventHead {
            table: batch.table(schema),
            transaction: shared(source.transaction, batch),
            before: self.before.unwrap_or(NO_ROW),
            after: self.after.unwrap_or(NO_ROW),
            row: source.row,
            op,
            snapshot: source.snapshot,
            pos: source.pos,
            ts_us: source.ts_us,
        })
    }
}

/// Which columns of an image are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Columns {
    Selected,
    Key,
}

/// A row image: gives the index of its first cell; none for `null`. A column that is absent is `Unchanged`.
fn row(
    text: &mut Text<'_>,
    shape: Shape<'_>,
    batch: &mut BatchBuilder,
    columns: Columns,
) -> Result<Option<u32>, Malformed> {
    let schema = shape.schema;
    if text.scanner.null()? {
        return Ok(None);
    }
    let start = batch.cells.len();
    batch.cells.resize(start + schema.width(), Cell::Unchanged);
    text.scanner.expect(b'{')?;
    let (mut first, mut expected) = (true, 0);
    loop {
        let next = schema.columns.get(expected);
        let column = if next.is_some_and(|next| text.scanner.named(&mut first, &next.name)) {
            expected
        } else {
            let Some(name) = text.scanner.member(&mut first)? else { break };
            column(schema, expected, name)?
        };
        let passes = match columns {
            Columns::Key => !schema.key.contains(&(column as u32)),
            Columns::Selected => shape.passes(column),
        };
        if passes {
            text.scanner.skip()?;
            expected = column + 1;
            continue;
        }
        let value = cell(text, &schema.columns[column].ty, batch);
        batch.cells[start + column] = value.map_err(|e| e.of(&schema.columns[column].name))?;
        expected = column + 1;
    }
    Ok(Some(start as u32))
}

/// The column of that name: the writer's order is the schema's, so `expected` is it nearly always.
fn column(schema: &TableSchema, expected: usize, name: Quoted<'_>) -> Result<usize, Malformed> {
    let mut plain = Vec::new();
    let name = if name.escaped {
        unescape(name, &mut plain)?;
        plain.as_slice()
    } else {
        name.raw.as_bytes()
    };
    let is = |i: usize| schema.columns.get(i).is_some_and(|c| c.name.as_bytes() == name);
    if is(expected) {
        return Ok(expected);
    }
    let found = (0..schema.width()).find(|&i| is(i));
    found.ok_or_else(|| {
        Malformed::new(format!(
            "column {:?} is not in version {} of {}",
            String::from_utf8_lossy(name),
            schema.version,
            schema.id
        ))
    })
}

fn op(text: &mut Text<'_>) -> Result<Op, Malformed> {
    let letter = text.scanner.string()?.raw.as_bytes();
    let op = if let [letter] = letter { Op::from_letter(*letter) } else { None };
    op.ok_or_else(|| text.scanner.wrong("op c, u, d, r or t"))
}

/// The source block.
#[derive(Default)]
pub(super) struct SourceBlock {
    pub(super) transaction: Transaction,
    pub(super) snapshot: SnapshotMark,
    pub(super) row: u32,
    pub(super) pos: u64,
    pub(super) ts_us: i64,
}

fn source(text: &mut Text<'_>, batch: &mut BatchBuilder) -> Result<SourceBlock, Malformed> {
    let mut found = SourceBlock::default();
    let mut first = true;
    let mut expected = SOURCE.iter();
    text.scanner.expect(b'{')?;
    loop {
        let name = match expected.next() {
            Some(&(name, _, _)) if text.scanner.named(&mut first, name) => name,
            _ => match text.scanner.member(&mut first)? {
                Some(name) => name.raw,
                None => break,
            },
        };
        if text.scanner.null()? {
            continue;
        }
        match name {
            "ts_us" => found.ts_us = text.scanner.integer("a time in microseconds")?,
            "snapshot" => found.snapshot = snapshot(text)?,
            "gtid" => found.transaction.gtid = Some(optional(text, batch)?),
            "file" => found.transaction.file = Some(optional(text, batch)?),
            "server_id" => found.transaction.server_id = text.scanner.parse("a server id")?,
            "thread" => found.transaction.thread = text.scanner.parse("a thread id")?,
            "pos" => found.pos = text.scanner.parse("a position")?,
            "row" => found.row = text.scanner.parse("a row number")?,
            _ => text.scanner.skip()?,
        }
    }
    found.transaction.file = found.transaction.file.filter(|file| file.len > 0);
    Ok(found)
}

fn optional(text: &mut Text<'_>, batch: &mut BatchBuilder) -> Result<Slice, Malformed> {
    let quoted = text.scanner.string()?;
    text.slice(quoted, batch)
}

/// Debezium writes it as a string, older versions as a boolean.
fn snapshot(text: &mut Text<'_>) -> Result<SnapshotMark, Malformed> {
    if text.scanner.peek() != b'"' {
        return Ok(if text.scanner.boolean()? { SnapshotMark::True } else { SnapshotMark::False });
    }
    let word = text.scanner.string()?.raw;
    mark(word.as_bytes()).ok_or_else(|| text.scanner.wrong("a snapshot mark"))
}

/// The mark that a word means.
pub(super) fn mark(word: &[u8]) -> Option<SnapshotMark> {
    const MARKS: [SnapshotMark; 7] = [
        SnapshotMark::False,
        SnapshotMark::True,
        SnapshotMark::First,
        SnapshotMark::FirstInDataCollection,
        SnapshotMark::LastInDataCollection,
        SnapshotMark::Last,
        SnapshotMark::Incremental,
    ];
    MARKS.into_iter().find(|mark| mark.as_str().as_bytes() == word)
}

/// The number of the event's transaction in the batch: events of one transaction follow each other, so only the last is
/// compared.
fn shared(transaction: Transaction, batch: &mut BatchBuilder) -> u32 {
    let last = batch.transactions.last().copied();
    if last.is_some_and(|last| same(&last, &transaction, batch)) {
        return (batch.transactions.len() - 1) as u32;
    }
    batch.transaction(transaction)
}

fn same(a: &Transaction, b: &Transaction, batch: &BatchBuilder) -> bool {
    let bytes = |slice: Option<Slice>| slice.map(|s| batch.bytes(s));
    (a.server_id, a.thread) == (b.server_id, b.thread)
        && bytes(a.gtid) == bytes(b.gtid)
        && bytes(a.file) == bytes(b.file)
}
