//! BigQuery's types, exactly: what a column of each is in the log, and how the text that REST has of a value becomes a cell.
//!
//! REST writes a row as `{"f": [{"v": …}, …]}`: each value is a text, `null`, a row within (STRUCT) or a list of `{"v": …}` (ARRAY); see
//! <https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/getQueryResults>. With `formatOptions.useInt64Timestamp` a TIMESTAMP is microseconds since the epoch; without, seconds
//! as a float, which is not exact. What Avro has of a value ([`crate::avro`]) becomes the same cell, to the letter: a row that is read by the one way and then by the other has
//! not changed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caudal_core::temporal::{MICROS_PER_DAY, days_from_civil};
use caudal_core::{BatchBuilder, Cell, ColumnType};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The log's decimals have no more digits: a BIGNUMERIC that may have is text.
const MOST_DIGITS: u8 = 65;

/// A column, or a field of a STRUCT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Field {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) ty: String,
    pub(crate) mode: String,
    pub(crate) fields: Vec<Field>,
    /// Numbers of REST are texts.
    pub(crate) precision: Option<Number>,
    pub(crate) scale: Option<Number>,
    pub(crate) max_length: Option<Number>,
    pub(crate) range_element_type: Option<Element>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Element {
    #[serde(rename = "type")]
    pub(crate) ty: String,
}

/// A whole number, as a number or as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub(crate) struct Number(pub(crate) u64);

impl TryFrom<serde_json::Value> for Number {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        number.map(Self).ok_or("is no whole number")
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Bytes,
    Int,
    Float,
    Bool,
    Timestamp,
    DateTime,
    Date,
    Time,
    Numeric { scale: u8 },
    Json,
    Struct,
    Range,
}

impl Field {
    pub(crate) fn is_repeated(&self) -> bool {
        self.mode.eq_ignore_ascii_case("REPEATED")
    }

    pub(crate) fn is_required(&self) -> bool {
        self.mode.eq_ignore_ascii_case("REQUIRED")
    }

    pub(crate) fn is_range(&self) -> bool {
        self.kind() == Some(Kind::Range)
    }

    /// What a range is of, as a field.
    pub(crate) fn element(&self) -> Self {
        let ty = self.range_element_type.as_ref().map_or("", |element| &element.ty).to_owned();
        Self { ty, ..Self::default() }
    }

    /// What a list is of.
    pub(crate) fn unrepeated(&self) -> Self {
        Self { mode: String::new(), ..self.clone() }
    }

    fn number(number: Option<Number>) -> Option<u8> {
        number.and_then(|n| u8::try_from(n.0).ok())
    }

    /// Digits in all, and behind the point.
    fn digits(&self) -> (u8, u8) {
        let (precision, scale) = if self.ty.eq_ignore_ascii_case("NUMERIC") { (38, 9) } else { (77, 38) };
        match Self::number(self.precision) {
            Some(precision) => (precision, Self::number(self.scale).unwrap_or(0)),
            None => (precision, scale),
        }
    }

    fn kind(&self) -> Option<Kind> {
        Some(match self.ty.to_ascii_uppercase().as_str() {
            "STRING" | "GEOGRAPHY" | "INTERVAL" => Kind::Text,
            "BYTES" => Kind::Bytes,
            "INTEGER" | "INT64" => Kind::Int,
            "FLOAT" | "FLOAT64" => Kind::Float,
            "BOOLEAN" | "BOOL" => Kind::Bool,
            "TIMESTAMP" => Kind::Timestamp,
            "DATETIME" => Kind::DateTime,
            "DATE" => Kind::Date,
            "TIME" => Kind::Time,
            "NUMERIC" | "BIGNUMERIC" => Kind::Numeric { scale: self.digits().1 },
            "JSON" => Kind::Json,
            "RECORD" | "STRUCT" => Kind::Struct,
            "RANGE" => Kind::Range,
            _ => return None,
        })
    }

