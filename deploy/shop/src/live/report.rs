//! The table of what arrived, second by second.

use std::time::{Duration, Instant};

use super::Commit;
use crate::figures::{grouped, milliseconds};

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
        println!("{:>8}{:>10}{:>9}{:>9}    from commit to visible", "", "", "", "");
        println!(
            "{:>8}{:>10}{:>9}{:>9}{:>11}{:>11}{:>11}",
            "second", "inserts", "updates", "deletes", "p50", "p99", "slowest"
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
        match waiting {
            0 => println!("  all {} transactions arrived", grouped(commits as u64)),
            _ => println!("  {} transactions arrived, {waiting} did NOT", grouped(commits as u64)),
        }
    }
}

impl Span {
    fn print(mut self, label: &str) {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let index =
                ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
            self.latencies.get(index).map_or_else(|| "-".to_owned(), |d| milliseconds(*d))
        };
        println!(
            "{label:>8}{:>10}{:>9}{:>9}{:>11}{:>11}{:>11}",
            grouped(self.inserts),
            grouped(self.updates),
            grouped(self.deletes),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}
