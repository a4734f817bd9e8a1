//! Options for single tables: as written, by patterns of names, and resolved for one table.

use crate::config::Deletes;
use caudal_core::{Error, Result, TableId};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Options of the tables that a pattern names. Of several patterns that name a table the most exact one that says something about an
/// option decides it: one without `*` and `?` before others, then the longer one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableOptions {
    /// Name of the table here; `{database}` and `{table}` stand for the source's names. `rename` wins over it.
    pub name: Option<String>,
    /// Its schema; `{database}` stands for the source's database.
    pub schema: Option<String>,
    /// Which columns are written: `total`, `ship_*`, `!*_token`. A pattern with `!` excludes, and wins; with none but such, all others
    /// are written. Columns of the key must be among them.
    pub columns: Option<Vec<String>>,
    /// New names of columns, by the source's: `amt: amount`.
    pub rename: Option<BTreeMap<String, String>>,
    /// What deletes in the source do here; the sink's `deletes` unless told.
    pub deletes: Option<Deletes>,
    /// Keep every change as a row of its own, with `_op`, `_at`, `_position`, `_valid_from` and `_valid_to`, in place of the newest state.
    pub history: Option<bool>,
    /// Write to `_watermark` when the source committed the row as it is.
    pub watermark: Option<bool>,
    /// What becomes of the character 0x00 in text and JSON, which Postgres does not store.
    pub zero_characters: Option<ZeroCharacters>,
    /// What becomes of infinite numbers and of those that are none (NaN).
    pub infinite: Option<Infinite>,
    /// What becomes of numbers that the source's own column type does not hold.
    pub out_of_range: Option<OutOfRange>,
    /// What changes of the source's table do here.
    pub changes: Option<Changes>,
}

/// What becomes of the character 0x00.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ZeroCharacters {
    /// The row is rejected: a dead letter, or the sink parks, as `on_reject` says.
    #[default]
    Reject,
    /// It is left out.
    Remove,
    /// It becomes U+FFFD, the replacement character.
    Replace,
}

/// What becomes of infinite numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Infinite {
    /// They are stored as such in `real` and `double precision`; the row is rejected where the column is `numeric`.
    #[default]
    Keep,
    /// They become NULL.
    Null,
    /// The row is rejected.
    Reject,
}

/// What becomes of numbers beyond their type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutOfRange {
    /// The row is rejected.
    #[default]
    Reject,
    /// They become NULL.
    Null,
}

/// What changes of the source's table do here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Changes {
    /// The table follows: columns are added, renamed and widened. A change that no type holds stops the sink.
    #[default]
    Apply,
    /// The table stays as it is: columns that came later, or that it cannot hold any more, are not written.
    Ignore,
    /// Rows in another shape are rejected, with what has changed, until `apply` or `ignore` is chosen.
    Quarantine,
}

/// A table's options, all decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableRules {
    pub(crate) name: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) columns: Vec<String>,
    pub(crate) rename: BTreeMap<String, String>,
    pub(crate) deletes: Deletes,
    pub(crate) history: bool,
    pub(crate) watermark: bool,
    pub(crate) zero_characters: ZeroCharacters,
    pub(crate) infinite: Infinite,
    pub(crate) out_of_range: OutOfRange,
    pub(crate) changes: Changes,
}

impl TableRules {
    /// Whether rows are written as they come: neither columns nor values nor what an event does is changed.
    pub(crate) fn as_they_come(&self) -> bool {
        self.columns.is_empty()
            && self.rename.is_empty()
            && self.deletes != Deletes::Soft
            && !self.history
            && !self.watermark
            && self.values_as_they_come()
    }

    pub(crate) fn values_as_they_come(&self) -> bool {
        self.zero_characters == ZeroCharacters::Reject
            && self.infinite == Infinite::Keep
            && self.out_of_range == OutOfRange::Reject
    }

    /// Whether a column is written.
    pub(crate) fn takes(&self, column: &str) -> bool {
        let (not, only): (Vec<&str>, Vec<&str>) =
            self.columns.iter().map(String::as_str).partition(|pattern| pattern.starts_with('!'));
        let named = only.is_empty() || only.iter().any(|pattern| glob(pattern, column));
        named && !not.iter().any(|pattern| glob(&pattern[1..], column))
    }
}

/// The patterns, from the most exact to the least.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    patterns: Vec<(String, TableOptions)>,
    deletes: Deletes,
}

impl Tables {
    /// # Errors
    /// `Config` with the option's name below `tables`, as (name, error).
    pub(crate) fn new(
        tables: &BTreeMap<String, TableOptions>,
        deletes: Deletes,
    ) -> Result<Self, (String, Error)> {
        for (pattern, options) in tables {
            options.check(pattern).map_err(|(option, error)| (format!("{pattern}{option}"), error))?;
        }
        let mut patterns: Vec<(String, TableOptions)> =
            tables.iter().map(|(pattern, options)| (pattern.clone(), options.clone())).collect();
        patterns.sort_by_key(|(pattern, _)| (pattern.contains(['*', '?']), usize::MAX - pattern.len()));
        Ok(Self { patterns, deletes })
    }

    /// Whether tables are written to schemas that are named here.
    pub(crate) fn name_schemas(&self) -> bool {
        self.patterns.iter().any(|(_, options)| options.schema.is_some())
    }

