//! The snapshot of one table by 1, 2 and 4 readers into the embedded log, beside a dump of the same table in the same run.
//!
//!     cargo bench -p caudal-tests --bench readers -- --rows 10000000 --readers 1,2,4 --source mariadb
//!
//! CAUDAL_BIN names the daemon, which should be built with optimisation; `tests/bench/run --readers` does both.

#[allow(dead_code, reason = "the other benchmark uses all of it")]
mod load;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use caudal_tests::kafka::Offsets;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer};

/// Nothing may move for so long.
const STUCK: Duration = Duration::from_secs(60);

struct Plan {
    family: Family,
    rows: u64,
    readers: Vec<u32>,
    /// Lines of `kafka:`, to compare settings.
    kafka: Option<String>,
}

fn main() -> Result<()> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(plan.run())
}

impl Plan {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self { family: Family::MariaDb, rows: 500_000, readers: vec![1, 2, 4], kafka: None };
        while let Some(name) = arguments.next() {
            // `cargo bench` adds this one.
            if name == "--bench" {
                continue;
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match (name.as_str(), value.as_str()) {
                ("--source", "mariadb") => plan.family = Family::MariaDb,
                ("--source", "mysql") => plan.family = Family::Mysql97,
                ("--rows", n) => plan.rows = n.parse()?,
                ("--readers", list) => {
                    plan.readers = list.split(',').map(str::parse).collect::<Result<_, _>>()?
                }
                ("--kafka", line) => plan.kafka = Some(line.to_owned()),
                _ => {
                    bail!(
                        "unknown: {name} {value}; known: --source mariadb|mysql, --rows N, --readers 1,2,4, --kafka LINE"
                    )
                }
            }
        }
        Ok(plan)
    }

    async fn run(&self) -> Result<()> {
        let source = MysqlServer::shared(self.family);
        let database = source.database("readers").await?;
        eprintln!("loading {} rows", self.rows);
        load::Loader::create(&source.admin_url(&database), self.rows).await?;
        source.sql(&database, "ANALYZE TABLE sbtest").await?;
        let (dumped, bytes) = dump(source, &database).await?;
        println!("| | rows/s | seconds | of the dump's rate |\n|---|---|---|---|");
        self.line(&format!("dump, {} MB", bytes / 1_000_000), dumped, dumped);
        for count in &self.readers {
            let took = self.snapshot(source, &database, *count).await?;
            self.line(&format!("{count} readers"), took, dumped);
        }
        Ok(())
    }

    fn line(&self, what: &str, took: Duration, dumped: Duration) {
        let seconds = took.as_secs_f64();
        let share = dumped.as_secs_f64() / seconds;
        println!("| {what} | {:.0} | {seconds:.1} | {share:.2} |", self.rows as f64 / seconds);
    }

    /// From the daemon's start until the log holds all rows.
    async fn snapshot(&self, source: &MysqlServer, database: &str, readers: u32) -> Result<Duration> {
        let mut config = DaemonConfig::new(&format!("readers{readers}"))
            .source("bench", &source.url(database), &["sbtest"])
            .source_line("bench", &format!("snapshot: {{readers: {readers}, max_threads_running: 0}}"));
        if let Some(line) = &self.kafka {
            config = config.extra(&format!("kafka:\n  {line}"));
        }
        let topic = format!("{}.{database}.sbtest", config.prefix);
        let started = Instant::now();
        let mut daemon = Daemon::start(&config)?;
        let offsets = Offsets::of(daemon.brokers())?;
        let (mut last, mut moved) = (0, started);
        while last < self.rows {
            // The daemon may not listen yet.
            let end = offsets.end(&topic).unwrap_or(0).unsigned_abs();
            if end != last {
                (last, moved) = (end, Instant::now());
            }
            if moved.elapsed() > STUCK {
                bail!("{topic} stands at {last} of {} records:\n{}", self.rows, daemon.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (took, usage) = (started.elapsed(), daemon.usage()?);
        eprintln!("{readers} readers: {:.1} CPU s, peak {} MB", usage.cpu_seconds, usage.peak / 1_000_000);
        daemon.terminate(Duration::from_secs(15)).await?;
        Ok(took)
    }
}

/// Dumps the table into `wc -c`: how long, how many bytes.
async fn dump(source: &MysqlServer, database: &str) -> Result<(Duration, u64)> {
    let script = format!(
        "mariadb-dump -h127.0.0.1 -P{} -uadmin -padmin-secret --single-transaction --quick {database} sbtest | wc -c",
        source.port()
    );
    let started = Instant::now();
    let out = tokio::process::Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().await?;
    let time = started.elapsed();
    if !out.status.success() {
        bail!("mariadb-dump: {}", String::from_utf8_lossy(&out.stderr));
    }
    let bytes = String::from_utf8_lossy(&out.stdout).trim().parse().context("what wc says")?;
    Ok((time, bytes))
}
