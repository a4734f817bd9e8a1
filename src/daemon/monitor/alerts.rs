//! What somebody should see to: raised when it begins, told again when it grows, resolved when it is over.
//!
//! Open alerts are remembered in their topic, not here: at its start, and when a pipeline comes over from another instance, the daemon reads
//! which are open, so that it resolves what has ended meanwhile and raises nothing twice. Only who works on a pipeline judges it. While
//! a pipeline begins or tries again nothing is resolved: what was wrong with it may still be.
//!
//! Bound: [`MOST_TABLES`] alerts on tables a pipeline.

use super::bytes;
use caudal_engine::status::sink_of;
use caudal_engine::{PipelineStatus, State};
use caudal_kafka::monitoring::{Telling, Told};
use caudal_proto::monitoring::AlertRecord;
use caudal_proto::side::VERSION;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Tables of a pipeline with alerts of their own.
const MOST_TABLES: usize = 200;
/// An alert that grows is told again at most so often.
const TOLD_AGAIN_US: i64 = 10_000_000;
/// How long a sink must have run before the letters that it knows are all of them.
const LETTERS_KNOWN_US: i64 = 10_000_000;

/// When something is worth an alert.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How far a pipeline may be behind, and how long it may not run.
    pub(super) lag: Duration,
}

/// The alerts that are open.
pub(super) struct Alerts {
    limits: Limits,
    open: BTreeMap<String, AlertRecord>,
    /// By pipeline: since when it does not run, while it is neither parked nor another's.
    idle: HashMap<String, i64>,
    /// By pipeline: how many seconds it is behind.
    lags: HashMap<String, f64>,
    /// Pipelines that another instance worked on when they were last looked at.
    elsewhere: HashMap<String, bool>,
    wants_memory: bool,
}

/// What is wrong now.
struct Condition {
    kind: String,
    /// What tells alerts of one kind of a pipeline apart.
    of: Option<String>,
    table: Option<String>,
    critical: bool,
    message: String,
    hint: Option<String>,
    value: Option<f64>,
}

impl Condition {
    fn new(kind: &str, critical: bool, message: String) -> Self {
        Self { kind: kind.to_owned(), of: None, table: None, critical, message, hint: None, value: None }
    }

    fn id(&self, pipeline: &str) -> String {
        match &self.of {
            Some(of) => format!("{pipeline}/{}/{of}", self.kind),
            None => format!("{pipeline}/{}", self.kind),
        }
    }

    fn record(self, id: &str, pipeline: &str, since_us: i64, now_us: i64) -> AlertRecord {
        AlertRecord {
            v: VERSION,
            id: id.to_owned(),
            kind: self.kind,
            severity: if self.critical { "critical" } else { "warning" }.to_owned(),
            state: "open".to_owned(),
            pipeline: pipeline.to_owned(),
            table: self.table,
            message: self.message,
            hint: self.hint,
            value: self.value,
            since_us,
            at_us: now_us,
        }
    }
}

