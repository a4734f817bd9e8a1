//! What a partition remembers beside its segments: where it starts, up to where it is known to be durable, and when which
//! part of it was compacted.

use crate::disk::Disk;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "checkpoint.json";
const FORMAT: u32 = 1;
/// Most passes that are remembered; of more, every second one is forgotten, which lets tombstones stay a little longer.
const MAX_PASSES: usize = 64;

/// Contents of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    format: u32,
    /// First offset that readers see.
    pub(super) start: i64,
    /// All below was fsynced: damage there is no torn tail.
    pub(super) synced: i64,
    /// Passes of compaction, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    passes: Vec<CleanedTo>,
    /// Offset below which no tombstone is left.
    #[serde(default)]
    tombstones_gone_to: i64,
}

/// A pass of compaction covered everything below the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CleanedTo {
    pub(super) offset: i64,
    /// Milliseconds since the epoch.
    pub(super) at_ms: i64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint { format: FORMAT, start: 0, synced: 0, passes: Vec::new(), tombstones_gone_to: 0 }
    }
}

impl Checkpoint {
    /// Writes it atomically.
    pub(super) fn save(&self, disk: &Disk, dir: &Path) -> io::Result<()> {
        disk.replace(&dir.join(FILE), &serde_json::to_vec(self)?)
    }

    /// The same notes with another start and durable end.
    pub(super) fn moved_to(&self, start: i64, synced: i64) -> Checkpoint {
        Checkpoint { start, synced, ..self.clone() }
    }

    /// Offset up to which the newest pass went.
    pub(super) fn cleaned_to(&self) -> i64 {
        self.passes.last().map_or(0, |pass| pass.offset)
    }

    /// Offset up to which passes at or before the time went.
    pub(super) fn cleaned_before(&self, ms: i64) -> i64 {
        self.passes.iter().filter(|pass| pass.at_ms <= ms).map(|pass| pass.offset).max().unwrap_or(0)
    }

    /// Whether tombstones below the offset may still be there.
    pub(super) fn has_due_tombstones(&self, offset: i64) -> bool {
        offset > self.tombstones_gone_to
    }

    /// Notes a pass and the offset below which it removed tombstones.
    pub(super) fn note_pass(&mut self, pass: CleanedTo, tombstones_gone_to: i64) {
        if pass.offset > self.cleaned_to() {
            self.passes.push(pass);
        }
        self.tombstones_gone_to = self.tombstones_gone_to.max(tombstones_gone_to);
        if self.passes.len() > MAX_PASSES {
            // Keeps the newest; every second of the others goes.
            let newest = self.passes.len() - 1;
            let mut at = 0;
            self.passes.retain(|_| {
                at += 1;
                at % 2 == 0 || at > newest
            });
        }
    }
}

/// Up to where a partition's folder is known to have been durable.
///
/// # Errors
/// When the file is there and can't be read.
pub(crate) fn durable_end(dir: &Path) -> Result<i64, Error> {
    load(dir).map(|checkpoint| checkpoint.synced)
}

/// Reads the file; a partition without one starts at 0.
pub(super) fn load(dir: &Path) -> Result<Checkpoint, Error> {
    let path = dir.join(FILE);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Checkpoint::default()),
        other => other.map_err(|cause| Error::storage(format!("read {}", path.display()), cause))?,
    };
    let checkpoint: Checkpoint = serde_json::from_slice(&text)
        .map_err(|e| Error::Damaged { path: path.clone(), what: e.to_string() })?;
    if checkpoint.format > FORMAT {
        return Err(Error::NewerFormat { path, found: checkpoint.format, known: FORMAT });
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_format_still_loads() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), br#"{"format":1,"start":3,"synced":9}"#).unwrap();
        let checkpoint = load(folder.path()).unwrap();
        assert_eq!((checkpoint.start, checkpoint.synced, checkpoint.cleaned_to()), (3, 9, 0));
        fs::write(folder.path().join(FILE), br#"{"format":2,"start":3,"synced":9}"#).unwrap();
        assert!(matches!(load(folder.path()), Err(Error::NewerFormat { found: 2, .. })));
    }

    #[test]
    fn remembered_passes_are_bounded_and_never_overstate() {
        let mut checkpoint = Checkpoint::default();
        for n in 1..1_000 {
            checkpoint.note_pass(CleanedTo { offset: n * 10, at_ms: n }, 0);
            assert_eq!(checkpoint.cleaned_to(), n * 10);
            assert!(checkpoint.passes.len() <= MAX_PASSES);
            assert!(checkpoint.cleaned_before(n / 2) <= n / 2 * 10);
        }
    }
}
