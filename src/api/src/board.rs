//! Where all pipelines stand: what the routes answer from.

use crate::freshness;
use crate::process;
use crate::rates::{PERIOD, Rates};
use crate::reading;
use crate::view::{Failing, Health, Pipeline, Status};
use caudal_engine::metrics::{Series, exposition};
use caudal_engine::status::now_us;
use caudal_engine::{PipelineStatus, Shutdown, State, StatusHandle};
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Info {
    /// The daemon's version.
    pub version: String,
    /// First part of the topics' names.
    pub prefix: String,
    /// The log, in words.
    pub log: String,
}

/// The handles of all pipelines, and the rates sampled from them.
pub struct Board {
    info: Info,
    started_us: i64,
    pipelines: Vec<StatusHandle>,
    rates: Mutex<Rates>,
    /// Metrics of what the pipelines use.
    others: Option<Exposing>,
}

/// Gives Prometheus text.
type Exposing = Box<dyn Fn() -> String + Send + Sync>;

impl Board {
    /// For these pipelines, started now.
    #[must_use]
    pub fn new(info: Info, pipelines: Vec<StatusHandle>) -> Self {
        Self { info, started_us: now_us(), pipelines, rates: Mutex::default(), others: None }
    }

    /// The same, with further metrics in Prometheus text (version 0.0.4), asked for each time.
    #[must_use]
    pub fn exposing(self, others: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { others: Some(Box::new(others)), ..self }
    }

    /// Samples the rates until the daemon stops.
    pub async fn sample(&self, shutdown: &Shutdown) {
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.wait() => return,
            }
            let counters = self.pipelines.iter().map(|p| p.snapshot().events).collect();
            self.rates().sample(Instant::now(), counters);
        }
    }

    /// The sinks.
    pub(crate) fn sinks(&self) -> impl Iterator<Item = &StatusHandle> {
        self.pipelines.iter().filter(|handle| handle.sink().is_some())
    }

    /// For `/status`.
    #[must_use]
    pub fn status(&self) -> Status {
        let (now, now_us, rates) = (Instant::now(), now_us(), self.rates());
        let view = |(index, handle): (usize, &StatusHandle)| {
            let status = handle.snapshot();
            let rate = rates.rate(index, now, status.events);
            let tables =
                handle.freshness().tables().into_iter().map(|t| freshness::told(handle, t)).collect();
            Pipeline { tables, ..Pipeline::of(status, rate, now_us) }
        };
        Status {
            version: self.info.version.clone(),
            prefix: self.info.prefix.clone(),
            log: self.info.log.clone(),
            started_us: self.started_us,
            now_us,
            pipelines: self.pipelines.iter().enumerate().map(view).collect(),
        }
    }

    /// For `/health`: every pipeline must run, or wait for its turn.
    #[must_use]
    pub fn health(&self) -> Health {
        let failing: Vec<Failing> = self
            .pipelines
            .iter()
            .map(StatusHandle::snapshot)
            .filter(|s| !is_well(s.state))
            .map(failing)
            .collect();
        Health { status: if failing.is_empty() { "ok" } else { "failing" }.to_owned(), failing }
    }

    /// For `/metrics`.
    #[must_use]
    pub fn metrics(&self) -> String {
        let series = |handle| {
            let handle: &StatusHandle = handle;
            Series {
                pipeline: handle.name(),
                up: handle.state() == State::Running,
                metrics: handle.metrics(),
            }
        };
        let series: Vec<Series<'_>> = self.pipelines.iter().map(series).collect();
        let mut text = exposition(&series, now_us());
        let reading: Vec<_> = self.pipelines.iter().map(|p| (p.name(), p.snapshot().reading)).collect();
        reading::expose(&mut text, &reading);
        tables(&mut text, self.sinks());
        process::expose(&mut text, &self.info.version, self.started_us);
        if let Some(others) = &self.others {
            text.push_str(&others());
        }
        text
    }

    // A panic while the lock is held leaves whole samples: they are as good as ever.
    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many tables of a sink have series; of more, read `caudal.freshness`.
const MOST_TABLES: usize = 2_000;

/// Up to when each table is complete. As a moment, so that `time() - caudal_table_complete_to_seconds` goes on while nothing comes.
fn tables<'a>(out: &mut String, sinks: impl Iterator<Item = &'a StatusHandle>) {
    const NAME: &str = "caudal_table_complete_to_seconds";
    let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut lines = String::new();
    for sink in sinks {
        for table in sink.freshness().tables().iter().take(MOST_TABLES) {
            let Some(us) = table.complete_to_us else { continue };
            let (source, name) = (label(&table.source), label(&table.table.to_string()));
            let _ = writeln!(
                lines,
                "{NAME}{{pipeline=\"{}\",source=\"{source}\",table=\"{name}\"}} {}",
                label(sink.name()),
                us as f64 / 1e6
            );
        }
    }
    if !lines.is_empty() {
        let help = "Source time up to which a table shows everything that was committed";
        let _ = write!(out, "# HELP {NAME} {help}\n# TYPE {NAME} gauge\n{lines}");
    }
}

fn is_well(state: State) -> bool {
    matches!(state, State::Running | State::Waiting)
}

fn failing(status: PipelineStatus) -> Failing {
    let view = Pipeline::of(status, 0.0, 0);
    let (error, hint) = view.last_error.map_or((None, None), |e| (Some(e.message), e.hint));
    Failing { pipeline: view.name, state: view.state, error, hint }
}
