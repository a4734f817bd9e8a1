//! What the Postgres sink applies per second beside `COPY` of the same rows by the same server in the same round; how fast a table is
//! made anew, and compared.
//!
//!     cargo bench -p caudal-tests --bench postgres -- --rows 1000000 --rounds 3 --sink 'consistency: key'
//!
//! CAUDAL_BIN names the daemon, which should be built with optimisation; `tests/bench/run --postgres` does both. What is applied lies in the
//! embedded log before the sink is started, so nothing is captured meanwhile. The rate is that between the sink's first commit and
//! its last; where it stands is asked of its offsets, which costs the server nothing. Then source and sink are compared: a sink
//! that was quick and wrong is an error.

mod copy;
#[allow(dead_code, reason = "the other benchmark uses all of it")]
mod load;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caudal_tests::kafka::Offsets;
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres, process};
use mysql_async::prelude::Queryable;

use load::Loader;

/// Tables of the work over several.
const TABLES: u64 = 10;
/// Rows of a transaction of the source.
const TRANSACTION: u64 = 100;
/// Work is done when nothing has moved for so long, and the sink is equal.
const QUIET: Duration = Duration::from_secs(2);
/// Nothing at all may move for so long.
const STUCK: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(25);
const STOP: Duration = Duration::from_secs(30);
/// The clock ticks of `/proc`.
const TICKS: f64 = 100.0;

/// Offsets of a partition that are no rows, at the end of a work, at most.
const MARKERS: i64 = 4;

const LOAD: &str = "initial load";
const UPSERTS: &str = "upserts";
const FLOOR: &str = "floor: COPY of the same rows";
const UPSERT_FLOOR: &str = "floor: upserts by the server alone";

struct Plan {
    family: Family,
    rows: u64,
    rounds: u32,
    /// Lines of the sink, to compare settings.
    sink: Vec<String>,
    /// What is done beside the initial load, which all else needs.
    work: Vec<String>,
}

/// What may be left out.
const WORK: [&str; 5] = ["upserts", "mixed", "rebuild", "verify", "ten"];

/// One kind of work, by rounds.
struct Figure {
    work: &'static str,
    rates: Vec<f64>,
    /// Of the floor in the same round.
    shares: Vec<f64>,
    /// CPU seconds per million rows: Caudal, PostgreSQL, the source.
    cpu: Vec<[f64; 3]>,
}

/// CPU seconds used so far: Caudal, PostgreSQL, the source.
type Cpu = [f64; 3];

/// What was seen at one moment.
#[derive(Clone, Copy)]
struct Seen {
    offsets: i64,
    at: Instant,
    cpu: Cpu,
}

fn main() -> Result<()> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(plan.run())
}

impl Plan {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self {
            family: Family::MariaDb,
            rows: 1_000_000,
            rounds: 3,
            sink: Vec::new(),
            work: WORK.map(str::to_owned).to_vec(),
        };
        while let Some(name) = arguments.next() {
            // `cargo bench` adds this one, `tests/bench/run` that one.
            if name == "--bench" || name == "--postgres" {
                continue;
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match (name.as_str(), value.as_str()) {
                ("--source", "mariadb") => plan.family = Family::MariaDb,
                ("--source", "mysql") => plan.family = Family::Mysql97,
                ("--rows", n) => plan.rows = n.parse()?,
                ("--rounds", n) => plan.rounds = n.parse()?,
                ("--sink", line) => plan.sink.push(line.to_owned()),
                ("--work", list) => plan.work = list.split(',').map(str::to_owned).collect(),
                _ => bail!(
                    "unknown: {name} {value}; known: --rows N, --rounds N, --source mariadb|mysql, --sink LINE, --work {}",
                    WORK.join(",")
                ),
            }
        }
        let unknown = plan.work.iter().find(|work| !WORK.contains(&work.as_str()));
        ensure!(unknown.is_none(), "no such work: {}; known: {}", unknown.map_or("", |w| w), WORK.join(", "));
        Ok(plan)
    }

    fn wants(&self, work: &str) -> bool {
        self.work.iter().any(|wanted| wanted == work)
    }

