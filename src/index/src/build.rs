//! Building: what is put in goes, by the hash's first six bits, into 64 parts of one spool file; at the end each part is sorted in
//! memory (of several puts of a key the last one counts) and merged with the part of the index before.

use crate::KeyHash;
use crate::file::{BLOCK, ENTRY, Index, MAGIC, checksum, joined, split};
use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Parts of the spool.
const PARTS: usize = 64;
/// Bytes of a part that are kept in memory: a whole number of entries.
const BUFFER: usize = ENTRY * 680;
/// The content that stands for "removed".
const REMOVED: u64 = 0;

/// Takes keys in any order and makes an index of them.
#[derive(Debug)]
pub struct Builder {
    path: PathBuf,
    base: Option<Index>,
    spool: File,
    /// Bytes written to the spool.
    spooled: u64,
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    buffer: Vec<u8>,
    /// Where its full buffers lie in the spool.
    blocks: Vec<u64>,
}

impl Builder {
    /// Will make the file `path`, from nothing or from what `base` holds. Its folder must exist. Beside the file, up to as
    /// much again is needed on disk while it is made.
    ///
    /// # Errors
    /// `Config` if nothing can be written there.
    pub fn new(path: &Path, base: Option<Index>) -> Result<Self> {
        let spool = path.with_extension("spool");
        let what = || format!("create {}", spool.display());
        let file = options().open(&spool).fault(Fault::Config, what()).map_err(full)?;
        // It is gone with the process.
        std::fs::remove_file(&spool).fault(Fault::Config, what())?;
        Ok(Self {
            path: path.to_owned(),
            base,
            spool: file,
            spooled: 0,
            parts: (0..PARTS).map(|_| Part::default()).collect(),
        })
    }

    /// The key has this content from now on.
    ///
    /// # Errors
    /// `Config` if the disk is full.
    pub fn put(&mut self, key: KeyHash, content: u64) -> Result<()> {
        self.push(key, content.max(1))
    }

    /// The key is there no more.
    ///
    /// # Errors
    /// As for [`Builder::put`].
    pub fn remove(&mut self, key: KeyHash) -> Result<()> {
        self.push(key, REMOVED)
    }

    /// All keys are there no more, those of the base too.
    ///
    /// # Errors
    /// As for [`Builder::put`].
    pub fn clear(&mut self) -> Result<()> {
        self.base = None;
        self.spooled = 0;
        self.parts.iter_mut().for_each(|part| *part = Part::default());
        self.spool.set_len(0).fault(Fault::Config, "empty a spool")
    }

    fn push(&mut self, key: KeyHash, content: u64) -> Result<()> {
        let part = &mut self.parts[(key >> 122) as usize];
        part.buffer.extend_from_slice(&joined(key, content));
        if part.buffer.len() >= BUFFER {
            let written = self.spool.write_all_at(&part.buffer, self.spooled);
            written.fault(Fault::Config, "write a spool of keys").map_err(full)?;
            part.blocks.push(self.spooled);
            self.spooled += BUFFER as u64;
            part.buffer.clear();
        }
        Ok(())
    }

    /// Makes the file, durably and in one step, and opens it. `stamp` says what it reflects.
    ///
    /// # Errors
    /// `Config` if the disk is full, `Transient` if what was written cannot be read.
    pub fn finish(self, stamp: &str) -> Result<Index> {
        let new = self.path.with_extension("new");
        let what = || format!("write {}", new.display());
        let file = options().open(&new).fault(Fault::Config, what()).map_err(full)?;
        let mut out = Out { file: BufWriter::with_capacity(1 << 18, file), len: 0, sparse: Vec::new() };
        let mut base = self.base.as_ref().map(Index::entries).transpose()?.into_iter().flatten().peekable();
        for number in 0..PARTS {
            let entries = self.part(number)?;
            let end = (number as u128 + 1) << 122;
            merge(&mut out, &mut base, &entries, (number + 1 < PARTS).then_some(end))?;
        }
        drop(base);
        let file = out.finish(stamp)?;
        std::fs::rename(&new, &self.path).fault(Fault::Config, what())?;
        Index::read(file)?.ok_or_else(|| Error::bug("read the key index that was just written"))
    }

    /// A part's entries, sorted, one for each key.
    fn part(&self, number: usize) -> Result<Vec<[u8; ENTRY]>> {
        let part = &self.parts[number];
        let mut bytes = vec![0; part.blocks.len() * BUFFER];
        for (block, into) in part.blocks.iter().zip(bytes.chunks_exact_mut(BUFFER)) {
            self.spool.read_exact_at(into, *block).fault(Fault::Transient, "read a spool of keys")?;
        }
        bytes.extend_from_slice(&part.buffer);
        let mut entries = bytes.as_chunks::<ENTRY>().0.to_vec();
        drop(bytes);
        // The sort is stable: of one key, the last put comes first then, and is the one that is kept.
        entries.reverse();
        entries.sort_by(|a, b| a[..16].cmp(&b[..16]));
        entries.dedup_by(|later, kept| later[..16] == kept[..16]);
        Ok(entries)
    }
}

struct Out {
    file: BufWriter<File>,
    len: u64,
    sparse: Vec<u8>,
}

impl Out {
    fn push(&mut self, entry: &[u8; ENTRY]) -> Result<()> {
        if self.len.is_multiple_of(BLOCK as u64) {
            self.sparse.extend_from_slice(&entry[..16]);
        }
        self.len += 1;
        self.write(entry)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).fault(Fault::Config, "write a key index").map_err(full)
    }

    fn finish(mut self, stamp: &str) -> Result<File> {
        let mut body = std::mem::take(&mut self.sparse);
        body.extend_from_slice(stamp.as_bytes());
        self.write(&body)?;
        self.write(&self.len.to_le_bytes())?;
        self.write(&(stamp.len() as u32).to_le_bytes())?;
        self.write(&checksum(&body, self.len).to_le_bytes())?;
        self.write(MAGIC)?;
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error);
        let file = file.fault(Fault::Config, "write a key index").map_err(full)?;
        file.sync_all().fault(Fault::Config, "write a key index").map_err(full)?;
        Ok(file)
    }
}

/// Writes the base's entries below `end` with `entries` laid over them.
fn merge(
    out: &mut Out,
    base: &mut Peekable<impl Iterator<Item = Result<(KeyHash, u64)>>>,
    entries: &[[u8; ENTRY]],
    end: Option<KeyHash>,
) -> Result<()> {
    for entry in entries {
        let (key, content) = split(entry);
        keep_below(out, base, Some(key))?;
        base.next_if(|old| old.as_ref().is_ok_and(|(old, _)| *old == key));
        if content != REMOVED {
            out.push(entry)?;
        }
    }
    keep_below(out, base, end)
}

/// Writes the base's entries below `end`; all that are left with none.
fn keep_below(
    out: &mut Out,
    base: &mut Peekable<impl Iterator<Item = Result<(KeyHash, u64)>>>,
    end: Option<KeyHash>,
) -> Result<()> {
    let below = |e: &Result<(KeyHash, u64)>| e.as_ref().map_or(true, |(key, _)| end.is_none_or(|b| *key < b));
    while let Some(entry) = base.next_if(below) {
        let (key, content) = entry?;
        out.push(&joined(key, content))?;
    }
    Ok(())
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options
}

fn full(error: Error) -> Error {
    error.hint(
        "make room there: a key index takes 24 bytes for each key of the table, twice that while it is made",
    )
}
