//! One table that is being read: its ranges, how large its chunks are, how far it is.
//!
//! A table is read from its beginning. While there is more than one reader, each cuts a range of [`CHUNKS_OF_A_RANGE`] chunks from the front of
//! what is left, and reads it chunk by chunk. A cut is a key that the server gave, so the ranges are apart and together the
//! table, in the server's own order, whatever the key is made of; and what has to be remembered is a handful of keys.

use crate::config::SnapshotConfig;
use crate::position::Resend;
use crate::snapshot::against::{Against, Candidates, Search};
use crate::snapshot::bounds::Stored;
use crate::snapshot::chunk::Chunk;
use crate::snapshot::plan::{Filter, Plan};
use crate::snapshot::progress::{RangeNote, TableNote, schema_note, schema_text, table_note};
use crate::snapshot::request::{Far, Request, Rows};
use crate::snapshot::window::Recording;
use crate::value::Value;
use caudal_core::{Error, Phase, Progress, Result, TableId};
use caudal_index::KeyHash;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows of a table's first chunk: small, for nothing is known of the server's speed yet.
const FIRST_ROWS: u32 = 2_000;
/// A chunk never gets smaller than this.
pub(crate) const LEAST_ROWS: u32 = 50;
/// Chunks of a range that one reader cuts for itself.
const CHUNKS_OF_A_RANGE: u64 = 16;
/// Keys of deletes since a re-read began that are remembered.
const MOST_TOUCHED: usize = 200_000;

/// A range of keys that one reader reads.
pub(crate) struct Range {
    pub(crate) number: u64,
    pub(crate) from: Option<Vec<Value>>,
    pub(crate) to: Option<Vec<Value>>,
    pub(crate) busy: bool,
}

/// What is not cut into ranges yet.
pub(crate) enum Front {
    /// Everything behind this key.
    At(Option<Vec<Value>>),
    /// A reader looks where to cut.
    Cutting(Option<Vec<Value>>),
    /// Nothing.
    End,
}

/// Where a re-read stands; a first read is always at `Rows`.
pub(crate) enum Step {
    /// Waits until all that was delivered before it began is in the log.
    Durable(u64),
    /// The index can be built.
    Index,
    /// It is being built.
    Indexing,
    /// Chunks.
    Rows,
    /// Keys that no chunk brought.
    Search(Option<Search>),
    /// They are being looked for, or asked for.
    Searching,
    /// These were found.
    Check(Box<Candidates>, Option<Search>),
    /// Nothing is left.
    Done,
}

/// A table that is being read.
pub(crate) struct Table {
    pub(crate) id: TableId,
    /// None: it is read for the first time.
    pub(crate) request: Option<Request>,
    /// Requests whose values `request` holds too.
    pub(crate) others: Vec<Request>,
    /// Of a re-read that goes on after a restart: the name of what it had met.
    pub(crate) resumed: Option<String>,
    /// Whether how far it is was noted.
    pub(crate) noted: bool,
    pub(crate) plan: Option<Arc<Plan>>,
    pub(crate) not_before: Option<Instant>,
    pub(crate) step: Step,
    pub(crate) front: Front,
    pub(crate) ranges: Vec<Range>,
    pub(crate) recording: Recording,
    pub(crate) against: Option<Against>,
    /// Keys that the stream touched since a re-read began.
    pub(crate) touched: HashSet<KeyHash>,
    /// How often the smallest chunk took too long.
    pub(crate) slow: u32,
    /// Whether a batch told its shape.
    pub(crate) told: bool,
    pub(crate) rows: u32,
    pub(crate) read: u64,
    pub(crate) delivered: u64,
    pub(crate) deleted: u64,
    read_before: u64,
    /// What the rows read by this process take in memory.
    pub(crate) bytes: u64,
    started: Instant,
    numbers: u64,
}

impl Table {
    /// Goes on where `note` ends.
    ///
    /// # Errors
    /// `Data` if a stored place cannot be read.
    pub(crate) fn first(id: TableId, note: &TableNote, most: u32) -> Result<Self> {
        let damaged = || Error::data(format!("{id}: the stored progress of the snapshot is damaged"));
        let key = |from: &Option<Vec<Stored>>| match from {
            Some(key) => {
                key.iter().map(Stored::to_value).collect::<Option<Vec<_>>>().map(Some).ok_or_else(damaged)
            }
            None => Ok(None),
        };
        let front = if note.cut { Front::End } else { Front::At(key(&note.from)?) };
        let mut table = Self { front, ..Self::new(id.clone(), most) };
        for range in &note.ranges {
            table.add_range(key(&range.from)?, key(&range.to)?);
        }
        (table.read, table.delivered, table.read_before) = (note.rows, note.rows, note.rows);
        Ok(table)
    }

