//! Rows that were read become batches: without those that the stream touched, and with their marks.

use crate::canonical::key_bytes;
use crate::snapshot::against::{Candidates, Search};
use crate::snapshot::chunk::{self, Chunk};
use crate::snapshot::plan::Plan;
use crate::snapshot::request::Rows;
use crate::snapshot::run::{Emission, Snapshot};
use crate::snapshot::table::{Step, Table};
use crate::snapshot::whole::Exact;
use caudal_core::batch::NO_ROW;
use caudal_core::{BatchBuilder, Error, EventHead, Op, Result, SnapshotMark};
use std::collections::HashSet;

/// Takes the rows out whose key was touched since the window opened.
pub(crate) fn drop_touched(chunk: &mut Chunk, table: &Table, window: u64) {
    if table.recording.is_untouched() {
        return;
    }
    let builder = &mut chunk.builder;
    let mut events = std::mem::take(&mut builder.events);
    let mut key = Vec::new();
    let width = chunk.plan.schema.width();
    events.retain(|e| {
        key.clear();
        let row = &builder.cells[e.after as usize..][..width];
        key_bytes(&mut key, &chunk.plan.schema, row, builder);
        !table.recording.touched(window, &key)
    });
    builder.events = events;
}

/// A range is read up to the chunk's end, or altogether.
pub(crate) fn advance(table: &mut Table, number: u64, chunk: &mut Chunk) {
    if chunk.end {
        table.ranges.retain(|r| r.number != number);
    } else if let Some(range) = table.range(number) {
        range.from = chunk.last.take().or_else(|| range.from.take());
        range.busy = false;
    }
}

/// First and last rows, as far as they are in a batch's edges: rows that the stream touched carry no mark. With several readers the
/// last batch of a table is not its last range.
pub(crate) fn mark(
    builder: &mut BatchBuilder,
    from: usize,
    (first, first_of_all): (bool, bool),
    (last, last_of_all): (bool, bool),
) {
    let events = &mut builder.events[from..];
    if first && let Some(event) = events.first_mut() {
        event.snapshot = if first_of_all { SnapshotMark::First } else { SnapshotMark::FirstInDataCollection };
    }
    if last && let Some(event) = events.last_mut() {
        event.snapshot = if last_of_all { SnapshotMark::Last } else { SnapshotMark::LastInDataCollection };
    }
}

/// Rows that were read again.
pub(crate) fn mark_again(builder: &mut BatchBuilder) {
    builder.events.iter_mut().for_each(|e| e.snapshot = SnapshotMark::Incremental);
}

/// Candidates were asked for: those that are not there are deleted, those that are there after all are handed on if they differ.
pub(crate) fn checked(
    snapshot: &mut Snapshot,
    serial: u64,
    window: u64,
    (mut candidates, search): (Candidates, Option<Search>),
    mut chunk: Chunk,
) -> Vec<Emission> {
    let Some(table) = snapshot.table(serial) else { return Vec::new() };
    table.step = Step::Search(search);
    drop_touched(&mut chunk, table, window);
    let there: HashSet<_> = chunk.keys.iter().copied().collect();
    let mut number = 0..candidates.keys.len();
    candidates.builder.events.retain(|_| {
        number.next().is_some_and(|i| {
            !there.contains(&candidates.keys[i])
                && !table.recording.touched(window, &candidates.bytes[i])
                && !table.touched.contains(&candidates.keys[i])
        })
    });
    // Rows that do not meet the request's condition are left alone.
    if table.request.as_ref().is_some_and(|r| matches!(r.rows, Rows::Where { .. })) {
        chunk.builder.events.clear();
    }
    mark_again(&mut chunk.builder);
    table.deleted += candidates.builder.events.len() as u64;
    table.delivered += chunk.builder.events.len() as u64;
    [chunk.builder, candidates.builder]
        .into_iter()
        .filter(|builder| !builder.events.is_empty())
        .map(|builder| Emission { builder, notes: Vec::new() })
        .collect()
}

impl Snapshot {
    /// Whether rows of a piece are there to be taken.
    pub(crate) fn has_piece(&self) -> bool {
        self.piece.is_some()
    }

    /// The next rows of the piece, about `bytes` of them.
    ///
    /// # Errors
    /// `Transient` if spooled rows cannot be read, or are not of the table's shape.
    pub(crate) async fn take_piece(&mut self, bytes: usize) -> Result<Option<Emission>> {
        let Some((serial, mut piece)) = self.piece.take() else { return Ok(None) };
        let (any_row, last_of_all) = (self.any_row, self.is_last());
        let Some(table) = self.table(serial) else { return Ok(None) };
        let mut builder = BatchBuilder::default();
        if !table.told && (table.delivered > 0 || table.request.is_some()) {
            // An earlier attempt, or an earlier reading, was handed on.
            (table.delivered, table.read) = (0, 0);
            truncate(&mut builder, &piece.plan);
        }
        let before = builder.events.len();
        while builder.size() < bytes
            && let Some(values) = piece.spool.next().await?
        {
            chunk::append(&values, &piece.plan, &mut builder).ok_or_else(|| {
                Error::transient(format!("{}: the table was changed while it was read", table.id))
            })?;
        }
        let rows = (builder.events.len() - before) as u64;
        let end = piece.spool.left() == 0;
        let at = end.then(|| piece.at.clone());
        mark(&mut builder, before, (table.delivered == 0, !any_row), (end, last_of_all));
        if table.request.is_some() {
            mark_again(&mut builder);
        }
        table.delivered += rows;
        table.read += rows;
        table.bytes += builder.size() as u64;
        let mut notes = table.notes(end, at.as_ref().map(Exact::stored));
        self.keep_waiting(&mut notes);
        self.any_row |= rows > 0;
        match at {
            Some(at) => self.piece_done(serial, at),
            None => self.piece = Some((serial, piece)),
        }
        self.publish_now_and_then();
        Ok(Some(Emission { builder, notes }))
    }
}

fn truncate(builder: &mut BatchBuilder, plan: &Plan) {
    let table = builder.table(&plan.schema);
    builder.events.push(EventHead {
        table,
        transaction: 0,
        before: NO_ROW,
        after: NO_ROW,
        row: 0,
        op: Op::Truncate,
        snapshot: SnapshotMark::True,
        pos: 0,
        ts_us: 0,
    });
}
