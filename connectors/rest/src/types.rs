//! Types of fields: as declared, as inferred, and how a JSON value becomes a cell of one.

use caudal_core::temporal::{MICROS_PER_DAY, days_from_civil};
use caudal_core::{BatchBuilder, Cell, ColumnType};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// Reads a type as it is written: `text`, `integer`, `number`, `decimal(12,2)`, `boolean`, `date`, `datetime`, `timestamp`, `time`, `uuid`, `json`.
pub(crate) fn parse(text: &str) -> Option<ColumnType> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix("decimal(").and_then(|t| t.strip_suffix(')')) {
        let (precision, scale) = inner.split_once(',')?;
        let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
        return (1..=65)
            .contains(&precision)
            .then_some(ColumnType::Decimal { precision, scale })
            .filter(|_| scale <= precision);
    }
    Some(match text {
        "text" => ColumnType::Text { max_chars: None },
        "integer" => ColumnType::Int { bits: 64 },
        "number" => ColumnType::Float64,
        "boolean" => ColumnType::Bool,
        "date" => ColumnType::Date,
        "datetime" => ColumnType::DateTime { precision: 6 },
        "timestamp" => ColumnType::Timestamp { precision: 6 },
        "time" => ColumnType::Time { precision: 6 },
        "uuid" => ColumnType::Uuid,
        "json" => ColumnType::Json,
        _ => return None,
    })
}

/// A type's name, as it is written.
pub(crate) fn name(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Text { .. } => "text".into(),
        ColumnType::Int { .. } => "integer".into(),
        ColumnType::Float64 => "number".into(),
        ColumnType::Bool => "boolean".into(),
        ColumnType::Date => "date".into(),
        ColumnType::DateTime { .. } => "datetime".into(),
        ColumnType::Timestamp { .. } => "timestamp".into(),
        ColumnType::Time { .. } => "time".into(),
        ColumnType::Uuid => "uuid".into(),
        ColumnType::Json => "json".into(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// What a value is, for the finding that it does not fit.
pub(crate) fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "text",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ if json.contains(['.', 'e', 'E']) => "a number with a fraction",
        _ => "a whole number",
    }
}

/// The type that a value has by itself; none for null. `was`: what the field's earlier values gave.
pub(crate) fn infer(json: &str, was: Option<&ColumnType>) -> Option<ColumnType> {
    let now = match json.as_bytes().first()? {
        b'n' => return was.cloned(),
        b'"' => ColumnType::Text { max_chars: None },
        b'{' | b'[' => ColumnType::Json,
        b't' | b'f' => ColumnType::Bool,
        _ if json.parse::<i64>().is_ok() => ColumnType::Int { bits: 64 },
        // A float would lose its last digits: mostly it is a number of something, such as a receipt's.
        _ if is_long(json) => LONG,
        _ => ColumnType::Float64,
    };
    Some(match (was, now) {
        (None, now) => now,
        (Some(was), now) if *was == now => now,
        (
            Some(ColumnType::Int { .. } | ColumnType::Float64),
            ColumnType::Int { .. } | ColumnType::Float64,
        ) => ColumnType::Float64,
        (Some(ColumnType::Int { .. }), LONG) | (Some(&LONG), ColumnType::Int { .. }) => LONG,
        // Of several kinds: as it stands.
        _ => ColumnType::Json,
    })
}

/// Whole numbers of more than 64 bits.
const LONG: ColumnType = ColumnType::Decimal { precision: 38, scale: 0 };

fn is_long(json: &str) -> bool {
    let digits = json.strip_prefix('-').unwrap_or(json);
    digits.len() <= 38 && digits.bytes().all(|b| b.is_ascii_digit())
}