impl Alerts {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: BTreeMap::new(),
            idle: HashMap::new(),
            lags: HashMap::new(),
            elsewhere: HashMap::new(),
            wants_memory: true,
        }
    }

    /// Whether what is open must be read from the topic first; until then nothing is judged.
    pub(super) fn wants_memory(&self) -> bool {
        self.wants_memory
    }

    /// Takes what the topic holds; gives those resolved whose pipelines are not of this configuration any more.
    pub(super) fn remember(
        &mut self,
        known: impl Iterator<Item = AlertRecord>,
        pipelines: &[&str],
        now_us: i64,
    ) -> Vec<AlertRecord> {
        self.wants_memory = false;
        self.open = known.filter(|a| a.state == "open").map(|a| (a.id.clone(), a)).collect();
        let gone = |a: &AlertRecord| !pipelines.contains(&a.pipeline.as_str());
        let over: Vec<AlertRecord> = self.open.values().filter(|a| gone(a)).cloned().collect();
        over.into_iter().filter_map(|a| self.resolve(&a.id, now_us)).collect()
    }

    /// Takes how many seconds pipelines are behind.
    pub(super) fn lags(&mut self, lags: HashMap<String, f64>) {
        self.lags = lags;
    }

    /// Looks at a pipeline; gives what is to be told.
    pub(super) fn judge(&mut self, status: &PipelineStatus, letters: u64, now_us: i64) -> Vec<AlertRecord> {
        let elsewhere = status.state == State::Waiting;
        // What another instance raised is known from the topic alone.
        if self.elsewhere.insert(status.name.clone(), elsewhere) == Some(true) && !elsewhere {
            self.wants_memory = true;
        }
        if self.wants_memory {
            return Vec::new();
        }
        match status.state {
            State::Running => {
                self.idle.remove(&status.name);
                self.running(status, letters, now_us)
            }
            State::Parked | State::Failed => {
                self.idle.remove(&status.name);
                let parked = parked(status);
                self.raise(&status.name, parked, now_us).into_iter().collect()
            }
            State::Starting | State::Retrying => self.not_running(status, now_us).into_iter().collect(),
            State::Waiting | State::Stopped => {
                self.idle.remove(&status.name);
                Vec::new()
            }
        }
    }

    fn not_running(&mut self, status: &PipelineStatus, now_us: i64) -> Option<AlertRecord> {
        let since = *self.idle.entry(status.name.clone()).or_insert(now_us);
        if now_us - since < self.limits.lag.as_micros() as i64 {
            return None;
        }
        let error = status.last_error.as_ref();
        let cause = error.map_or_else(|| "it does not begin to run".to_owned(), |e| e.message.clone());
        let mut condition = Condition::new("not_running", true, cause);
        condition.hint = error.and_then(|e| e.hint.clone());
        self.raise(&status.name, condition, now_us)
    }

    fn running(&mut self, status: &PipelineStatus, letters: u64, now_us: i64) -> Vec<AlertRecord> {
        let conditions = self.conditions(status, letters);
        let wrong: Vec<String> = conditions.iter().map(|c| c.id(&status.name)).collect();
        let letters_unknown = now_us - status.since_us < LETTERS_KNOWN_US;
        let is_over = |a: &AlertRecord| {
            a.pipeline == status.name
                && !wrong.contains(&a.id)
                && !(a.kind == "dead_letters" && letters_unknown)
        };
        let over: Vec<String> = self.open.values().filter(|a| is_over(a)).map(|a| a.id.clone()).collect();
        let mut told: Vec<AlertRecord> = over.iter().filter_map(|id| self.resolve(id, now_us)).collect();
        let raised = conditions.into_iter().filter_map(|c| self.raise(&status.name, c, now_us));
        told.extend(raised.collect::<Vec<_>>());
        told
    }

    fn conditions(&self, status: &PipelineStatus, letters: u64) -> Vec<Condition> {
        let mut all = Vec::new();
        if letters > 0 {
            let sink = sink_of(&status.name).unwrap_or_default();
            let mut condition =
                Condition::new("dead_letters", false, format!("{letters} dead letter(s) wait for somebody"));
            condition.hint = Some(format!("caudal dlq {sink} list"));
            condition.value = Some(letters as f64);
            all.push(condition);
        }
        let lag = self.lags.get(&status.name).copied().unwrap_or(0.0);
        if lag > self.limits.lag.as_secs_f64() {
            let message = format!("{lag:.0} s behind the source");
            all.push(Condition { value: Some(lag.round()), ..Condition::new("lag", false, message) });
        }
        for aside in status.set_aside.iter().take(MOST_TABLES) {
            let table = Some(aside.table.to_string());
            let condition = Condition::new("table_set_aside", true, aside.cause.clone());
            all.push(Condition { of: table.clone(), table, ..condition });
        }
        for warning in &status.warnings {
            let mut condition = Condition::new(&warning.kind, true, warning.message.clone());
            condition.hint = Some(warning.hint.clone());
            all.push(condition);
        }
        for poll in status.polls.iter().take(MOST_TABLES) {
            let Some(error) = poll.last.as_ref().and_then(|run| run.error.as_ref()) else { continue };
            let of = match &poll.store {
                Some(store) => format!("{}/{store}", poll.table),
                None => poll.table.clone(),
            };
            let condition = Condition::new("poll_failed", false, error.clone());
            all.push(Condition { of: Some(of), table: Some(poll.table.clone()), ..condition });
        }
        all
    }

    /// Opens an alert, or tells one again that has grown.
    fn raise(&mut self, pipeline: &str, condition: Condition, now_us: i64) -> Option<AlertRecord> {
        let id = condition.id(pipeline);
        let since_us = match self.open.get(&id) {
            None => now_us,
            Some(open) if now_us - open.at_us < TOLD_AGAIN_US => return None,
            Some(open) => {
                let more = condition.kind == "dead_letters" && condition.value > open.value;
                // What is parked may be parked for another reason by now.
                let other = condition.kind == "parked" && condition.message != open.message;
                if !more && !other {
                    return None;
                }
                open.since_us
            }
        };
        let record = condition.record(&id, pipeline, since_us, now_us);
        self.open.insert(id, record.clone());
        Some(record)
    }

    fn resolve(&mut self, id: &str, now_us: i64) -> Option<AlertRecord> {
        let open = self.open.remove(id)?;
        Some(AlertRecord { state: "resolved".to_owned(), at_us: now_us, ..open })
    }
}

fn parked(status: &PipelineStatus) -> Condition {
    let error = status.last_error.as_ref();
    let message = error.map_or_else(String::new, |e| e.message.clone());
    Condition { hint: error.and_then(|e| e.hint.clone()), ..Condition::new("parked", true, message) }
}

