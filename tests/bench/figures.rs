//! The figures of all rounds: medians with their spread, ratios to Debezium, goals; as JSON and as a Markdown table.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::latency::Latency;
use crate::watch::Volume;

/// What a figure measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Events per second.
    Rate,
    /// CPU seconds of the process per million events.
    Cpu,
    /// Peak resident memory, MB.
    Peak,
    /// From the start of the process to the first event, seconds.
    Ready,
    /// Latency, ms.
    P50,
    /// Latency, ms.
    P99,
    /// Percent of one core.
    Core,
    /// Resident memory, MB.
    Resident,
}

impl Metric {
    fn name(self) -> &'static str {
        match self {
            Self::Rate => "events_per_second",
            Self::Cpu => "cpu_seconds_per_million",
            Self::Peak => "peak_mb",
            Self::Ready => "start_to_first_event_seconds",
            Self::P50 => "p50_ms",
            Self::P99 => "p99_ms",
            Self::Core => "percent_of_a_core",
            Self::Resident => "resident_mb",
        }
    }

    fn more_is_better(self) -> bool {
        self == Self::Rate
    }
}

/// One metric of one contestant at one kind of work, in all rounds.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) source: String,
    pub(crate) work: String,
    pub(crate) runner: String,
    pub(crate) metric: Metric,
    rounds: Vec<f64>,
}

impl Figure {
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
    }

    fn least(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// `168,000 (150,000–171,000)`
    fn shown(&self) -> String {
        let median = number(self.median());
        if self.rounds.len() < 2 {
            return median;
        }
        format!("{median} ({}–{})", number(self.least()), number(self.most()))
    }
}

