//! Opening a partition's folder after whatever happened, and cutting back to what is durable.

use super::partition::{LogState, PartitionLog};
use super::producers::Producers;
use super::segment::{HeaderWalk, Segment, invalid};
use super::transactions::Transactions;
use crate::batch::{BatchHeader, marker_commits};
use crate::disk::Disk;
use crate::error::Error;
use std::fs;
use std::io;
use std::path::Path;

impl PartitionLog {
    /// Reads a partition from its folder. Bytes from `keep_below` on (all, when `None`) that are no whole, intact batch are
    /// cut; what remains is fsynced, and only then counted as durable.
    pub(super) fn recover(
        disk: &Disk,
        dir: &Path,
        now_ms: i64,
        keep_below: Option<i64>,
    ) -> Result<PartitionLog, Error> {
        let checkpoint = super::checkpoint::load(dir)?;
        let mut log = PartitionLog {
            segments: Vec::new(),
            start: checkpoint.start,
            high: 0,
            end: 0,
            producers: Producers::default(),
            transactions: Transactions::default(),
            hints: Default::default(),
            dirty: Vec::new(),
            queued: false,
            cuts: 0,
            state: LogState::Ready,
        };
        let failed = |cause| Error::storage(format!("recover {}", dir.display()), cause);
        remove_unfinished(disk, dir).map_err(failed)?;
        let mut ended = false;
        for base_offset in base_offsets(dir).map_err(failed)? {
            // Without compaction, which happens below `synced` only, a segment begins where the one before ends.
            let gap = !log.segments.is_empty() && base_offset != log.end && base_offset > checkpoint.synced;
            let beyond = keep_below.is_some_and(|high| base_offset >= high && !log.segments.is_empty());
            ended |= gap || beyond;
            if ended {
                disk.remove(&Segment::path(dir, base_offset)).map_err(failed)?;
                continue;
            }
            ended = !log.recover_segment(disk, dir, base_offset, now_ms, keep_below, checkpoint.synced)?;
        }
        log.end = log.end.max(log.start);
        log.remove_below_start(disk).map_err(failed)?;
        if log.segments.is_empty() {
            log.roll(disk, dir).map_err(failed)?;
        }
        for segment in &log.segments {
            segment.file.sync().map_err(failed)?;
        }
        log.high = log.end;
        log.transactions.durable_to(log.end);
        Ok(log)
    }

    /// Removes segments that a crash left behind after the start had moved past them.
    fn remove_below_start(&mut self, disk: &Disk) -> io::Result<()> {
        while self.segments.get(1).is_some_and(|next| next.base_offset <= self.start) {
            disk.remove(self.segments.remove(0).file.path())?;
        }
        self.transactions.forget_below(self.start);
        Ok(())
    }

    /// Returns whether the whole file was good.
    fn recover_segment(
        &mut self,
        disk: &Disk,
        dir: &Path,
        base_offset: i64,
        now_ms: i64,
        keep_below: Option<i64>,
        synced: i64,
    ) -> Result<bool, Error> {
        let path = Segment::path(dir, base_offset);
        let failed = |cause| Error::storage(format!("recover {}", path.display()), cause);
        let file = disk.open(&path, false).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        let mut segment = Segment::over(file, base_offset);
        self.end = self.end.max(base_offset);
        let scanned = self.scan(&mut segment, length, now_ms, keep_below, synced);
        if let Err(e) = &scanned {
            if e.kind() != io::ErrorKind::InvalidData {
                return Err(failed(io::Error::new(e.kind(), e.to_string())));
            }
            if self.end < synced {
                return Err(Error::Damaged { path, what: format!("offset {}: {e}", self.end) });
            }
            tracing::warn!(path = %path.display(), offset = self.end, reason = %e, "cutting an unfinished tail");
        }
        let whole = segment.size == length;
        if !whole {
            segment.file.cut(segment.size).map_err(failed)?;
        }
        self.segments.push(segment);
        Ok(whole)
    }

    /// Takes over batches until the end of the file or the first that is not whole and intact (`InvalidData`).
    fn scan(
        &mut self,
        segment: &mut Segment,
        length: u64,
        now_ms: i64,
        keep_below: Option<i64>,
        synced: i64,
    ) -> io::Result<()> {
        let file = segment.file.clone();
        let mut walk = HeaderWalk::new(&file, 0, length);
        let mut body = Vec::new();
        while let Some((position, header)) = walk.next()? {
            if keep_below.is_some_and(|high| header.base_offset >= high) {
                return Ok(());
            }
            if header.base_offset < self.end {
                return Err(invalid("offsets go back"));
            }
            if header.base_offset >= synced || header.control() {
                body.resize(header.length, 0);
                file.read_at(&mut body, position)?;
                if !header.intact(&body) {
                    return Err(invalid("wrong CRC"));
                }
            }
            self.take_over(&header, &body, now_ms)?;
            segment.note(&header, header.max_timestamp.min(now_ms));
            self.end = header.last_offset() + 1;
        }
        Ok(())
    }

    fn take_over(&mut self, header: &BatchHeader, body: &[u8], now_ms: i64) -> io::Result<()> {
        let when_ms = header.max_timestamp.min(now_ms);
        if !header.control() {
            self.note_batch(header, when_ms);
        } else if let Some(commit) = marker_commits(header, body).map_err(|e| invalid(&e.to_string()))? {
            self.note_marker(header, commit, when_ms);
        }
        Ok(())
    }

    /// After a failed fsync: what is not known to be durable is cut, and the log read again from disk.
    pub(super) fn cut_back(&mut self, disk: &Disk, dir: &Path, now_ms: i64) -> io::Result<()> {
        let fresh = PartitionLog::recover(disk, dir, now_ms, Some(self.high))
            .map_err(|e| io::Error::other(e.to_string()))?;
        let (queued, cuts) = (self.queued, self.cuts);
        *self = PartitionLog { queued, cuts, ..fresh };
        Ok(())
    }
}

/// Removes what a compaction left that did not get to its end.
fn remove_unfinished(disk: &Disk, dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cleaned") {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

/// The segment files of a folder, each with the offset at which it begins, ascending.
pub(crate) fn segments(dir: &Path) -> io::Result<Vec<(i64, std::path::PathBuf)>> {
    let bases = base_offsets(dir)?;
    Ok(bases.into_iter().map(|base| (base, Segment::path(dir, base))).collect())
}

fn base_offsets(dir: &Path) -> io::Result<Vec<i64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Some(base) = entry?.file_name().to_str().and_then(Segment::base_of) {
            bases.push(base);
        }
    }
    bases.sort_unstable();
    Ok(bases)
}
