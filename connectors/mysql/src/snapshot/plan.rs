//! How a table is read: the columns, the key's parts, the statements.

use crate::client::quoted;
use crate::schema::Known;
use crate::selection::Selection;
use crate::shape::Shape;
use crate::snapshot::bounds::{self, Part};
use caudal_core::{Result, TableId, TableSchema};
use mysql_async::Value;
use std::sync::Arc;

/// How one table is read.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The shape of its rows: without excluded columns.
    pub(crate) schema: Arc<TableSchema>,
    /// As the table is, and what of it goes out.
    pub(crate) shape: Shape,
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
    ///
    /// # Errors
    /// As for [`Shape::new`].
    pub(crate) fn new(known: &Known, selection: &Selection) -> Result<Self> {
        let shape = Shape::new(&known.schema, selection)?;
        let table = &known.table;
        let usable = table.key_index.as_ref().is_some_and(|i| !i.prefixed) && !known.schema.key.is_empty();
        let part = |&i: &u32| {
            let collation = table.collations.get(i as usize).and_then(Option::as_deref);
            bounds::part(&known.schema.columns[i as usize], collation)
        };
        Ok(Self {
            parts: usable.then(|| known.schema.key.iter().map(part).collect::<Option<Vec<_>>>()).flatten(),
            index: table.key_index.as_ref().map(|i| i.name.clone()),
            schema: Arc::clone(shape.out()),
            shape,
            estimated_rows: table.estimated_rows,
            row_bytes: table.row_bytes.max(1),
        })
    }

    /// The table.
    pub(crate) fn id(&self) -> &TableId {
        &self.schema.id
    }

    /// The statement of one chunk of at most `rows` rows: the table's columns, then the key's parts. One row more is asked for, which tells
    /// whether anything follows.
    pub(crate) fn chunk(&self, parts: &[Part], from: Option<&[Value]>, rows: u32) -> String {
        let condition = from.map(|key| bounds::behind(parts, key));
        let columns = format!("{}, ", self.columns());
        self.select(parts, &columns, condition.as_slice(), &format!("LIMIT {}", u64::from(rows) + 1))
    }

    /// For a table with a filter: the statement that finds the key of the chunk's last row, whether that passes the filter or not.
    /// Without it, a filter that few rows pass would make one chunk of the whole table.
    pub(crate) fn last_key(&self, parts: &[Part], from: Option<&[Value]>, rows: u32) -> String {
        let condition = from.map(|key| bounds::behind(parts, key));
        self.select(parts, "", condition.as_slice(), &format!("LIMIT 1 OFFSET {}", rows.max(1) - 1))
    }

    /// The rows of the chunk that pass the filter: behind `from`, up to `upto`, which is the table's end where there is none.
    pub(crate) fn filtered(&self, parts: &[Part], from: Option<&[Value]>, upto: Option<&[Value]>) -> String {
        let behind = from.map(|key| bounds::behind(parts, key));
        let upto = upto.map(|key| bounds::up_to(parts, key));
        let filter = self.shape.condition().map(str::to_owned);
        let conditions: Vec<String> = [behind, upto, filter].into_iter().flatten().collect();
        self.select(parts, &format!("{}, ", self.columns()), &conditions, "")
    }

    fn select(&self, parts: &[Part], columns: &str, conditions: &[String], limit: &str) -> String {
        let read: Vec<&str> = parts.iter().map(|p| p.read.as_str()).collect();
        let order: Vec<&str> = parts.iter().map(|p| p.order.as_str()).collect();
        let force = self.index.as_ref().map_or(String::new(), |i| format!(" FORCE INDEX ({})", quoted(i)));
        let conditions: Vec<String> = conditions.iter().map(|c| format!("({c})")).collect();
        let condition = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        format!(
            "SELECT {columns}{} FROM {}{force}{condition} ORDER BY {} {limit}",
            read.join(", "),
            self.name(),
            order.join(", "),
        )
    }

    /// The statement that reads all.
    pub(crate) fn whole(&self) -> String {
        let condition = self.shape.condition().map_or(String::new(), |c| format!(" WHERE {c}"));
        format!("SELECT {} FROM {}{condition}", self.columns(), self.name())
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
