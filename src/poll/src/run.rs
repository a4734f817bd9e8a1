//! One run of one table, page by page.

use crate::content::Hasher;
use crate::ledger::Ledger;
use crate::note::Record;
use crate::shapes::{Held, Shapes};
use crate::{Job, Look, Mode, Page, Request, Session, Window};
use caudal_core::batch::NO_ROW;
use caudal_core::{
    BatchBuilder, Cell, Error, EventHead, Fault, Op, PollCost, Result, Slice, SnapshotMark, TableSchema,
    Transaction, Written,
};
use caudal_index::{Found, KeyHash, Marks, content_hash};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// A run that goes on.
pub(crate) struct Run {
    job: Arc<Job>,
    /// Held until its last batch was handed on.
    shape: Arc<Held>,
    planned: Timestamp,
    /// What the last run left.
    before: Record,
    record: Record,
    began: Instant,
    /// Where the next page begins.
    after: Option<String>,
    /// Which known keys a refresh met.
    met: Option<Marks>,
    /// Known keys whose content this run has changed: what the index says of them is over.
    touched: Marks,
    /// The system said that rows are missing.
    incomplete: bool,
    /// Pages so far, by content.
    pages: HashSet<u64>,
    /// Nothing was known when it began: rows are read, not created.
    first: bool,
    /// Nothing goes out and nothing is remembered.
    dry: bool,
    /// It has told of keys that were not known.
    created: bool,
}

/// The deletes of a run take as much memory as so many pages at most.
const PAGES: usize = 8;

/// How often a run may begin anew because rows have another shape than at first.
pub(crate) const RESHAPES: u32 = 16;

/// What a step gives.
pub(crate) struct Step {
    /// Events to hand on.
    pub(crate) rows: BatchBuilder,
    /// The run's record, if this was its last page.
    pub(crate) record: Option<Record>,
    /// The rows' shape.
    pub(crate) shape: Arc<Held>,
    /// The run must begin anew.
    pub(crate) anew: Option<Anew>,
}

/// Why a run begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anew {
    /// Rows have another shape.
    Shape,
    /// The place that they were read from is gone.
    Lost,
}

impl Run {
    /// Begins.
    ///
    /// # Errors
    /// As the session says; `Config` if the table cannot be polled.
    pub(crate) async fn begin(
        job: &Arc<Job>,
        before: &Record,
        (planned, dry): (Timestamp, bool),
        session: &mut dyn Session,
        (ledger, shapes): (&mut Ledger, &Shapes),
    ) -> Result<Self> {
        ledger.begin();
        let started_us = session.now_us().await?;
        let look = Look { table: &job.table, known: None, window: window(&job.mode, before), planned };
        let timeout = tokio::time::timeout(job.timeout, shapes.hold(session, &look)).await;
        let shape = timeout.map_err(|_| late(job))??;
        if shape.schema.key.is_empty() {
            return Err(Error::config(format!(
                "{} has no key: what changed in it cannot be told",
                job.table
            ))
            .hint("give it a primary key, or name its key in `keys`"));
        }
        let generation = shape.schema.generation;
        let rekeyed = ![0, generation].contains(&before.generation);
        let before = match rekeyed {
            // The log has no row under it.
            true => {
                tracing::warn!(
                    table = job.name(),
                    "poll: the table has another key: all of it is read under that"
                );
                ledger.forget();
                Record { run: before.run, ..Record::default() }
            }
            false => before.clone(),
        };
        let met = (job.mode.is_whole() && !job.partial).then(|| Marks::new(ledger.len()));
        let record = Record {
            run: before.run + 1,
            indexed: before.indexed,
            generation,
            watermark_before: before.watermark.clone(),
            watermark: before.watermark.clone(),
            complete_us: before.complete_us,
            planned_us: planned.as_microsecond(),
            started_us,
            ..Record::default()
        };
        Ok(Self {
            // What was empty at an earlier run gets creates; what was lost is read again.
            first: ledger.index.is_none() && (before.complete_us == 0 || before.indexed > 0),
            job: Arc::clone(job),
            shape: Arc::new(shape),
            planned,
            before,
            record,
            began: Instant::now(),
            after: None,
            met,
            touched: Marks::new(ledger.len()),
            incomplete: false,
            pages: HashSet::new(),
            dry,
            created: false,
        })
    }

    /// Reads a page and compares it. One that failed may be tried again.
    ///
    /// # Errors
    /// As the session says; `Data` if what came cannot be the table.
    pub(crate) async fn step(
        &mut self,
        session: &mut dyn Session,
        ledger: &mut Ledger,
        written: Option<&Arc<dyn Written>>,
    ) -> Result<Step> {
        let record = self.record.clone();
        let step = self.try_step(session, ledger, written).await;
        if step.is_err() {
            self.record = record;
        }
        step
    }

