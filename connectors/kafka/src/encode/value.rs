//! One cell as JSON, by its column's type.

use crate::encode::{decimal, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use caudal_core::{Batch, Cell, ColumnType, Slice};

/// A cell that its column's type does not allow: a reader's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch;

type Written = Result<(), Mismatch>;

/// Appends the JSON of one cell. Never called for `Unchanged`: such a field is left out.
pub(crate) fn cell(out: &mut Vec<u8>, batch: &Batch, ty: &ColumnType, cell: Cell) -> Written {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::I64(n) => return signed(out, ty, n),
        Cell::U64(n) => return unsigned(out, ty, n),
        Cell::F32(f) if *ty == ColumnType::Float32 => float(out, f),
        Cell::F64(f) if *ty == ColumnType::Float64 => float(out, f),
        Cell::Decimal(s) if matches!(ty, ColumnType::Decimal { .. }) => {
            return unscaled(out, batch.bytes(s));
        }
        Cell::Json(s) if *ty == ColumnType::Json => return utf8(out, batch, s),
        Cell::Text(s) if holds_text(ty) => return utf8(out, batch, s),
        Cell::Bytes(s) => return binary(out, ty, batch.bytes(s)),
        _ => return Err(Mismatch),
    }
    Ok(())
}

/// A number in decimal digits.
pub(crate) fn integer(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn signed(out: &mut Vec<u8>, ty: &ColumnType, n: i64) -> Written {
    match ty {
        ColumnType::Bool => boolean(out, n != 0),
        ColumnType::DateTime { precision: 0..=3 } => integer(out, n.div_euclid(1_000)),
        ColumnType::Timestamp { precision } => timestamp(out, n, *precision),
        ColumnType::Int { .. }
        | ColumnType::UInt { .. }
        | ColumnType::Date
        | ColumnType::Time { .. }
        | ColumnType::DateTime { .. }
        | ColumnType::Year => integer(out, n),
        _ => return Err(Mismatch),
    }
    Ok(())
}

fn unsigned(out: &mut Vec<u8>, ty: &ColumnType, n: u64) -> Written {
    match ty {
        ColumnType::UInt { .. } => integer(out, n),
        ColumnType::Bit { bits: 1 } => boolean(out, n != 0),
        ColumnType::Bit { bits } => {
            base64(out, &n.to_le_bytes()[..usize::from(bits.div_ceil(8)).min(8)]);
        }
        _ => return Err(Mismatch),
    }
    Ok(())
}

fn binary(out: &mut Vec<u8>, ty: &ColumnType, bytes: &[u8]) -> Written {
    match ty {
        ColumnType::Bytes { .. } => base64(out, bytes),
        ColumnType::Geometry => return geometry(out, bytes),
        ColumnType::Vector { .. } => return vector(out, bytes),
        _ => return Err(Mismatch),
    }
    Ok(())
}

/// The types whose values are text; the temporal ones for what is no moment of the calendar.
fn holds_text(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::Text { .. }
            | ColumnType::Enum { .. }
            | ColumnType::Set { .. }
            | ColumnType::Uuid
            | ColumnType::Inet4
            | ColumnType::Inet6
            | ColumnType::Date
            | ColumnType::DateTime { .. }
            | ColumnType::Timestamp { .. }
    )
}

fn utf8(out: &mut Vec<u8>, batch: &Batch, slice: Slice) -> Written {
    let bytes = batch.bytes(slice);
    std::str::from_utf8(bytes).map_err(|_| Mismatch)?;
    text::string(out, bytes);
    Ok(())
}

fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// The shortest digits that read back as the same number. JSON has none for infinities and NaN, which MySQL cannot store:
/// null.
fn float<F: zmij::Float + Copy>(out: &mut Vec<u8>, f: F) {
    let mut buffer = zmij::Buffer::new();
    let digits = buffer.format(f);
    let finite = digits.ends_with(|c: char| c.is_ascii_digit());
    out.extend_from_slice(if finite { digits.as_bytes() } else { b"null" });
}

/// Bytes as a base64 string, standard alphabet, padded.
fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

fn unscaled(out: &mut Vec<u8>, digits: &[u8]) -> Written {
    let mut buffer = decimal::buffer();
    let start = decimal::unscaled(digits, &mut buffer).ok_or(Mismatch)?;
    base64(out, &buffer[start..]);
    Ok(())
}

/// ISO 8601 in UTC with exactly `precision` fraction digits, as Debezium formats a zoned timestamp whose width is declared.
fn timestamp(out: &mut Vec<u8>, us: i64, precision: u8) {
    let (days, of_day) = (us.div_euclid(MICROS_PER_DAY), us.rem_euclid(MICROS_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let seconds = of_day / 1_000_000;
    out.push(b'"');
    padded(out, year.unsigned_abs(), 4);
    for (separator, part) in [
        (b'-', u64::from(month)),
        (b'-', u64::from(day)),
        (b'T', (seconds / 3_600) as u64),
        (b':', (seconds / 60 % 60) as u64),
        (b':', (seconds % 60) as u64),
    ] {
        out.push(separator);
        padded(out, part, 2);
    }
    let precision = u32::from(precision.min(6));
    if precision > 0 {
        out.push(b'.');
        padded(out, (of_day % 1_000_000) as u64 / 10_u64.pow(6 - precision), precision);
    }
    out.extend_from_slice(b"Z\"");
}

fn padded(out: &mut Vec<u8>, number: u64, width: u32) {
    let mut divisor = 10_u64.pow(width - 1);
    if number >= divisor * 10 {
        return integer(out, number);
    }
    while divisor > 0 {
        out.push(b'0' + (number / divisor % 10) as u8);
        divisor /= 10;
    }
}

/// `{"wkb":…,"srid":…}`, with the coordinates first where it is a point, as Debezium's structs have it.
fn geometry(out: &mut Vec<u8>, bytes: &[u8]) -> Written {
    let (srid, wkb) = bytes.split_first_chunk::<4>().ok_or(Mismatch)?;
    out.push(b'{');
    if let Some((x, y)) = point(wkb) {
        out.extend_from_slice(b"\"x\":");
        float(out, x);
        out.extend_from_slice(b",\"y\":");
        float(out, y);
        out.push(b',');
    }
    out.extend_from_slice(b"\"wkb\":");
    base64(out, wkb);
    out.extend_from_slice(b",\"srid\":");
    integer(out, u32::from_le_bytes(*srid));
    out.push(b'}');
    Ok(())
}

/// The coordinates of a little-endian WKB point: byte order, type 1, two doubles.
fn point(wkb: &[u8]) -> Option<(f64, f64)> {
    let coordinates = wkb.strip_prefix(&[1, 1, 0, 0, 0])?;
    let (x, y) = coordinates.split_first_chunk::<8>()?;
    Some((f64::from_le_bytes(*x), f64::from_le_bytes(y.try_into().ok()?)))
}

fn vector(out: &mut Vec<u8>, bytes: &[u8]) -> Written {
    if !bytes.len().is_multiple_of(4) {
        return Err(Mismatch);
    }
    out.push(b'[');
    for (i, chunk) in bytes.chunks_exact(4).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        float(out, f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    out.push(b']');
    Ok(())
}
