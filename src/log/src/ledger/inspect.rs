//! Looking at a folder's journals and snapshots without changing anything.

use super::files;
use super::state::LedgerState;
use crate::error::Error;
use crate::inspect::{Finding, Severity};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use uuid::Uuid;

/// A topic that the journal knows: its name, and how many partitions it has.
pub(crate) type Known = BTreeMap<Uuid, (String, i32)>;

/// The topics that the files tell of, and what is wrong with the files.
///
/// # Errors
/// When they can't be read at all.
pub(crate) fn inspect(dir: &Path) -> Result<(Known, Vec<Finding>), Error> {
    let mut findings = Vec::new();
    let numbers = files::present(dir)?;
    let from = numbers.snapshots.last().copied().unwrap_or(0);
    let mut state = LedgerState::new(Uuid::nil());
    if let Some(number) = numbers.snapshots.last() {
        let path = files::state_path(dir, *number);
        match files::load_state(&path) {
            Ok(loaded) => state = loaded,
            Err(Error::Damaged { what, .. }) => findings.push(Finding::damage(&path, what)),
            Err(other) => return Err(other),
        }
    }
    for number in numbers.journals.iter().filter(|number| **number >= from) {
        let path = files::journal_path(dir, *number);
        if let Some(finding) = read(&path, &mut state)? {
            findings.push(finding);
            break;
        }
    }
    let known = state.topics.into_iter().map(|(name, topic)| (topic.id, (name, topic.partitions)));
    Ok((known.collect(), findings))
}

/// Applies a journal; what is wrong with it, if anything. A line that is not whole at its very end was never durable; one before whole
/// lines was, and a start would forget what follows it.
fn read(path: &Path, state: &mut LedgerState) -> Result<Option<Finding>, Error> {
    let failed = |cause| Error::storage(format!("read {}", path.display()), cause);
    let mut input = BufReader::new(std::fs::File::open(path).map_err(failed)?);
    let (mut line, mut position) = (Vec::new(), 0);
    let mut bad: Option<u64> = None;
    while next_line(&mut input, &mut line).map_err(failed)? {
        match (files::parse(&line), bad) {
            (Some(event), None) => state.apply(&event),
            (None, None) => bad = Some(position),
            (Some(_), Some(at)) => {
                return Ok(Some(
                    Finding::damage(path, "a line before others is not what was written").at(at),
                ));
            }
            (None, Some(_)) => {}
        }
        position += line.len() as u64;
    }
    Ok(bad.map(|at| {
        Finding {
            severity: Severity::Unfinished,
            ..Finding::damage(path, "the last line is not whole: it was never acknowledged")
        }
        .at(at)
    }))
}

fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let limited = &mut Read::take(input, files::MAX_LINE_BYTES as u64);
    Ok(limited.read_until(b'\n', line)? > 0)
}
