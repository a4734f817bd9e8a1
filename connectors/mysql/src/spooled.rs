//! Compressed transactions on their way through a file.
//!
//! MySQL sends a compressed transaction as one event, as long as the transaction compresses to. Its checksum stands at its end,
//! and nothing of it may be believed before that was read; so a large one is written to a file as it comes, checked, and then
//! read back as a stream.
//!
//! Memory: what one read of the socket gives. Disk: the compressed transaction. The file has no name: it is gone with the process.
//! Writing is done where the socket is read, in pieces of at most 256 KiB into the page cache.

use crate::binlog::frame::{CHECKSUM_BYTES, HEADER_BYTES, code, summed_head};
use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::Path;

/// Up to here it is collected in memory.
const IN_MEMORY: usize = 1 << 20;

/// Whether an event of this type and length goes to a file.
pub(crate) fn is_for_file(type_code: u8, bytes: usize) -> bool {
    type_code == code::TRANSACTION_PAYLOAD && bytes > IN_MEMORY
}

/// An event in a file, from its header to its checksum.
pub(crate) struct Spooled {
    /// Its header.
    pub(crate) head: [u8; HEADER_BYTES],
    /// It, rewound.
    pub(crate) file: File,
    /// Its bytes.
    pub(crate) size: usize,
    /// Whether its last four bytes are the checksum of the others.
    pub(crate) fits: bool,
}

/// An event being written.
pub(crate) struct Writer {
    file: File,
    /// Bytes of the payload: a marker, then the event.
    total: usize,
    written: usize,
    head: [u8; HEADER_BYTES],
    tail: [u8; CHECKSUM_BYTES],
    sum: crc32fast::Hasher,
}

impl Writer {
    /// For a payload of `total` bytes.
    ///
    /// # Errors
    /// `Config` if no file can be made in `dir`.
    pub(crate) fn create(dir: &Path, total: usize) -> Result<Self> {
        let (head, tail) = ([0; HEADER_BYTES], [0; CHECKSUM_BYTES]);
        Ok(Self { file: unnamed(dir)?, total, written: 0, head, tail, sum: crc32fast::Hasher::new() })
    }

    /// Bytes of the payload so far.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// `Config` if the file cannot take them.
    pub(crate) fn write(&mut self, mut part: &[u8]) -> Result<()> {
        if self.written == 0 && !part.is_empty() {
            part = &part[1..];
            self.written = 1;
        }
        self.file
            .write_all(part)
            .fault(Fault::Config, "keep a compressed transaction in a file")
            .map_err(full)?;
        let end = self.total - 1 - CHECKSUM_BYTES;
        while !part.is_empty() {
            let at = self.written - 1;
            let rest = match at {
                0..HEADER_BYTES => {
                    let n = copy(&mut self.head[at..], part);
                    if at + n == HEADER_BYTES {
                        self.sum.update(&summed_head(self.head));
                    }
                    n
                }
                _ if at < end => {
                    let n = part.len().min(end - at);
                    self.sum.update(&part[..n]);
                    n
                }
                _ => copy(&mut self.tail[at - end..], part),
            };
            self.written += rest;
            part = &part[rest..];
        }
        Ok(())
    }

    /// Ends writing.
    ///
    /// # Errors
    /// `Transient` if the file cannot be rewound.
    pub(crate) fn finish(mut self) -> Result<Spooled> {
        self.file.rewind().fault(Fault::Transient, "read a compressed transaction back")?;
        let fits = self.sum.finalize() == u32::from_le_bytes(self.tail);
        Ok(Spooled { head: self.head, file: self.file, size: self.written - 1, fits })
    }
}

fn copy(to: &mut [u8], from: &[u8]) -> usize {
    let n = to.len().min(from.len());
    to[..n].copy_from_slice(&from[..n]);
    n
}

fn full(error: Error) -> Error {
    error.hint("make room there, or set snapshot.spool_dir to a place with room for the largest transaction, compressed")
}

fn unnamed(dir: &Path) -> Result<File> {
    let path = dir.join(format!("caudal-transaction-{:016x}", rand::random::<u64>()));
    let what = format!("create a file for a compressed transaction in {}", dir.display());
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.read(true).write(true).create_new(true).open(&path);
    let file = file.fault(Fault::Config, what.clone()).map_err(full)?;
    std::fs::remove_file(&path).fault(Fault::Config, what)?;
    Ok(file)
}
