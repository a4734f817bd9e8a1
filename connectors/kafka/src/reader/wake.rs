//! How librdkafka's threads wake the thread that reads.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A flag that one thread waits for and others set. A set flag is seen by the next wait, so nothing is missed between a
/// look at a queue and the wait.
#[derive(Debug, Default)]
pub(super) struct Wake {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Ends the wait that is on, or the next one.
    pub(super) fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits until the flag is set or the time is up, and takes the flag back.
    pub(super) fn wait(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                break;
            };
            set = self.changed.wait_timeout(set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *set = false;
    }
}
