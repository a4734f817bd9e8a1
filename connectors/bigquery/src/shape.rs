//! What a table's columns are, and its key.

use crate::config::Table;
use crate::types::Field;
use caudal_core::{Column, Error, KeyKind, Result, TableSchema};

/// The shape of what a query gives. Version and numbers of columns are the engine's matter.
///
/// # Errors
/// `Config` for a type that is not known, or a key whose column is not there.
pub(crate) fn shape(
    table: &Table,
    fields: &[Field],
    key: &[String],
    key_kind: KeyKind,
) -> Result<TableSchema> {
    if fields.is_empty() {
        return Err(
            Error::config(format!("{}: nothing is selected", table.id)).hint("`query` must be one SELECT")
        );
    }
    let mut places = Vec::new();
    for name in key {
        let found = fields.iter().position(|field| field.name.eq_ignore_ascii_case(name));
        let at = found.ok_or_else(|| {
            Error::config(format!("{}: there is no column `{name}` for the key", table.id))
                .hint("correct `key`")
        })?;
        if !places.contains(&(at as u32)) {
            places.push(at as u32);
        }
    }
    let column = |(i, field): (usize, &Field)| {
        let ty = field.column_type().ok_or_else(|| {
            Error::config(format!(
                "{}: the column `{}` is of {}, which is not read",
                table.id,
                field.name,
                field.native()
            ))
            .hint("convert it in a `query`: TO_JSON_STRING(…) AS …, or CAST(… AS STRING) AS …")
        })?;
        Ok(Column {
            id: i as u32 + 1,
            name: field.name.clone(),
            ty,
            nullable: !field.is_required() && !places.contains(&(i as u32)),
            native: field.native(),
            charset: None,
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        })
    };
    Ok(TableSchema {
        id: table.id.clone(),
        version: 1,
        generation: 1,
        columns: fields.iter().enumerate().map(column).collect::<Result<_>>()?,
        key: places.clone(),
        key_kind,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    })
}

/// Whether rows with these fields have a shape's cells.
pub(crate) fn fits(schema: &TableSchema, fields: &[Field]) -> bool {
    schema.columns.len() == fields.len()
        && schema.columns.iter().zip(fields).all(|(column, field)| {
            column.name == field.name && field.column_type().is_some_and(|ty| ty == column.ty)
        })
}

/// A column by its name.
///
/// # Errors
/// `Config` if there is none.
pub(crate) fn column<'a>(schema: &'a TableSchema, name: &str) -> Result<(usize, &'a Column)> {
    let found = schema.columns.iter().enumerate().find(|(_, column)| column.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        Error::config(format!("{}: there is no column `{name}` to be polled by", schema.id))
            .hint("correct `column` or `partition`; a query must select it")
    })
}
