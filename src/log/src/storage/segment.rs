//! One segment: a file of batches with ascending offsets, named by the offset at which it begins.

use super::index::SparseIndex;
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::disk::{Disk, DiskFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that a walk over headers reads at once.
const WALK_BYTES: usize = 64 << 10;

/// One segment file and what is known of it.
pub(super) struct Segment {
    pub(super) base_offset: i64,
    pub(super) file: Arc<DiskFile>,
    /// Bytes that hold whole batches; the file may be longer while a failed write is not undone yet.
    pub(super) size: u64,
    pub(super) index: SparseIndex,
    /// When the segment got its first batch, in milliseconds since the epoch.
    pub(super) first_append_ms: Option<i64>,
}

impl Segment {
    /// Path of the segment that begins at the offset.
    pub(super) fn path(dir: &Path, base_offset: i64) -> PathBuf {
        dir.join(format!("{base_offset:020}.log"))
    }

    /// Base offset from a file name, `None` for other files.
    pub(super) fn base_of(name: &str) -> Option<i64> {
        name.strip_suffix(".log")?.parse().ok()
    }

    /// Creates an empty segment; its name is durable on return.
    pub(super) fn create(disk: &Disk, dir: &Path, base_offset: i64) -> io::Result<Segment> {
        let file = disk.open(&Segment::path(dir, base_offset), true)?;
        disk.sync_dir(dir)?;
        Ok(Segment::over(file, base_offset))
    }

    /// An existing file of which nothing is known yet.
    pub(super) fn over(file: DiskFile, base_offset: i64) -> Segment {
        Segment {
            base_offset,
            file: Arc::new(file),
            size: 0,
            index: SparseIndex::new(),
            first_append_ms: None,
        }
    }

    /// Notes a batch that stands at the end of the known bytes.
    pub(super) fn note(&mut self, header: &BatchHeader, now_ms: i64) {
        self.index.note(header.base_offset, self.size, header.max_timestamp);
        self.size += header.length as u64;
        self.first_append_ms.get_or_insert(now_ms);
    }
}

/// Walks batch headers of a file between two positions, reading ahead in blocks of 64 KiB.
pub(crate) struct HeaderWalk<'a> {
    file: &'a DiskFile,
    position: u64,
    end: u64,
    block: Vec<u8>,
    block_at: u64,
}

impl<'a> HeaderWalk<'a> {
    pub(crate) fn new(file: &'a DiskFile, from: u64, end: u64) -> HeaderWalk<'a> {
        HeaderWalk { file, position: from, end, block: Vec::new(), block_at: from }
    }

    /// The next whole batch's position and header; `None` at the end, an error for what is no batch.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, BatchHeader)>> {
        if self.position >= self.end {
            return Ok(None);
        }
        if self.end - self.position < HEADER_BYTES as u64 {
            return Err(invalid("bytes after the last batch"));
        }
        self.fill()?;
        let at = (self.position - self.block_at) as usize;
        let header = BatchHeader::decode(&self.block[at..]).map_err(|e| invalid(&e.to_string()))?;
        if header.length as u64 > self.end - self.position {
            return Err(invalid("a batch is cut short"));
        }
        let position = self.position;
        self.position += header.length as u64;
        Ok(Some((position, header)))
    }

    fn fill(&mut self) -> io::Result<()> {
        let block_end = self.block_at + self.block.len() as u64;
        if !self.block.is_empty() && self.position + HEADER_BYTES as u64 <= block_end {
            return Ok(());
        }
        let length = (self.end - self.position).min(WALK_BYTES as u64) as usize;
        self.block.resize(length, 0);
        self.block_at = self.position;
        self.file.read_at(&mut self.block, self.position)
    }
}

pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
