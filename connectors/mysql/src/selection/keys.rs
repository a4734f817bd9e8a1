//! Keys that the configuration gives to tables: `keys: {db.table: [a, b]}`.

use super::pattern::TablePattern;
use caudal_core::{Error, KeyKind, Result, TableId, TableSchema};
use std::collections::BTreeMap;

/// By table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(BTreeMap<TableId, Vec<String>>);

impl Keys {
    /// Reads the node; `database` is the one meant by tables that name none.
    ///
    /// # Errors
    /// `Config`, naming the entry.
    pub(crate) fn parse(node: &BTreeMap<String, Vec<String>>, database: Option<&str>) -> Result<Self> {
        let mut keys = BTreeMap::new();
        for (table, columns) in node {
            let wrong = |why: &str| {
                Error::config(format!("`{table}`: {why}"))
                    .hint("write it like `keys: {shop.visits: [visitor, seen_at]}`")
            };
            let pattern = TablePattern::parse(table, database).ok_or_else(|| wrong("is no table"))?;
            let database =
                pattern.database.ok_or_else(|| wrong("names no database, and the url has none"))?;
            if !super::pattern::is_plain(&database) || !super::pattern::is_plain(&pattern.table) {
                return Err(wrong("a key is given to one table, not to a pattern"));
            }
            let mut seen: Vec<String> = columns.iter().map(|c| c.to_lowercase()).collect();
            seen.sort();
            seen.dedup();
            if columns.is_empty() || seen.len() != columns.len() {
                return Err(wrong("needs one column or more, each once"));
            }
            if keys.insert(TableId::new(database, pattern.table), columns.clone()).is_some() {
                return Err(wrong("is there twice"));
            }
        }
        Ok(Self(keys))
    }

    /// Whether the configuration gives this table its key.
    pub(crate) fn has(&self, id: &TableId) -> bool {
        self.0.contains_key(id)
    }

    /// Whether there is none at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tables that are named.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &TableId> {
        self.0.keys()
    }

    /// Gives the schema its configured key, if there is one.
    ///
    /// # Errors
    /// `Config`, naming table and column, if the table has no such column.
    pub(crate) fn apply(&self, schema: &mut TableSchema) -> Result<()> {
        let Some(columns) = self.0.get(&schema.id) else { return Ok(()) };
        let place = |name: &String| {
            let found = schema.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
            found.map(|i| i as u32).ok_or_else(|| missing(&schema.id, name))
        };
        schema.key = columns.iter().map(place).collect::<Result<_>>()?;
        schema.key_kind = KeyKind::Configured;
        Ok(())
    }
}

fn missing(id: &TableId, column: &str) -> Error {
    Error::config(format!("`keys` names the column `{column}` of {id}, which it does not have"))
        .field("keys")
        .hint(format!("correct the columns of `{id}` in `keys`, or remove the entry"))
}
