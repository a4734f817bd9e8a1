//! Collects the events of one table in one shape, and coalesces them by key.

use super::{Columns, Group, Options, Refused, Rows, Step};
use crate::config::Deletes;
use crate::encode;
use crate::project::{Role, is_infinite};
use crate::tables::{Infinite, TableRules};
use crate::types::{self, Wire};
use bytes::Bytes;
use caudal_core::batch::NO_ROW;
use caudal_core::{Batch, Cell, EventHead, Op, TableSchema};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Rows with so many bytes go by COPY, few as they may be: parameters would be held three times, here and by the driver, and two of
/// these for as long as the connection lives. COPY goes out in pieces.
const COPY_BYTES: usize = 1 << 20;

/// Why an event is no part of a history.
const PARTIAL: &str =
    "the event holds only columns that changed, and a history needs whole rows (binlog_row_image = FULL)";

/// Where one key's event leads.
struct Entry {
    key: Range<u32>,
    event: u32,
    /// First cell of the new image, or [`NO_ROW`] for a delete.
    row: u32,
}

/// Collects the events of one group.
pub(super) struct Collector<'a> {
    batch: &'a Batch,
    pub(super) schema: &'a Arc<TableSchema>,
    options: &'a Options,
    rules: Arc<TableRules>,
    /// Columns by which events are of one row: of a history, each event is of its own.
    key: Vec<u32>,
    wires: Vec<Wire>,
    keys: Vec<u8>,
    entries: Vec<Entry>,
    truncate: Option<i64>,
    new_rows: bool,
}

impl<'a> Collector<'a> {
    pub(super) fn new(batch: &'a Batch, schema: &'a Arc<TableSchema>, options: &'a Options) -> Self {
        let rules = options.projector.rules(&schema.id);
        let mut key = schema.key.clone();
        let seq = schema.columns.iter().position(|column| Role::of(column.id) == Some(Role::Seq));
        if let (Some(last), Some(seq)) = (key.last_mut().filter(|_| rules.history), seq) {
            // In place of the change's position, which says the same: so that rows are written in the order of the events.
            *last = seq as u32;
        }
        let wires = schema.columns.iter().map(|c| types::of(&c.ty, options.json).wire).collect();
        Self {
            batch,
            schema,
            options,
            rules,
            key,
            wires,
            keys: Vec::new(),
            entries: Vec::new(),
            truncate: None,
            new_rows: true,
        }
    }

    fn keyless(&self) -> bool {
        self.schema.key.is_empty()
    }

    /// Whether a truncate leaves rows behind.
    pub(super) fn outlives_truncate(&self) -> bool {
        self.rules.history || self.rules.deletes == Deletes::Soft
    }

    fn ignores_deletes(&self) -> bool {
        self.rules.deletes == Deletes::Ignore
    }

    pub(super) fn add(&mut self, number: u32, event: &EventHead) -> Result<(), String> {
        self.new_rows &= matches!(event.op, Op::Read | Op::Create);
        match event.op {
            Op::Truncate if self.ignores_deletes() && !self.rules.history => {}
            Op::Truncate => {
                // Whatever came before is gone with it.
                self.entries.clear();
                self.truncate = Some(event.ts_us);
                self.new_rows = true;
            }
            Op::Delete if self.ignores_deletes() => {}
            Op::Delete => self.entry(number, event.before, NO_ROW)?,
            Op::Read | Op::Create | Op::Update if event.after == NO_ROW => {
                return Err("the event has no row".to_owned());
            }
            Op::Create if self.rules.history && !self.is_whole(event.after) => {
                return Err(PARTIAL.to_owned());
            }
            Op::Update if self.keyless() => {
                self.entry(number, event.before, NO_ROW)?;
                self.entry(number, event.after, event.after)?;
            }
            Op::Read | Op::Create | Op::Update => {
                self.entry(number, event.after, event.after)?;
                if event.before != NO_ROW && event.op == Op::Update {
                    self.moved(number, event)?;
                }
            }
        }
        Ok(())
    }

    /// An update that changes its key also deletes the old one.
    fn moved(&mut self, number: u32, event: &EventHead) -> Result<(), String> {
        let new = self.entries.len() - 1;
        self.entry(number, event.before, NO_ROW)?;
        let [.., a, b] = &self.entries[..] else { return Ok(()) };
        if self.key(a) == self.key(b) || self.ignores_deletes() {
            self.entries.pop();
        } else {
            self.entries.swap(new, new + 1);
        }
        Ok(())
    }

