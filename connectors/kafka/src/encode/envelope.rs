//! One event as its records: value and key, and what a change of key, a delete or a truncation adds.

use crate::encode::change::Change;
use crate::encode::orders::Orders;
use crate::encode::plan::TablePlan;
use crate::encode::{Encoded, HeaderKind, Record, TRUNCATE_KEY};
use crate::murmur2;
use caudal_core::{Batch, Cell, EventHead, Op, Result};
use std::ops::Range;

/// What the events of one batch have in common.
pub(crate) struct Occasion<'a> {
    pub(crate) batch: &'a Batch,
    /// Microseconds since the epoch.
    pub(crate) now: i64,
    /// Debezium's conventions for records, and no header or key of ours.
    pub(crate) debezium: bool,
}

/// Appends the records of one event. `orders` counts it, if its transaction is to be announced; `last`: of its transaction.
pub(crate) fn event(
    encoded: &mut Encoded,
    occasion: &Occasion<'_>,
    event: &EventHead,
    (orders, last): (Option<&mut Orders>, bool),
) -> Result<()> {
    let plan = encoded.tables[event.table as usize].clone();
    let batch = occasion.batch;
    let images = (batch.before(event), batch.after(event));
    let mut writing = Writing { encoded, batch, event, plan: &plan, occasion, orders, last };
    match (event.op, images) {
        (Op::Truncate, _) if !plan.form.tells_truncation() => Ok(()),
        (Op::Truncate, _) => writing.truncation(),
        (Op::Update, (Some(before), Some(after)))
            if plan.keyed() && !plan.form.is_maxwell() && writing.key_moves(before, after) =>
        {
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
    occasion: &'a Occasion<'a>,
    orders: Option<&'a mut Orders>,
    /// Whether the event is the last of its transaction.
    last: bool,
}

impl Writing<'_> {
    fn change(&mut self, op: Op, before: Option<&[Cell]>, after: Option<&[Cell]>) -> Result<()> {
        let key = self.key(after.or(before), before)?;
        let value = self.envelope(op, before, after)?;
        self.push(key.clone(), Some(value), None);
        let tombstone = (key.is_some() || self.occasion.debezium) && !self.plan.form.is_maxwell();
        if op == Op::Delete && tombstone {
            self.push(key, None, None);
        }
        Ok(())
    }

    /// The row leaves its old key and appears under the new one.
    fn moved(&mut self, before: &[Cell], after: &[Cell]) -> Result<()> {
        let old = self.key(Some(before), None)?;
        let new = self.key(Some(after), Some(before))?;
        let gone = self.envelope(Op::Delete, Some(before), None)?;
        let to = new.clone().map(|k| (HeaderKind::NewKey, k));
        self.push(old.clone(), Some(gone), to.clone());
        self.push(old.clone(), None, to);
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
                header: (!self.occasion.debezium).then(|| (HeaderKind::Truncate, id.clone())),
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

    /// The key, from `row`; what a partial row lacks, from `fallback`. None for a table without a key.
    fn key(&mut self, row: Option<&[Cell]>, fallback: Option<&[Cell]>) -> Result<Option<Range<usize>>> {
        let (true, Some(row)) = (self.plan.keyed(), row) else { return Ok(None) };
        let mut cells = std::mem::take(&mut self.encoded.key_cells);
        cells.clear();
        cells.extend(self.plan.schema.key.iter().map(|&i| match (row[i as usize], fallback) {
            (Cell::Unchanged, Some(fallback)) => fallback[i as usize],
            (cell, _) => cell,
        }));
        let start = self.encoded.arena.len();
        let change = described(self.occasion, self.event, self.plan);
        let written = self.plan.form.key(&mut self.encoded.arena, &change, &cells);
        self.encoded.key_cells = cells;
        written.map(|()| Some(start..self.encoded.arena.len()))
    }

    fn envelope(&mut self, op: Op, before: Option<&[Cell]>, after: Option<&[Cell]>) -> Result<Range<usize>> {
        let start = self.encoded.arena.len();
        let order = self.orders.as_mut().and_then(|orders| orders.count(&self.plan.data_collection));
        let last = self.last;
        let described = described(self.occasion, self.event, self.plan);
        let change = Change { op, before, after, order, last, ..described };
        self.plan.form.value(&mut self.encoded.arena, &change)?;
        Ok(start..self.encoded.arena.len())
    }
}

fn described<'a>(occasion: &'a Occasion<'a>, event: &'a EventHead, plan: &'a TablePlan) -> Change<'a> {
    let (batch, now) = (occasion.batch, occasion.now);
    Change { batch, event, plan, op: event.op, before: None, after: None, order: None, now, last: false }
}
