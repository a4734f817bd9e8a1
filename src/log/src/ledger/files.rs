//! Journal lines and snapshot files.
//!
//! A line is the CRC-32C of its text in eight hex digits, a space, the event as JSON, a line feed.

use super::event::{Event, FORMAT};
use super::state::LedgerState;
use crate::disk::Disk;
use crate::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Longest line that is read; the longest written is a transaction's over 10,000 partitions.
pub(super) const MAX_LINE_BYTES: usize = 64 << 20;

pub(super) fn journal_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number:010}.log"))
}

pub(super) fn state_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("state-{number:010}.json"))
}

/// The journal line of an event.
pub(super) fn line(event: &Event) -> io::Result<Vec<u8>> {
    let text = serde_json::to_string(event)?;
    Ok(format!("{:08x} {text}\n", crc32c::crc32c(text.as_bytes())).into_bytes())
}

pub(super) fn parse(line: &[u8]) -> Option<Event> {
    let line = line.strip_suffix(b"\n")?;
    let (crc, text) = line.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(&crc[..8]).ok()?, 16).ok()?;
    if crc32c::crc32c(text) != crc {
        return None;
    }
    serde_json::from_slice(text).ok()
}

/// Numbers of the files with the prefix and suffix, ascending.
fn numbers(dir: &Path, prefix: &str, suffix: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|n| n.strip_prefix(prefix)?.strip_suffix(suffix));
        found.extend(digits.and_then(|d| d.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// What a folder held: the state, and the greatest number of any of its files.
pub(super) struct Loaded {
    pub(super) state: LedgerState,
    pub(super) last_number: u64,
}

/// The numbers of a folder's files, ascending.
pub(super) struct Present {
    pub(super) snapshots: Vec<u64>,
    pub(super) journals: Vec<u64>,
}

/// Which files there are.
pub(super) fn present(dir: &Path) -> Result<Present, Error> {
    let failed = |cause| Error::storage(format!("read {}", dir.display()), cause);
    let snapshots = numbers(dir, "state-", ".json").map_err(failed)?;
    let journals = numbers(dir, "journal-", ".log").map_err(failed)?;
    Ok(Present { snapshots, journals })
}

/// Reads the newest snapshot and the journals that follow it.
pub(super) fn load(dir: &Path) -> Result<Loaded, Error> {
    let Present { snapshots, journals } = present(dir)?;
    let last_number = snapshots.iter().chain(&journals).max().copied().unwrap_or(0);
    let (from, mut state) = match snapshots.last() {
        Some(number) => (*number, load_state(&state_path(dir, *number))?),
        None => (0, LedgerState::new(Uuid::new_v4())),
    };
    for number in journals.into_iter().filter(|n| *n >= from) {
        if !replay(&journal_path(dir, number), &mut state)? {
            break;
        }
    }
    Ok(Loaded { state, last_number })
}

pub(super) fn load_state(path: &Path) -> Result<LedgerState, Error> {
    let failed = |cause| Error::storage(format!("read {}", path.display()), cause);
    let text = fs::read(path).map_err(failed)?;
    let damaged = |e: serde_json::Error| Error::Damaged { path: path.into(), what: e.to_string() };
    let state: LedgerState = serde_json::from_slice(&text).map_err(damaged)?;
    known(path, state.format)?;
    Ok(state)
}

fn known(path: &Path, found: u32) -> Result<(), Error> {
    if found > FORMAT {
        return Err(Error::NewerFormat { path: path.into(), found, known: FORMAT });
    }
    Ok(())
}

/// Applies a journal; returns whether it was whole.
fn replay(path: &Path, state: &mut LedgerState) -> Result<bool, Error> {
    let failed = |cause| Error::storage(format!("read {}", path.display()), cause);
    let mut input = BufReader::new(fs::File::open(path).map_err(failed)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limited = &mut io::Read::take(&mut input, MAX_LINE_BYTES as u64);
        if limited.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(true);
        }
        match parse(&line) {
            Some(Event::Begun { format }) => known(path, format)?,
            Some(event) => state.apply(&event),
            None => {
                tracing::warn!(path = %path.display(), "the journal ends in an unfinished line");
                return Ok(false);
            }
        }
    }
}

/// Removes snapshots and journals below the number.
pub(super) fn remove_below(disk: &Disk, dir: &Path, number: u64) -> io::Result<()> {
    for old in numbers(dir, "journal-", ".log")?.into_iter().filter(|n| *n < number) {
        disk.remove(&journal_path(dir, old))?;
    }
    for old in numbers(dir, "state-", ".json")?.into_iter().filter(|n| *n < number) {
        disk.remove(&state_path(dir, old))?;
    }
    Ok(())
}
