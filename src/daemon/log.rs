//! `caudal log`: the files of the embedded log, for the operator, while the daemon is stopped.

use super::cli::{Cli, ExportArguments, LogArguments, LogVerb};
use super::compose;
use super::embedded;
use super::exit::Failure;
use super::output::{Format, count, line, table};
use super::registry::{Kafka, registry};
use caudal_control::config::{self, LogSettings, Problem, Resolved};
use caudal_core::Sink;
use caudal_kafka::Exported;
use caudal_log::{CompactedTopic, Finding, Inspection, Severity};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said how far it is.
const SHOW: Duration = Duration::from_secs(2);

/// Runs a verb.
pub(crate) async fn log(cli: &Cli, arguments: &LogArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let Some(settings) = &resolved.log else {
        let problem = Problem::new("kafka.brokers", "the log of this configuration is a cluster's");
        return Err(problem
            .fix("name the configuration of the embedded log; a cluster has its own tools (kafka-topics.sh, kafka-configs.sh)")
            .into());
    };
    match &arguments.verb {
        LogVerb::Check => check(cli, &resolved).await,
        LogVerb::Compact => compact(cli, &resolved, settings).await,
        LogVerb::Export(export_to) => export(cli, &resolved, settings, export_to).await,
    }
}

/// What a running daemon means for these verbs.
fn told(error: &caudal_log::Error) -> Failure {
    let problem = embedded::problem(&error.to_string());
    match error {
        caudal_log::Error::FolderLocked(_) => {
            problem.fix("stop the daemon first: it has the files in use (systemctl stop caudal)").into()
        }
        _ => problem.into(),
    }
}

/// Lets something be said now and then, on stderr, to people.
struct Saying {
    output: Format,
    last: Mutex<Instant>,
}

impl Saying {
    fn new(output: Format) -> Self {
        Self { output, last: Mutex::new(Instant::now()) }
    }

    fn say(&self, text: impl FnOnce() -> String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if self.output == Format::Text && last.elapsed() >= SHOW {
            *last = Instant::now();
            eprintln!("{}", text());
        }
    }
}

async fn check(cli: &Cli, resolved: &Resolved<Kafka>) -> Result<ExitCode, Failure> {
    let (dir, saying) = (resolved.data_dir.join("log"), Saying::new(cli.output));
    let looked = tokio::task::spawn_blocking(move || {
        caudal_log::inspect(&dir, |so_far| {
            saying.say(|| format!("{} records checked", count(so_far.records)));
        })
    });
    let inspection = looked.await.map_err(|e| Failure::new(e.to_string()))?.map_err(|e| told(&e))?;
    let damaged = inspection.is_damaged();
    match cli.output {
        Format::Json => line(&inspection_json(&inspection).to_string())?,
        Format::Text => line(&inspection_text(&inspection))?,
    }
    Ok(if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What to do about a finding.
fn fix(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Damage => {
            "restore data_dir/log from a copy. Without one, move it away and start the daemon: it reads its sources anew, and \
             sinks take over what differs"
        }
        Severity::Unfinished => {
            "nothing: the next start removes it, and nothing that was acknowledged is lost"
        }
        Severity::Stray => "nothing: the next start removes it",
    }
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Damage => "damage",
        Severity::Unfinished => "unfinished",
        Severity::Stray => "stray",
    }
}

