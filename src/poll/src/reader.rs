//! The reader: whose turn it is, and batches of what their runs give.

use crate::ledger::Ledger;
use crate::note::{self, Record, Token};
use crate::run::{Run, Step};
use crate::{Job, Polled, Session};
use async_trait::async_trait;
use caudal_core::{
    Batch, BatchBuilder, Boundary, Error, Fault, Position, Reader, Result, SourcePosition, Written,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Before a run is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What a reader starts with.
pub struct Start {
    /// The source's name, for the log.
    pub name: String,
    /// The system.
    pub system: Arc<dyn Polled>,
    /// What is polled; at least one.
    pub jobs: Vec<Job>,
    /// Where indexes are kept: a folder of this source's own. All of it can be thrown away.
    pub dir: PathBuf,
    /// What the log holds; without it nothing is deleted.
    pub written: Option<Arc<dyn Written>>,
    /// A batch comes at least this often.
    pub heartbeat: Duration,
    /// Where to go on.
    pub from: Option<Position>,
}

/// Polls. See the crate.
pub struct PollReader {
    name: String,
    system: Arc<dyn Polled>,
    session: Option<Box<dyn Session>>,
    written: Option<Arc<dyn Written>>,
    tables: Vec<Table>,
    /// Which table's run goes on.
    current: Option<usize>,
    /// The step in flight.
    task: JoinSet<(Work, Result<Step>)>,
    token: Token,
    heartbeat: Duration,
}

struct Table {
    job: Arc<Job>,
    record: Record,
    /// Not here while a step has it.
    ledger: Option<Ledger>,
    run: Option<Run>,
    began: Instant,
    due: Instant,
    failures: u32,
    settles: Option<Settles>,
}

/// What waits until a batch is durable.
struct Settles {
    batch: u64,
    /// The run's number, for the index.
    indexed: u64,
    since: Instant,
}

/// How long a run waits for the one before to be called durable. Then it begins without knowing anything: all rows go out.
const GRACE: Duration = Duration::from_secs(60);

impl PollReader {
    /// Connects, and opens the indexes.
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
        let now = Instant::now();
        let table = |job: Job| -> Result<Table> {
            let record = records.get(&note::name(&job.table)).cloned().unwrap_or_default();
            let ledger = Ledger::open(&start.dir, &job.table, record.indexed, record.complete)?;
            let (job, run, settles) = (Arc::new(job), None, None);
            Ok(Table { job, record, ledger: Some(ledger), run, began: now, due: now, failures: 0, settles })
        };
        let tables = start.jobs.into_iter().map(table).collect::<Result<_>>()?;
        let session = Some(start.system.connect().await?);
        Ok(Self {
            name: start.name,
            system: start.system,
            session,
            written: start.written,
            tables,
            current: None,
            task: JoinSet::new(),
            token,
            heartbeat: start.heartbeat,
        })
    }

    /// Begins a step of a table's run, on a task of its own: heartbeats go on meanwhile.
    fn begin(&mut self, at: usize) {
        let table = &mut self.tables[at];
        let Some(ledger) = table.ledger.take() else { return };
        if table.run.is_none() {
            table.began = Instant::now();
        }
        let work = Work {
            at,
            job: Arc::clone(&table.job),
            record: table.record.clone(),
            // What is not known to be durable is not known at all.
            unsettled: table.settles.take().is_some(),
            ledger,
            run: table.run.take(),
            session: self.session.take(),
            system: Arc::clone(&self.system),
            written: self.written.clone(),
        };
        self.current = Some(at);
        self.task.spawn(work.step());
    }

    /// A step has ended. None: nothing to hand on.
    fn ended(&mut self, work: Work, stepped: Result<Step>) -> Result<Option<Batch>> {
        let Work { at, ledger, run, session, .. } = work;
        self.tables[at].ledger = Some(ledger);
        match stepped {
            Ok(step) => {
                (self.tables[at].run, self.session) = (run, session);
                Ok(self.hand_on(at, step))
            }
            // The connection may be what is broken: the next step makes a new one.
            Err(error) => self.failed(at, error),
        }
    }

    fn hand_on(&mut self, at: usize, step: Step) -> Option<Batch> {
        let Step { rows, record } = step;
        let mut notes = BTreeMap::new();
        let table = &mut self.tables[at];
        if let Some(record) = record {
            tracing::info!(
                source = self.name,
                table = %table.job.table,
                mode = table.job.mode.name(),
                rows = record.rows,
                changed = record.changed,
                deleted = record.deleted,
                rejected = record.rejected,
                took_ms = record.took_us / 1000,
                "poll: run done"
            );
            table.ends(record, self.token.number + 1);
            notes.insert(note::name(&table.job.table), Some(table.record.text()));
            self.current = None;
        } else if rows.events.is_empty() {
            return None;
        }
        Some(self.batch(rows, notes))
    }

    /// A run that failed is tried again if that can help, then recorded; the other tables go on. If no table can be read, the
    /// fault is the source's.
    fn failed(&mut self, at: usize, error: Error) -> Result<Option<Batch>> {
        self.current = None;
        let name = self.name.clone();
        let table = &mut self.tables[at];
        table.run = None;
        table.failures += 1;
        let again = matches!(error.fault(), Fault::Transient);
        if again && table.failures < table.job.attempts {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(table.failures - 1).min(64);
            tracing::info!(source = name, table = %table.job.table, error = %error, "poll: the run is tried again");
            table.due = Instant::now() + pause;
            return Ok(None);
        }
        let record = Run::failed(&table.record, &table.job, &error, table.began.elapsed());
        table.failures = 0;
        table.record = record;
        table.due = table.began + table.job.every;
        let notes = BTreeMap::from([(note::name(&table.job.table), Some(table.record.text()))]);
        if self.tables.iter().all(|t| t.record.error.is_some()) {
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

    /// The table that is due first, and when. A run that is not known to be durable holds its next one up for a while.
    fn next_due(&self) -> (usize, Instant) {
        let waits =
            |table: &Table| table.settles.as_ref().map_or(table.due, |s| table.due.max(s.since + GRACE));
        let due = self.tables.iter().enumerate().map(|(at, table)| (at, waits(table)));
        due.min_by_key(|(_, due)| *due).unwrap_or_else(|| (0, Instant::now() + self.heartbeat))
    }
}

/// One step, with all that it needs: on a task of its own.
struct Work {
    at: usize,
    job: Arc<Job>,
    record: Record,
    unsettled: bool,
    ledger: Ledger,
    run: Option<Run>,
    session: Option<Box<dyn Session>>,
    system: Arc<dyn Polled>,
    written: Option<Arc<dyn Written>>,
}

impl Work {
    async fn step(mut self) -> (Self, Result<Step>) {
        let step = self.try_step().await;
        (self, step)
    }

    async fn try_step(&mut self) -> Result<Step> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.system.connect().await?,
        };
        let mut run = match self.run.take() {
            Some(run) => run,
            None => {
                self.know().await?;
                Run::begin(&self.job, &self.record, session.as_mut(), &mut self.ledger).await?
            }
        };
        let step = run.step(session.as_mut(), &mut self.ledger, self.written.as_ref()).await?;
        self.run = step.record.is_none().then_some(run);
        self.session = Some(session);
        Ok(step)
    }

    /// What is known must be what the position says, or nothing.
    async fn know(&mut self) -> Result<()> {
        if self.unsettled {
            self.ledger.forget();
        }
        if self.record.indexed == 0 || self.ledger.index.is_some() {
            return Ok(());
        }
        let table = &self.job.table;
        match &self.written {
            Some(written) => {
                tracing::info!(%table, "poll: what is known of the rows is read from the log");
                self.ledger.rebuild(table, written.as_ref(), self.record.indexed).await
            }
            None => {
                tracing::warn!(%table, "poll: what was known of the rows is lost: all of them go out again");
                Ok(())
            }
        }
    }
}