/// As a record of the topic.
pub(super) fn telling(alert: &AlertRecord) -> Option<Telling> {
    Some(Telling { topic: Told::Alerts, key: alert.id.clone(), value: bytes(alert)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::{SetAside, TableId, Warning};
    use caudal_engine::status::LastError;

    const SECOND: i64 = 1_000_000;

    fn status(state: State) -> PipelineStatus {
        PipelineStatus { state, since_us: 0, ..caudal_engine::StatusHandle::new("sink/dash").snapshot() }
    }

    fn alerts() -> Alerts {
        let mut alerts = Alerts::new(Limits { lag: Duration::from_secs(60) });
        assert!(alerts.judge(&status(State::Parked), 0, 0).is_empty(), "before the topic was read");
        assert!(alerts.remember(std::iter::empty(), &["sink/dash"], 0).is_empty());
        alerts
    }

    fn told(records: &[AlertRecord]) -> Vec<(&str, &str)> {
        records.iter().map(|a| (a.id.as_str(), a.state.as_str())).collect()
    }

    #[test]
    fn a_parked_pipeline_is_told_once_over_its_attempts_and_resolved_when_it_runs() {
        let mut alerts = alerts();
        let mut parked = status(State::Parked);
        parked.last_error = Some(LastError {
            fault: "config".into(),
            message: "no such user".into(),
            hint: Some("make it".into()),
            at_us: 0,
        });
        let raised = alerts.judge(&parked, 0, SECOND);
        assert_eq!(told(&raised), [("sink/dash/parked", "open")]);
        assert_eq!((raised[0].message.as_str(), raised[0].severity.as_str()), ("no such user", "critical"));
        for state in [State::Starting, State::Parked, State::Retrying, State::Waiting, State::Parked] {
            let again = PipelineStatus { state, ..parked.clone() };
            // Back from another instance, the topic is asked.
            if alerts.judge(&again, 0, 20 * SECOND).is_empty() && alerts.wants_memory() {
                let open: Vec<AlertRecord> = raised.clone();
                alerts.remember(open.into_iter(), &["sink/dash"], 20 * SECOND);
            }
            assert!(alerts.judge(&again, 0, 30 * SECOND).is_empty(), "{state:?}");
        }
        let over = alerts.judge(&status(State::Running), 0, 40 * SECOND);
        assert_eq!(told(&over), [("sink/dash/parked", "resolved")]);
        assert_eq!((over[0].since_us, over[0].at_us), (SECOND, 40 * SECOND));
    }

    #[test]
    fn dead_letters_are_told_when_they_grow_and_resolved_when_none_is_left() {
        let mut alerts = alerts();
        let running = status(State::Running);
        assert_eq!(alerts.judge(&running, 1, 40 * SECOND)[0].value, Some(1.0));
        assert!(alerts.judge(&running, 1, 90 * SECOND).is_empty(), "no growth");
        assert_eq!(alerts.judge(&running, 3, 91 * SECOND)[0].value, Some(3.0));
        assert!(alerts.judge(&running, 4, 92 * SECOND).is_empty(), "at most every ten seconds");
        assert_eq!(alerts.judge(&running, 4, 102 * SECOND)[0].value, Some(4.0));
        assert!(alerts.judge(&running, 2, 140 * SECOND).is_empty(), "fewer is no growth");
        // A sink that has just begun does not know its letters yet.
        let begun = PipelineStatus { since_us: 150 * SECOND, ..running.clone() };
        assert!(alerts.judge(&begun, 0, 151 * SECOND).is_empty());
        assert_eq!(told(&alerts.judge(&begun, 0, 181 * SECOND)), [("sink/dash/dead_letters", "resolved")]);
    }

    #[test]
    fn lag_tables_set_aside_and_what_will_be_purged_are_told_and_resolved() {
        let mut alerts = alerts();
        let mut running = status(State::Running);
        running.set_aside =
            vec![SetAside { table: TableId::new("shop", "t"), cause: "no shape".into(), since_us: 0 }];
        running.warnings =
            vec![Warning { kind: "binlog_purge".into(), message: "soon".into(), hint: "x".into() }];
        alerts.lags(HashMap::from([("sink/dash".to_owned(), 61.0)]));
        let raised = alerts.judge(&running, 0, SECOND);
        let ids = ["sink/dash/lag", "sink/dash/table_set_aside/shop.t", "sink/dash/binlog_purge"]
            .map(|id| (id, "open"));
        assert_eq!(told(&raised), ids);
        assert_eq!(raised[1].table.as_deref(), Some("shop.t"));
        assert!(alerts.judge(&running, 0, 99 * SECOND).is_empty());
        alerts.lags(HashMap::new());
        assert_eq!(alerts.judge(&status(State::Running), 0, 100 * SECOND).len(), 3);
    }

    #[test]
    fn who_does_not_run_for_long_is_told_and_what_is_configured_no_more_is_resolved() {
        let mut alerts = alerts();
        assert!(alerts.judge(&status(State::Retrying), 0, SECOND).is_empty());
        assert!(alerts.judge(&status(State::Starting), 0, 59 * SECOND).is_empty());
        let raised = alerts.judge(&status(State::Retrying), 0, 62 * SECOND);
        assert_eq!(told(&raised), [("sink/dash/not_running", "open")]);
        let over = alerts.remember(raised.into_iter(), &["sink/other"], 70 * SECOND);
        assert_eq!(told(&over), [("sink/dash/not_running", "resolved")]);
    }
}
