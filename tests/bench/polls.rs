//! What polling costs: a million rows of a SQL Server and a million records of a JSON API read for the first time and, unchanged, again; and how long it takes from
//! `caudal poll` until a thousand records that were all changed stand in Postgres.
//!
//!     cargo bench -p caudal-tests --bench polls -- --rows 1000000 --rounds 5
//!
//! The servers are the test kit's, in this process: their work is not the daemon's, but on the same cores. CAUDAL_BIN names the daemon,
//! which should be built with optimisation; `tests/bench/run --polls` does both.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use caudal_tests::klk::{KEY, Klk, Reply};
use caudal_tests::tds::model::{column, sent};
use caudal_tests::tds::{End, Mssql, Reply as Answer, Value as Cell};
use caudal_tests::{Daemon, DaemonConfig, PgDatabase, Postgres};
use serde_json::Value;

/// Nothing may take so long.
const STUCK: Duration = Duration::from_secs(900);
/// Records of a page.
const PAGE: u64 = 5_000;

fn main() -> Result<()> {
    let (mut rows, mut rounds) = (1_000_000, 5);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        // `cargo bench` adds the first, `tests/bench/run` the other.
        if name == "--bench" || name == "--polls" {
            continue;
        }
        let value = arguments.next().and_then(|text| text.parse().ok());
        match (name.as_str(), value) {
            ("--rows", Some(n)) => rows = n,
            ("--rounds", Some(n)) => rounds = n,
            _ => bail!("unknown: {name}; known: --rows N, --rounds N"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        println!("| source | rows | run | rows/s | CPU-s per million | peak MB | events written | in Postgres after, s |");
        println!("|---|---|---|---|---|---|---|---|");
        million("SQL Server", rows, &mssql(rows).await?).await?;
        million("JSON API", rows, &api(rows).await?).await?;
        println!("\n| records, all changed | `caudal poll` returns after, ms | in Postgres after, ms | slowest, ms | peak MB |\n|---|---|---|---|---|");
        for records in [1_000, 5_000] {
            refresh(records, rounds).await?;
        }
        Ok(())
    })
}

/// A source: its kind, its lines, and what must live as long as it.
struct Scene {
    kind: &'static str,
    url: String,
    lines: Vec<String>,
    /// What each record has in its column that changes.
    version: Arc<AtomicU64>,
    _server: Box<dyn std::any::Any>,
}

impl Scene {
    fn start(&self, name: &str, sink: &PgDatabase) -> Result<Daemon> {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        let config = DaemonConfig::new(&format!("polls_{name}"))
            .source_of("source", self.kind, &self.url, &[])
            .source_lines("source", &lines)
            .sink("sink", sink, &["consistency: transaction"]);
        Daemon::start(&config)
    }
}

/// `items (id int, nombre nvarchar(80), existencia decimal(14,4), precio money, version int)`
async fn mssql(rows: u64) -> Result<Scene> {
    let server = Mssql::start().await?;
    let columns = ["int", "nvarchar(80)", "decimal(14,4)", "money", "int"];
    let names = ["id", "nombre", "existencia", "precio", "version"];
    server.create("Items", names.iter().zip(columns).map(|(name, ty)| column(name, ty)).collect(), 1);
    let shape = sent(&server.state().tables["Items"]);
    let version = Arc::new(AtomicU64::new(1));
    let told = Arc::clone(&version);
    server.instead(move |request| {
        // The engine's statement for the rows; others are the kit's to answer.
        let is_it = request.is_call
            && request.sql.starts_with("SELECT ")
            && request.sql.contains("[Items]")
            && request.sql.contains("AS q");
        let (shape, version) = (shape.clone(), told.load(Ordering::Relaxed) as i64);
        let row = move |id: u64| {
            let id = id as i64;
            vec![
                Cell::Int(id),
                Cell::Text(format!("Producto número {id}")),
                Cell::Decimal(i128::from(id) * 2_500),
                Cell::Decimal(i128::from(id) * 125),
                Cell::Int(version),
            ]
        };
        is_it.then(|| vec![Answer::Rows(shape, Box::new((1..=rows).map(row)), End::Done)])
    });
    let url = server.url();
    let lines = [
        "environment: local",
        "tls: {mode: disabled}",
        "every: 31d",
        "tables:",
        "  items: {from: dbo.Items}",
    ];
    let lines = lines.map(str::to_owned).to_vec();
    Ok(Scene { kind: "sqlserver", url, lines, version, _server: Box::new(server) })
}

/// Pages of the same, as JSON.
async fn api(rows: u64) -> Result<Scene> {
    let server = Klk::start().await?;
    let version = Arc::new(AtomicU64::new(1));
    let told = Arc::clone(&version);
    server.instead(move |asked| {
        let page: u64 = asked.parameters.get("page")?.parse().ok()?;
        let version = told.load(Ordering::Relaxed);
        let mut body = String::from("{\"items\":[");
        for id in ((page - 1) * PAGE + 1)..=(page * PAGE).min(rows) {
            body.push_str(&format!(
                "{{\"id\":{id},\"nombre\":\"Producto número {id}\",\"existencia\":{}.25,\"precio\":\"{}.50\",\"version\":{version}}},",
                id / 4,
                id % 90
            ));
        }
        let whole = format!("{}],\"total\":{rows}}}", body.trim_end_matches(','));
        Some(Reply::text(200, &whole))
    });
    let lines = [
        format!("auth: {{api_key: {KEY}, header: X-API-Key}}"),
        "every: 31d".to_owned(),
        "tables:".to_owned(),
        format!(
            "  items: {{path: /items, records: items, key: [id], paging: {{type: page, size: {PAGE}, total: total}}, fields: {{existencia: {{type: 'decimal(14,4)'}}, precio: {{type: 'decimal(14,2)'}}}}}}"
        ),
    ];
    Ok(Scene { kind: "rest", url: server.url(), lines: lines.to_vec(), version, _server: Box::new(server) })
}

