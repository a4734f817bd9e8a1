//! Debezium's notifications of one pipeline, made of the runs that began and ended and of what waits.
//!
//! The first reading of a source's tables is one `Initial Snapshot`. What a command asks to read anew is an `Incremental Snapshot` by the
//! command's id; what a source reads anew of itself has an id of its own. An id names a snapshot's notifications for those; each of
//! an initial snapshot has its own, as Debezium's do.

use super::bytes;
use super::runs::Step;
use caudal_core::{Phase, Progress};
use caudal_engine::{PipelineStatus, State};
use caudal_kafka::monitoring::{Telling, Told};
use caudal_proto::monitoring::{Notification, NotificationKey};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Tables that a notification names.
const MOST_TABLES: usize = 1_000;

/// One pipeline's snapshots under way.
pub(super) struct Notifier {
    /// How Debezium would call the connector: the prefix of its topics.
    connector: String,
    /// By command; empty for the initial one; `*` for what the source asked of itself.
    open: BTreeMap<String, Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    /// None: each notification has its own.
    id: Option<String>,
    tables: BTreeSet<String>,
    paused: bool,
}

impl Notifier {
    pub(super) fn new(connector: &str) -> Self {
        Self { connector: connector.to_owned(), open: BTreeMap::new() }
    }

    /// What is to be notified after a look: `steps` are the runs that began or ended since the last one.
    pub(super) fn look(
        &mut self,
        status: &PipelineStatus,
        stopping: bool,
        steps: &[Step],
        now_us: i64,
    ) -> Vec<Telling> {
        let mut told = Vec::new();
        let is_open = |p: &&Progress| !matches!(p.phase, Phase::Done | Phase::Stopped | Phase::Refused);
        let open: Vec<&Progress> =
            status.reading.iter().filter(|p| p.reason != "poll").filter(is_open).collect();
        for progress in &open {
            self.meet(&group(&progress.id, &progress.reason), &progress.table, &mut told);
        }
        self.pauses(&open, &mut told);
        for step in steps.iter().filter(|step| step.run.kind != "poll" && step.run.state != "refused") {
            let name = of(step);
            self.meet(&name, &step.run.table, &mut told);
            self.step(&name, step, &mut told);
        }
        let ends = stopping || matches!(status.state, State::Parked | State::Failed);
        let stopped: BTreeSet<String> =
            steps.iter().filter(|step| step.run.state == "stopped").map(of).collect();
        let left: BTreeSet<String> = open.iter().map(|p| group(&p.id, &p.reason)).collect();
        let over: Vec<String> =
            self.open.keys().filter(|name| ends || !left.contains(*name)).cloned().collect();
        // A pipeline that tries again shows nothing for a moment.
        if ends || status.state == State::Running {
            for name in over {
                let kind = if ends || stopped.contains(&name) { "ABORTED" } else { "COMPLETED" };
                if let Some(snapshot) = self.open.remove(&name) {
                    told.push((name, snapshot.id, kind, Vec::new()));
                }
            }
        }
        told.into_iter().filter_map(|what| self.telling(what, now_us)).collect()
    }

    /// A snapshot begins with the first that is seen of it.
    fn meet(&mut self, name: &str, table: &str, told: &mut Vec<What>) {
        if let Some(snapshot) = self.open.get_mut(name) {
            if snapshot.tables.len() < MOST_TABLES {
                snapshot.tables.insert(table.to_owned());
            }
            return;
        }
        let id = match name {
            INITIAL => None,
            OWN => Some(Uuid::new_v4().to_string()),
            command => Some(command.to_owned()),
        };
        let tables = BTreeSet::from([table.to_owned()]);
        let about = if name == INITIAL { Vec::new() } else { vec![("data_collections", table.to_owned())] };
        told.push((name.to_owned(), id.clone(), "STARTED", about));
        self.open.insert(name.to_owned(), Snapshot { id, tables, paused: false });
    }

