//! Cells as the binary fields of Postgres: a length in 4 bytes (-1 for NULL), then the value, big-endian.
//!
//! `COPY … BINARY` and the elements of binary arrays have the same form, so both ways of writing share this code.
//! Formats: PostgreSQL's `src/backend/utils/adt/*_send` functions (`numeric_send`, `interval_send`, `inet_send`, `varbit_send`).

use crate::types::Wire;
use caudal_core::{Batch, Cell};
use std::net::IpAddr;

/// Days from 1970-01-01 to 2000-01-01, where Postgres counts from.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * caudal_core::temporal::MICROS_PER_DAY;

/// Why a cell cannot be written; the text names no value.
pub(crate) type Refusal = &'static str;

/// Appends a cell as a field.
pub(crate) fn field(out: &mut Vec<u8>, batch: &Batch, cell: Cell, wire: Wire) -> Result<(), Refusal> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match value(out, batch, cell, wire) {
        Ok(true) => {
            let len = i32::try_from(out.len() - start - 4).map_err(|_| "the value is larger than 2 GiB")?;
            out[start..start + 4].copy_from_slice(&len.to_be_bytes());
            Ok(())
        }
        Ok(false) => {
            out[start..].copy_from_slice(&(-1i32).to_be_bytes());
            Ok(())
        }
        Err(refusal) => {
            out.truncate(start);
            Err(refusal)
        }
    }
}

/// Appends the value; `false` (and nothing appended) for NULL.
fn value(out: &mut Vec<u8>, batch: &Batch, cell: Cell, wire: Wire) -> Result<bool, Refusal> {
    match (wire, cell) {
        (_, Cell::Null | Cell::Unchanged) => return Ok(false),
        (Wire::Bool, Cell::I64(v)) => out.push(u8::from(v != 0)),
        (Wire::Bool, Cell::U64(v)) => out.push(u8::from(v != 0)),
        (Wire::Int2, Cell::I64(v)) => {
            out.extend_from_slice(&i16::try_from(v).map_err(|_| RANGE)?.to_be_bytes());
        }
        (Wire::Int4, Cell::I64(v)) => {
            out.extend_from_slice(&i32::try_from(v).map_err(|_| RANGE)?.to_be_bytes());
        }
        (Wire::Int8, Cell::I64(v)) => out.extend_from_slice(&v.to_be_bytes()),
        (Wire::Numeric, Cell::U64(v)) => numeric_u64(out, v),
        (Wire::Numeric, Cell::Decimal(s)) => numeric(out, batch.bytes(s))?,
        (Wire::Float4, Cell::F32(v)) => out.extend_from_slice(&v.to_be_bytes()),
        (Wire::Float8, Cell::F64(v)) => out.extend_from_slice(&v.to_be_bytes()),
        (Wire::Text, Cell::Text(s)) => text(out, batch.bytes(s))?,
        (Wire::Jsonb, Cell::Json(s)) => jsonb(out, batch.bytes(s))?,
        (Wire::Json, Cell::Json(s)) => text(out, batch.bytes(s))?,
        (Wire::Bytea, Cell::Bytes(s)) => out.extend_from_slice(batch.bytes(s)),
        (Wire::Ewkb, Cell::Bytes(s)) => ewkb(out, batch.bytes(s))?,
        (Wire::Date, Cell::I64(days)) => {
            let days = i32::try_from(days - EPOCH_DAYS).map_err(|_| RANGE)?;
            out.extend_from_slice(&days.to_be_bytes());
        }
        (Wire::Timestamp | Wire::Timestamptz, Cell::I64(micros)) => {
            out.extend_from_slice(&micros.checked_sub(EPOCH_MICROS).ok_or(RANGE)?.to_be_bytes());
        }
        // What is no moment of the calendar is NULL.
        (Wire::Date | Wire::Timestamp | Wire::Timestamptz, Cell::Text(_)) => return Ok(false),
        (Wire::Interval, Cell::I64(micros)) => {
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&[0; 8]); // days and months
        }
        (Wire::Bit(bits), Cell::U64(v)) => bit(out, v, bits),
        (Wire::Uuid, Cell::Text(s)) => {
            let id = uuid::Uuid::try_parse_ascii(batch.bytes(s)).map_err(|_| "the text is no UUID")?;
            out.extend_from_slice(id.as_bytes());
        }
        (Wire::Inet, Cell::Text(s)) => inet(out, batch.text(s))?,
        (Wire::Float4Array, Cell::Bytes(s)) => vector(out, batch.bytes(s))?,
        _ => return Err("the value's kind does not belong to the column's type"),
    }
    Ok(true)
}

const RANGE: Refusal = "the value is beyond the range of the column's type";

fn text(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.contains(&0) {
        return Err("the text holds the character 0x00, which Postgres does not store");
    }
    out.extend_from_slice(bytes);
    Ok(())
}

