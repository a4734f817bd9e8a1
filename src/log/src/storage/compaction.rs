//! Compaction: of every key only the newest record stays.
//!
//! A pass looks at closed segments below the last stable offset whose records are older than the topic's compaction lag. It
//! first walks the part that no pass has seen and notes each key's newest offset, as long as the table fits in its memory;
//! then it rewrites every segment up to where the table reaches, and swaps the file in. Both run without the partition's
//! lock, which is taken only to look up segments and to swap one.
//!
//! **What goes.** A record goes when its key has a newer one. A tombstone goes when a pass that covered it is older than
//! `delete.retention.ms`: every reader that began before then has had that long to see it. Aborted records and
//! markers go at once: both are below the last stable offset, so every transaction in question is decided. Committed records
//! stay as plain ones, which is what a reader without the marker must take them for. Of the batch that holds the log's last
//! offset something stays, and be it a marker: by it a reader gets to the end.
//!
//! **Why a crash is harmless.** A rewritten segment is fsynced before it takes the place of the former by rename, oldest
//! segment first: a transaction's marker is never gone while its records still say that they belong to one. Offsets never
//! change. The notes about the pass are written after its last segment; without them the pass is repeated.
//!
//! Memory: the key table (48 bytes a key, at most the configured size), one batch packed and unpacked, one MiB of output.

use super::checkpoint::CleanedTo;
use super::partition::Partition;
use super::segment::{HeaderWalk, Segment};
use super::transactions::Aborted;
use crate::batch::{BatchHeader, HEADER_BYTES, Malformed, Records, pack, patch, seal};
use crate::disk::DiskFile;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, PoisonError};

/// Bytes of one entry of the key table, with the table's slack.
const ENTRY_BYTES: usize = 48;
const OUTPUT_BYTES: usize = 1 << 20;

/// What a topic asks of compaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactionRules {
    /// Records younger than this are not touched, in milliseconds.
    pub(crate) min_lag_ms: i64,
    /// How long a tombstone stays after its pass, in milliseconds.
    pub(crate) delete_retention_ms: i64,
    /// Age in milliseconds at which the active segment is closed.
    pub(crate) segment_ms: i64,
    /// Share of bytes that no pass has seen, from which on a pass is worth while.
    pub(crate) dirty_share: f64,
    /// Memory for the key table, in bytes.
    pub(crate) buffer_bytes: usize,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub(crate) records_before: u64,
    pub(crate) records_after: u64,
}

/// A closed segment that a pass may rewrite.
struct Closed {
    base_offset: i64,
    file: Arc<DiskFile>,
    size: u64,
}

/// Newest offset by key. Keys are known by two independent keyed hashes, 128 bits together, so that two keys are mistaken for
/// one only by an accident that won't happen.
struct NewestOffsets {
    hashers: [RandomState; 2],
    by_key: HashMap<(u64, u64), i64>,
    limit: usize,
}

impl NewestOffsets {
    fn new(buffer_bytes: usize) -> NewestOffsets {
        let limit = (buffer_bytes / ENTRY_BYTES).max(1024);
        NewestOffsets { hashers: [RandomState::new(), RandomState::new()], by_key: HashMap::new(), limit }
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers[0].hash_one(key), self.hashers[1].hash_one(key))
    }

    fn note(&mut self, key: &[u8], offset: i64) {
        let hash = self.hash(key);
        self.by_key.insert(hash, offset);
    }

    fn is_full(&self) -> bool {
        self.by_key.len() >= self.limit
    }

    fn has_newer(&self, key: &[u8], offset: i64) -> bool {
        self.by_key.get(&self.hash(key)).is_some_and(|newest| *newest > offset)
    }
}

/// One pass over one partition.
struct Pass {
    newest: NewestOffsets,
    aborted: Vec<Aborted>,
    /// Offset below which tombstones were in a pass long enough ago.
    tombstones_to: i64,
    /// First offset that the key table does not cover.
    covered_to: i64,
    /// The log's last offset when the pass began.
    last: i64,
    done: Compacted,
}