    async fn try_step(
        &mut self,
        session: &mut dyn Session,
        ledger: &mut Ledger,
        written: Option<&Arc<dyn Written>>,
    ) -> Result<Step> {
        let shape = Arc::clone(&self.shape);
        let page = self.page(session).await?;
        let anew = page.reshaped.then_some(Anew::Shape).or(page.lost.then_some(Anew::Lost));
        if anew.is_some() {
            return Ok(Step { rows: BatchBuilder::default(), record: None, shape, anew });
        }
        let Page { rows, next, watermark, rejected, incomplete, findings, cost, .. } = page;
        self.record.pay(cost);
        self.incomplete |= incomplete;
        self.record.bytes += rows.size() as u64;
        self.record.rows += rejected;
        self.record.rejected += rejected;
        findings.into_iter().for_each(|finding| self.record.find(finding));
        let (mut rows, content) = self.compare(rows, ledger)?;
        if watermark.is_some() {
            self.record.watermark = watermark;
        }
        let repeats = content.is_some_and(|content| self.pages.contains(&content));
        if repeats || (next.is_some() && next == self.after) {
            return Err(Error::data(format!("{}: the same page came twice", self.job.table))
                .hint("the system repeats its answer: look at its paging, and at what it is asked with"));
        }
        let mut record = None;
        if next.is_none() {
            match self.vanished(&mut rows, ledger, written).await {
                // The page is among the changes already: what it asks again may be other rows.
                Err(e) if e.fault() == Fault::Transient && !self.dry => {
                    tracing::info!(table = self.job.name(), error = %e, "poll: the run begins anew");
                    let rows = BatchBuilder::default();
                    return Ok(Step { rows, record: None, shape, anew: Some(Anew::Lost) });
                }
                vanished => vanished?,
            }
            record = Some(self.end());
        }
        self.after = next;
        self.pages.extend(content);
        for event in &mut rows.events {
            event.ts_us = self.record.started_us;
        }
        Ok(Step { rows, record, shape, anew: None })
    }

    async fn page(&self, session: &mut dyn Session) -> Result<Page> {
        let request = Request {
            schema: &self.shape.schema,
            window: window(&self.job.mode, &self.before),
            after: self.after.as_deref(),
            rows: self.job.page_rows,
            bytes: self.job.page_bytes,
            planned: self.planned,
        };
        let page = tokio::time::timeout(self.job.timeout, session.page(&request)).await;
        page.map_err(|_| late(&self.job))?
    }

    /// Leaves the rows that the index does not know as they are. Of several rows of a key the last one counts. Gives the page's content, too,
    /// unless it is empty.
    fn compare(
        &mut self,
        mut rows: BatchBuilder,
        ledger: &mut Ledger,
    ) -> Result<(BatchBuilder, Option<u64>)> {
        let schema = Arc::clone(&self.shape.schema);
        let events = std::mem::take(&mut rows.events);
        self.record.rows += events.len() as u64;
        let mut hasher = Hasher::default();
        let mut last: HashMap<KeyHash, usize> = HashMap::with_capacity(events.len());
        let mut hashed = Vec::with_capacity(events.len());
        for (at, event) in events.iter().enumerate() {
            let is_gone = event.after == NO_ROW;
            let row = row(&rows, if is_gone { event.before } else { event.after }, &schema)?;
            let bytes = |slice: Slice| rows.bytes(slice);
            let Some(key) = hasher.key(&schema, row, bytes) else {
                self.record.rejected += 1;
                self.record.find("rows without a key (NULL, or not there) are not taken".to_owned());
                continue;
            };
            last.insert(key, at);
            hashed.push((at, key, (!is_gone).then(|| hasher.row(&schema, row, bytes))));
        }
        let hashes = |(_, key, content): &(usize, KeyHash, Option<u64>)| {
            let content = content.unwrap_or_default().to_le_bytes();
            key.to_le_bytes().into_iter().chain(content)
        };
        let content: Vec<u8> = hashed.iter().flat_map(hashes).collect();
        let content = (!content.is_empty()).then(|| content_hash(&content));
        hashed.retain(|(at, key, _)| last.get(key) == Some(at));
        let keys: Vec<KeyHash> = hashed.iter().map(|(_, key, _)| *key).collect();
        let table = rows.table(&schema);
        for ((at, key, content), found) in hashed.into_iter().zip(ledger.find(&keys)?) {
            if let (Some(met), Some(found)) = (&mut self.met, &found) {
                met.set(found.at);
            }
            let Some(op) = self.op(content, found.as_ref()) else { continue };
            match op {
                Op::Delete => self.record.deleted += 1,
                _ => self.record.changed += 1,
            }
            if self.dry {
                continue;
            }
            match &found {
                Some(found) => self.touched.set(found.at),
                None => self.created = true,
            }
            ledger.change(key, content)?;
            let snapshot = if op == Op::Read { SnapshotMark::True } else { SnapshotMark::False };
            rows.events.push(EventHead { table, op, snapshot, row: 0, pos: 0, transaction: 0, ..events[at] });
        }
        if !rows.events.is_empty() {
            rows.transaction(Transaction::default());
        }
        Ok((rows, content))
    }

