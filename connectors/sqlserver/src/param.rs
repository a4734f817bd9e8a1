//! Values that are bound, and never written into SQL.

use caudal_core::temporal::{MICROS_PER_DAY, days_from_civil};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use std::borrow::Cow;
use tiberius::time::{Date as TdsDate, DateTime2, DateTimeOffset, Time as TdsTime};
use tiberius::{ColumnData, ToSql};

/// Days from 0001-01-01 to 1970-01-01.
pub(crate) const EPOCH_DAYS: i64 = 719_162;

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Param {
    Text(String),
    Int(i64),
    Bytes(Vec<u8>),
    Date(Date),
    /// A clock's time.
    Clock(DateTime),
    Moment(Timestamp),
}

impl Param {
    /// The type that it is declared with.
    pub(crate) fn declared(&self) -> &'static str {
        match self {
            // As the driver declares them.
            Self::Text(text) if text.len() > 4000 => "nvarchar(max)",
            Self::Text(_) => "nvarchar(4000)",
            Self::Int(_) => "bigint",
            Self::Bytes(_) => "varbinary(8000)",
            Self::Date(_) => "date",
            Self::Clock(_) => "datetime2",
            Self::Moment(_) => "datetimeoffset",
        }
    }
}

/// As `sp_executesql` and the description of a query want them: `@P1 nvarchar(4000),@P2 date`.
pub(crate) fn declarations(params: &[Param]) -> String {
    let one = |(i, param): (usize, &Param)| format!("@P{} {}", i + 1, param.declared());
    params.iter().enumerate().map(one).collect::<Vec<_>>().join(",")
}

impl ToSql for Param {
    fn to_sql(&self) -> ColumnData<'_> {
        match self {
            Self::Text(text) => ColumnData::String(Some(Cow::Borrowed(text))),
            Self::Int(n) => ColumnData::I64(Some(*n)),
            Self::Bytes(bytes) => ColumnData::Binary(Some(Cow::Borrowed(bytes))),
            Self::Date(date) => ColumnData::Date(Some(days(*date))),
            Self::Clock(at) => ColumnData::DateTime2(Some(clock(*at))),
            Self::Moment(at) => {
                let utc = jiff::tz::TimeZone::UTC.to_datetime(*at);
                ColumnData::DateTimeOffset(Some(DateTimeOffset::new(clock(utc), 0)))
            }
        }
    }
}

fn days(date: Date) -> TdsDate {
    let since = days_from_civil(
        date.year().into(),
        date.month().unsigned_abs().into(),
        date.day().unsigned_abs().into(),
    );
    // Years 1 to 9999 are what both know.
    TdsDate::new(since.map_or(0, |days| days + EPOCH_DAYS).clamp(0, 3_652_058) as u32)
}

fn clock(at: DateTime) -> DateTime2 {
    let ticks = at.time().duration_since(Time::midnight()).as_nanos() / 100;
    DateTime2::new(days(at.date()), TdsTime::new(ticks.clamp(0, 863_999_999_999) as u64, 7))
}

/// Microseconds since 1970-01-01 00:00:00 of a clock as that clock's time.
pub(crate) fn clock_of(micros: i64) -> Option<DateTime> {
    let at = Timestamp::from_microsecond(micros).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_datetime(at))
}

/// The day of a number of days since 1970-01-01.
pub(crate) fn day_of(days: i64) -> Option<Date> {
    clock_of(days.checked_mul(MICROS_PER_DAY)?).map(DateTime::date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bound_as_the_server_counts_them() {
        let at = jiff::civil::date(1970, 1, 2).at(0, 0, 1, 500);
        let ColumnData::DateTime2(Some(bound)) = Param::Clock(at).to_sql() else { panic!("datetime2") };
        assert_eq!(
            (bound.date().days(), bound.time().increments(), bound.time().scale()),
            (719_163, 10_000_005, 7)
        );
        let ColumnData::Date(Some(bound)) = Param::Date(jiff::civil::date(9999, 12, 31)).to_sql() else {
            panic!("date")
        };
        assert_eq!(bound.days(), 3_652_058);
        assert_eq!(day_of(1), Some(jiff::civil::date(1970, 1, 2)));
        assert_eq!(declarations(&[Param::Int(1), Param::Text("x".into())]), "@P1 bigint,@P2 nvarchar(4000)");
    }
}
