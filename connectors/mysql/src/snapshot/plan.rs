//! How a table is read: the columns, the key's parts, the statements.

use crate::client::quoted;
use crate::schema::Known;
use crate::selection::Selection;
use crate::shape::Shape;
use crate::snapshot::bounds::{self, Part};
use crate::value::Value;
use caudal_core::{Result, TableId, TableSchema};
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
    /// Of each column.
    collations: Vec<Option<String>>,
}

/// Behind this key, up to and with that one.
pub(crate) type Within<'a> = (Option<&'a [Value]>, Option<&'a [Value]>);

/// Which rows a chunk is to hold, beside its bounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter {
    /// SQL.
    pub(crate) condition: String,
    /// Its parameters.
    pub(crate) parameters: Vec<Value>,
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
            collations: table.collations.clone(),
        })
    }

    /// Of a table that only a model has.
    #[cfg(test)]
    pub(crate) fn of_model(schema: Arc<TableSchema>, estimated_rows: u64) -> Self {
        let parts = schema.key.iter().map(|&i| bounds::part(&schema.columns[i as usize], None)).collect();
        let shape = Shape::whole(Arc::clone(&schema));
        Self { schema, shape, parts, index: None, estimated_rows, row_bytes: 8, collations: Vec::new() }
    }

    /// The table.
    pub(crate) fn id(&self) -> &TableId {
        &self.schema.id
    }

    /// How columns, by name, are compared with values; none if one is not there or cannot be.
    pub(crate) fn parts_of(&self, columns: &[String]) -> Option<Vec<Part>> {
        let part = |name: &String| {
            let full = self.shape.full();
            let i = full.columns.iter().position(|c| c.name == *name)?;
            bounds::part(&full.columns[i], self.collations.get(i).and_then(Option::as_deref))
        };
        columns.iter().map(part).collect()
    }

    /// The statement of one chunk of at most `rows` rows: the table's columns, then the key's parts. One row more is asked for, which tells
    /// whether anything follows.
    pub(crate) fn chunk(
        &self,
        parts: &[Part],
        within: Within<'_>,
        filter: Option<&Filter>,
        rows: u32,
    ) -> String {
        format!(
            "SELECT {}, {} FROM {}{} ORDER BY {} LIMIT {}",
            self.columns(),
            read(parts),
            self.name(),
            self.within(parts, within, filter, true),
            order(parts),
            u64::from(rows) + 1
        )
    }

    /// The statement that gives the key of the row that is `rows` rows behind a bound, where a range may be cut.
    pub(crate) fn cut(&self, parts: &[Part], within: Within<'_>, rows: u64) -> String {
        format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT 1 OFFSET {rows}",
            read(parts),
            self.name(),
            self.within(parts, within, None, false),
            order(parts),
        )
    }

    /// `shaped`: only rows that the configuration's filter takes.
    fn within(
        &self,
        parts: &[Part],
        (from, to): Within<'_>,
        filter: Option<&Filter>,
        shaped: bool,
    ) -> String {
        // A condition may be served by another index.
        let index = self.index.as_ref().filter(|_| filter.is_none());
        let force = index.map_or(String::new(), |i| format!(" FORCE INDEX ({})", quoted(i)));
        let mut terms = Vec::new();
        terms.extend(from.map(|key| format!("({})", bounds::behind(parts, key))));
        terms.extend(to.map(|key| format!("({})", bounds::up_to(parts, key))));
        let condition = self.shape.condition().filter(|_| shaped);
        terms.extend(condition.map(|c| format!("({c})")));
        // On lines of its own: a comment in it ends there.
        terms.extend(filter.map(|f| format!("(\n{}\n)", f.condition)));
        let condition =
            if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
        format!("{force}{condition}")
    }

    /// The statement that gives the number of rows within bounds and the sum of a number made of each.
    pub(crate) fn sum(&self, parts: &[Part], within: Within<'_>, number: &str) -> String {
        let within = self.within(parts, within, None, true);
        format!("SELECT COUNT(*), CAST(COALESCE(SUM({number}), 0) AS CHAR) FROM {}{within}", self.name())
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

fn read(parts: &[Part]) -> String {
    parts.iter().map(|p| p.read.as_str()).collect::<Vec<_>>().join(", ")
}

fn order(parts: &[Part]) -> String {
    parts.iter().map(|p| p.order.as_str()).collect::<Vec<_>>().join(", ")
}
