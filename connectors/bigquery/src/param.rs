//! Values that are bound, and never written into SQL.

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

/// A value of a parameter: its type as GoogleSQL names it, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) ty: String,
    pub(crate) value: String,
}

impl Param {
    pub(crate) fn text(value: impl Into<String>) -> Self {
        Self { ty: "STRING".to_owned(), value: value.into() }
    }

    pub(crate) fn int(value: i64) -> Self {
        Self { ty: "INT64".to_owned(), value: value.to_string() }
    }

    pub(crate) fn date(date: Date) -> Self {
        Self { ty: "DATE".to_owned(), value: date.strftime("%Y-%m-%d").to_string() }
    }

    pub(crate) fn clock(at: DateTime) -> Self {
        Self { ty: "DATETIME".to_owned(), value: at.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string() }
    }

    pub(crate) fn moment(at: Timestamp) -> Self {
        let utc = TimeZone::UTC.to_datetime(at);
        Self { ty: "TIMESTAMP".to_owned(), value: utc.strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string() }
    }
}

/// The name of the n-th parameter, from 1.
pub(crate) fn name(n: usize) -> String {
    format!("caudal_{n}")
}

/// As `queryParameters` of a request.
pub(crate) fn written(params: &[Param]) -> Value {
    let one = |(i, param): (usize, &Param)| {
        json!({
            "name": name(i + 1),
            "parameterType": { "type": param.ty },
            "parameterValue": { "value": param.value },
        })
    };
    params.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bound_to_the_microsecond() {
        let at: Timestamp = "2026-03-01T10:00:00.000005Z".parse().unwrap();
        assert_eq!(Param::moment(at).value, "2026-03-01 10:00:00.000005+00:00");
        assert_eq!(
            Param::clock(jiff::civil::date(1, 1, 1).at(0, 0, 0, 0)).value,
            "0001-01-01T00:00:00.000000"
        );
    }
}
