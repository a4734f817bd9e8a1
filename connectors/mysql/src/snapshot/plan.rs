//! How a table is read: the columns, the key's parts, the statements.

use crate::client::quoted;
use crate::schema::Known;
use crate::snapshot::bounds::{self, Part};
use caudal_core::{TableId, TableSchema};
use std::sync::Arc;

/// How one table is read.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The shape of its rows.
    pub(crate) schema: Arc<TableSchema>,
    /// The key's parts; none: the table is read in one piece.
    pub(crate) parts: Option<Vec<Part>>,
    /// The server's index over them.
    index: Option<String>,
    /// Rows, as the server estimates.
    pub(crate) estimated_rows: u64,
    /// Bytes of a row, as the server estimates; at least 1.
    pub(crate) row_bytes: u64,
}

impl Plan {
    /// Of a table whose shape in `known.table` is that of `known.schema`.
    pub(crate) fn new(known: &Known) -> Self {
        let table = &known.table;
        let usable = table.key_index.as_ref().is_some_and(|i| !i.prefixed) && !known.schema.key.is_empty();
        let part = |&i: &u32| {
            let collation = table.collations.get(i as usize).and_then(Option::as_deref);
            bounds::part(&known.schema.columns[i as usize], collation)
        };
        Self {
            parts: usable.then(|| known.schema.key.iter().map(part).collect::<Option<Vec<_>>>()).flatten(),
            index: table.key_index.as_ref().map(|i| i.name.clone()),
            schema: Arc::clone(&known.schema),
            estimated_rows: table.estimated_rows,
            row_bytes: table.row_bytes.max(1),
        }
    }

    /// The table.
    pub(crate) fn id(&self) -> &TableId {
        &self.schema.id
    }

    /// The statement of one chunk of at most `rows` rows: the table's columns, then the key's parts. One row more is asked for, which tells
    /// whether anything follows.
    pub(crate) fn chunk(&self, parts: &[Part], behind: bool, rows: u32) -> String {
        let read: Vec<&str> = parts.iter().map(|p| p.read.as_str()).collect();
        let order: Vec<&str> = parts.iter().map(|p| p.order.as_str()).collect();
        let force = self.index.as_ref().map_or(String::new(), |i| format!(" FORCE INDEX ({})", quoted(i)));
        let condition = if behind { format!(" WHERE {}", bounds::behind(parts)) } else { String::new() };
        format!(
            "SELECT {}, {} FROM {}{force}{condition} ORDER BY {} LIMIT {}",
            self.columns(),
            read.join(", "),
            self.name(),
            order.join(", "),
            u64::from(rows) + 1
        )
    }

    /// The statement that reads all.
    pub(crate) fn whole(&self) -> String {
        format!("SELECT {} FROM {}", self.columns(), self.name())
    }

    /// The table's name in SQL.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", quoted(&self.id().database), quoted(&self.id().table))
    }

    fn columns(&self) -> String {
        // Named, not `*`: invisible columns are in the log too.
        self.schema.columns.iter().map(|c| quoted(&c.name)).collect::<Vec<_>>().join(", ")
    }
}