    /// What a row is, by its content (none: the system says that it is gone) and what is known of its key. None: nothing new.
    fn op(&self, content: Option<u64>, found: Option<&Found>) -> Option<Op> {
        let Some(content) = content else {
            // One that nobody knows was never told; unless this run did.
            return (found.is_some() || self.created).then_some(Op::Delete);
        };
        // What this run has changed already is not what the index says any more.
        let is_known = found.is_some_and(|f| f.content == content && !self.touched.get(f.at));
        match (self.job.mode == Mode::Force, found) {
            (false, _) if is_known => None,
            (true, _) => Some(Op::Read),
            _ if self.first => Some(Op::Read),
            (false, None) => Some(Op::Create),
            (false, Some(_)) => Some(Op::Update),
        }
    }

    /// At the end of a refresh: what was absent from this one and from the one before is deleted.
    async fn vanished(
        &mut self,
        rows: &mut BatchBuilder,
        ledger: &mut Ledger,
        written: Option<&Arc<dyn Written>>,
    ) -> Result<()> {
        let Some(met) = self.met.clone() else { return Ok(()) };
        if self.record.rejected > 0 || self.incomplete {
            // Whose keys they are is not known: nothing can be told of absence.
            if !self.dry {
                ledger.absent.forget();
            }
            return Ok(());
        }
        let (known, absent) = (ledger.len(), met.unset());
        if known > 0 && self.record.rows == 0 {
            return Err(Error::data(format!(
                "{}: the answer is empty, and {known} rows are known",
                self.job.table
            ))
            .hint("look at the table; if it really was emptied, start the source anew under another name"));
        }
        if absent as f64 > known as f64 * self.job.most_deleted {
            return Err(Error::data(format!(
                "{}: {absent} of {known} known rows are not in the answer, more than may be deleted at once",
                self.job.table
            ))
            .hint("look whether the answer is whole; raise `max_deleted_share` if it is right"));
        }
        if self.dry {
            self.record.deleted += gone_twice(ledger, &met)?;
            return Ok(());
        }
        self.record.complete = self.before.complete + 1;
        ledger.absent.begin(self.record.complete)?;
        let width = self.shape.schema.width().max(1);
        let most =
            (PAGES * self.job.page_bytes / (width * size_of::<Cell>())).max(self.job.page_rows as usize);
        let (gone, more) = absent_twice(ledger, &met, most)?;
        if more > 0 {
            self.record.find(format!("{more} more rows are gone: they are deleted by the next refreshes"));
        }
        let once = absent - gone.len() as u64 - more;
        if self.job.mode == Mode::Force && once > 0 {
            // A table that is followed by its changes has no other refresh.
            self.record.find(format!(
                "{once} known rows did not come: a second forced run, directly behind this one, deletes those that do not come again"
            ));
        }
        if gone.is_empty() {
            return Ok(());
        }
        match written {
            Some(written) => self.delete(rows, ledger, written, gone).await,
            None => {
                tracing::warn!(table = %self.job.table, keys = gone.len(), "rows are gone, but the log cannot be asked for their keys: they are not deleted");
                Ok(())
            }
        }
    }

    /// The index knows hashes; the keys stand in the log.
    async fn delete(
        &mut self,
        rows: &mut BatchBuilder,
        ledger: &mut Ledger,
        written: &Arc<dyn Written>,
        mut gone: HashSet<KeyHash>,
    ) -> Result<()> {
        let mut hasher = Hasher::default();
        let mut topic = written.open(&self.job.table).await?;
        let schema = Arc::clone(&self.shape.schema);
        let table = rows.table(&schema);
        while let Some(batch) = topic.next().await? {
            for event in &batch.events {
                let Some(cells) = batch.after(event).or(batch.before(event)) else { continue };
                let stored = batch.table(event);
                let Some(key) = hasher.key(stored, cells, |s| batch.bytes(s)) else { continue };
                if !gone.remove(&key) {
                    continue;
                }
                let before = rows.cells.len() as u32;
                for (i, _) in schema.columns.iter().enumerate() {
                    let place = schema.key.iter().position(|&k| k as usize == i);
                    let cell = place
                        .and_then(|k| stored.key.get(k))
                        .map_or(Cell::Unchanged, |&at| cells[at as usize]);
                    let cell = copied(rows, cell, |s| batch.bytes(s));
                    rows.cells.push(cell);
                }
                rows.events.push(deleted(table, before));
                ledger.change(key, None)?;
                self.record.deleted += 1;
            }
        }
        if self.record.deleted > 0 && rows.transactions.is_empty() {
            rows.transaction(Transaction::default());
        }
        Ok(())
    }

