//! What is measured, as the command line says it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use caudal_tests::Family;

/// The kinds of work, in the order in which they are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Rows that were there before.
    Snapshot,
    /// A backlog of transactions of a hundred rows: two of inserts, one of updates.
    Backlog,
    /// A backlog of transactions of one row.
    Single,
    /// From COMMIT to a consumer of the topic.
    Latency,
    /// The log into PostgreSQL, and from COMMIT to PostgreSQL.
    Apply,
    /// The machine's own limits.
    Floors,
    /// A daemon with nothing to do.
    Idle,
}

impl Work {
    pub(crate) const ALL: [Self; 7] =
        [Self::Snapshot, Self::Backlog, Self::Single, Self::Latency, Self::Apply, Self::Floors, Self::Idle];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// The daemon on the broker that Debezium uses too.
    Kafka,
    /// The same, at least once.
    Loose,
    /// The daemon on that broker, with the other compression, and with none.
    Zstd,
    Uncompressed,
    /// The daemon with its own log.
    Embedded,
    /// Debezium in Kafka Connect, tuned.
    Debezium,
}

impl Runner {
    /// As tables name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "caudal, Kafka",
            Self::Loose => "caudal, Kafka, at least once",
            Self::Zstd => "caudal, Kafka, zstd",
            Self::Uncompressed => "caudal, Kafka, uncompressed",
            Self::Embedded => "caudal, embedded log",
            Self::Debezium => "Debezium 3.5, Kafka",
        }
    }
}

/// The whole plan.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) families: Vec<Family>,
    pub(crate) runners: Vec<Runner>,
    pub(crate) works: Vec<Work>,
    pub(crate) rounds: u32,
    /// Rows of the snapshot.
    pub(crate) rows: u64,
    /// Events of the backlog, about.
    pub(crate) events: u64,
    /// Transactions of one row.
    pub(crate) single: u64,
    /// Rows per second at which latency is taken.
    pub(crate) rates: Vec<u32>,
    /// Seconds at each rate.
    pub(crate) seconds: u64,
    /// Where JSON, Markdown and SVG go.
    pub(crate) out: Option<PathBuf>,
}

pub(crate) const HELP: &str = "\
--source mysql|mariadb|both    the server (mysql)
--runner kafka,loose,zstd,uncompressed,embedded,debezium   who is measured, alternating (kafka,embedded,debezium); loose is Kafka with
                 delivery: at_least_once, zstd and uncompressed are Kafka with the other compression and with none
--work snapshot,backlog,single,latency,apply,floors,idle   what (all)
--rounds N       rounds; medians and the spread are of these (3)
--scale F        times this much work: 0.1 is a tenth (1)
--rows N --events N --single N     the work (1000000, 750000, 50000)
--rate N,N       rows per second for latencies (200,2000); beyond 2,000 ten in a transaction
--seconds N      at each rate (20)
--out DIR        also writes results.json, results.md and results.svg there";

impl Plan {
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut plan = Self {
            families: vec![Family::Mysql97],
            runners: vec![Runner::Kafka, Runner::Embedded, Runner::Debezium],
            works: Work::ALL.to_vec(),
            rounds: 3,
            rows: 1_000_000,
            events: 750_000,
            single: 50_000,
            rates: vec![200, 2_000],
            seconds: 20,
            out: None,
        };
        let mut scale = 1.0;
        while let Some(name) = arguments.next() {
            match name.as_str() {
                // `cargo bench` adds this one.
                "--bench" => continue,
                "-h" | "--help" => return Ok(None),
                _ => {}
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value\n{HELP}"))?;
            match name.as_str() {
                "--source" => plan.families = families(&value)?,
                "--runner" => plan.runners = list(&value, runner)?,
                "--work" => plan.works = list(&value, work)?,
                "--rounds" => plan.rounds = value.parse()?,
                "--scale" => scale = value.parse()?,
                "--rows" => plan.rows = value.parse()?,
                "--events" => plan.events = value.parse()?,
                "--single" => plan.single = value.parse()?,
                "--rate" => plan.rates = list(&value, |n| Ok(n.parse()?))?,
                "--seconds" => plan.seconds = value.parse()?,
                "--out" => plan.out = Some(value.into()),
                _ => bail!("unknown: {name} {value}\n{HELP}"),
            }
        }
        for count in [&mut plan.rows, &mut plan.events, &mut plan.single, &mut plan.seconds] {
            *count = ((*count as f64 * scale) as u64).max(1);
        }
        ensure!(plan.rounds > 0 && plan.rows >= 1_000, "too little work to measure");
        Ok(Some(plan))
    }

    pub(crate) fn does(&self, work: Work) -> bool {
        self.works.contains(&work)
    }
}

fn list<T>(value: &str, parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    value.split(',').map(|part| parse(part.trim())).collect()
}

fn families(value: &str) -> Result<Vec<Family>> {
    Ok(match value {
        "mysql" => vec![Family::Mysql97],
        "mariadb" => vec![Family::MariaDb],
        "both" => vec![Family::Mysql97, Family::MariaDb],
        other => bail!("unknown source {other}\n{HELP}"),
    })
}

fn runner(name: &str) -> Result<Runner> {
    Ok(match name {
        "kafka" => Runner::Kafka,
        "loose" => Runner::Loose,
        "zstd" => Runner::Zstd,
        "uncompressed" => Runner::Uncompressed,
        "embedded" => Runner::Embedded,
        "debezium" => Runner::Debezium,
        other => bail!("unknown runner {other}\n{HELP}"),
    })
}

fn work(name: &str) -> Result<Work> {
    let found = Work::ALL.into_iter().find(|w| w.name() == name);
    found.with_context(|| format!("unknown work {name}\n{HELP}"))
}
