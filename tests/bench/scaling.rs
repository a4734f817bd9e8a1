//! How speed and memory move with the shape of the work: one thing is varied, the others stay.
//!
//!     cargo bench -p caudal-tests --bench scaling -- --source mysql --axis width,columns,tables,transaction,cores
//!
//! At each point new tables are followed, the daemon is stopped, a backlog is written, and the daemon reads it into its own log.
//! Rates and CPU are those from the start of that process to the last event, so its start is in them. CAUDAL_BIN names the daemon,
//! which should be built with optimisation; `tests/bench/run --scaling` does both.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, mysql};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rand::{Rng, SeedableRng};

/// Nothing may move for so long.
const STUCK: Duration = Duration::from_secs(120);
/// Texts are pieces of so many random hexadecimal digits, so that no row repeats what stands shortly before it.
const NOISE: usize = 4 << 20;
/// Texts of so many characters are digests: the server copies all of a variable to take a piece of it.
const DIGEST: u64 = 256;
/// Rows of one statement.
const STATEMENT: u64 = 20_000;

/// One shape of work.
#[derive(Clone, Copy)]
struct Point {
    axis: &'static str,
    tables: u64,
    columns: u64,
    /// Characters of each text column; of every four columns one is a text.
    text: u64,
    /// Rows of a transaction.
    transaction: u64,
    rows: u64,
    cores: u32,
}

const BASE: Point =
    Point { axis: "", tables: 1, columns: 5, text: 170, transaction: 100, rows: 300_000, cores: 2 };

impl Point {
    /// All shapes, an axis after the other.
    fn all() -> Vec<Self> {
        let mut points = Vec::new();
        for (text, rows) in [(20, 300_000), (170, 300_000), (970, 100_000), (9_970, 20_000), (99_970, 2_000)]
        {
            points.push(Self { axis: "width", text, rows, ..BASE });
        }
        for (columns, rows) in [(5, 300_000), (20, 200_000), (100, 50_000), (500, 10_000)] {
            points.push(Self { axis: "columns", columns, text: 10, rows, ..BASE });
        }
        for tables in [1, 10, 100, 1_000, 5_000] {
            points.push(Self { axis: "tables", tables, rows: 200_000.max(tables * 100), ..BASE });
        }
        for (transaction, rows) in
            [(1, 30_000), (10, 200_000), (100, 300_000), (10_000, 300_000), (1_000_000, 1_000_000)]
        {
            points.push(Self { axis: "transaction", transaction, rows, ..BASE });
        }
        for cores in [1, 2] {
            points.push(Self { axis: "cores", cores, ..BASE });
        }
        points
    }

    /// What was varied, for the table.
    fn at(&self) -> String {
        match self.axis {
            "width" => format!("{} B a row", self.width()),
            "columns" => format!("{} columns", self.columns),
            "tables" => format!("{} tables", self.tables),
            "transaction" => format!("{} rows a transaction", self.transaction),
            _ => format!("{} core{}", self.cores, if self.cores == 1 { "" } else { "s" }),
        }
    }

    /// Bytes of a row on its way: 8 for a number, 6 for a decimal, 7 for a time, and the text.
    fn width(&self) -> u64 {
        (0..self.columns).map(|column| [8, 6, 7, self.text][column as usize % 4]).sum::<u64>()
    }

    fn table(&self) -> String {
        let text = if self.text > 1_000 { "LONGTEXT".to_owned() } else { format!("VARCHAR({})", self.text) };
        let columns = (1..self.columns).map(|column| match column % 4 {
            0 => format!("c{column} BIGINT NOT NULL"),
            1 => format!("c{column} DECIMAL(12,2) NOT NULL"),
            2 => format!("c{column} DATETIME(3) NOT NULL"),
            _ => format!("c{column} {text} NOT NULL"),
        });
        format!("id BIGINT NOT NULL PRIMARY KEY, {}", columns.collect::<Vec<_>>().join(", "))
    }

    /// The content of row `n`.
    fn row(&self) -> String {
        let from = NOISE as u64 - self.text;
        let columns = (1..self.columns).map(|column| match column % 4 {
            0 => format!("n * {column}"),
            1 => format!("(n + {column}) MOD 1000000 / 100"),
            2 => format!("'2026-01-01' + INTERVAL n + {column} SECOND"),
            _ if self.text <= DIGEST => {
                let digest = |n: u64| format!("SHA2(n * {} + {column}, 512)", 2 * self.columns + n);
                format!("LEFT(CONCAT({}, {}), {})", digest(0), digest(1), self.text)
            }
            _ => format!("SUBSTR(@noise, 1 + (n * 104729 + {column} * 7919) MOD {from}, {})", self.text),
        });
        format!("n, {}", columns.collect::<Vec<_>>().join(", "))
    }
}

/// What a point cost.
struct Found {
    rate: f64,
    cpu: f64,
    peak: u64,
}

