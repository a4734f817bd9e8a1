//! Commands from outside: re-reads with and without a condition, stop, pause, resume.
//!
//! A command counts as taken when the note with its number is stored, in the same batch as what it asked for. So after a restart
//! it is neither lost nor taken twice, however often it is given.

use crate::client::quoted;
use crate::schema::Timeline;
use crate::selection::Selection;
use crate::snapshot::request::{Reason, Request, Rows};
use crate::snapshot::run::Snapshot;
use caudal_core::{Action, ForeignKey, Phase, Progress, Signal, TableId, Taken};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// The note with the last command taken.
pub(crate) const SIGNAL_NOTE: &str = "signal";
/// The note that reading is paused.
pub(crate) const PAUSED_NOTE: &str = "paused";
/// Commands that are kept for a reader that is opened later.
const KEPT: usize = 1_000;
/// Tables of one cluster of foreign keys.
const CLUSTER: usize = 100;

/// Commands as they come; outlives the reader, so that one that is opened again takes what its forerunner did not store.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    signals: Mutex<VecDeque<Signal>>,
    came: Notify,
}

impl Inbox {
    /// Adds one.
    pub(crate) fn add(&self, signal: Signal) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        // What the old ones were written to is gone.
        if signals.back().is_some_and(|last| last.is_apart(&signal)) {
            signals.clear();
        }
        if signals.len() >= KEPT {
            signals.pop_front();
        }
        signals.push_back(signal);
        drop(signals);
        self.came.notify_waiters();
    }

    /// The first after this one. Cancel-safe.
    pub(crate) async fn next(&self, after: &Taken) -> Signal {
        loop {
            let mut came = std::pin::pin!(self.came.notified());
            came.as_mut().enable();
            let found = {
                let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
                signals.iter().find(|s| after.precedes(s)).cloned()
            };
            if let Some(signal) = found {
                return signal;
            }
            came.await;
        }
    }
}

impl Snapshot {
    /// Takes a command.
    pub(crate) fn command(&mut self, signal: &Signal, timeline: &Timeline) {
        self.notes.push((SIGNAL_NOTE.to_owned(), Some(Taken::of(signal).text())));
        self.act(signal, timeline);
    }

    /// Does what a command says: whoever gave it, and remembers that it was taken.
    pub(crate) fn act(&mut self, signal: &Signal, timeline: &Timeline) {
        match &signal.action {
            Action::Reread { tables, conditions } => self.reread(&signal.id, tables, conditions, timeline),
            Action::Stop { tables } => self.stop(tables),
            Action::Pause => self.pause(true),
            Action::Resume => self.pause(false),
        }
        self.publish();
    }

    fn pause(&mut self, paused: bool) {
        tracing::info!(source = self.config.name, "snapshot: {}", if paused { "paused" } else { "goes on" });
        self.paused = paused;
        self.notes.push((PAUSED_NOTE.to_owned(), paused.then(|| "true".to_owned())));
    }

    fn reread(&mut self, id: &str, tables: &[String], conditions: &[(String, String)], timeline: &Timeline) {
        for pattern in tables {
            let named = self.named(pattern, timeline.tables().map(|(id, _)| id));
            if named.is_empty() {
                self.refuse(id, pattern);
            }
            for table in named {
                let condition = conditions
                    .iter()
                    .find(|(of, _)| of == pattern || *of == table.to_string() || *of == table.table)
                    .map(|(_, condition)| condition.clone());
                for (table, rows) in cluster(table, condition, timeline) {
                    let request = match rows {
                        Rows::All => Request::table(table, Reason::Asked),
                        rows => Request::new(table, rows, Reason::Asked),
                    };
                    self.request(request.asked_by(id));
                }
            }
        }
    }

    fn refuse(&self, id: &str, pattern: &str) {
        tracing::warn!(source = self.config.name, table = pattern, "re-read: no such table is captured");
        self.board.ended(Progress {
            id: id.to_owned(),
            reason: Reason::Asked.as_str().to_owned(),
            table: pattern.to_owned(),
            phase: Phase::Refused,
            rows: 0,
            delivered: 0,
            deleted: 0,
            bytes: 0,
            estimated_rows: 0,
            rows_per_second: 0,
            seconds_left: None,
        });
    }

