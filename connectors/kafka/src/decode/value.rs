//! One JSON value to the cell that its column type says; the inverse of the encoder.
//!
//! Texts without escapes become slices of the record as it lies in the batch; all else that has bytes is made in the arena.

use super::Place;
use super::instant;
use super::number;
use super::scan::{Malformed, Quoted, Scanner, unescape};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caudal_core::{BatchBuilder, Cell, ColumnType, Slice};

/// Bytes of an unscaled number that need no buffer of their own, and what base64 asks to have room for.
const SHORT_DECIMAL: usize = 24;

/// Where a record lies in its batch, and what was scanned of it.
pub(super) struct Text<'a> {
    /// The record's value.
    pub(super) scanner: Scanner<'a>,
    /// Where it lies.
    pub(super) place: Place,
}

impl Text<'_> {
    /// A string's slice: of the record itself, or of the arena if it had escapes.
    pub(super) fn slice(&self, quoted: Quoted<'_>, batch: &mut BatchBuilder) -> Result<Slice, Malformed> {
        if !quoted.escaped {
            return Ok(self.place.slice(quoted.at, quoted.raw.len()));
        }
        let start = batch.arena().len();
        unescape(quoted, batch.arena())?;
        Ok(batch.slice_from(start))
    }
}

/// Takes the next value as a column of type `ty` writes it.
pub(super) fn cell(
    text: &mut Text<'_>,
    ty: &ColumnType,
    batch: &mut BatchBuilder,
) -> Result<Cell, Malformed> {
    if text.scanner.null()? {
        return Ok(Cell::Null);
    }
    Ok(match ty {
        ColumnType::Bool => flag(text)?,
        ColumnType::Int { .. } | ColumnType::Year | ColumnType::Time { .. } => signed(text)?,
        ColumnType::UInt { bits: 64 } => large(text)?,
        ColumnType::UInt { .. } => signed(text)?,
        ColumnType::Float32 => Cell::F32(text.scanner.parse("a number")?),
        ColumnType::Float64 => Cell::F64(text.scanner.parse("a number")?),
        ColumnType::Decimal { scale, .. } => decimal(text, *scale, batch)?,
        ColumnType::Text { .. }
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. }
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => Cell::Text(string(text, batch)?),
        ColumnType::Json => Cell::Json(string(text, batch)?),
        ColumnType::Bytes { .. } => Cell::Bytes(bytes(text, batch)?),
        ColumnType::Date => calendar(text, 1, batch)?,
        ColumnType::DateTime { precision } => calendar(text, if *precision <= 3 { 1_000 } else { 1 }, batch)?,
        ColumnType::Timestamp { .. } => timestamp(text, batch)?,
        ColumnType::Bit { bits: 1 } => Cell::U64(text.scanner.boolean()?.into()),
        ColumnType::Bit { .. } => bits(text)?,
        ColumnType::Geometry => geometry(text, batch)?,
        ColumnType::Vector { .. } => vector(text, batch)?,
    })
}

/// A boolean; Debezium writes a number.
fn flag(text: &mut Text<'_>) -> Result<Cell, Malformed> {
    match text.scanner.peek() {
        b't' | b'f' => Ok(Cell::I64(text.scanner.boolean()?.into())),
        _ => signed(text),
    }
}

/// An unsigned number of 64 bits; Debezium's turn negative from 2^63 on, and where there is a schema they are decimals.
fn large(text: &mut Text<'_>) -> Result<Cell, Malformed> {
    if text.scanner.peek() == b'"' {
        let mut unscaled = Vec::with_capacity(16);
        decode_base64(text.scanner.string()?, &mut unscaled)?;
        let number = number::plain(&unscaled, 0).and_then(|digits| digits.parse().ok());
        return number.map(Cell::U64).ok_or_else(|| text.scanner.wrong("an unsigned 64-bit integer"));
    }
    let digits = text.scanner.number()?;
    let wrapped = || digits.parse::<i64>().ok().map(|n| n as u64);
    let number = digits.parse().ok().or_else(wrapped);
    number.map(Cell::U64).ok_or_else(|| text.scanner.wrong("an unsigned 64-bit integer"))
}

fn signed(text: &mut Text<'_>) -> Result<Cell, Malformed> {
    Ok(Cell::I64(text.scanner.integer("a 64-bit integer")?))
}

