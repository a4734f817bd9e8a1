//! The running ledger: one lock for state and journal, one thread that fsyncs and snapshots.

use super::LedgerFault;
use super::event::{Event, FORMAT};
use super::files;
use super::state::LedgerState;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// A journal is replaced by a snapshot when it is longer than this and than twice the last snapshot.
const SNAPSHOT_AFTER_BYTES: u64 = 1 << 20;

/// Time between attempts to begin anew after a failed fsync.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The ledger of one log.
pub(crate) struct Ledger {
    dir: PathBuf,
    disk: Disk,
    inner: Mutex<Inner>,
    work: Condvar,
    durable: watch::Sender<DurableEvents>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Copy)]
struct DurableEvents {
    number: u64,
    /// Fsyncs that failed so far; whoever waited then does not know.
    failures: u64,
}

struct Inner {
    state: LedgerState,
    journal: Arc<DiskFile>,
    /// Number in the names of the current files.
    file_number: u64,
    /// Bytes of whole lines in the journal.
    length: u64,
    snapshot_bytes: u64,
    /// Events recorded so far.
    number: u64,
    torn: bool,
    /// An fsync failed: the files must be begun anew before anything else is recorded.
    uncertain: bool,
    closed: bool,
}

impl Ledger {
    /// Reads the folder, begins a new snapshot and journal, starts the thread.
    pub(crate) fn open(dir: &Path, disk: &Disk) -> Result<Arc<Ledger>, Error> {
        let loaded = files::load(dir)?;
        let failed = |cause| Error::storage(format!("begin a journal in {}", dir.display()), cause);
        let file_number = loaded.last_number + 1;
        let snapshot = serde_json::to_vec(&loaded.state).map_err(|e| failed(e.into()))?;
        let (journal, length) = begin(disk, dir, file_number).map_err(failed)?;
        journal.sync().map_err(failed)?;
        disk.replace(&files::state_path(dir, file_number), &snapshot).map_err(failed)?;
        files::remove_below(disk, dir, file_number).map_err(failed)?;
        let ledger = Arc::new(Ledger {
            dir: dir.to_path_buf(),
            disk: disk.clone(),
            inner: Mutex::new(Inner {
                state: loaded.state,
                journal: Arc::new(journal),
                file_number,
                length,
                snapshot_bytes: snapshot.len() as u64,
                number: 0,
                torn: false,
                uncertain: false,
                closed: false,
            }),
            work: Condvar::new(),
            durable: watch::Sender::new(DurableEvents { number: 0, failures: 0 }),
            thread: Mutex::new(None),
        });
        let own = ledger.clone();
        let thread = std::thread::Builder::new().name("log-journal".into()).spawn(move || own.work_off());
        *ledger.thread() = Some(thread.map_err(failed)?);
        Ok(ledger)
    }

