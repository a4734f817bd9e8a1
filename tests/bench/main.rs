//! What the daemon does per second, per CPU second and per byte, and how late it is: printed as a Markdown table.
//!
//! `tests/bench/run` builds the daemon with optimisation and starts this. Each log (embedded, Kafka) is measured on an own daemon,
//! in four phases: the snapshot into the log, a backlog of the binlog into the log, the log into PostgreSQL, and then latency at a steady
//! rate. CPU time and memory are the daemon's, read from `/proc`.

mod load;
mod measure;
mod readers;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use caudal_tests::{Daemon, DaemonConfig, Family, Kafka, MysqlServer, Postgres};

use measure::Line;

/// What is measured.
struct Plan {
    family: Family,
    logs: Vec<Log>,
    rows: u64,
    events: u64,
    rate: u32,
    seconds: u64,
    /// Not the four phases, but the snapshot by so many readers each, beside a dump.
    readers: Vec<u32>,
}

/// Which log the daemon uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Embedded,
    Kafka,
}

fn main() -> Result<()> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if !plan.readers.is_empty() {
            let lines = readers::measure(plan.family, plan.rows, &plan.readers).await?;
            measure::print(plan.family, &lines);
            return Ok(());
        }
        let mut lines = Vec::new();
        for log in &plan.logs {
            lines.extend(one_log(&plan, *log).await?);
        }
        measure::print(plan.family, &lines);
        Ok(())
    })
}

impl Plan {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let logs = vec![Log::Embedded, Log::Kafka];
        let mut plan = Self {
            family: Family::MariaDb,
            logs,
            rows: 1_000_000,
            events: 1_000_000,
            rate: 200,
            seconds: 20,
            readers: Vec::new(),
        };
        while let Some(name) = arguments.next() {
            // `cargo bench` adds this one.
            if name == "--bench" {
                continue;
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match (name.as_str(), value.as_str()) {
                ("--source", "mariadb") => plan.family = Family::MariaDb,
                ("--source", "mysql") => plan.family = Family::Mysql97,
                ("--log", "embedded") => plan.logs = vec![Log::Embedded],
                ("--log", "kafka") => plan.logs = vec![Log::Kafka],
                ("--log", "both") => {}
                ("--rows", n) => plan.rows = n.parse()?,
                ("--events", n) => plan.events = n.parse()?,
                ("--rate", n) => plan.rate = n.parse()?,
                ("--seconds", n) => plan.seconds = n.parse()?,
                ("--readers", list) => {
                    plan.readers = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                _ => bail!(
                    "unknown: {name} {value}; known: --source mariadb|mysql, --log embedded|kafka|both, --rows, --events, --rate, --seconds, --readers 1,2,4"
                ),
            }
        }
        Ok(plan)
    }
}

/// The four phases on one log.
async fn one_log(plan: &Plan, log: Log) -> Result<Vec<Line>> {
    let name = if log == Log::Embedded { "embedded" } else { "Kafka" };
    let source = MysqlServer::shared(plan.family);
    let database = source.database("bench").await?;
    let sink = Postgres::shared().database("bench").await?;
    eprintln!("{name}: loading {} rows", plan.rows);
    let loader = load::Loader::create(&source.admin_url(&database), plan.rows).await?;

    let mut capture = DaemonConfig::new(&format!("bench-{}", name.to_lowercase()));
    capture = capture.source("bench", &source.url(&database), &["sbtest"]);
    if log == Log::Kafka {
        capture = capture.brokers(&Kafka::shared().bootstrap());
    }
    let topic = format!("{}.{database}.sbtest", capture.prefix);
    let mut lines = Vec::new();

    eprintln!("{name}: snapshot into the log");
    let mut daemon = Daemon::start(&capture)?;
    let snapshot = measure::until_log_holds(&daemon, &topic, plan.rows).await?;
    lines.push(Line::volume(name, "snapshot, source to log", plan.rows, &snapshot));
    daemon.terminate(Duration::from_secs(15)).await?;

    eprintln!("{name}: writing a backlog of {} events", plan.events);
    let events = loader.backlog(plan.rows, plan.events).await?;
    eprintln!("{name}: backlog into the log");
    daemon.start_again()?;
    let backlog = measure::until_log_holds(&daemon, &topic, snapshot.end + events).await?;
    lines.push(Line::volume(name, "backlog, binlog to log", events, &backlog));
    daemon.terminate(Duration::from_secs(15)).await?;

    eprintln!("{name}: the log into PostgreSQL");
    daemon.reconfigure(&capture.sink("warehouse", &sink, &[]))?;
    daemon.start_again()?;
    let rows = loader.rows().await?;
    let apply = measure::until_sink_holds(&daemon, &sink, rows).await?;
    // What is applied is every event of the log: coalescing them is part of the work.
    lines.push(Line::volume(name, "log to PostgreSQL", plan.rows + events, &apply));

    eprintln!("{name}: latency at {} transactions/s", plan.rate);
    let time = Duration::from_secs(plan.seconds);
    let latency = measure::latency(&daemon, &loader, &sink, plan.rate, time).await?;
    lines.push(Line::latency(name, &format!("commit to PostgreSQL at {}/s", plan.rate), &latency));
    daemon.terminate(Duration::from_secs(15)).await?;
    Ok(lines)
}
