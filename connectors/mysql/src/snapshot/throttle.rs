//! Sparing the source: while more threads run there than configured, no chunk is begun.
//!
//! `Threads_running` is what goes up first when a server is short of anything (processor, disk, locks), and it is asked once a second. What a
//! chunk itself costs is bounded apart from that: chunks shrink when they take long (see [`super::table`]), and never take longer than
//! `chunk_time`.

use std::time::{Duration, Instant};

/// How often the load is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// Whether to wait.
pub(crate) struct Throttle {
    /// 0: never.
    limit: u64,
    asked: Option<Instant>,
    asking: bool,
    until: Option<Instant>,
}

impl Throttle {
    /// With at most `limit` threads running.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: u64::from(limit), asked: None, asking: false, until: None }
    }

    /// Whether nothing may be begun now.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.limit > 0 && (self.asking || self.until.is_some_and(|until| now < until))
    }

    /// Whether the load should be asked for now: then the answer must be [`Throttle::told`].
    pub(crate) fn asks(&mut self, now: Instant) -> bool {
        let due = self.limit > 0 && self.asked.is_none_or(|at| now >= at + EVERY);
        if due {
            (self.asked, self.asking) = (Some(now), true);
        }
        due
    }

    /// The load. True if that is too much, and it was not before.
    pub(crate) fn told(&mut self, load: u64, now: Instant) -> bool {
        self.asking = false;
        let before = self.until.is_some();
        self.until = (load > self.limit).then_some(now + EVERY);
        self.until.is_some() && !before
    }

    /// Until when nothing is begun.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_begun_while_the_source_is_busy_and_it_is_asked_again() {
        let (mut throttle, start) = (Throttle::new(10), Instant::now());
        let at = |s| start + Duration::from_millis(s);
        assert!(throttle.asks(at(0)) && throttle.holds(at(0)));
        assert!(!throttle.told(10, at(1)) && !throttle.holds(at(1)));
        assert!(!throttle.asks(at(500)) && throttle.asks(at(1_001)));
        assert!(throttle.told(11, at(1_002)) && throttle.holds(at(1_900)));
        assert!(!throttle.holds(at(2_002)) && throttle.asks(at(2_002)));
        assert!(!throttle.told(12, at(2_003)), "it is said once");
        assert!(throttle.asks(at(3_100)) && !throttle.told(3, at(3_101)) && !throttle.holds(at(3_102)));
        assert!(!Throttle::new(0).asks(at(0)));
    }
}
