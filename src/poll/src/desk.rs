//! What outlives a reader: commands that wait for it, and where its tables stand.

use crate::note::Record;
use caudal_core::{Phase, PollRun, PollStatus, Progress, Signal};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Runs on command that are remembered.
const REMEMBERED: usize = 1_000;

/// Shared between a source and its reader.
#[derive(Default)]
pub struct Desk {
    inbox: Mutex<VecDeque<Signal>>,
    arrived: Notify,
    tables: Mutex<BTreeMap<usize, PollStatus>>,
    asked: Mutex<VecDeque<Progress>>,
}

impl Desk {
    /// Takes a command for the reader.
    pub fn signal(&self, signal: Signal) {
        lock(&self.inbox).push_back(signal);
        self.arrived.notify_one();
    }

    /// Where the tables stand.
    #[must_use]
    pub fn polls(&self) -> Vec<PollStatus> {
        lock(&self.tables).values().cloned().collect()
    }

    /// What became of runs on command.
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        lock(&self.asked).iter().cloned().collect()
    }

    pub(crate) fn take(&self) -> Option<Signal> {
        lock(&self.inbox).pop_front()
    }

    /// Until a command may have arrived.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(crate) fn put(&self, at: usize, status: PollStatus) {
        lock(&self.tables).insert(at, status);
    }

    /// A run was asked for.
    pub(crate) fn ask(&self, id: &str, table: &str, phase: Phase) {
        let mut asked = lock(&self.asked);
        if asked.len() >= REMEMBERED {
            asked.pop_front();
        }
        asked.push_back(Progress {
            id: id.to_owned(),
            reason: "poll".to_owned(),
            table: table.to_owned(),
            phase,
            rows: 0,
            delivered: 0,
            deleted: 0,
            bytes: 0,
            estimated_rows: 0,
            rows_per_second: 0,
            seconds_left: None,
        });
    }

    /// A run that was asked for has ended: a failed one is stopped.
    pub(crate) fn answer(&self, id: &str, table: &str, record: &Record) {
        for progress in lock(&self.asked).iter_mut().filter(|p| p.id == id && p.table == table) {
            progress.phase = if record.error.is_some() { Phase::Stopped } else { Phase::Done };
            (progress.rows, progress.delivered, progress.deleted) =
                (record.rows, record.changed, record.deleted);
            progress.bytes = record.bytes;
        }
    }

    /// A reader begins: what another one was asked for and did not do is not done any more.
    pub(crate) fn begin(&self) {
        lock(&self.tables).clear();
        for progress in lock(&self.asked).iter_mut().filter(|p| p.phase == Phase::Waiting) {
            progress.phase = Phase::Stopped;
        }
    }
}

// A panic while a lock is held leaves whole lists: they are as good as ever.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn run(record: &Record) -> Option<PollRun> {
    (record.run > 0).then(|| PollRun {
        number: record.run,
        planned_us: record.planned_us,
        took_us: record.took_us,
        rows: record.rows,
        changed: record.changed,
        deleted: record.deleted,
        rejected: record.rejected,
        bytes: record.bytes,
        watermark_before: record.watermark_before.clone(),
        watermark: record.watermark.clone(),
        findings: record.findings.clone(),
        cost: record.cost,
        error: record.error.clone(),
    })
}
