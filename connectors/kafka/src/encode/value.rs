//! One cell as JSON, by its column's type and the profile.

use crate::encode::java;
use crate::encode::{decimal, text};
use crate::format::{Format, Profile};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};
use caudal_core::{Batch, Cell, Column, ColumnType, Slice};

/// A cell that its column's type does not allow: a reader's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch;

type Written = Result<(), Mismatch>;

/// What a column's values depend on beside its type.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// Whether values are written as Debezium does, losses and all.
    pub(crate) debezium: bool,
    /// Whether the column takes NULL: what Debezium makes of a zero date depends on it.
    pub(crate) nullable: bool,
    /// `FLOAT(M,D)`, which Debezium takes for a double.
    pub(crate) wide: bool,
    /// `POINT`: the coordinates stand beside the WKB.
    pub(crate) point: bool,
    /// Whether the record's form has a schema, which values must fit: an unsigned BIGINT is a decimal then, and there are no zero dates.
    pub(crate) fits: bool,
    /// Whether a snapshot read the row: Debezium then drops zeros at the end of a timestamp's fraction.
    pub(crate) read: bool,
}

impl How {
    pub(crate) fn of(profile: Profile, format: Format, column: &Column) -> Self {
        let native = column.native.trim().to_ascii_lowercase();
        Self {
            debezium: profile == Profile::Debezium35,
            nullable: column.nullable,
            wide: native.starts_with("float(") && native.contains(','),
            point: native.starts_with("point"),
            fits: matches!(format, Format::JsonSchema | Format::Avro | Format::Protobuf),
            read: false,
        }
    }
}

/// Appends the JSON of one cell. Never called for `Unchanged`: such a field is left out.
pub(crate) fn cell(out: &mut Vec<u8>, batch: &Batch, ty: &ColumnType, how: How, cell: Cell) -> Written {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::I64(n) => return signed(out, ty, how, n),
        Cell::U64(n) => return unsigned(out, ty, how, n),
        Cell::F32(f) if *ty == ColumnType::Float32 && how.debezium && how.wide => java::double(out, f.into()),
        Cell::F32(f) if *ty == ColumnType::Float32 && how.debezium => java::float(out, f),
        Cell::F32(f) if *ty == ColumnType::Float32 => float(out, f),
        Cell::F64(f) if *ty == ColumnType::Float64 && how.debezium => java::double(out, f),
        Cell::F64(f) if *ty == ColumnType::Float64 => float(out, f),
        Cell::Decimal(s) if matches!(ty, ColumnType::Decimal { .. }) => {
            return unscaled(out, batch.bytes(s));
        }
        Cell::Json(s) if *ty == ColumnType::Json => return utf8(out, how, batch, s),
        Cell::Text(_) if (how.debezium || how.fits) && is_moment(ty) => no_moment(out, ty, how),
        Cell::Text(s) if holds_text(ty) => return utf8(out, how, batch, s),
        Cell::Bytes(s) => return binary(out, ty, how, batch.bytes(s)),
        _ => return Err(Mismatch),
    }
    Ok(())
}

pub(crate) fn is_moment(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. })
}

/// What is no moment of the calendar is NULL to Debezium, or the epoch where NULL is not allowed.
fn no_moment(out: &mut Vec<u8>, ty: &ColumnType, how: How) {
    out.extend_from_slice(match (how.nullable, ty) {
        (true, _) => b"null",
        (false, ColumnType::Timestamp { .. }) => b"\"1970-01-01T00:00:00Z\"",
        (false, _) => b"0",
    });
}

