//! A re-read as a reconciliation: rows as the source has them against what the log's topic holds.
//!
//! # Why the topic ends in the source's state, and nothing is deleted that is there
//!
//! Let B be the point of the stream at which the re-read began. The index is built from the topic only when everything that was
//! delivered up to B is committed there, so it holds, for each key, what the topic holds at B or later.
//!
//! *Rows that are there.* A chunk is read in a window as ever (see [`crate::snapshot`]): its row r of a key is not older than what
//! the stream delivered when the window opened, and the key was not touched since. r is left out only if the index holds it with this very
//! content. If no event of the key was delivered since B, the topic holds what the index holds: leaving r out changes nothing. If
//! one was, the topic holds that event's row, and so does the source unless it was changed once more without an event; such
//! a change after B is not what this re-read was asked for. In all other cases r is delivered, at the place where a snapshot's row
//! would be.
//!
//! *Keys that are gone.* A key of the index that no chunk brought is only a candidate: it may have been deleted by an event, or moved
//! between two chunks. Each candidate is asked for by key, in a window of its own. If the SELECT does not bring it and no event touched it
//! meanwhile, then it is not there in a state that holds everything delivered; a delete is delivered at that place, and an
//! event that creates it again comes behind it. So a delete rests on a window alone, and not on the index, the topic or the
//! chunks: they may be late or wrong, which costs a question and no row. A delete that the stream delivered since B is remembered (up to
//! a bound), so that it is not told twice.
//!
//! A restart in between: [`super::met`].
//!
//! Memory: the index's (1 MB and 1 bit a key for 10 million), one chunk, 250 candidates or 1 MiB of their rows, and of a re-read by
//! values up to [`HELD_BYTES`] of the topic's rows that have them, so that the topic need not be read once more.

use crate::canonical;
use crate::snapshot::bounds::{self, Stored};
use crate::snapshot::chunk::Chunk;
use crate::snapshot::met::Met;
use crate::snapshot::plan::{Filter, Plan};
use crate::snapshot::request::Rows;
use crate::snapshot::values::of_cell;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    Batch, BatchBuilder, Cell, Error, EventHead, LogPosition, Op, Position, Result, Slice, SnapshotMark,
    TableSchema, Written, WrittenRows,
};
use caudal_index::{Builder, Index, KeyHash, Marks, content_hash, key_hash};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Candidates that are asked for at once.
const CANDIDATES: usize = 250;
/// Bytes of their rows.
const CANDIDATE_BYTES: usize = 1 << 20;
/// Bound on the rows of the topic that are held for a re-read by values.
const HELD_BYTES: usize = 4 << 20;

/// What the topic holds of a table, as far as a request concerns it.
pub(crate) struct Against {
    pub(crate) index: Arc<Index>,
    pub(crate) marks: Marks,
    /// The topic's rows that it concerns, if they are few.
    held: Option<Batch>,
    /// Keys that were met, over restarts.
    pub(crate) met: Arc<Met>,
}

/// What an index is made for.
pub(crate) struct Purpose {
    pub(crate) written: Arc<dyn Written>,
    pub(crate) plan: Arc<Plan>,
    /// Which of the topic's rows.
    pub(crate) rows: Rows,
    /// Where the index is made.
    pub(crate) spool_dir: PathBuf,
    /// Where it is kept which keys were met.
    pub(crate) met_dir: PathBuf,
    /// The name of what a re-read that goes on had met.
    pub(crate) resumed: Option<String>,
}

/// Which of the topic's rows a request concerns.
struct Concerned {
    columns: Vec<usize>,
    values: HashSet<Vec<Stored>>,
}

impl Concerned {
    fn new(rows: &Rows, schema: &TableSchema) -> Option<Self> {
        let Rows::Matching { columns, values } = rows else { return None };
        let at = |name: &String| schema.columns.iter().position(|c| c.name == *name);
        let columns = columns.iter().map(at).collect::<Option<_>>()?;
        Some(Self { columns, values: values.iter().cloned().collect() })
    }

