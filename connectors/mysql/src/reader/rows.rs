//! Rows of the log into the batch.

use super::MySqlReader;
use super::partial::{Deliver, Partials, is_whole};
use crate::binlog::{RowDecoder, RowImages, Rows, RowsOp};
use crate::canonical::{key_bytes, stable_hash};
use crate::position::Place;
use crate::shape::Shape;
use crate::snapshot::Verdict;
use crate::snapshot::progress::{schema_note, schema_text};
use crate::snapshot::table::Table;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    BatchBuilder, Cell, Error, EventHead, Fault, Op, Result, SnapshotMark, TableId, TableSchema,
};
use std::sync::Arc;

impl MySqlReader {
    pub(super) async fn rows(&mut self, rows: Rows, pos: u64) -> Result<()> {
        let Some(tx) = &mut self.tx else {
            return Err(Error::bug("rows outside of a transaction"));
        };
        if tx.begin.xa.is_some() {
            // Whether it will be prepared or committed at once is not known yet.
            self.hold(rows, pos);
            return Ok(());
        }
        if tx.replayed {
            return Ok(());
        }
        self.deliver(&rows, pos).await
    }

    /// Decodes the rows of one event into the batch. A table whose rows cannot be read is set aside, alone.
    pub(super) async fn deliver(&mut self, rows: &Rows, pos: u64) -> Result<()> {
        let schema = match self.timeline.bound(&rows.table) {
            Some(bound) => bound.cloned(),
            None => self.bind(rows).await?,
        };
        self.kin_rows(rows, schema.as_ref()).await?;
        let Some(schema) = schema else { return Ok(()) };
        if self.quarantine.holds(&schema.id) {
            return Ok(());
        }
        let events = self.builder.events.len();
        let done = self.asked_rows(rows, &schema).and_then(|()| self.append(rows, &schema, pos));
        match done {
            Err(error) if error.fault() == Fault::Data => {
                self.builder.events.truncate(events);
                self.set_aside(&schema.id, &error).await
            }
            done => done,
        }
    }

    fn append(&mut self, rows: &Rows, schema: &Arc<TableSchema>, pos: u64) -> Result<()> {
        let shape = self.shapes.of(schema)?;
        let Self { tx: Some(tx), builder, decoder, snapshot, place, partials, .. } = self else {
            return Ok(());
        };
        let table = tx.tally.table(&schema.id);
        if tx.at.0 != pos {
            tx.at = (pos, tx.tally.rows());
        }
        let to = Delivery {
            first: tx.at.1,
            transaction: tx.number(builder),
            ts_us: tx.ts_us,
            pos,
            before: tx.tally.rows(),
            skip: tx.tally.skips(table),
            verdict: snapshot.verdict(&schema.id, &tx.begin, &tx.file, tx.pos),
        };
        let into = (builder, partials);
        let done = append(rows, &shape, &to, into, decoder, snapshot.recorder(&schema.id))?;
        // The row at which delivery goes on must be the one at which it stopped.
        if let (Some(key), Some(expected)) = (done.skipped, tx.tally.expected(table))
            && key != expected
        {
            return Err(other_transaction(place));
        }
        tx.tally.add(table, done.rows, done.key.unwrap_or(0), done.rows > to.skip);
        Ok(())
    }

    async fn bind(&mut self, rows: &Rows) -> Result<Option<Arc<TableSchema>>> {
        let bound = match self.timeline.bind(&mut self.sql, &rows.table).await {
            Err(error) if error.fault() == Fault::Data => {
                let id = TableId::new(rows.table.database.clone(), rows.table.table.clone());
                self.set_aside(&id, &error).await?;
                return Ok(None);
            }
            bound => bound?,
        };
        let Some((schema, new)) = bound else { return Ok(None) };
        if new {
            tracing::info!(source = self.config.name, table = %schema.id, version = schema.version, "the table has a new shape");
            self.note_schema(&schema)?;
            self.snapshot.changed(Some(std::slice::from_ref(&schema.id)));
            self.new_generations();
        }
        if schema.key.is_empty() {
            tracing::debug!(table = %schema.id, "the table has no key");
        }
        Ok(Some(schema))
    }

    pub(super) fn note_schema(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        let shape = self.shapes.of(schema)?;
        self.notes.insert(schema_note(&schema.id), Some(schema_text(schema, &shape.excluded())));
        if self.added.remove(&schema.id) {
            self.notes.insert(format!("{}{}", super::statement::ADDED, schema.id), None);
        }
        Ok(())
    }
}