impl Partition {
    /// Runs one pass.
    ///
    /// # Errors
    /// When the disk refuses or a batch can't be read; the partition is as good as before.
    pub(crate) fn compact(&self, rules: CompactionRules) -> io::Result<Compacted> {
        let _one_at_a_time = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.clock.now_ms();
        self.close_old_segment(now_ms, rules.segment_ms)?;
        let mut notes = super::checkpoint::load(&self.dir).map_err(io::Error::other)?;
        let closed = self.compactable(now_ms, rules.min_lag_ms);
        let dirty_from = notes.cleaned_to();
        let tombstones_to = notes.cleaned_before(now_ms.saturating_sub(rules.delete_retention_ms));
        let end = closed.last().map_or(0, |(_, end)| *end);
        if !worth_while(&closed, dirty_from, rules.dirty_share) && !notes.has_due_tombstones(tombstones_to) {
            return Ok(Compacted::default());
        }
        // From here on recovery must not take the holes for a lost tail.
        self.save_checkpoint(&notes)?;
        let last = self.end() - 1;
        let mut pass = Pass {
            newest: NewestOffsets::new(rules.buffer_bytes),
            aborted: self.log().transactions.all_aborted().to_vec(),
            tombstones_to,
            covered_to: dirty_from,
            last,
            done: Compacted::default(),
        };
        pass.collect_keys(&closed, dirty_from, end)?;
        for (segment, _) in &closed {
            if segment.base_offset < pass.covered_to {
                self.rewrite(segment, &mut pass)?;
            }
        }
        notes.note_pass(CleanedTo { offset: pass.covered_to, at_ms: now_ms }, tombstones_to);
        self.save_checkpoint(&notes)?;
        self.log().transactions.forget_below(pass.covered_to);
        Ok(pass.done)
    }

    /// Closed segments, each with its end, that are durable, decided and old enough throughout.
    fn compactable(&self, now_ms: i64, min_lag_ms: i64) -> Vec<(Closed, i64)> {
        let log = self.log();
        let stable = log.bounds().stable;
        let pairs = log.segments.iter().zip(log.segments.iter().skip(1));
        let old = |s: &Segment| s.index.max_timestamp().saturating_add(min_lag_ms) <= now_ms;
        pairs
            .take_while(|(segment, next)| next.base_offset <= stable && old(segment))
            .map(|(s, next)| {
                (Closed { base_offset: s.base_offset, file: s.file.clone(), size: s.size }, next.base_offset)
            })
            .collect()
    }

    /// Rewrites a segment and swaps it in, if the pass changes it.
    fn rewrite(&self, segment: &Closed, pass: &mut Pass) -> io::Result<()> {
        let target = Segment::path(&self.dir, segment.base_offset);
        let fresh = target.with_extension("cleaned");
        self.disk.remove(&fresh)?;
        let file = self.disk.open(&fresh, true)?;
        let mut output = Output { file: &file, buffer: Vec::new() };
        let changed = pass.copy(segment, &mut output)?;
        output.flush()?;
        if !changed {
            return self.disk.remove(&fresh);
        }
        if file.length()? == 0 {
            self.disk.remove(&fresh)?;
            return self.remove_empty(segment);
        }
        file.sync()?;
        drop(file);
        self.disk.rename(&fresh, &target)?;
        self.swap_in(segment)
    }

    /// Nothing of the segment stays.
    fn remove_empty(&self, segment: &Closed) -> io::Result<()> {
        let mut log = self.log();
        log.segments.retain(|s| !Arc::ptr_eq(&s.file, &segment.file));
        drop(log);
        self.disk.remove(segment.file.path())
    }

    /// Reads the index of the rewritten file, and lets readers find it. Who still reads the former one finishes with it.
    fn swap_in(&self, former: &Closed) -> io::Result<()> {
        let file = self.disk.open(&Segment::path(&self.dir, former.base_offset), false)?;
        let length = file.length()?;
        let mut rewritten = Segment::over(file, former.base_offset);
        let file = rewritten.file.clone();
        let mut walk = HeaderWalk::new(&file, 0, length);
        while let Some((_, header)) = walk.next()? {
            rewritten.note(&header, header.max_timestamp);
        }
        let mut log = self.log();
        let at = log.segments.iter().position(|s| Arc::ptr_eq(&s.file, &former.file));
        if let Some(at) = at {
            log.segments[at] = rewritten;
            log.hints.clear();
        }
        Ok(())
    }
}