    async fn run(&self) -> Result<()> {
        let server = MysqlServer::shared(self.family);
        let mut figures = Vec::new();
        for round in 1..=self.rounds {
            let done = self.round(server, round, &mut figures).await;
            // What is known so far is worth more than nothing.
            if done.is_err() || round == self.rounds {
                print(&figures);
            }
            done.with_context(|| format!("round {round}"))?;
        }
        Ok(())
    }

    async fn round(&self, server: &'static MysqlServer, round: u32, figures: &mut Vec<Figure>) -> Result<()> {
        let database = server.database("sinks").await?;
        eprintln!("round {round}: loading {} rows", self.rows);
        let loader = Loader::create(&server.admin_url(&database), self.rows).await?;
        let one =
            Stage::new(self, server, &database, &loader, (round, "one", vec!["sbtest".to_owned()])).await?;
        let floor = one.round(self, figures).await?;
        if !self.wants("ten") {
            return server.sql("", &format!("DROP DATABASE {database}")).await;
        }
        spread(&loader).await?;
        let parts = (0..TABLES).map(|n| format!("part_{n}")).collect();
        let ten = Stage::new(self, server, &database, &loader, (round, "ten", parts)).await?;
        ten.round_of_ten(self.rows, floor, figures).await?;
        server.sql("", &format!("DROP DATABASE {database}")).await
    }
}

/// The rows once more, over ten tables.
async fn spread(loader: &Loader) -> Result<()> {
    let mut conn = loader.connect().await?;
    for n in 0..TABLES {
        conn.query_drop(format!("CREATE TABLE part_{n} LIKE sbtest")).await?;
        conn.query_drop(format!("INSERT INTO part_{n} SELECT * FROM sbtest WHERE id MOD {TABLES} = {n}"))
            .await?;
    }
    Ok(conn.disconnect().await?)
}

/// A daemon that captures some tables, and now and then has a sink.
struct Stage<'a> {
    server: &'static MysqlServer,
    loader: &'a Loader,
    sink: PgDatabase,
    tables: Vec<String>,
    topics: Vec<String>,
    daemon: Daemon,
    without: DaemonConfig,
    with: DaemonConfig,
}

impl<'a> Stage<'a> {
    /// The daemon runs, without its sink.
    async fn new(
        plan: &Plan,
        server: &'static MysqlServer,
        database: &str,
        loader: &'a Loader,
        (round, name, tables): (u32, &str, Vec<String>),
    ) -> Result<Self> {
        let sink = Postgres::shared().database("sinks").await?;
        let captured: Vec<&str> = tables.iter().map(String::as_str).collect();
        let without = DaemonConfig::new(&format!("sinks-{name}-{round}")).source(
            "bench",
            &server.url(database),
            &captured,
        );
        let lines: Vec<&str> = plan.sink.iter().map(String::as_str).collect();
        let with = without.clone().sink("warehouse", &sink, &lines);
        let topics = tables.iter().map(|table| format!("{}.{database}.{table}", without.prefix)).collect();
        let daemon = Daemon::start(&without)?;
        Ok(Self { server, loader, sink, tables, topics, daemon, without, with })
    }

    /// Load, upserts and mixed changes of one table, beside COPY; then rebuild and verify. Gives COPY's rate.
    async fn round(mut self, plan: &Plan, figures: &mut Vec<Figure>) -> Result<f64> {
        let rows = plan.rows;
        self.captured(rows).await?;
        let load = self.applied(rows).await?;
        let copied = copy::copy(&self.sink).await?;
        let floor = copied.rate;
        add(figures, FLOOR, floor, floor, [copied.cpu, 0.0, 0.0]);
        let upserted = copy::upsert(&self.sink, server_cpu).await?;
        add(figures, UPSERT_FLOOR, upserted.rate, floor, [0.0, upserted.cpu, 0.0]);
        load.add(figures, LOAD, floor);
        if plan.wants("upserts") {
            self.capturing().await?;
            self.upserts(rows).await?;
            self.captured(rows).await?;
            self.applied(rows).await?.add(figures, UPSERTS, floor);
        }
        if plan.wants("mixed") {
            self.capturing().await?;
            let events = self.mixed(rows).await?;
            self.captured(events).await?;
            self.applied(events).await?.add(figures, "mixed: inserts, updates, deletes", floor);
        }
        self.start_with_sink().await?;
        let held = self.loader.rows().await?;
        if plan.wants("rebuild") {
            let records = self.offsets().await? as u64;
            let rebuilt = self.command(&["rebuild", "warehouse", "sbtest"], records, Some(0)).await?;
            rebuilt.add(figures, "rebuild, by records of the topic, each read three times", floor);
        }
        if plan.wants("verify") {
            self.verified(held).await?.add(figures, "verify", floor);
        }
        self.daemon.terminate(STOP).await?;
        Ok(floor)
    }

