//! What happened and is not written yet, in order. Bounded: beyond [`MOST`] the oldest is given up.

use caudal_kafka::monitoring::Telling;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Records that may wait.
pub(super) const MOST: usize = 4_096;
/// Records that are written at a time.
const AT_ONCE: usize = 256;

/// The queue between who notes and who writes.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<VecDeque<(u64, Telling)>>,
    number: AtomicU64,
    filled: Notify,
}

impl Outbox {
    /// Adds records behind the others.
    pub(super) fn extend(&self, tellings: impl IntoIterator<Item = Telling>) {
        let mut waiting = self.waiting();
        let before = waiting.len();
        waiting.extend(tellings.into_iter().map(|t| (self.number.fetch_add(1, Relaxed), t)));
        let filled = waiting.len() > before;
        while waiting.len() > MOST {
            waiting.pop_front();
        }
        drop(waiting);
        if filled {
            self.filled.notify_one();
        }
    }

    /// The oldest ones, with the number behind the last of them.
    pub(super) fn first(&self) -> (Vec<Telling>, u64) {
        let waiting = self.waiting();
        let some = waiting.iter().take(AT_ONCE);
        let end = some.clone().last().map_or(0, |(number, _)| number + 1);
        (some.map(|(_, telling)| telling.clone()).collect(), end)
    }

    /// Those below `end` are written.
    pub(super) fn written(&self, end: u64) {
        self.waiting().retain(|(number, _)| *number >= end);
    }

    /// Until something may have been added.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    // A panic while the lock is held leaves whole records.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<(u64, Telling)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_kafka::monitoring::Told;

    fn telling(key: usize) -> Telling {
        Telling { topic: Told::Runs, key: key.to_string(), value: Vec::new() }
    }

    #[test]
    fn what_is_added_while_it_is_full_pushes_out_the_oldest_and_what_is_written_goes() {
        let outbox = Outbox::default();
        outbox.extend((0..MOST + 10).map(telling));
        let (some, end) = outbox.first();
        assert_eq!((some.len(), some[0].key.as_str()), (AT_ONCE, "10"));
        outbox.extend((0..20).map(telling));
        outbox.written(end);
        assert_eq!(outbox.first().0[0].key, (AT_ONCE + 10).to_string());
    }
}
