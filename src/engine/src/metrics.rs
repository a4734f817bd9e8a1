//! Counters of a pipeline, and their Prometheus text. Plain atomics: the hot path adds, `/metrics` reads.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the commit histogram's buckets, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What a pipeline counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Events accepted by the writer.
    pub events: AtomicU64,
    /// Bytes of batches accepted by the writer.
    pub bytes: AtomicU64,
    /// Batches accepted.
    pub batches: AtomicU64,
    /// Events that the sink could not take.
    pub rejected: AtomicU64,
    /// Dead letters that wait for somebody.
    pub dead_letters: AtomicU64,
    /// Sessions that ended with an error.
    pub errors: AtomicU64,
    /// Source time up to which everything is durable, microseconds since the epoch; 0 at first.
    pub watermark_us: AtomicI64,
    /// Tables that the source cannot follow for now.
    pub set_aside: AtomicU64,
    /// Source time up to which all tables were compared with their source and equal, microseconds since the epoch; 0 where nobody compares
    /// again and again, or has not come by all of them.
    pub verified_us: AtomicI64,
    /// Rows that differed when they were compared last.
    pub differing: AtomicU64,
    commits: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took.as_micros() as u64, Relaxed);
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Relaxed)).sum()
    }
}

impl Metrics {
    /// A commit went through.
    pub fn committed(&self, took: Duration) {
        self.commits.record(took);
    }

    /// How many commits went through.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.total()
    }
}

/// One pipeline's part in an exposition: its name, whether it runs, and its counters.
pub struct Series<'a> {
    /// The `pipeline` label.
    pub pipeline: &'a str,
    /// 1 when it runs, else 0.
    pub up: bool,
    /// The counters.
    pub metrics: &'a Metrics,
}

/// Prometheus text (version 0.0.4) of all pipelines; `now_us` dates the lag.
#[must_use]
pub fn exposition(series: &[Series<'_>], now_us: i64) -> String {
    let mut out = String::new();
    counter(&mut out, series, "caudal_events_total", "Events accepted by the sink", |m| {
        m.events.load(Relaxed)
    });
    counter(&mut out, series, "caudal_bytes_total", "Bytes accepted by the sink", |m| m.bytes.load(Relaxed));
    counter(&mut out, series, "caudal_batches_total", "Batches accepted by the sink", |m| {
        m.batches.load(Relaxed)
    });
    counter(&mut out, series, "caudal_rejected_total", "Events the sink could not take", |m| {
        m.rejected.load(Relaxed)
    });
    head(&mut out, "caudal_dead_letters", "gauge", "Dead letters that wait for somebody");
    for s in series.iter().filter(|s| s.pipeline.starts_with("sink/")) {
        let open = s.metrics.dead_letters.load(Relaxed);
        let _ = writeln!(out, "caudal_dead_letters{{pipeline=\"{}\"}} {open}", escaped(s.pipeline));
    }
    counter(&mut out, series, "caudal_errors_total", "Sessions that ended with an error", |m| {
        m.errors.load(Relaxed)
    });
    head(&mut out, "caudal_up", "gauge", "Whether the pipeline runs");
    for s in series {
        let _ = writeln!(out, "caudal_up{{pipeline=\"{}\"}} {}", escaped(s.pipeline), u8::from(s.up));
    }
    head(
        &mut out,
        "caudal_watermark_lag_seconds",
        "gauge",
        "Age of the source time up to which everything is durable",
    );
    for s in series {
        let watermark = s.metrics.watermark_us.load(Relaxed);
        if watermark > 0 {
            let lag = (now_us - watermark).max(0) as f64 / 1e6;
            let _ =
                writeln!(out, "caudal_watermark_lag_seconds{{pipeline=\"{}\"}} {lag}", escaped(s.pipeline));
        }
    }
    head(&mut out, "caudal_tables_set_aside", "gauge", "Tables that the source cannot follow for now");
    for s in series {
        let tables = s.metrics.set_aside.load(Relaxed);
        let _ = writeln!(out, "caudal_tables_set_aside{{pipeline=\"{}\"}} {tables}", escaped(s.pipeline));
    }
    verified(&mut out, series);
    commit_histogram(&mut out, series);
    out
}

fn verified(out: &mut String, series: &[Series<'_>]) {
    let told: Vec<_> = series.iter().filter(|s| s.metrics.verified_us.load(Relaxed) > 0).collect();
    let (to, rows) = ("caudal_verified_to_seconds", "caudal_verify_differing_rows");
    head(
        out,
        to,
        "gauge",
        "Source time up to which all tables were compared and equal, seconds since the epoch",
    );
    for s in &told {
        let seconds = s.metrics.verified_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{to}{{pipeline=\"{}\"}} {seconds}", escaped(s.pipeline));
    }
    head(out, rows, "gauge", "Rows that differed from their source when they were compared last");
    for s in series.iter().filter(|s| s.pipeline.starts_with("sink/")) {
        let differing = s.metrics.differing.load(Relaxed);
        let _ = writeln!(out, "{rows}{{pipeline=\"{}\"}} {differing}", escaped(s.pipeline));
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn counter(out: &mut String, series: &[Series<'_>], name: &str, help: &str, value: impl Fn(&Metrics) -> u64) {
    head(out, name, "counter", help);
    for s in series {
        let _ = writeln!(out, "{name}{{pipeline=\"{}\"}} {}", escaped(s.pipeline), value(s.metrics));
    }
}

fn commit_histogram(out: &mut String, series: &[Series<'_>]) {
    const NAME: &str = "caudal_commit_seconds";
    head(out, NAME, "histogram", "Time of a commit");
    for s in series {
        let (name, commits) = (escaped(s.pipeline), &s.metrics.commits);
        let mut below = 0;
        for (count, bound) in commits.counts.iter().zip(BUCKETS) {
            below += count.load(Relaxed);
            let _ = writeln!(out, "{NAME}_bucket{{pipeline=\"{name}\",le=\"{bound}\"}} {below}");
        }
        let total = commits.total();
        let _ = writeln!(out, "{NAME}_bucket{{pipeline=\"{name}\",le=\"+Inf\"}} {total}");
        let _ =
            writeln!(out, "{NAME}_sum{{pipeline=\"{name}\"}} {}", commits.sum_us.load(Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{NAME}_count{{pipeline=\"{name}\"}} {total}");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_counts_cumulatively_and_dates_the_lag() {
        let metrics = Metrics::default();
        metrics.events.store(7, Relaxed);
        metrics.watermark_us.store(1_000_000, Relaxed);
        metrics.committed(Duration::from_millis(3));
        metrics.committed(Duration::from_secs(60));
        let text = exposition(&[Series { pipeline: "sink/a\"b", up: true, metrics: &metrics }], 3_500_000);
        for line in [
            "caudal_events_total{pipeline=\"sink/a\\\"b\"} 7",
            "caudal_up{pipeline=\"sink/a\\\"b\"} 1",
            "caudal_watermark_lag_seconds{pipeline=\"sink/a\\\"b\"} 2.5",
            "caudal_commit_seconds_bucket{pipeline=\"sink/a\\\"b\",le=\"0.0025\"} 0",
            "caudal_commit_seconds_bucket{pipeline=\"sink/a\\\"b\",le=\"0.005\"} 1",
            "caudal_commit_seconds_bucket{pipeline=\"sink/a\\\"b\",le=\"+Inf\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }
}
