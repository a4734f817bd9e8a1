//! Values as PostgreSQL writes them in text (UTC, ISO dates, `postgres` intervals, hex bytes).

use anyhow::{Context, Result};

use super::{Kind, SourceColumn, floats, json, kind};

/// The canonical text of a value, written by PostgreSQL for a column of `pg_type` (as `format_type` names it), that stands for the
/// source's `column`.
///
/// # Errors
/// When the text isn't what such a column holds.
pub fn from_postgres(column: &SourceColumn, pg_type: &str, text: &str) -> Result<Option<String>> {
    convert(kind(&column.data_type), pg_type, text)
        .with_context(|| format!("column {} ({}, {pg_type}): '{text}'", column.name, column.data_type))
        .map(Some)
}

fn convert(kind: Kind, pg_type: &str, text: &str) -> Result<String> {
    Ok(match kind {
        Kind::Integer => integer(text),
        Kind::Bit => bits(pg_type, text)?,
        Kind::Decimal | Kind::Date => text.to_owned(),
        Kind::Float => format!("{:?}", text.parse::<f32>()?),
        Kind::Double => format!("{:?}", text.parse::<f64>()?),
        Kind::DateTime => date_time(text),
        Kind::Time => micros(text)?.to_string(),
        Kind::Bytes => text.strip_prefix("\\x").unwrap_or(text).to_owned(),
        Kind::Geometry => geometry(text.strip_prefix("\\x").unwrap_or(text))?,
        Kind::Vector => floats(vector(text)?.into_iter()),
        Kind::Json => json::canonical(text)?,
        Kind::Text if pg_type.starts_with("character(") => text.trim_end_matches(' ').to_owned(),
        Kind::Text if pg_type == "inet" => text.trim_end_matches("/32").trim_end_matches("/128").to_owned(),
        Kind::Text => text.to_owned(),
    })
}

fn integer(text: &str) -> String {
    match text {
        "t" => "1".to_owned(),
        "f" => "0".to_owned(),
        n => n.to_owned(),
    }
}

fn bits(pg_type: &str, text: &str) -> Result<String> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return Ok(u64::from_str_radix(hex, 16)?.to_string());
    }
    Ok(if pg_type.starts_with("bit") { u64::from_str_radix(text, 2)?.to_string() } else { integer(text) })
}

/// EWKB as the source has it: the SRID (0 if there is none), then WKB without it. Only little-endian, as the source writes it.
fn geometry(ewkb: &str) -> Result<String> {
    const HAS_SRID: u32 = 0x2000_0000;
    let (order, kind) = (ewkb.get(..2), ewkb.get(2..10).context("no type of geometry")?);
    anyhow::ensure!(order == Some("01"), "not little-endian");
    let number = u32::from_str_radix(kind, 16)?.swap_bytes();
    if number & HAS_SRID == 0 {
        return Ok(format!("00000000{ewkb}"));
    }
    let (srid, rest) = ewkb[10..].split_at_checked(8).context("no SRID")?;
    Ok(format!("{srid}01{:08x}{rest}", (number & !HAS_SRID).swap_bytes()))
}

/// Six digits of fraction, no zone: it is always UTC.
fn date_time(text: &str) -> String {
    let text = text.strip_suffix("+00").unwrap_or(text).replace('T', " ");
    let (seconds, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{seconds}.{fraction:0<6}")
}

/// Microseconds of a `time`, or of an interval of days, hours, minutes and seconds, each part with its own sign.
fn micros(text: &str) -> Result<i64> {
    let (days, clock) = match text.split_once(" day") {
        Some((n, rest)) => (n.parse::<i64>()?, rest.trim_start_matches('s').trim()),
        None => (0, text),
    };
    let (sign, clock) = clock.strip_prefix('-').map_or((1, clock), |c| (-1, c));
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut seconds = 0;
    for part in clock.split(':').filter(|p| !p.is_empty()) {
        seconds = seconds * 60 + part.parse::<i64>()?;
    }
    let fraction: i64 = format!("{fraction:0<6}").parse()?;
    Ok(days * 86_400_000_000 + sign * (seconds * 1_000_000 + fraction))
}

fn vector(text: &str) -> Result<Vec<f32>> {
    let inner = text.trim_matches(|c| "[]{}".contains(c));
    inner.split(',').map(|n| Ok(n.trim().parse()?)).collect()
}