    /// What the column is in the log; none for a type that is not known.
    pub(crate) fn column_type(&self) -> Option<ColumnType> {
        // What is within must be known, too.
        self.fields.iter().all(|field| field.column_type().is_some()).then_some(())?;
        let kind = self.kind()?;
        if self.is_repeated() {
            return Some(ColumnType::Json);
        }
        let length = self.max_length.and_then(|n| u32::try_from(n.0).ok());
        Some(match kind {
            Kind::Text if self.ty.eq_ignore_ascii_case("STRING") => ColumnType::Text { max_chars: length },
            Kind::Text | Kind::Range => ColumnType::Text { max_chars: None },
            Kind::Bytes => ColumnType::Bytes { max_bytes: length, fixed: false },
            Kind::Int => ColumnType::Int { bits: 64 },
            Kind::Float => ColumnType::Float64,
            Kind::Bool => ColumnType::Bool,
            Kind::Timestamp => ColumnType::Timestamp { precision: 6 },
            Kind::DateTime => ColumnType::DateTime { precision: 6 },
            Kind::Date => ColumnType::Date,
            Kind::Time => ColumnType::Time { precision: 6 },
            Kind::Numeric { .. } => match self.digits() {
                (precision @ ..=MOST_DIGITS, scale) => ColumnType::Decimal { precision, scale },
                _ => ColumnType::Text { max_chars: None },
            },
            Kind::Json | Kind::Struct => ColumnType::Json,
        })
    }

    /// As GoogleSQL writes the type.
    pub(crate) fn native(&self) -> String {
        let base = match self.ty.to_ascii_uppercase().as_str() {
            "INTEGER" => "INT64".to_owned(),
            "FLOAT" => "FLOAT64".to_owned(),
            "BOOLEAN" => "BOOL".to_owned(),
            "RECORD" | "STRUCT" => {
                let fields: Vec<String> =
                    self.fields.iter().map(|f| format!("{} {}", f.name, f.native())).collect();
                format!("STRUCT<{}>", fields.join(", "))
            }
            "RANGE" => {
                format!("RANGE<{}>", self.range_element_type.as_ref().map_or("DATE", |element| &element.ty))
            }
            "NUMERIC" | "BIGNUMERIC" if self.precision.is_some() => {
                let (precision, scale) = self.digits();
                format!("{}({precision},{scale})", self.ty)
            }
            "STRING" | "BYTES" if self.max_length.is_some() => {
                format!("{}({})", self.ty, self.max_length.map_or(0, |n| n.0))
            }
            other => other.to_owned(),
        };
        if self.is_repeated() { format!("ARRAY<{base}>") } else { base }
    }
}

/// A row: one value for each field.
#[derive(Deserialize)]
pub(crate) struct Row<'a> {
    #[serde(borrow)]
    pub(crate) f: Vec<Value<'a>>,
}

/// A value as it stands.
#[derive(Deserialize)]
pub(crate) struct Value<'a> {
    #[serde(borrow)]
    pub(crate) v: Option<&'a RawValue>,
}

/// A value as a cell; none if it is not of the field's type.
pub(crate) fn cell(value: &Value<'_>, field: &Field, into: &mut BatchBuilder) -> Option<Cell> {
    // A list is never NULL: one without elements is.
    let Some(raw) = value.v.filter(|raw| raw.get() != "null") else {
        return Some(if field.is_repeated() { Cell::Json(into.copy(b"[]")) } else { Cell::Null });
    };
    if field.is_repeated() || matches!(field.kind()?, Kind::Struct) {
        let mut out = Vec::new();
        json(raw, field, field.is_repeated(), &mut out)?;
        return Some(Cell::Json(into.copy(&out)));
    }
    let text = text(raw)?;
    Some(match field.kind()? {
        Kind::Text => Cell::Text(into.copy(text.as_bytes())),
        Kind::Bytes => Cell::Bytes(into.copy(&STANDARD.decode(text.as_bytes()).ok()?)),
        Kind::Int => Cell::I64(text.parse().ok()?),
        Kind::Float => Cell::F64(float(&text)?),
        Kind::Bool => Cell::I64(truth(&text)?.into()),
        Kind::Timestamp => Cell::I64(micros(&text)?),
        Kind::DateTime => Cell::I64(clock(&text)?),
        Kind::Date => Cell::I64(days(text.parse().ok()?)?),
        Kind::Time => Cell::I64(since_midnight(text.parse().ok()?)),
        Kind::Numeric { scale } => numeric(&text, scale, field, into)?,
        Kind::Json => document(&text, into)?,
        Kind::Range => Cell::Text(into.copy(range(&text, field)?.as_bytes())),
        Kind::Struct => return None,
    })
}

