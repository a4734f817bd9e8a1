//! The snapshot as the reader drives it: which table, which chunk, and what becomes of it.
//!
//! All that happens between two source transactions happens here, on the reader's own task: windows open and close, rows are handed on. What
//! waits (for the source, for the log, for the disk) runs in tasks beside it, at most `snapshot.readers` at a time.

mod ends;
mod steps;

use crate::binlog::Begin;
use crate::config::Resolved;
use crate::position::Place;
use crate::schema::Timeline;
use crate::snapshot::access::{Access, Connect, Server};
use crate::snapshot::against::{Against, Candidates, Search};
use crate::snapshot::board::Board;
use crate::snapshot::chunk::{Chunk, Cut, Read};
use crate::snapshot::met::Met;
use crate::snapshot::plan::Plan;
use crate::snapshot::progress::{Notes, TableNote};
use crate::snapshot::request::{Reason, Request};
use crate::snapshot::shapes::Shapes;
use crate::snapshot::table::{Step, Table};
use crate::snapshot::throttle::{Load, Throttle};
use crate::snapshot::whole::Piece;
use crate::snapshot::wholes::Wholes;
use crate::value::Value;
use caudal_core::{BatchBuilder, Incomplete, Result, TableId, Written};
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
    Index(u64, Against, bool),
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

/// Requests that are stored; those that had begun go first, and what no other names of what had been met is removed.
fn stored_requests(config: &Resolved, notes: &Notes) -> VecDeque<Request> {
    let mut requests = notes.requests.clone();
    requests.sort_by_key(|request| request.far.is_none());
    let named = requests.iter().filter_map(|r| Some(r.far.as_ref()?.met.as_str()));
    Met::clean(&config.rereads_dir(), named);
    requests.into()
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
            requests: stored_requests(&config, notes),
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
        if let Some(waiting) = self.requests.iter_mut().find(|r| r.covers(&request)) {
            // What it had read before a restart may be older than what is asked for now.
            if waiting.far.take().is_some() {
                self.notes.push((waiting.note(), Some(waiting.text())));
            }
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
            let Some(mut request) = self.requests.remove(i) else { return Ok(false) };
            let others = self.taken_in(&mut request);
            let step = match &self.written {
                Some(_) => {
                    self.mark += 1;
                    Step::Durable(self.mark)
                }
                None => Step::Rows,
            };
            Table::again(request, others, most, step)
        };
        self.serials += 1;
        self.tables.push((self.serials, table));
        self.publish();
        Ok(true)
    }

    /// Takes what `request` can take in out of what waits, and gives it.
    fn taken_in(&mut self, request: &mut Request) -> Vec<Request> {
        let (others, waiting) =
            std::mem::take(&mut self.requests).into_iter().partition(|other| request.take_in(other));
        self.requests = waiting;
        Vec::from(others)
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
}