fn number(n: f64) -> String {
    match n {
        n if n >= 1_000.0 => {
            let thousands = (n / 1_000.0).round();
            if thousands >= 1_000.0 { format!("{:.2} M", n / 1e6) } else { format!("{thousands:.0} k") }
        }
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

/// A goal of the project: a bound on the figure itself, or on its ratio to Debezium's in the same run.
struct Goal {
    work: &'static str,
    runner: &'static str,
    metric: Metric,
    bound: Bound,
}

enum Bound {
    AtMost(f64),
    TimesDebezium(f64),
    /// Share of what librdkafka reaches with the same records from memory.
    OfFloor(f64),
}

const KAFKA: &str = "caudal, Kafka";
const LOOSE: &str = "caudal, Kafka, at least once";
/// The work of librdkafka alone, with the records of the backlog.
pub(crate) const FLOOR: &str = "floor: the backlog's records produced";

const GOALS: [Goal; 17] = [
    Goal { work: "backlog", runner: KAFKA, metric: Metric::Cpu, bound: Bound::TimesDebezium(10.0) },
    Goal { work: "backlog", runner: KAFKA, metric: Metric::Rate, bound: Bound::TimesDebezium(4.0) },
    Goal { work: "backlog", runner: KAFKA, metric: Metric::Rate, bound: Bound::OfFloor(0.8) },
    Goal { work: "backlog", runner: KAFKA, metric: Metric::Peak, bound: Bound::AtMost(100.0) },
    Goal { work: "snapshot", runner: KAFKA, metric: Metric::Cpu, bound: Bound::TimesDebezium(10.0) },
    Goal { work: "snapshot", runner: KAFKA, metric: Metric::Peak, bound: Bound::AtMost(100.0) },
    Goal { work: "single", runner: KAFKA, metric: Metric::Cpu, bound: Bound::TimesDebezium(10.0) },
    Goal { work: "latency 200/s", runner: KAFKA, metric: Metric::P50, bound: Bound::AtMost(8.0) },
    Goal { work: "latency 200/s", runner: KAFKA, metric: Metric::P99, bound: Bound::AtMost(20.0) },
    Goal { work: "latency 2000/s", runner: KAFKA, metric: Metric::P50, bound: Bound::AtMost(8.0) },
    Goal { work: "latency 2000/s", runner: KAFKA, metric: Metric::P99, bound: Bound::AtMost(20.0) },
    Goal { work: "latency 200/s", runner: LOOSE, metric: Metric::P50, bound: Bound::AtMost(3.0) },
    Goal { work: "latency 200/s", runner: LOOSE, metric: Metric::P99, bound: Bound::AtMost(10.0) },
    Goal { work: "latency 2000/s", runner: LOOSE, metric: Metric::P50, bound: Bound::AtMost(3.0) },
    Goal { work: "latency 2000/s", runner: LOOSE, metric: Metric::P99, bound: Bound::AtMost(10.0) },
    Goal { work: "apply", runner: KAFKA, metric: Metric::Cpu, bound: Bound::TimesDebezium(10.0) },
    Goal { work: "idle", runner: KAFKA, metric: Metric::Resident, bound: Bound::AtMost(30.0) },
];

/// Gathers figures while rounds go by.
#[derive(Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    pub(crate) fn add(&mut self, (source, work, runner): (&str, &str, &str), metric: Metric, value: f64) {
        let same = |f: &&mut Figure| {
            (f.source.as_str(), f.work.as_str(), f.runner.as_str(), f.metric)
                == (source, work, runner, metric)
        };
        match self.0.iter_mut().find(same) {
            Some(figure) => figure.rounds.push(value),
            None => self.0.push(Figure {
                source: source.to_owned(),
                work: work.to_owned(),
                runner: runner.to_owned(),
                metric,
                rounds: vec![value],
            }),
        }
    }

    pub(crate) fn volume(&mut self, of: (&str, &str, &str), v: &Volume) {
        self.add(of, Metric::Rate, v.rate);
        self.add(of, Metric::Cpu, v.cpu);
        if v.peak > 0 {
            self.add(of, Metric::Peak, v.peak as f64 / 1e6);
            self.add(of, Metric::Ready, v.ready);
        }
    }

    pub(crate) fn latency(&mut self, of: (&str, &str, &str), l: &Latency) {
        self.add(of, Metric::P50, l.p50);
        self.add(of, Metric::P99, l.p99);
        self.add(of, Metric::Rate, l.rate);
    }

    pub(crate) fn all(&self) -> &[Figure] {
        &self.0
    }

    fn of(&self, source: &str, work: &str, runner: &str, metric: Metric) -> Option<&Figure> {
        self.0.iter().find(|f| {
            (f.source.as_str(), f.work.as_str(), f.runner.as_str(), f.metric)
                == (source, work, runner, metric)
        })
    }

    /// How many times better than Debezium's in the same run.
    fn ratio(&self, figure: &Figure) -> Option<f64> {
        let theirs = self.0.iter().find(|f| {
            f.runner.starts_with("Debezium")
                && (&f.source, &f.work, f.metric) == (&figure.source, &figure.work, figure.metric)
        })?;
        let (ours, theirs) = (figure.median(), theirs.median());
        Some(if figure.metric.more_is_better() { ours / theirs } else { theirs / ours })
    }

    pub(crate) fn json(&self, machine: &str) -> Value {
        let figures = self.0.iter().map(|f| {
            json!({
                "source": f.source, "work": f.work, "runner": f.runner, "metric": f.metric.name(), "median": f.median(),
                "least": f.least(), "most": f.most(), "rounds": f.rounds, "times_debezium": self.ratio(f),
            })
        });
        json!({ "machine": machine, "figures": figures.collect::<Vec<_>>() })
    }

    pub(crate) fn markdown(&self, machine: &str) -> String {
        let mut out = format!("{machine}\n\n");
        out.push_str("| source | work | who | events/s | CPU-s per million | peak MB | p50 ms | p99 ms | start to first, s | times Debezium: events/s, per CPU-s |\n");
        out.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
        let mut done: Vec<(&str, &str, &str)> = Vec::new();
        for f in &self.0 {
            let line = (f.source.as_str(), f.work.as_str(), f.runner.as_str());
            if f.work == "idle" || done.contains(&line) {
                continue;
            }
            done.push(line);
            let (source, work, runner) = line;
            let cell = |metric| self.of(source, work, runner, metric).map_or(String::new(), Figure::shown);
            let times = |metric| {
                let ratio = self.of(source, work, runner, metric).and_then(|f| self.ratio(f));
                ratio.map_or("–".into(), |r| format!("{r:.1}×"))
            };
            let ratios = if f.runner.starts_with("caudal") {
                format!("{}, {}", times(Metric::Rate), times(Metric::Cpu))
            } else {
                String::new()
            };
            let cells =
                [Metric::Rate, Metric::Cpu, Metric::Peak, Metric::P50, Metric::P99, Metric::Ready].map(cell);
            let _ = writeln!(out, "| {source} | {work} | {runner} | {} | {ratios} |", cells.join(" | "));
        }
        self.idle(&mut out);
        self.goals(&mut out);
        out
    }

    fn idle(&self, out: &mut String) {
        for f in self.0.iter().filter(|f| f.work == "idle" && f.metric == Metric::Core) {
            let resident =
                self.of(&f.source, "idle", &f.runner, Metric::Resident).map_or(String::new(), Figure::shown);
            let _ = writeln!(
                out,
                "\nIdle, {} and {}: {} % of a core, {resident} MB",
                f.source,
                f.runner,
                f.shown()
            );
        }
    }

    fn goals(&self, out: &mut String) {
        out.push_str("\n| source | goal | figure | reached |\n|---|---|---|---|\n");
        for goal in &GOALS {
            let of_goal = |f: &&Figure| {
                (f.work.as_str(), f.runner.as_str(), f.metric) == (goal.work, goal.runner, goal.metric)
            };
            for f in self.0.iter().filter(of_goal) {
                let (wanted, found, reached) = match goal.bound {
                    Bound::AtMost(most) => (format!("at most {most}"), f.shown(), f.median() <= most),
                    Bound::TimesDebezium(times) => match self.ratio(f) {
                        Some(ratio) => {
                            let found = format!("{ratio:.1}× ({} to {:.1})", f.shown(), theirs(f, ratio));
                            (format!("{times}× Debezium"), found, ratio >= times)
                        }
                        None => continue,
                    },
                    Bound::OfFloor(share) => match self.of(&f.source, FLOOR, "librdkafka", f.metric) {
                        Some(floor) => {
                            let of = f.median() / floor.median();
                            (
                                format!("{share} of the floor"),
                                format!("{of:.2} ({} of {})", f.shown(), floor.shown()),
                                of >= share,
                            )
                        }
                        None => continue,
                    },
                };
                let (name, reached) = (goal.metric.name(), if reached { "yes" } else { "no" });
                let _ =
                    writeln!(out, "| {} | {}, {name}: {wanted} | {found} | {reached} |", f.source, goal.work);
            }
        }
    }
}

fn theirs(ours: &Figure, ratio: f64) -> f64 {
    if ours.metric.more_is_better() { ours.median() / ratio } else { ours.median() * ratio }
}

/// The machine and the day that figures are true for.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, m)| m.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(1).unwrap_or("unknown");
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!(
        "{day}; {model}, {cores} cores for all: source, broker, PostgreSQL and who is measured; load average at the end {load}"
    )
}
