//! Which rows of a table are captured: `filters: {orders: "status = 'paid' AND total >= 10"}`.

use super::pattern::TablePattern;
use crate::filter::Expression;
use caudal_core::{Error, Result, TableId};
use std::collections::BTreeMap;

/// By pattern. A row is captured if all filters whose pattern means its table are true of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<(TablePattern, String, Expression)>);

impl Filters {
    /// Reads the node; `database` is the one meant by patterns that name none.
    ///
    /// # Errors
    /// `Config`, naming the entry and, for an expression, the place.
    pub(crate) fn parse(node: &BTreeMap<String, String>, database: Option<&str>) -> Result<Self> {
        let one = |(table, text): (&String, &String)| {
            let pattern = TablePattern::parse(table, database).ok_or_else(|| {
                Error::config(format!("`{table}` is no table pattern"))
                    .hint("write it like `filters: {orders: \"status = 'paid'\"}`")
            })?;
            let expression =
                Expression::parse(text).map_err(|e| e.context(format!("the filter of `{table}`")))?;
            Ok((pattern, table.clone(), expression))
        };
        node.iter().map(one).collect::<Result<_>>().map(Self)
    }

    /// All filters of a table as one; none if it has none.
    pub(crate) fn of(&self, id: &TableId) -> Option<Expression> {
        let all: Vec<Expression> = self
            .0
            .iter()
            .filter(|(p, ..)| p.matches(&id.database, &id.table))
            .map(|(.., expression)| expression.clone())
            .collect();
        Expression::all(all)
    }

    /// Patterns that mean none of these tables.
    pub(crate) fn unmatched<'a>(&self, tables: impl Iterator<Item = &'a TableId> + Clone) -> Vec<String> {
        let idle = |(p, ..): &&(TablePattern, String, Expression)| {
            !tables.clone().any(|t| p.matches(&t.database, &t.table))
        };
        self.0.iter().filter(idle).map(|(_, text, _)| text.clone()).collect()
    }
}