    fn holds(&self, schema: &TableSchema, row: &[Cell], batch: &Batch) -> bool {
        let value = |&i: &usize| of_cell(&schema.columns[i], row[i], |s| batch.bytes(s));
        let values: Option<Vec<Stored>> = self.columns.iter().map(value).collect();
        values.is_some_and(|v| self.values.contains(&v))
    }
}

/// Reads the table's topic and makes an index of it. Tells whether a re-read that was to go on can: what it had met is marked then.
///
/// # Errors
/// What the log gives; `Config` if the disk is full.
pub(crate) async fn build(purpose: Purpose) -> Result<(Against, bool)> {
    let Purpose { written, plan, rows, spool_dir, met_dir, resumed } = purpose;
    let path = spool_dir.join(format!("caudal-keys-{:016x}", rand::random::<u64>()));
    let mut builder = Builder::new(&path, None)?;
    let mut topic = written.open(plan.id()).await?;
    let mut aligned = Aligned::default();
    let mut held = Held::new(&rows);
    let mut concerned = None;
    let mut lost = 0;
    while let Some(batch) = topic.next().await? {
        lost += batch.undecodable.len();
        for event in &batch.events {
            if event.op == Op::Truncate {
                builder.clear()?;
                continue;
            }
            let schema = batch.table(event);
            // Rows under another key are in another topic: here they are not.
            if schema.generation != plan.schema.generation {
                continue;
            }
            if aligned.to(schema, &plan.schema) {
                concerned = Concerned::new(&rows, schema);
            }
            let Some(image) = batch.after(event).or_else(|| batch.before(event)) else { continue };
            let Some(hashes) = aligned.hashes(image, &plan.schema, |s| batch.bytes(s)) else { continue };
            let left_out = concerned.as_ref().is_some_and(|c| !c.holds(schema, image, &batch));
            if event.op == Op::Delete || left_out {
                builder.remove(hashes.0)?;
            } else {
                builder.put(hashes.0, hashes.1)?;
                held.take(&batch, event);
            }
        }
    }
    if lost > 0 {
        tracing::warn!(table = %plan.id(), records = lost, "re-read: records of the topic cannot be decoded: their rows are delivered anew");
    }
    let finished = tokio::task::spawn_blocking(move || {
        let index = builder.finish("")?;
        // It is gone with the process.
        let _ = std::fs::remove_file(&path);
        let (marks, met) = (Marks::new(index.len()), Arc::new(Met::new(&met_dir)));
        let mut against = Against { index: Arc::new(index), marks, held: held.rows(), met };
        let Some(resumed) = resumed else { return Ok((against, false)) };
        let found = Met::resume(&met_dir, &resumed, &mut against)?;
        let goes_on = found.is_some();
        against.met = found.map_or(against.met, Arc::new);
        Ok::<_, Error>((against, goes_on))
    });
    finished.await.map_err(|e| Error::bug("build a key index").because(e))?
}

/// Rows of the topic that a re-read by values concerns, newer ones behind older ones of the same key. None once there are too many.
struct Held(Option<BatchBuilder>);

impl Held {
    fn new(rows: &Rows) -> Self {
        Self(matches!(rows, Rows::Matching { .. }).then(BatchBuilder::default))
    }

    fn take(&mut self, batch: &Batch, event: &EventHead) {
        let (Some(builder), Some(image)) = (&mut self.0, batch.after(event)) else { return };
        let row: Vec<Cell> = image.iter().map(|cell| copied(*cell, batch, builder)).collect();
        let after = builder.cells.len() as u32;
        builder.cells.extend(row);
        let table = builder.table(batch.table(event));
        builder.events.push(EventHead { table, transaction: 0, before: NO_ROW, after, row: 0, ..*event });
        if builder.size() > HELD_BYTES {
            self.0 = None;
        }
    }

    fn rows(self) -> Option<Batch> {
        self.0.map(|builder| builder.build(Position::Log(LogPosition::default()), None))
    }
}

