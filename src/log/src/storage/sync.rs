//! Group commit: a few threads fsync, all producers that wrote meanwhile share the next fsync of their partition.
//!
//! A partition is in the queue at most once; while its files are fsynced, further batches gather for the next round.
//! Memory: one queue entry per partition.

use super::partition::{LogState, Partition, PartitionLog};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How far a partition is durable, as waiting producers see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DurableTo {
    pub(super) high: i64,
    pub(super) cuts: u64,
}

/// A place in a partition that becomes durable, or is lost.
pub(crate) struct Durability {
    partition: Arc<Partition>,
    end: i64,
    cuts: u64,
}

/// The fsync failed, and the log was cut back; or the topic was deleted.
#[derive(Debug, thiserror::Error)]
#[error("the disk did not take the batch")]
pub(crate) struct NotDurable;

impl Durability {
    /// Waits until an fsync has covered the place.
    ///
    /// # Errors
    /// When an fsync failed meanwhile: the batch is gone, unless it was durable just before (a retry then finds it).
    pub(crate) async fn reached(self) -> Result<(), NotDurable> {
        let mut durable = self.partition.durable.subscribe();
        let seen =
            durable.wait_for(|d| d.cuts != self.cuts || d.high >= self.end).await.map_err(|_| NotDurable)?;
        if seen.cuts == self.cuts { Ok(()) } else { Err(NotDurable) }
    }
}

impl Partition {
    pub(super) fn durability(self: &Arc<Self>, log: &PartitionLog, end: i64) -> Durability {
        Durability { partition: self.clone(), end, cuts: log.cuts }
    }

    /// Everything written so far; of a deleted partition nothing is waited for.
    pub(crate) fn all_written(self: &Arc<Self>) -> Durability {
        let log = self.log();
        let end = if log.state == LogState::Deleted { log.high } else { log.end };
        self.durability(&log, end)
    }

    /// Asks for an fsync of what was written.
    pub(super) fn request_sync(self: &Arc<Self>, log: &mut PartitionLog) {
        if !log.queued && !log.dirty.is_empty() {
            log.queued = true;
            self.flusher.push(self.clone());
        }
    }

    /// One round: fsync what was written up to now, then let it be seen.
    fn sync_round(self: &Arc<Self>) {
        let (files, end) = {
            let mut log = self.log();
            (std::mem::take(&mut log.dirty), log.end)
        };
        let outcome = files.iter().try_for_each(|file| file.sync());
        let mut log = self.log();
        match outcome {
            Ok(()) if log.state != LogState::Deleted => {
                log.high = end;
                log.transactions.durable_to(end);
            }
            Ok(()) => {}
            Err(e) => self.lose_unsynced(&mut log, &e),
        }
        log.queued = false;
        self.request_sync(&mut log);
        let durable = DurableTo { high: log.high, cuts: log.cuts };
        drop(log);
        self.durable.send_replace(durable);
        self.waiters().wake();
    }

    fn lose_unsynced(&self, log: &mut PartitionLog, cause: &std::io::Error) {
        tracing::error!(partition = %self.id, %cause, "fsync failed: cutting back to the last durable offset");
        log.cuts += 1;
        if log.state == LogState::Deleted {
            return;
        }
        log.state = LogState::Uncertain;
        log.dirty.clear();
        if let Err(e) = log.cut_back(&self.disk, &self.dir, self.clock.now_ms()) {
            tracing::error!(partition = %self.id, cause = %e, "cut back: the partition refuses writes until it succeeds");
        }
    }
}

/// The threads that fsync.
pub(crate) struct Flusher {
    queue: Mutex<Queue>,
    work: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    partitions: VecDeque<Arc<Partition>>,
    closed: bool,
}

impl Flusher {
    /// Starts the threads.
    pub(crate) fn start(threads: usize) -> std::io::Result<Arc<Flusher>> {
        let flusher =
            Arc::new(Flusher { queue: Mutex::default(), work: Condvar::new(), threads: Mutex::default() });
        for n in 0..threads {
            let own = flusher.clone();
            let thread =
                std::thread::Builder::new().name(format!("log-sync-{n}")).spawn(move || own.work_off())?;
            flusher.threads().push(thread);
        }
        Ok(flusher)
    }

    /// Lets the queue run empty and ends the threads.
    pub(crate) fn finish(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            let _ = thread.join();
        }
    }

    fn push(&self, partition: Arc<Partition>) {
        self.lock().partitions.push_back(partition);
        self.work.notify_one();
    }

    fn work_off(&self) {
        while let Some(partition) = self.next() {
            partition.sync_round();
        }
    }

    fn next(&self) -> Option<Arc<Partition>> {
        let mut queue = self.lock();
        loop {
            if let Some(partition) = queue.partitions.pop_front() {
                return Some(partition);
            }
            if queue.closed {
                return None;
            }
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