fn numeric(text: &str, scale: u8, field: &Field, into: &mut BatchBuilder) -> Option<Cell> {
    let exact = decimal(text, scale)?;
    Some(match field.digits().0 {
        ..=MOST_DIGITS => Cell::Decimal(into.copy(exact.as_bytes())),
        _ => Cell::Text(into.copy(short(&exact).as_bytes())),
    })
}

fn document(text: &str, into: &mut BatchBuilder) -> Option<Cell> {
    serde_json::from_str::<&RawValue>(text).ok()?;
    Some(Cell::Json(into.copy(text.as_bytes())))
}

/// A value that is neither a list nor a row, as Avro has it; numbers with digits, and ranges, as texts.
pub(crate) enum Scalar<'a> {
    Bool(bool),
    Long(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Owned(String),
}

impl Scalar<'_> {
    fn str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Owned(text) => Some(text),
            _ => None,
        }
    }

    fn long(&self) -> Option<i64> {
        match self {
            Self::Long(n) => Some(*n),
            _ => None,
        }
    }

    /// As a text within JSON or a range; none of what is no text there.
    pub(crate) fn text(&self, field: &Field) -> Option<String> {
        Some(match field.kind()? {
            Kind::Timestamp => moment(self.long()?)?,
            Kind::Date => day(self.long()?)?.to_string(),
            Kind::Time => {
                let micros = SignedDuration::from_micros(self.long()?);
                Time::midnight().checked_add(micros).ok()?.to_string()
            }
            _ => self.str()?.to_owned(),
        })
    }
}

/// A value of Avro's as a cell; none if it is not of the field's type.
pub(crate) fn cell_of(value: Scalar<'_>, field: &Field, into: &mut BatchBuilder) -> Option<Cell> {
    Some(match (field.kind()?, &value) {
        (Kind::Text | Kind::Range, _) => Cell::Text(into.copy(value.str()?.as_bytes())),
        (Kind::Bytes, Scalar::Bytes(bytes)) => Cell::Bytes(into.copy(bytes)),
        (Kind::Float, Scalar::Double(n)) => Cell::F64(*n),
        (Kind::Bool, Scalar::Bool(is)) => Cell::I64((*is).into()),
        (Kind::DateTime, Scalar::Text(text)) => Cell::I64(clock(text)?),
        (Kind::Int | Kind::Timestamp | Kind::DateTime | Kind::Date | Kind::Time, Scalar::Long(n)) => {
            Cell::I64(*n)
        }
        (Kind::Numeric { scale }, _) => numeric(value.str()?, scale, field, into)?,
        (Kind::Json, _) => document(value.str()?, into)?,
        _ => return None,
    })
}

/// The same within a STRUCT or an ARRAY, as JSON.
pub(crate) fn json_of(value: Scalar<'_>, field: &Field, out: &mut Vec<u8>) -> Option<()> {
    match (field.kind()?, &value) {
        (Kind::Int, Scalar::Long(n)) => out.extend_from_slice(n.to_string().as_bytes()),
        (Kind::Float, Scalar::Double(n)) => json_float(*n, out)?,
        (Kind::Bool, Scalar::Bool(is)) => out.extend_from_slice(is.to_string().as_bytes()),
        (Kind::Bytes, Scalar::Bytes(bytes)) => quoted(&STANDARD.encode(bytes), out)?,
        (Kind::Numeric { scale }, _) => {
            out.extend_from_slice(short(&decimal(value.str()?, scale)?).as_bytes());
        }
        (Kind::DateTime, Scalar::Long(micros)) => {
            let at = Timestamp::from_microsecond(*micros).ok()?.to_zoned(TimeZone::UTC).datetime();
            quoted(&at.to_string(), out)?;
        }
        (Kind::DateTime, _) => quoted(&written(value.str()?)?, out)?,
        (Kind::Json, _) => {
            serde_json::from_str::<&RawValue>(value.str()?).ok()?;
            out.extend_from_slice(value.str()?.as_bytes());
        }
        (Kind::Int | Kind::Float | Kind::Bool | Kind::Bytes | Kind::Struct, _) => return None,
        _ => quoted(&value.text(field)?, out)?,
    }
    Some(())
}

fn json_float(n: f64, out: &mut Vec<u8>) -> Option<()> {
    match n {
        n if n.is_finite() => serde_json::to_writer(out, &n).ok(),
        n if n.is_nan() => quoted("NaN", out),
        n => quoted(if n > 0.0 { "Infinity" } else { "-Infinity" }, out),
    }
}

