//! What came of it: rows that are handed on, tables that are done.

use super::{AGAIN, Brought, Emission, For, Open, Snapshot};
use crate::snapshot::chunk::{Chunk, Cut, Read};
use crate::snapshot::hand_on;
use crate::snapshot::progress::{TableNote, table_note};
use crate::snapshot::request::{Far, Request};
use crate::snapshot::table::{Front, Step, Table};
use crate::snapshot::whole::Exact;
use crate::value::Value;
use caudal_core::{BatchBuilder, Error, Phase, Result};
use std::sync::Arc;
use std::time::Instant;

impl Snapshot {
    /// Waits for what runs beside the reader; for ever if nothing does. Cancel-safe.
    pub(crate) async fn finished(&mut self) -> Result<()> {
        let Some(joined) = self.tasks.join_next().await else { return std::future::pending().await };
        let (access, brought) = joined.map_err(|e| Error::bug("read a chunk").because(e))??;
        self.idle.extend(access);
        match brought {
            Brought::Chunk(open, read) => self.came(open, read?),
            Brought::Cut(serial, from, cut) => self.was_cut(serial, from, cut),
            Brought::Piece(serial, piece) => self.piece = Some((serial, *piece)),
            Brought::Index(serial, against, goes_on) => {
                if let Some(table) = self.table(serial) {
                    table.indexed(against, goes_on);
                }
            }
            Brought::Found(serial, search, against, found) => {
                if let Some(table) = self.table(serial) {
                    table.against = Some(against);
                    table.step = match found {
                        Some(found) => Step::Check(Box::new(found), Some(*search)),
                        None => Step::Done,
                    };
                }
            }
            Brought::Load(load) => {
                if self.throttle.told(load, Instant::now()) {
                    tracing::info!(
                        source = self.config.name,
                        threads = load.threads,
                        lag = load.lag,
                        "snapshot: the source is busy or lags, waiting"
                    );
                }
                self.publish();
            }
        }
        Ok(())
    }

    pub(crate) fn table(&mut self, serial: u64) -> Option<&mut Table> {
        self.tables.iter_mut().find(|(s, _)| *s == serial).map(|(_, t)| t)
    }

    fn was_cut(&mut self, serial: u64, from: Option<Vec<Value>>, cut: Cut) {
        let Some(table) = self.table(serial) else { return };
        match cut {
            Cut::At(key) => {
                table.add_range(from, Some(key.clone()));
                table.front = Front::At(Some(key));
            }
            Cut::Nowhere | Cut::Unknown => {
                table.add_range(from, None);
                table.front = Front::End;
            }
        }
    }

    fn came(&mut self, open: Open, read: Read) {
        match read {
            Read::Chunk(chunk) => self.ready.push_back((open, chunk)),
            Read::TooSlow => {
                if let Some(table) = self.table(open.serial) {
                    table.too_slow();
                }
                self.void(open);
            }
            Read::Changed(why) => {
                if let Some(table) = self.table(open.serial) {
                    tracing::info!(table = %table.id, why, "snapshot: the chunk is read again");
                    table.plan = None;
                }
                self.void(open);
            }
        }
    }

    /// Closes a window whose chunk counts for nothing: it is read again after a while.
    fn void(&mut self, open: Open) {
        let Some(table) = self.table(open.serial) else { return };
        table.recording.close(open.window);
        table.not_before = Some(Instant::now() + AGAIN);
        match open.what {
            For::Range(number, _) => {
                if let Some(range) = table.range(number) {
                    range.busy = false;
                }
            }
            For::Check(candidates, search) => table.step = Step::Check(candidates, search),
        }
    }

    /// Whether a chunk waits to be taken.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Step 4: closes a window and gives the rows that were not touched, if there are any. To be called only between two source
    /// transactions, when everything that the stream delivered before is handed on.
    pub(crate) fn take(&mut self) -> Vec<Emission> {
        let Some((open, chunk)) = self.ready.pop_front() else { return Vec::new() };
        let Some(table) = self.table(open.serial) else { return Vec::new() };
        if let Some(why) = table.recording.broken(open.window) {
            tracing::info!(table = %table.id, why, "snapshot: the chunk is read again");
            // What is planned anew was told so.
            self.void(open);
            return Vec::new();
        }
        let emissions = match open.what {
            For::Range(number, asked) => self.hand_on_chunk(open.serial, open.window, (number, asked), chunk),
            For::Check(candidates, search) => {
                hand_on::checked(self, open.serial, open.window, (*candidates, search), *chunk)
            }
        };
        if let Some(table) = self.table(open.serial) {
            table.recording.close(open.window);
        }
        self.publish_now_and_then();
        emissions
    }