/// A number in decimal digits.
pub(crate) fn integer(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn signed(out: &mut Vec<u8>, ty: &ColumnType, how: How, n: i64) -> Written {
    match ty {
        ColumnType::Bool if how.debezium => integer(out, n),
        ColumnType::Bool => boolean(out, n != 0),
        ColumnType::DateTime { precision: 0..=3 } => integer(out, n.div_euclid(1_000)),
        ColumnType::Timestamp { precision } => timestamp(out, n, *precision, how.debezium && how.read),
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

fn unsigned(out: &mut Vec<u8>, ty: &ColumnType, how: How, n: u64) -> Written {
    match ty {
        ColumnType::UInt { .. } if how.debezium => integer(out, n as i64),
        ColumnType::UInt { .. } if how.fits => {
            return unscaled(out, itoa::Buffer::new().format(n).as_bytes());
        }
        ColumnType::UInt { .. } => integer(out, n),
        ColumnType::Bit { bits: 1 } => boolean(out, n != 0),
        ColumnType::Bit { bits } => {
            base64(out, &n.to_le_bytes()[..usize::from(bits.div_ceil(8)).min(8)]);
        }
        _ => return Err(Mismatch),
    }
    Ok(())
}

fn binary(out: &mut Vec<u8>, ty: &ColumnType, how: How, bytes: &[u8]) -> Written {
    match ty {
        ColumnType::Bytes { .. } => base64(out, bytes),
        ColumnType::Geometry => return geometry(out, how, bytes),
        ColumnType::Vector { .. } => return vector(out, how, bytes),
        _ => return Err(Mismatch),
    }
    Ok(())
}

/// The types whose values are text; the temporal ones for what is no moment of the calendar.
pub(crate) fn holds_text(ty: &ColumnType) -> bool {
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

fn utf8(out: &mut Vec<u8>, how: How, batch: &Batch, slice: Slice) -> Written {
    let bytes = batch.bytes(slice);
    std::str::from_utf8(bytes).map_err(|_| Mismatch)?;
    if how.debezium {
        java::string(out, bytes)
    } else {
        text::string(out, bytes)
    }
    Ok(())
}

fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// The shortest digits that read back as the same number. JSON has none for infinities and NaN, which MySQL cannot store:
/// null.
pub(crate) fn float<F: zmij::Float + Copy>(out: &mut Vec<u8>, f: F) {
    let mut buffer = zmij::Buffer::new();
    let digits = buffer.format(f);
    let finite = digits.ends_with(|c: char| c.is_ascii_digit());
    out.extend_from_slice(if finite { digits.as_bytes() } else { b"null" });
}

/// Bytes as a base64 string, standard alphabet, padded.
pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
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

/// ISO 8601 in UTC with exactly `precision` fraction digits, as Debezium formats a zoned timestamp whose width is declared;
/// `short`: without the zeros at the fraction's end.
pub(crate) fn timestamp(out: &mut Vec<u8>, us: i64, precision: u8, short: bool) {
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
        if short {
            while out.ends_with(b"0") {
                out.pop();
            }
            if out.ends_with(b".") {
                out.pop();
            }
        }
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

/// `{"wkb":…,"srid":…}`, with the coordinates first in a column of points, as Debezium's structs have it. To Debezium a geometry
/// without a reference system has no SRID.
fn geometry(out: &mut Vec<u8>, how: How, bytes: &[u8]) -> Written {
    let (srid, wkb) = bytes.split_first_chunk::<4>().ok_or(Mismatch)?;
    out.push(b'{');
    if let Some((x, y)) = point(wkb).filter(|_| how.point || !(how.debezium || how.fits)) {
        out.extend_from_slice(b"\"x\":");
        double(out, how, x);
        out.extend_from_slice(b",\"y\":");
        double(out, how, y);
        out.push(b',');
    }
    out.extend_from_slice(b"\"wkb\":");
    base64(out, wkb);
    out.extend_from_slice(b",\"srid\":");
    match u32::from_le_bytes(*srid) {
        0 if how.debezium => out.extend_from_slice(b"null"),
        srid => integer(out, srid),
    }
    out.push(b'}');
    Ok(())
}

fn double(out: &mut Vec<u8>, how: How, f: f64) {
    if how.debezium { java::double(out, f) } else { float(out, f) }
}

/// The coordinates of a little-endian WKB point: byte order, type 1, two doubles.
pub(crate) fn point(wkb: &[u8]) -> Option<(f64, f64)> {
    let coordinates = wkb.strip_prefix(&[1, 1, 0, 0, 0])?;
    let (x, y) = coordinates.split_first_chunk::<8>()?;
    Some((f64::from_le_bytes(*x), f64::from_le_bytes(y.try_into().ok()?)))
}

fn vector(out: &mut Vec<u8>, how: How, bytes: &[u8]) -> Written {
    if !bytes.len().is_multiple_of(4) {
        return Err(Mismatch);
    }
    out.push(b'[');
    for (i, chunk) in bytes.chunks_exact(4).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let number = f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        if how.debezium { java::float(out, number) } else { float(out, number) }
    }
    out.push(b']');
    Ok(())
}
