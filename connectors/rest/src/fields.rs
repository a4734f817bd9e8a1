//! The columns of a table: the store's, those that are declared, those that were inferred.

use crate::answer::{Answer, Fields, at};
use crate::config::Table;
use crate::types;
use caudal_core::{Column, ColumnType, Error, KeyKind, Result, TableSchema};
use std::sync::Arc;

/// The shape, from what is declared, what is known, and an answer's records.
///
/// # Errors
/// `Data` if there is nothing to tell the key's type by yet.
pub(crate) fn shape(
    table: &Table,
    known: Option<&Arc<TableSchema>>,
    answer: Option<&Answer>,
) -> Result<TableSchema> {
    let mut columns: Vec<(String, ColumnType)> = Vec::new();
    for name in table.store_columns.iter().map(|(column, _)| column) {
        columns.push((name.clone(), ColumnType::Text { max_chars: None }));
    }
    columns.extend(table.fields.iter().map(|field| (field.column.clone(), field.ty.clone())));
    if table.infer {
        for column in known.iter().flat_map(|known| &known.columns) {
            if !columns.iter().any(|(name, _)| *name == column.name) {
                columns.push((column.name.clone(), column.ty.clone()));
            }
        }
        let pinned = columns.len();
        answer.iter().for_each(|answer| infer(table, answer, pinned, &mut columns));
    }
    let find = |name: &String| {
        let found = columns.iter().position(|(column, _)| column == name).map(|i| i as u32);
        found.ok_or_else(|| {
            Error::data(format!("{}: no record has the field `{name}` of the key", table.id))
                .hint("correct `key`, or declare the field in `fields`")
        })
    };
    let key = table.key.iter().map(find).collect::<Result<Vec<_>>>()?;
    let column = |(i, (name, ty)): (usize, (String, ColumnType))| Column {
        id: i as u32 + 1,
        nullable: !key.contains(&(i as u32)),
        native: types::name(&ty),
        name,
        ty,
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    Ok(TableSchema {
        id: table.id.clone(),
        version: 1,
        generation: 1,
        columns: columns.into_iter().enumerate().map(column).collect(),
        key,
        key_kind: KeyKind::Configured,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    })
}

/// Adds what records have beside the first `pinned` columns.
fn infer(table: &Table, answer: &Answer, pinned: usize, columns: &mut Vec<(String, ColumnType)>) {
    for i in 0..answer.len() {
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(answer.record(i)) else { continue };
        for (name, value) in &fields.0 {
            if table.takes(name) {
                continue;
            }
            let at = columns.iter().position(|(column, _)| column == name);
            match at {
                Some(at) if at < pinned => {}
                Some(at) => {
                    if let Some(ty) = types::infer(value.get(), Some(&columns[at].1)) {
                        columns[at].1 = ty;
                    }
                }
                None => {
                    columns.extend(types::infer(value.get(), None).map(|ty| (name.clone().into_owned(), ty)))
                }
            }
        }
    }
}

/// Whether records have a field that the shape lacks, with a value.
pub(crate) fn has_more(table: &Table, schema: &TableSchema, fields: &Fields<'_>) -> bool {
    table.infer
        && fields.0.iter().any(|(name, value)| {
            value.get() != "null" && !table.takes(name) && !schema.columns.iter().any(|c| c.name == *name)
        })
}

/// A column's value in a record, as it stands; `null` if it is not there.
pub(crate) fn value<'a>(table: &Table, fields: &Fields<'a>, column: &str) -> &'a str {
    let Some(field) = table.fields.iter().find(|field| field.column == column) else {
        return fields.get(column).map_or("null", |value| value.get());
    };
    let (first, rest) = field.from.split_once('.').unwrap_or((&field.from, ""));
    fields.get(first).and_then(|value| at(value, rest)).map_or("null", |value| value.get())
}