    fn hand_on_chunk(
        &mut self,
        serial: u64,
        window: u64,
        (number, asked): (u64, u32),
        mut chunk: Box<Chunk>,
    ) -> Vec<Emission> {
        let (config, any_row, last) = (Arc::clone(&self.config), self.any_row, self.is_last());
        let Some(table) = self.table(serial) else { return Vec::new() };
        let read = chunk.rows;
        hand_on::drop_touched(&mut chunk, table, window);
        table.adapt(&chunk, asked, read, &config.snapshot);
        hand_on::advance(table, number, &mut chunk);
        if let Some(against) = &mut table.against {
            chunk.met.iter().for_each(|&at| against.marks.set(at));
        }
        let all = table.is_read();
        let first = table.delivered == 0;
        if table.request.is_some() {
            hand_on::mark_again(&mut chunk.builder);
        } else {
            hand_on::mark(&mut chunk.builder, 0, (first, !any_row), (all, last));
        }
        table.read += read;
        table.bytes += chunk.bytes;
        table.delivered += chunk.builder.events.len() as u64;
        let leftover = table.against.as_ref().is_some_and(|a| a.marks.unset() > 0);
        if all && table.request.is_some() {
            table.step = if leftover { Step::Search(None) } else { Step::Done };
        }
        let done = all && table.request.is_none();
        let far = table.far().filter(|_| !all || (leftover && table.noted));
        let mut notes = table.notes(done, None);
        notes.extend(self.far_note(serial, far));
        let any = !chunk.builder.events.is_empty();
        self.any_row |= any;
        if done {
            self.finish(serial, Phase::Done);
        }
        if !any && notes.is_empty() {
            return Vec::new();
        }
        vec![Emission { builder: chunk.builder, notes }]
    }

    /// The note that says how far a re-read is. Where the same was asked for again meanwhile, that one has the note: after a restart all
    /// is read anew.
    fn far_note(&mut self, serial: u64, far: Option<Far>) -> Option<(String, Option<String>)> {
        let request = self.table(serial)?.request.clone()?;
        let far = far.filter(|_| !self.requests.iter().any(|waiting| waiting.id == request.id))?;
        self.table(serial)?.noted = true;
        Some((request.note(), Some(Request { far: Some(far), ..request }.text())))
    }

    /// A re-read has ended; the same one may have been asked for again meanwhile, under the same note: that stays.
    pub(crate) fn keep_waiting(&self, notes: &mut [(String, Option<String>)]) {
        for (name, text) in notes.iter_mut().filter(|(_, text)| text.is_none()) {
            *text = self.requests.iter().find(|r| r.note() == *name).map(Request::text);
        }
    }

    /// A table that does not exist any more is done.
    pub(super) fn gone(&mut self, i: usize) -> Emission {
        let serial = self.tables[i].0;
        let table = &mut self.tables[i].1;
        tracing::info!(table = %table.id, "snapshot: the table is gone");
        let mut notes = match &table.request {
            Some(_) => table.request_notes().map(|note| (note, None)).collect(),
            None => {
                let note = TableNote { v: 1, done: true, rows: table.delivered, ..TableNote::default() };
                vec![(table_note(&table.id), Some(note.text()))]
            }
        };
        self.keep_waiting(&mut notes);
        self.finish(serial, Phase::Refused);
        Emission { builder: BatchBuilder::default(), notes }
    }

    pub(super) fn done(&mut self, i: usize) -> Emission {
        let serial = self.tables[i].0;
        let mut notes = self.tables[i].1.notes(true, None);
        self.keep_waiting(&mut notes);
        self.finish(serial, Phase::Done);
        Emission { builder: BatchBuilder::default(), notes }
    }

    /// A table's piece was handed on to its end.
    pub(crate) fn piece_done(&mut self, serial: u64, at: Exact) {
        if let Some(table) = self.table(serial) {
            let id = table.id.clone();
            self.wholes.after(id, at);
        }
        self.piece = None;
        self.finish(serial, Phase::Done);
    }
}