/// The transaction in this place is not the one that was being delivered.
pub(super) fn other_transaction(place: &Place) -> Error {
    Error::config(format!(
        "the transaction behind {}:{} is not the one that was being delivered: its rows differ",
        place.file, place.pos
    ))
    .hint("this happens when the source became another server in the middle of a transaction; start the source anew under another name so that its tables are read again")
}

/// What the rows of one event share.
struct Delivery {
    transaction: u32,
    ts_us: i64,
    pos: u64,
    /// Rows of the transaction before the first event at this position.
    first: u64,
    /// Rows of the transaction before this event.
    before: u64,
    /// How many of the event's rows were delivered already.
    skip: u64,
    /// Rows that are dropped count all the same.
    verdict: Verdict,
}

/// What an event added to its transaction.
struct Delivered {
    /// The event's rows.
    rows: u64,
    /// Hash of the last row's key.
    key: Option<u64>,
    /// Hash of the key of the last row that was skipped, if it was in this event.
    skipped: Option<u64>,
}

/// Appends the rows of one event, but those that were delivered already.
fn append(
    rows: &Rows,
    shape: &Shape,
    to: &Delivery,
    (builder, partials): (&mut BatchBuilder, &mut Partials),
    decoder: &mut RowDecoder,
    mut recorder: Option<&mut Table>,
) -> Result<Delivered> {
    let op = match rows.op {
        RowsOp::Insert => Op::Create,
        RowsOp::Update => Op::Update,
        RowsOp::Delete => Op::Delete,
    };
    let schema = shape.out();
    let table = builder.table(schema);
    let mut seen = 0;
    let (mut last, mut skipped) = (None, None);
    let mut key = Vec::new();
    decoder.decode(rows, shape.full(), builder, |out, full| {
        seen += 1;
        // Rows that are not going out count too, and their keys are recorded: places in the log are counted before filters.
        let fate = shape.fate(op, full, out)?;
        let images = shape.narrow(full, &mut out.cells);
        last = Some(images);
        if let Some(table) = recorder.as_deref_mut() {
            record(table, schema, out, images, &mut key);
        }
        if seen <= to.skip {
            skipped = (seen == to.skip).then_some(images);
            return Ok(());
        }
        if to.verdict == Verdict::Drop {
            return Ok(());
        }
        let Some(fate) = fate else { return Ok(()) };
        // A row that enters the filter is an insert: what its image leaves out was never delivered.
        let judged = match (fate.after, fate.op) {
            (false, _) => Deliver::AsItIs,
            (true, Op::Create) => partials.judge(schema, out, RowsOp::Insert, images),
            (true, _) => partials.judge(schema, out, rows.op, images),
        };
        let (op, after) = match judged {
            Deliver::AsItIs => (fate.op, if fate.after { images.after } else { NO_ROW }),
            Deliver::Deletion => (Op::Delete, NO_ROW),
            Deliver::Nothing => return Ok(()),
        };
        out.events.push(EventHead {
            table,
            transaction: to.transaction,
            before: if fate.before { images.before } else { NO_ROW },
            after,
            row: (to.before + seen - 1 - to.first) as u32,
            op,
            snapshot: SnapshotMark::False,
            pos: to.pos,
            ts_us: to.ts_us,
        });
        Ok(())
    })?;
    let mut hash = |images: RowImages| {
        let at = if images.after == NO_ROW { images.before } else { images.after };
        key.clear();
        key_bytes(&mut key, schema, &builder.cells[at as usize..][..schema.width()], builder);
        stable_hash(&key)
    };
    Ok(Delivered { rows: seen, key: last.map(&mut hash), skipped: skipped.map(&mut hash) })
}

/// Step 1 of a window, for one row: both images' keys.
fn record(table: &mut Table, schema: &TableSchema, out: &BatchBuilder, images: RowImages, key: &mut Vec<u8>) {
    for at in [images.before, images.after] {
        if at == NO_ROW {
            continue;
        }
        let row = &out.cells[at as usize..][..schema.width()];
        // Of an image before, the key is enough. Without a whole image after, the chunk's row would be dropped for an event that
        // does not tell it.
        let enough = match at == images.after || schema.key.is_empty() {
            true => is_whole(schema, row),
            false => schema.key.iter().all(|i| row[*i as usize] != Cell::Unchanged),
        };
        if !enough {
            table.recording.discard("an event told a row in part");
            return;
        }
        key.clear();
        key_bytes(key, schema, row, out);
        table.touch(key);
    }
}