    /// Reads again what a request asks for, from where it stood; `others` are those that it has taken in.
    pub(crate) fn again(mut request: Request, others: Vec<Request>, most: u32, step: Step) -> Self {
        // Without a log there is nothing that it was reconciled with.
        let far = request.far.take().filter(|_| !matches!(step, Step::Rows));
        let table = far.and_then(|far| Self::goes_on(&request, far, most));
        let table = table.unwrap_or_else(|| Self::new(request.table.clone(), most));
        Self { step, others, request: Some(request), ..table }
    }

    /// None if what was stored cannot be read.
    fn goes_on(request: &Request, far: Far, most: u32) -> Option<Self> {
        let (read, delivered, deleted) = far.rows;
        let note = TableNote { from: far.from, ranges: far.ranges, cut: far.cut, ..TableNote::default() };
        let table = Self::first(request.table.clone(), &note, most).ok()?;
        Some(Self {
            read,
            delivered,
            deleted,
            read_before: read,
            resumed: Some(far.met),
            noted: true,
            ..table
        })
    }

    /// What the topic holds is known. A re-read that was to go on begins anew if what it had met is not.
    pub(crate) fn indexed(&mut self, against: Against, goes_on: bool) {
        if self.resumed.is_some() && !goes_on {
            tracing::info!(table = %self.id, "re-read: what was read before the restart is not known any more: it begins anew");
            self.anew();
        }
        let leftover = against.marks.unset() > 0;
        self.step = match (self.is_read(), leftover) {
            (false, _) => Step::Rows,
            (true, true) => Step::Search(None),
            (true, false) => Step::Done,
        };
        self.against = Some(against);
    }

    /// Reads from the beginning after all.
    pub(crate) fn anew(&mut self) {
        (self.front, self.resumed) = (Front::At(None), None);
        self.ranges.clear();
        (self.read, self.delivered, self.deleted, self.read_before) = (0, 0, 0, 0);
        self.bytes = 0;
    }

    /// The names of the notes of what is asked for.
    pub(crate) fn request_notes(&self) -> impl Iterator<Item = String> {
        self.request.iter().chain(&self.others).map(Request::note)
    }

    /// How far a re-read is; none if a restart must begin it anew.
    pub(crate) fn far(&self) -> Option<Far> {
        let met = self.against.as_ref()?.met.name()?.to_owned();
        if !self.others.is_empty() {
            return None;
        }
        let TableNote { from, ranges, .. } = self.note(false, None);
        let rows = (self.read, self.delivered, self.deleted);
        Some(Far { from, ranges, cut: matches!(self.front, Front::End), rows, met })
    }

    fn new(id: TableId, most: u32) -> Self {
        Self {
            id,
            request: None,
            others: Vec::new(),
            resumed: None,
            noted: false,
            plan: None,
            not_before: None,
            step: Step::Rows,
            front: Front::At(None),
            ranges: Vec::new(),
            recording: Recording::default(),
            against: None,
            touched: HashSet::new(),
            slow: 0,
            told: false,
            rows: FIRST_ROWS.min(most),
            read: 0,
            delivered: 0,
            deleted: 0,
            read_before: 0,
            bytes: 0,
            started: Instant::now(),
            numbers: 0,
        }
    }

    /// Adds a range and gives its number.
    pub(crate) fn add_range(&mut self, from: Option<Vec<Value>>, to: Option<Vec<Value>>) -> u64 {
        self.numbers += 1;
        self.ranges.push(Range { number: self.numbers, from, to, busy: false });
        self.numbers
    }

    /// The range of this number.
    pub(crate) fn range(&mut self, number: u64) -> Option<&mut Range> {
        self.ranges.iter_mut().find(|r| r.number == number)
    }

    /// The filter of the request, if there is one. None inside: its values cannot be compared on this table.
    pub(crate) fn filter(&self, plan: &Plan) -> Option<Option<Filter>> {
        Some(match self.request.as_ref().map(|r| &r.rows) {
            None | Some(Rows::All) => None,
            Some(Rows::Where { condition }) => {
                Some(Filter { condition: condition.clone(), parameters: Vec::new() })
            }
            Some(Rows::Matching { columns, values }) => {
                let parts = plan.parts_of(columns)?;
                Some(Filter {
                    condition: crate::snapshot::bounds::one_of(&parts, values.len()),
                    parameters: values.iter().flatten().filter_map(Stored::to_value).collect(),
                })
            }
        })
    }

    /// Rows that a reader cuts off for itself; none if the rest is not worth it.
    pub(crate) fn cut_rows(&self, readers: u32) -> Option<u64> {
        let plan = self.plan.as_ref()?;
        let whole = self.request.as_ref().is_none_or(|r| r.rows == Rows::All);
        let range = u64::from(self.rows) * CHUNKS_OF_A_RANGE;
        (readers > 1 && whole && plan.estimated_rows.saturating_sub(self.read) > 2 * range).then_some(range)
    }

