//! `caudal poll` and `caudal schedule`: has the running daemon read polled tables now, and shows when it will.

use super::cli::{Cli, PollArguments, ScheduleArguments};
use super::compose;
use super::exit::Failure;
use super::output::{Format, count, duration, line, table};
use super::registry::registry;
use super::snapshot::{has_ended, known, not_running};
use caudal_api::client;
use caudal_api::view::Pipeline;
use caudal_control::config::{self, Problem};
use caudal_core::{Phase, PollStatus, Progress};
use caudal_proto::side::{SignalCondition, SignalData, SignalRecord};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How soon the daemon is asked first whether the runs are over, and how often at most and at least after that: by a tenth of the time that
/// they have taken. So a short run is told at once, and a long one costs the daemon a few answers a second.
const SOONEST: Duration = Duration::from_millis(10);
const LATEST: Duration = Duration::from_millis(300);
/// How long the daemon may take to take a command up.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);

/// Sends the command; waits until the runs have ended, unless told not to.
pub(crate) async fn poll(cli: &Cli, arguments: &PollArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    known(&resolved, &arguments.source)?;
    let polls = polls(&resolved, &arguments.source).await?;
    let patterns = patterns(arguments, &polls)?;
    let log = compose::log(&resolved, resolved.log.as_ref().map(|log| log.listen))?;
    let record = record(arguments, patterns);
    log.send_signal(&arguments.source, &record).await?;
    if record.kind != "execute-snapshot" || arguments.detach {
        match cli.output {
            Format::Json => line(&json!({ "id": record.id, "sent": record.kind }).to_string())?,
            Format::Text => line(&format!("sent to {}", arguments.source))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    loop {
        tokio::time::sleep(pause(began.elapsed())).await;
        let pipeline = pipeline(&resolved, &arguments.source).await?;
        let mine: Vec<Progress> = pipeline.reading.iter().filter(|p| p.id == record.id).cloned().collect();
        if !mine.is_empty() && mine.iter().all(has_ended) {
            return finish(cli, &record.id, (&mine, arguments.dry_run), &pipeline.polls);
        }
        if mine.is_empty() && began.elapsed() > TAKEN_WITHIN {
            let message =
                format!("{} is {} and has not taken the command yet", pipeline.name, pipeline.state);
            return Err(Problem::new("", message)
                .fix("it will when it runs again: see `caudal status`")
                .into());
        }
    }
}

fn pause(elapsed: Duration) -> Duration {
    (elapsed / 10).clamp(SOONEST, LATEST)
}

type Resolved = caudal_control::config::Resolved<super::registry::Kafka>;

async fn pipeline(resolved: &Resolved, source: &str) -> Result<Pipeline, Failure> {
    let status = client::status(&resolved.http).await.map_err(|e| not_running(e, resolved))?;
    let name = format!("capture/{source}");
    let found = status.pipelines.into_iter().find(|p| p.name == name);
    found.ok_or_else(|| {
        Problem::new("SOURCE", format!("the running daemon has no source `{source}`"))
            .fix("start it again with this configuration")
            .into()
    })
}

async fn polls(resolved: &Resolved, source: &str) -> Result<Vec<PollStatus>, Failure> {
    let pipeline = pipeline(resolved, source).await?;
    if pipeline.polls.is_empty() {
        let message = format!("{source} is not polled, or has not begun yet: it is {}", pipeline.state);
        return Err(Problem::new("SOURCE", message)
            .fix("tables of a capture are read again by `caudal snapshot`")
            .into());
    }
    Ok(pipeline.polls)
}

/// What the daemon is asked for: `table@store`.
fn patterns(arguments: &PollArguments, polls: &[PollStatus]) -> Result<Vec<String>, Failure> {
    for store in &arguments.store {
        if !polls.iter().any(|poll| poll.store.as_ref() == Some(store)) {
            let mut all: Vec<&str> = polls.iter().filter_map(|poll| poll.store.as_deref()).collect();
            all.dedup();
            let message = format!("there is no store `{store}`, or it is not active");
            return Err(Problem::new("--store", message)
                .fix(format!("there are: {}", all.join(", ")))
                .into());
        }
    }
    let tables = if arguments.tables.is_empty() { vec!["*".to_owned()] } else { arguments.tables.clone() };
    if arguments.failed {
        let failed = polls.iter().filter(|poll| poll.last.as_ref().is_some_and(|last| last.error.is_some()));
        return Ok(failed.map(name).collect());
    }
    if arguments.store.is_empty() {
        return Ok(tables);
    }
    let of = |table: &String| {
        arguments.store.iter().map(move |store| format!("{table}@{store}")).collect::<Vec<_>>()
    };
    Ok(tables.iter().flat_map(of).collect())
}

fn name(poll: &PollStatus) -> String {
    match &poll.store {
        Some(store) => format!("{}@{store}", poll.table),
        None => poll.table.clone(),
    }
}

fn record(arguments: &PollArguments, patterns: Vec<String>) -> SignalRecord {
    let kind = match arguments {
        PollArguments { pause: true, .. } => "pause-snapshot",
        PollArguments { resume: true, .. } => "resume-snapshot",
        _ => "execute-snapshot",
    };
    SignalRecord {
        id: uuid::Uuid::new_v4().to_string(),
        kind: kind.to_owned(),
        data: SignalData {
            collections: patterns,
            kind: Some("incremental".to_owned()),
            conditions: conditions(arguments),
            condition: None,
            message: None,
        },
    }
}

/// How the run differs from what is configured.
fn conditions(arguments: &PollArguments) -> Vec<SignalCondition> {
    let force = arguments.force.then(|| "force".to_owned());
    let dry = arguments.dry_run.then(|| "dry-run".to_owned());
    let lookback = arguments.lookback.map(|period| format!("lookback {period}"));
    let one = |filter| SignalCondition { collection: "*".to_owned(), filter };
    force.into_iter().chain(dry).chain(lookback).map(one).collect()
}

fn finish(
    cli: &Cli,
    id: &str,
    (ended, rehearsed): (&[Progress], bool),
    polls: &[PollStatus],
) -> Result<ExitCode, Failure> {
    let done = ended.iter().all(|p| p.phase == Phase::Done);
    let error = |progress: &Progress| {
        let poll = polls.iter().find(|poll| name(poll) == progress.table);
        poll.and_then(|poll| poll.last.as_ref()?.error.clone()).filter(|_| progress.phase != Phase::Done)
    };
    // A rehearsal leaves none behind.
    let findings = |progress: &Progress| {
        let poll = polls.iter().find(|poll| name(poll) == progress.table && !rehearsed);
        poll.and_then(|poll| Some(poll.last.as_ref()?.findings.clone())).unwrap_or_default()
    };
    match cli.output {
        Format::Json => {
            let one = |p: &Progress| json!({ "table": p.table, "ok": p.phase == Phase::Done, "rows": p.rows, "changed": p.delivered, "deleted": p.deleted, "error": error(p), "findings": findings(p) });
            let runs: Vec<_> = ended.iter().map(one).collect();
            line(&json!({ "id": id, "ok": done, "runs": runs }).to_string())?;
        }
        Format::Text => {
            for progress in ended {
                line(&text(progress, error(progress).as_deref(), &findings(progress)))?;
            }
        }
    }
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(progress: &Progress, error: Option<&str>, findings: &[String]) -> String {
    let Progress { table, rows, delivered, deleted, .. } = progress;
    match progress.phase {
        Phase::Refused => format!("{table}: no such table is polled"),
        Phase::Done => {
            format!(
                "{table}: {} rows read, {} changed, {} deleted{}",
                count(*rows),
                count(*delivered),
                count(*deleted),
                findings.iter().map(|finding| format!("; {finding}")).collect::<String>()
            )
        }
        _ => {
            format!("{table}: FAILED: {}", error.unwrap_or("the source was opened anew; see `caudal status`"))
        }
    }
}

/// Prints when polled tables are read next, and what became of their last runs; exits with 1 if one failed.
pub(crate) async fn schedule(cli: &Cli, arguments: &ScheduleArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let status = client::status(&resolved.http).await.map_err(|e| not_running(e, &resolved))?;
    let name =
        |pipeline: &Pipeline| pipeline.name.strip_prefix("capture/").unwrap_or(&pipeline.name).to_owned();
    let meant =
        |pipeline: &&Pipeline| arguments.source.as_ref().is_none_or(|source| *source == name(pipeline));
    let pipelines: Vec<&Pipeline> =
        status.pipelines.iter().filter(meant).filter(|p| !p.polls.is_empty()).collect();
    let failed = |poll: &PollStatus| poll.last.as_ref().is_some_and(|last| last.error.is_some());
    let well = !pipelines.iter().flat_map(|p| &p.polls).any(failed);
    match cli.output {
        Format::Json => {
            let one = |p: &&Pipeline| json!({ "source": name(p), "polls": p.polls });
            line(&json!(pipelines.iter().map(one).collect::<Vec<_>>()).to_string())?;
        }
        Format::Text => {
            let rows =
                pipelines.iter().flat_map(|p| p.polls.iter().map(|poll| row(name(p), poll, status.now_us)));
            let head = ["SOURCE", "TABLE", "STORE", "SCHEDULE", "NEXT", "LAST", "RESULT"];
            line(&table(&head, &rows.collect::<Vec<_>>()))?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(source: String, poll: &PollStatus, now_us: i64) -> Vec<String> {
    let micros = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
    let next = poll.next_us.first().copied().unwrap_or(i64::MAX);
    let next = match (poll.running, next) {
        (true, _) => "now".to_owned(),
        (false, i64::MAX) => "never".to_owned(),
        (false, at) => format!("in {}", duration(micros(at - now_us))),
    };
    let (last, result) = match &poll.last {
        None => ("-".to_owned(), "-".to_owned()),
        Some(run) => {
            let result = match &run.error {
                Some(error) => format!("FAILED: {error}"),
                None => {
                    let findings =
                        run.findings.iter().map(|finding| format!("; {finding}")).collect::<String>();
                    let cost = run.cost.map_or_else(String::new, |cost| {
                        format!(", {} bytes billed ({:.4})", count(cost.bytes_billed), cost.price)
                    });
                    format!(
                        "{} rows, {} changed, {} deleted{cost}{findings}",
                        count(run.rows),
                        count(run.changed),
                        count(run.deleted)
                    )
                }
            };
            (format!("{} ago", duration(micros(now_us - run.planned_us))), result)
        }
    };
    vec![
        source,
        poll.table.clone(),
        poll.store.clone().unwrap_or("-".into()),
        poll.schedule.clone(),
        next,
        last,
        result,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_of_within_a_tenth_of_its_time_and_the_daemon_asked_seldom() {
        let ends = |took: Duration| {
            let (mut at, mut asked) = (Duration::ZERO, 0);
            while at < took {
                at += pause(at);
                asked += 1;
            }
            (at.saturating_sub(took), asked)
        };
        for ms in [1, 30, 95, 400, 900, 2_900] {
            let took = Duration::from_millis(ms);
            let (late, asked) = ends(took);
            assert!(late <= (took / 10).max(SOONEST) && asked < 60, "{ms}: {late:?}, {asked}");
        }
        assert!(ends(Duration::from_secs(60)).1 < 260);
    }
}
