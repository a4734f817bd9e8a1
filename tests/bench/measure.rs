//! Watching the daemon work, and writing down what it cost.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use caudal_tests::kafka::Offsets;
use caudal_tests::process::Usage;
use caudal_tests::{Daemon, Family, PgDatabase};

use crate::load::Loader;

const LOOK: Duration = Duration::from_millis(100);
/// The log is done when its end has not moved for so long: markers of transactions take offsets too, so a count alone is early.
const QUIET: Duration = Duration::from_secs(2);
/// Nothing at all may move for so long.
const STUCK: Duration = Duration::from_secs(60);

/// A volume that went through.
pub(crate) struct Volume {
    /// From the daemon's start to the last movement.
    pub(crate) time: Duration,
    pub(crate) usage: Usage,
    /// The end offset of the topic, where the log was watched.
    pub(crate) end: u64,
}

/// Latencies, sorted.
pub(crate) struct Latency {
    sorted: Vec<Duration>,
    cpu_seconds: f64,
    seconds: f64,
    usage: Usage,
}

/// A line of the printed table.
pub(crate) struct Line {
    log: String,
    phase: String,
    result: String,
    cpu: String,
    peak: u64,
}

/// Waits until the topic holds at least `records` and grows no more.
pub(crate) async fn until_log_holds(daemon: &Daemon, topic: &str, records: u64) -> Result<Volume> {
    let offsets = Offsets::of(daemon.brokers())?;
    let start = Instant::now();
    let (mut last, mut moved, mut usage) = (0, start, Usage::default());
    loop {
        // The daemon may not listen yet.
        let end = offsets.end(topic).unwrap_or(0).unsigned_abs();
        if end != last {
            (last, moved, usage) = (end, Instant::now(), daemon.usage()?);
        }
        if last >= records && moved.elapsed() > QUIET {
            return Ok(Volume { time: moved - start, usage, end: last });
        }
        if moved.elapsed() > STUCK {
            bail!("{topic} stands at {last} of {records} records:\n{}", daemon.log_tail());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the sink's table has `rows` rows, and its daemon rests.
pub(crate) async fn until_sink_holds(daemon: &Daemon, sink: &PgDatabase, rows: u64) -> Result<Volume> {
    let client = sink.connect().await?;
    let start = Instant::now();
    let (mut last, mut moved, mut usage) = (Default::default(), start, Usage::default());
    loop {
        // Row count and the sum of a column that every change moves: updates are seen too.
        let found = client.query_one("SELECT COUNT(*), SUM(k)::bigint FROM public.sbtest", &[]).await;
        let state: (i64, Option<i64>) = found.map(|r| (r.get(0), r.get(1))).unwrap_or_default();
        if state != last {
            (last, moved, usage) = (state, Instant::now(), daemon.usage()?);
        }
        if last.0.unsigned_abs() >= rows && moved.elapsed() > QUIET {
            return Ok(Volume { time: moved - start, usage, end: 0 });
        }
        if moved.elapsed() > STUCK {
            bail!("the sink stands at {} of {rows} rows:\n{}", last.0, daemon.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Inserts `rate` rows per second for `time`, each a transaction, and sees each arrive.
pub(crate) async fn latency(
    daemon: &Daemon,
    loader: &Loader,
    sink: &PgDatabase,
    rate: u32,
    time: Duration,
) -> Result<Latency> {
    let before = daemon.usage()?;
    let (first, count) = (loader.top().await? + 1, u64::from(rate) * time.as_secs());
    let mut conn = loader.connect().await?;
    let start = Instant::now();
    let writer = tokio::spawn(async move {
        let mut commits = Vec::new();
        for i in 0..count {
            tokio::time::sleep_until((start + Duration::from_secs(1) * i as u32 / rate).into()).await;
            Loader::single(&mut conn, first + i).await?;
            commits.push(Instant::now());
        }
        anyhow::Ok(commits)
    });
    let seen = watch(sink, first, count, start + time + Duration::from_secs(30)).await?;
    let commits = writer.await??;
    let mut sorted: Vec<Duration> =
        seen.iter().zip(&commits).map(|(s, c)| s.saturating_duration_since(*c)).collect();
    sorted.sort_unstable();
    let usage = daemon.usage()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Latency { sorted, cpu_seconds: usage.cpu_seconds - before.cpu_seconds, seconds, usage })
}

/// When each of `count` keys from `first` was first seen; keys arrive in their order.
async fn watch(sink: &PgDatabase, first: u64, count: u64, deadline: Instant) -> Result<Vec<Instant>> {
    let client = sink.connect().await?;
    let query = client.prepare("SELECT MAX(id)::bigint FROM public.sbtest").await?;
    let mut seen = Vec::new();
    while (seen.len() as u64) < count {
        let top: Option<i64> = client.query_one(&query, &[]).await?.get(0);
        let now = Instant::now();
        let arrived = (top.unwrap_or(0).unsigned_abs() + 1).saturating_sub(first);
        while (seen.len() as u64) < arrived {
            seen.push(now);
        }
        if now > deadline {
            bail!("{} of {count} rows arrived in time", seen.len());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(seen)
}

impl Line {
    pub(crate) fn volume(log: &str, phase: &str, count: u64, v: &Volume) -> Self {
        let per_second = count as f64 / v.time.as_secs_f64();
        Self {
            log: log.to_owned(),
            phase: phase.to_owned(),
            result: format!("{per_second:.0}/s ({count} in {:.1} s)", v.time.as_secs_f64()),
            cpu: format!(
                "{:.1} s ({:.1} per million)",
                v.usage.cpu_seconds,
                v.usage.cpu_seconds * 1e6 / count as f64
            ),
            peak: v.usage.peak,
        }
    }

    /// Work that is not the daemon's.
    pub(crate) fn plain(log: &str, phase: &str, count: u64, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self {
            log: log.to_owned(),
            phase: phase.to_owned(),
            result: format!("{:.0}/s ({count} in {seconds:.1} s)", count as f64 / seconds),
            cpu: "-".to_owned(),
            peak: 0,
        }
    }

    pub(crate) fn latency(log: &str, phase: &str, l: &Latency) -> Self {
        let at = |share: f64| {
            let index = ((l.sorted.len() as f64 * share) as usize).min(l.sorted.len().saturating_sub(1));
            l.sorted.get(index).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        Self {
            log: log.to_owned(),
            phase: phase.to_owned(),
            result: format!(
                "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0)
            ),
            cpu: format!("{:.0} % of a core", 100.0 * l.cpu_seconds / l.seconds),
            peak: l.usage.peak,
        }
    }
}

/// Prints the table, with the machine that it is true for.
pub(crate) fn print(family: Family, lines: &[Line]) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown CPU", |(_, m)| m.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("\n{family:?}; {model}, {cores} cores; {}\n", jiff::Timestamp::now().strftime("%Y-%m-%d"));
    println!("| log | phase | result | CPU of the daemon | peak memory |\n|---|---|---|---|---|");
    for l in lines {
        println!("| {} | {} | {} | {} | {} MB |", l.log, l.phase, l.result, l.cpu, l.peak / 1_000_000);
    }
}
