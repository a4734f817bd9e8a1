//! Shapes made from table maps with names.

use super::fit::{charset_of, column_fits, column_type};
use super::unknowable;
use crate::binlog::{MapColumn, TableMap};
use crate::discover::carries_charset;
use caudal_core::{Column, ColumnType, KeyKind, Result, TableId, TableSchema, UniqueKey};

/// A shape from a map with names. A column takes what the map does not say from the version before, else from now's.
pub(super) fn from_map(
    id: &TableId,
    map: &TableMap,
    old: Option<&TableSchema>,
    now: Option<&TableSchema>,
) -> Result<TableSchema> {
    let named = |schema: Option<&TableSchema>, name: &str| {
        schema.and_then(|s| s.columns.iter().find(|c| c.name == name).cloned())
    };
    let mut columns = Vec::with_capacity(map.columns.len());
    for (i, m) in map.columns.iter().enumerate() {
        let name = m.name.clone().ok_or_else(|| unknowable(id))?;
        let hint = [named(old, &name), named(now, &name)].into_iter().flatten().find(|c| column_fits(m, c));
        columns.push(hint.unwrap_or_else(|| bare_column(i as u32, name, m)));
    }
    let primary: Vec<u32> = map.primary_key.iter().map(|&(i, _)| i).collect();
    let (key_kind, key) =
        if primary.is_empty() { unique_key(&columns, old.or(now)) } else { (KeyKind::Primary, primary) };
    let known = old.or(now);
    Ok(TableSchema {
        id: id.clone(),
        version: 1,
        generation: 1,
        key,
        key_kind,
        unique_keys: unique_keys(&columns, known),
        foreign_keys: known.map(|s| s.foreign_keys.clone()).unwrap_or_default(),
        charset: known.and_then(|s| s.charset.clone()),
        comment: known.and_then(|s| s.comment.clone()),
        columns,
    })
}

/// The log does not name unique keys: one that is known stays, as long as its columns are there and cannot be NULL.
fn unique_key(columns: &[Column], known: Option<&TableSchema>) -> (KeyKind, Vec<u32>) {
    let find = |c: &Column| columns.iter().position(|k| k.name == c.name && !k.nullable).map(|i| i as u32);
    match known {
        Some(known) if known.key_kind == KeyKind::Unique => match known.key_columns().map(find).collect() {
            Some(key) => (KeyKind::Unique, key),
            None => (KeyKind::None, Vec::new()),
        },
        _ => (KeyKind::None, Vec::new()),
    }
}

/// Other unique keys that are known stay, as long as their columns are there.
fn unique_keys(columns: &[Column], known: Option<&TableSchema>) -> Vec<UniqueKey> {
    let Some(known) = known else { return Vec::new() };
    let place = |&i: &u32| {
        let name = &known.columns.get(i as usize)?.name;
        columns.iter().position(|c| c.name == *name).map(|i| i as u32)
    };
    let moved = |key: &UniqueKey| {
        Some(UniqueKey {
            name: key.name.clone(),
            columns: key.columns.iter().map(place).collect::<Option<_>>()?,
        })
    };
    known.unique_keys.iter().filter_map(moved).collect()
}

fn bare_column(index: u32, name: String, map: &MapColumn) -> Column {
    let ty = column_type(map, None);
    Column {
        id: index + 1,
        name,
        nullable: map.nullable,
        native: native_text(&ty),
        charset: charset_of(map).filter(|_| carries_charset(&ty)).map(str::to_owned),
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
        ty,
    }
}

/// How the server would write the type, for a column that exists in the log only.
pub(super) fn native_text(ty: &ColumnType) -> String {
    let int = |bits: u8| match bits {
        8 => "tinyint",
        16 => "smallint",
        24 => "mediumint",
        32 => "int",
        _ => "bigint",
    };
    let fraction = |name: &str, precision: u8| {
        if precision == 0 { name.to_owned() } else { format!("{name}({precision})") }
    };
    match ty {
        ColumnType::Bool => "tinyint(1)".to_owned(),
        ColumnType::Int { bits } => int(*bits).to_owned(),
        ColumnType::UInt { bits } => format!("{} unsigned", int(*bits)),
        ColumnType::Float32 => "float".to_owned(),
        ColumnType::Float64 => "double".to_owned(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Text { max_chars: Some(n) } => format!("varchar({n})"),
        ColumnType::Text { max_chars: None } => "longtext".to_owned(),
        ColumnType::Bytes { max_bytes: Some(n), fixed: true } => format!("binary({n})"),
        ColumnType::Bytes { max_bytes: Some(n), fixed: false } => format!("varbinary({n})"),
        ColumnType::Bytes { max_bytes: None, .. } => "longblob".to_owned(),
        ColumnType::Date => "date".to_owned(),
        ColumnType::Time { precision } => fraction("time", *precision),
        ColumnType::DateTime { precision } => fraction("datetime", *precision),
        ColumnType::Timestamp { precision } => fraction("timestamp", *precision),
        ColumnType::Year => "year".to_owned(),
        ColumnType::Json => "json".to_owned(),
        ColumnType::Enum { members } => format!("enum({})", labels(members)),
        ColumnType::Set { members } => format!("set({})", labels(members)),
        ColumnType::Bit { bits } => format!("bit({bits})"),
        ColumnType::Geometry => "geometry".to_owned(),
        ColumnType::Vector { dimensions } => format!("vector({dimensions})"),
        ColumnType::Uuid => "uuid".to_owned(),
        ColumnType::Inet4 => "inet4".to_owned(),
        ColumnType::Inet6 => "inet6".to_owned(),
    }
}

fn labels(members: &[String]) -> String {
    members.iter().map(|m| format!("'{}'", m.replace('\'', "''"))).collect::<Vec<_>>().join(",")
}
