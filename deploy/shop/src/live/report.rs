//! The table of what arrived, second by second.

use std::time::{Duration, Instant};

use super::Commit;

/// What became visible in a span of time.
#[derive(Default)]
struct Span {
    inserts: u64,
    updates: u64,
    deletes: u64,
    latencies: Vec<Duration>,
}

pub(super) struct Report {
    start: Instant,
    second: u64,
    now: Span,
    all: Span,
}

impl Report {
    pub(super) fn new(start: Instant) -> Self {
        println!(
            "{:>6} {:>9} {:>9} {:>9}   commit to visible: p50, p99, most",
            "second", "inserts", "updates", "deletes"
        );
        Self { start, second: 0, now: Span::default(), all: Span::default() }
    }

    /// A commit was seen in the sink at `at`.
    pub(super) fn visible(&mut self, commit: &Commit, at: Instant) {
        for span in [&mut self.now, &mut self.all] {
            span.inserts += commit.inserts;
            span.updates += commit.updates;
            span.deletes += commit.deletes;
            span.latencies.push(at.saturating_duration_since(commit.at));
        }
    }

    /// Prints the line of a second that is over.
    pub(super) fn tick(&mut self) {
        if self.start.elapsed().as_secs() > self.second {
            self.second = self.start.elapsed().as_secs();
            let span = std::mem::take(&mut self.now);
            span.print(&self.second.to_string());
        }
    }

    /// Prints the sums; `waiting` commits never arrived.
    pub(super) fn finish(self, waiting: usize) {
        let commits = self.all.latencies.len();
        self.all.print("all");
        println!("{commits} transactions seen in the sink, {waiting} not");
    }
}

impl Span {
    fn print(mut self, label: &str) {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let index =
                ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
            self.latencies
                .get(index)
                .map_or_else(|| "-".to_owned(), |d| format!("{:.1} ms", d.as_secs_f64() * 1e3))
        };
        println!(
            "{label:>6} {:>9} {:>9} {:>9}   {:>9} {:>9} {:>9}",
            self.inserts,
            self.updates,
            self.deletes,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}
