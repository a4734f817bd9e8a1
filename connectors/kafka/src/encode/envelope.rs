//! One event as its records: the envelope, the key, and what a change of key, a delete or a truncation adds.

use crate::encode::plan::{self, TablePlan};
use crate::encode::{Encoded, HeaderKind, Record, TRUNCATE_KEY, text, value};
use crate::murmur2;
use caudal_core::{Batch, Cell, Error, EventHead, Op, Result};
use std::ops::Range;

/// Appends the records of one event. `now`: microseconds since the epoch.
pub(crate) fn event(encoded: &mut Encoded, batch: &Batch, event: &EventHead, now: i64) -> Result<()> {
    let plan = encoded.tables[event.table as usize].clone();
    let images = (batch.before(event), batch.after(event));
    let mut writing = Writing { encoded, batch, event, plan: &plan, now };
    match (event.op, images) {
        (Op::Truncate, _) => writing.truncation(),
        (Op::Update, (Some(before), Some(after))) if plan.keyed() && writing.key_moves(before, after) => {
            writing.moved(before, after)
        }
        (op, (before, after)) => writing.change(op, before, after),
    }
}

struct Writing<'a> {
    encoded: &'a mut Encoded,
    batch: &'a Batch,
    event: &'a EventHead,
    plan: &'a TablePlan,
    now: i64,
}

