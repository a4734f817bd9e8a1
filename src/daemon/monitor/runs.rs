//! Runs, found by looking at what each pipeline reads: which began, and which ended since the last look.
//!
//! What ended is shown by a source for a while, some dozens of it; what ends and is pushed out between two looks is told
//! with the figures that were last seen. A run that began and ended between two looks is told once, as ended.
//!
//! Memory: one record for each run under way, and a copy of what ended lately.

use super::bytes;
use caudal_core::{Phase, PollStatus, Progress};
use caudal_engine::{PipelineStatus, State};
use caudal_kafka::monitoring::{Telling, Told};
use caudal_proto::monitoring::RunRecord;
use caudal_proto::side::VERSION;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// A run that is not shown any more, though its pipeline runs, has ended after so long.
const FORGOTTEN_US: i64 = 3_000_000;

/// Something that happened to a run.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) run: RunRecord,
    /// Whether it has just begun; else it has ended.
    pub(super) begun: bool,
}

/// What tells runs of one pipeline apart: the command's id, the reason, the table.
type Key = (String, String, String);

struct Current {
    run: RunRecord,
    seen_us: i64,
}

/// The runs of one pipeline.
pub(super) struct Runs {
    pipeline: String,
    current: BTreeMap<Key, Current>,
    ended: Vec<Progress>,
    /// By table and store: the last run of a poll that was seen. None before the first look.
    polls: Option<HashMap<(String, Option<String>), u64>>,
    since_us: Option<i64>,
}

impl Runs {
    pub(super) fn new(pipeline: &str) -> Self {
        let (current, ended) = (BTreeMap::new(), Vec::new());
        Self { pipeline: pipeline.to_owned(), current, ended, polls: None, since_us: None }
    }

    /// What happened since the last look.
    pub(super) fn look(&mut self, status: &PipelineStatus, now_us: i64) -> Vec<Step> {
        self.since_us.get_or_insert(now_us);
        // Of polled tables the runs themselves are told, with what they were asked by.
        let reading = status.reading.iter().filter(|p| p.reason != "poll");
        let (ended, going): (Vec<&Progress>, Vec<&Progress>) = reading.partition(|p| has_ended(p.phase));
        let mut steps = Vec::new();
        for progress in going.into_iter().filter(|p| p.phase != Phase::Waiting) {
            steps.extend(self.going(progress, now_us));
        }
        let ended: Vec<Progress> = ended.into_iter().cloned().collect();
        for progress in news(&self.ended, &ended) {
            steps.extend(self.ended(progress, now_us));
        }
        self.ended = ended;
        if status.state == State::Running {
            steps.extend(self.forgotten(now_us));
        }
        steps.extend(self.polled(&status.polls));
        steps
    }

    fn going(&mut self, progress: &Progress, now_us: i64) -> Option<Step> {
        let current = self.current.get_mut(&key(progress));
        if let Some(current) = current {
            filled(&mut current.run, progress);
            (current.seen_us, current.run.took_ms) = (now_us, took(current.run.started_us, now_us));
            return None;
        }
        // A table that waits, and is held up before its turn has come, is none that is read.
        if progress.phase == Phase::Paused && progress.rows == 0 && progress.estimated_rows == 0 {
            return None;
        }
        let run = self.begun(progress, now_us);
        self.current.insert(key(progress), Current { run: run.clone(), seen_us: now_us });
        Some(Step { run, begun: true })
    }

    fn ended(&mut self, progress: &Progress, now_us: i64) -> Option<Step> {
        let current = self.current.remove(&key(progress));
        let mut run = current.map_or_else(|| self.begun(progress, now_us), |current| current.run);
        filled(&mut run, progress);
        let state = match progress.phase {
            Phase::Stopped => "stopped",
            Phase::Refused => "refused",
            _ => "done",
        };
        Some(over(run, state, now_us))
    }

    fn forgotten(&mut self, now_us: i64) -> Vec<Step> {
        let is_gone = |current: &Current| now_us - current.seen_us > FORGOTTEN_US;
        let gone: Vec<Key> =
            self.current.iter().filter(|(_, c)| is_gone(c)).map(|(key, _)| key.clone()).collect();
        let runs = gone.iter().filter_map(|key| self.current.remove(key));
        runs.map(|current| over(current.run, "done", now_us)).collect()
    }

