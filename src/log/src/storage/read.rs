//! Reading whole batches, without the lock while the file is read.

use super::partition::{Bounds, Partition, PartitionLog};
use super::transactions::Aborted;
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::disk::DiskFile;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Least that is read at once when the wanted batch must be searched for.
const SEARCH_BYTES: usize = 64 << 10;
const REMEMBERED_HINTS: usize = 16;

/// What a fetch gets of one partition.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bounds: Bounds,
    /// Whole batches; the first may begin before the offset asked for.
    pub(crate) records: Bytes,
    /// For read-committed readers: whose records in it to skip.
    pub(crate) aborted: Vec<Aborted>,
}

/// Where readers are likely to go on: position of a batch by its base offset, in a certain file.
#[derive(Default)]
pub(super) struct ReadHints {
    recent: VecDeque<(i64, u64, Arc<DiskFile>)>,
}

impl ReadHints {
    fn find(&self, offset: i64, file: &Arc<DiskFile>) -> Option<u64> {
        let hint = self.recent.iter().find(|(o, _, f)| *o == offset && Arc::ptr_eq(f, file));
        hint.map(|(_, position, _)| *position)
    }

    fn note(&mut self, offset: i64, position: u64, file: Arc<DiskFile>) {
        if self.recent.len() == REMEMBERED_HINTS {
            self.recent.pop_front();
        }
        self.recent.push_back((offset, position, file));
    }

    /// Forgets everything; the files changed.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
    }
}

/// A stretch of one segment file to read.
struct Stretch {
    file: Arc<DiskFile>,
    position: u64,
    end: u64,
}

impl Partition {
    /// Reads from the offset what is visible: at least one batch if there is one, at most about `max_bytes` otherwise.
    /// Memory: `max_bytes` or the one batch. `None`: the offset is out of range.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(crate) fn read(&self, offset: i64, committed: bool, max_bytes: usize) -> io::Result<Option<Fetched>> {
        let (bounds, limit, mut aborted) = {
            let log = self.log();
            let bounds = log.bounds();
            if offset < bounds.start || offset > log.end {
                return Ok(None);
            }
            let limit = if committed { bounds.stable } else { bounds.high };
            // Taken before the file is read: compaction forgets those whose records it removed from the file's successor.
            let aborted =
                if committed { log.transactions.aborted_between(offset, limit) } else { Vec::new() };
            (bounds, limit, aborted)
        };
        let mut fetched = Fetched { bounds, records: Bytes::new(), aborted: Vec::new() };
        if offset < limit && max_bytes > 0 {
            let (records, end) = self.read_batches(offset, limit, max_bytes)?;
            fetched.records = records;
            aborted.retain(|a| a.first_offset < end);
            fetched.aborted = aborted;
        }
        Ok(Some(fetched))
    }

    /// Whole batches from the offset, all below the limit, and the offset after the last of them.
    fn read_batches(&self, offset: i64, limit: i64, max_bytes: usize) -> io::Result<(Bytes, i64)> {
        let mut from = offset;
        loop {
            let found = self.log().stretch(from);
            let Some((stretch, next_base)) = found else {
                break;
            };
            if let Some((bytes, at, end)) = stretch.read(offset, limit, max_bytes)? {
                self.log().hints.note(end, at + bytes.len() as u64, stretch.file);
                return Ok((bytes, end));
            }
            match next_base {
                Some(base) if base < limit => from = base,
                _ => break,
            }
        }
        Ok((Bytes::new(), offset))
    }
}

impl PartitionLog {
    /// Where to look for the offset, and where the next segment begins.
    fn stretch(&self, offset: i64) -> Option<(Stretch, Option<i64>)> {
        let at = self.segment_of(offset);
        let segment = self.segments.get(at)?;
        let hint = self.hints.find(offset, &segment.file);
        let position = hint.unwrap_or_else(|| segment.index.position_before(offset));
        let stretch = Stretch { file: segment.file.clone(), position, end: segment.size };
        Some((stretch, self.segments.get(at + 1).map(|s| s.base_offset)))
    }
}

impl Stretch {
    /// The batches, their position and the offset after them; `None` when the stretch ends before the offset.
    fn read(&self, offset: i64, limit: i64, max_bytes: usize) -> io::Result<Option<(Bytes, u64, i64)>> {
        let mut position = self.position;
        while position < self.end {
            let mut block = self.block(position, max_bytes.max(SEARCH_BYTES))?;
            let Some((skip, first)) = find(&block, offset) else {
                position += whole_batches(&block)?;
                continue;
            };
            if first.base_offset >= limit {
                return Ok(Some((Bytes::new(), position, offset)));
            }
            let at = position + skip as u64;
            block = block.split_off(skip);
            if block.len() < first.length {
                block = self.block(at, first.length)?;
            }
            let (length, end) = below(&block, limit, max_bytes);
            block.truncate(length);
            return Ok(Some((block.freeze(), at, end)));
        }
        Ok(None)
    }

    fn block(&self, position: u64, length: usize) -> io::Result<BytesMut> {
        let length = (self.end - position).min(length as u64) as usize;
        let mut block = BytesMut::zeroed(length);
        self.file.read_at(&mut block, position)?;
        Ok(block)
    }
}

/// Index and header of the first batch that ends at or after the offset; its body may be cut off.
fn find(block: &[u8], offset: i64) -> Option<(usize, BatchHeader)> {
    let mut at = 0;
    while let Ok(header) = BatchHeader::decode(block.get(at..)?) {
        if header.last_offset() >= offset {
            return Some((at, header));
        }
        at += header.length;
    }
    None
}

/// Bytes that the batches beginning in the block take, at least one.
fn whole_batches(block: &[u8]) -> io::Result<u64> {
    let mut at = 0;
    while let Some(rest) = block.get(at..)
        && rest.len() >= HEADER_BYTES
    {
        let header = BatchHeader::decode(rest).map_err(|e| super::segment::invalid(&e.to_string()))?;
        at += header.length;
    }
    if at == 0 { Err(super::segment::invalid("a batch is cut short")) } else { Ok(at as u64) }
}

/// Bytes of the whole batches below the limit, at most about `max_bytes`, and the offset after them.
fn below(block: &[u8], limit: i64, max_bytes: usize) -> (usize, i64) {
    let (mut at, mut end) = (0, 0);
    while let Ok(header) = BatchHeader::decode(&block[at..]) {
        let next = at + header.length;
        if next > block.len() || header.base_offset >= limit || (at > 0 && next > max_bytes) {
            break;
        }
        at = next;
        end = header.last_offset() + 1;
    }
    (at, end)
}
