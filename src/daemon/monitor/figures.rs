//! Metrics and freshness as they are now, every interval: one record for each pipeline and client of Kafka, and of sinks' tables those
//! whose moment has moved, at most [`AT_ONCE`] at a time: the others have their turn next.

use super::bytes;
use caudal_engine::status::sink_of;
use caudal_engine::{PipelineStatus, State, StatusHandle};
use caudal_kafka::Telemetry;
use caudal_kafka::monitoring::{Telling, Told};
use caudal_proto::monitoring::{FreshnessRecord, MetricsRecord, PipelineMetrics};
use caudal_proto::side::VERSION;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Tables whose freshness is written in one interval.
const AT_ONCE: usize = 2_000;

/// When figures are due, and what was written of tables.
pub(super) struct Figures {
    every: Duration,
    last: Option<Instant>,
    /// By key: the moment that was last written.
    tables: HashMap<String, Option<i64>>,
    /// The key behind which the next turn begins.
    turn: String,
}

impl Figures {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, last: None, tables: HashMap::new(), turn: String::new() }
    }

    pub(super) fn are_due(&self) -> bool {
        self.last.is_none_or(|at| at.elapsed() >= self.every)
    }

    /// Until they are due.
    pub(super) fn pause(&self) -> Duration {
        self.last
            .map_or(self.every, |at| self.every.saturating_sub(at.elapsed()))
            .max(Duration::from_millis(50))
    }

    /// What is to be written now, and how many seconds pipelines are behind.
    pub(super) fn take(
        &mut self,
        handles: &[StatusHandle],
        telemetry: &Telemetry,
        now_us: i64,
    ) -> (Vec<Telling>, HashMap<String, f64>) {
        self.last = Some(Instant::now());
        // Another instance tells of what it works on.
        let mine: Vec<(&StatusHandle, PipelineStatus)> = handles
            .iter()
            .map(|handle| (handle, handle.snapshot()))
            .filter(|(_, status)| status.state != State::Waiting)
            .collect();
        // Their time is that of their last run, which may be hours ago by intent.
        let polled: HashSet<&str> = mine
            .iter()
            .filter(|(_, status)| !status.polls.is_empty())
            .map(|(_, status)| status.name.trim_start_matches("capture/"))
            .collect();
        let (mut tellings, mut lags, mut moved) = (Vec::new(), HashMap::new(), Vec::new());
        for (handle, status) in &mine {
            tellings.extend(metrics(handle, status, now_us));
            let lag = match sink_of(&status.name) {
                Some(sink) => {
                    let (complete, tables) = self.sink(handle, sink, &polled, now_us);
                    if handle.is_first() {
                        let others = mine.iter().filter(|(other, _)| other.sink() == Some(sink));
                        tellings.extend(whole(handle, sink, least(others), now_us));
                    }
                    moved.extend(tables);
                    complete.or(status.watermark_us.filter(|_| polled.is_empty()))
                }
                None => status.watermark_us.filter(|_| status.polls.is_empty()),
            };
            lags.extend(lag.map(|at| (status.name.clone(), behind(at, now_us))));
        }
        tellings.extend(self.turn(moved));
        for client in telemetry.clients() {
            let key = format!("client/{}/{}", client.client_id, client.kind);
            let Ok(client) = serde_json::to_value(&client) else { continue };
            let value = bytes(&MetricsRecord::of_client(now_us, client));
            tellings.extend(value.map(|value| Telling { topic: Told::Metrics, key, value }));
        }
        (tellings, lags)
    }

    /// Up to when all tables of a sink are complete, those of polled sources apart; and the tables whose moment has moved.
    fn sink(
        &self,
        handle: &StatusHandle,
        sink: &str,
        polled: &HashSet<&str>,
        now_us: i64,
    ) -> (Option<i64>, Vec<(String, FreshnessRecord)>) {
        let mut complete: Option<i64> = None;
        let mut moved = Vec::new();
        for fresh in handle.freshness().tables() {
            if let Some(at) = fresh.complete_to_us.filter(|_| !polled.contains(fresh.source.as_str())) {
                complete = Some(complete.map_or(at, |least| least.min(at)));
            }
            let key = format!("{sink}/{}/{}", fresh.source, fresh.table);
            if self.tables.get(&key) == Some(&fresh.complete_to_us) {
                continue;
            }
            let record = FreshnessRecord {
                v: VERSION,
                sink: sink.to_owned(),
                source: Some(fresh.source),
                table: Some(fresh.table.to_string()),
                complete_to_us: fresh.complete_to_us,
                lag_seconds: fresh.complete_to_us.map(|at| behind(at, now_us)),
                position: fresh.position,
                dead_letters: None,
                at_us: now_us,
            };
            moved.push((key, record));
        }
        (complete, moved)
    }

    /// As many as may be written at a time, beginning behind those of the last time.
    fn turn(&mut self, mut moved: Vec<(String, FreshnessRecord)>) -> Vec<Telling> {
        if moved.len() > AT_ONCE {
            moved.sort_by(|(a, _), (b, _)| a.cmp(b));
            let first = moved.partition_point(|(key, _)| *key <= self.turn);
            moved.rotate_left(first);
            moved.truncate(AT_ONCE);
            self.turn = moved.last().map(|(key, _)| key.clone()).unwrap_or_default();
        }
        let mut tellings = Vec::with_capacity(moved.len());
        for (key, record) in moved {
            if let Some(value) = bytes(&record) {
                self.tables.insert(key.clone(), record.complete_to_us);
                tellings.push(Telling { topic: Told::Freshness, key, value });
            }
        }
        tellings
    }
}