    fn begun(&self, progress: &Progress, now_us: i64) -> RunRecord {
        let is_first = progress.reason == "snapshot";
        let mut run = RunRecord {
            v: VERSION,
            id: Uuid::new_v4().to_string(),
            kind: if is_first { "snapshot" } else { "reread" }.to_owned(),
            pipeline: self.pipeline.clone(),
            table: progress.table.clone(),
            store: None,
            command: Some(progress.id.clone()).filter(|id| !id.is_empty()),
            reason: (!is_first).then(|| progress.reason.clone()),
            state: "running".to_owned(),
            started_us: now_us,
            ended_us: None,
            took_ms: 0,
            rows: 0,
            delivered: 0,
            deleted: 0,
            rejected: 0,
            bytes: None,
            bytes_billed: None,
            slot_ms: None,
            price: None,
            error: None,
        };
        filled(&mut run, progress);
        run
    }

    /// Runs of polled tables that ended since the last look. Those from before this daemon began were told by the one before.
    fn polled(&mut self, polls: &[PollStatus]) -> Vec<Step> {
        let first = self.polls.is_none();
        let began_us = self.since_us.unwrap_or_default();
        let seen = self.polls.get_or_insert_default();
        let mut steps = Vec::new();
        for poll in polls {
            let Some(last) = &poll.last else { continue };
            let before = seen.insert((poll.table.clone(), poll.store.clone()), last.number);
            let ended_us = last.planned_us + last.took_us as i64;
            if before == Some(last.number) || (before.is_none() && (first || ended_us < began_us)) {
                continue;
            }
            let mut id = format!("{}/{}", self.pipeline, poll.table);
            if let Some(store) = &poll.store {
                id = format!("{id}/{store}");
            }
            let run = RunRecord {
                v: VERSION,
                id: format!("{id}/{}", last.number),
                kind: "poll".to_owned(),
                pipeline: self.pipeline.clone(),
                table: poll.table.clone(),
                store: poll.store.clone(),
                command: None,
                reason: None,
                state: if last.error.is_some() { "failed" } else { "done" }.to_owned(),
                started_us: last.planned_us,
                ended_us: Some(ended_us),
                took_ms: last.took_us / 1_000,
                rows: last.rows,
                delivered: last.changed,
                deleted: last.deleted,
                rejected: last.rejected,
                bytes: Some(last.bytes),
                bytes_billed: last.cost.map(|cost| cost.bytes_billed),
                slot_ms: last.cost.map(|cost| cost.slot_ms),
                price: last.cost.map(|cost| cost.price),
                error: last.error.clone(),
            };
            steps.push(Step { run, begun: false });
        }
        steps
    }
}

fn key(progress: &Progress) -> Key {
    (progress.id.clone(), progress.reason.clone(), progress.table.clone())
}

fn has_ended(phase: Phase) -> bool {
    matches!(phase, Phase::Done | Phase::Stopped | Phase::Refused)
}

fn filled(run: &mut RunRecord, progress: &Progress) {
    (run.rows, run.delivered, run.deleted) = (progress.rows, progress.delivered, progress.deleted);
    run.bytes = Some(progress.bytes);
}

fn took(from_us: i64, to_us: i64) -> u64 {
    u64::try_from((to_us - from_us) / 1_000).unwrap_or(0)
}

fn over(run: RunRecord, state: &str, now_us: i64) -> Step {
    let took_ms = took(run.started_us, now_us);
    let run = RunRecord { state: state.to_owned(), ended_us: Some(now_us), took_ms, ..run };
    Step { run, begun: false }
}

/// Those of `now` that were not there before, each as often as it is there more often: the same table may have been read twice.
fn news<'a>(before: &[Progress], now: &'a [Progress]) -> Vec<&'a Progress> {
    let mut left: Vec<&Progress> = before.iter().collect();
    let is_new = |progress: &&Progress| match left.iter().position(|old| old == progress) {
        Some(at) => {
            left.swap_remove(at);
            false
        }
        None => true,
    };
    now.iter().filter(is_new).collect()
}