fn inspection_json(inspection: &Inspection) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": severity(finding), "file": finding.path, "position": finding.position,
            "partition": finding.partition, "offset": finding.offset, "what": finding.what, "fix": fix(finding),
        })
    };
    json!({
        "ok": !inspection.is_damaged(), "topics": inspection.topics, "partitions": inspection.partitions,
        "segments": inspection.segments, "batches": inspection.batches, "records": inspection.records,
        "bytes": inspection.bytes, "found": inspection.found,
        "findings": inspection.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn inspection_text(inspection: &Inspection) -> String {
    let mut lines = vec![format!(
        "{} topics, {} partitions, {} segments, {} records, {} bytes",
        count(inspection.topics),
        count(inspection.partitions),
        count(inspection.segments),
        count(inspection.records),
        count(inspection.bytes)
    )];
    for finding in &inspection.findings {
        let mark = if finding.severity == Severity::Damage { "DAMAGE" } else { severity(finding) };
        let mut place = finding.path.display().to_string();
        if let Some(position) = finding.position {
            place.push_str(&format!(" at byte {position}"));
        }
        if let Some(partition) = &finding.partition {
            place.push_str(&format!(" ({partition}"));
            if let Some(offset) = finding.offset {
                place.push_str(&format!(", offset {offset}"));
            }
            place.push(')');
        }
        lines.push(format!("{mark}  {place}: {}", finding.what));
        lines.push(format!("        fix: {}", fix(finding)));
    }
    if inspection.found > inspection.findings.len() as u64 {
        let more = inspection.found - inspection.findings.len() as u64;
        lines.push(format!("and {} more", count(more)));
    }
    let damages = inspection.findings.iter().filter(|f| f.severity == Severity::Damage).count();
    lines.push(if damages == 0 { "all well".to_owned() } else { format!("{damages} damaged") });
    lines.join("\n")
}

async fn compact(cli: &Cli, resolved: &Resolved<Kafka>, settings: &LogSettings) -> Result<ExitCode, Failure> {
    let saying = Saying::new(cli.output);
    let config = embedded::configuration(settings, resolved, quiet());
    let done = caudal_log::compact(config, move |topic: &CompactedTopic| {
        saying.say(|| format!("{}: compacted", topic.name));
    });
    let topics = done.await.map_err(|e| told(&e))?;
    match cli.output {
        Format::Json => {
            let one = |t: &CompactedTopic| {
                let age = t.least_age_ms;
                json!({"topic": t.name, "bytes_before": t.before, "bytes_after": t.after, "least_age_ms": age})
            };
            line(&Value::from(topics.iter().map(one).collect::<Vec<_>>()).to_string())?;
        }
        Format::Text => line(&compacted_text(&topics))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn compacted_text(topics: &[CompactedTopic]) -> String {
    let row = |t: &CompactedTopic| {
        let age = super::output::duration(Duration::from_millis(t.least_age_ms.max(0) as u64));
        vec![t.name.clone(), count(t.before), count(t.after), age]
    };
    let (before, after) =
        topics.iter().fold((0, 0), |(before, after), t| (before + t.before, after + t.after));
    let mut text = table(
        &["TOPIC", "BYTES BEFORE", "AFTER", "LEFT ALONE FOR"],
        &topics.iter().map(row).collect::<Vec<_>>(),
    );
    text.push_str(&format!("\n{} bytes before, {} after", count(before), count(after)));
    if before > 0 && after == before {
        text.push_str("\nnothing to gain: what is younger than a topic's min.compaction.lag.ms stays, or sinks that are behind would miss deletes");
    }
    text
}

/// For nobody but this process.
fn quiet() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

async fn export(
    cli: &Cli,
    resolved: &Resolved<Kafka>,
    settings: &LogSettings,
    arguments: &ExportArguments,
) -> Result<ExitCode, Failure> {
    let target = config::load(&arguments.to, &registry())?;
    refuse_target(resolved, &target)?;
    let to = compose::log(&target, None)?;
    let sinks: Vec<(String, Arc<dyn Sink>)> =
        target.sinks.iter().map(|entry| (entry.name.clone(), Arc::clone(&entry.sink))).collect();
    let mut config = embedded::configuration(settings, resolved, quiet());
    // What is copied stays as it is meanwhile.
    config.maintenance_interval = Duration::from_secs(365 * 86_400);
    // It must not be made by asking for it.
    if !config.data_dir.join("lock").exists() {
        return Err(told(&caudal_log::Error::NoLog(config.data_dir)));
    }
    let served = caudal_log::Log::start(config).await.map_err(|e| told(&e))?;
    let from = compose::log(resolved, Some(served.address()))?;
    let saying = Saying::new(cli.output);
    let progress = Arc::new(move |now: caudal_kafka::Progress| {
        saying.say(|| {
            let (done, all) = (count(now.done), count(now.partitions));
            format!("{done} of {all} partitions, {} records, {} bytes", count(now.records), count(now.bytes))
        });
    });
    let exported = from.export_to(&to, &sinks, progress).await;
    served.shutdown().await;
    let exported = exported?;
    match cli.output {
        Format::Json => line(&exported_json(&exported).to_string())?,
        Format::Text => line(&exported_text(&exported, &arguments.to.display().to_string()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_target(here: &Resolved<Kafka>, target: &Resolved<Kafka>) -> Result<(), Failure> {
    if target.log.is_some() {
        let problem = Problem::new("kafka.brokers", "the configuration to go on with names no brokers");
        return Err(problem.fix("add `kafka: {brokers: [kafka-1:9092]}` to it, and remove `log`").into());
    }
    if target.prefix != here.prefix {
        let cause =
            format!("is `{}` there and `{}` here: topics keep their names", target.prefix, here.prefix);
        return Err(Problem::new("prefix", cause).fix(format!("write prefix: {}", here.prefix)).into());
    }
    Ok(())
}

fn exported_json(exported: &Exported) -> Value {
    json!({
        "topics": exported.topics, "records": exported.progress.records, "bytes": exported.progress.bytes,
        "sources": exported.sources, "groups": exported.groups, "sinks": exported.sinks,
        "left_out": exported.left_out,
    })
}

fn exported_text(exported: &Exported, to: &str) -> String {
    let names = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut lines = vec![
        format!(
            "{} topics, {} records, {} bytes copied",
            count(exported.topics),
            count(exported.progress.records),
            count(exported.progress.bytes)
        ),
        format!("sources that go on where they were: {}", names(&exported.sources)),
        format!("sinks that go on where they were: {}", names(&exported.sinks)),
        format!("consumer groups: {}", names(&exported.groups)),
    ];
    if !exported.left_out.is_empty() {
        lines.push(format!("left out: {}", names(&exported.left_out)));
    }
    lines.push(format!(
        "now start the daemon with {to}, and never again with the embedded log: keep its folder until all is well"
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damage_is_told_with_its_place_and_what_to_do() {
        let finding = Finding {
            severity: Severity::Damage,
            path: "/data/log/topics/x/0/0.log".into(),
            position: Some(4_096),
            partition: Some("shop.shop.orders/0".into()),
            offset: Some(12),
            what: "wrong CRC".into(),
        };
        let unfinished = Finding { severity: Severity::Unfinished, offset: None, ..finding.clone() };
        let inspection =
            Inspection { topics: 1, found: 2, findings: vec![finding, unfinished], ..Inspection::default() };
        let text = inspection_text(&inspection);
        assert!(text.contains("DAMAGE  /data/log/topics/x/0/0.log at byte 4096 (shop.shop.orders/0, offset 12): wrong CRC\n        fix: restore"), "{text}");
        assert!(text.contains("unfinished  ") && text.ends_with("1 damaged"), "{text}");
        assert_eq!(inspection_json(&inspection)["ok"], false);
        assert!(inspection_text(&Inspection::default()).ends_with("all well"));
    }
}
