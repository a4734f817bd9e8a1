//! The reader: whose turn it is, and batches of what their runs give.

mod commands;
mod table;
mod work;

use crate::asked::Asked;
use crate::note::{self, Token};
use crate::run::{Anew, RESHAPES, Run, Step};
use crate::shapes::{self, Shapes};
use crate::{Desk, Job, Polled, Session};
use async_trait::async_trait;
use caudal_core::{
    Action, Batch, BatchBuilder, Boundary, Error, Fault, Phase, Position, Reader, Result, Signal,
    SourcePosition, Written,
};
use commands::Commands;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use tokio::task::JoinSet;
use tokio::time::Instant;
use work::Work;

/// Before a page is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A run's time is looked at again at least so often: the clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How long a batch is waited for while a run waits for another one to be durable.
const HELD_UP: Duration = Duration::from_millis(100);

/// Tells the time. Schedules follow it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a reader starts with.
pub struct Start {
    /// The source's name, for the log.
    pub name: String,
    /// The systems; jobs name them by their place. Each has one run at a time.
    pub systems: Vec<Arc<dyn Polled>>,
    /// How many systems are read at a time; at least 1.
    pub concurrent: usize,
    /// What is polled; at least one.
    pub jobs: Vec<Job>,
    /// Where indexes are kept: a folder of this source's own. All of it can be thrown away.
    pub dir: PathBuf,
    /// What the log holds; without it nothing is deleted.
    pub written: Option<Arc<dyn Written>>,
    /// A batch comes at least this often.
    pub heartbeat: Duration,
    /// Commands, and where tables stand: the source's own, over all readers.
    pub desk: Arc<Desk>,
    /// The clock.
    pub clock: Clock,
    /// Where to go on.
    pub from: Option<Position>,
}

/// Polls. See the crate.
pub struct PollReader {
    name: String,
    lanes: Vec<Lane>,
    concurrent: usize,
    written: Option<Arc<dyn Written>>,
    tables: Vec<Table>,
    shapes: Arc<Shapes>,
    /// The steps in flight.
    tasks: JoinSet<(Work, Result<Step>)>,
    clock: Clock,
    desk: Arc<Desk>,
    commands: Commands,
    token: Token,
    heartbeat: Duration,
}

/// A system, and its connection while nobody uses it.
struct Lane {
    system: Arc<dyn Polled>,
    session: Option<Box<dyn Session>>,
    busy: bool,
}

impl PollReader {
    /// Opens the indexes. A source of one system is connected to, so that what is wrong with it is told at once.
    ///
    /// # Errors
    /// `Bug` without a job; `Config` if the position is not of a poll or the folder cannot be used; as the system says.
    pub async fn open(start: Start) -> Result<Self> {
        if start.jobs.is_empty() {
            return Err(Error::bug("poll no table"));
        }
        let empty = SourcePosition::default();
        let stored = match &start.from {
            Some(position) => {
                position.source().ok_or_else(|| Error::bug("open a poll at a position of the log"))?
            }
            None => &empty,
        };
        let token = if start.from.is_some() { Token::decode(&stored.token)? } else { Token::new() };
        let records = note::records(&stored.notes)?;
        let now = (start.clock)();
        let table = |job: Job| {
            let record = records.get(&note::name(&job)).cloned().unwrap_or_default();
            let torn = stored.notes.get(&note::torn(&job)).is_some_and(Option::is_some);
            Table::open(&start.dir, job, (record, torn), now)
        };
        let tables = start.jobs.into_iter().map(table).collect::<Result<_>>()?;
        let lane = |system| Lane { system, session: None, busy: false };
        let mut lanes: Vec<Lane> = start.systems.into_iter().map(lane).collect();
        if let [only] = &mut lanes[..] {
            only.session = Some(only.system.connect().await?);
        }
        let reader = Self {
            name: start.name,
            lanes,
            concurrent: start.concurrent.max(1),
            written: start.written,
            tables,
            shapes: Arc::new(Shapes::stored(&stored.notes)?),
            tasks: JoinSet::new(),
            clock: start.clock,
            desk: start.desk,
            commands: Commands::stored(&stored.notes),
            token,
            heartbeat: start.heartbeat,
        };
        reader.desk.begin();
        (0..reader.tables.len()).for_each(|at| reader.show(at));
        Ok(reader)
    }

    fn show(&self, at: usize) {
        self.desk.put(at, self.tables[at].status());
    }

    /// Begins a step of a table's run, on a task of its own: heartbeats go on meanwhile.
    fn begin(&mut self, at: usize) {
        let table = &mut self.tables[at];
        let lane = &mut self.lanes[table.job.system];
        let Some(mut work) = table.work(at) else { return };
        work.session = lane.session.take();
        work.system = Some(Arc::clone(&lane.system));
        work.written.clone_from(&self.written);
        work.shapes = Arc::clone(&self.shapes);
        lane.busy = true;
        self.tasks.spawn(work.step());
        self.show(at);
    }

