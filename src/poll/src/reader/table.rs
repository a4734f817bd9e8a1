//! One job: where it stands, and when it is due.

use super::work::Work;
use crate::Job;
use crate::asked::Asked;
use crate::desk::{self, Desk};
use crate::ledger::Ledger;
use crate::note::Record;
use crate::run::Run;
use caudal_core::{PollStatus, Result};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a run waits for the one before to be called durable. Then it begins without knowing anything: all rows go out.
const GRACE: Duration = Duration::from_secs(60);

/// Runs on command that wait, and commands that share one, at most.
const MOST_WANTED: usize = 100;

pub(super) struct Table {
    pub(super) job: Arc<Job>,
    pub(super) record: Record,
    /// Not here while a step has it.
    pub(super) ledger: Option<Ledger>,
    pub(super) run: Option<Run>,
    pub(super) began: Instant,
    /// The time that the run which goes on, or else the next one, is for.
    pub(super) planned: Timestamp,
    /// Until when the page that failed is not tried again.
    pub(super) paused: Option<Instant>,
    pub(super) failures: u32,
    /// A step of a run was done, or goes on.
    pub(super) running: bool,
    /// Runs that were asked for: by which commands, and how they are to be.
    pub(super) wanted: VecDeque<(Vec<String>, Asked)>,
    /// The commands that asked for the run that goes on.
    demanded: Vec<String>,
    /// How that one is.
    how: Asked,
    /// How often the run began anew because of its rows' shape.
    pub(super) reshaped: u32,
    /// The same, because what was being read was lost.
    pub(super) lost: u32,
    settles: Option<Settles>,
    /// Rows were handed on that the index does not know: it is made anew from the log.
    pub(super) torn: bool,
    /// The position says so.
    pub(super) told_torn: bool,
    /// Its last run since this reader was opened has failed.
    pub(super) failed: bool,
}

/// What waits until a batch is durable.
struct Settles {
    batch: u64,
    /// The run's number, for the index; none of a run that failed, whose changes do not hold.
    indexed: Option<u64>,
    since: Instant,
}

impl Table {
    pub(super) fn open(dir: &Path, job: Job, (record, torn): (Record, bool), now: Timestamp) -> Result<Self> {
        let ledger = Ledger::open(dir, &job, record.indexed, record.complete)?;
        let planned = job.schedule.next(last(&record), now);
        Ok(Self {
            job: Arc::new(job),
            record,
            ledger: Some(ledger),
            run: None,
            began: Instant::now(),
            planned,
            paused: None,
            failures: 0,
            running: false,
            wanted: VecDeque::new(),
            demanded: Vec::new(),
            how: Asked::default(),
            reshaped: 0,
            lost: 0,
            settles: None,
            torn,
            told_torn: torn,
            failed: false,
        })
    }

    /// What its next step needs of it; none while a step goes on.
    pub(super) fn work(&mut self, at: usize) -> Option<Work> {
        let ledger = self.ledger.take()?;
        self.paused = None;
        self.running = true;
        if self.begins_now() {
            self.began = Instant::now();
            if let Some((ids, how)) = self.wanted.pop_front() {
                (self.demanded, self.how) = (ids, how);
            }
        }
        Some(Work {
            at,
            job: self.how.job(&self.job),
            dry: self.how.dry,
            record: self.record.clone(),
            planned: self.planned,
            // What is not known to be durable is not known at all.
            unsettled: self.settles.take().is_some(),
            torn: self.torn,
            ledger,
            run: self.run.take(),
            session: None,
            system: None,
            written: None,
            shapes: Arc::default(),
        })
    }

    /// When its next step is. A run that is not known to be durable holds its next one up for a while.
    pub(super) fn due(&self, now: Instant, wall: Timestamp) -> Instant {
        if let Some(until) = self.paused {
            return until;
        }
        if self.run.is_some() {
            return now;
        }
        let left = Duration::try_from(self.begins(wall).duration_since(wall)).unwrap_or(Duration::ZERO);
        // The heart beats long before: a bound for the arithmetic.
        let due = match self.reshaped + self.lost > 0 {
            true => now,
            false => now + left.min(Duration::from_secs(86_400)),
        };
        self.settles.as_ref().map_or(due, |s| due.max(s.since + GRACE))
    }

    /// When the next run begins.
    fn begins(&self, wall: Timestamp) -> Timestamp {
        match self.wanted.is_empty() {
            false => wall,
            true => self.job.schedule.begins(&self.job.name(), self.planned, wall),
        }
    }

