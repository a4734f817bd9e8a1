//! Events per second over the last seconds, from samples of the counters. Memory: six samples of one number per pipeline.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const SAMPLES: usize = 6;
/// Time between two samples: rates are over five of these.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);

/// The last samples.
#[derive(Default)]
pub(crate) struct Rates(VecDeque<(Instant, Vec<u64>)>);

impl Rates {
    /// Adds a sample: one counter per pipeline, always in the same order.
    pub(crate) fn sample(&mut self, at: Instant, counters: Vec<u64>) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back((at, counters));
    }

    /// The rate of pipeline `index`, whose counter stands at `counter` at `now`; 0 before the first sample.
    pub(crate) fn rate(&self, index: usize, now: Instant, counter: u64) -> f64 {
        let Some((since, counters)) = self.0.front() else { return 0.0 };
        let seconds = now.saturating_duration_since(*since).as_secs_f64();
        let before = counters.get(index).copied().unwrap_or(counter);
        if seconds < 0.1 { 0.0 } else { counter.saturating_sub(before) as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_over_the_kept_samples_only() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rates.rate(0, at(0), 5), 0.0);
        for second in 0..20 {
            rates.sample(at(second), vec![second * 100, 0]);
        }
        assert_eq!(rates.rate(0, at(20), 2000), 100.0);
        assert_eq!(rates.rate(1, at(20), 0), 0.0);
    }
}