    /// Looks at the state.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&LedgerState) -> R) -> R {
        look(&self.lock().state)
    }

    /// Writes an event and applies it; returns its number. It is not durable yet.
    ///
    /// # Errors
    /// When the disk refuses; nothing has changed then.
    pub(crate) fn record(&self, event: &Event) -> Result<u64, LedgerFault> {
        self.decide(|_| Some(event.clone())).map(|number| number.unwrap_or(0))
    }

    /// Looks at the state and records what follows from it, if anything, in one step.
    ///
    /// # Errors
    /// When the disk refuses; nothing has changed then.
    pub(crate) fn decide(
        &self,
        decide: impl FnOnce(&LedgerState) -> Option<Event>,
    ) -> Result<Option<u64>, LedgerFault> {
        let mut inner = self.lock();
        let Some(event) = decide(&inner.state) else {
            return Ok(None);
        };
        let fault = |e: io::Error| LedgerFault(e.to_string());
        self.make_ready(&mut inner).map_err(fault)?;
        let line = files::line(&event).map_err(fault)?;
        if let Err(e) = inner.journal.append(&line) {
            inner.torn = true;
            let _ = inner.cut_torn_line();
            return Err(fault(e));
        }
        inner.length += line.len() as u64;
        inner.state.apply(&event);
        inner.number += 1;
        let number = inner.number;
        drop(inner);
        self.work.notify_one();
        Ok(Some(number))
    }

    /// Waits until the event with the number is durable.
    ///
    /// # Errors
    /// When an fsync failed meanwhile; the event counts, and will be durable with the next that succeeds.
    pub(crate) async fn durable(&self, number: u64) -> Result<(), LedgerFault> {
        let mut durable = self.durable.subscribe();
        let failures = durable.borrow().failures;
        let seen = durable.wait_for(|d| d.number >= number || d.failures != failures).await;
        match seen {
            Ok(d) if d.number >= number => Ok(()),
            _ => Err(LedgerFault("fsync failed".into())),
        }
    }

    /// Waits until everything recorded so far is durable.
    pub(crate) async fn all_durable(&self) -> Result<(), LedgerFault> {
        let number = {
            let mut inner = self.lock();
            self.make_ready(&mut inner).map_err(|e| LedgerFault(e.to_string()))?;
            inner.number
        };
        self.durable(number).await
    }

    /// Fsyncs what is left and ends the thread.
    pub(crate) fn finish(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        if let Some(thread) = self.thread().take() {
            let _ = thread.join();
        }
    }

    fn work_off(&self) {
        while let Some((journal, number)) = self.next_round() {
            let outcome = journal.sync();
            let mut inner = self.lock();
            // A journal that was begun anew meanwhile was fsynced with all that came before.
            let current = Arc::ptr_eq(&inner.journal, &journal);
            if current && let Err(cause) = &outcome {
                tracing::error!(%cause, "fsync of the journal failed");
                inner.uncertain = true;
            }
            let failed = current && outcome.is_err();
            let due = !failed && inner.length > SNAPSHOT_AFTER_BYTES.max(2 * inner.snapshot_bytes);
            drop(inner);
            self.durable.send_modify(
                |d| {
                    if failed { d.failures += 1 } else { d.number = d.number.max(number) }
                },
            );
            if due && let Err(cause) = self.snapshot() {
                tracing::error!(%cause, "snapshot of the journal failed; the next round tries again");
            }
        }
    }

    fn next_round(&self) -> Option<(Arc<DiskFile>, u64)> {
        let mut inner = self.lock();
        loop {
            let waiting = inner.number > self.durable.borrow().number && !inner.uncertain;
            if waiting {
                return Some((inner.journal.clone(), inner.number));
            }
            if inner.closed {
                return None;
            }
            if inner.uncertain {
                inner = self.retry_later(inner);
                continue;
            }
            inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a failed fsync nobody may come to repair it: the thread itself tries until it succeeds.
    fn retry_later<'a>(&'a self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let waited = self.work.wait_timeout(inner, RETRY_AFTER);
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        if inner.uncertain
            && let Err(cause) = self.begin_anew(&mut inner)
        {
            tracing::error!(%cause, "begin the journal anew");
            // Who began to wait after the fsync had failed hears of it here.
            self.durable.send_modify(|d| d.failures += 1);
        }
        inner
    }

    fn make_ready(&self, inner: &mut Inner) -> io::Result<()> {
        if inner.torn {
            inner.cut_torn_line()?;
        }
        if inner.uncertain {
            self.begin_anew(inner)?;
            self.work.notify_one();
        }
        Ok(())
    }

    /// Snapshot and new journal, both durable, while nothing else is recorded. For after a failed fsync only.
    fn begin_anew(&self, inner: &mut Inner) -> io::Result<()> {
        let number = inner.file_number + 1;
        let (journal, length) = begin(&self.disk, &self.dir, number)?;
        journal.sync()?;
        let snapshot = serde_json::to_vec(&inner.state)?;
        self.disk.replace(&files::state_path(&self.dir, number), &snapshot)?;
        inner.replace_journal(journal, number, length, snapshot.len());
        inner.uncertain = false;
        let recorded = inner.number;
        self.durable.send_modify(|d| d.number = d.number.max(recorded));
        files::remove_below(&self.disk, &self.dir, number)
    }

    /// Snapshot and new journal while recording goes on: the new journal is begun first, the old one made durable, and the
    /// snapshot of the state between them written last; until it is there, a start reads both journals.
    fn snapshot(&self) -> io::Result<()> {
        let (state, old, number) = {
            let mut inner = self.lock();
            let number = inner.file_number + 1;
            let (journal, length) = begin(&self.disk, &self.dir, number)?;
            // Lines of the new journal count only after the old one is durable.
            inner.journal.sync()?;
            let state = serde_json::to_vec(&inner.state)?;
            let old = inner.replace_journal(journal, number, length, state.len());
            (state, old, number)
        };
        drop(old);
        self.disk.replace(&files::state_path(&self.dir, number), &state)?;
        files::remove_below(&self.disk, &self.dir, number)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn cut_torn_line(&mut self) -> io::Result<()> {
        self.journal.cut(self.length)?;
        self.torn = false;
        Ok(())
    }

    fn replace_journal(
        &mut self,
        journal: DiskFile,
        number: u64,
        length: u64,
        snapshot: usize,
    ) -> Arc<DiskFile> {
        self.file_number = number;
        self.length = length;
        self.snapshot_bytes = snapshot as u64;
        std::mem::replace(&mut self.journal, Arc::new(journal))
    }
}

/// Creates the journal with the number; its name is durable on return.
fn begin(disk: &Disk, dir: &Path, number: u64) -> io::Result<(DiskFile, u64)> {
    let path = files::journal_path(dir, number);
    // What an interrupted attempt left under this number was never used.
    disk.remove(&path)?;
    let journal = disk.open(&path, true)?;
    let first = files::line(&Event::Begun { format: FORMAT })?;
    journal.append(&first)?;
    disk.sync_dir(dir)?;
    Ok((journal, first.len() as u64))
}
