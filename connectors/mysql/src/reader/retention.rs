//! A warning before it is late: the server purges its log by age, and what is read is old.
//!
//! A server does not purge the file that a connected reader is in; a reader that lags is lost with its next disconnection, be it during
//! a snapshot, behind a slow sink or after a long stop.

use crate::client::{Client, row_text};
use caudal_core::{Result, Warning};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said.
const AGAIN: Duration = Duration::from_secs(600);

/// How long the server keeps its log; none: until it is purged by hand.
///
/// # Errors
/// As for SQL.
pub(crate) async fn of(sql: &mut Client) -> Result<Option<Duration>> {
    let statement =
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds','expire_logs_days')";
    let rows = sql.rows("ask how long binlogs are kept", statement).await?;
    let value = |name: &str| {
        let row = rows.iter().find(|r| row_text(r, 0).is_some_and(|n| n.eq_ignore_ascii_case(name)));
        row.and_then(|r| row_text(r, 1)?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let seconds = match value("binlog_expire_logs_seconds") {
        0.0 => value("expire_logs_days") * 86_400.0,
        seconds => seconds,
    };
    Ok((seconds > 0.0).then(|| Duration::from_secs_f64(seconds)))
}

/// Looks at how old the place is that is read.
pub(crate) struct Guard {
    retention: Option<Duration>,
    said: Option<Instant>,
    shown: Shown,
}

/// Where everybody sees the warning, as long as it holds. Outlives the reader.
pub(crate) type Shown = Arc<Mutex<Option<Warning>>>;

impl Guard {
    /// For a server that keeps its log for so long.
    pub(crate) fn new(retention: Option<Duration>, shown: Shown) -> Self {
        Self { retention, said: None, shown }
    }

    fn show(&self, warning: Option<Warning>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = warning;
    }

    /// Warns if half of the time is over. Both times are the source's, in microseconds since the epoch: now, and that up to which all
    /// was delivered.
    pub(crate) fn look(&mut self, source: &str, now_us: i64, delivered_us: i64) {
        let Some(left) = self.retention.and_then(|kept| left(kept, now_us, delivered_us)) else {
            return self.show(None);
        };
        let (behind, hours) = ((now_us - delivered_us) as f64 / 3_600e6, left.as_secs_f64() / 3600.0);
        self.show(Some(Warning {
            kind: "binlog_purge".to_owned(),
            message: format!("what is read is {behind:.1} hours old, and the server purges its binlog in {hours:.1} hours: cut off later than that, the place is lost"),
            hint: "raise binlog_expire_logs_seconds, or make room downstream".to_owned(),
        }));
        if self.said.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        self.said = Some(Instant::now());
        tracing::warn!(
            source,
            hours_behind = format!("{behind:.1}"),
            hours_left = format!("{hours:.1}"),
            "the server purges its binlog by age, and what is read is old: if this reader is cut off later than in the hours left, its place is lost; \
             raise binlog_expire_logs_seconds, or make room downstream"
        );
    }
}

/// The time until what is read now may be purged, once that is less than half of what it was.
fn left(kept: Duration, now_us: i64, delivered_us: i64) -> Option<Duration> {
    let age = Duration::from_micros(u64::try_from(now_us - delivered_us).ok()?);
    let left = kept.saturating_sub(age);
    (left < kept / 2).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_is_shown_as_long_as_it_holds() {
        let (shown, hour) = (Shown::default(), 3_600_000_000);
        let mut guard = Guard::new(Some(Duration::from_secs(10 * 3600)), Arc::clone(&shown));
        let message = || shown.lock().unwrap().as_ref().map(|warning| warning.message.clone());
        guard.look("s", 7 * hour, 0);
        assert!(message().is_some_and(|m| m.contains("7.0 hours old") && m.contains("in 3.0 hours")));
        guard.look("s", 7 * hour, 6 * hour);
        assert_eq!(message(), None);
    }

    #[test]
    fn the_time_left_is_told_from_half_of_it_on() {
        let (kept, hour) = (Duration::from_secs(10 * 3600), 3_600_000_000);
        assert_eq!(left(kept, 4 * hour, 0), None);
        assert_eq!(left(kept, 7 * hour, 0), Some(Duration::from_secs(3 * 3600)));
        assert_eq!(left(kept, 70 * hour, 0), Some(Duration::ZERO));
        assert_eq!(left(kept, 0, hour), None, "a clock that was set back");
    }
}
