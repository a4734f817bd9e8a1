//! Which columns of a table are captured: `!people.ssn`, `!*.*_token`, `orders.id`.
//!
//! Excluding is what keeps data out of the log, so it errs on the safe side: the names of a pattern are compared without regard to
//! case (the server's own rule for columns; for tables it depends on its file system).

use super::pattern::{glob_any_case, is_plain, is_system};
use caudal_core::{Error, Result, TableId, TableSchema};

/// The parsed patterns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    include: Vec<ColumnPattern>,
    exclude: Vec<ColumnPattern>,
}

#[derive(Clone, Debug)]
struct ColumnPattern {
    text: String,
    /// None: any database of the user's.
    database: Option<String>,
    table: String,
    column: String,
}

impl Columns {
    /// Reads patterns; `database` is the one meant by patterns that name none.
    ///
    /// # Errors
    /// `Config` for what is no pattern.
    pub(crate) fn parse(patterns: &[String], database: Option<&str>) -> Result<Self> {
        let mut columns = Self::default();
        for text in patterns {
            let (list, body) = match text.strip_prefix('!') {
                Some(body) => (&mut columns.exclude, body),
                None => (&mut columns.include, text.as_str()),
            };
            list.push(ColumnPattern::parse(body, database).ok_or_else(|| {
                Error::config(format!("`{text}` is no column pattern")).hint(
                    "write `table.column`, `database.table.column` or `*.column`, after `!` to exclude it",
                )
            })?);
        }
        Ok(columns)
    }

    /// Which of the table's columns are kept, in order. A table that no including pattern names keeps all columns but
    /// the excluded ones; the key's columns are kept wherever no pattern excludes them.
    ///
    /// # Errors
    /// `Config`, naming pattern, table and column, if a key column is excluded.
    pub(crate) fn kept(&self, schema: &TableSchema) -> Result<Vec<bool>> {
        let of = |p: &&ColumnPattern| p.is_of(&schema.id);
        let include: Vec<&ColumnPattern> = self.include.iter().filter(of).collect();
        let exclude: Vec<&ColumnPattern> = self.exclude.iter().filter(of).collect();
        let one = |(i, name): (usize, &str)| {
            let is_key = schema.key.contains(&(i as u32));
            match exclude.iter().find(|p| glob_any_case(&p.column, name)) {
                Some(pattern) if is_key => Err(key_excluded(pattern, &schema.id, name)),
                Some(_) => Ok(false),
                None => {
                    Ok(is_key || include.is_empty() || include.iter().any(|p| glob_any_case(&p.column, name)))
                }
            }
        };
        schema.columns.iter().map(|c| c.name.as_str()).enumerate().map(one).collect()
    }

    /// Patterns that mean no column of these tables: a wrong name may let through what should be excluded.
    pub(crate) fn unmatched<'a>(&self, tables: impl Iterator<Item = &'a TableSchema> + Clone) -> Vec<String> {
        let matched = |p: &ColumnPattern| {
            tables
                .clone()
                .any(|t| p.is_of(&t.id) && t.columns.iter().any(|c| glob_any_case(&p.column, &c.name)))
        };
        let excludes = self.exclude.iter().filter(|p| !matched(p)).map(|p| format!("!{}", p.text));
        excludes.chain(self.include.iter().filter(|p| !matched(p)).map(|p| p.text.clone())).collect()
    }
}

impl ColumnPattern {
    fn parse(text: &str, default: Option<&str>) -> Option<Self> {
        let parts: Vec<&str> = text.split('.').collect();
        let (database, table, column) = match parts[..] {
            [table, column] => (default.map(str::to_owned), table, column),
            [database, table, column] => (Some(database.to_owned()), table, column),
            _ => return None,
        };
        let empty = parts.iter().any(|p| p.is_empty());
        (!empty).then(|| Self {
            text: text.to_owned(),
            database,
            table: table.to_owned(),
            column: column.to_owned(),
        })
    }

    fn is_of(&self, id: &TableId) -> bool {
        let in_database = match &self.database {
            Some(pattern) => glob_any_case(pattern, &id.database),
            None => !is_system(&id.database),
        };
        in_database && glob_any_case(&self.table, &id.table)
    }
}

fn key_excluded(pattern: &ColumnPattern, id: &TableId, column: &str) -> Error {
    let fix = if is_plain(&pattern.text) {
        "remove the pattern; to hide the values of a key, give the table another key with `keys`"
    } else {
        "name the columns to exclude one by one, or write a pattern that does not mean the key"
    };
    Error::config(format!(
        "`!{}` excludes the column `{column}` of {id}, which is part of the key: rows could not be told apart",
        pattern.text
    ))
    .hint(fix)
}