    /// Most rows of the next chunk.
    pub(crate) fn chunk_rows(&self, plan: &Plan, bytes: u64) -> u32 {
        let fit = (bytes / plan.row_bytes).clamp(u64::from(LEAST_ROWS), u64::from(u32::MAX));
        self.rows.min(fit as u32)
    }

    /// The bound on a chunk's SELECT: more only if not even the smallest chunk can be read within it.
    pub(crate) fn limit(&self, config: &SnapshotConfig) -> Duration {
        config.chunk_time.get() * 2u32.pow(self.slow.min(8))
    }

    /// A chunk took longer than its limit.
    pub(crate) fn too_slow(&mut self) {
        self.slow += u32::from(self.rows <= LEAST_ROWS);
        self.rows = (self.rows / 4).max(LEAST_ROWS);
        tracing::info!(table = %self.id, rows = self.rows, "snapshot: the chunk took too long, asking for fewer rows");
    }

    /// Chunks grow towards half of the time they may take, and shrink as fast.
    pub(crate) fn adapt(&mut self, chunk: &Chunk, asked: u32, read: u64, config: &SnapshotConfig) {
        let most = config.chunk_rows.max(LEAST_ROWS);
        if read < u64::from(asked) / 2 && !chunk.end {
            // Cut short by bytes: the time says little about rows.
            self.rows = (read as u32).clamp(LEAST_ROWS, most);
            return;
        }
        if chunk.end {
            return;
        }
        let target = config.chunk_time.get().as_secs_f64() / 2.0;
        let factor = (target / chunk.took.as_secs_f64().max(0.001)).clamp(0.25, 4.0);
        self.rows = ((f64::from(self.rows) * factor) as u32).clamp(LEAST_ROWS, most);
        self.slow = 0;
    }

    /// Step 1 of a window: the stream touched a key.
    pub(crate) fn touch(&mut self, key: &[u8]) {
        self.recording.touch(key);
        if self.request.is_some() && self.touched.len() < MOST_TOUCHED {
            self.touched.insert(caudal_index::key_hash(key));
        }
    }

    /// Whether all its ranges are read.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.front, Front::End) && self.ranges.is_empty()
    }

    /// The notes that go with a batch of it.
    pub(crate) fn notes(&mut self, done: bool, upto: Option<Resend>) -> Vec<(String, Option<String>)> {
        let mut notes = Vec::new();
        match &self.request {
            None => notes.push((table_note(&self.id), Some(self.note(done, upto).text()))),
            Some(_) if done => notes.extend(self.request_notes().map(|note| (note, None))),
            Some(_) => {}
        }
        if let (false, Some(plan)) = (self.told, &self.plan) {
            let schema = schema_text(plan.shape.full(), &plan.shape.excluded());
            notes.push((schema_note(&self.id), Some(schema)));
            self.told = true;
        }
        notes
    }

    fn note(&self, done: bool, upto: Option<Resend>) -> TableNote {
        let stored = |key: &Option<Vec<Value>>| {
            key.as_ref().map(|k| k.iter().map(Stored::from_value).collect::<Vec<_>>())
        };
        let base = TableNote { v: 1, done, rows: self.delivered, upto, ..TableNote::default() };
        if done {
            return base;
        }
        let range = |r: &Range| RangeNote { from: stored(&r.from), to: stored(&r.to) };
        let from = match &self.front {
            Front::At(key) | Front::Cutting(key) => stored(key),
            Front::End => None,
        };
        let cut = matches!(self.front, Front::End) && !self.ranges.is_empty();
        TableNote { from, cut, ranges: self.ranges.iter().map(range).collect(), ..base }
    }

    /// For `/status`, metrics and the log.
    pub(crate) fn progress(&self, paused: Option<Phase>) -> Progress {
        let estimated = self.plan.as_ref().map_or(0, |p| p.estimated_rows).max(self.read);
        let rate = self.rate();
        let phase = match &self.step {
            Step::Done => Phase::Done,
            Step::Durable(_) | Step::Index | Step::Indexing => Phase::Comparing,
            _ => paused.unwrap_or(Phase::Reading),
        };
        Progress {
            id: self.request.as_ref().map(|r| r.asked_by.clone()).unwrap_or_default(),
            reason: self.request.as_ref().map_or("snapshot", |r| r.reason.as_str()).to_owned(),
            table: self.id.to_string(),
            phase,
            rows: self.read,
            delivered: self.delivered,
            deleted: self.deleted,
            bytes: self.bytes,
            estimated_rows: estimated,
            rows_per_second: rate,
            seconds_left: match phase {
                Phase::Done => Some(0),
                _ => (rate > 0).then(|| (estimated - self.read) / rate),
            },
        }
    }

    fn rate(&self) -> u64 {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        (self.read.saturating_sub(self.read_before) as f64 / seconds) as u64
    }
}