impl Pass {
    /// Notes the newest offset of each key from an offset on, until the table is full or the segments end.
    fn collect_keys(&mut self, closed: &[(Closed, i64)], from: i64, end: i64) -> io::Result<()> {
        let mut batch = Vec::new();
        for (segment, segment_end) in closed.iter().filter(|(_, segment_end)| *segment_end > from) {
            let mut walk = HeaderWalk::new(&segment.file, 0, segment.size);
            while let Some((position, header)) = walk.next()? {
                if header.last_offset() < from || header.control() || self.is_aborted(&header) {
                    continue;
                }
                if self.newest.is_full() {
                    self.covered_to = header.base_offset;
                    return Ok(());
                }
                read_batch(segment, position, &header, &mut batch)?;
                self.note_keys(&header, &batch).map_err(malformed)?;
            }
            self.covered_to = *segment_end;
        }
        self.covered_to = self.covered_to.max(end);
        Ok(())
    }

    fn note_keys(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<(), Malformed> {
        let mut records = Records::new(*header, batch)?;
        while let Some(record) = records.next()? {
            if let Some(key) = record.key {
                self.newest.note(key, record.head.offset);
            }
        }
        Ok(())
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        let of_batch = |a: &Aborted| {
            a.producer_id == header.producer_id
                && (a.first_offset..a.marker_offset).contains(&header.base_offset)
        };
        header.transactional() && self.aborted.iter().any(of_batch)
    }

    /// Copies what stays; returns whether anything differs.
    fn copy(&mut self, segment: &Closed, output: &mut Output<'_>) -> io::Result<bool> {
        let mut walk = HeaderWalk::new(&segment.file, 0, segment.size);
        let (mut batch, mut changed) = (Vec::new(), false);
        while let Some((position, header)) = walk.next()? {
            read_batch(segment, position, &header, &mut batch)?;
            if header.base_offset >= self.covered_to {
                output.push(&batch)?;
                continue;
            }
            let kept = match header.control() || self.is_aborted(&header) {
                true => None,
                false => self.keep(&header, &batch).map_err(malformed)?,
            };
            if kept.is_none() && header.last_offset() == self.last {
                output.push(&batch)?;
                continue;
            }
            changed |= kept.as_deref() != Some(batch.as_slice());
            if let Some(kept) = kept {
                output.push(&kept)?;
            }
        }
        Ok(changed)
    }

    /// The batch as it stays: as it is, with fewer records and uncompressed, or not at all.
    fn keep(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let mut records = Records::new(*header, batch)?;
        let mut body = Vec::new();
        let mut count = 0;
        while let Some(record) = records.next()? {
            let offset = record.head.offset;
            let gone = record.key.is_some_and(|key| {
                let expired = record.tombstone && offset < self.tombstones_to;
                expired || self.newest.has_newer(key, offset)
            });
            if !gone {
                records.copy_to(&mut body)?;
                count += 1;
            }
        }
        self.done.records_before += header.record_count as u64;
        self.done.records_after += count as u64;
        if count == 0 {
            return Ok(None);
        }
        if count == header.record_count {
            return Ok(Some(settled(header, batch.to_vec(), count)));
        }
        let mut rebuilt = batch[..HEADER_BYTES].to_vec();
        pack(header.codec(), &body, &mut rebuilt)?;
        Ok(Some(settled(header, rebuilt, count)))
    }
}

/// The batch outside of any transaction, with its number of records; offsets, times and producer stay.
fn settled(header: &BatchHeader, mut batch: Vec<u8>, count: i32) -> Vec<u8> {
    if header.transactional() || count != header.record_count {
        patch::attributes(&mut batch, header.settled_attributes());
        patch::record_count(&mut batch, count);
        seal(&mut batch);
    }
    batch
}

fn read_batch(segment: &Closed, position: u64, header: &BatchHeader, batch: &mut Vec<u8>) -> io::Result<()> {
    batch.resize(header.length, 0);
    segment.file.read_at(batch, position)
}

fn malformed(cause: Malformed) -> io::Error {
    super::segment::invalid(&cause.to_string())
}

/// Whether enough of the segments was in no pass.
fn worth_while(closed: &[(Closed, i64)], dirty_from: i64, dirty_share: f64) -> bool {
    let bytes = |of: &dyn Fn(i64) -> bool| -> u64 {
        closed.iter().filter(|(_, end)| of(*end)).map(|(segment, _)| segment.size).sum()
    };
    let (dirty, all) = (bytes(&|end| end > dirty_from), bytes(&|_| true));
    dirty > 0 && dirty as f64 >= dirty_share * all as f64
}

/// Gathers output, so that small batches don't cost a system call each.
struct Output<'a> {
    file: &'a DiskFile,
    buffer: Vec<u8>,
}

impl Output<'_> {
    fn push(&mut self, batch: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(batch);
        if self.buffer.len() >= OUTPUT_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
