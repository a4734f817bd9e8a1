//! Sparing the source: while more threads run there than configured, or it is a replica that lags more than configured, no chunk is begun.
//!
//! `Threads_running` is what goes up first when a server is short of anything (processor, disk, locks), and it is asked once a second. What a
//! chunk itself costs is bounded apart from that: chunks shrink when they take long (see [`super::table`]), and never take longer than
//! `chunk_time`.

use std::time::{Duration, Instant};

/// How often the load is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// What a source says of its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Threads that run, ours included.
    pub(crate) threads: u64,
    /// How far a replica is behind what it is meant to show, seconds; none where that is not known, or of no replica.
    pub(crate) lag: Option<u64>,
}

/// Whether to wait.
pub(crate) struct Throttle {
    /// Threads; 0: any number.
    threads: u64,
    /// Seconds; 0: any lag.
    lag: u64,
    asked: Option<Instant>,
    asking: bool,
    until: Option<Instant>,
}

impl Throttle {
    /// With at most so many threads running, on a replica that is at most `lag` behind. 0: as many, or as much, as may be.
    pub(crate) fn new(threads: u32, lag: Duration) -> Self {
        Self { threads: threads.into(), lag: lag.as_secs(), asked: None, asking: false, until: None }
    }

    /// Whether it waits for anything at all.
    fn is_on(&self) -> bool {
        self.threads > 0 || self.lag > 0
    }

    /// Whether the replica's lag matters.
    pub(crate) fn minds_lag(&self) -> bool {
        self.lag > 0
    }

    /// Whether nothing may be begun now.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.is_on() && (self.asking || self.until.is_some_and(|until| now < until))
    }

    /// Whether the load should be asked for now: then the answer must be [`Throttle::told`].
    pub(crate) fn asks(&mut self, now: Instant) -> bool {
        let due = self.is_on() && self.asked.is_none_or(|at| now >= at + EVERY);
        if due {
            (self.asked, self.asking) = (Some(now), true);
        }
        due
    }

    /// The load. True if that is too much, and it was not before.
    pub(crate) fn told(&mut self, load: Load, now: Instant) -> bool {
        self.asking = false;
        let before = self.until.is_some();
        let busy = self.threads > 0 && load.threads > self.threads;
        let late = self.lag > 0 && load.lag.is_some_and(|lag| lag > self.lag);
        self.until = (busy || late).then_some(now + EVERY);
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
        let (mut throttle, start) = (Throttle::new(10, Duration::ZERO), Instant::now());
        let load = |threads| Load { threads, lag: Some(1_000) };
        let at = |s| start + Duration::from_millis(s);
        assert!(throttle.asks(at(0)) && throttle.holds(at(0)));
        assert!(!throttle.told(load(10), at(1)) && !throttle.holds(at(1)));
        assert!(!throttle.asks(at(500)) && throttle.asks(at(1_001)));
        assert!(throttle.told(load(11), at(1_002)) && throttle.holds(at(1_900)));
        assert!(!throttle.holds(at(2_002)) && throttle.asks(at(2_002)));
        assert!(!throttle.told(load(12), at(2_003)), "it is said once");
        assert!(throttle.asks(at(3_100)) && !throttle.told(load(3), at(3_101)) && !throttle.holds(at(3_102)));
        assert!(!Throttle::new(0, Duration::ZERO).asks(at(0)));
    }

    #[test]
    fn nothing_is_begun_on_a_replica_that_lags() {
        let (mut throttle, now) = (Throttle::new(0, Duration::from_secs(30)), Instant::now());
        let lag = |lag| Load { threads: 1_000, lag };
        assert!(throttle.asks(now));
        assert!(!throttle.told(lag(None), now) && !throttle.holds(now), "no replica, or one that is stopped");
        assert!(!throttle.told(lag(Some(30)), now) && !throttle.holds(now));
        assert!(throttle.told(lag(Some(31)), now) && throttle.holds(now));
    }
}