    /// A step has ended. None: nothing to hand on.
    fn ended(&mut self, work: Work, stepped: Result<Step>) -> Result<Option<Batch>> {
        let Work { at, ledger, run, session, torn, .. } = work;
        let table = &mut self.tables[at];
        table.ledger = Some(ledger);
        table.run = run;
        table.torn = torn;
        let lane = &mut self.lanes[table.job.system];
        lane.busy = false;
        match stepped {
            Ok(Step { anew: Some(anew), .. }) => {
                lane.session = session;
                table.run = None;
                table.tears(self.token.number);
                match anew {
                    Anew::Shape => table.reshaped += 1,
                    Anew::Lost => table.lost += 1,
                }
                if table.reshaped > RESHAPES {
                    return self.over(at, Error::data("rows have another shape each time they are read"));
                }
                if table.lost >= table.job.attempts {
                    let says = format!("the connection broke {} times while rows were read", table.lost);
                    return self.over(
                        at,
                        Error::transient(says).hint("look at the network, and at the server's log"),
                    );
                }
                Ok(None)
            }
            Ok(step) => {
                lane.session = session;
                Ok(self.hand_on(at, step))
            }
            // The connection may be what is broken: the next step makes a new one.
            Err(error) => self.failed(at, error),
        }
    }

    fn hand_on(&mut self, at: usize, step: Step) -> Option<Batch> {
        let Step { rows, record, shape, .. } = step;
        let mut notes = BTreeMap::new();
        let table = &mut self.tables[at];
        table.failures = 0;
        table.running = true;
        if table.is_dry() {
            if let Some(record) = &record {
                table.rehearsed(record, &self.desk, (self.clock)());
                self.show(at);
            }
            return None;
        }
        if let Some(record) = record {
            tracing::info!(
                source = self.name,
                table = table.job.name(),
                mode = table.job.mode.name(),
                rows = record.rows,
                changed = record.changed,
                deleted = record.deleted,
                rejected = record.rejected,
                took_ms = record.took_us / 1000,
                "poll: run done"
            );
            for finding in &record.findings {
                tracing::warn!(source = self.name, table = table.job.name(), finding, "poll: found");
            }
            table.ends(record, self.token.number + 1, (self.clock)());
            notes.insert(note::name(&table.job), Some(table.record.text()));
            match table.torn {
                true if !std::mem::replace(&mut table.told_torn, true) => {
                    notes.insert(note::torn(&table.job), Some(String::new()));
                }
                false if std::mem::take(&mut table.told_torn) => {
                    notes.insert(note::torn(&table.job), None);
                }
                _ => {}
            }
            table.answer(&self.desk);
            self.show(at);
        } else if rows.events.is_empty() {
            return None;
        } else if !std::mem::replace(&mut table.told_torn, true) {
            notes.insert(note::torn(&table.job), Some(String::new()));
        }
        if shape.is_new {
            let id = &shape.schema.id;
            notes.insert(shapes::name(id), Some(shapes::text(&shape.schema)));
            self.shapes.told(id);
        }
        Some(self.batch(rows, notes))
    }

    /// A page that failed is tried again if that can help; then its run is recorded as failed, and the other tables go on. If no table can
    /// be read, the fault is the source's.
    fn failed(&mut self, at: usize, error: Error) -> Result<Option<Batch>> {
        let name = self.name.clone();
        let table = &mut self.tables[at];
        table.failures += 1;
        let again = matches!(error.fault(), Fault::Transient);
        if again && table.failures < table.job.attempts {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(table.failures - 1).min(64);
            tracing::info!(source = name, table = table.job.name(), error = %error, "poll: the page is tried again");
            table.paused = Some(Instant::now() + pause);
            return Ok(None);
        }
        self.over(at, error)
    }

    /// A run has failed.
    fn over(&mut self, at: usize, error: Error) -> Result<Option<Batch>> {
        let name = self.name.clone();
        let now = (self.clock)();
        let table = &mut self.tables[at];
        let took = table.began.elapsed();
        let mut record = Run::failed(&table.record, &table.job, &error, (table.planned, took));
        record.pay(table.run.as_ref().and_then(Run::cost));
        if table.is_dry() {
            table.rehearsed(&record, &self.desk, now);
            self.show(at);
            return Ok(None);
        }
        table.tears(self.token.number);
        table.fails(record, now);
        table.answer(&self.desk);
        let notes = BTreeMap::from([(note::name(&table.job), Some(table.record.text()))]);
        self.show(at);
        // What others said before, or have not said yet, is no reason to give them up.
        if self.tables.iter().all(|t| t.failed && !t.running) {
            return Err(error.context(format!("poll {name}")));
        }
        Ok(Some(self.batch(BatchBuilder::default(), notes)))
    }