    /// Whether its time has come, but the run before is not known to be durable.
    pub(super) fn is_held_up(&self, now: Instant, wall: Timestamp) -> bool {
        let is_time = self.reshaped + self.lost > 0 || (!self.running && self.begins(wall) <= wall);
        self.settles.is_some() && self.run.is_none() && is_time && self.due(now, wall) > now
    }

    /// Whether its last run is not known to be durable.
    pub(super) fn awaits(&self) -> bool {
        self.settles.is_some()
    }

    /// A run is to begin at once, or after the one that goes on: what that one has read may be older than the command.
    /// Commands that ask for the same share a run. Whether it was taken up: not if too many wait.
    pub(super) fn demand(&mut self, id: &str, asked: &Asked, now: Timestamp) -> bool {
        let waiting = self.wanted.len();
        match self.wanted.back_mut() {
            Some((ids, how)) if how == asked && ids.len() < MOST_WANTED => ids.push(id.to_owned()),
            _ if waiting < MOST_WANTED => self.wanted.push_back((vec![id.to_owned()], asked.clone())),
            _ => return false,
        }
        if !self.running {
            self.planned = now;
        }
        true
    }

    /// After a pause its times are those that a restart finds.
    pub(super) fn resumes(&mut self, now: Timestamp) {
        if !self.running && self.wanted.is_empty() {
            self.planned = self.job.schedule.next(last(&self.record), now);
        }
    }

    /// Whether its next step is the first of a run.
    fn begins_now(&self) -> bool {
        self.run.is_none() && self.failures == 0 && self.reshaped + self.lost == 0
    }

    /// Whether the run that goes on is one of which nothing goes out.
    pub(super) fn is_dry(&self) -> bool {
        self.how.dry
    }

    /// Tells who asked for the run that has ended.
    pub(super) fn answer(&mut self, desk: &Desk) {
        for id in self.demanded.drain(..) {
            desk.answer(&id, &self.job.name(), &self.record);
        }
    }

    /// A run of which nothing goes out has ended: it is told, and else as if it had not been.
    pub(super) fn rehearsed(&mut self, record: &Record, desk: &Desk, now: Timestamp) {
        for id in self.demanded.drain(..) {
            desk.answer(&id, &self.job.name(), record);
        }
        self.over(self.record.clone(), now);
    }

    pub(super) fn status(&self) -> PollStatus {
        let next = self.job.schedule.upcoming(self.planned, 3);
        PollStatus {
            table: self.job.table.to_string(),
            store: self.job.scope.as_ref().map(|scope| scope.name.clone()),
            mode: self.job.mode.name().to_owned(),
            schedule: self.job.schedule.text(),
            running: self.running,
            next_us: next.iter().map(|at| at.as_microsecond()).collect(),
            last: desk::run(&self.record),
        }
    }

    /// The run's record goes with the batch of this number.
    pub(super) fn ends(&mut self, record: Record, batch: u64, now: Timestamp) {
        self.settles = Some(Settles { batch, indexed: Some(record.indexed), since: Instant::now() });
        self.failed = false;
        self.over(record, now);
    }

    /// The run has failed for good.
    pub(super) fn fails(&mut self, record: Record, now: Timestamp) {
        self.failed = true;
        self.over(record, now);
    }

    /// A run ends without its last page, or begins anew, after batches up to this number: what it has changed so far is in the log, and is learnt from there.
    pub(super) fn tears(&mut self, batch: u64) {
        if self.told_torn && self.ledger.as_ref().is_some_and(Ledger::is_changing) {
            self.torn = true;
            self.settles = Some(Settles { batch, indexed: None, since: Instant::now() });
        }
    }

    fn over(&mut self, record: Record, now: Timestamp) {
        self.record = record;
        self.run = None;
        self.running = false;
        (self.failures, self.reshaped, self.lost, self.paused) = (0, 0, 0, None);
        self.how = Asked::default();
        self.planned = match self.wanted.is_empty() {
            false => now,
            true => self.job.schedule.next(Some(self.planned), now),
        };
    }

    /// All batches up to this number are durable.
    pub(super) fn settle(&mut self, durable: u64) -> Result<()> {
        let settled = self.settles.take_if(|s| s.batch <= durable);
        if let (Some(Settles { indexed: Some(indexed), .. }), Some(ledger)) = (settled, &mut self.ledger) {
            ledger.settle(indexed)?;
        }
        Ok(())
    }
}

/// The time that the last run was for. What an earlier release wrote tells none: then as if nothing was ever read.
fn last(record: &Record) -> Option<Timestamp> {
    (record.planned_us > 0).then(|| Timestamp::from_microsecond(record.planned_us).ok()).flatten()
}
