//! Metrics of what captures read beside their streams. Only what is going on has series, so that they do not grow in number.

use caudal_core::{Phase, Progress};
use std::fmt::Write;

/// Appends the series of all pipelines: (name, what it reads).
pub(crate) fn expose(out: &mut String, pipelines: &[(&str, Vec<Progress>)]) {
    let ended = |p: &Progress| matches!(p.phase, Phase::Done | Phase::Stopped | Phase::Refused);
    let all = pipelines.iter().flat_map(|(name, reading)| reading.iter().map(move |p| (*name, p)));
    let current: Vec<(&str, &Progress)> = all.filter(|(_, p)| !ended(p)).collect();
    if current.is_empty() {
        return;
    }
    let mut gauge = |name: &str, help: &str, value: fn(&Progress) -> Option<u64>| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (pipeline, progress) in &current {
            if let Some(value) = value(progress) {
                let table = progress.table.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = writeln!(out, "{name}{{pipeline=\"{pipeline}\",table=\"{table}\"}} {value}");
            }
        }
    };
    gauge("caudal_snapshot_rows", "Rows read so far", |p| Some(p.rows));
    gauge("caudal_snapshot_estimated_rows", "Rows as the source estimates", |p| Some(p.estimated_rows));
    gauge("caudal_snapshot_seconds_left", "Until it is done, estimated", |p| p.seconds_left);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_going_on_has_series() {
        let progress = |table: &str, phase| Progress {
            id: String::new(),
            reason: "snapshot".into(),
            table: table.into(),
            phase,
            rows: 5,
            delivered: 5,
            deleted: 0,
            bytes: 0,
            estimated_rows: 10,
            rows_per_second: 1,
            seconds_left: None,
        };
        let mut out = String::new();
        let reading = vec![progress("a\"b", Phase::Reading), progress("c", Phase::Done)];
        expose(&mut out, &[("capture/p", reading)]);
        assert!(out.contains("caudal_snapshot_rows{pipeline=\"capture/p\",table=\"a\\\"b\"} 5"), "{out}");
        assert!(!out.contains("table=\"c\""));
    }
}