/// A DATETIME's text in one way: without zeros at the end of its fraction.
fn written(text: &str) -> Option<String> {
    let at: DateTime = text.replacen(' ', "T", 1).parse().ok()?;
    Some(at.to_string())
}

fn day(days: i64) -> Option<Date> {
    Date::constant(1970, 1, 1).checked_add(SignedDuration::from_hours(days.checked_mul(24)?)).ok()
}

fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Some(Cow::Borrowed(inner)),
        Some(_) => serde_json::from_str(text).ok().map(Cow::Owned),
        // Numbers and truth values that are not in quotes.
        None if !text.starts_with(['{', '[']) => Some(Cow::Borrowed(text)),
        None => None,
    }
}

fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok().filter(|n: &f64| n.is_finite()),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "TRUE" => Some(true),
        "false" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Microseconds; or seconds with a fraction, where a server does not follow the option: exactly, if it has no more than six digits.
fn micros(text: &str) -> Option<i64> {
    match text.parse() {
        Ok(micros) => Some(micros),
        Err(_) => decimal(text, 6)?.replacen('.', "", 1).parse().ok(),
    }
}

fn days(date: Date) -> Option<i64> {
    days_from_civil(date.year().into(), date.month().unsigned_abs().into(), date.day().unsigned_abs().into())
}

fn since_midnight(time: Time) -> i64 {
    time.duration_since(Time::midnight()).as_micros() as i64
}

fn clock(text: &str) -> Option<i64> {
    let at: DateTime = text.replacen(' ', "T", 1).parse().ok()?;
    Some(days(at.date())? * MICROS_PER_DAY + since_midnight(at.time()))
}

