//! `caudal verify`: source and sink compared while both live. It asks the two databases itself; the daemon goes on beside it.

mod continuous;
mod repair;

pub(crate) use continuous::again_and_again;

use super::cli::{Cli, VerifyArguments};
use super::compose;
use super::exit::Failure;
use super::output::{Format, count, line};
use super::registry::{Kafka, registry};
use caudal_control::config::{self, Problem, Resolved, SinkEntry};
use caudal_core::compare::{DifferenceKind, SinkSide, SourceSide};
use caudal_core::{Fault, TableSchema};
use caudal_engine::status::now_us;
use caudal_engine::verify::{Options, Report, table};
use caudal_kafka::Log;
use caudal_kafka::monitoring::{Telling, Told, encoded};
use caudal_proto::monitoring::RunRecord;
use caudal_proto::side::VERSION;
use serde::Serialize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The exit code where something differs.
const DIFFERENT: u8 = 3;
/// Between two looks for what a sink has not come to yet.
const AGAIN: Duration = Duration::from_millis(500);
/// How often progress is printed.
const SHOW: Duration = Duration::from_secs(2);
/// How long the log may take to be told of it.
const TELL_WITHIN: Duration = Duration::from_secs(5);
/// Differences of a table that are printed for people.
const SHOWN: usize = 20;

/// What became of one table.
#[derive(Serialize)]
struct Outcome {
    source: String,
    table: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Columns that were not compared: no row has brought them to the sink yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
    /// What was done about the rows that differed.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<repair::Repaired>,
    /// Why it could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_compared: Option<String>,
    #[serde(flatten)]
    report: Option<Report>,
}

/// Compares, and says what differs.
pub(crate) async fn verify(cli: &Cli, arguments: &VerifyArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let entry = sink_of(&resolved, &arguments.sink)?;
    let unable = || Problem::new("SINK", format!("a sink of type {} cannot be compared", entry.kind));
    let mut sink = entry.sink.side().await?.ok_or_else(unable)?;
    let mut outcomes = Vec::new();
    let mut runs = Vec::new();
    for name in &entry.from {
        let Some(source) = resolved.sources.iter().find(|source| source.name == *name) else { continue };
        let unable = || Problem::new("SINK", format!("source {name} cannot be compared"));
        let mut side = source.source.side().await?.ok_or_else(unable)?;
        for (schema, usable) in side.tables().await? {
            if is_meant(&schema, &arguments.tables) {
                let began_us = now_us();
                let mut outcome =
                    one(cli, arguments, name, (side.as_mut(), sink.as_mut()), &schema, usable).await;
                if arguments.repair {
                    let ends: (&mut dyn SourceSide, &mut dyn SinkSide) = (side.as_mut(), sink.as_mut());
                    repair::repair(cli, arguments, &resolved, ends, &schema, &mut outcome).await?;
                }
                runs.push(run(&arguments.sink, &outcome, began_us));
                outcomes.push(outcome);
            }
        }
    }
    if outcomes.is_empty() {
        let problem = Problem::new("TABLE", "no such table is captured for this sink");
        return Err(problem.fix("leave TABLE out to compare all; `caudal status` names them").into());
    }
    match compose::log(&resolved, resolved.log.as_ref().map(|log| log.listen)) {
        Ok(log) => tell(&log, &runs).await,
        Err(error) => tracing::debug!(%error, "the topic of runs is not written"),
    }
    finish(cli, &outcomes)
}

/// What the topic of runs holds of a comparison.
fn run(sink: &str, outcome: &Outcome, began_us: i64) -> RunRecord {
    record(sink, &outcome.table, outcome.report.as_ref().ok_or(outcome.not_compared.as_deref()), began_us)
}

fn record(sink: &str, table: &str, compared: Result<&Report, Option<&str>>, began_us: i64) -> RunRecord {
    let (report, now_us) = (compared.ok(), now_us());
    RunRecord {
        v: VERSION,
        id: uuid::Uuid::new_v4().to_string(),
        kind: "verify".to_owned(),
        pipeline: format!("sink/{sink}"),
        table: table.to_owned(),
        store: None,
        command: None,
        reason: None,
        state: if report.is_some() { "done" } else { "failed" }.to_owned(),
        started_us: began_us,
        ended_us: Some(now_us),
        took_ms: u64::try_from((now_us - began_us) / 1_000).unwrap_or(0),
        rows: report.map_or(0, |report| report.rows),
        delivered: 0,
        deleted: 0,
        rejected: report.map_or(0, Report::count),
        bytes: None,
        bytes_billed: None,
        slot_ms: None,
        price: None,
        error: compared.err().flatten().map(str::to_owned),
    }
}

/// Tells of it where all runs are told, if the log is in reach: the comparison itself needs no log.
async fn tell(log: &Log, runs: &[RunRecord]) {
    let told = async {
        if !log.monitoring().enabled {
            return Ok(());
        }
        let mut tellings = Vec::with_capacity(runs.len());
        for run in runs {
            tellings.push(Telling { topic: Told::Runs, key: run.id.clone(), value: encoded(run)? });
        }
        log.teller().await?.tell(&tellings).await.into_iter().collect::<caudal_core::Result<()>>()
    };
    match tokio::time::timeout(TELL_WITHIN, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the topic of runs is not written"),
        Err(_) => tracing::debug!("the topic of runs is not written: the log does not answer"),
    }
}

pub(super) fn sink_of<'a>(resolved: &'a Resolved<Kafka>, name: &str) -> Result<&'a SinkEntry, Failure> {
    resolved.sinks.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let names: Vec<&str> = resolved.sinks.iter().map(|entry| entry.name.as_str()).collect();
        let problem = Problem::new("SINK", format!("{name} is no sink of the configuration"));
        problem.fix(format!("one of: {}", names.join(", "))).into()
    })
}

