//! Numbers that go on from one version of a table's shape to the next.

use caudal_core::{Column, TableSchema};

/// Gives version, generation and column ids that continue those of the version before. A column keeps its id by its name; one
/// that alone changed its name, with place and type as they were, was renamed. A new one has an id that no column has had: who has not
/// seen the versions between would take it for the one that was dropped. With `added` (a statement since then has added a column) none is taken for renamed.
pub(super) fn numbered(mut schema: TableSchema, old: Option<&TableSchema>, added: bool) -> TableSchema {
    let Some(old) = old else { return schema };
    let mut next = old.first_new_column_id();
    let ids: Vec<u32> = schema
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            old.columns
                .iter()
                .find(|o| o.name == c.name)
                .map(|o| o.id)
                .or_else(|| renamed(&schema, old, i).filter(|_| !added))
                .unwrap_or_else(|| {
                    next += 1;
                    next - 1
                })
        })
        .collect();
    for (column, id) in schema.columns.iter_mut().zip(ids) {
        column.id = id;
    }
    let names = |s: &TableSchema| s.key_columns().map(|c| c.id).collect::<Vec<_>>();
    schema.generation = old.generation + u32::from(names(&schema) != names(old));
    schema.version = old.version;
    if schema != *old {
        schema.version += 1;
    }
    schema
}

fn renamed(new: &TableSchema, old: &TableSchema, i: usize) -> Option<u32> {
    let gone = |o: &&Column| !new.columns.iter().any(|c| c.name == o.name);
    let added = |c: &&Column| !old.columns.iter().any(|o| o.name == c.name);
    let before = old.columns.get(i).filter(gone)?;
    let alone = old.columns.iter().filter(gone).count() == 1 && new.columns.iter().filter(added).count() == 1;
    (alone && old.columns.len() == new.columns.len() && before.ty == new.columns[i].ty).then_some(before.id)
}