impl Table {
    /// The run's record goes with the batch of this number.
    fn ends(&mut self, record: Record, batch: u64) {
        self.settles = Some(Settles { batch, indexed: record.indexed, since: Instant::now() });
        self.record = record;
        self.failures = 0;
        self.due = self.began + self.job.every;
    }
}

#[async_trait]
impl Reader for PollReader {
    async fn next(&mut self) -> Result<Batch> {
        let beat = Instant::now() + self.heartbeat;
        loop {
            if let (Some(at), true) = (self.current, self.task.is_empty()) {
                self.begin(at);
            }
            let (first, due) = self.next_due();
            tokio::select! {
                Some(joined) = self.task.join_next() => {
                    let (work, stepped) = joined.map_err(|e| Error::bug("poll a table").because(e))?;
                    if let Some(batch) = self.ended(work, stepped)? {
                        return Ok(batch);
                    }
                }
                () = tokio::time::sleep_until(due), if self.current.is_none() => self.current = Some(first),
                () = tokio::time::sleep_until(beat) => {
                    return Ok(self.batch(BatchBuilder::default(), BTreeMap::new()));
                }
            }
        }
    }

    async fn commit(&mut self, position: &Position) -> Result<()> {
        let Some(stored) = position.source() else { return Ok(()) };
        let durable = Token::decode(&stored.token)?.number;
        for table in &mut self.tables {
            let settled = table.settles.take_if(|s| s.batch <= durable);
            if let (Some(settles), Some(ledger)) = (settled, &mut table.ledger) {
                ledger.settle(settles.indexed)?;
            }
        }
        Ok(())
    }
}