/// As records of the topic.
pub(super) fn tellings(steps: &[Step]) -> Vec<Telling> {
    let telling =
        |step: &Step| Some(Telling { topic: Told::Runs, key: step.run.id.clone(), value: bytes(&step.run)? });
    steps.iter().filter_map(telling).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use caudal_core::PollRun;

    const SECOND: i64 = 1_000_000;

    pub(crate) fn progress(id: &str, reason: &str, table: &str, phase: Phase, rows: u64) -> Progress {
        Progress {
            id: id.into(),
            reason: reason.into(),
            table: table.into(),
            phase,
            rows,
            delivered: rows,
            deleted: 0,
            bytes: 0,
            estimated_rows: 100,
            rows_per_second: 0,
            seconds_left: None,
        }
    }

    pub(crate) fn status(reading: Vec<Progress>) -> PipelineStatus {
        let state = State::Running;
        PipelineStatus { state, reading, ..caudal_engine::StatusHandle::new("capture/s").snapshot() }
    }

    fn told(steps: &[Step]) -> Vec<(&str, &str, u64)> {
        steps.iter().map(|s| (s.run.table.as_str(), s.run.state.as_str(), s.run.rows)).collect()
    }

    #[test]
    fn a_run_is_told_when_it_begins_and_when_it_ends_under_one_id() {
        let mut runs = Runs::new("capture/s");
        let going = |rows| status(vec![progress("", "snapshot", "a", Phase::Reading, rows)]);
        let begun = runs.look(&going(5), SECOND);
        assert_eq!(told(&begun), [("a", "running", 5)]);
        assert!(runs.look(&going(50), 2 * SECOND).is_empty());
        let ended = runs.look(&status(vec![progress("", "snapshot", "a", Phase::Done, 90)]), 3 * SECOND);
        assert_eq!(told(&ended), [("a", "done", 90)]);
        assert_eq!((&ended[0].run.id, ended[0].run.took_ms), (&begun[0].run.id, 2_000));
    }

    #[test]
    fn one_between_two_looks_and_a_second_one_like_the_first_are_told_each() {
        let mut runs = Runs::new("capture/s");
        let done = progress("c", "signal", "a", Phase::Done, 9);
        assert_eq!(told(&runs.look(&status(vec![done.clone()]), 0)), [("a", "done", 9)]);
        assert!(runs.look(&status(vec![done.clone()]), SECOND).is_empty());
        let twice = runs.look(&status(vec![done.clone(), done]), 2 * SECOND);
        assert_eq!((told(&twice), twice[0].run.command.as_deref()), (vec![("a", "done", 9)], Some("c")));
    }

    #[test]
    fn one_that_was_pushed_out_of_the_list_is_told_as_it_was_last_seen() {
        let mut runs = Runs::new("capture/s");
        runs.look(&status(vec![progress("", "snapshot", "a", Phase::Reading, 7)]), 0);
        let mut away = status(Vec::new());
        away.state = State::Retrying;
        assert!(runs.look(&away, 10 * SECOND).is_empty(), "it may go on when the pipeline does");
        assert_eq!(told(&runs.look(&status(Vec::new()), 11 * SECOND)), [("a", "done", 7)]);
    }

    #[test]
    fn each_run_of_a_polled_table_is_told_once_and_none_from_before() {
        let mut runs = Runs::new("capture/s");
        let polled = |number, error: Option<&str>| {
            let last = PollRun { number, rows: 4, error: error.map(str::to_owned), ..PollRun::default() };
            let poll = PollStatus { table: "t".into(), last: Some(last), ..PollStatus::default() };
            PipelineStatus { polls: vec![poll], ..status(Vec::new()) }
        };
        assert!(runs.look(&polled(7, None), 0).is_empty());
        let next = runs.look(&polled(8, Some("no answer")), 0);
        assert_eq!(told(&next), [("t", "failed", 4)]);
        assert_eq!(next[0].run.id, "capture/s/t/8");
        assert!(runs.look(&polled(8, Some("no answer")), 0).is_empty());
    }
}
