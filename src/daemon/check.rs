//! `caudal check`: the configuration, then every connector at once.

use super::cli::{CheckArguments, Cli};
use super::compose;
use super::config::said;
use super::exit::Failure;
use super::output::{Format, line};
use super::registry::{Kafka, registry};
use caudal_control::config::environment::Note;
use caudal_control::config::{self, Resolved};
use caudal_core::{Check, Severity};
use serde::Serialize;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::JoinSet;

/// Longest wait for one connector's findings.
const WITHIN: Duration = Duration::from_secs(60);

/// A finding, and whose it is.
#[derive(Serialize)]
struct Finding {
    /// `sources.plex`
    target: String,
    #[serde(flatten)]
    check: Check,
}

/// Prints all findings; the exit code is 1 if one is an error.
pub(crate) async fn check(cli: &Cli, arguments: &CheckArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let said = format!("sources: {}, sinks: {}", resolved.sources.len(), resolved.sinks.len());
    let origin = match resolved.notes.is_empty() {
        true => cli.config.display().to_string(),
        false => "environment variables".to_owned(),
    };
    let mut findings = vec![Finding { target: "config".into(), check: Check::ok(origin, said) }];
    findings.extend(resolved.notes.iter().map(variable));
    if let Err(error) = compose::agree(&resolved) {
        findings.push(Finding { target: "config".into(), check: failed(&error) });
    }
    if !arguments.offline {
        findings.extend(connectors(&resolved).await);
    }
    let errors = findings.iter().filter(|f| f.check.severity == Severity::Error).count();
    match cli.output {
        Format::Json => line(&json!({ "ok": errors == 0, "findings": findings }).to_string())?,
        Format::Text => line(&text(&findings))?,
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What an environment variable did; those that do nothing are told as something to know.
fn variable(note: &Note) -> Finding {
    let idle = note.path.is_none() && note.says.contains("no effect");
    let said = said(note);
    let said = said.split_once(": ").map_or(said.as_str(), |(_, says)| says);
    let check = if idle {
        Check::warning(note.variable.clone(), said, format!("unset {}, or leave it", note.variable))
    } else {
        Check::ok(note.variable.clone(), said)
    };
    Finding { target: "config".into(), check }
}

async fn connectors(resolved: &Resolved<Kafka>) -> Vec<Finding> {
    let mut tasks = JoinSet::new();
    let mut order = Vec::new();
    // The daemon's own log is not running now; a cluster is looked at once, through the sink of the first capture.
    if let (None, Some(entry)) = (&resolved.log, resolved.sources.first()) {
        order.push("kafka".to_owned());
        match compose::log(resolved, None) {
            Ok(log) => {
                let sink = log.capture_sink(&entry.name, caudal_kafka::CaptureOptions::default());
                tasks.spawn(async move { ("kafka".to_owned(), within(sink.check()).await) });
            }
            Err(error) => drop(tasks.spawn(async move { ("kafka".to_owned(), vec![failed(&error)]) })),
        }
    }
    for entry in &resolved.sources {
        let (source, target) = (entry.source.clone(), format!("sources.{}", entry.name));
        order.push(target.clone());
        tasks.spawn(async move { (target, within(source.check()).await) });
    }
    for entry in &resolved.sinks {
        let (sink, target) = (entry.sink.clone(), format!("sinks.{}", entry.name));
        order.push(target.clone());
        tasks.spawn(async move { (target, within(sink.check()).await) });
    }
    let mut findings = tasks.join_all().await;
    findings.sort_by_key(|(target, _)| order.iter().position(|t| t == target));
    let flat = |(target, checks): (String, Vec<Check>)| {
        checks.into_iter().map(move |check| Finding { target: target.clone(), check })
    };
    findings.into_iter().flat_map(flat).collect()
}

fn failed(error: &caudal_core::Error) -> Check {
    Check::error("configuration", error.to_string(), error.hint_text().unwrap_or("see the message"))
}

async fn within(checks: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    let late = || {
        let message = format!("no answer within {} s", WITHIN.as_secs());
        vec![Check::error(
            "connection",
            message,
            "look whether the server is busy or the network drops packets",
        )]
    };
    tokio::time::timeout(WITHIN, checks).await.unwrap_or_else(|_| late())
}

fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    let mut last = "";
    for Finding { target, check } in findings {
        if target != last {
            lines.push(target.clone());
            last = target;
        }
        let mark = match check.severity {
            Severity::Ok => "ok     ",
            Severity::Warning => "warning",
            Severity::Error => "ERROR  ",
        };
        lines.push(format!("  {mark}  {}: {}", check.subject, check.message));
        if let Some(fix) = &check.fix {
            lines.push(format!("           fix: {}", fix.replace('\n', "\n                ")));
        }
    }
    lines.push(summary(findings));
    lines.join("\n")
}

fn summary(findings: &[Finding]) -> String {
    let of = |severity| findings.iter().filter(|f| f.check.severity == severity).count();
    match (of(Severity::Error), of(Severity::Warning)) {
        (0, 0) => "all well".to_owned(),
        (0, warnings) => format!("{warnings} to know about, nothing that stops `caudal run`"),
        (errors, warnings) => format!("{errors} to mend, {warnings} to know about"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_grouped_by_target_with_their_fixes() {
        let of = |target: &str, check| Finding { target: target.to_owned(), check };
        let findings = [
            of("sources.plex", Check::ok("server", "MariaDB 10.11")),
            of("sources.plex", Check::error("binlog_format", "is MIXED", "SET GLOBAL binlog_format=ROW")),
            of("sinks.dash", Check::warning("shop.log", "has no key", "add one")),
        ];
        assert_eq!(
            text(&findings),
            "sources.plex
  ok       server: MariaDB 10.11
  ERROR    binlog_format: is MIXED
           fix: SET GLOBAL binlog_format=ROW
sinks.dash
  warning  shop.log: has no key
           fix: add one
1 to mend, 1 to know about"
        );
    }
}