fn jsonb(out: &mut Vec<u8>, json: &[u8]) -> Result<(), Refusal> {
    if has_null_escape(json) {
        return Err("the JSON holds \\u0000, which Postgres does not store in jsonb");
    }
    out.push(1); // version of jsonb's binary form
    text(out, json)
}

/// Whether the document has the escape `\u0000` (and not an escaped backslash before `u0000`).
fn has_null_escape(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        rest = &rest[at + 1..];
        if rest.starts_with(b"u0000") {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn bit(out: &mut Vec<u8>, value: u64, bits: u8) {
    out.extend_from_slice(&i32::from(bits).to_be_bytes());
    let left = value << (64 - u32::from(bits));
    out.extend_from_slice(&left.to_be_bytes()[..usize::from(bits).div_ceil(8)]);
}

/// SRID + WKB as EWKB: the SRID goes behind the type, whose flag 0x20000000 says so. SRID 0 is plain WKB.
fn ewkb(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
    const DAMAGED: Refusal = "the geometry is shorter than its header";
    let (srid, wkb) = bytes.split_first_chunk::<4>().ok_or(DAMAGED)?;
    let (head, rest) = wkb.split_first_chunk::<5>().ok_or(DAMAGED)?;
    if *srid == [0; 4] {
        out.extend_from_slice(wkb);
        return Ok(());
    }
    let [order, kind @ ..] = *head;
    out.push(order);
    if order == 1 {
        out.extend_from_slice(&(u32::from_le_bytes(kind) | 0x2000_0000).to_le_bytes());
        out.extend_from_slice(srid);
    } else {
        out.extend_from_slice(&(u32::from_be_bytes(kind) | 0x2000_0000).to_be_bytes());
        out.extend_from_slice(&u32::from_le_bytes(*srid).to_be_bytes());
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn inet(out: &mut Vec<u8>, text: &str) -> Result<(), Refusal> {
    // Families are the server's own numbers: 2 for IPv4, 3 for IPv6. Then prefix bits, "is a cidr", bytes of the address.
    match text.parse().map_err(|_| "the text is no internet address")? {
        IpAddr::V4(ip) => {
            out.extend_from_slice(&[2, 32, 0, 4]);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.extend_from_slice(&[3, 128, 0, 16]);
            out.extend_from_slice(&ip.octets());
        }
    }
    Ok(())
}

fn vector(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
    let (floats, []) = bytes.as_chunks::<4>() else {
        return Err("the vector's bytes are no whole number of floats");
    };
    array_head(out, Wire::Float4, floats.len());
    for float in floats {
        out.extend_from_slice(&4i32.to_be_bytes());
        out.extend_from_slice(&f32::from_le_bytes(*float).to_be_bytes());
    }
    Ok(())
}

/// The head of a one-dimensional array; `len` fields follow.
pub(crate) fn array_head(out: &mut Vec<u8>, element: Wire, len: usize) {
    let dimensions = i32::from(len > 0);
    out.extend_from_slice(&dimensions.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes()); // may hold NULLs
    out.extend_from_slice(&element.element().oid().to_be_bytes());
    if len > 0 {
        out.extend_from_slice(&(len as i32).to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes()); // lower bound
    }
}

const NEGATIVE: u16 = 0x4000;

fn numeric_head(out: &mut Vec<u8>, digits: usize, weight: i16, sign: u16, scale: u16) {
    out.extend_from_slice(&(digits as u16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&scale.to_be_bytes());
}

/// Base 10,000, the most significant digit first, without zeros at either end.
fn numeric_u64(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u16; 5];
    let mut n = 0;
    while value > 0 {
        digits[n] = (value % 10_000) as u16;
        value /= 10_000;
        n += 1;
    }
    let zeros = digits[..n].iter().take_while(|d| **d == 0).count();
    numeric_head(out, n - zeros, (n as i16 - 1).max(0), 0, 0);
    for digit in digits[zeros..n].iter().rev() {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// From plain notation (`-12.50`). Digits group by four from the point outwards.
fn numeric(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Refusal> {
    const DAMAGED: Refusal = "the decimal is not in plain notation";
    let (sign, text) = match text {
        [b'-', rest @ ..] => (NEGATIVE, rest),
        [b'+', rest @ ..] => (0, rest),
        _ => (0, text),
    };
    let point = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..point], text.get(point + 1..).unwrap_or_default());
    if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(DAMAGED);
    }
    let scale = u16::try_from(fraction.len()).map_err(|_| DAMAGED)?;
    let head = out.len();
    numeric_head(out, 0, 0, 0, scale);
    let first = out.len();
    let (lead, groups) = whole.split_at(whole.len() % 4);
    if !lead.is_empty() {
        push_digit(out, lead, 0);
    }
    groups.chunks(4).for_each(|group| push_digit(out, group, 0));
    // A short last group of the fraction counts from its left: .5 is the digit 5000.
    fraction.chunks(4).for_each(|group| push_digit(out, group, 4 - group.len()));
    let mut weight = whole.len().div_ceil(4) as i16 - 1;
    let zeros = out[first..].chunks_exact(2).take_while(|d| *d == [0, 0]).count();
    out.drain(first..first + 2 * zeros);
    weight -= zeros as i16;
    while out.len() > first && out.ends_with(&[0, 0]) {
        out.truncate(out.len() - 2);
    }
    let count = (out.len() - first) / 2;
    let (weight, sign) = if count == 0 { (0, 0) } else { (weight, sign) };
    out[head..head + 2].copy_from_slice(&(count as u16).to_be_bytes());
    out[head + 2..head + 4].copy_from_slice(&weight.to_be_bytes());
    out[head + 4..head + 6].copy_from_slice(&sign.to_be_bytes());
    Ok(())
}

/// One digit of base 10,000 from up to four decimal ones, with `zeros` behind them.
fn push_digit(out: &mut Vec<u8>, group: &[u8], zeros: usize) {
    let digit = group.iter().fold(0u16, |d, b| d * 10 + u16::from(b - b'0'));
    out.extend_from_slice(&(digit * 10u16.pow(zeros as u32)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::{BatchBuilder, LogPosition, Position};

    fn numeric_of(text: &str) -> (u16, i16, u16, u16, Vec<u16>) {
        let mut out = Vec::new();
        numeric(&mut out, text.as_bytes()).unwrap();
        let words: Vec<u16> = out.as_chunks::<2>().0.iter().map(|w| u16::from_be_bytes(*w)).collect();
        (words[0], words[1] as i16, words[2], words[3], words[4..].to_vec())
    }

    #[test]
    fn decimals_have_the_servers_base_ten_thousand_form() {
        assert_eq!(numeric_of("0"), (0, 0, 0, 0, vec![]));
        assert_eq!(numeric_of("-0.00"), (0, 0, 0, 2, vec![]));
        assert_eq!(numeric_of("1"), (1, 0, 0, 0, vec![1]));
        assert_eq!(numeric_of("-12.50"), (2, 0, NEGATIVE, 2, vec![12, 5000]));
        assert_eq!(numeric_of("12345678.9"), (3, 1, 0, 1, vec![1234, 5678, 9000]));
        assert_eq!(numeric_of("0.00001"), (1, -2, 0, 5, vec![1000]));
        assert_eq!(numeric_of("10000"), (1, 1, 0, 0, vec![1]));
        assert_eq!(numeric_of("100000000.00"), (1, 2, 0, 2, vec![1]));
        assert_eq!(numeric_of("00012.000300"), (2, 0, 0, 6, vec![12, 3]));
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        for text in ["", "-", ".", "1e5", "NaN", "1.2.3", " 1"] {
            assert!(numeric(&mut Vec::new(), text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn unsigned_bigint_is_exact_at_its_edges() {
        for value in [0, 1, 9_999, 10_000, 123_400_000_000, u64::MAX] {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            numeric_u64(&mut a, value);
            numeric(&mut b, value.to_string().as_bytes()).unwrap();
            assert_eq!(a, b, "{value}");
        }
    }

    #[test]
    fn bits_are_left_aligned() {
        let mut out = Vec::new();
        bit(&mut out, 0b101, 3);
        assert_eq!(out, [0, 0, 0, 3, 0b1010_0000]);
        out.clear();
        bit(&mut out, u64::MAX, 64);
        assert_eq!(out, [0, 0, 0, 64, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn a_null_escape_is_told_from_an_escaped_backslash() {
        assert!(has_null_escape(br#"{"a":"x\u0000"}"#));
        assert!(has_null_escape(br#""\\\u0000""#));
        assert!(!has_null_escape(br#""\\u0000""#));
        assert!(!has_null_escape(br#""\u0001 u0000""#));
    }

    #[test]
    fn a_refused_cell_leaves_nothing_behind() {
        let mut builder = BatchBuilder::default();
        let slice = builder.copy(b"a\0b");
        let batch = builder.build(Position::Log(LogPosition::default()), None);
        let mut out = vec![7];
        assert!(field(&mut out, &batch, Cell::Text(slice), Wire::Text).is_err());
        assert_eq!(out, [7]);
        field(&mut out, &batch, Cell::Null, Wire::Text).unwrap();
        assert_eq!(out, [7, 255, 255, 255, 255]);
    }

    #[test]
    fn an_srid_moves_behind_the_geometrys_type() {
        let point = [&[0xE6, 0x10, 0, 0, 1, 1, 0, 0, 0][..], &[9; 16]].concat();
        let mut out = Vec::new();
        ewkb(&mut out, &point).unwrap();
        assert_eq!(out, [&[1, 1, 0, 0, 0x20, 0xE6, 0x10, 0, 0][..], &[9; 16]].concat());
    }
}
