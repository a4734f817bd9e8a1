//! From the rows of an event to cells.
//!
//! A body is: column count, a bit map of the columns present (for updates one per image), then the images: a bit map of
//! NULLs over the present columns, and the values. (`Rows_event` in MySQL's `rows_event.h`.)

use super::cursor::{Cursor, Damage, Read, bit, damage};
use super::event::{Rows, RowsOp};
use super::json;
use super::plan::{Plan, Step};
use super::table_map::TableMap;
use super::value::{Home, bytes, written};
use caudal_core::{BatchBuilder, Cell, Error, Result, TableSchema};
use std::collections::HashMap;
use std::sync::Arc;

/// No image: of an insert the one before, of a delete the one after. The same value as `caudal_core::batch::NO_ROW`.
pub const NO_IMAGE: u32 = caudal_core::batch::NO_ROW;

/// Bodies up to this are copied into the arena; see [`RowDecoder::decode`].
const COPIED_BYTES: usize = 32 * 1024;
const MOST_PLANS: usize = 4096;
/// Slices have offsets of 32 bits. What stands in a byte of an event can be a long label, so this is watched cell by cell; the
/// rest of the 4 GiB is room for the one cell that is being written.
const MOST_ARENA_BYTES: usize = 2 << 30;

/// Where the images of one row lie in `BatchBuilder::cells`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowImages {
    /// Which row of the event, from 0.
    pub row: u32,
    /// Index of the first cell of the image before, or [`NO_IMAGE`].
    pub before: u32,
    /// The same for the image after.
    pub after: u32,
}

/// Decodes rows against the shapes of their tables. Keeps, per table, how each column's bytes become a cell, so that the
/// work per row is a walk over that plan. Holds at most 4,096 plans.
#[derive(Default)]
pub struct RowDecoder {
    plans: HashMap<u64, Known>,
}

struct Known {
    map: Arc<TableMap>,
    schema: Arc<TableSchema>,
    plan: Arc<Plan>,
}

impl RowDecoder {
    /// Appends the images of all rows of the event to `out.cells` and calls `each` for each row, in order.
    ///
    /// Bodies of up to 32 KiB are copied into the builder's arena: a slice of the stream's read buffer would keep all of
    /// that alive for one row. Larger ones are added as a buffer of their own, without a copy.
    ///
    /// # Errors
    /// `Data`, naming table and column, where the bytes or the shape don't fit; what was appended before stays in `out`.
    /// What `each` returns.
    pub fn decode(
        &mut self,
        rows: &Rows,
        schema: &Arc<TableSchema>,
        out: &mut BatchBuilder,
        mut each: impl FnMut(&mut BatchBuilder, RowImages) -> Result<()>,
    ) -> Result<()> {
        let named = |d: Damage| Error::data(format!("decode a row of {}: {}", schema.id, d.0));
        let plan = self.plan(rows, schema).map_err(|d| {
            named(d).hint("the table's shape at this position is not known: read the table again")
        })?;
        let home = settle(rows, out);
        let mut images = Images::open(rows, &plan, home).map_err(named)?;
        let mut row = 0;
        while let Some((before, after)) = images.next(out).map_err(|d| named(images.blame(d, schema)))? {
            each(out, RowImages { row, before, after })?;
            row += 1;
        }
        Ok(())
    }

    fn plan(&mut self, rows: &Rows, schema: &Arc<TableSchema>) -> Read<Arc<Plan>> {
        let known = self.plans.get(&rows.table.id);
        if let Some(k) = known.filter(|k| Arc::ptr_eq(&k.map, &rows.table) && Arc::ptr_eq(&k.schema, schema))
        {
            return Ok(Arc::clone(&k.plan));
        }
        let plan = Arc::new(Plan::new(&rows.table, schema)?);
        if self.plans.len() >= MOST_PLANS {
            self.plans.clear();
        }
        let (map, schema) = (Arc::clone(&rows.table), Arc::clone(schema));
        self.plans.insert(rows.table.id, Known { map, schema, plan: Arc::clone(&plan) });
        Ok(plan)
    }
}

/// [`RowDecoder::decode`] without a memory of plans.
///
/// # Errors
/// As there.
pub fn decode_rows(
    rows: &Rows,
    schema: &Arc<TableSchema>,
    out: &mut BatchBuilder,
    each: impl FnMut(&mut BatchBuilder, RowImages) -> Result<()>,
) -> Result<()> {
    RowDecoder::default().decode(rows, schema, out, each)
}

/// Gives the event's bytes a place in the batch.
fn settle(rows: &Rows, out: &mut BatchBuilder) -> Home {
    let total = rows.body.len();
    if total > COPIED_BYTES {
        return Home { buffer: out.buffer(rows.body.clone()), offset: 0, total };
    }
    let copy = out.copy(&rows.body);
    Home { buffer: copy.buffer, offset: copy.offset, total }
}

/// Reads images one after the other.
struct Images<'a> {
    plan: &'a Plan,
    home: Home,
    rest: Cursor<'a>,
    op: RowsOp,
    partial_json: bool,
    before: Present<'a>,
    after: Present<'a>,
    /// The column that is being read.
    column: usize,
    /// Of updates with partial JSON: the documents of the image before, by column.
    documents: Vec<(usize, &'a [u8])>,
}

/// Which columns an image has.
#[derive(Clone, Copy)]
struct Present<'a> {
    map: &'a [u8],
    count: usize,
    all: bool,
}

impl<'a> Present<'a> {
    fn read(c: &mut Cursor<'a>, columns: usize) -> Read<Self> {
        let map = c.take(columns.div_ceil(8))?;
        let count = (0..columns).filter(|i| bit(map, *i)).count();
        Ok(Self { map, count, all: count == columns })
    }
}