    fn step(&mut self, name: &str, step: &Step, told: &mut Vec<What>) {
        let Some(snapshot) = self.open.get_mut(name) else { return };
        let tables = snapshot.tables.iter().cloned().collect::<Vec<_>>().join(", ");
        // What was paused and is read went on between two looks.
        if std::mem::take(&mut snapshot.paused) && step.run.state != "stopped" {
            let about = vec![("data_collections", tables.clone())];
            told.push((name.to_owned(), snapshot.id.clone(), "RESUMED", about));
        }
        let table = step.run.table.clone();
        let mut say = |kind, about| told.push((name.to_owned(), snapshot.id.clone(), kind, about));
        let in_progress =
            || vec![("current_collection_in_progress", table.clone()), ("data_collections", tables.clone())];
        if step.begun {
            return say("IN_PROGRESS", in_progress());
        }
        if step.run.took_ms == 0 {
            say("IN_PROGRESS", in_progress());
        }
        let status = match (step.run.state.as_str(), step.run.rows) {
            ("stopped", _) => "SKIPPED",
            (_, 0) => "EMPTY",
            _ => "SUCCEEDED",
        };
        let status = if name == INITIAL && status == "EMPTY" { "SUCCEEDED" } else { status };
        say(
            "TABLE_SCAN_COMPLETED",
            vec![
                ("scanned_collection", table.clone()),
                ("data_collections", tables.clone()),
                ("total_rows_scanned", step.run.rows.to_string()),
                ("status", status.to_owned()),
            ],
        );
    }

    fn pauses(&mut self, open: &[&Progress], told: &mut Vec<What>) {
        for (name, snapshot) in &mut self.open {
            let mut of = open.iter().filter(|p| group(&p.id, &p.reason) == *name).peekable();
            if of.peek().is_none() {
                continue;
            }
            let paused = of.any(|p| p.phase == Phase::Paused);
            if paused != snapshot.paused {
                snapshot.paused = paused;
                let tables = snapshot.tables.iter().cloned().collect::<Vec<_>>().join(", ");
                let kind = if paused { "PAUSED" } else { "RESUMED" };
                told.push((name.clone(), snapshot.id.clone(), kind, vec![("data_collections", tables)]));
            }
        }
    }

    fn telling(&self, (name, id, kind, about): What, now_us: i64) -> Option<Telling> {
        let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let mut additional_data: BTreeMap<String, String> =
            about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        additional_data.insert("connector_name".to_owned(), self.connector.clone());
        let aggregate = if name == INITIAL { "Initial Snapshot" } else { "Incremental Snapshot" };
        let notification = Notification {
            id: id.clone(),
            aggregate_type: aggregate.to_owned(),
            kind: kind.to_owned(),
            additional_data,
            timestamp: now_us.div_euclid(1_000),
        };
        let key = String::from_utf8(bytes(&NotificationKey { id })?).ok()?;
        Some(Telling { topic: Told::Notifications, key, value: bytes(&notification)? })
    }
}

/// Of which snapshot, with which id, what, about what.
type What = (String, Option<String>, &'static str, Vec<(&'static str, String)>);

const INITIAL: &str = "";
const OWN: &str = "*";

/// Of which snapshot a run is.
fn of(step: &Step) -> String {
    let reason = step.run.reason.as_deref().unwrap_or("snapshot");
    group(step.run.command.as_deref().unwrap_or_default(), reason)
}