    /// Appends a value of a column, as its rules allow it.
    fn field(&self, out: &mut Vec<u8>, cell: Cell, column: usize) -> Result<(), encode::Refusal> {
        if self.rules.infinite == Infinite::Reject && is_infinite(self.batch, cell) {
            return Err("the number is infinite, or none (NaN), and `infinite: reject` refuses that");
        }
        encode::field(out, self.batch, cell, self.wires[column])
    }

    /// Notes where the key of the image at `image` leads. For a table without a key, `key` holds the image's own place.
    fn entry(&mut self, number: u32, image: u32, row: u32) -> Result<(), String> {
        if image == NO_ROW {
            return Err("the event has no image of the row before".to_owned());
        }
        if self.keyless() {
            self.entries.push(Entry { key: image..image, event: number, row });
            return Ok(());
        }
        let start = self.keys.len();
        for &column in &self.key {
            let cell = self.batch.cells[(image + column) as usize];
            let from = self.keys.len();
            let mut keys = std::mem::take(&mut self.keys);
            let field = self.field(&mut keys, cell, column as usize);
            self.keys = keys;
            if field.is_ok() && self.keys[from..from + 4] == [255; 4] {
                return Err(self.refusal(column as usize, "a key needs a value, and this one has none here"));
            }
            field.map_err(|refusal| self.refusal(column as usize, refusal))?;
        }
        self.entries.push(Entry { key: start as u32..self.keys.len() as u32, event: number, row });
        Ok(())
    }

    fn key(&self, entry: &Entry) -> &[u8] {
        &self.keys[entry.key.start as usize..entry.key.end as usize]
    }

    fn refusal(&self, column: usize, refusal: encode::Refusal) -> String {
        format!("column {}: {refusal}", self.schema.columns[column].name)
    }

    pub(super) fn finish(mut self, refused: &mut Refused) -> Group {
        let mut entries = std::mem::take(&mut self.entries);
        let mut group = Group {
            schema: Arc::clone(self.schema),
            truncate: self.truncate,
            deletes: Columns::new(self.key.iter().map(|&k| self.wires[k as usize])),
            upserts: Rows::Arrays(Columns::new([])),
            patches: Vec::new(),
            steps: Vec::new(),
            new_rows: self.new_rows,
        };
        if self.keyless() {
            group.steps = self.steps(&entries, refused);
            return group;
        }
        entries.sort_by(|a, b| self.key(a).cmp(self.key(b)));
        let mut rows = Vec::new();
        let mut patches: BTreeMap<Vec<usize>, Columns> = BTreeMap::new();
        for run in entries.chunk_by(|a, b| self.key(a) == self.key(b)) {
            let last = &run[run.len() - 1];
            match self.outcome(run) {
                Final::Deleted => self.key_fields(last, &mut group.deletes),
                Final::Row(image) => rows.push((last.event, image)),
                Final::Patch(cells) => self.patch(&mut patches, last.event, &cells, refused),
            }
        }
        let threshold = if self.new_rows { self.options.copy_new_rows } else { self.options.copy_rows };
        group.upserts = self.rows(&rows, threshold, refused);
        group.patches = patches.into_iter().map(|(present, rows)| super::Patch { present, rows }).collect();
        group
    }

