//! When the next request may go out: a rate limit, and what the server asked for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The longest that a server's `Retry-After` is followed.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Shared by all that ask one API.
pub(crate) struct Gate {
    /// Between two requests.
    apart: Duration,
    next: Mutex<Option<Instant>>,
}

impl Gate {
    pub(crate) fn new(apart: Duration) -> Self {
        Self { apart, next: Mutex::new(None) }
    }

    /// Waits for its turn.
    pub(crate) async fn pass(&self) {
        let at = {
            // Plain values: a panic while the lock was held leaves them as good as ever.
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.apart);
            at
        };
        tokio::time::sleep_until(at).await;
    }

    /// No request before this time has passed.
    pub(crate) fn close(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_WAIT);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Some(next.map_or(until, |next| next.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_distance_and_wait_as_long_as_they_are_told() {
        let gate = Gate::new(Duration::from_millis(200));
        let began = Instant::now();
        for _ in 0..6 {
            gate.pass().await;
        }
        assert_eq!(began.elapsed().as_millis(), 1000);
        gate.close(Duration::from_secs(30));
        let began = Instant::now();
        gate.pass().await;
        assert_eq!(began.elapsed().as_secs(), 30);
        gate.close(Duration::from_secs(86_400));
        let began = Instant::now();
        gate.pass().await;
        assert_eq!(began.elapsed().as_secs(), 600);
    }
}