fn main() -> Result<()> {
    let (mut family, mut axes) = (Family::Mysql97, String::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        // `cargo bench` adds the first, `tests/bench/run` the other.
        if name == "--bench" || name == "--scaling" {
            continue;
        }
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match (name.as_str(), value.as_str()) {
            ("--source", "mariadb") => family = Family::MariaDb,
            ("--source", "mysql") => family = Family::Mysql97,
            ("--axis", list) => axes = list.to_owned(),
            _ => bail!(
                "unknown: {name} {value}; known: --source mysql|mariadb, --axis width,columns,tables,transaction,cores"
            ),
        }
    }
    let wanted: Vec<&str> = axes.split(',').filter(|a| !a.is_empty()).collect();
    let points: Vec<Point> =
        Point::all().into_iter().filter(|p| wanted.is_empty() || wanted.contains(&p.axis)).collect();
    ensure!(!points.is_empty(), "no such axis: {axes}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let server = MysqlServer::shared(family);
        println!("| varied | rows | events/s | MB/s | CPU-s per million | CPU-s per GB | peak MB |\n|---|---|---|---|---|---|---|");
        for (number, point) in points.iter().enumerate() {
            let found = measure(server, point, number).await.with_context(|| point.at())?;
            let bytes = point.width() as f64;
            println!(
                "| {} | {} | {:.0} | {:.0} | {:.2} | {:.1} | {} |",
                point.at(),
                point.rows,
                found.rate,
                found.rate * bytes / 1e6,
                found.cpu,
                found.cpu * 1e3 / bytes,
                found.peak / 1_000_000
            );
        }
        Ok(())
    })
}

async fn measure(server: &MysqlServer, point: &Point, number: usize) -> Result<Found> {
    let database = server.database("scaling").await?;
    let mut conn = mysql::connect(&server.admin_url(&database)).await?;
    prepare(&mut conn, point).await?;
    let config =
        DaemonConfig::new(&format!("scaling{number}")).source("bench", &server.url(&database), &["t_*"]);
    let mut daemon = Daemon::start(&config)?;
    daemon.wait_healthy(Duration::from_secs(180)).await?;
    daemon.wait_log("all tables done", Duration::from_secs(600)).await?;
    settled(&daemon).await?;
    daemon.terminate(Duration::from_secs(30)).await?;
    load(&mut conn, point).await?;
    conn.disconnect().await?;

    let started = Instant::now();
    daemon.start_again()?;
    if point.cores == 1 {
        pin(daemon.pid()?)?;
    }
    let (mut last, mut moved) = (0, started);
    while last < point.rows {
        let events = events(&daemon).await.unwrap_or(0);
        if events != last {
            (last, moved) = (events, Instant::now());
        }
        ensure!(moved.elapsed() < STUCK, "{last} of {} rows have come:\n{}", point.rows, daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (took, usage) = (started.elapsed().as_secs_f64(), daemon.usage()?);
    daemon.terminate(Duration::from_secs(30)).await?;
    server.sql("mysql", &format!("DROP DATABASE {database}")).await?;
    let rows = point.rows as f64;
    Ok(Found { rate: rows / took, cpu: usage.cpu_seconds / rows * 1e6, peak: usage.peak })
}

async fn prepare(conn: &mut Conn, point: &Point) -> Result<()> {
    conn.query_drop("CREATE TABLE numbers (i INT NOT NULL PRIMARY KEY); INSERT INTO numbers VALUES (0)")
        .await?;
    let mut have = 1;
    while have < STATEMENT {
        conn.query_drop(format!(
            "INSERT INTO numbers SELECT i + {have} FROM numbers WHERE i + {have} < {STATEMENT}"
        ))
        .await?;
        have *= 2;
    }
    let columns = point.table();
    for table in 0..point.tables {
        conn.query_drop(format!("CREATE TABLE t_{table} ({columns}) CHARSET=utf8mb4")).await?;
    }
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let digits: String =
        (0..NOISE).map(|_| char::from(b"0123456789abcdef"[random.random_range(0..16)])).collect();
    conn.query_drop(format!("SET @noise = '{digits}'")).await?;
    Ok(())
}

/// Writes the backlog: a transaction in each table in turn.
async fn load(conn: &mut Conn, point: &Point) -> Result<()> {
    let (mut first, mut table) = (1, 0);
    while first <= point.rows {
        let mut left = point.transaction.min(point.rows - first + 1);
        conn.query_drop("BEGIN").await?;
        while left > 0 {
            let count = left.min(STATEMENT);
            conn.query_drop(format!(
                "INSERT INTO t_{table} SELECT {} FROM (SELECT i + {first} AS n FROM numbers WHERE i < {count}) AS numbered",
                point.row()
            ))
            .await?;
            (first, left) = (first + count, left - count);
        }
        conn.query_drop("COMMIT").await?;
        table = (table + 1) % point.tables;
    }
    Ok(())
}

/// Waits until the empty tables are taken in: nothing is written to the log any more.
async fn settled(daemon: &Daemon) -> Result<()> {
    let (mut last, mut since) = (String::new(), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        let now = series(daemon, "caudal_batches_total").await?.to_string();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn events(daemon: &Daemon) -> Result<u64> {
    series(daemon, "caudal_events_total").await
}

/// The sum of a counter of the daemon.
async fn series(daemon: &Daemon, name: &str) -> Result<u64> {
    let (_, text) = daemon.get("/metrics").await?;
    let of = text.lines().filter(|line| line.starts_with(name));
    Ok(of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

/// Leaves the process one core.
fn pin(pid: u32) -> Result<()> {
    let done = Command::new("taskset").args(["-acp", "0", &pid.to_string()]).output()?;
    ensure!(done.status.success(), "taskset: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