impl Writing<'_> {
    fn change(&mut self, op: Op, before: Option<&[Cell]>, after: Option<&[Cell]>) -> Result<()> {
        let key = self.key(after.or(before), before)?;
        let value = self.envelope(op, before, after)?;
        self.push(key.clone(), Some(value), None);
        if op == Op::Delete && key.is_some() {
            self.push(key, None, None);
        }
        Ok(())
    }

    /// The row leaves its old key and appears under the new one.
    fn moved(&mut self, before: &[Cell], after: &[Cell]) -> Result<()> {
        let old = self.key(Some(before), None)?;
        let new = self.key(Some(after), Some(before))?;
        let gone = self.envelope(Op::Delete, Some(before), None)?;
        self.push(old.clone(), Some(gone), new.clone().map(|k| (HeaderKind::NewKey, k)));
        self.push(old.clone(), None, None);
        let made = self.envelope(Op::Create, None, Some(after))?;
        self.push(new, Some(made), old.map(|k| (HeaderKind::OldKey, k)));
        Ok(())
    }

    /// One record in each partition, with one id. A compacted topic refuses null keys, so there the record has a key of
    /// its own and is known by its header.
    fn truncation(&mut self) -> Result<()> {
        let value = self.envelope(Op::Truncate, None, None)?;
        let key = self.plan.keyed().then(|| self.span(|out| out.extend_from_slice(TRUNCATE_KEY.as_bytes())));
        let transaction = self.batch.transactions.get(self.event.transaction as usize);
        let file = transaction.and_then(|t| t.file).map_or("", |s| self.batch.text(s));
        let id = format!("{file}:{}:{}", self.event.pos, self.event.row);
        let id = self.span(|out| out.extend_from_slice(id.as_bytes()));
        for partition in 0..self.plan.partitions.max(1) {
            self.encoded.records.push(Record {
                table: self.event.table,
                partition: partition as i32,
                key: key.clone(),
                value: Some(value.clone()),
                header: Some((HeaderKind::Truncate, id.clone())),
            });
        }
        Ok(())
    }

    fn push(
        &mut self,
        key: Option<Range<usize>>,
        value: Option<Range<usize>>,
        header: Option<(HeaderKind, Range<usize>)>,
    ) {
        let partition = key
            .as_ref()
            .map_or(0, |k| murmur2::partition(&self.encoded.arena[k.clone()], self.plan.partitions));
        self.encoded.records.push(Record { table: self.event.table, partition, key, value, header });
    }

    fn span(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let start = self.encoded.arena.len();
        write(&mut self.encoded.arena);
        start..self.encoded.arena.len()
    }

    /// Whether the key's cells differ; a cell that the image after does not carry did not change.
    fn key_moves(&self, before: &[Cell], after: &[Cell]) -> bool {
        self.plan.schema.key.iter().any(|&i| {
            let (old, new) = (before[i as usize], after[i as usize]);
            old != Cell::Unchanged && new != Cell::Unchanged && !self.same(old, new)
        })
    }

    fn same(&self, a: Cell, b: Cell) -> bool {
        match (a.slice(), b.slice()) {
            (Some(x), Some(y)) => {
                std::mem::discriminant(&a) == std::mem::discriminant(&b)
                    && self.batch.bytes(x) == self.batch.bytes(y)
            }
            _ => a == b,
        }
    }

    /// The key's object, from `row`; what a partial row lacks, from `fallback`. None for a table without a key.
    fn key(&mut self, row: Option<&[Cell]>, fallback: Option<&[Cell]>) -> Result<Option<Range<usize>>> {
        let (true, Some(row)) = (self.plan.keyed(), row) else { return Ok(None) };
        let start = self.encoded.arena.len();
        for (n, &i) in self.plan.schema.key.iter().enumerate() {
            let i = i as usize;
            let cell = match (row[i], fallback) {
                (Cell::Unchanged, Some(fallback)) => fallback[i],
                (cell, _) => cell,
            };
            self.encoded.arena.push(if n == 0 { b'{' } else { b',' });
            self.field(i, cell)?;
        }
        self.encoded.arena.push(b'}');
        Ok(Some(start..self.encoded.arena.len()))
    }

    fn field(&mut self, column: usize, cell: Cell) -> Result<()> {
        self.encoded.arena.extend_from_slice(&self.plan.names[column]);
        let ty = &self.plan.schema.columns[column].ty;
        value::cell(&mut self.encoded.arena, self.batch, ty, cell).map_err(|value::Mismatch| {
            let (table, name) = (&self.plan.schema.id, &self.plan.schema.columns[column].name);
            Error::bug(format!("encode {table}.{name}: the cell {cell:?} does not fit the type {ty:?}"))
        })
    }

    fn envelope(&mut self, op: Op, before: Option<&[Cell]>, after: Option<&[Cell]>) -> Result<Range<usize>> {
        let start = self.encoded.arena.len();
        self.encoded.arena.extend_from_slice(b"{\"before\":");
        self.image(before)?;
        self.encoded.arena.extend_from_slice(b",\"after\":");
        self.image(after)?;
        self.encoded.arena.push(b',');
        self.source();
        let out = &mut self.encoded.arena;
        out.extend_from_slice(b",\"transaction\":null");
        out.extend_from_slice(plan::op(op));
        out.extend_from_slice(b",\"ts_ms\":");
        value::integer(out, self.now / 1_000);
        out.extend_from_slice(b",\"ts_us\":");
        value::integer(out, self.now);
        out.extend_from_slice(b",\"ts_ns\":");
        value::integer(out, self.now * 1_000);
        out.push(b'}');
        Ok(start..self.encoded.arena.len())
    }

    fn image(&mut self, row: Option<&[Cell]>) -> Result<()> {
        let Some(row) = row else {
            self.encoded.arena.extend_from_slice(b"null");
            return Ok(());
        };
        self.encoded.arena.push(b'{');
        let mut first = true;
        for (i, &cell) in row.iter().enumerate().filter(|(_, c)| **c != Cell::Unchanged) {
            if !std::mem::take(&mut first) {
                self.encoded.arena.push(b',');
            }
            self.field(i, cell)?;
        }
        self.encoded.arena.push(b'}');
        Ok(())
    }

    fn source(&mut self) {
        let (event, batch, plan) = (self.event, self.batch, self.plan);
        let transaction = batch.transactions.get(event.transaction as usize).copied().unwrap_or_default();
        let out = &mut self.encoded.arena;
        out.extend_from_slice(&plan.source_head);
        value::integer(out, event.ts_us.div_euclid(1_000));
        out.extend_from_slice(b",\"snapshot\":\"");
        out.extend_from_slice(event.snapshot.as_str().as_bytes());
        out.extend_from_slice(&plan.source_db);
        value::integer(out, event.ts_us);
        out.extend_from_slice(b",\"ts_ns\":");
        value::integer(out, event.ts_us.saturating_mul(1_000));
        out.extend_from_slice(&plan.source_table);
        value::integer(out, transaction.server_id);
        out.extend_from_slice(b",\"gtid\":");
        match transaction.gtid {
            Some(gtid) => text::string(out, batch.bytes(gtid)),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"file\":");
        text::string(out, transaction.file.map_or(&[], |file| batch.bytes(file)));
        out.extend_from_slice(b",\"pos\":");
        value::integer(out, event.pos);
        out.extend_from_slice(b",\"row\":");
        value::integer(out, event.row);
        out.extend_from_slice(b",\"thread\":");
        match transaction.thread {
            0 => out.extend_from_slice(b"null"),
            thread => value::integer(out, thread),
        }
        out.extend_from_slice(b",\"query\":null}");
    }
}
