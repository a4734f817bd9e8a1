//! `--from`: a day, a moment or an offset.

use caudal_control::config::Problem;
use caudal_core::LogPosition;
use caudal_kafka::{HeldTable, Log};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::super::exit::Failure;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Milliseconds since the epoch, UTC.
    Time(i64),
    Offset(i64),
}

fn parsed(text: &str) -> Option<From> {
    if let Ok(offset) = text.parse::<u32>() {
        return Some(From::Offset(i64::from(offset)));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(From::Time(at.as_millisecond()));
    }
    // A day alone is its midnight.
    let at = text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(From::Time(at.timestamp().as_millisecond()))
}

/// Where a table's partitions are read from; none without `--from`.
pub(super) async fn start(
    log: &Log,
    table: &HeldTable,
    from: Option<&str>,
) -> Result<Option<LogPosition>, Failure> {
    let Some(text) = from else { return Ok(None) };
    let wrong = |message: String| Problem::new("--from", message);
    match parsed(text) {
        Some(From::Time(ms)) => Ok(Some(log.offsets_at(table, ms).await?)),
        Some(From::Offset(offset)) if table.partitions == 1 => {
            Ok(Some(LogPosition { offsets: vec![table.offset(0, offset)] }))
        }
        Some(From::Offset(_)) => Err(wrong(format!(
            "{} has {} partitions, each with offsets of its own",
            table.topic, table.partitions
        ))
        .fix("give a date")
        .into()),
        None => Err(wrong(format!("{text} is neither a date nor an offset"))
            .fix("2026-11-01, 2026-11-01T08:30:00Z or 4711")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_moments_and_offsets_are_told_apart() {
        assert_eq!(parsed("2026-11-01"), Some(From::Time(1_793_491_200_000)));
        assert_eq!(parsed("2026-11-01T00:00:01Z"), Some(From::Time(1_793_491_201_000)));
        assert_eq!(parsed("2026-11-01T00:00:01"), Some(From::Time(1_793_491_201_000)));
        assert_eq!(parsed("4711"), Some(From::Offset(4711)));
        assert_eq!(parsed("yesterday"), None);
    }
}
