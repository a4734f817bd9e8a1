//! What a partition remembers beside its segments: where it starts, and up to where it is known to be durable.

use crate::disk::Disk;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "checkpoint.json";
const FORMAT: u32 = 1;

/// Contents of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    format: u32,
    /// First offset that readers see.
    pub(super) start: i64,
    /// All below was fsynced: damage there is no torn tail.
    pub(super) synced: i64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint { format: FORMAT, start: 0, synced: 0 }
    }
}

impl Checkpoint {
    pub(super) fn new(start: i64, synced: i64) -> Checkpoint {
        Checkpoint { format: FORMAT, start, synced }
    }

    /// Writes it atomically.
    pub(super) fn save(&self, disk: &Disk, dir: &Path) -> io::Result<()> {
        disk.replace(&dir.join(FILE), &serde_json::to_vec(self)?)
    }
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
