//! What a table map of the log says of a column, and whether it fits a shape that is known.

use crate::binlog::{MapColumn, TableMap, WireType};
use crate::charset::Charset;
use crate::discover::carries_charset;
use caudal_core::{Column, ColumnType, KeyKind, TableSchema};

/// Whether rows with this map have this shape, as far as the map tells.
pub(super) fn fits(map: &TableMap, schema: &TableSchema) -> bool {
    map.columns.len() == schema.columns.len()
        && map.columns.iter().zip(&schema.columns).all(|(m, c)| column_fits(m, c))
        && (!map.full || key_fits(map, schema))
}

fn key_fits(map: &TableMap, schema: &TableSchema) -> bool {
    match schema.key_kind {
        KeyKind::Primary => map.primary_key.iter().map(|&(i, _)| i).eq(schema.key.iter().copied()),
        // The configuration's key stays, whatever keys the table has of its own.
        KeyKind::Configured => true,
        _ => map.primary_key.is_empty(),
    }
}

pub(super) fn column_fits(map: &MapColumn, column: &Column) -> bool {
    map.name.as_ref().is_none_or(|n| *n == column.name)
        && map.nullable == column.nullable
        && column_type(map, Some(column)) == column.ty
        && charset_of(map).is_none_or(|c| {
            !carries_charset(&column.ty) || column.charset.as_deref().is_none_or(|k| same_charset(k, c))
        })
}

/// utf8 is the old name of utf8mb3.
fn same_charset(a: &str, b: &str) -> bool {
    let new = |n| if n == "utf8" { "utf8mb3" } else { n };
    new(a) == new(b)
}

pub(super) fn charset_of(map: &MapColumn) -> Option<&'static str> {
    Charset::by_collation(map.collation?).ok().map(Charset::name)
}

/// The type of a map's column; `hint` tells what the log cannot (and, without metadata, signedness and character or not).
pub(super) fn column_type(map: &MapColumn, hint: Option<&Column>) -> ColumnType {
    let hinted = hint.map(|c| &c.ty);
    let unsigned = map.unsigned.unwrap_or(matches!(hinted, Some(ColumnType::UInt { .. })));
    match map.ty {
        WireType::Int(1) if !unsigned && hinted == Some(&ColumnType::Bool) => ColumnType::Bool,
        WireType::Int(bytes) if unsigned => ColumnType::UInt { bits: bytes * 8 },
        WireType::Int(bytes) => ColumnType::Int { bits: bytes * 8 },
        WireType::Float => ColumnType::Float32,
        WireType::Double => ColumnType::Float64,
        WireType::Decimal { precision, scale } => ColumnType::Decimal { precision, scale },
        WireType::Bit(bits) => ColumnType::Bit { bits: bits as u8 },
        WireType::Enum(_) => ColumnType::Enum { members: members(map, hinted) },
        WireType::Set(_) => ColumnType::Set { members: members(map, hinted) },
        WireType::Date => ColumnType::Date,
        WireType::Year => ColumnType::Year,
        WireType::Time(precision) => ColumnType::Time { precision },
        WireType::DateTime(precision) => ColumnType::DateTime { precision },
        WireType::Timestamp(precision) => ColumnType::Timestamp { precision },
        WireType::OldTime => ColumnType::Time { precision: hint_precision(hinted) },
        WireType::OldDateTime => ColumnType::DateTime { precision: hint_precision(hinted) },
        WireType::OldTimestamp => ColumnType::Timestamp { precision: hint_precision(hinted) },
        WireType::Char { max_bytes } => char_type(map, u32::from(max_bytes), hinted),
        WireType::VarChar { max_bytes, .. } => text_or_bytes(map, Some(u32::from(max_bytes)), false, hinted),
        WireType::Blob { .. } => text_or_bytes(map, None, false, hinted),
        WireType::Json { .. } => ColumnType::Json,
        WireType::Geometry { .. } => ColumnType::Geometry,
        WireType::Vector { .. } => ColumnType::Vector { dimensions: dimensions(map, hinted) },
    }
}

fn members(map: &MapColumn, hint: Option<&ColumnType>) -> Vec<String> {
    match hint {
        Some(ColumnType::Enum { members } | ColumnType::Set { members }) if map.members.is_empty() => {
            members.clone()
        }
        _ => map.members.clone(),
    }
}

fn hint_precision(hint: Option<&ColumnType>) -> u8 {
    match hint {
        Some(
            ColumnType::Time { precision }
            | ColumnType::DateTime { precision }
            | ColumnType::Timestamp { precision },
        ) => *precision,
        _ => 0,
    }
}

fn dimensions(map: &MapColumn, hint: Option<&ColumnType>) -> u32 {
    map.dimensions.unwrap_or(match hint {
        Some(ColumnType::Vector { dimensions }) => *dimensions,
        _ => 0,
    })
}

/// CHAR and BINARY; MariaDB lays out UUID and INET types as BINARY of their length.
fn char_type(map: &MapColumn, max_bytes: u32, hint: Option<&ColumnType>) -> ColumnType {
    match (max_bytes, hint) {
        (16, Some(ColumnType::Uuid)) => ColumnType::Uuid,
        (16, Some(ColumnType::Inet6)) => ColumnType::Inet6,
        (4, Some(ColumnType::Inet4)) => ColumnType::Inet4,
        _ => text_or_bytes(map, Some(max_bytes), true, hint),
    }
}

fn text_or_bytes(
    map: &MapColumn,
    max_bytes: Option<u32>,
    fixed: bool,
    hint: Option<&ColumnType>,
) -> ColumnType {
    let charset = map.collation.map(|_| charset_of(map));
    let binary = match charset {
        Some(name) => name == Some("binary"),
        None => matches!(hint, Some(ColumnType::Bytes { .. } | ColumnType::Vector { .. })),
    };
    if let (true, Some(vector @ ColumnType::Vector { .. })) = (binary, hint) {
        return vector.clone();
    }
    if binary {
        return ColumnType::Bytes { max_bytes, fixed };
    }
    let max_chars = max_bytes.map(|bytes| match (hint, charset.flatten()) {
        (Some(ColumnType::Text { max_chars: Some(n) }), Some(name)) if n * width(name) == bytes => *n,
        (Some(ColumnType::Text { max_chars: Some(n) }), None) => *n,
        (_, name) => bytes / name.map_or(1, width),
    });
    ColumnType::Text { max_chars }
}

/// Most bytes of one character.
fn width(charset: &str) -> u32 {
    match charset {
        "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" => 4,
        "utf8mb3" | "utf8" | "ujis" | "eucjpms" => 3,
        "ucs2" | "gbk" | "gb2312" | "big5" | "sjis" | "cp932" | "euckr" => 2,
        _ => 1,
    }
}