    async fn round_of_ten(mut self, rows: u64, floor: f64, figures: &mut Vec<Figure>) -> Result<()> {
        self.captured(rows).await?;
        self.applied(rows).await?.add(figures, "initial load of ten tables", floor);
        self.capturing().await?;
        self.upserts(rows).await?;
        self.captured(rows).await?;
        self.applied(rows).await?.add(figures, "upserts into ten tables", floor);
        Ok(())
    }

    /// Starts the daemon again without its sink.
    async fn capturing(&mut self) -> Result<()> {
        self.daemon.reconfigure(&self.without)?;
        self.daemon.start_again()
    }

    async fn start_with_sink(&mut self) -> Result<()> {
        self.daemon.reconfigure(&self.with)?;
        self.daemon.start_again()?;
        self.daemon.wait_healthy(STUCK).await
    }

    /// Waits until the log holds `events` more than when the daemon was started, and stops it.
    async fn captured(&mut self, events: u64) -> Result<()> {
        let offsets = Offsets::of(self.daemon.brokers())?;
        let applied = self.offsets().await?;
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            // It may not listen, or have made its topics, yet.
            let end: i64 = self.topics.iter().map(|topic| offsets.end(topic).unwrap_or(0)).sum();
            if end > last {
                (last, moved) = (end, Instant::now());
            }
            if end - applied >= events as i64 && moved.elapsed() > QUIET {
                return self.daemon.terminate(STOP).await.map(drop);
            }
            if moved.elapsed() > STUCK {
                bail!("the log holds {} of {events} events:\n{}", end - applied, self.daemon.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets the sink apply what the log holds, and stops it. The daemon was stopped.
    async fn applied(&mut self, events: u64) -> Result<Volume> {
        let from = self.offsets().await?;
        self.daemon.reconfigure(&self.with)?;
        let start = Instant::now();
        self.daemon.start_again()?;
        let client = self.sink.connect().await?;
        let begun = Seen { offsets: from, at: start, cpu: self.cpu()? };
        let (mut first, mut last) = (None, begun);
        loop {
            let offsets = stands_at(&client).await;
            // A marker that is come by later is no row.
            if offsets > last.offsets + MARKERS * self.tables.len() as i64 {
                last = Seen { offsets, at: Instant::now(), cpu: self.cpu()? };
                first.get_or_insert(last);
            }
            if first.is_some() && last.at.elapsed() > QUIET && self.equal(&client).await? {
                break;
            }
            if last.at.elapsed() > STUCK {
                bail!("the sink stands at {offsets}, and is not equal:\n{}", self.daemon.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
        self.daemon.terminate(STOP).await?;
        // What one commit held is measured from the start of the process.
        let first = first.filter(|first| first.offsets < last.offsets).unwrap_or(begun);
        let share = (last.offsets - first.offsets) as f64 / (last.offsets - from) as f64;
        Ok(Volume::between(events as f64 * share, first, last))
    }

    async fn offsets(&self) -> Result<i64> {
        Ok(stands_at(&self.sink.connect().await?).await)
    }

    fn cpu(&self) -> Result<Cpu> {
        let postgres = server_cpu()?;
        let source = process::usage(self.server.service().pid()?)?.cpu_seconds;
        Ok([self.daemon.usage()?.cpu_seconds, postgres, source])
    }

    /// Whether source and sink have as many rows and the same sum of a column that every change moves.
    async fn equal(&self, client: &tokio_postgres::Client) -> Result<bool> {
        let mut conn = self.loader.connect().await?;
        for table in &self.tables {
            let sum = format!("SELECT count(*), CAST(coalesce(sum(k), 0) AS %) FROM {table}");
            let ours: Option<(i64, i64)> = conn.query_first(sum.replace('%', "SIGNED")).await?;
            let row = client.query_one(&sum.replace('%', "bigint"), &[]).await?;
            if ours != Some((row.get(0), row.get(1))) {
                return Ok(false);
            }
        }
        conn.disconnect().await?;
        Ok(true)
    }

    /// Changes each row once, in transactions of a hundred, by turns if there are several tables.
    async fn upserts(&self, rows: u64) -> Result<()> {
        let mut conn = self.loader.connect().await?;
        let stride = TRANSACTION * self.tables.len() as u64;
        for first in (1..=rows).step_by(stride as usize) {
            for table in &self.tables {
                update(&mut conn, table, first, stride).await?;
            }
        }
        Ok(conn.disconnect().await?)
    }

    /// Inserts above the rows, updates of their first half, deletes of their second. Gives the number of events.
    async fn mixed(&self, rows: u64) -> Result<u64> {
        let mut conn = self.loader.connect().await?;
        let deleted = TRANSACTION / 2;
        let rounds = rows / (2 * TRANSACTION + deleted);
        for round in 0..rounds {
            Loader::transaction(&mut conn, rows + 1 + round * TRANSACTION, TRANSACTION).await?;
            update(&mut conn, "sbtest", 1 + round * TRANSACTION, TRANSACTION).await?;
            let first = rows / 2 + 1 + round * deleted;
            let delete = format!("DELETE FROM sbtest WHERE id BETWEEN {first} AND {}", first + deleted - 1);
            conn.query_drop(delete).await?;
        }
        conn.disconnect().await?;
        Ok(rounds * (2 * TRANSACTION + deleted))
    }

    /// Runs a command over `rows` rows; its CPU and that of the servers.
    async fn command(&self, arguments: &[&str], rows: u64, code: Option<i32>) -> Result<Volume> {
        self.said(arguments, rows, code).await.map(|(volume, _)| volume)
    }

    async fn said(&self, arguments: &[&str], rows: u64, code: Option<i32>) -> Result<(Volume, String)> {
        let mut command = tokio::process::Command::new(caudal_tests::daemon::binary()?);
        command.args(arguments).args(["--output", "json", "--config"]).arg(self.daemon.config_file());
        let before = Seen { offsets: 0, at: Instant::now(), cpu: self.cpu()? };
        let (ended, out) = (children_that_ended()?, command.output().await?);
        let mut after = Seen { offsets: 0, at: Instant::now(), cpu: self.cpu()? };
        // The daemon goes on beside the command; what the command used is known now that it has ended.
        after.cpu[0] = before.cpu[0] + children_that_ended()? - ended;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(
            out.status.code() == code,
            "{arguments:?}: {}: {text}{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
        Ok((Volume::between(rows as f64, before, after), text))
    }

    /// One flipped row, which must be found.
    async fn verified(&self, rows: u64) -> Result<Volume> {
        let client = self.sink.connect().await?;
        let row = client
            .query_one("UPDATE sbtest SET price = price + 1 WHERE id = (SELECT max(id) / 3 FROM sbtest) RETURNING id", &[])
            .await?;
        let id: i64 = row.get(0);
        let (volume, text) = self.said(&["verify", "warehouse", "sbtest"], rows, Some(3)).await?;
        ensure!(text.contains(&format!("\"{id}\"")), "row {id} was flipped, and not found: {text}");
        eprintln!("one flipped row of {rows}: found");
        Ok(volume)
    }
}

async fn update(conn: &mut mysql_async::Conn, table: &str, first: u64, span: u64) -> Result<()> {
    let update = format!(
        "UPDATE {table} SET k = k + 1, price = price + 1, pad = LEFT(SHA2(id + k, 224), 24), ts = NOW(6) \
         WHERE id BETWEEN {first} AND {}",
        first + span - 1
    );
    conn.query_drop(update).await.with_context(|| format!("update {table} from {first}"))
}

/// The sum of the sink's offsets; 0 before it has any.
async fn stands_at(client: &tokio_postgres::Client) -> i64 {
    // Of topics with rows alone: others move too.
    let sql = "SELECT coalesce(sum(next_offset), 0)::bigint FROM caudal.offsets WHERE sink = 'warehouse' \
               AND (topic LIKE '%.sbtest' OR topic LIKE '%.part\\__')";
    client.query_one(sql, &[]).await.map_or(0, |row| row.get(0))
}

/// Rows per second and CPU seconds per million rows.
struct Volume {
    rate: f64,
    cpu: Cpu,
}

impl Volume {
    fn between(rows: f64, first: Seen, last: Seen) -> Self {
        let cpu = std::array::from_fn(|i| (last.cpu[i] - first.cpu[i]).max(0.0) / rows * 1e6);
        Self { rate: rows / (last.at - first.at).as_secs_f64().max(1e-3), cpu }
    }

    fn add(self, figures: &mut Vec<Figure>, work: &'static str, floor: f64) {
        add(figures, work, self.rate, floor, self.cpu);
    }
}

fn add(figures: &mut Vec<Figure>, work: &'static str, rate: f64, floor: f64, cpu: Cpu) {
    eprintln!("{work}: {rate:.0} rows/s, {:.2} of COPY", rate / floor);
    let at = figures.iter().position(|figure| figure.work == work).unwrap_or_else(|| {
        figures.push(Figure { work, rates: Vec::new(), shares: Vec::new(), cpu: Vec::new() });
        figures.len() - 1
    });
    figures[at].rates.push(rate);
    figures[at].shares.push(rate / floor);
    figures[at].cpu.push(cpu);
}

/// What is asked of a kind of work, and whether it is so.
fn goal(work: &str, rate: f64, share: f64) -> String {
    let met = |met: bool| if met { "met" } else { "MISSED" };
    match work {
        LOAD => format!("0.7 of COPY: {}", met(share >= 0.7)),
        UPSERTS => format!("150,000 rows/s or 0.3 of COPY: {}", met(rate >= 150_000.0 || share >= 0.3)),
        _ => String::new(),
    }
}

fn print(figures: &[Figure]) {
    println!(
        "| work | rows/s | of COPY | goal | CPU-s per million rows: Caudal (COPY: its client) | PostgreSQL | source |"
    );
    println!("|---|---|---|---|---|---|---|");
    for figure in figures {
        let (rate, share) = (median(&figure.rates), median(&figure.shares));
        let cpu = |i: usize| median(&figure.cpu.iter().map(|cpu| cpu[i]).collect::<Vec<_>>());
        println!(
            "| {} | {} | {share:.2} | {} | {:.2} | {:.2} | {:.2} |",
            figure.work,
            spread_of(&figure.rates),
            goal(figure.work, rate, share),
            cpu(0),
            cpu(1),
            cpu(2)
        );
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(values: &[f64]) -> f64 {
    sorted(values)[values.len() / 2]
}

/// `median (least–most)`
fn spread_of(values: &[f64]) -> String {
    let sorted = sorted(values);
    format!("{:.0} ({:.0}–{:.0})", median(values), sorted[0], sorted[sorted.len() - 1])
}

/// Fields of proc(5)'s `stat` behind the name: the first is field 3.
fn stat(process: &str) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').context("a stat line")?.1;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// CPU seconds in fields of a stat line, by their numbers in proc(5).
fn seconds(stat: &[String], fields: std::ops::RangeInclusive<usize>) -> f64 {
    fields.filter_map(|n| stat.get(n - 3)?.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// CPU seconds of all children of this process that have ended.
fn children_that_ended() -> Result<f64> {
    Ok(seconds(&stat("self")?, 16..=17))
}

/// CPU seconds that PostgreSQL has used so far.
fn server_cpu() -> Result<f64> {
    with_children(Postgres::shared().service().pid()?)
}

/// CPU seconds of a server of several processes: its own, of those that have ended, of those that run.
fn with_children(pid: u32) -> Result<f64> {
    let mut used = seconds(&stat(&pid.to_string())?, 14..=17);
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        // It may be gone by now.
        let Ok(stat) = stat(&name) else { continue };
        if stat.get(1).is_some_and(|parent| *parent == pid.to_string()) {
            used += seconds(&stat, 14..=15);
        }
    }
    Ok(used)
}