/// In plain notation with exactly `scale` fraction digits; none if it has more, other than zeros.
fn decimal(text: &str, scale: u8) -> Option<String> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() < 100)?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = (whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_number {
        return None;
    }
    let mut all = format!("{whole}{fraction}");
    let mut point = whole.len() as i32 + exponent;
    while point <= 0 {
        all.insert(0, '0');
        point += 1;
    }
    while all.len() < point as usize + usize::from(scale) {
        all.push('0');
    }
    let (whole, fraction) = all.split_at(point as usize);
    let (kept, lost) = fraction.split_at(usize::from(scale));
    if lost.bytes().any(|b| b != b'0') {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let is_zero = whole == "0" && kept.bytes().all(|b| b == b'0');
    let sign = if is_zero { "" } else { sign };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{kept}") })
}

/// Without zeros at the end of a fraction: one text for one number.
fn short(exact: &str) -> &str {
    if exact.contains('.') { exact.trim_end_matches('0').trim_end_matches('.') } else { exact }
}

/// As GoogleSQL writes it: `[2026-01-01, 2026-02-01)`, `[2026-01-01, UNBOUNDED)`. Bounds that are microseconds are written as moments.
fn range(text: &str, field: &Field) -> Option<String> {
    let element = field.range_element_type.as_ref().map_or("", |element| element.ty.as_str());
    if !element.eq_ignore_ascii_case("TIMESTAMP") {
        return Some(text.to_owned());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(')')?;
    let (start, end) = inner.split_once(',')?;
    let bound = |text: &str| match text.trim() {
        unbounded
            if unbounded.eq_ignore_ascii_case("UNBOUNDED") || unbounded.eq_ignore_ascii_case("NULL") =>
        {
            Some("UNBOUNDED".to_owned())
        }
        text => match text.parse::<i64>() {
            Ok(micros) => moment(micros),
            Err(_) => Some(text.to_owned()),
        },
    };
    Some(format!("[{}, {})", bound(start)?, bound(end)?))
}

/// `2026-03-01T10:00:00.000001Z`
fn moment(micros: i64) -> Option<String> {
    Some(Timestamp::from_microsecond(micros).ok()?.to_string())
}

/// A value within a STRUCT or an ARRAY, as JSON: numbers with all their digits, times as texts, bytes in base64.
fn json(raw: &RawValue, field: &Field, repeated: bool, out: &mut Vec<u8>) -> Option<()> {
    if raw.get() == "null" {
        out.extend_from_slice(if repeated { b"[]" } else { b"null" });
        return Some(());
    }
    if repeated {
        let elements: Vec<Value<'_>> = serde_json::from_str(raw.get()).ok()?;
        out.push(b'[');
        for (i, element) in elements.iter().enumerate() {
            comma(i, out);
            within(element, field, false, out)?;
        }
        out.push(b']');
        return Some(());
    }
    if field.kind()? == Kind::Struct {
        let row: Row<'_> = serde_json::from_str(raw.get()).ok()?;
        (row.f.len() == field.fields.len()).then_some(())?;
        out.push(b'{');
        for (i, (value, field)) in row.f.iter().zip(&field.fields).enumerate() {
            comma(i, out);
            quoted(&field.name, out)?;
            out.push(b':');
            within(value, field, field.is_repeated(), out)?;
        }
        out.push(b'}');
        return Some(());
    }
    let text = text(raw)?;
    match field.kind()? {
        Kind::Int => out.extend_from_slice(text.parse::<i64>().ok()?.to_string().as_bytes()),
        Kind::Float => json_float(float(&text)?, out)?,
        Kind::Bool => out.extend_from_slice(if truth(&text)? { b"true" } else { b"false" }),
        Kind::Numeric { scale } => {
            out.extend_from_slice(short(&decimal(&text, scale)?).as_bytes());
        }
        Kind::Timestamp => quoted(&moment(micros(&text)?)?, out)?,
        Kind::Json => {
            serde_json::from_str::<&RawValue>(&text).ok()?;
            out.extend_from_slice(text.as_bytes());
        }
        Kind::Range => quoted(&range(&text, field)?, out)?,
        Kind::DateTime => quoted(&written(&text)?, out)?,
        Kind::Time => quoted(&text.parse::<Time>().ok()?.to_string(), out)?,
        _ => quoted(&text, out)?,
    }
    Some(())
}

fn within(value: &Value<'_>, field: &Field, repeated: bool, out: &mut Vec<u8>) -> Option<()> {
    match value.v {
        Some(raw) => json(raw, field, repeated, out),
        None => {
            out.extend_from_slice(if repeated { b"[]" } else { b"null" });
            Some(())
        }
    }
}

fn comma(i: usize, out: &mut Vec<u8>) {
    if i > 0 {
        out.push(b',');
    }
}

fn quoted(text: &str, out: &mut Vec<u8>) -> Option<()> {
    serde_json::to_writer(out, text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(json: &str) -> Field {
        serde_json::from_str(json).unwrap()
    }

    fn told(value: &str, of: &str) -> String {
        let field = field(of);
        let json = format!(r#"{{"v":{value}}}"#);
        let value: Value<'_> = serde_json::from_str(&json).unwrap();
        let mut into = BatchBuilder::default();
        match cell(&value, &field, &mut into) {
            None => "misfit".into(),
            Some(Cell::Null) => "NULL".into(),
            Some(Cell::I64(n)) => n.to_string(),
            Some(Cell::F64(n)) => n.to_string(),
            Some(Cell::Bytes(slice)) => format!("{:02x?}", into.bytes(slice)),
            Some(other) => String::from_utf8(into.bytes(other.slice().unwrap()).to_vec()).unwrap(),
        }
    }

    #[test]
    fn values_become_cells_exactly() {
        let of = |ty: &str| format!(r#"{{"name":"c","type":"{ty}","mode":"NULLABLE"}}"#);
        for (ty, value, expected) in [
            ("INTEGER", r#""-9223372036854775808""#, "-9223372036854775808"),
            ("INTEGER", r#""1.5""#, "misfit"),
            ("FLOAT", r#""0.1""#, "0.1"),
            ("FLOAT", r#""1.7976931348623157E308""#, &f64::MAX.to_string()),
            ("FLOAT", r#""NaN""#, "NaN"),
            ("FLOAT", r#""-Infinity""#, "-inf"),
            ("BOOLEAN", r#""true""#, "1"),
            ("STRING", r#""ñandú \"🦤\"""#, "ñandú \"🦤\""),
            ("STRING", "null", "NULL"),
            ("BYTES", r#""AP8=""#, "[00, ff]"),
            (
                "NUMERIC",
                r#""99999999999999999999999999999.999999999""#,
                "99999999999999999999999999999.999999999",
            ),
            ("NUMERIC", r#""-0.000000001""#, "-0.000000001"),
            ("NUMERIC", r#""12""#, "12.000000000"),
            ("NUMERIC", r#""0.0000000001""#, "misfit"),
            (
                "BIGNUMERIC",
                r#""578960446186580977117854925043439539266.34992332820282019728792003956564819967""#,
                "578960446186580977117854925043439539266.34992332820282019728792003956564819967",
            ),
            ("BIGNUMERIC", r#""0010.50""#, "10.5"),
            ("TIMESTAMP", r#""1772359200123456""#, "1772359200123456"),
            ("TIMESTAMP", r#""-62135596800000000""#, "-62135596800000000"),
            ("TIMESTAMP", r#""1.772359200123456E9""#, "1772359200123456"),
            ("DATETIME", r#""2026-03-01T10:00:00""#, "1772359200000000"),
            ("DATETIME", r#""2026-03-01T10:00:00.000001""#, "1772359200000001"),
            ("DATE", r#""2026-03-01""#, "20513"),
            ("DATE", r#""0001-01-01""#, "-719162"),
            ("TIME", r#""23:59:59.999999""#, "86399999999"),
            ("JSON", r#""{\"a\":1.50}""#, r#"{"a":1.50}"#),
            ("GEOGRAPHY", r#""POINT(-77.03 -12.04)""#, "POINT(-77.03 -12.04)"),
            ("INTERVAL", r#""1-2 3 4:5:6.789""#, "1-2 3 4:5:6.789"),
        ] {
            assert_eq!(told(value, &of(ty)), expected, "{value} as {ty}");
        }
    }

    #[test]
    fn structs_and_arrays_become_json_with_all_their_digits() {
        let of = r#"{"name":"c","type":"RECORD","mode":"REPEATED","fields":[
            {"name":"n","type":"BIGNUMERIC"}, {"name":"i","type":"INTEGER"}, {"name":"t","type":"TIMESTAMP"},
            {"name":"l","type":"STRING","mode":"REPEATED"}, {"name":"f","type":"FLOAT"}, {"name":"j","type":"JSON"}]}"#;
        let value = r#"[{"v":{"f":[{"v":"0.10000000000000000000000000000000000001"},{"v":"9007199254740993"},{"v":"1772359200000001"},
            {"v":[{"v":"a\"b"}]},{"v":"NaN"},{"v":"{\"x\":[1]}"}]}},{"v":null}]"#;
        assert_eq!(
            told(value, of),
            r#"[{"n":0.10000000000000000000000000000000000001,"i":9007199254740993,"t":"2026-03-01T10:00:00.000001Z","l":["a\"b"],"f":"NaN","j":{"x":[1]}},null]"#
        );
        assert_eq!(told("null", r#"{"name":"c","type":"INTEGER","mode":"REPEATED"}"#), "[]");
        assert_eq!(
            field(of).native(),
            "ARRAY<STRUCT<n BIGNUMERIC, i INT64, t TIMESTAMP, l ARRAY<STRING>, f FLOAT64, j JSON>>"
        );
    }

    #[test]
    fn ranges_keep_their_bounds() {
        let of = |element: &str| {
            format!(r#"{{"name":"c","type":"RANGE","rangeElementType":{{"type":"{element}"}}}}"#)
        };
        assert_eq!(told(r#""[2026-01-01, UNBOUNDED)""#, &of("DATE")), "[2026-01-01, UNBOUNDED)");
        assert_eq!(
            told(r#""[1772359200000001, UNBOUNDED)""#, &of("TIMESTAMP")),
            "[2026-03-01T10:00:00.000001Z, UNBOUNDED)"
        );
    }

    #[test]
    fn a_column_keeps_its_digits_and_length() {
        let of = |json: &str| field(json).column_type();
        assert_eq!(
            of(r#"{"name":"c","type":"NUMERIC","precision":"10","scale":"2"}"#),
            Some(ColumnType::Decimal { precision: 10, scale: 2 })
        );
        assert_eq!(
            of(r#"{"name":"c","type":"STRING","maxLength":"7"}"#),
            Some(ColumnType::Text { max_chars: Some(7) })
        );
        assert_eq!(of(r#"{"name":"c","type":"BIGNUMERIC"}"#), Some(ColumnType::Text { max_chars: None }));
        assert_eq!(
            of(r#"{"name":"c","type":"BIGNUMERIC","precision":"60","scale":"20"}"#),
            Some(ColumnType::Decimal { precision: 60, scale: 20 })
        );
        assert_eq!(of(r#"{"name":"c","type":"NOVELTY"}"#), None);
        assert_eq!(of(r#"{"name":"c","type":"RECORD","fields":[{"name":"x","type":"NOVELTY"}]}"#), None);
    }
}
