//! ISO-8601 instants in UTC, as the wire format writes timestamps: `2024-01-02T03:04:05.12Z`.

use caudal_core::temporal::{MICROS_PER_DAY, days_from_civil};

/// Microseconds since the epoch; none for any text of another form, or that is no moment of the calendar.
pub(super) fn micros(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (year, month, day) = (date.get(..4)?, date.get(5..7)?, date.get(8..)?);
    let (hour, minute, second) = (time.get(..2)?, time.get(3..5)?, time.get(6..8)?);
    let separators = [date.as_bytes()[4], date.as_bytes()[7], time.as_bytes()[2], time.as_bytes()[5]];
    if separators != *b"--::" || day.len() != 2 {
        return None;
    }
    let days = days_from_civil(digits(year)? as i32, digits(month)? as u32, digits(day)? as u32)?;
    let (hour, minute, second) = (digits(hour)?, digits(minute)?, digits(second)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = hour * 3_600 + minute * 60 + second;
    Some(days * MICROS_PER_DAY + seconds * 1_000_000 + fraction(time.get(8..)?)?)
}

/// `.` and one to six digits, or nothing.
fn fraction(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let text = text.strip_prefix('.')?;
    if text.is_empty() || text.len() > 6 {
        return None;
    }
    Some(digits(text)? * 10_i64.pow(6 - text.len() as u32))
}

fn digits(text: &str) -> Option<i64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_to_the_microsecond() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("1970-01-02T00:00:01.5Z"), Some(MICROS_PER_DAY + 1_500_000));
        assert_eq!(micros("2024-02-29T23:59:59.000001Z"), Some(1_709_251_199_000_001));
    }

    #[test]
    fn what_is_no_instant_is_none() {
        for text in [
            "0000-00-00 00:00:00",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "",
            "Z",
            "TZ",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.1234567Z",
            "éééé-01-01T00:00:00Z",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
    }
}
