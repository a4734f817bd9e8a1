//! Moving the start of a partition: deleted records, retention by time and by size.

use super::checkpoint::{self, Checkpoint};
use super::partition::Partition;
use std::io;
use std::sync::PoisonError;

/// What a topic keeps. `None` keeps all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Age in milliseconds.
    pub(crate) ms: Option<i64>,
    /// Size in bytes.
    pub(crate) bytes: Option<u64>,
    /// Age in milliseconds at which even the active segment is closed.
    pub(crate) segment_ms: i64,
}

impl Partition {
    /// Makes the offset the first one; segments wholly below it are removed. Durable on return.
    /// `None` when the offset is beyond the high watermark; else the new start.
    ///
    /// # Errors
    /// When the disk refuses; the start has not moved then.
    pub(crate) fn delete_before(&self, offset: i64) -> io::Result<Option<i64>> {
        let _one_at_a_time = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        self.move_start(offset)
    }

    fn move_start(&self, offset: i64) -> io::Result<Option<i64>> {
        {
            let log = self.log();
            if offset > log.high {
                return Ok(None);
            }
            if offset <= log.start {
                return Ok(Some(log.start));
            }
        }
        // The checkpoint goes first: a crash between the two leaves files that the next start ignores and removes.
        let notes = checkpoint::load(&self.dir).map_err(io::Error::other)?;
        self.save_checkpoint_from(&notes, offset)?;
        let gone: Vec<_> = {
            let mut log = self.log();
            log.start = offset;
            log.transactions.forget_below(offset);
            log.hints.clear();
            let kept = log.segments.iter().skip(1).take_while(|s| s.base_offset <= offset).count();
            log.segments.drain(..kept).map(|s| s.file).collect()
        };
        for file in gone {
            self.disk.remove(file.path())?;
        }
        Ok(Some(offset))
    }

    /// Removes closed segments that are older or more than the topic keeps.
    ///
    /// # Errors
    /// When the disk refuses; the next round tries again.
    pub(crate) fn retain(&self, keep: Retention) -> io::Result<()> {
        let _one_at_a_time = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.clock.now_ms();
        self.close_old_segment(now_ms, keep.ms.map_or(keep.segment_ms, |ms| ms.min(keep.segment_ms)))?;
        let start = self.first_kept(now_ms, keep);
        self.move_start(start)?;
        Ok(())
    }

    /// Closes the active segment once its first batch is older than the age, so that it can be retained or compacted.
    pub(super) fn close_old_segment(&self, now_ms: i64, age_ms: i64) -> io::Result<()> {
        let mut log = self.log();
        let old = log.active().first_append_ms.is_some_and(|ms| ms.saturating_add(age_ms) <= now_ms);
        if old && log.active().size > 0 && log.state == super::partition::LogState::Ready {
            log.roll(&self.disk, &self.dir)?;
        }
        Ok(())
    }

    /// First offset that the rules keep: a segment's base, never beyond what is durable and decided.
    fn first_kept(&self, now_ms: i64, keep: Retention) -> i64 {
        let log = self.log();
        let stable = log.bounds().stable;
        let mut rest: u64 = log.segments.iter().map(|s| s.size).sum();
        let mut first = log.start;
        for (segment, next) in log.segments.iter().zip(log.segments.iter().skip(1)) {
            rest -= segment.size;
            let old = keep.ms.is_some_and(|ms| segment.index.max_timestamp().saturating_add(ms) <= now_ms);
            let surplus = keep.bytes.is_some_and(|bytes| rest >= bytes);
            if !(old || surplus) || next.base_offset > stable {
                break;
            }
            first = next.base_offset;
        }
        first
    }

    /// Notes how far the partition is durable, so that a later start checks only what follows.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn checkpoint(&self) -> io::Result<()> {
        let _one_at_a_time = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = checkpoint::load(&self.dir).map_err(io::Error::other)?;
        let moved = {
            let mut log = self.log();
            log.producers.expire(self.clock.now_ms());
            (notes.start, notes.synced) != (log.start, log.high)
        };
        if moved { self.save_checkpoint(&notes) } else { Ok(()) }
    }

    /// Writes the notes with the present start and high watermark.
    pub(super) fn save_checkpoint(&self, notes: &Checkpoint) -> io::Result<()> {
        let start = self.log().start;
        self.save_checkpoint_from(notes, start)
    }

    fn save_checkpoint_from(&self, notes: &Checkpoint, start: i64) -> io::Result<()> {
        let synced = self.log().high;
        notes.moved_to(start, synced).save(&self.disk, &self.dir)
    }
}