    fn batch(&mut self, rows: BatchBuilder, notes: BTreeMap<String, Option<String>>) -> Batch {
        self.token.number += 1;
        // All tables are complete up to the oldest of their last runs.
        let complete = self.tables.iter().map(|t| t.record.complete_us).min().unwrap_or(0);
        self.token.ts_us = self.token.ts_us.max(complete);
        let token = self.token.encode();
        let boundary = Boundary {
            events: rows.events.len() as u32,
            position: SourcePosition { token: token.clone(), notes: BTreeMap::new() },
            ts_us: self.token.ts_us,
            scope: None,
        };
        rows.build(Position::Source(SourcePosition { token, notes }), Some(boundary))
    }

    /// The table whose turn is next and when, among those whose system is free. A run that goes on comes before one that begins.
    fn next_due(&self) -> Option<(usize, Instant)> {
        if self.tasks.len() >= self.concurrent {
            return None;
        }
        let (now, wall) = (Instant::now(), (self.clock)());
        let rests = |table: &Table| self.commands.paused && !table.running && table.wanted.is_empty();
        let free =
            |table: &Table| table.ledger.is_some() && !self.lanes[table.job.system].busy && !rests(table);
        let due = self.tables.iter().enumerate().filter(|(_, table)| free(table));
        due.map(|(at, table)| (at, table.due(now, wall), table.run.is_none()))
            .min_by_key(|(_, due, begins)| (*due > now, *begins, *due))
            .map(|(at, due, _)| (at, due))
    }

    /// Takes a command; it is stored that it was taken.
    fn obey(&mut self, signal: &Signal) -> Option<Batch> {
        let notes = self.commands.take(signal)?;
        match &signal.action {
            Action::Reread { tables, conditions } => {
                let asked = Asked::parse(conditions.iter().map(|(_, condition)| condition.as_str()));
                if asked.is_none() {
                    tracing::warn!(
                        source = self.name,
                        "poll: a command has a condition that no poll can have: it is not done"
                    );
                }
                for pattern in tables {
                    let mut known = false;
                    let Some(asked) = &asked else {
                        self.desk.ask(&signal.id, pattern, Phase::Refused);
                        continue;
                    };
                    for table in self.tables.iter_mut().filter(|t| commands::means(pattern, &t.job)) {
                        known = true;
                        let taken = table.demand(&signal.id, asked, (self.clock)());
                        let phase = if taken { Phase::Waiting } else { Phase::Refused };
                        self.desk.ask(&signal.id, &table.job.name(), phase);
                    }
                    if !known {
                        self.desk.ask(&signal.id, pattern, Phase::Refused);
                    }
                }
            }
            Action::Pause => {}
            Action::Resume => {
                let now = (self.clock)();
                self.tables.iter_mut().for_each(|table| table.resumes(now));
            }
            Action::Stop { .. } => {
                tracing::info!(source = self.name, "poll: a run that has begun is not stopped")
            }
        }
        (0..self.tables.len()).for_each(|at| self.show(at));
        Some(self.batch(BatchBuilder::default(), notes))
    }

    /// Whether a run is due that waits for the one before to be called durable.
    fn is_held_up(&self) -> bool {
        let (now, wall) = (Instant::now(), (self.clock)());
        self.tables.iter().any(|table| table.is_held_up(now, wall))
    }
}

#[async_trait]
impl Reader for PollReader {
    async fn next(&mut self) -> Result<Batch> {
        let beat = Instant::now() + self.heartbeat;
        // It is called durable between two batches.
        let beat = if self.is_held_up() { beat.min(Instant::now() + HELD_UP) } else { beat };
        let desk = Arc::clone(&self.desk);
        loop {
            if let Some(batch) = desk.take().and_then(|signal| self.obey(&signal)) {
                return Ok(batch);
            }
            let due = self.next_due();
            if let Some((at, _)) = due.filter(|(_, due)| *due <= Instant::now()) {
                self.begin(at);
                continue;
            }
            // What waits for its last run to be durable may come due meanwhile.
            let awaits = self.tables.iter().any(Table::awaits);
            let again = Instant::now() + if awaits { HELD_UP } else { LOOK_AGAIN };
            let wake = due.map_or(beat, |(_, due)| due).min(again).min(beat);
            tokio::select! {
                Some(joined) = self.tasks.join_next() => {
                    let (work, stepped) = joined.map_err(|e| Error::bug("poll a table").because(e))?;
                    if let Some(batch) = self.ended(work, stepped)? {
                        return Ok(batch);
                    }
                }
                () = desk.arrived() => {}
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= beat || self.is_held_up() {
                        return Ok(self.batch(BatchBuilder::default(), BTreeMap::new()));
                    }
                }
            }
        }
    }

    async fn commit(&mut self, position: &Position) -> Result<()> {
        let Some(stored) = position.source() else { return Ok(()) };
        let durable = Token::decode(&stored.token)?.number;
        self.tables.iter_mut().try_for_each(|table| table.settle(durable))
    }
}
