//! `caudal snapshot`: has the running daemon read tables again, and shows how far it is.

use super::cli::{Cli, SnapshotArguments};
use super::compose;
use super::exit::Failure;
use super::output::{Format, count, duration, line};
use super::registry::{Kafka, registry};
use super::signals::Signals;
use caudal_api::client;
use caudal_control::config::{self, Problem, Resolved};
use caudal_core::{Error, Fault, Phase, Progress};
use caudal_proto::side::{SignalCondition, SignalData, SignalRecord};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the daemon is asked.
const EVERY: Duration = Duration::from_millis(500);
/// How often progress is printed.
const SHOW: Duration = Duration::from_secs(2);
/// How long the daemon may take to take a command up.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);

/// Sends the command; waits until it is done, unless told not to.
pub(crate) async fn snapshot(cli: &Cli, arguments: &SnapshotArguments) -> Result<ExitCode, Failure> {
    let mut stop = Signals::new()?;
    let resolved = config::load(&cli.config, &registry())?;
    known(&resolved, &arguments.source)?;
    client::status(&resolved.http).await.map_err(|e| not_running(e, &resolved))?;
    let log = compose::log(&resolved, resolved.log.as_ref().map(|log| log.listen))?;
    let record = record(arguments);
    log.send_signal(&arguments.source, &record).await?;
    if record.kind != "execute-snapshot" || arguments.detach {
        match cli.output {
            Format::Json => line(&json!({ "id": record.id, "sent": record.kind }).to_string())?,
            Format::Text => line(&format!("sent {} to {}", record.kind, arguments.source))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let waited = tokio::select! {
        waited = wait(cli, &resolved, &record.id, &arguments.source) => waited,
        _ = stop.next() => {
            eprintln!("not waiting any longer; the re-read goes on: `caudal snapshot {} --stop` ends it", arguments.source);
            return Ok(ExitCode::FAILURE);
        }
    }?;
    finish(cli, &record.id, &waited)
}

pub(super) fn known(resolved: &Resolved<Kafka>, source: &str) -> Result<(), Failure> {
    let names: Vec<&str> = resolved.sources.iter().map(|s| s.name.as_str()).collect();
    if names.contains(&source) {
        return Ok(());
    }
    let message = format!("there is no source `{source}`");
    Err(Problem::new("SOURCE", message).fix(format!("there are: {}", names.join(", "))).into())
}

pub(super) fn not_running(error: Error, resolved: &Resolved<Kafka>) -> Failure {
    match error.fault() {
        Fault::Transient => Problem::from(error)
            .fix(format!(
                "re-reads are done by the daemon: start it with `caudal run` (it answers at {})",
                resolved.http.listen
            ))
            .into(),
        _ => error.into(),
    }
}

fn record(arguments: &SnapshotArguments) -> SignalRecord {
    let kind = match arguments {
        SnapshotArguments { pause: true, .. } => "pause-snapshot",
        SnapshotArguments { resume: true, .. } => "resume-snapshot",
        SnapshotArguments { stop: true, .. } => "stop-snapshot",
        _ => "execute-snapshot",
    };
    let condition = |table: &String| {
        let filter = arguments.condition.clone()?;
        Some(SignalCondition { collection: table.clone(), filter })
    };
    SignalRecord {
        id: uuid::Uuid::new_v4().to_string(),
        kind: kind.to_owned(),
        data: SignalData {
            collections: arguments.tables.clone(),
            kind: Some("incremental".to_owned()),
            conditions: arguments.tables.iter().filter_map(condition).collect(),
            condition: None,
            message: None,
        },
    }
}

/// Until all that the command asked for has ended.
async fn wait(
    cli: &Cli,
    resolved: &Resolved<Kafka>,
    id: &str,
    source: &str,
) -> Result<Vec<Progress>, Failure> {
    let (started, mut shown, mut taken) = (Instant::now(), Instant::now(), false);
    let name = format!("capture/{source}");
    loop {
        tokio::time::sleep(EVERY).await;
        let status = client::status(&resolved.http).await.map_err(|e| not_running(e, resolved))?;
        let pipeline = status.pipelines.iter().find(|p| p.name == name);
        let mine = pipeline.map(|p| p.reading.iter().filter(|r| r.id == id).cloned().collect());
        let mine: Vec<Progress> = mine.unwrap_or_default();
        taken |= !mine.is_empty();
        if !mine.is_empty() && mine.iter().all(has_ended) {
            return Ok(mine);
        }
        if !taken && started.elapsed() > TAKEN_WITHIN {
            let state = pipeline.map_or("not there", |p| p.state.as_str());
            return Err(Problem::new("", format!("{name} is {state} and has not taken the command yet"))
                .fix("it will when it runs again: see `caudal status`")
                .into());
        }
        if shown.elapsed() >= SHOW {
            shown = Instant::now();
            for progress in mine.iter().filter(|p| !has_ended(p)) {
                show(cli, progress)?;
            }
        }
    }
}

pub(super) fn has_ended(progress: &Progress) -> bool {
    matches!(progress.phase, Phase::Done | Phase::Stopped | Phase::Refused)
}

fn show(cli: &Cli, progress: &Progress) -> Result<(), Failure> {
    match cli.output {
        Format::Json => {}
        Format::Text => eprintln!("{}", text(progress)),
    }
    Ok(())
}

fn finish(cli: &Cli, id: &str, ended: &[Progress]) -> Result<ExitCode, Failure> {
    let done = ended.iter().all(|p| p.phase == Phase::Done);
    match cli.output {
        Format::Json => line(&json!({ "id": id, "ok": done, "tables": ended }).to_string())?,
        Format::Text => ended.iter().try_for_each(|p| line(&text(p)))?,
    }
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(progress: &Progress) -> String {
    let Progress { table, rows, delivered, deleted, .. } = progress;
    match progress.phase {
        Phase::Refused => format!("{table}: no such table is captured"),
        Phase::Stopped => format!("{table}: stopped after {} rows", count(*rows)),
        Phase::Done => format!(
            "{table}: {} rows read, {} delivered, {} deleted",
            count(*rows),
            count(*delivered),
            count(*deleted)
        ),
        Phase::Waiting => format!("{table}: waiting"),
        Phase::Comparing => format!("{table}: looking up what the log holds"),
        Phase::Paused => format!("{table}: paused at {} rows", count(*rows)),
        Phase::Throttled => format!("{table}: the source is busy; {} rows", count(*rows)),
        Phase::Reading => {
            let left = progress.seconds_left.map(|s| format!(", {} left", duration(Duration::from_secs(s))));
            format!(
                "{table}: {} rows, {} %, {} rows/s{}",
                count(*rows),
                progress.percent(),
                count(progress.rows_per_second),
                left.unwrap_or_default()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_well() {
        let progress = Progress {
            id: "1".into(),
            reason: String::new(),
            table: "shop.orders".into(),
            phase: Phase::Reading,
            rows: 1_000,
            delivered: 3,
            deleted: 0,
            bytes: 0,
            estimated_rows: 4_000,
            rows_per_second: 100,
            seconds_left: Some(30),
        };
        assert_eq!(text(&progress), "shop.orders: 1,000 rows, 25 %, 100 rows/s, 30s left");
        let done = Progress { phase: Phase::Done, ..progress };
        assert_eq!(text(&done), "shop.orders: 1,000 rows read, 3 delivered, 0 deleted");
    }
}
