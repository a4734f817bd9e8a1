//! The snapshot as the reader drives it: which table, which chunk, and what becomes of it.
//!
//! All that happens between two source transactions happens here, on the reader's own task: windows open and close, rows are handed on. What
//! waits (for the source, for the log, for the disk) runs in tasks beside it, at most `snapshot.readers` at a time.

use crate::binlog::Begin;
use crate::config::Resolved;
use crate::position::Place;
use crate::schema::Timeline;
use crate::snapshot::access::{Access, Connect, Server};
use crate::snapshot::against::{self, Against, Candidates, Search};
use crate::snapshot::board::Board;
use crate::snapshot::chunk::{self, Chunk, Cut, Job, Read};
use crate::snapshot::hand_on;
use crate::snapshot::plan::Plan;
use crate::snapshot::progress::{Notes, TableNote, table_note};
use crate::snapshot::request::{Reason, Request, Rows};
use crate::snapshot::shapes::{Shape, Shapes};
use crate::snapshot::table::{Front, Step, Table};
use crate::snapshot::throttle::{Load, Throttle};
use crate::snapshot::whole::{Exact, Piece};
use crate::snapshot::wholes::Wholes;
use crate::value::Value;
use caudal_core::{BatchBuilder, Error, Incomplete, Phase, Result, TableId, Written};
use caudal_index::Index;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long to wait before a table is planned again that is being altered.
const AGAIN: Duration = Duration::from_millis(200);

/// Rows to be handed on as a batch of their own.
#[derive(Default)]
pub(crate) struct Emission {
    /// Its rows.
    pub(crate) builder: BatchBuilder,
    /// Notes that go with them.
    pub(crate) notes: Vec<(String, Option<String>)>,
}

/// What becomes of an event of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes out.
    Deliver,
    /// The piece that is going to be read, or was read, holds it.
    Drop,
}

/// What a window is open for.
#[expect(clippy::large_enum_variant, reason = "there are as many as readers, and they are moved seldom")]
pub(crate) enum For {
    /// A chunk of this range; at most so many rows.
    Range(u64, u32),
    /// Candidates.
    Check(Box<Candidates>, Option<Search>),
}

/// An open window.
pub(crate) struct Open {
    pub(crate) serial: u64,
    pub(crate) window: u64,
    pub(crate) what: For,
}

/// What a task brings.
enum Brought {
    Chunk(Open, Result<Read>),
    Cut(u64, Option<Vec<Value>>, Cut),
    Piece(u64, Box<Piece>),
    Index(u64, Against),
    Found(u64, Box<Search>, Against, Option<Candidates>),
    Load(Load),
}

type Task = Result<(Option<Box<dyn Access>>, Brought)>;

/// What one step of [`Snapshot::advance`] came to.
#[expect(clippy::large_enum_variant, reason = "one at a time, moved once")]
enum Stepped {
    Task,
    Emission(Emission),
    Nothing,
}

/// All that has to be read, and the chunks in flight.
pub(crate) struct Snapshot {
    pub(crate) config: Arc<Resolved>,
    connect: Arc<dyn Connect>,
    written: Option<Arc<dyn Written>>,
    pub(crate) board: Arc<Board>,
    pub(crate) first: VecDeque<(TableId, TableNote)>,
    pub(crate) requests: VecDeque<Request>,
    /// Being read, each with its serial number.
    pub(crate) tables: Vec<(u64, Table)>,
    serials: u64,
    tasks: JoinSet<Task>,
    idle: Vec<Box<dyn Access>>,
    ready: VecDeque<(Open, Box<Chunk>)>,
    pub(crate) wholes: Wholes,
    pub(crate) piece: Option<(u64, Piece)>,
    throttle: Throttle,
    pub(crate) paused: bool,
    pub(crate) notes: Vec<(String, Option<String>)>,
    /// How many re-reads began in this session: positions carry it, so that one can tell what is durable.
    mark: u64,
    pub(crate) any_row: bool,
}

