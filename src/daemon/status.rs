//! `caudal status`: what the running daemon says of itself.

use super::cli::Cli;
use super::exit::Failure;
use super::output::{Format, count, duration, line, table};
use super::registry::registry;
use caudal_api::client;
use caudal_api::view::{Pipeline, Status};
use caudal_control::config::{self, Problem};
use caudal_core::Fault;
use std::process::ExitCode;
use std::time::Duration;

/// Prints where the pipelines stand; the exit code is 1 if one does not run, or the daemon does not.
pub(crate) async fn status(cli: &Cli) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let status = client::status(&resolved.http).await.map_err(|error| match error.fault() {
        Fault::Transient => {
            Problem::from(error).fix("the daemon seems not to run: start it with `caudal run`").into()
        }
        _ => Failure::from(error),
    })?;
    match cli.output {
        Format::Json => line(&serde_json::to_string(&status).map_err(std::io::Error::from)?)?,
        Format::Text => line(&text(&status))?,
    }
    let well = status.pipelines.iter().all(|p| matches!(p.state.as_str(), "running" | "waiting"));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(status: &Status) -> String {
    let up = micros(status.now_us - status.started_us);
    let mut out = format!(
        "caudal {} · prefix {} · log: {} · up {}\n\n",
        status.version,
        status.prefix,
        status.log,
        duration(up)
    );
    let rows: Vec<Vec<String>> = status.pipelines.iter().map(|p| row(p, status.now_us)).collect();
    out.push_str(&table(
        &["PIPELINE", "STATE", "EVENTS", "EVENTS/S", "BEHIND", "REJECTED", "POSITION"],
        &rows,
    ));
    for pipeline in &status.pipelines {
        let troubled = !matches!(pipeline.state.as_str(), "running" | "waiting" | "stopped");
        if let (true, Some(error)) = (troubled, &pipeline.last_error) {
            let ago = duration(micros(status.now_us - error.at_us));
            out.push_str(&format!("\n\n{} ({}, {ago} ago): {}", pipeline.name, error.fault, error.message));
            out.extend(error.hint.iter().map(|hint| format!("\n  fix: {hint}")));
        }
    }
    out
}

fn row(pipeline: &Pipeline, now_us: i64) -> Vec<String> {
    let since = duration(micros(now_us - pipeline.since_us));
    vec![
        pipeline.name.clone(),
        format!("{} {since}", pipeline.state),
        count(pipeline.events),
        count(pipeline.events_per_second.round() as u64),
        pipeline.freshness_seconds.map_or("-".into(), |s| duration(Duration::from_secs_f64(s))),
        count(pipeline.rejected),
        pipeline.position.as_deref().map_or("-".into(), shortened),
    ]
}

/// GTID sets can be long: the end of one says least.
fn shortened(position: &str) -> String {
    const LONGEST: usize = 60;
    match position.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &position[..cut]),
        None => position.to_owned(),
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_api::view::Trouble;

    #[test]
    fn the_table_says_where_each_pipeline_stands_and_what_to_do_about_trouble() {
        let pipeline = |name: &str, state: &str| Pipeline {
            name: name.into(),
            state: state.into(),
            since_us: 0,
            events: 1234,
            events_per_second: 99.6,
            bytes: 0,
            commits: 1,
            rejected: 0,
            errors: 1,
            watermark_us: Some(9_500_000),
            freshness_seconds: Some(0.5),
            position: None,
            set_aside: Vec::new(),
            warnings: Vec::new(),
            reading: Vec::new(),
            tables: Vec::new(),
            polls: Vec::new(),
            last_error: Some(Trouble {
                fault: "config".into(),
                message: "sinks.d.url: no such role".into(),
                hint: Some("create it".into()),
                at_us: 7_000_000,
            }),
        };
        let status = Status {
            version: "1.0.0".into(),
            prefix: "shop".into(),
            log: "embedded".into(),
            started_us: 0,
            now_us: 10_000_000,
            pipelines: vec![pipeline("capture/plex", "running"), pipeline("sink/d", "parked")],
        };
        let expected = "caudal 1.0.0 · prefix shop · log: embedded · up 10s

PIPELINE      STATE        EVENTS  EVENTS/S  BEHIND  REJECTED  POSITION
capture/plex  running 10s  1,234   100       500ms   0         -
sink/d        parked 10s   1,234   100       500ms   0         -

sink/d (config, 3s ago): sinks.d.url: no such role
  fix: create it";
        assert_eq!(text(&status), expected);
    }
}
