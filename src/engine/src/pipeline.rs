//! What a pipeline consists of.

use caudal_core::{Batch, DeadLetters, Result, Sink, Source};
use std::sync::Arc;
use std::time::Duration;

/// A source, a sink, and what lies between. Cheap to clone: the ends are shared.
#[derive(Clone)]
pub struct Pipeline {
    /// Unique in the daemon; in logs, metrics and status: `capture/plex`, `sink/dashboards`.
    pub name: String,
    /// Where batches come from.
    pub source: Arc<dyn Source>,
    /// Applied in order to each batch before it is prepared.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// Where batches go.
    pub sink: Arc<dyn Sink>,
    /// Where rejected events go; needed for [`OnReject::DeadLetter`].
    pub dead_letters: Option<Arc<dyn DeadLetters>>,
    /// What to do with events that the sink cannot take.
    pub on_reject: OnReject,
    /// Bounds of the loop.
    pub limits: Limits,
}

/// Changes a batch in place: masks, hashes, filters. Must not change the position or the boundary's meaning.
pub trait Transform: Send + Sync {
    /// Applies it.
    fn apply(&self, batch: &mut Batch) -> Result<()>;
}

/// What happens when a sink rejects events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReject {
    /// Stop the pipeline there, and say so: nothing is passed over.
    Park,
    /// Store them as dead letters, acknowledged before the commit that passes them over, and go on.
    DeadLetter,
}

/// Bounds of the loop. Memory of a pipeline: `(2 * queue + 3) * (largest batch)` between the stages, plus what the writer
/// has accepted, at most `commit_bytes` and one batch more (a writer that holds whole transactions has its own bound).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Batches that may wait between two stages.
    pub queue: usize,
    /// Accepted bytes after which a commit is due.
    pub commit_bytes: usize,
    /// Accepted events after which a commit is due.
    pub commit_events: usize,
    /// Age of the oldest accepted batch after which a commit is due. Without more input a commit follows at once.
    pub commit_after: Duration,
    /// How long the batch in flight may take to end when the daemon stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 2,
            commit_bytes: 16 << 20,
            commit_events: 50_000,
            commit_after: Duration::from_millis(250),
            drain: Duration::from_secs(8),
        }
    }
}
