//! The finished file: lookups and a walk from front to back.

use crate::KeyHash;
use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of an entry: the key's hash, big-endian (so that bytes sort as numbers), then the content's.
pub(crate) const ENTRY: usize = 24;
/// Entries of a block: what one lookup reads.
pub(crate) const BLOCK: usize = 170;
/// The last bytes of a file.
pub(crate) const MAGIC: &[u8; 8] = b"caudalx1";
/// Length of sparse array, stamp and entry count, checksum, magic.
pub(crate) const TAIL: usize = 8 + 4 + 4 + 8;

/// A finished index.
#[derive(Debug)]
pub struct Index {
    file: File,
    len: u64,
    /// The first hash of each block.
    sparse: Vec<KeyHash>,
    stamp: String,
}

/// An entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number: what [`crate::Marks`] marks.
    pub at: u64,
    /// The hash of the row's content.
    pub content: u64,
}

impl Index {
    /// Opens a finished file. None if there is none, or if it is damaged or of another version: it is built anew then.
    ///
    /// # Errors
    /// `Config` if it cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::config(format!("open {}", path.display())).because(e)),
        };
        Self::read(file)
    }

    /// Reads the trailer.
    pub(crate) fn read(file: File) -> Result<Option<Self>> {
        let size = file.metadata().fault(Fault::Config, "look at a key index")?.len();
        let Some(tail_at) = size.checked_sub(TAIL as u64) else { return Ok(None) };
        let mut tail = [0; TAIL];
        read_at(&file, &mut tail, tail_at)?;
        let len = u64::from_le_bytes(part(&tail, 0));
        let stamp_len = u64::from(u32::from_le_bytes(part(&tail, 8)));
        let sum = u32::from_le_bytes(part(&tail, 12));
        let sparse_len = len.div_ceil(BLOCK as u64).saturating_mul(16);
        let whole = len.checked_mul(ENTRY as u64).and_then(|n| n.checked_add(sparse_len));
        let whole = whole.and_then(|n| n.checked_add(stamp_len)).and_then(|n| n.checked_add(TAIL as u64));
        if tail[16..] != MAGIC[..] || whole != Some(size) {
            return Ok(None);
        }
        let mut body = vec![0; (sparse_len + stamp_len) as usize];
        read_at(&file, &mut body, len * ENTRY as u64)?;
        if checksum(&body, len) != sum {
            return Ok(None);
        }
        let (sparse, stamp) = body.split_at(sparse_len as usize);
        let Ok(stamp) = String::from_utf8(stamp.to_vec()) else { return Ok(None) };
        let sparse = sparse.chunks_exact(16).map(|c| KeyHash::from_be_bytes(part(c, 0))).collect();
        Ok(Some(Self { file, len, sparse, stamp }))
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the builder was told that it reflects.
    #[must_use]
    pub fn stamp(&self) -> &str {
        &self.stamp
    }

    /// Looks up one key.
    ///
    /// # Errors
    /// `Transient` if the file cannot be read.
    pub fn find(&self, key: KeyHash) -> Result<Option<Found>> {
        Ok(self.find_all(&[key])?.pop().flatten())
    }

    /// Looks up many keys, in any order; each block is read once. The answers are in the keys' order.
    ///
    /// # Errors
    /// `Transient` if the file cannot be read.
    pub fn find_all(&self, keys: &[KeyHash]) -> Result<Vec<Option<Found>>> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&i| keys[i]);
        let mut found = vec![None; keys.len()];
        let (mut held, mut block) = (usize::MAX, Vec::new());
        for i in order {
            let Some(number) = self.sparse.partition_point(|&first| first <= keys[i]).checked_sub(1) else {
                continue;
            };
            if number != held {
                self.block(number, &mut block)?;
                held = number;
            }
            found[i] = search(&block, keys[i])
                .map(|(at, content)| Found { at: (number * BLOCK + at) as u64, content });
        }
        Ok(found)
    }

    fn block(&self, number: usize, into: &mut Vec<u8>) -> Result<()> {
        let first = (number * BLOCK) as u64;
        let count = (self.len - first).min(BLOCK as u64) as usize;
        into.resize(count * ENTRY, 0);
        read_at(&self.file, into, first * ENTRY as u64)
    }

    /// All entries, in the order of their hashes.
    ///
    /// # Errors
    /// `Transient` if the file cannot be read.
    pub fn entries(&self) -> Result<Entries<'_>> {
        use std::io::{Seek, SeekFrom};
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).fault(Fault::Transient, READ)?;
        Ok(Entries { file: BufReader::with_capacity(1 << 16, file), left: self.len })
    }
}

/// A walk over an index: (hash of the key, hash of the content).
#[derive(Debug)]
pub struct Entries<'a> {
    file: BufReader<&'a File>,
    left: u64,
}

impl Iterator for Entries<'_> {
    type Item = Result<(KeyHash, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut entry = [0; ENTRY];
        let read = self.file.read_exact(&mut entry).fault(Fault::Transient, READ);
        Some(read.map(|()| split(&entry)))
    }
}

const READ: &str = "read a key index";

fn read_at(file: &File, into: &mut [u8], at: u64) -> Result<()> {
    file.read_exact_at(into, at).fault(Fault::Transient, READ)
}

/// The two halves of an entry.
pub(crate) fn split(entry: &[u8]) -> (KeyHash, u64) {
    (KeyHash::from_be_bytes(part(entry, 0)), u64::from_le_bytes(part(entry, 16)))
}

/// An entry's bytes.
pub(crate) fn joined(key: KeyHash, content: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..16].copy_from_slice(&key.to_be_bytes());
    entry[16..].copy_from_slice(&content.to_le_bytes());
    entry
}

/// Of sparse array and stamp, and of the number of entries.
pub(crate) fn checksum(body: &[u8], len: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&len.to_le_bytes());
    hasher.finalize()
}

fn search(block: &[u8], key: KeyHash) -> Option<(usize, u64)> {
    let wanted = key.to_be_bytes();
    let (mut low, mut high) = (0, block.len() / ENTRY);
    while low < high {
        let middle = (low + high) / 2;
        let entry = &block[middle * ENTRY..][..ENTRY];
        match entry[..16].cmp(&wanted) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some((middle, split(entry).1)),
        }
    }
    None
}

/// `N` bytes of `from` at `at`, which the callers' lengths hold.
fn part<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&from[at..at + N]);
    out
}