fn string(text: &mut Text<'_>, batch: &mut BatchBuilder) -> Result<Slice, Malformed> {
    let quoted = text.scanner.string()?;
    text.slice(quoted, batch)
}

/// A number of `unit` microseconds (or days), or what is no moment of the calendar, as text.
fn calendar(text: &mut Text<'_>, unit: i64, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    if text.scanner.peek() == b'"' {
        return Ok(Cell::Text(string(text, batch)?));
    }
    let number = text.scanner.integer("a 64-bit integer")?;
    number.checked_mul(unit).map(Cell::I64).ok_or_else(|| text.scanner.wrong("a moment within range"))
}

/// ISO-8601 in UTC; any other text is the zero value as the source writes it.
fn timestamp(text: &mut Text<'_>, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    let quoted = text.scanner.string()?;
    match instant::micros(quoted.raw) {
        Some(micros) => Ok(Cell::I64(micros)),
        None => Ok(Cell::Text(text.slice(quoted, batch)?)),
    }
}

fn bytes(text: &mut Text<'_>, batch: &mut BatchBuilder) -> Result<Slice, Malformed> {
    let quoted = text.scanner.string()?;
    let start = batch.arena().len();
    decode_base64(quoted, batch.arena())?;
    Ok(batch.slice_from(start))
}

/// Appends what a base64 string stands for. Writers may escape `/`, so escapes are honoured.
fn decode_base64(quoted: Quoted<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let wrong = |_| Malformed::new("base64 expected");
    if !quoted.escaped {
        return STANDARD.decode_vec(quoted.raw, out).map_err(wrong);
    }
    let mut plain = Vec::with_capacity(quoted.raw.len());
    unescape(quoted, &mut plain)?;
    STANDARD.decode_vec(plain, out).map_err(wrong)
}

fn decimal(text: &mut Text<'_>, scale: u8, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    let quoted = text.scanner.string()?;
    let mut short = [0; SHORT_DECIMAL];
    let start = batch.arena().len();
    // Nearly all are short: nothing is allocated for them.
    let is_plain = match Some(quoted).filter(|q| !q.escaped).map(|q| STANDARD.decode_slice(q.raw, &mut short))
    {
        Some(Ok(len)) => number::append(batch.arena(), &short[..len], scale),
        _ => {
            let mut unscaled = Vec::with_capacity(32);
            decode_base64(quoted, &mut unscaled)?;
            number::append(batch.arena(), &unscaled, scale)
        }
    };
    if !is_plain {
        return Err(Malformed::new("a decimal number expected"));
    }
    Ok(Cell::Decimal(batch.slice_from(start)))
}

/// Bit fields travel as little-endian bytes.
fn bits(text: &mut Text<'_>) -> Result<Cell, Malformed> {
    let quoted = text.scanner.string()?;
    let mut bytes = Vec::with_capacity(8);
    decode_base64(quoted, &mut bytes)?;
    if bytes.len() > 8 {
        return Err(Malformed::new("at most 8 bytes expected"));
    }
    Ok(Cell::U64(bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))))
}

fn geometry(text: &mut Text<'_>, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    text.scanner.expect(b'{')?;
    let (mut first, mut srid, mut wkb) = (true, 0_u32, None);
    while let Some(name) = text.scanner.member(&mut first)? {
        match name.raw {
            "wkb" => wkb = Some(text.scanner.string()?),
            "srid" if !text.scanner.null()? => srid = text.scanner.parse("an SRID")?,
            "srid" => {}
            _ => text.scanner.skip()?,
        }
    }
    let wkb = wkb.ok_or_else(|| text.scanner.wrong("a geometry with wkb"))?;
    let start = batch.arena().len();
    batch.arena().extend_from_slice(&srid.to_le_bytes());
    decode_base64(wkb, batch.arena())?;
    Ok(Cell::Bytes(batch.slice_from(start)))
}

fn vector(text: &mut Text<'_>, batch: &mut BatchBuilder) -> Result<Cell, Malformed> {
    text.scanner.expect(b'[')?;
    let start = batch.arena().len();
    let mut first = true;
    while !text.scanner.take(b']') {
        if !std::mem::take(&mut first) {
            text.scanner.expect(b',')?;
        }
        let number: f32 = text.scanner.parse("a number")?;
        batch.arena().extend_from_slice(&number.to_le_bytes());
    }
    Ok(Cell::Bytes(batch.slice_from(start)))
}