pub(super) fn is_meant(schema: &TableSchema, tables: &[String]) -> bool {
    tables.is_empty() || tables.iter().any(|name| *name == schema.id.table || *name == schema.id.to_string())
}

async fn one(
    cli: &Cli,
    arguments: &VerifyArguments,
    source: &str,
    (there, here): (&mut dyn SourceSide, &mut dyn SinkSide),
    schema: &TableSchema,
    usable: bool,
) -> Outcome {
    let mut outcome = Outcome {
        source: source.to_owned(),
        table: schema.id.to_string(),
        target: None,
        without: Vec::new(),
        repaired: None,
        not_compared: None,
        report: None,
    };
    let compared = async {
        if !usable {
            return Err(caudal_core::Error::config("it has no key by which it can be read in ranges"));
        }
        let found = opened((&mut *there, &mut *here), schema, Duration::from_secs(arguments.wait)).await?;
        (outcome.target, outcome.without) = (Some(found.target), found.without);
        let options = Options {
            chunk_rows: arguments.chunk_rows,
            rate: arguments.rate,
            wait: Duration::from_secs(arguments.wait),
        };
        let mut shown = Instant::now();
        let name = schema.id.to_string();
        let mut progress = |rows: u64| {
            if cli.output == Format::Text && shown.elapsed() >= SHOW {
                shown = Instant::now();
                eprintln!("{name}: {} rows compared", count(rows));
            }
        };
        table(there, here, schema, options, &mut progress).await
    };
    match compared.await {
        Ok(report) => outcome.report = Some(report),
        Err(error) => {
            let hint = error.hint_text().map_or(String::new(), |hint| format!("; {hint}"));
            outcome.not_compared = Some(format!("{error}{hint}"));
        }
    }
    outcome
}

/// A table of the sink that can be compared.
struct Opened {
    target: String,
    /// Columns that no row has brought to the sink yet.
    without: Vec<String>,
}

/// Opens the table in the sink. A sink that is behind may not have come to the table, or to a column: that is waited for until it is complete up
/// to now. What it lacks then no row has brought, for shapes come with rows: columns are left out of the comparison.
async fn opened(
    (there, here): (&mut dyn SourceSide, &mut dyn SinkSide),
    schema: &TableSchema,
    wait: Duration,
) -> caudal_core::Result<Opened> {
    let (begun, now_us) = (Instant::now(), there.now_us().await?);
    loop {
        // Asked before it is looked for once more: what the sink lacks then is no longer on its way.
        let mut found = here.open(schema).await.map(|found| found.map(|target| (target, Vec::new())));
        let complete = !matches!(found, Ok(Some(_)))
            && here.complete_to_us(&schema.id).await?.is_some_and(|to_us| to_us >= now_us);
        if complete {
            found = here.open_without_new(schema).await;
        }
        let over = complete || begun.elapsed() >= wait;
        match found {
            Ok(Some((target, without))) => return Ok(Opened { target, without }),
            Ok(None) if over => {
                return Err(caudal_core::Error::transient("the sink has no such table yet"));
            }
            Err(error) if over || error.fault() != Fault::Transient => return Err(error),
            Ok(None) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

fn finish(cli: &Cli, outcomes: &[Outcome]) -> Result<ExitCode, Failure> {
    let different = outcomes.iter().filter_map(|o| o.report.as_ref()).any(|report| report.count() > 0);
    let open = |o: &Outcome| o.report.as_ref().is_none_or(|report| report.undecided > 0);
    let unsure = outcomes.iter().any(open);
    match cli.output {
        Format::Json => {
            let equal = !different && !unsure;
            line(&serde_json::json!({ "equal": equal, "tables": outcomes }).to_string())?;
        }
        Format::Text => outcomes.iter().try_for_each(|outcome| line(&text(outcome)))?,
    }
    Ok(match (different, unsure) {
        (true, _) => ExitCode::from(DIFFERENT),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

fn text(outcome: &Outcome) -> String {
    let Some(report) = &outcome.report else {
        return format!(
            "{}: not compared: {}",
            outcome.table,
            outcome.not_compared.as_deref().unwrap_or_default()
        );
    };
    let mut words = Vec::new();
    for (n, what) in [
        (report.different, "different"),
        (report.missing, "missing"),
        (report.surplus, "surplus"),
        (report.unstorable, "with values that the sink cannot hold"),
        (report.undecided, "that changed too often to tell"),
    ] {
        if n > 0 {
            words.push(format!("{} {what}", count(n)));
        }
    }
    let repaired = outcome.repaired.as_ref().map_or_else(String::new, repair::Repaired::text);
    let found = if words.is_empty() { "equal".to_owned() } else { words.join(", ") };
    let mut text = format!("{}: {} rows compared, {found}{repaired}", outcome.table, count(report.rows));
    if !report.surplus_looked_for {
        text.push_str(
            " (rows that only the sink has were not looked for: the source cannot be asked for its keys)",
        );
    }
    if !outcome.without.is_empty() {
        let columns = outcome.without.join(", ");
        text.push_str(&format!(
            " (but for {columns}: no row has brought that to the sink since it was added)"
        ));
    }
    for told in report.differences.iter().take(SHOWN) {
        let kind = match told.kind {
            DifferenceKind::Missing => "missing".to_owned(),
            DifferenceKind::Surplus => "surplus".to_owned(),
            DifferenceKind::Different => format!("different: {}", told.columns.join(", ")),
        };
        text.push_str(&format!("\n  {}  {kind}", told.key.join(", ")));
    }
    if report.differences.len() > SHOWN {
        text.push_str("\n  … (--output json names up to 1,000)");
    }
    text
}