impl Snapshot {
    /// Reads what `notes` do not call done, large tables first, then what was asked for.
    ///
    /// # Errors
    /// `Data` if a stored place cannot be read.
    pub(crate) fn new(
        config: Arc<Resolved>,
        timeline: &Timeline,
        notes: &Notes,
        written: Option<Arc<dyn Written>>,
        board: Arc<Board>,
    ) -> Result<Self> {
        let mut queue: Vec<(TableId, TableNote, u64, bool)> = timeline
            .tables()
            .map(|(id, known)| {
                let note = notes.tables.get(&id.to_string()).cloned().unwrap_or_default();
                let whole = Plan::new(known, timeline.selection())?.parts.is_none();
                let size = known.table.estimated_rows * known.table.row_bytes.max(1);
                Ok((id.clone(), note, size, whole))
            })
            .collect::<Result<_>>()?;
        queue.retain(|(_, note, _, _)| !note.done);
        // A table read in one piece is read alone: those come last.
        queue.sort_by_key(|(_, note, size, whole)| (*whole, !note.is_begun(), std::cmp::Reverse(*size)));
        let connect = Arc::new(Server(Arc::clone(&config)));
        Ok(Self {
            first: queue.into_iter().map(|(id, note, ..)| (id, note)).collect(),
            any_row: notes.tables.values().any(|n| n.rows > 0),
            wholes: Wholes::new(timeline, notes)?,
            ..Self::none(config, connect, notes, written, board)
        })
    }

    /// Nothing to read but what was asked for.
    pub(crate) fn none(
        config: Arc<Resolved>,
        connect: Arc<dyn Connect>,
        notes: &Notes,
        written: Option<Arc<dyn Written>>,
        board: Arc<Board>,
    ) -> Self {
        Self {
            connect,
            written,
            board,
            first: VecDeque::new(),
            requests: notes.requests.iter().cloned().collect(),
            tables: Vec::new(),
            serials: 0,
            tasks: JoinSet::new(),
            idle: Vec::new(),
            ready: VecDeque::new(),
            wholes: Wholes::default(),
            piece: None,
            throttle: Throttle::new(
                config.snapshot.max_threads_running,
                config.snapshot.max_replica_lag.get(),
            ),
            paused: notes.paused,
            notes: Vec::new(),
            mark: 0,
            any_row: false,
            config,
        }
    }

    /// Reads a table for the first time.
    #[cfg(test)]
    pub(crate) fn read_first(&mut self, id: TableId, note: TableNote) {
        self.first.push_back((id, note));
    }

    /// Whether nothing is left to read.
    pub(crate) fn is_done(&self) -> bool {
        self.tables.is_empty() && self.first.is_empty() && self.requests.is_empty() && self.tasks.is_empty()
    }

    /// Tables whose rows are not all delivered: those read for the first time, and those of which rows changed that the log does
    /// not show. What an operator has asked for anew is complete all the while. At most one more than a boundary may name.
    pub(crate) fn incomplete(&self) -> BTreeSet<TableId> {
        let own = |request: &Request| request.reason != Reason::Asked;
        let first = self.first.iter().map(|(id, _)| id);
        let reading =
            self.tables.iter().filter(|(_, t)| t.request.as_ref().is_none_or(own)).map(|(_, t)| &t.id);
        let waiting = self.requests.iter().filter(|request| own(request)).map(|request| &request.table);
        let mut tables = BTreeSet::new();
        for id in first.chain(reading).chain(waiting) {
            if tables.len() > Incomplete::MOST {
                break;
            }
            tables.insert(id.clone());
        }
        tables
    }

    /// Whether no further table is waiting to be read for the first time, or is being.
    pub(crate) fn is_last(&self) -> bool {
        self.first.is_empty() && self.tables.len() <= 1
    }

    /// How many tables are left.
    pub(crate) fn tables_left(&self) -> usize {
        self.first.len() + self.requests.len() + self.tables.len()
    }

    /// Asks for rows to be read again, reconciled with what was delivered. The request is stored with the batch that is
    /// being filled, and is served when what was asked for before is begun. Asked twice is asked once; while such a re-read is
    /// going on, it is asked anew, for that one may have passed the rows already.
    pub(crate) fn request(&mut self, request: Request) {
        if self.requests.iter().any(|r| r.covers(&request)) {
            return;
        }
        tracing::info!(
            source = self.config.name,
            table = %request.table,
            reason = request.reason.as_str(),
            "rows are going to be read again"
        );
        self.notes.push((request.note(), Some(request.text())));
        self.requests.push_back(request);
        self.publish();
    }

