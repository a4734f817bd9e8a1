//! Where a pipeline stands, for `/health`, `/status` and `caudal status`.

use crate::freshness::Freshness;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use caudal_core::{Error, PollStatus, Position, Progress, SetAside, Source, Warning};
use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Connecting, finding its position.
    Starting,
    /// Another instance works, or the claim is not granted yet.
    Waiting,
    /// Batches flow.
    Running,
    /// After a transient fault, until the next attempt.
    Retrying,
    /// The operator must act; it looks again by itself every minute.
    Parked,
    /// Stopped for good by a bug.
    Failed,
    /// Stopped on request.
    Stopped,
}

impl State {
    /// As `/status` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// The last error, as the operator should see it.
#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// Who must act.
    pub fault: String,
    /// Field, what failed, cause.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// When, microseconds since the epoch, UTC.
    pub at_us: i64,
}

/// A copy of where a pipeline stands.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineStatus {
    /// The pipeline.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Since when, microseconds since the epoch, UTC.
    pub since_us: i64,
    /// Events accepted since the daemon started.
    pub events: u64,
    /// Bytes accepted.
    pub bytes: u64,
    /// Commits.
    pub commits: u64,
    /// Events rejected.
    pub rejected: u64,
    /// Sessions that ended with an error.
    pub errors: u64,
    /// Source time up to which everything is durable, microseconds since the epoch; none before the first.
    pub watermark_us: Option<i64>,
    /// The last durable position of a capture, as its source writes it.
    pub position: Option<String>,
    /// The last error; stays after recovery.
    pub last_error: Option<LastError>,
    /// What the source reads beside its stream, and did lately.
    pub reading: Vec<Progress>,
    /// Where polled tables stand.
    pub polls: Vec<PollStatus>,
    /// Tables that the source cannot follow for now, while the others are.
    pub set_aside: Vec<SetAside>,
    /// What somebody should see to before it is too late.
    pub warnings: Vec<Warning>,
}

#[derive(Debug)]
struct Moving {
    state: State,
    since_us: i64,
    position: Option<Position>,
    last_error: Option<LastError>,
    /// What was noted from outside of the pipeline.
    noted: Vec<Warning>,
}

struct Inner {
    name: String,
    metrics: Metrics,
    freshness: Freshness,
    moving: Mutex<Moving>,
    source: Option<Arc<dyn Source>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Shared between a pipeline's task and whoever asks.
#[derive(Clone, Debug)]
pub struct StatusHandle(Arc<Inner>);

/// The sink of a pipeline's name. No sink's own name has a `#`.
#[must_use]
pub fn sink_of(pipeline: &str) -> Option<&str> {
    pipeline.strip_prefix("sink/")?.split('#').next()
}

impl StatusHandle {
    /// For the pipeline `name`, starting.
    pub fn new(name: impl Into<String>) -> Self {
        Self::with(name.into(), None)
    }

    /// For a pipeline, starting; its source is asked for what it reads beside its stream.
    #[must_use]
    pub fn of(pipeline: &Pipeline) -> Self {
        Self::with(pipeline.name.clone(), Some(Arc::clone(&pipeline.source)))
    }

    fn with(name: String, source: Option<Arc<dyn Source>>) -> Self {
        let moving = Moving {
            state: State::Starting,
            since_us: now_us(),
            position: None,
            last_error: None,
            noted: Vec::new(),
        };
        Self(Arc::new(Inner {
            name,
            source,
            metrics: Metrics::default(),
            freshness: Freshness::default(),
            moving: Mutex::new(moving),
        }))
    }

    /// The sink that this pipeline applies to, if it is one's. Several may apply to one, side by side: `sink/dash`, `sink/dash#2`.
    #[must_use]
    pub fn sink(&self) -> Option<&str> {
        sink_of(self.name())
    }

    /// Whether it is the first, or the only one, of its sink.
    #[must_use]
    pub fn is_first(&self) -> bool {
        !self.name().contains('#')
    }

    /// The pipeline's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Up to when its tables are complete. Only sinks tell.
    #[must_use]
    pub fn freshness(&self) -> &Freshness {
        &self.0.freshness
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        self.moving().state
    }

    /// A copy of everything.
    #[must_use]
    pub fn snapshot(&self) -> PipelineStatus {
        let (metrics, moving) = (self.metrics(), self.moving());
        let watermark = metrics.watermark_us.load(Relaxed);
        PipelineStatus {
            name: self.0.name.clone(),
            state: moving.state,
            since_us: moving.since_us,
            events: metrics.events.load(Relaxed),
            bytes: metrics.bytes.load(Relaxed),
            commits: metrics.commits(),
            rejected: metrics.rejected.load(Relaxed),
            errors: metrics.errors.load(Relaxed),
            watermark_us: (watermark > 0).then_some(watermark),
            position: moving.position.as_ref().and_then(Position::source).map(|p| p.token.clone()),
            last_error: moving.last_error.clone(),
            reading: self.0.source.as_ref().map(|s| s.progress()).unwrap_or_default(),
            polls: self.0.source.as_ref().map(|s| s.polls()).unwrap_or_default(),
            set_aside: self.0.source.as_ref().map(|s| s.set_aside()).unwrap_or_default(),
            warnings: {
                let source = self.0.source.as_ref().map(|s| s.warnings()).unwrap_or_default();
                source.into_iter().chain(moving.noted.iter().cloned()).collect()
            },
        }
    }

    /// Notes what somebody should see to who does not look at the pipeline itself; in place of what was noted before.
    pub fn note(&self, warnings: Vec<Warning>) {
        self.moving().noted = warnings;
    }

    pub(crate) fn enter(&self, state: State) {
        let mut moving = self.moving();
        if moving.state != state {
            moving.state = state;
            moving.since_us = now_us();
        }
    }

    pub(crate) fn committed(&self, position: Position) {
        self.moving().position = Some(position);
    }

    pub(crate) fn failed(&self, error: &Error) {
        self.metrics().errors.fetch_add(1, Relaxed);
        self.moving().last_error = Some(LastError {
            fault: error.fault().to_string(),
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
            at_us: now_us(),
        });
    }

    // A panic while the lock is held leaves plain values: they are as good as ever.
    fn moving(&self) -> MutexGuard<'_, Moving> {
        self.0.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Microseconds since the epoch, UTC.
#[must_use]
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