impl<'a> Images<'a> {
    fn open(rows: &'a Rows, plan: &'a Plan, home: Home) -> Read<Self> {
        let mut c = Cursor(&rows.body);
        let columns = plan.steps.len();
        if c.length_encoded()? != columns as u64 {
            return damage("the number of columns is not that of the table's map");
        }
        let before = Present::read(&mut c, columns)?;
        let after = if rows.op == RowsOp::Update { Present::read(&mut c, columns)? } else { before };
        Ok(Self {
            plan,
            home,
            rest: c,
            op: rows.op,
            partial_json: rows.partial_json,
            before,
            after,
            column: 0,
            documents: Vec::new(),
        })
    }

    /// The indexes of the next row's images.
    fn next(&mut self, out: &mut BatchBuilder) -> Read<Option<(u32, u32)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let left = self.rest.0.len();
        let images = match self.op {
            RowsOp::Insert => (NO_IMAGE, self.image(self.after, out)?),
            RowsOp::Delete => (self.image(self.before, out)?, NO_IMAGE),
            RowsOp::Update => {
                self.documents.clear();
                let before = self.image(self.before, out)?;
                let after = if self.partial_json { self.partial(out)? } else { self.image(self.after, out)? };
                self.complete(before, after, out);
                (before, after)
            }
        };
        // An image of no columns takes no bytes, and there would be no end of them.
        if self.rest.0.len() == left { damage("a row takes no bytes") } else { Ok(Some(images)) }
    }

    /// What an image after leaves out did not change: it is what it was, where the image before tells.
    fn complete(&self, before: u32, after: u32, out: &mut BatchBuilder) {
        let width = self.plan.steps.len();
        if self.after.all && !self.partial_json {
            return;
        }
        let (earlier, later) = out.cells.split_at_mut(after as usize);
        for (new, old) in later[..width].iter_mut().zip(&earlier[before as usize..][..width]) {
            if *new == Cell::Unchanged {
                *new = *old;
            }
        }
    }

    fn image(&mut self, present: Present<'a>, out: &mut BatchBuilder) -> Read<u32> {
        let first = cell_index(out)?;
        let nulls = self.rest.take(present.count.div_ceil(8))?;
        out.cells.reserve(self.plan.steps.len());
        let mut nth = 0;
        for (i, step) in self.plan.steps.iter().enumerate() {
            if !present.all && !bit(present.map, i) {
                out.cells.push(Cell::Unchanged);
                continue;
            }
            let null = bit(nulls, nth);
            nth += 1;
            self.column = i;
            if self.partial_json && !null {
                self.keep_document(step)?;
            }
            let cell = if null { Cell::Null } else { step.cell(&mut self.rest, self.home, out)? };
            push(cell, out)?;
        }
        Ok(first)
    }

    /// An image after whose JSON columns may stand as differences to those of the image before.
    fn partial(&mut self, out: &mut BatchBuilder) -> Read<u32> {
        const PARTIAL_JSON: u64 = 1;
        let partial = match self.rest.length_encoded()? & PARTIAL_JSON {
            0 => &[][..],
            _ => self.rest.take(self.plan.json_columns.div_ceil(8))?,
        };
        let first = cell_index(out)?;
        let present = self.after;
        let nulls = self.rest.take(present.count.div_ceil(8))?;
        let (mut nth, mut json_nth) = (0, 0);
        for (i, step) in self.plan.steps.iter().enumerate() {
            let json = matches!(step, Step::Json { .. });
            let is_partial = json && bit(partial, json_nth);
            json_nth += usize::from(json);
            if !bit(present.map, i) {
                out.cells.push(Cell::Unchanged);
                continue;
            }
            let null = bit(nulls, nth);
            nth += 1;
            self.column = i;
            let cell = match step {
                _ if null => Cell::Null,
                Step::Json { prefix } if is_partial => {
                    let changes = bytes(&mut self.rest, *prefix)?;
                    self.patched(changes, out)?
                }
                step => step.cell(&mut self.rest, self.home, out)?,
            };
            push(cell, out)?;
        }
        Ok(first)
    }

    /// Remembers the document that is read next, if it is one.
    fn keep_document(&mut self, step: &Step) -> Read<()> {
        if let Step::Json { prefix } = step {
            let mut ahead = self.rest;
            self.documents.push((self.column, bytes(&mut ahead, *prefix)?));
        }
        Ok(())
    }

    /// The document before with the changes applied; `Unchanged` where the log does not hold the one before.
    fn patched(&self, changes: &[u8], out: &mut BatchBuilder) -> Read<Cell> {
        match self.documents.iter().find(|(column, _)| *column == self.column) {
            Some((_, before)) => {
                Ok(Cell::Json(written(out, |arena| json::write_patched(before, changes, arena))?))
            }
            None => Ok(Cell::Unchanged),
        }
    }

    fn blame(&self, d: Damage, schema: &TableSchema) -> Damage {
        match schema.columns.get(self.column) {
            Some(column) => d.of_column(&column.name),
            None => d,
        }
    }
}

#[inline]
fn push(cell: Cell, out: &mut BatchBuilder) -> Read<()> {
    out.cells.push(cell);
    if out.arena().len() > MOST_ARENA_BYTES {
        damage("the batch is too large to hold this row")
    } else {
        Ok(())
    }
}

fn cell_index(out: &BatchBuilder) -> Read<u32> {
    u32::try_from(out.cells.len()).map_err(|_| Damage::of("the batch has too many cells"))
}
