//! Commands: which were taken, what they mean.

use crate::Job;
use caudal_core::{Action, Signal, Taken};
use std::collections::BTreeMap;

const TAKEN: &str = "command";
const PAUSED: &str = "paused";

/// What was commanded, as it is stored.
#[derive(Debug, Default)]
pub(super) struct Commands {
    last: Taken,
    pub(super) paused: bool,
}

impl Commands {
    pub(super) fn stored(notes: &BTreeMap<String, Option<String>>) -> Self {
        let last = notes.get(TAKEN).and_then(Option::as_ref).map(|text| Taken::parse(text));
        Self { last: last.unwrap_or_default(), paused: notes.get(PAUSED).is_some_and(Option::is_some) }
    }

    /// Whether it is a new one: then the notes that say that it was taken.
    pub(super) fn take(&mut self, signal: &Signal) -> Option<BTreeMap<String, Option<String>>> {
        if !self.last.precedes(signal) {
            return None;
        }
        self.last = Taken::of(signal);
        match signal.action {
            Action::Pause => self.paused = true,
            Action::Resume => self.paused = false,
            _ => {}
        }
        let paused = self.paused.then(|| "yes".to_owned());
        Some(BTreeMap::from([(TAKEN.to_owned(), Some(self.last.text())), (PAUSED.to_owned(), paused)]))
    }
}

/// Whether a job is meant by `table`, `database.table` or `*`, for one store behind an `@`.
pub(super) fn means(pattern: &str, job: &Job) -> bool {
    let (table, store) =
        pattern.rsplit_once('@').map_or((pattern, None), |(table, store)| (table, Some(store)));
    let is_table = table == "*" || table == job.table.table || table == job.table.to_string();
    let own = job.scope.as_ref().map(|scope| scope.name.as_str());
    is_table && (store.is_none_or(|store| store == "*") || store == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_once_and_those_of_a_topic_made_again_count_anew() {
        let signal = |origin: &str, number| {
            let (origin, id) = (origin.to_owned(), "x".to_owned());
            Signal { number, origin, id, action: Action::Pause }
        };
        let mut commands = Commands::default();
        let notes = commands.take(&signal("first", 9)).unwrap();
        let mut again = Commands::stored(&notes);
        assert!(again.paused && again.take(&signal("first", 9)).is_none());
        assert!(again.take(&signal("second", 0)).is_some());
    }
}