/// A value as a cell; none if it does not fit. Dates and times without a zone are the zone's where they become a moment.
pub(crate) fn cell(json: &str, ty: &ColumnType, zone: &TimeZone, into: &mut BatchBuilder) -> Option<Cell> {
    if json == "null" {
        return Some(Cell::Null);
    }
    let text = || serde_json::from_str::<String>(json).ok();
    let number = || match json.starts_with('"') {
        // Many an API writes numbers as text.
        true => text().map(|t| t.trim().to_owned()),
        false => Some(json.to_owned()),
    };
    Some(match ty {
        ColumnType::Text { .. } => match json.as_bytes().first()? {
            b'"' => Cell::Text(into.copy(text()?.as_bytes())),
            b'{' | b'[' => return None,
            // A code of digits that comes as a number now and then.
            _ => Cell::Text(into.copy(json.as_bytes())),
        },
        ColumnType::Int { .. } => Cell::I64(whole(&number()?)?),
        ColumnType::Float64 => Cell::F64(number()?.parse().ok().filter(|n: &f64| n.is_finite())?),
        ColumnType::Bool => Cell::I64(truth(json)?),
        ColumnType::Decimal { precision, scale } => {
            let text = decimal(&number()?, *precision, *scale)?;
            Cell::Decimal(into.copy(text.as_bytes()))
        }
        ColumnType::Date => Cell::I64(days(date(&text()?)?)?),
        ColumnType::DateTime { .. } => Cell::I64(clock_micros(&text()?)?),
        ColumnType::Timestamp { .. } => Cell::I64(moment(json, zone)?.as_microsecond()),
        ColumnType::Time { .. } => {
            let time: Time = text()?.parse().ok()?;
            Cell::I64(time.duration_since(Time::midnight()).as_micros() as i64)
        }
        ColumnType::Uuid => {
            let text = text()?.to_ascii_lowercase();
            let fits = text.len() == 36 && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
            Cell::Text(into.copy(text.as_bytes())).filter_if(fits)?
        }
        ColumnType::Json => Cell::Json(into.copy(json.as_bytes())),
        _ => return None,
    })
}

trait FilterIf: Sized {
    fn filter_if(self, keep: bool) -> Option<Self>;
}

impl<T> FilterIf for T {
    fn filter_if(self, keep: bool) -> Option<Self> {
        keep.then_some(self)
    }
}

/// `12`, and `12.0`, which some writers make of it.
fn whole(text: &str) -> Option<i64> {
    let digits = match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    digits.parse().ok()
}

fn truth(json: &str) -> Option<i64> {
    match json {
        "true" | "1" | "\"true\"" | "\"1\"" => Some(1),
        "false" | "0" | "\"false\"" | "\"0\"" => Some(0),
        _ => None,
    }
}

/// In plain notation with exactly `scale` fraction digits; none if it has more digits than fit, other than zeros.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<String> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() < 100)?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty()
        || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let mut all = format!("{whole}{fraction}");
    let mut point = whole.len() as i32 + exponent;
    while point <= 0 {
        all.insert(0, '0');
        point += 1;
    }
    while all.len() < point as usize + scale as usize {
        all.push('0');
    }
    let (whole, fraction) = all.split_at(point as usize);
    let (kept, lost) = fraction.split_at(scale as usize);
    let whole = whole.trim_start_matches('0');
    if lost.bytes().any(|b| b != b'0') || whole.len() + kept.len() > precision as usize {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let zero = whole == "0" && kept.bytes().all(|b| b == b'0');
    let sign = if zero { "" } else { sign };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{kept}") })
}

/// A date, or the date of a date and time.
fn date(text: &str) -> Option<Date> {
    text.parse().ok().or_else(|| text.parse::<DateTime>().ok().map(|at| at.date()))
}

fn days(date: Date) -> Option<i64> {
    days_from_civil(date.year().into(), date.month().unsigned_abs().into(), date.day().unsigned_abs().into())
}

/// The clock's time, whatever zone is behind it.
fn clock_micros(text: &str) -> Option<i64> {
    let at: DateTime = text.replacen(' ', "T", 1).parse().ok()?;
    let since = at.time().duration_since(Time::midnight()).as_micros() as i64;
    Some(days(at.date())? * MICROS_PER_DAY + since)
}

