//! What a command asks of a run beside that it begins now.

use crate::{Job, Mode};
use caudal_core::quantity::DurationText;
use std::sync::Arc;
use std::time::Duration;

/// How a run differs from what is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// All rows are read, and all go out again.
    force: bool,
    /// Nothing goes out and nothing is remembered: what would change is counted.
    pub(crate) dry: bool,
    /// How far back a window reaches.
    lookback: Option<Duration>,
}

impl Asked {
    /// From a command's conditions: `force`, `dry-run`, `lookback 7d`. None for one that is none of these.
    pub(crate) fn parse<'a>(conditions: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut asked = Self::default();
        for condition in conditions {
            match condition.trim() {
                "force" => asked.force = true,
                "dry-run" => asked.dry = true,
                other => {
                    let text = other.strip_prefix("lookback ")?;
                    asked.lookback = Some(text.trim().parse::<DurationText>().ok()?.get());
                }
            }
        }
        Some(asked)
    }

    /// The job as this run has it.
    pub(crate) fn job(&self, job: &Arc<Job>) -> Arc<Job> {
        let mode = match (&job.mode, self.force, self.lookback) {
            (_, true, _) => Mode::Force,
            (Mode::SlidingWindow { column, .. }, _, Some(lookback)) => {
                Mode::SlidingWindow { column: column.clone(), lookback }
            }
            (Mode::Incremental { column, .. }, _, Some(overlap)) => {
                Mode::Incremental { column: column.clone(), overlap }
            }
            _ => return Arc::clone(job),
        };
        Arc::new(Job { mode, ..job.as_ref().clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_how_a_run_differs() {
        let asked = |all: &[&str]| Asked::parse(all.iter().copied());
        assert_eq!(asked(&[]), Some(Asked::default()));
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(
            asked(&["dry-run", "lookback 1d"]),
            Some(Asked { force: false, dry: true, lookback: day })
        );
        assert_eq!(asked(&["id = 7"]), None);
        assert_eq!(asked(&["lookback x"]), None);
    }
}
