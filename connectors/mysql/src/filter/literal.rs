//! Literals, and how they are read as moments.

use super::number::Number;
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days, days_in_month};

/// What stands on the right.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    /// `-12.50`
    Number(Number),
    /// `'text'`
    Text(String),
    /// `X'00ff'`
    Bytes(Vec<u8>),
    /// `TRUE`, `FALSE`
    Bool(bool),
}

/// A calendar moment as digits of fixed places, so that its order is that of numbers, also for what is no day of the
/// calendar (`0000-00-00`, `2024-02-00`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(i128);

impl Moment {
    fn new(date: [i64; 3], time: [i64; 3], micros: i64) -> Self {
        let [y, mo, d] = date.map(i128::from);
        let [h, mi, s] = time.map(i128::from);
        Self((((((y * 100 + mo) * 100 + d) * 100 + h) * 100 + mi) * 100 + s) * 1_000_000 + i128::from(micros))
    }

    /// From microseconds since the epoch.
    pub(super) fn from_micros(micros: i64) -> Self {
        let (days, within) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
        let (y, mo, d) = civil_from_days(days);
        let seconds = within / 1_000_000;
        Self::new(
            [y, mo.into(), d.into()],
            [seconds / 3600, seconds / 60 % 60, seconds % 60],
            within % 1_000_000,
        )
    }

    /// From days since the epoch.
    pub(super) fn from_days(days: i64) -> Self {
        let (y, mo, d) = civil_from_days(days);
        Self::new([y, mo.into(), d.into()], [0; 3], 0)
    }

    /// From text as the server writes it: `2024-01-31`, `2024-01-31 23:59:59.5`. Any digits, so zero dates too.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
        let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
        Some(Self::new(parts(date, '-', [4, 2, 2])?, parts(time, ':', [2, 2, 2])?, micros(fraction)?))
    }

    /// Whether its parts can be those of a stored value: zero months and days can.
    pub(super) fn is_storable(self) -> bool {
        let part = |place: i128, of: i128| self.0 / place % of;
        let seconds = 1_000_000;
        let (day, month) = (part(seconds * 1_000_000, 100), part(seconds * 100_000_000, 100));
        let year = self.0 / (seconds * 10_000_000_000);
        let longest = if month == 0 { 31 } else { days_in_month(year as i32, month as u32) };
        month <= 12
            && day <= i128::from(longest)
            && part(seconds * 10_000, 100) < 24
            && part(seconds * 100, 100) < 60
            && part(seconds, 100) < 60
    }

    /// As the server writes a DATE.
    pub(super) fn date_text(self) -> String {
        self.text(0)[..10].to_owned()
    }

    /// Whether it has no time of day.
    pub(super) fn is_date(self) -> bool {
        self.0 % 1_000_000_000_000 == 0
    }

    /// As the server writes a DATETIME with so many fraction digits; with more if the value has more.
    pub(super) fn text(self, precision: u8) -> String {
        let part = |place: i128| self.0 / 1_000_000 / place % 100;
        let micros = format!("{:06}", self.0 % 1_000_000);
        let digits = micros.trim_end_matches('0').len().max(usize::from(precision).min(6));
        let fraction = if digits == 0 { String::new() } else { format!(".{}", &micros[..digits]) };
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{fraction}",
            self.0 / 10_000_000_000_000_000,
            part(100_000_000),
            part(1_000_000),
            part(10_000),
            part(100),
            part(1),
        )
    }
}

/// A duration, `-838:59:59.5`, in microseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (time, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (hours, rest) = time.split_once(':')?;
    let hours: i64 = digits(hours, 1..=3)?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (minutes, seconds) = (digits(minutes, 2..=2)?, digits(seconds, 2..=2)?);
    let value = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros(fraction)?;
    let fits = hours <= 838 && minutes < 60 && seconds < 60;
    fits.then_some(if negative { -value } else { value })
}

/// A duration as the number that the server makes of a TIME: `hhmmss.ffffff`.
pub(super) fn duration_number(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let seconds = micros.abs() / 1_000_000;
    let number = (seconds / 3600 * 100 + seconds / 60 % 60) * 100 + seconds % 60;
    format!("{sign}{number}.{:06}", micros.abs() % 1_000_000)
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let fits = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

fn parts(text: &str, between: char, lengths: [usize; 3]) -> Option<[i64; 3]> {
    let mut out = [0; 3];
    let mut texts = text.split(between);
    for (slot, length) in out.iter_mut().zip(lengths) {
        *slot = digits(texts.next()?, length..=length)?;
    }
    texts.next().is_none().then_some(out)
}

fn micros(fraction: &str) -> Option<i64> {
    match fraction.len() {
        0 => Some(0),
        n @ 1..=6 => Some(digits(fraction, n..=n)? * 10_i64.pow(6 - n as u32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_ordered_and_written_as_the_server_does() {
        let ordered = [
            "0000-00-00 00:00:00",
            "2024-00-31 00:00:00",
            "2024-02-00 00:00:00",
            "2024-02-29 23:59:59",
            "2024-02-29 23:59:59.000001",
            "2024-02-29 23:59:59.1",
            "9999-12-31 00:00:00",
        ];
        for pair in ordered.windows(2) {
            assert!(Moment::parse(pair[0]).unwrap() < Moment::parse(pair[1]).unwrap(), "{pair:?}");
        }
        for text in ordered {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.text(0), text);
            assert!(moment.is_storable(), "{text}");
        }
        assert_eq!(Moment::parse("2024-02-29").unwrap().date_text(), "2024-02-29");
        assert_eq!(Moment::parse("2024-02-29 00:00:00.5").unwrap().text(3), "2024-02-29 00:00:00.500");
        let day = caudal_core::temporal::days_from_civil(2024, 2, 29).unwrap();
        assert_eq!(Moment::from_days(day), Moment::parse("2024-02-29").unwrap());
        let micros = day * MICROS_PER_DAY + 86_399_000_001;
        assert_eq!(Moment::from_micros(micros), Moment::parse("2024-02-29 23:59:59.000001").unwrap());
        assert!(
            ["2024-2-29", "24-02-29", "2024-02-29 1:00:00", "2024-02-29 00:00:00.1234567", "x"]
                .iter()
                .all(|t| Moment::parse(t).is_none())
        );
        assert!(!Moment::parse("2023-02-29").unwrap().is_storable());
        assert!(!Moment::parse("2023-02-01 24:00:00").unwrap().is_storable());
    }

    #[test]
    fn durations_are_read_and_written_as_numbers() {
        assert_eq!(duration("-838:59:59.5").map(duration_number).as_deref(), Some("-8385959.500000"));
        assert_eq!(duration("00:00:01").map(duration_number).as_deref(), Some("1.000000"));
        assert!(["1", "1:2:3", "839:00:00", "00:60:00", "1 00:00:00"].iter().all(|t| duration(t).is_none()));
    }
}
