//! Which keys of the index a re-read has met, kept on disk so that a restart does not end it.
//!
//! # Why a re-read that was cut off may go on with the chunks that are left
//!
//! Its note says which ranges are left ([`super::request::Far`]) and is stored with the rows of the chunk that made it so, or behind them. A
//! restart builds the index anew, of what the topic holds then, and begins with the ranges that are left: what [`super::against`] says of a
//! re-read that begins there holds for them. The ranges that are done were reconciled in windows of their own, after the re-read had
//! begun: their rows are in the topic, events since came through the stream, and a change without an event since then is not
//! what this re-read was asked for; it asks for one of its own. (Where that is the very same, its note takes the place of this one's, and all is read
//! again.)
//!
//! What a restart would lose besides is which keys the chunks brought. Without it each key of the ranges that are done would be a
//! candidate, and asked for one by one. So each chunk's keys are appended here before its rows are handed on. A key too few (a write
//! that a power cut took) costs a question; a key too many (a chunk that was discarded) was there after the re-read had begun, so
//! that it is gone by an event or by what asks for a re-read itself. A file that is not there any more costs the progress: the re-read
//! begins anew.
//!
//! 16 bytes on disk for each key that was met, once the table takes more than one chunk.

use crate::snapshot::against::Against;
use crate::snapshot::chunk::Chunk;
use caudal_core::Result;
use caudal_index::KeyHash;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes of one key.
const KEY: usize = size_of::<KeyHash>();
/// Keys that are read back at once.
const KEYS: usize = 1 << 16;

/// The keys that one re-read has met. Its file is made with the first key.
#[derive(Debug)]
pub(crate) struct Met {
    name: String,
    path: PathBuf,
    file: Mutex<State>,
}

#[derive(Debug)]
enum State {
    None,
    Open(File),
    /// It cannot be written: the re-read goes on, and a restart begins it anew.
    Broken,
}

impl Met {
    /// Of a re-read that begins.
    pub(crate) fn new(dir: &Path) -> Self {
        let name = format!("{:016x}", rand::random::<u64>());
        Self { path: path(dir, &name), name, file: Mutex::new(State::None) }
    }

    /// Of one that goes on: marks what it had met before. None if that is not known any more.
    ///
    /// # Errors
    /// `Transient` if the index cannot be read.
    pub(crate) fn resume(dir: &Path, name: &str, against: &mut Against) -> Result<Option<Self>> {
        let path = path(dir, name);
        let Ok(mut file) = OpenOptions::new().read(true).append(true).open(&path) else { return Ok(None) };
        let mut bytes = vec![0; KEYS * KEY];
        loop {
            let read = match fill(&mut file, &mut bytes) {
                Ok(read) => read,
                Err(_) => return Ok(None),
            };
            let keys: Vec<KeyHash> =
                bytes[..read].as_chunks().0.iter().map(|key| KeyHash::from_le_bytes(*key)).collect();
            against.index.find_all(&keys)?.iter().flatten().for_each(|found| against.marks.set(found.at));
            // What is appended goes behind whole keys.
            if read % KEY > 0
                && file.set_len(file.metadata().map_or(0, |m| m.len() / KEY as u64 * KEY as u64)).is_err()
            {
                return Ok(None);
            }
            if read < bytes.len() {
                break;
            }
        }
        Ok(Some(Self { name: name.to_owned(), path, file: Mutex::new(State::Open(file)) }))
    }

    /// The name that a note gives it; none if what was met is not known after a restart.
    pub(crate) fn name(&self) -> Option<&str> {
        let state = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        (!matches!(*state, State::Broken)).then_some(&self.name)
    }

    /// Adds a chunk's keys. Waits for the disk.
    pub(crate) fn add(&self, chunk: &Chunk) {
        let mut state = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *state {
            State::Broken => return,
            State::Open(file) => write(file, chunk),
            State::None => create(&self.path).and_then(|mut file| {
                let written = write(&mut file, chunk);
                *state = State::Open(file);
                written
            }),
        };
        if let Err(error) = result {
            tracing::warn!(%error, path = %self.path.display(), "re-read: its progress cannot be kept: a restart begins it anew");
            *state = State::Broken;
        }
    }

    /// The re-read is over.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Removes what no re-read that is stored names any more.
    pub(crate) fn clean<'a>(dir: &Path, named: impl Iterator<Item = &'a str> + Clone) {
        let Ok(files) = std::fs::read_dir(dir) else { return };
        for file in files.flatten() {
            if !named.clone().any(|name| path(dir, name) == file.path()) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.met"))
}

fn create(path: &Path) -> std::io::Result<File> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    OpenOptions::new().append(true).create(true).open(path)
}

fn write(file: &mut File, chunk: &Chunk) -> std::io::Result<()> {
    let bytes: Vec<u8> = chunk.keys.iter().flat_map(|key| key.to_le_bytes()).collect();
    file.write_all(&bytes)
}

/// Reads until `bytes` are full, or to the end.
fn fill(file: &mut File, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read(&mut bytes[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}
