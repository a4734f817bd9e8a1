//! Durations (`5s`, `1h30m`) and sizes (`8MiB`) as people write them in a configuration.
//!
//! Parsing and display are inverse: what is displayed parses to the same value. Numbers are whole; `1.5h` is `1h30m`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Largest first; the microseconds of each.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Largest first; the bytes of each. Decimal units are read too, but never displayed.
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DECIMAL_SIZE_UNITS: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

/// Why a text is no duration or size. The message says what is expected; it quotes the text, so secrets have no place here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError(String);

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for QuantityError {}

/// Reads a duration: whole numbers, each with a unit of `us ms s m h d w`, largest first (`500ms`, `7d`, `1h30m`).
///
/// # Errors
/// If it is none, or longer than 500,000 years.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let wrong = || {
        QuantityError(format!(
            "`{text}` is no duration; write a number with a unit, like 500ms, 5s, 10m or 7d"
        ))
    };
    let mut rest = text.trim();
    let mut total: u64 = 0;
    let mut last = u64::MAX;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(wrong)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let &(_, micros) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        if micros >= last {
            return Err(wrong());
        }
        last = micros;
        total = number.checked_mul(micros).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after;
    }
    Ok(Duration::from_micros(total))
}

/// Reads a size in bytes: a whole number with a unit of `B KiB MiB GiB TiB` (or `kB MB GB TB`, powers of 1000). A bare number is bytes.
///
/// # Errors
/// If it is none, or more than 2^64 - 1 bytes.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let wrong = || {
        QuantityError(format!("`{text}` is no size; write a number with a unit, like 64KiB, 8MiB or 2GiB"))
    };
    let (number, unit) = leading_number(text.trim()).ok_or_else(wrong)?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Ok(number);
    }
    let &(_, bytes) = SIZE_UNITS
        .iter()
        .chain(&DECIMAL_SIZE_UNITS)
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .ok_or_else(wrong)?;
    number.checked_mul(bytes).ok_or_else(wrong)
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

/// A duration in a configuration: `5s`. Resolution: one microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationText(pub Duration);

impl DurationText {
    /// Of whole seconds: for defaults.
    #[must_use]
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Of whole milliseconds: for defaults.
    #[must_use]
    pub const fn millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for DurationText {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse_duration(text).map(Self)
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, micros) in DURATION_UNITS {
            if rest >= micros {
                write!(f, "{}{name}", rest / micros)?;
                rest %= micros;
            }
        }
        Ok(())
    }
}

/// A size in bytes in a configuration: `8MiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeText(pub u64);

impl SizeText {
    /// Of whole KiB: for defaults.
    #[must_use]
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// Of whole MiB: for defaults.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for SizeText {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse_size(text).map(Self)
    }
}

impl fmt::Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |&&(_, bytes): &&(&str, u64)| self.0 >= bytes && self.0.is_multiple_of(bytes);
        match SIZE_UNITS.iter().find(exact) {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => f.write_str("0B"),
        }
    }
}

struct QuantityVisitor<T> {
    expecting: &'static str,
    bare: fn(u64) -> Result<T, QuantityError>,
}

impl<T: FromStr<Err = QuantityError>> de::Visitor<'_> for QuantityVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.bare)(number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor::<Self> {
            expecting: "a duration like 5s",
            bare: |number| number.to_string().parse(),
        })
    }
}

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor::<Self> {
            expecting: "a size like 8MiB",
            bare: |number| Ok(Self(number)),
        })
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for SizeText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A duration: 500ms, 5s, 10m, 1h30m, 7d.",
            "pattern": "^([0-9]+(us|ms|s|m|h|d|w))+$",
            "examples": ["5s"],
        })
    }
}

impl JsonSchema for SizeText {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A size: 64KiB, 8MiB, 2GiB; a bare number is bytes.",
            "pattern": "^[0-9]+ *([kKmMgGtT]?[iI]?[bB])?$",
            "minimum": 0,
            "examples": ["8MiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, expected) in [
            ("500ms", Duration::from_millis(500)),
            ("5s", Duration::from_secs(5)),
            (" 10m ", Duration::from_secs(600)),
            ("1h30m", Duration::from_secs(5400)),
            ("7d", Duration::from_secs(604_800)),
            ("0s", Duration::ZERO),
            ("1s250ms", Duration::from_millis(1250)),
        ] {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "5", "s", "5 s", "1.5h", "-1s", "5sec", "30m1h", "1m1m", "99999999999999w"] {
            let error = parse_duration(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("`{text}` is no duration")), "{error}");
            assert!(error.contains("5s"), "{error}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, expected) in [
            ("8MiB", 8 << 20),
            ("64 KiB", 64 << 10),
            ("2GiB", 2 << 30),
            ("1mb", 1_000_000),
            ("10kB", 10_000),
            ("512", 512),
            ("512B", 512),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "MiB", "8 mebi", "1.5MiB", "-1", "99999999999999TiB"] {
            let error = parse_size(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("`{text}` is no size")), "{error}");
        }
    }

    #[test]
    fn display_parses_back_to_the_same_value() {
        for micros in [0, 1, 999, 1_000, 1_500_000, 90_000_000, 86_400_000_000, 694_861_001_001] {
            let value = DurationText(Duration::from_micros(micros));
            assert_eq!(value.to_string().parse(), Ok(value), "{value}");
        }
        for bytes in [0, 1, 1023, 1024, 1025, 8 << 20, 3 << 30, u64::MAX] {
            let value = SizeText(bytes);
            assert_eq!(value.to_string().parse(), Ok(value), "{value}");
        }
        assert_eq!(DurationText::secs(5400).to_string(), "1h30m");
        assert_eq!(SizeText::mib(8).to_string(), "8MiB");
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_and_a_size_without_one_is_bytes() {
        let error = serde_json::from_str::<DurationText>("5").expect_err("no unit").to_string();
        assert!(error.starts_with("`5` is no duration"), "{error}");
        assert_eq!(serde_json::from_str::<SizeText>("512").ok(), Some(SizeText(512)));
        assert_eq!(serde_json::from_str::<SizeText>("\"1KiB\"").ok(), Some(SizeText(1024)));
        assert_eq!(serde_json::to_string(&DurationText::secs(5)).ok().as_deref(), Some("\"5s\""));
    }
}