    /// Notes that go with the next batch.
    pub(crate) fn take_notes(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.notes)
    }

    /// Goes into the position of each batch: see [`Snapshot::durable`].
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }

    /// Whether it matters what is durable.
    pub(crate) fn waits(&self) -> bool {
        self.tables.iter().any(|(_, t)| matches!(t.step, Step::Durable(_)))
    }

    /// Everything up to a batch whose position has this mark is in the log.
    pub(crate) fn durable(&mut self, mark: u64) {
        for (_, table) in &mut self.tables {
            if matches!(table.step, Step::Durable(wanted) if wanted <= mark) {
                table.step = Step::Index;
            }
        }
    }

    /// The record of touched keys, if there is one of this table.
    pub(crate) fn recorder(&mut self, id: &TableId) -> Option<&mut Table> {
        self.tables.iter_mut().map(|(_, t)| t).find(|t| t.id == *id)
    }

    /// A statement in the stream changed these tables (none named: it may be any).
    pub(crate) fn changed(&mut self, ids: Option<&[TableId]>) {
        for (_, table) in &mut self.tables {
            if ids.is_none_or(|ids| ids.contains(&table.id)) {
                table.plan = None;
                table.recording.discard("the table was changed");
            }
        }
    }

    /// Opens windows while there are readers free. To be called only between two source transactions: `delivered` is
    /// the place that the stream has reached.
    pub(crate) async fn advance(
        &mut self,
        shapes: &mut dyn Shapes,
        delivered: &Place,
    ) -> Result<Option<Emission>> {
        let readers = self.config.snapshot.readers as usize;
        while !self.paused
            && self.wholes.holding().is_none()
            && self.tasks.len() + self.ready.len() < readers
            && !self.throttle.holds(Instant::now())
        {
            if self.throttle.asks(Instant::now()) {
                let lag = self.throttle.minds_lag();
                self.spawn(move |mut access| async move {
                    let load = access.load(lag).await?;
                    Ok((Some(access), Brought::Load(load)))
                });
                continue;
            }
            match self.step(shapes, delivered).await? {
                Stepped::Task => {}
                Stepped::Emission(emission) => return Ok(Some(emission)),
                Stepped::Nothing if self.begin(readers)? => {
                    // What the re-read is compared with must be in the log: this batch tells when it is.
                    if matches!(self.tables.last(), Some((_, t)) if matches!(t.step, Step::Durable(_))) {
                        return Ok(Some(Emission::default()));
                    }
                }
                Stepped::Nothing => break,
            }
        }
        Ok(None)
    }

    /// When [`Snapshot::advance`] wants to be called, if it waits for a time.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        if self.paused || self.is_done() {
            return None;
        }
        let soon = self.waits().then(|| Instant::now() + AGAIN);
        let at = self.tables.iter().filter_map(|(_, t)| t.not_before);
        at.chain(self.throttle.until()).chain(soon).min()
    }

    /// Until when the source's load holds reading up.
    pub(crate) fn throttle_until(&self) -> Option<Instant> {
        self.throttle.until()
    }

    /// Begins the next table; false if there is none, or enough are begun.
    fn begin(&mut self, readers: usize) -> Result<bool> {
        let reading = |id: &TableId| self.tables.iter().any(|(_, t)| t.id == *id);
        if self.tables.len() >= readers {
            return Ok(false);
        }
        let most = self.config.snapshot.chunk_rows;
        let table = if let Some((id, note)) = self.first.pop_front() {
            Table::first(id, &note, most)?
        } else {
            let Some(i) = self.requests.iter().position(|r| !reading(&r.table)) else { return Ok(false) };
            let Some(request) = self.requests.remove(i) else { return Ok(false) };
            let step = match &self.written {
                Some(_) => {
                    self.mark += 1;
                    Step::Durable(self.mark)
                }
                None => Step::Rows,
            };
            Table::again(request, most, step)
        };
        self.serials += 1;
        self.tables.push((self.serials, table));
        self.publish();
        Ok(true)
    }

    /// The next thing that can be begun.
    async fn step(&mut self, shapes: &mut dyn Shapes, delivered: &Place) -> Result<Stepped> {
        for i in 0..self.tables.len() {
            if self.tables[i].1.not_before.is_some_and(|at| Instant::now() < at) {
                continue;
            }
            self.tables[i].1.not_before = None;
            if matches!(self.tables[i].1.step, Step::Durable(_) | Step::Indexing | Step::Searching) {
                continue;
            }
            if !self.plan(i, shapes).await? {
                if self.tables[i].1.not_before.is_none() {
                    return Ok(Stepped::Emission(self.gone(i)));
                }
                continue;
            }
            match self.step_of(i, delivered)? {
                Stepped::Nothing => {}
                stepped => return Ok(stepped),
            }
        }
        Ok(Stepped::Nothing)
    }

    /// Sees to it that a table has a plan. False: it has none now, and is gone if it waits for no time either.
    async fn plan(&mut self, i: usize, shapes: &mut dyn Shapes) -> Result<bool> {
        let table = &mut self.tables[i].1;
        if table.plan.is_some() {
            return Ok(true);
        }
        match shapes.shape(&table.id).await? {
            Shape::Gone => Ok(false),
            // The stream has yet to bring the change: until then rows could not be told in its shape.
            Shape::Ahead => {
                table.not_before = Some(Instant::now() + AGAIN);
                Ok(false)
            }
            Shape::Known(plan) => {
                table.plan = Some(plan);
                Ok(true)
            }
        }
    }

    fn step_of(&mut self, i: usize, delivered: &Place) -> Result<Stepped> {
        let Some(plan) = self.tables[i].1.plan.clone() else { return Ok(Stepped::Nothing) };
        if plan.parts.is_none() {
            return Ok(self.open_whole(i, plan, delivered));
        }
        match &self.tables[i].1.step {
            Step::Index => Ok(self.index(i, plan)),
            Step::Rows => self.rows(i, plan, delivered),
            Step::Search(_) => Ok(self.search(i, plan)),
            Step::Check(..) => Ok(self.check(i, plan, delivered)),
            Step::Done => Ok(Stepped::Emission(self.done(i))),
            Step::Durable(_) | Step::Indexing | Step::Searching => Ok(Stepped::Nothing),
        }
    }

    /// The next chunk of a table, or a look where to cut the next range.
    fn rows(&mut self, i: usize, plan: Arc<Plan>, delivered: &Place) -> Result<Stepped> {
        self.wholes.forget(&self.tables[i].1.id);
        let readers = self.config.snapshot.readers;
        let (serial, table) = &mut self.tables[i];
        let serial = *serial;
        if let Some(range) = table.ranges.iter().find(|r| !r.busy) {
            let number = range.number;
            return Ok(self.open(i, number, plan, delivered));
        }
        let Front::At(from) = &table.front else { return Ok(Stepped::Nothing) };
        let from = from.clone();
        let Some(rows) = table.cut_rows(readers) else {
            table.front = Front::End;
            let number = table.add_range(from, None);
            return Ok(self.open(i, number, plan, delivered));
        };
        table.front = Front::Cutting(from.clone());
        let limit = self.config.snapshot.chunk_time.get();
        self.spawn(move |mut access| async move {
            let cut = access.cut(&plan, from.as_deref(), rows, limit).await?;
            Ok((Some(access), Brought::Cut(serial, from, cut)))
        });
        Ok(Stepped::Task)
    }

    /// Steps 1 to 3: recording begins here, then the chunk's connection waits and reads.
    fn open(&mut self, i: usize, range: u64, plan: Arc<Plan>, delivered: &Place) -> Stepped {
        let snapshot = &self.config.snapshot;
        let (serial, table) = &mut self.tables[i];
        let Some(filter) = table.filter(&plan) else {
            // Its values cannot be compared: all rows then.
            if let Some(request) = &mut table.request {
                request.rows = Rows::All;
            }
            return Stepped::Nothing;
        };
        let bytes = snapshot.chunk_bytes.bytes();
        let rows = table.chunk_rows(&plan, bytes);
        let limit = table.limit(snapshot);
        let Some(part) = table.range(range) else { return Stepped::Nothing };
        part.busy = true;
        let job = Job {
            rows,
            plan,
            from: part.from.clone(),
            to: part.to.clone(),
            filter,
            bytes: bytes as usize,
            delivered: delivered.clone(),
            limit,
        };
        let index = table.against.as_ref().map(|a| Arc::clone(&a.index));
        let open = Open { serial: *serial, window: table.recording.open(), what: For::Range(range, rows) };
        self.read(open, job, index);
        Stepped::Task
    }

    /// Asks for candidates by key, in a window.
    fn check(&mut self, i: usize, plan: Arc<Plan>, delivered: &Place) -> Stepped {
        let (serial, table) = &mut self.tables[i];
        let Step::Check(candidates, search) = std::mem::replace(&mut table.step, Step::Searching) else {
            return Stepped::Nothing;
        };
        let job = Job {
            rows: candidates.keys.len() as u32 * 2,
            plan,
            from: None,
            to: None,
            filter: candidates.filter.clone(),
            bytes: usize::MAX,
            delivered: delivered.clone(),
            limit: table.limit(&self.config.snapshot),
        };
        let index = table.against.as_ref().map(|a| Arc::clone(&a.index));
        let window = table.recording.open();
        let open = Open { serial: *serial, window, what: For::Check(candidates, search) };
        self.read(open, job, index);
        Stepped::Task
    }

    fn read(&mut self, open: Open, job: Job, index: Option<Arc<Index>>) {
        self.spawn(move |mut access| async move {
            let empty = matches!(&open.what, For::Check(c, _) if c.filter.is_none());
            let read = if empty {
                Ok(Read::Chunk(Box::new(Chunk::new(BatchBuilder::default(), Arc::clone(&job.plan)))))
            } else {
                chunk::read(access.as_mut(), &job).await
            };
            let read = match (read, index) {
                (Ok(Read::Chunk(chunk)), Some(index)) => {
                    let compared = tokio::task::spawn_blocking(move || against::compare(chunk, &index));
                    let compared = compared.await.map_err(|e| Error::bug("compare a chunk").because(e))?;
                    compared.map(Read::Chunk)
                }
                (read, _) => read,
            };
            Ok((Some(access), Brought::Chunk(open, read)))
        });
    }

    fn index(&mut self, i: usize, plan: Arc<Plan>) -> Stepped {
        let (serial, table) = &mut self.tables[i];
        let serial = *serial;
        let (Some(written), Some(request)) = (&self.written, &table.request) else {
            table.step = Step::Rows;
            return Stepped::Nothing;
        };
        table.step = Step::Indexing;
        let (written, rows, dir) = (Arc::clone(written), request.rows.clone(), self.config.spool_dir());
        self.tasks.spawn(async move {
            let against = against::build(written, plan, rows, dir).await?;
            Ok((None, Brought::Index(serial, against)))
        });
        Stepped::Task
    }

    fn search(&mut self, i: usize, plan: Arc<Plan>) -> Stepped {
        let (serial, table) = &mut self.tables[i];
        let serial = *serial;
        let Step::Search(search) = std::mem::replace(&mut table.step, Step::Searching) else {
            return Stepped::Nothing;
        };
        let (Some(written), Some(mut against)) = (self.written.clone(), table.against.take()) else {
            table.step = Step::Done;
            return Stepped::Nothing;
        };
        self.tasks.spawn(async move {
            let mut search = match search {
                Some(search) => search,
                None => Search::open(written.as_ref(), &plan).await?,
            };
            let found = search.next(&mut against, &plan).await?;
            Ok((None, Brought::Found(serial, Box::new(search), against, found)))
        });
        Stepped::Task
    }

    fn open_whole(&mut self, i: usize, plan: Arc<Plan>, delivered: &Place) -> Stepped {
        let others = self.tables.iter().enumerate().filter(|(n, _)| *n != i);
        let alone = others
            .into_iter()
            .all(|(_, (_, t))| t.plan.as_ref().is_some_and(|p| p.parts.is_none()) || t.not_before.is_some());
        if !alone || !self.tasks.is_empty() || !self.ready.is_empty() {
            return Stepped::Nothing;
        }
        let (serial, table) = &mut self.tables[i];
        tracing::warn!(
            source = self.config.name,
            table = %table.id,
            "snapshot: the table has no key that it could be read by: it is read in one piece, and a restart reads it again from its beginning"
        );
        table.front = Front::At(None);
        self.wholes.hold(&table.id);
        table.recording.open();
        let (serial, delivered) = (*serial, delivered.clone());
        self.spawn(move |mut access| async move {
            let piece = access.whole(plan, &delivered).await?;
            Ok((Some(access), Brought::Piece(serial, Box::new(piece))))
        });
        Stepped::Task
    }

    /// Runs `work` beside the reader, with a connection of its own.
    fn spawn<F>(&mut self, work: impl FnOnce(Box<dyn Access>) -> F + Send + 'static)
    where
        F: Future<Output = Task> + Send,
    {
        let (idle, connect) = (self.idle.pop(), Arc::clone(&self.connect));
        self.tasks.spawn(async move {
            let access = match idle {
                Some(access) => access,
                None => connect.connect().await?,
            };
            work(access).await
        });
    }

    /// The table whose events have to wait until its piece is handed on.
    pub(crate) fn holds(&self) -> Option<&TableId> {
        self.wholes.holding()
    }

    /// What becomes of the events of a transaction in a table. Those of a table that [`Snapshot::holds`] must wait.
    pub(crate) fn verdict(&self, id: &TableId, begin: &Begin, file: &str, pos: u64) -> Verdict {
        self.wholes.verdict(id, begin, file, pos)
    }

    /// The stream has delivered everything up to this place.
    pub(crate) fn passed(&mut self, place: &Place) {
        self.wholes.passed(place);
    }

    /// Waits for what runs beside the reader; for ever if nothing does. Cancel-safe.
    pub(crate) async fn finished(&mut self) -> Result<()> {
        let Some(joined) = self.tasks.join_next().await else { return std::future::pending().await };
        let (access, brought) = joined.map_err(|e| Error::bug("read a chunk").because(e))??;
        self.idle.extend(access);
        match brought {
            Brought::Chunk(open, read) => self.came(open, read?),
            Brought::Cut(serial, from, cut) => self.was_cut(serial, from, cut),
            Brought::Piece(serial, piece) => self.piece = Some((serial, *piece)),
            Brought::Index(serial, against) => {
                if let Some(table) = self.table(serial) {
                    (table.against, table.step) = (Some(against), Step::Rows);
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
        table.delivered += chunk.builder.events.len() as u64;
        let leftover = table.against.as_ref().is_some_and(|a| a.marks.unset() > 0);
        if all && table.request.is_some() {
            table.step = if leftover { Step::Search(None) } else { Step::Done };
        }
        let done = all && table.request.is_none();
        let notes = table.notes(done, None);
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

    /// A re-read has ended; the same one may have been asked for again meanwhile, under the same note: that stays.
    pub(crate) fn keep_waiting(&self, notes: &mut [(String, Option<String>)]) {
        for (name, text) in notes.iter_mut().filter(|(_, text)| text.is_none()) {
            *text = self.requests.iter().find(|r| r.note() == *name).map(Request::text);
        }
    }

    /// A table that does not exist any more is done.
    fn gone(&mut self, i: usize) -> Emission {
        let serial = self.tables[i].0;
        let table = &mut self.tables[i].1;
        tracing::info!(table = %table.id, "snapshot: the table is gone");
        let mut notes = match &table.request {
            Some(request) => vec![(request.note(), None)],
            None => {
                let note = TableNote { v: 1, done: true, rows: table.delivered, ..TableNote::default() };
                vec![(table_note(&table.id), Some(note.text()))]
            }
        };
        self.keep_waiting(&mut notes);
        self.finish(serial, Phase::Refused);
        Emission { builder: BatchBuilder::default(), notes }
    }

    fn done(&mut self, i: usize) -> Emission {
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