/// How the rows of one shape lie in another.
#[derive(Default)]
struct Aligned {
    of: Option<Arc<TableSchema>>,
    columns: Vec<Option<usize>>,
    key: Vec<u8>,
    row: Vec<u8>,
}

impl Aligned {
    /// Rows of the shape `from` follow; true if others came before.
    fn to(&mut self, from: &Arc<TableSchema>, to: &TableSchema) -> bool {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, from)) {
            return false;
        }
        let at = |c: &caudal_core::Column| from.columns.iter().position(|f| f.name == c.name && f.ty == c.ty);
        self.columns = to.columns.iter().map(at).collect();
        self.of = Some(Arc::clone(from));
        true
    }

    /// The cell of a column; a column that the row's shape lacks is not known.
    fn cell(&self, row: &[Cell], column: usize) -> Cell {
        self.columns[column].map_or(Cell::Unchanged, |i| row[i])
    }

    /// Hashes of key and content; none if the row lacks a part of the key.
    fn hashes<'a>(
        &mut self,
        row: &[Cell],
        schema: &TableSchema,
        bytes: impl Fn(Slice) -> &'a [u8] + Copy,
    ) -> Option<(KeyHash, u64)> {
        let (mut key, mut whole) = (std::mem::take(&mut self.key), std::mem::take(&mut self.row));
        key.clear();
        whole.clear();
        let mut complete = true;
        for &i in &schema.key {
            let cell = self.cell(row, i as usize);
            complete &= !matches!(cell, Cell::Unchanged);
            canonical::append(&mut key, cell, bytes);
        }
        (0..schema.width()).for_each(|i| canonical::append(&mut whole, self.cell(row, i), bytes));
        let hashes = complete.then(|| (key_hash(&key), content_hash(&whole)));
        (self.key, self.row) = (key, whole);
        hashes
    }
}

/// Takes rows out of a chunk that the index holds with the same content, and notes which entries were met.
///
/// # Errors
/// `Transient` if the index cannot be read.
pub(crate) fn compare(mut chunk: Box<Chunk>, index: &Index) -> Result<Box<Chunk>> {
    let (schema, builder) = (Arc::clone(&chunk.plan.schema), &mut chunk.builder);
    let mut aligned = Aligned::default();
    aligned.to(&schema, &schema);
    let mut events = std::mem::take(&mut builder.events);
    let hashes = events.iter().map(|e| {
        let row = &builder.cells[e.after as usize..][..schema.width()];
        aligned.hashes(row, &schema, |s| builder.bytes(s)).unwrap_or_default()
    });
    let hashes: Vec<(KeyHash, u64)> = hashes.collect();
    chunk.keys = hashes.iter().map(|(key, _)| *key).collect();
    let found = index.find_all(&chunk.keys)?;
    chunk.met = found.iter().flatten().map(|f| f.at).collect();
    let mut number = 0..hashes.len();
    events.retain(|_| {
        let same = number.next().is_some_and(|i| found[i].is_some_and(|f| f.content == hashes[i].1));
        !same
    });
    chunk.builder.events = events;
    Ok(chunk)
}

/// Keys of the index that no chunk brought.
pub(crate) struct Search {
    /// None: `held` is all.
    topic: Option<Box<dyn WrittenRows>>,
    held: Option<(Batch, usize)>,
    aligned: Aligned,
}

/// Rows that may be gone, each as the delete that it will be if it is.
pub(crate) struct Candidates {
    pub(crate) builder: BatchBuilder,
    pub(crate) keys: Vec<KeyHash>,
    /// Canonical bytes of the keys.
    pub(crate) bytes: Vec<Vec<u8>>,
    /// Asks for those of them that can be asked for; the others are of a value that the column cannot hold any more.
    pub(crate) filter: Option<Filter>,
}

impl Search {
    /// From the topic's beginning, or among the rows that are held.
    ///
    /// # Errors
    /// What the log gives.
    pub(crate) async fn open(written: &dyn Written, plan: &Plan, against: &mut Against) -> Result<Self> {
        let held = against.held.take().map(|rows| (rows, 0));
        let topic = match held {
            Some(_) => None,
            None => Some(written.open(plan.id()).await?),
        };
        Ok(Self { topic, held, aligned: Aligned::default() })
    }