    /// Gives up re-reads; tables that are read for the first time are not given up.
    fn stop(&mut self, patterns: &[String]) {
        let known: BTreeSet<TableId> = self
            .requests
            .iter()
            .map(|r| r.table.clone())
            .chain(self.tables.iter().map(|(_, t)| t.id.clone()))
            .collect();
        let named: BTreeSet<TableId> = match patterns {
            [] => known,
            _ => patterns.iter().flat_map(|p| self.named(p, known.iter())).collect(),
        };
        let stopped: Vec<Request> =
            self.requests.iter().filter(|r| named.contains(&r.table)).cloned().collect();
        self.requests.retain(|r| !named.contains(&r.table));
        for request in stopped {
            self.notes.push((request.note(), None));
            self.board.ended(Progress {
                id: request.asked_by.clone(),
                reason: request.reason.as_str().to_owned(),
                table: request.table.to_string(),
                phase: Phase::Stopped,
                rows: 0,
                delivered: 0,
                deleted: 0,
                bytes: 0,
                estimated_rows: 0,
                rows_per_second: 0,
                seconds_left: None,
            });
        }
        let holding = self.holds().cloned();
        let serials: Vec<u64> = self
            .tables
            .iter()
            // A piece of which a part was handed on must be handed on to its end.
            .filter(|(_, t)| t.request.is_some() && named.contains(&t.id) && holding.as_ref() != Some(&t.id))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in serials {
            let notes: Vec<String> = self.table(serial).into_iter().flat_map(|t| t.request_notes()).collect();
            self.notes.extend(notes.into_iter().map(|note| (note, None)));
            self.finish(serial, Phase::Stopped);
        }
    }

    /// The tables that a name or pattern means. Debezium writes names as regular expressions: a dot is `\.` there.
    fn named<'a>(&self, pattern: &str, tables: impl Iterator<Item = &'a TableId>) -> Vec<TableId> {
        let pattern = pattern.replace("\\.", ".").replace(".*", "*");
        let database = self.config.address.database.as_deref();
        let Ok(selection) = Selection::parse(&[pattern], database) else { return Vec::new() };
        tables.filter(|id| selection.selects(id)).cloned().collect()
    }
}

/// A table with the rows that are meant; with a condition, also the rows of its children (and of theirs) that refer to them.
fn cluster(table: TableId, condition: Option<String>, timeline: &Timeline) -> Vec<(TableId, Rows)> {
    let Some(condition) = condition else { return vec![(table, Rows::All)] };
    let mut found = vec![(table, condition)];
    let mut at = 0;
    while at < found.len() && found.len() < CLUSTER {
        let (parent, condition) = found[at].clone();
        at += 1;
        for (child, known) in timeline.tables() {
            let of_parent = known.schema.foreign_keys.iter().filter(|f| f.parent == parent);
            for key in of_parent {
                if !found.iter().any(|(id, _)| id == child) {
                    found.push((child.clone(), referring(key, &condition)));
                }
            }
        }
    }
    found.into_iter().map(|(id, condition)| (id, Rows::Where { condition })).collect()
}

fn referring(key: &ForeignKey, condition: &str) -> String {
    let list = |names: &[String]| names.iter().map(|n| quoted(n)).collect::<Vec<_>>().join(", ");
    format!(
        "({}) IN (SELECT {} FROM {}.{} WHERE (\n{condition}\n))",
        list(&key.columns),
        list(&key.parent_columns),
        quoted(&key.parent.database),
        quoted(&key.parent.table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    fn signal(origin: &str, number: i64) -> Signal {
        Signal { number, origin: origin.to_owned(), id: format!("{origin}{number}"), action: Action::Pause }
    }

    /// All that is taken, one after the other.
    fn taken(inbox: &Inbox, mut last: Taken) -> Vec<String> {
        let mut ids = Vec::new();
        let mut nothing = Context::from_waker(Waker::noop());
        while let Poll::Ready(signal) = std::pin::pin!(inbox.next(&last.clone())).poll(&mut nothing) {
            last = Taken::parse(&Taken::of(&signal).text());
            ids.push(signal.id);
            assert!(ids.len() < 10, "{ids:?}");
        }
        ids
    }

    #[test]
    fn commands_of_a_topic_that_was_made_again_are_taken_once() {
        let inbox = Inbox::default();
        (1..=3).for_each(|n| inbox.add(signal("a", n)));
        assert_eq!(taken(&inbox, Taken::parse("2 a")), ["a3"]);
        (1..=2).for_each(|n| inbox.add(signal("b", n)));
        assert_eq!(taken(&inbox, Taken::parse("3 a")), ["b1", "b2"]);
        // Read once more, as after a lost connection.
        (1..=2).for_each(|n| inbox.add(signal("b", n)));
        assert!(taken(&inbox, Taken::parse("2 b")).is_empty());
    }

    #[test]
    fn where_no_topic_has_an_id_numbers_alone_count() {
        let inbox = Inbox::default();
        (1..=3).for_each(|n| inbox.add(signal("", n)));
        assert_eq!(taken(&inbox, Taken::parse("2")), ["3"]);
        inbox.add(signal("a", 4));
        assert_eq!(taken(&inbox, Taken::parse("3")), ["a4"]);
    }
}
