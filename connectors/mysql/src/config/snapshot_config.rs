//! `snapshot:`, how existing rows are read.

use caudal_core::quantity::{DurationText, SizeText};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;

/// How existing rows are read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Whether rows that exist before the first start are read.
    #[serde(default)]
    pub mode: SnapshotMode,
    /// Most rows of one chunk.
    #[serde(default = "default_chunk_rows")]
    pub chunk_rows: u32,
    /// Most bytes of one chunk; also what the chunk takes in memory.
    #[serde(default = "default_chunk_bytes")]
    pub chunk_bytes: SizeText,
    /// How long the query of one chunk should take at most: chunks grow and shrink to stay below it.
    #[serde(default = "default_chunk_time")]
    pub chunk_time: DurationText,
    /// How many chunks are read at once, each by a connection of its own: of one large table, or of several.
    #[serde(default = "default_readers")]
    pub readers: u32,
    /// While more threads than this run on the source (`Threads_running`), no further chunk is begun. 0: whatever its load.
    #[serde(default = "default_max_threads_running")]
    pub max_threads_running: u32,
    /// While the server that is read is a replica and this far behind (beyond the delay that it is told to keep), no further chunk is begun.
    /// Whole seconds; 0s: however far. MariaDB tells it to accounts with REPLICA MONITOR.
    #[serde(default = "default_max_replica_lag")]
    pub max_replica_lag: DurationText,
    /// Where rows of large tables without a key are kept while the table is read, compressed transactions while they are
    /// decoded, and 24 bytes for each key of a table that is read again. (How far re-reads are is kept in `data_dir`, 16 bytes for each key.) The system's place for temporary files when left out.
    #[serde(default)]
    pub spool_dir: Option<PathBuf>,
}

/// Whether rows that exist before the first start are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// All rows of the selected tables are read once, while changes stream.
    #[default]
    Initial,
    /// Only changes from the first start on.
    #[serde(alias = "schema_only")]
    Never,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            mode: SnapshotMode::default(),
            chunk_rows: default_chunk_rows(),
            chunk_bytes: default_chunk_bytes(),
            chunk_time: default_chunk_time(),
            readers: default_readers(),
            max_threads_running: default_max_threads_running(),
            max_replica_lag: default_max_replica_lag(),
            spool_dir: None,
        }
    }
}

fn default_chunk_rows() -> u32 {
    50_000
}
fn default_chunk_bytes() -> SizeText {
    SizeText::mib(1)
}
fn default_readers() -> u32 {
    2
}
fn default_max_replica_lag() -> DurationText {
    DurationText::secs(60)
}

fn default_max_threads_running() -> u32 {
    25
}
fn default_chunk_time() -> DurationText {
    DurationText::secs(2)
}
