//! Where everybody sees how far the reading is: the reader writes, `/status` and the metrics look.

use crate::snapshot::run::Snapshot;
use caudal_core::{Phase, Progress, TableId};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many ended readings are shown.
const ENDED: usize = 64;
/// How many that wait are shown.
const WAITING: usize = 64;
/// How often progress is shown.
const SHOW: Duration = Duration::from_millis(200);
/// How often it is logged.
const REPORT: Duration = Duration::from_secs(2);

/// What is going on, and what ended lately. Outlives the reader.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Lists>);

#[derive(Debug, Default)]
struct Lists {
    current: Vec<Progress>,
    ended: VecDeque<Progress>,
    shown: Option<Instant>,
    reported: Option<Instant>,
}

impl Board {
    /// What ended, then what is going on.
    pub(crate) fn all(&self) -> Vec<Progress> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.ended.iter().chain(&lists.current).cloned().collect()
    }

    /// Adds one that ended.
    pub(crate) fn ended(&self, progress: Progress) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The initial snapshot of 10,000 tables must not push out what somebody asked for.
        let initial = lists.ended.iter().position(|p| p.id.is_empty());
        if lists.ended.len() >= ENDED {
            lists.ended.remove(initial.unwrap_or(0));
        }
        lists.ended.push_back(progress);
    }

    fn due(&self, report: bool, every: Duration) -> bool {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = if report { &mut lists.reported } else { &mut lists.shown };
        let due = last.is_none_or(|at| at.elapsed() >= every);
        if due {
            *last = Some(Instant::now());
        }
        due
    }

    fn show(&self, current: Vec<Progress>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).current = current;
    }
}

impl Snapshot {
    fn held_up(&self) -> Option<Phase> {
        match self.paused {
            true => Some(Phase::Paused),
            false => self.throttle_until().map(|_| Phase::Throttled),
        }
    }

    /// Shows where everything stands.
    pub(crate) fn publish(&self) {
        let held_up = self.held_up();
        let reading = self.tables.iter().map(|(_, t)| t.progress(held_up));
        let waits = |id: &str, reason: &str, table: &TableId| Progress {
            id: id.to_owned(),
            reason: reason.to_owned(),
            table: table.to_string(),
            phase: held_up.unwrap_or(Phase::Waiting),
            rows: 0,
            delivered: 0,
            deleted: 0,
            bytes: 0,
            estimated_rows: 0,
            rows_per_second: 0,
            seconds_left: None,
        };
        let first = self.first.iter().map(|(table, _)| waits("", "snapshot", table)).take(WAITING);
        let again = self.requests.iter().take(WAITING);
        let again = again.map(|r| waits(&r.asked_by, r.reason.as_str(), &r.table));
        self.board.show(reading.chain(again).chain(first).collect());
    }

    /// The same, where it happens often.
    pub(crate) fn publish_now_and_then(&self) {
        if self.board.due(false, SHOW) {
            self.publish();
        }
        if self.board.due(true, REPORT) {
            let held_up = self.held_up();
            self.tables.iter().for_each(|(_, t)| self.log(&t.progress(held_up), "snapshot"));
        }
    }

    fn log(&self, progress: &Progress, what: &str) {
        tracing::info!(
            source = self.config.name,
            table = %progress.table,
            rows = progress.rows,
            delivered = progress.delivered,
            deleted = progress.deleted,
            percent = progress.percent(),
            rows_per_second = progress.rows_per_second,
            seconds_left = progress.seconds_left.unwrap_or_default(),
            tables_left = self.tables_left(),
            "{what}"
        );
    }

    /// A table is not read any more.
    pub(crate) fn finish(&mut self, serial: u64, phase: Phase) {
        let Some(at) = self.tables.iter().position(|(s, _)| *s == serial) else { return };
        let (_, table) = self.tables.remove(at);
        if let Some(against) = &table.against {
            against.met.remove();
        }
        let progress = Progress { phase, seconds_left: None, ..table.progress(None) };
        self.log(&progress, "snapshot: table done");
        self.board.ended(progress);
        self.publish();
    }
}