fn group(command: &str, reason: &str) -> String {
    match (reason, command) {
        ("snapshot", _) => INITIAL.to_owned(),
        (_, "") => OWN.to_owned(),
        (_, command) => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs::Runs;
    use super::super::runs::tests::{progress, status};
    use super::*;

    struct Life {
        runs: Runs,
        notifier: Notifier,
        now_us: i64,
    }

    impl Life {
        fn new() -> Self {
            Self { runs: Runs::new("capture/s"), notifier: Notifier::new("shop"), now_us: 0 }
        }

        fn look(&mut self, status: &PipelineStatus, stopping: bool) -> Vec<String> {
            self.now_us += 1_000_000;
            let steps = self.runs.look(status, self.now_us);
            let told = self.notifier.look(status, stopping, &steps, self.now_us);
            let text = |telling: Telling| {
                let n: Notification = serde_json::from_slice(&telling.value).unwrap();
                assert_eq!(n.additional_data["connector_name"], "shop");
                assert_eq!(telling.key, format!("{{\"id\":\"{}\"}}", n.id));
                let about = ["current_collection_in_progress", "scanned_collection", "data_collections"];
                let about = about.iter().find_map(|key| n.additional_data.get(*key).cloned());
                format!("{} {} {}", n.aggregate_type, n.kind, about.unwrap_or_default()).trim().to_owned()
            };
            told.into_iter().map(text).collect()
        }
    }

    #[test]
    fn an_initial_snapshot_is_told_from_its_start_to_its_end() {
        let mut life = Life::new();
        let (a, b) = ("db.a", "db.b");
        let now = |a_phase, b_phase| {
            status(vec![progress("", "snapshot", a, a_phase, 5), progress("", "snapshot", b, b_phase, 0)])
        };
        assert_eq!(
            life.look(&now(Phase::Reading, Phase::Waiting), false),
            ["Initial Snapshot STARTED", "Initial Snapshot IN_PROGRESS db.a"]
        );
        assert_eq!(
            life.look(&now(Phase::Done, Phase::Reading), false),
            ["Initial Snapshot IN_PROGRESS db.b", "Initial Snapshot TABLE_SCAN_COMPLETED db.a"]
        );
        assert_eq!(
            life.look(&now(Phase::Done, Phase::Done), false),
            ["Initial Snapshot TABLE_SCAN_COMPLETED db.b", "Initial Snapshot COMPLETED"]
        );
        assert!(life.look(&now(Phase::Done, Phase::Done), true).is_empty());
    }

    #[test]
    fn a_command_is_told_with_its_pauses_and_a_stopped_one_is_aborted() {
        let mut life = Life::new();
        let now = |phase| status(vec![progress("cmd", "signal", "db.a", phase, 5)]);
        let told = life.look(&now(Phase::Reading), false);
        assert_eq!(told[0], "Incremental Snapshot STARTED db.a");
        assert_eq!(life.look(&now(Phase::Paused), false), ["Incremental Snapshot PAUSED db.a"]);
        assert!(life.look(&now(Phase::Paused), false).is_empty());
        assert_eq!(life.look(&now(Phase::Reading), false), ["Incremental Snapshot RESUMED db.a"]);
        assert_eq!(
            life.look(&now(Phase::Stopped), false),
            ["Incremental Snapshot TABLE_SCAN_COMPLETED db.a", "Incremental Snapshot ABORTED"]
        );
    }

    #[test]
    fn what_is_seen_only_when_it_is_over_is_told_whole_and_what_is_cut_off_is_aborted() {
        let mut life = Life::new();
        let done = status(vec![progress("", "snapshot", "db.a", Phase::Done, 5)]);
        let kinds: Vec<String> = life.look(&done, false);
        assert_eq!(
            kinds,
            [
                "Initial Snapshot STARTED",
                "Initial Snapshot IN_PROGRESS db.a",
                "Initial Snapshot TABLE_SCAN_COMPLETED db.a",
                "Initial Snapshot COMPLETED"
            ]
        );
        let mut life = Life::new();
        life.look(&status(vec![progress("", "snapshot", "db.a", Phase::Reading, 5)]), false);
        let told = life.look(&status(vec![progress("", "snapshot", "db.a", Phase::Reading, 5)]), true);
        assert_eq!(told, ["Initial Snapshot ABORTED"]);
    }
}
