//! A partition: the lock around its log, and who is told when more of it becomes visible.

use super::producers::Producers;
use super::read::ReadHints;
use super::segment::Segment;
use super::sync::{DurableTo, Flusher};
use super::transactions::Transactions;
use super::waiters::{Waiters, Wakeup, WatchGuard};
use crate::clock::Clock;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use uuid::Uuid;

/// Which partition of which topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartitionId {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Uuid,
    pub(crate) index: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// What readers may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// First offset.
    pub(crate) start: i64,
    /// High watermark: end of what is durable.
    pub(crate) high: i64,
    /// Last stable offset: end of what is durable and decided.
    pub(crate) stable: i64,
}

/// A producer as the partition knows it, for tools.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownProducer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) last_sequence: i32,
    pub(crate) last_ms: i64,
    pub(crate) open_from: Option<i64>,
}

/// One partition.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(super) dir: PathBuf,
    pub(super) disk: Disk,
    pub(super) clock: Clock,
    pub(super) flusher: Arc<Flusher>,
    pub(super) durable: watch::Sender<DurableTo>,
    /// Held by one round of retention, compaction or record deletion at a time, never while `log` is held.
    pub(super) maintenance: Mutex<()>,
    log: Mutex<PartitionLog>,
    waiters: Waiters,
}

/// What the lock protects.
pub(super) struct PartitionLog {
    /// In ascending order of offsets, never empty; the last is the active one.
    pub(super) segments: Vec<Segment>,
    pub(super) start: i64,
    pub(super) high: i64,
    pub(super) end: i64,
    pub(super) producers: Producers,
    pub(super) transactions: Transactions,
    pub(super) hints: ReadHints,
    /// Files with bytes that no fsync covers.
    pub(super) dirty: Vec<Arc<DiskFile>>,
    /// Whether the flusher has this partition in its queue or in work.
    pub(super) queued: bool,
    /// How often the log was cut back to `high` because an fsync failed.
    pub(super) cuts: u64,
    pub(super) state: LogState,
}

/// Whether appends are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogState {
    Ready,
    /// A failed write left bytes after the last whole batch; they must be cut before the next one.
    TornTail,
    /// An fsync failed, and the log must be read again from disk before anything is appended.
    Uncertain,
    /// The topic is deleted.
    Deleted,
}

impl Partition {
    /// Opens a partition's folder, creates it when it is not there, and recovers from whatever happened.
    pub(crate) fn open(
        id: PartitionId,
        dir: &Path,
        disk: &Disk,
        clock: &Clock,
        flusher: &Arc<Flusher>,
    ) -> Result<Partition, Error> {
        disk.create_dir(dir).map_err(|cause| Error::FolderNotWritable { path: dir.into(), cause })?;
        let log = PartitionLog::recover(disk, dir, clock.now_ms(), None)?;
        let durable = watch::Sender::new(DurableTo { high: log.high, cuts: 0 });
        Ok(Partition {
            id,
            dir: dir.to_path_buf(),
            disk: disk.clone(),
            clock: clock.clone(),
            flusher: flusher.clone(),
            durable,
            maintenance: Mutex::new(()),
            log: Mutex::new(log),
            waiters: Waiters::default(),
        })
    }

    /// The log. A panic while it was held can't leave it half changed in a way that matters: offsets move last.
    pub(super) fn log(&self) -> MutexGuard<'_, PartitionLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What readers may see now.
    pub(crate) fn bounds(&self) -> Bounds {
        self.log().bounds()
    }

    /// End of what is written, durable or not.
    pub(crate) fn end(&self) -> i64 {
        self.log().end
    }

    /// Bytes on disk.
    pub(crate) fn size(&self) -> u64 {
        self.log().segments.iter().map(|s| s.size).sum()
    }

    /// Producers that wrote here lately.
    pub(crate) fn known_producers(&self) -> Vec<KnownProducer> {
        let known = |(id, p): (i64, &super::producers::Producer)| KnownProducer {
            id,
            epoch: p.epoch,
            last_sequence: p.last_sequence(),
            last_ms: p.last_ms,
            open_from: p.open_from,
        };
        self.log().producers.iter().map(known).collect()
    }

    /// Producers and first offsets of all transactions without a marker.
    pub(crate) fn undecided(&self) -> Vec<(i64, i64)> {
        self.log().transactions.undecided().collect()
    }

    /// Has `wakeup` called whenever more becomes visible, until the guard is dropped.
    pub(crate) fn watch(self: &Arc<Self>, wakeup: &Wakeup) -> WatchGuard {
        self.waiters.add(self.clone(), wakeup)
    }

    pub(super) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Refuses everything from now on; who waits is woken.
    pub(crate) fn delete(&self) {
        let _no_maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut log = self.log();
        log.state = LogState::Deleted;
        log.cuts += 1;
        let durable = DurableTo { high: log.high, cuts: log.cuts };
        drop(log);
        self.durable.send_replace(durable);
        self.waiters.wake();
    }
}

impl PartitionLog {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { start: self.start, high: self.high, stable: self.transactions.stable_offset(self.high) }
    }

    /// The segment that appends go to.
    pub(super) fn active(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has at least one segment from its recovery on")
    }

    /// Index of the segment that holds the offset, or would.
    pub(super) fn segment_of(&self, offset: i64) -> usize {
        self.segments.partition_point(|s| s.base_offset <= offset).saturating_sub(1)
    }
}