    /// What a key's events add up to.
    fn outcome(&self, run: &[Entry]) -> Final<'a> {
        let image = |entry: &Entry| &self.batch.cells[entry.row as usize..][..self.schema.width()];
        let whole = |cells: &[Cell]| !cells.contains(&Cell::Unchanged);
        let last = &run[run.len() - 1];
        if last.row == NO_ROW {
            return Final::Deleted;
        }
        if whole(image(last)) {
            return Final::Row(Image::Borrowed(image(last)));
        }
        let mut merged = image(last).to_vec();
        for entry in run.iter().rev().skip(1).take_while(|e| e.row != NO_ROW) {
            for (cell, earlier) in merged.iter_mut().zip(image(entry)) {
                if *cell == Cell::Unchanged {
                    *cell = *earlier;
                }
            }
        }
        if whole(&merged) { Final::Row(Image::Owned(merged)) } else { Final::Patch(merged) }
    }

    /// The key's encoded fields, cut apart into the columns.
    fn key_fields(&self, entry: &Entry, columns: &mut Columns) {
        let mut rest = self.key(entry);
        for (_, fields) in &mut columns.fields {
            let len = rest.first_chunk::<4>().map_or(0, |l| i32::from_be_bytes(*l)) as usize;
            let (field, tail) = rest.split_at(4 + len);
            fields.extend_from_slice(field);
            rest = tail;
        }
        columns.len += 1;
    }

    fn patch(
        &self,
        patches: &mut BTreeMap<Vec<usize>, Columns>,
        event: u32,
        cells: &[Cell],
        refused: &mut Refused,
    ) {
        let present: Vec<usize> = (0..cells.len()).filter(|i| cells[*i] != Cell::Unchanged).collect();
        let wires = present.iter().map(|i| self.wires[*i]);
        let columns = patches.entry(present.clone()).or_insert_with(|| Columns::new(wires));
        let cells = present.iter().map(|i| (*i, cells[*i]));
        if let Err(cause) = self.push(columns, cells) {
            refused.insert(event, cause);
        }
    }

    fn push(&self, columns: &mut Columns, cells: impl Iterator<Item = (usize, Cell)>) -> Result<(), String> {
        for ((_, fields), (column, cell)) in columns.fields.iter_mut().zip(cells) {
            self.field(fields, cell, column).map_err(|r| self.refusal(column, r))?;
        }
        columns.len += 1;
        Ok(())
    }

    /// Encodes rows: by COPY's form from `threshold` rows or [`COPY_BYTES`] on, and where a column cannot be an array's element.
    fn rows(&self, rows: &[(u32, Image<'_>)], threshold: usize, refused: &mut Refused) -> Rows {
        let arrays = rows.len() < threshold && self.wires.iter().all(|w| w.array().is_some());
        let bytes = if arrays { value_bytes(rows) } else { 0 };
        if arrays && bytes < COPY_BYTES {
            let mut columns = Columns::new(self.wires.iter().copied());
            for (event, image) in rows {
                if let Err(cause) = self.push(&mut columns, image.cells().iter().copied().enumerate()) {
                    refused.insert(*event, cause);
                }
            }
            return Rows::Arrays(columns);
        }
        let mut out = Vec::with_capacity(bytes);
        for (event, image) in rows {
            out.extend_from_slice(&(self.wires.len() as u16).to_be_bytes());
            for (column, cell) in image.cells().iter().enumerate() {
                if let Err(refusal) = self.field(&mut out, *cell, column) {
                    refused.insert(*event, self.refusal(column, refusal));
                    break;
                }
            }
        }
        Rows::Copy(Bytes::from(out), rows.len())
    }

    /// Runs of inserts together, each removal by itself.
    fn steps(&self, entries: &[Entry], refused: &mut Refused) -> Vec<Step> {
        let mut steps = Vec::new();
        for run in entries.chunk_by(|a, b| (a.row == NO_ROW) == (b.row == NO_ROW)) {
            if run[0].row != NO_ROW {
                let rows: Vec<_> =
                    run.iter().map(|e| (e.event, Image::Borrowed(self.image(e.key.start)))).collect();
                steps.push(Step::Insert(self.rows(&rows, self.options.copy_new_rows, refused)));
                continue;
            }
            for entry in run {
                match self.removal(self.image(entry.key.start)) {
                    Ok(fields) => steps.push(Step::Remove(fields)),
                    Err(cause) => {
                        refused.insert(entry.event, cause);
                    }
                }
            }
        }
        steps
    }

    fn is_whole(&self, at: u32) -> bool {
        !self.image(at).contains(&Cell::Unchanged)
    }

    fn image(&self, at: u32) -> &'a [Cell] {
        &self.batch.cells[at as usize..][..self.schema.width()]
    }

    fn removal(&self, image: &[Cell]) -> Result<Vec<Option<Vec<u8>>>, String> {
        let field = |(column, cell): (usize, &Cell)| {
            if *cell == Cell::Unchanged {
                return Ok(None);
            }
            let mut out = Vec::new();
            self.field(&mut out, *cell, column).map_err(|r| self.refusal(column, r))?;
            Ok(Some(out))
        };
        image.iter().enumerate().map(field).collect()
    }
}

/// Bytes of the rows' values that are not in the cells themselves.
fn value_bytes(rows: &[(u32, Image<'_>)]) -> usize {
    let cells = rows.iter().flat_map(|(_, image)| image.cells());
    cells.filter_map(|cell| cell.slice()).map(|slice| slice.len as usize).sum()
}

/// What a key's events add up to.
enum Final<'a> {
    Deleted,
    Row(Image<'a>),
    Patch(Vec<Cell>),
}

/// A row of the batch, or one merged from several.
enum Image<'a> {
    Borrowed(&'a [Cell]),
    Owned(Vec<Cell>),
}

impl Image<'_> {
    fn cells(&self) -> &[Cell] {
        match self {
            Self::Borrowed(cells) => cells,
            Self::Owned(cells) => cells,
        }
    }
}