fn behind(at_us: i64, now_us: i64) -> f64 {
    (now_us - at_us).max(0) as f64 / 1e6
}

/// Up to when all pipelines of a sink are complete; none if one has not told yet.
fn least<'a>(pipelines: impl Iterator<Item = &'a (&'a StatusHandle, PipelineStatus)>) -> Option<i64> {
    let complete = |(handle, status): &(&StatusHandle, PipelineStatus)| {
        handle.freshness().complete_to_us().or(status.watermark_us)
    };
    pipelines.map(complete).min().flatten()
}

/// Of a sink as a whole.
fn whole(handle: &StatusHandle, sink: &str, complete_to_us: Option<i64>, now_us: i64) -> Option<Telling> {
    let record = FreshnessRecord {
        v: VERSION,
        sink: sink.to_owned(),
        source: None,
        table: None,
        complete_to_us,
        lag_seconds: complete_to_us.map(|at| behind(at, now_us)),
        position: None,
        dead_letters: Some(handle.metrics().dead_letters.load(Relaxed)),
        at_us: now_us,
    };
    Some(Telling { topic: Told::Freshness, key: sink.to_owned(), value: bytes(&record)? })
}

fn metrics(handle: &StatusHandle, status: &PipelineStatus, now_us: i64) -> Option<Telling> {
    let metrics = PipelineMetrics {
        name: status.name.clone(),
        state: status.state.as_str().to_owned(),
        since_us: status.since_us,
        events: status.events,
        bytes: status.bytes,
        commits: status.commits,
        rejected: status.rejected,
        dead_letters: handle.metrics().dead_letters.load(Relaxed),
        errors: status.errors,
        tables_set_aside: status.set_aside.len() as u64,
        watermark_us: status.watermark_us,
        lag_seconds: status.watermark_us.map(|at| behind(at, now_us)),
    };
    let value = bytes(&MetricsRecord::of_pipeline(now_us, metrics))?;
    Some(Telling { topic: Told::Metrics, key: status.name.clone(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: usize) -> (String, FreshnessRecord) {
        let record = FreshnessRecord {
            v: VERSION,
            sink: "s".into(),
            source: None,
            table: None,
            complete_to_us: Some(1),
            lag_seconds: None,
            position: None,
            dead_letters: None,
            at_us: 0,
        };
        (format!("{n:08}"), record)
    }

    #[test]
    fn every_table_has_its_turn_however_many_there_are() {
        let mut figures = Figures::new(Duration::from_secs(1));
        let mut seen = HashSet::new();
        for round in 0..3 {
            // All have moved each time.
            let told = figures.turn((0..2 * AT_ONCE + 100).map(record).collect());
            assert_eq!(told.len(), AT_ONCE, "round {round}");
            seen.extend(told.into_iter().map(|telling| telling.key));
        }
        assert_eq!(seen.len(), 2 * AT_ONCE + 100);
    }

    #[test]
    fn each_pipeline_that_works_here_has_its_metrics() {
        let mut figures = Figures::new(Duration::from_secs(1));
        assert!(figures.are_due());
        let handles = [StatusHandle::new("capture/a"), StatusHandle::new("sink/b")];
        let (told, lags) = figures.take(&handles, &Telemetry::default(), 5);
        let keys: Vec<(Told, &str)> = told.iter().map(|t| (t.topic, t.key.as_str())).collect();
        assert_eq!(keys, [(Told::Metrics, "capture/a"), (Told::Metrics, "sink/b"), (Told::Freshness, "b")]);
        assert!(lags.is_empty() && !figures.are_due());
    }
}