/// The record of the table's last run, once there are so many; and the events that were written.
async fn run(daemon: &Daemon, number: u64) -> Result<(Value, u64)> {
    let begun = Instant::now();
    loop {
        let status: Value = daemon
            .get("/status")
            .await
            .ok()
            .and_then(|(_, body)| serde_json::from_str(&body).ok())
            .unwrap_or_default();
        let pipeline = &status["pipelines"][0];
        let last = &pipeline["polls"][0]["last"];
        ensure!(last["error"].is_null(), "the run failed: {last}\n{}", daemon.log_tail());
        if last["number"].as_u64().is_some_and(|n| n >= number) {
            return Ok((last.clone(), pipeline["events"].as_u64().unwrap_or(0)));
        }
        ensure!(begun.elapsed() < STUCK, "no run {number}: {pipeline}\n{}", daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn count(sink: &tokio_postgres::Client, version: u64) -> u64 {
    let sql = format!("SELECT count(*) FROM items WHERE version = {version}");
    sink.query_one(&sql, &[]).await.map_or(0, |row| row.get::<_, i64>(0) as u64)
}

/// Reads it for the first time, and again.
async fn million(name: &str, rows: u64, scene: &Scene) -> Result<()> {
    let sink = Postgres::shared().database("polls").await?;
    let begun = Instant::now();
    let daemon = scene.start(scene.kind, &sink)?;
    let (first, _) = run(&daemon, 1).await?;
    let rate = |record: &Value| rows as f64 * 1e6 / record["took_us"].as_f64().unwrap_or(1.0);
    let usage = daemon.usage()?;
    let client = sink.connect().await?;
    while count(&client, 1).await < rows {
        ensure!(begun.elapsed() < STUCK, "{}", daemon.log_tail());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let there = begun.elapsed().as_secs_f64();
    // Those that are on their way when a run ends are counted later.
    let (_, events) = run(&daemon, 1).await?;
    ensure!(events == rows, "{events} events for {rows} rows");
    let per_million = |cpu: f64| cpu * 1e6 / rows as f64;
    println!(
        "| {name} | {rows} | first | {:.0} | {:.1} | {} | {events} | {there:.1} |",
        rate(&first),
        per_million(usage.cpu_seconds),
        daemon.usage()?.peak / 1_000_000
    );
    let before = daemon.usage()?.cpu_seconds;
    let out = caudal(&daemon, &["poll", "source"])?;
    let (again, after) = run(&daemon, 2).await?;
    let usage = daemon.usage()?;
    ensure!(again["changed"] == 0 && again["deleted"] == 0 && again["rows"] == rows, "{again}\n{out}");
    ensure!(after == events, "an unchanged table wrote {} events", after - events);
    println!(
        "| {name} | {rows} | unchanged | {:.0} | {:.1} | {} | {} | |",
        rate(&again),
        per_million(usage.cpu_seconds - before),
        usage.peak / 1_000_000,
        after - events
    );
    Ok(())
}

/// All records change; from the command until they are there.
async fn refresh(records: u64, rounds: u64) -> Result<()> {
    let scene = api(records).await?;
    let sink = Postgres::shared().database("refresh").await?;
    let daemon = scene.start(&format!("refresh{records}"), &sink)?;
    run(&daemon, 1).await?;
    let client = sink.connect().await?;
    while count(&client, 1).await < records {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut told, mut there) = (Vec::new(), Vec::new());
    for version in 2..2 + rounds {
        scene.version.store(version, Ordering::Relaxed);
        let begun = Instant::now();
        let file = daemon.config_file();
        let command = tokio::task::spawn_blocking(move || {
            Ok::<_, anyhow::Error>((said(&file, &["poll", "source", "items"])?, begun.elapsed()))
        });
        while count(&client, version).await < records {
            ensure!(begun.elapsed() < STUCK, "{}", daemon.log_tail());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        there.push(begun.elapsed().as_millis());
        let (said, after) = command.await??;
        ensure!(said.contains("changed"), "{said}");
        told.push(after.as_millis());
    }
    let slowest = there.iter().chain(&told).max().copied().unwrap_or(0);
    for times in [&mut told, &mut there] {
        times.sort_unstable();
    }
    let middle = |times: &[u128]| times[times.len() / 2];
    println!(
        "| {records} | {} | {} | {slowest} | {} |",
        middle(&told),
        middle(&there),
        daemon.usage()?.peak / 1_000_000
    );
    Ok(())
}

fn caudal(daemon: &Daemon, arguments: &[&str]) -> Result<String> {
    said(&daemon.config_file(), arguments)
}

fn said(file: &std::path::Path, arguments: &[&str]) -> Result<String> {
    let out =
        Command::new(caudal_tests::daemon::binary()?).arg("--config").arg(file).args(arguments).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "caudal {}: {said}", arguments.join(" "));
    Ok(said)
}
