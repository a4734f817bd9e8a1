//! Settings of a topic: names and meanings as in Kafka, values checked when they are set.

use crate::storage::{CompactionRules, Retention, TopicRules};
use std::collections::BTreeMap;

/// Settings as written, by name.
pub(crate) type Settings = BTreeMap<String, String>;

/// What values a setting takes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Policy,
    /// Whole number at or above the least.
    Number {
        least: i64,
    },
    OneOf(&'static [&'static str]),
    /// A share between 0 and 1.
    Share,
}

/// One setting that topics have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    kind: Kind,
}

const fn setting(name: &'static str, default: &'static str, kind: Kind) -> Setting {
    Setting { name, default, kind }
}

/// All settings that are known. Those that only matter with replicas are accepted, so that scripts written for Kafka run.
pub(crate) const SETTINGS: &[Setting] = &[
    setting("cleanup.policy", "delete", Kind::Policy),
    setting(
        "compression.type",
        "producer",
        Kind::OneOf(&["producer", "uncompressed", "none", "gzip", "snappy", "lz4", "zstd"]),
    ),
    setting("delete.retention.ms", "86400000", Kind::Number { least: 0 }),
    setting("file.delete.delay.ms", "60000", Kind::Number { least: 0 }),
    setting("flush.messages", "1", Kind::Number { least: 1 }),
    setting("flush.ms", "9223372036854775807", Kind::Number { least: 0 }),
    setting("index.interval.bytes", "131072", Kind::Number { least: 0 }),
    setting("max.compaction.lag.ms", "9223372036854775807", Kind::Number { least: 1 }),
    setting("max.message.bytes", "16777216", Kind::Number { least: 0 }),
    setting("message.timestamp.type", "CreateTime", Kind::OneOf(&["CreateTime", "LogAppendTime"])),
    setting("min.cleanable.dirty.ratio", "0.5", Kind::Share),
    setting("min.compaction.lag.ms", "0", Kind::Number { least: 0 }),
    setting("min.insync.replicas", "1", Kind::Number { least: 1 }),
    setting("preallocate", "false", Kind::OneOf(&["false", "true"])),
    setting("retention.bytes", "-1", Kind::Number { least: -1 }),
    setting("retention.ms", "604800000", Kind::Number { least: -1 }),
    setting("segment.bytes", "134217728", Kind::Number { least: 1024 }),
    setting("segment.index.bytes", "10485760", Kind::Number { least: 4 }),
    setting("segment.jitter.ms", "0", Kind::Number { least: 0 }),
    setting("segment.ms", "604800000", Kind::Number { least: 1 }),
    setting("unclean.leader.election.enable", "false", Kind::OneOf(&["false", "true"])),
];

/// Checks a setting.
///
/// # Errors
/// What is wrong, for the client.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    let Some(setting) = SETTINGS.iter().find(|s| s.name == name) else {
        return Err(format!("unknown topic setting '{name}'"));
    };
    let good = match setting.kind {
        Kind::Policy => {
            !value.is_empty() && value.split(',').all(|p| matches!(p.trim(), "delete" | "compact"))
        }
        Kind::Number { least } => value.parse::<i64>().is_ok_and(|n| n >= least),
        Kind::OneOf(values) => values.contains(&value),
        Kind::Share => value.parse::<f64>().is_ok_and(|share| (0.0..=1.0).contains(&share)),
    };
    if good { Ok(()) } else { Err(format!("invalid value '{value}' for '{name}'")) }
}

/// Settings of one topic, understood.
#[derive(Clone, Debug)]
pub(crate) struct TopicConfig {
    pub(crate) settings: Settings,
    pub(crate) compacted: bool,
    pub(crate) deleted: bool,
    pub(crate) retention: Retention,
    min_compaction_lag_ms: i64,
    delete_retention_ms: i64,
    dirty_share: f64,
    pub(crate) rules: TopicRules,
}

impl TopicConfig {
    /// From settings that were checked.
    pub(crate) fn new(settings: Settings, segment_bytes: u64) -> TopicConfig {
        let number = |name| value(&settings, name).parse::<i64>().unwrap_or(0);
        let policy = value(&settings, "cleanup.policy");
        let compacted = policy.contains("compact");
        let segment_bytes = match settings.get("segment.bytes").and_then(|v| v.parse().ok()) {
            Some(bytes) => bytes,
            None => segment_bytes,
        };
        let rules = TopicRules {
            segment_bytes,
            max_message_bytes: number("max.message.bytes") as usize,
            compacted,
            log_append_time: value(&settings, "message.timestamp.type") == "LogAppendTime",
        };
        let unless_all = |n: i64| (n >= 0).then_some(n);
        TopicConfig {
            compacted,
            deleted: policy.contains("delete"),
            retention: Retention {
                ms: unless_all(number("retention.ms")),
                bytes: unless_all(number("retention.bytes")).map(|n| n as u64),
                segment_ms: number("segment.ms"),
            },
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            delete_retention_ms: number("delete.retention.ms"),
            dirty_share: value(&settings, "min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            rules,
            settings,
        }
    }
}

impl TopicConfig {
    /// What compaction is to keep, with that much memory.
    pub(crate) fn compaction(&self, buffer_bytes: usize) -> CompactionRules {
        CompactionRules {
            min_lag_ms: self.min_compaction_lag_ms,
            delete_retention_ms: self.delete_retention_ms,
            segment_ms: self.retention.segment_ms,
            dirty_share: self.dirty_share,
            buffer_bytes,
        }
    }
}

fn value<'a>(settings: &'a Settings, name: &str) -> &'a str {
    let default = || SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default);
    settings.get(name).map_or_else(default, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid() {
        for setting in SETTINGS {
            check(setting.name, setting.default).unwrap();
        }
    }

    #[test]
    fn unknown_names_and_wrong_values_are_named() {
        assert!(check("retention.msec", "1").unwrap_err().contains("retention.msec"));
        assert!(check("retention.ms", "soon").unwrap_err().contains("soon"));
        assert!(check("cleanup.policy", "compact,delete").is_ok());
        assert!(check("cleanup.policy", "").is_err());
    }
}
