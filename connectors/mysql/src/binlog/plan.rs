//! How each column's bytes become a cell: worked out once per table map and schema, walked for each row.
//!
//! The layout of the bytes comes from the table map, what they mean (signedness, character set, labels, fraction digits of
//! old temporal columns) from the schema. A pair that doesn't fit is an error here, before any row is read by it.

use super::cursor::{Damage, Read};
use super::table_map::{MapColumn, TableMap, WireType};
use crate::charset::Charset;
use caudal_core::{Column, ColumnType, TableSchema};

/// One step per column.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// How many of the columns are MySQL's JSON: partial updates have a bit for each.
    pub(super) json_columns: usize,
}

/// How many bytes of length stand in front of a value.
pub(super) type Prefix = u8;

/// How one column's bytes become a cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Bool {
        width: u8,
    },
    Signed {
        width: u8,
    },
    Unsigned {
        width: u8,
    },
    Unsigned64,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bit {
        width: u8,
    },
    Enum {
        width: u8,
        members: Vec<String>,
    },
    Set {
        width: u8,
        members: Vec<String>,
    },
    Date,
    Year,
    Time(u8),
    DateTime(u8),
    Timestamp(u8),
    OldTime(u8),
    OldDateTime(u8),
    OldTimestamp(u8),
    /// Text that is UTF-8 as it stands.
    Utf8 {
        prefix: Prefix,
    },
    /// Text to be converted.
    Text {
        prefix: Prefix,
        charset: Charset,
    },
    /// MariaDB's JSON: text.
    JsonText {
        prefix: Prefix,
    },
    Bytes {
        prefix: Prefix,
    },
    /// The server strips zero bytes at the end.
    FixedBytes {
        prefix: Prefix,
        length: u32,
    },
    Compressed {
        prefix: Prefix,
        charset: Option<Charset>,
    },
    /// MySQL's binary JSON.
    Json {
        prefix: Prefix,
    },
    Uuid {
        prefix: Prefix,
    },
    Inet4 {
        prefix: Prefix,
    },
    Inet6 {
        prefix: Prefix,
    },
}

impl Plan {
    pub(super) fn new(map: &TableMap, schema: &TableSchema) -> Read<Self> {
        if map.columns.len() != schema.columns.len() {
            return Err(Damage::of(format!(
                "the log has {} columns, the known shape {}",
                map.columns.len(),
                schema.columns.len()
            )));
        }
        let pairs = map.columns.iter().zip(&schema.columns);
        let steps = pairs
            .map(|(wire, column)| step(wire, column).map_err(|d| d.of_column(&column.name)))
            .collect::<Read<Vec<_>>>()?;
        let json_columns = steps.iter().filter(|s| matches!(s, Step::Json { .. })).count();
        Ok(Self { steps, json_columns })
    }
}

impl Damage {
    pub(super) fn of_column(self, name: &str) -> Self {
        Self::of(format!("column {name}: {}", self.0))
    }
}

