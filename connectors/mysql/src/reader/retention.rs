//! A warning before it is late: the server purges its log by age, and what is read is old.
//!
//! A server does not purge the file that a connected reader is in; a reader that lags is lost with its next disconnection, be it during
//! a snapshot, behind a slow sink or after a long stop.

use crate::client::{Client, row_text};
use caudal_core::Result;
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
}

impl Guard {
    /// For a server that keeps its log for so long.
    pub(crate) fn new(retention: Option<Duration>) -> Self {
        Self { retention, said: None }
    }

    /// Warns if half of the time is over. Both times are the source's, in microseconds since the epoch: now, and that up to which all
    /// was delivered.
    pub(crate) fn look(&mut self, source: &str, now_us: i64, delivered_us: i64) {
        let Some(left) = self.retention.and_then(|kept| left(kept, now_us, delivered_us)) else { return };
        if self.said.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        self.said = Some(Instant::now());
        tracing::warn!(
            source,
            hours_behind = format!("{:.1}", (now_us - delivered_us) as f64 / 3_600e6),
            hours_left = format!("{:.1}", left.as_secs_f64() / 3600.0),
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
    fn the_time_left_is_told_from_half_of_it_on() {
        let (kept, hour) = (Duration::from_secs(10 * 3600), 3_600_000_000);
        assert_eq!(left(kept, 4 * hour, 0), None);
        assert_eq!(left(kept, 7 * hour, 0), Some(Duration::from_secs(3 * 3600)));
        assert_eq!(left(kept, 70 * hour, 0), Some(Duration::ZERO));
        assert_eq!(left(kept, 0, hour), None, "a clock that was set back");
    }
}