    fn end(&mut self) -> Record {
        let record = &mut self.record;
        record.took_us = self.began.elapsed().as_micros() as u64;
        record.complete_us = record.started_us;
        if record.rejected > 0 || self.incomplete {
            record.watermark.clone_from(&self.before.watermark);
        }
        if record.changed + record.deleted > 0 {
            record.indexed = record.run;
        }
        record.clone()
    }

    /// What it has cost so far.
    pub(crate) fn cost(&self) -> Option<PollCost> {
        self.record.cost
    }

    /// The record of a run that failed: the watermark stays.
    pub(crate) fn failed(
        before: &Record,
        job: &Job,
        error: &Error,
        (planned, took): (Timestamp, std::time::Duration),
    ) -> Record {
        tracing::warn!(table = job.name(), fault = %error.fault(), error = %error, "poll: the run failed");
        Record {
            run: before.run + 1,
            indexed: before.indexed,
            generation: before.generation,
            complete: before.complete,
            watermark_before: before.watermark.clone(),
            watermark: before.watermark.clone(),
            complete_us: before.complete_us,
            started_us: before.started_us,
            planned_us: planned.as_microsecond(),
            took_us: took.as_micros() as u64,
            error: Some(error.to_string()),
            ..Record::default()
        }
    }
}

fn window<'a>(mode: &'a Mode, before: &'a Record) -> Window<'a> {
    match mode {
        Mode::FullRefresh | Mode::Force => Window::All,
        Mode::SlidingWindow { column, lookback } => Window::Lookback { column, period: *lookback },
        Mode::Incremental { column, overlap } => {
            Window::Since { column, watermark: before.watermark.as_deref(), overlap: *overlap }
        }
    }
}

fn late(job: &Job) -> Error {
    Error::transient(format!("{}: no page within {:?}", job.name(), job.timeout))
        .hint("raise the time-out, or ask for smaller pages")
}

/// At most `most` of them, and how many more there are.
fn absent_twice(ledger: &mut Ledger, met: &Marks, most: usize) -> Result<(HashSet<KeyHash>, u64)> {
    let (mut gone, mut more) = (HashSet::new(), 0);
    let Ledger { absent, .. } = ledger;
    let Some(index) = ledger.index.as_ref() else { return Ok((gone, more)) };
    for (at, entry) in (0..).zip(index.entries()?) {
        let (key, _) = entry?;
        if !met.get(at) && absent.add(key)? {
            match gone.len() < most {
                true => drop(gone.insert(key)),
                false => {
                    absent.again(key)?;
                    more += 1;
                }
            }
        }
    }
    Ok((gone, more))
}

/// How many would be deleted now.
fn gone_twice(ledger: &Ledger, met: &Marks) -> Result<u64> {
    let Some(index) = ledger.index.as_ref() else { return Ok(0) };
    let mut gone = 0;
    for (at, entry) in (0..).zip(index.entries()?) {
        let (key, _) = entry?;
        gone += u64::from(!met.get(at) && ledger.absent.was(key)?);
    }
    Ok(gone)
}

fn row<'a>(rows: &'a BatchBuilder, first: u32, schema: &TableSchema) -> Result<&'a [Cell]> {
    let cells = rows.cells.get(first as usize..).and_then(|cells| cells.get(..schema.width()));
    cells.ok_or_else(|| Error::bug("a page's row is shorter than its table"))
}

fn deleted(table: u32, before: u32) -> EventHead {
    EventHead {
        table,
        transaction: 0,
        before,
        after: NO_ROW,
        row: 0,
        op: Op::Delete,
        snapshot: SnapshotMark::False,
        pos: 0,
        ts_us: 0,
    }
}

fn copied<'a>(into: &mut BatchBuilder, cell: Cell, bytes: impl Fn(Slice) -> &'a [u8]) -> Cell {
    match cell {
        Cell::Text(s) => Cell::Text(into.copy(bytes(s))),
        Cell::Bytes(s) => Cell::Bytes(into.copy(bytes(s))),
        Cell::Decimal(s) => Cell::Decimal(into.copy(bytes(s))),
        Cell::Json(s) => Cell::Json(into.copy(bytes(s))),
        plain => plain,
    }
}