/// A moment: a text with or without a zone, or seconds, milliseconds or microseconds since the epoch.
fn moment(json: &str, zone: &TimeZone) -> Option<Timestamp> {
    if !json.starts_with('"') {
        let n: i64 = json.parse().ok()?;
        return match n.unsigned_abs() {
            0..100_000_000_000 => Timestamp::from_second(n).ok(),
            100_000_000_000..100_000_000_000_000 => Timestamp::from_millisecond(n).ok(),
            _ => Timestamp::from_microsecond(n).ok(),
        };
    }
    let text: String = serde_json::from_str(json).ok()?;
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let at: DateTime = text.replacen(' ', "T", 1).parse().ok()?;
        Some(zone.to_ambiguous_zoned(at).compatible().ok()?.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str, ty: &str) -> Option<String> {
        let zone = TimeZone::get("America/Caracas").unwrap();
        let mut builder = BatchBuilder::default();
        let cell = cell(json, &parse(ty).unwrap(), &zone, &mut builder)?;
        Some(match cell {
            Cell::I64(n) => n.to_string(),
            Cell::F64(n) => n.to_string(),
            Cell::Null => "NULL".into(),
            other => String::from_utf8(builder.bytes(other.slice().unwrap()).to_vec()).unwrap(),
        })
    }

    #[test]
    fn values_become_cells_of_their_type() {
        for (json, ty, expected) in [
            (r#""ñandú""#, "text", Some("ñandú")),
            ("0123", "integer", Some("123")),
            ("12.0", "integer", Some("12")),
            (r#"" 7 ""#, "integer", Some("7")),
            ("12.5", "integer", None),
            (r#""x""#, "integer", None),
            ("1e2", "number", Some("100")),
            ("true", "boolean", Some("1")),
            ("2", "boolean", None),
            ("12.5", "decimal(12,2)", Some("12.50")),
            (r#""-0.005""#, "decimal(12,3)", Some("-0.005")),
            ("1.25e1", "decimal(4,2)", Some("12.50")),
            ("0.001", "decimal(12,2)", None),
            ("12345678901", "decimal(12,2)", None),
            (r#""2026-03-01""#, "date", Some("20513")),
            (r#""2026-03-01T10:00:00""#, "date", Some("20513")),
            (r#""01/03/2026""#, "date", None),
            (r#""2026-03-01 10:00:00""#, "datetime", Some("1772359200000000")),
            (r#""2026-03-01T10:00:00Z""#, "timestamp", Some("1772359200000000")),
            (r#""2026-03-01T06:00:00""#, "timestamp", Some("1772359200000000")),
            ("1772359200", "timestamp", Some("1772359200000000")),
            ("1772359200000", "timestamp", Some("1772359200000000")),
            (r#""01:02:03""#, "time", Some("3723000000")),
            (r#"{"a":1}"#, "text", None),
            (r#"{"a":1}"#, "json", Some(r#"{"a":1}"#)),
            ("null", "integer", Some("NULL")),
        ] {
            assert_eq!(told(json, ty).as_deref(), expected, "{json} as {ty}");
        }
    }

    #[test]
    fn a_type_is_inferred_from_all_values_that_were_seen() {
        let inferred = |values: &[&str]| {
            let all = values.iter().fold(None, |was: Option<ColumnType>, json| infer(json, was.as_ref()));
            all.map(|ty| name(&ty))
        };
        assert_eq!(inferred(&["null", "1", "2"]).as_deref(), Some("integer"));
        assert_eq!(inferred(&["1", "2.5"]).as_deref(), Some("number"));
        assert_eq!(inferred(&["1", "\"a\""]).as_deref(), Some("json"));
        assert_eq!(inferred(&["null"]), None);
        let long = "12345678901234567890";
        for all in [&[long][..], &["1", long], &[long, "null", "-1"]] {
            assert_eq!(inferred(all).as_deref(), Some("decimal(38,0)"));
        }
        assert_eq!(inferred(&["1.5", long]).as_deref(), Some("json"));
        assert_eq!(inferred(&[&"1".repeat(39)]).as_deref(), Some("number"));
    }
}