    /// What is said of a table.
    pub(crate) fn of(&self, id: &TableId) -> TableRules {
        let mut rules = TableRules { deletes: self.deletes, ..TableRules::default() };
        // The most exact comes last, and so has the last word.
        for (_, options) in self.patterns.iter().rev().filter(|(pattern, _)| is_of(pattern, id)) {
            let TableOptions {
                name,
                schema,
                columns,
                rename,
                deletes,
                history,
                watermark,
                zero_characters,
                infinite,
                out_of_range,
                changes,
            } = options.clone();
            rules.name = name.or(rules.name);
            rules.schema = schema.or(rules.schema);
            rules.columns = columns.unwrap_or(rules.columns);
            rules.rename = rename.unwrap_or(rules.rename);
            rules.deletes = deletes.unwrap_or(rules.deletes);
            rules.history = history.unwrap_or(rules.history);
            rules.watermark = watermark.unwrap_or(rules.watermark);
            rules.zero_characters = zero_characters.unwrap_or(rules.zero_characters);
            rules.infinite = infinite.unwrap_or(rules.infinite);
            rules.out_of_range = out_of_range.unwrap_or(rules.out_of_range);
            rules.changes = changes.unwrap_or(rules.changes);
        }
        rules
    }
}

impl TableOptions {
    fn check(&self, pattern: &str) -> Result<(), (String, Error)> {
        let at = |option: &str, error: Error| Err((option.to_owned(), error));
        let parts: Vec<&str> = pattern.split('.').collect();
        if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
            return at("", Error::config("is no table pattern").hint("write orders, fact_* or shop.orders"));
        }
        if self.columns.as_ref().is_some_and(|columns| columns.iter().any(|c| matches!(c.as_str(), "" | "!")))
        {
            return at(
                ".columns",
                Error::config("an empty name names no column").hint("write total, ship_* or !*_token"),
            );
        }
        for (from, to) in self.rename.iter().flatten() {
            if let Err(error) = crate::config::named("column", to, &[]) {
                return at(&format!(".rename.{from}"), error);
            }
        }
        let soft = self.deletes == Some(Deletes::Soft);
        if self.history == Some(true) && soft {
            return at(
                ".history",
                Error::config("a history says by itself what was deleted, and when")
                    .hint("leave `deletes: soft` or `history` out"),
            );
        }
        let exact = !pattern.contains(['*', '?']);
        if self.name.as_ref().is_some_and(|name| !exact && !name.contains("{table}")) {
            return at(
                ".name",
                Error::config("all tables of the pattern would have the same name")
                    .hint("let the name contain {table}"),
            );
        }
        for (option, name, marks) in [
            (".name", &self.name, &["{database}", "{table}"][..]),
            (".schema", &self.schema, &["{database}"]),
        ] {
            if let Some(Err(error)) = name.as_ref().map(|name| crate::config::named("table's", name, marks)) {
                return at(option, error);
            }
        }
        Ok(())
    }
}

/// Whether a pattern, `table` or `database.table`, names a table.
fn is_of(pattern: &str, id: &TableId) -> bool {
    match pattern.split_once('.') {
        Some((database, table)) => glob(database, &id.database) && glob(table, &id.table),
        None => glob(pattern, &id.table),
    }
}

/// `*` stands for any characters, `?` for one. Linear in time: one point to go back to, the last `*`.
fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(&c) if c == '?' || c == t[j] => (i, j) = (i + 1, j + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (i, j) = (at + 1, from + 1);
            }
        }
    }
    p[i..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(json: serde_json::Value) -> Result<Tables, (String, Error)> {
        Tables::new(&serde_json::from_value(json).unwrap(), Deletes::Apply)
    }

    #[test]
    fn each_option_is_decided_by_the_most_exact_pattern_that_says_it() {
        let tables = tables(serde_json::json!({
            "*": {"watermark": true, "deletes": "soft"},
            "fact_*": {"deletes": "apply", "schema": "facts"},
            "shop.fact_sales": {"name": "sales"},
        }));
        let tables = tables.unwrap();
        let of = |table: &str| tables.of(&TableId::new("shop", table));
        assert_eq!(
            of("fact_sales"),
            TableRules {
                name: Some("sales".to_owned()),
                schema: Some("facts".to_owned()),
                watermark: true,
                ..TableRules::default()
            }
        );
        assert_eq!(of("people").deletes, Deletes::Soft);
        assert_eq!(tables.of(&TableId::new("other", "fact_sales")).name, None);
    }

    #[test]
    fn columns_are_taken_by_patterns() {
        let takes = |columns: &[&str], column: &str| {
            let columns = columns.iter().map(|c| (*c).to_owned()).collect();
            TableRules { columns, ..TableRules::default() }.takes(column)
        };
        assert!(takes(&[], "a") && takes(&["!b*"], "a") && !takes(&["!b*"], "bc"));
        assert!(
            takes(&["a", "b*", "!*_t"], "bc") && !takes(&["a", "b*", "!*_t"], "b_t") && !takes(&["a"], "c")
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (json, place) in [
            (serde_json::json!({"a.b.c": {}}), "a.b.c"),
            (serde_json::json!({"t": {"columns": ["!"]}}), "t.columns"),
            (serde_json::json!({"t": {"rename": {"a": ""}}}), "t.rename.a"),
            (serde_json::json!({"t": {"history": true, "deletes": "soft"}}), "t.history"),
            (serde_json::json!({"t*": {"name": "one"}}), "t*.name"),
            (serde_json::json!({"t": {"schema": "{table}"}}), "t.schema"),
        ] {
            let (option, error) = tables(json).unwrap_err();
            assert_eq!(option, place);
            assert!(error.hint_text().is_some(), "{error}");
        }
    }
}