fn step(wire: &MapColumn, column: &Column) -> Read<Step> {
    use ColumnType as C;
    use WireType as W;
    Ok(match (&column.ty, wire.ty) {
        (C::Bool, W::Int(width)) => Step::Bool { width },
        (C::Int { bits }, W::Int(width)) if *bits == width_bits(width) => Step::Signed { width },
        (C::UInt { bits: 64 }, W::Int(8)) => Step::Unsigned64,
        (C::UInt { bits }, W::Int(width)) if *bits == width_bits(width) => Step::Unsigned { width },
        (C::Float32, W::Float) => Step::Float,
        (C::Float64, W::Double) => Step::Double,
        (C::Decimal { precision, scale }, W::Decimal { precision: p, scale: s })
            if (*precision, *scale) == (p, s) =>
        {
            Step::Decimal { precision: p, scale: s }
        }
        (C::Bit { bits }, W::Bit(width)) if u16::from(*bits) == width => {
            Step::Bit { width: width.div_ceil(8) as u8 }
        }
        (C::Bool, W::Bit(1)) => Step::Bool { width: 1 },
        (C::Enum { members }, W::Enum(width)) => Step::Enum { width, members: members.clone() },
        (C::Set { members }, W::Set(width)) => Step::Set { width, members: members.clone() },
        (C::Date, W::Date) => Step::Date,
        (C::Year, W::Year) => Step::Year,
        (C::Time { precision }, W::Time(p)) if *precision == p => Step::Time(p),
        (C::DateTime { precision }, W::DateTime(p)) if *precision == p => Step::DateTime(p),
        (C::Timestamp { precision }, W::Timestamp(p)) if *precision == p => Step::Timestamp(p),
        (C::Time { precision }, W::OldTime) => Step::OldTime((*precision).min(6)),
        (C::DateTime { precision }, W::OldDateTime) => Step::OldDateTime((*precision).min(6)),
        (C::Timestamp { precision }, W::OldTimestamp) => Step::OldTimestamp((*precision).min(6)),
        (C::Json, W::Json { length_bytes }) => Step::Json { prefix: length_bytes },
        (C::Geometry, W::Geometry { length_bytes }) => Step::Bytes { prefix: length_bytes },
        (C::Vector { .. }, W::Vector { length_bytes }) => Step::Bytes { prefix: length_bytes },
        _ => return string(wire, column),
    })
}

fn width_bits(bytes: u8) -> u8 {
    bytes * 8
}

/// What stands as a string of bytes.
fn string(wire: &MapColumn, column: &Column) -> Read<Step> {
    let mismatch = || Damage::of(format!("the log has {:?}, the known shape {:?}", wire.ty, column.ty));
    let (prefix, compressed) = match wire.ty {
        WireType::VarChar { max_bytes, compressed } => (prefix_of(max_bytes), compressed),
        WireType::Char { max_bytes } => (prefix_of(max_bytes), false),
        WireType::Blob { length_bytes, compressed } => (length_bytes, compressed),
        _ => return Err(mismatch()),
    };
    if compressed {
        let charset = match &column.ty {
            ColumnType::Text { .. } => Some(charset(wire, column)?),
            ColumnType::Bytes { .. } => None,
            _ => return Err(mismatch()),
        };
        return Ok(Step::Compressed { prefix, charset });
    }
    Ok(match &column.ty {
        ColumnType::Text { .. } => match charset(wire, column)? {
            c if c.is_utf8() => Step::Utf8 { prefix },
            c => Step::Text { prefix, charset: c },
        },
        ColumnType::Json => Step::JsonText { prefix },
        ColumnType::Bytes { fixed: true, max_bytes: Some(length) } => {
            Step::FixedBytes { prefix, length: (*length).min(u32::from(u16::MAX)) }
        }
        ColumnType::Bytes { .. } | ColumnType::Vector { .. } => Step::Bytes { prefix },
        ColumnType::Uuid => Step::Uuid { prefix },
        ColumnType::Inet4 => Step::Inet4 { prefix },
        ColumnType::Inet6 => Step::Inet6 { prefix },
        _ => return Err(mismatch()),
    })
}

fn prefix_of(max_bytes: u16) -> Prefix {
    if max_bytes < 256 { 1 } else { 2 }
}

/// The schema's; where it has none, the table map's.
fn charset(wire: &MapColumn, column: &Column) -> Read<Charset> {
    let found = match (&column.charset, wire.collation) {
        (Some(name), _) => Charset::by_name(name),
        (None, Some(id)) => Charset::by_collation(id),
        (None, None) => return Err(Damage::of("its character set is not known")),
    };
    match found {
        Ok(charset) if charset.is_binary() => {
            Err(Damage::of("it is text in the known shape, binary in the log"))
        }
        Ok(charset) => Ok(charset),
        Err(e) => Err(Damage::of(e.to_string())),
    }
}