    /// The next candidates; none when there are no more. Each is given once: it is marked.
    ///
    /// # Errors
    /// What the log gives; `Transient` if the index cannot be read.
    pub(crate) async fn next(&mut self, against: &mut Against, plan: &Plan) -> Result<Option<Candidates>> {
        let mut found = Candidates {
            builder: BatchBuilder::default(),
            keys: Vec::new(),
            bytes: Vec::new(),
            filter: None,
        };
        let mut values = Vec::new();
        while found.keys.len() < CANDIDATES
            && found.builder.size() < CANDIDATE_BYTES
            && against.marks.unset() > 0
        {
            let (batch, at) = match self.held.take() {
                Some(held) => held,
                None => {
                    let Some(topic) = &mut self.topic else { break };
                    match topic.next().await? {
                        Some(batch) => (batch, 0),
                        None => break,
                    }
                }
            };
            if let Some(event) = batch.events.get(at) {
                self.look(&batch, event, against, plan, (&mut found, &mut values))?;
                self.held = Some((batch, at + 1));
            }
        }
        if found.keys.is_empty() {
            return Ok(None);
        }
        if let (Some(parts), false) = (&plan.parts, values.is_empty()) {
            let (condition, parameters) = bounds::one_of_keys(parts, &values);
            found.filter = Some(Filter { condition, parameters });
        }
        Ok(Some(found))
    }

    fn look(
        &mut self,
        batch: &Batch,
        event: &EventHead,
        against: &mut Against,
        plan: &Plan,
        (out, values): (&mut Candidates, &mut Vec<Vec<Stored>>),
    ) -> Result<()> {
        let Some(image) = batch.after(event) else { return Ok(()) };
        self.aligned.to(batch.table(event), &plan.schema);
        let Some((key, content)) = self.aligned.hashes(image, &plan.schema, |s| batch.bytes(s)) else {
            return Ok(());
        };
        let Some(entry) = against.index.find(key)? else { return Ok(()) };
        if entry.content != content || against.marks.get(entry.at) {
            return Ok(());
        }
        against.marks.set(entry.at);
        let row: Vec<Cell> = (0..plan.schema.width())
            .map(|i| copied(self.aligned.cell(image, i), batch, &mut out.builder))
            .collect();
        out.keys.push(key);
        out.bytes.push(self.aligned.key.clone());
        let builder = &out.builder;
        let value = |&i: &u32| match row[i as usize] {
            // In a key of the configuration's.
            Cell::Null => Some(Stored::Null),
            cell => of_cell(&plan.schema.columns[i as usize], cell, |s| builder.bytes(s)),
        };
        values.extend(plan.schema.key.iter().map(value).collect::<Option<Vec<Stored>>>());
        delete(&row, plan, &mut out.builder);
        Ok(())
    }
}

fn copied(cell: Cell, batch: &Batch, into: &mut BatchBuilder) -> Cell {
    match cell {
        Cell::Text(s) => Cell::Text(into.copy(batch.bytes(s))),
        Cell::Bytes(s) => Cell::Bytes(into.copy(batch.bytes(s))),
        Cell::Decimal(s) => Cell::Decimal(into.copy(batch.bytes(s))),
        Cell::Json(s) => Cell::Json(into.copy(batch.bytes(s))),
        other => other,
    }
}

fn delete(row: &[Cell], plan: &Plan, builder: &mut BatchBuilder) {
    let before = builder.cells.len() as u32;
    builder.cells.extend_from_slice(row);
    let table = builder.table(&plan.schema);
    builder.events.push(EventHead {
        table,
        transaction: 0,
        before,
        after: NO_ROW,
        row: 0,
        op: Op::Delete,
        snapshot: SnapshotMark::Incremental,
        pos: 0,
        ts_us: 0,
    });
}
