//! From one shape of a table to the next.

use super::views::Views;
use super::{Shaper, key_names};
use crate::catalog::{Present, Relation, is_key};
use crate::client::Doing;
use crate::config::Deletes;
use crate::plan::takes;
use crate::project::Role;
use crate::quote::{ident, literal, qualified};
use crate::types::{JsonAs, holds, may_become_null, of};
use caudal_core::{Column, ColumnType, Error, Result, TableSchema};
use std::collections::HashMap;

impl Shaper<'_> {
    /// From the stored shape to this newer one.
    pub(super) async fn lead_on(&self, old: &TableSchema, place: (&str, &str)) -> Result<()> {
        let relation = self.find(place).await?.ok_or_else(|| self.vanished(place))?;
        let (renames, changes) = self.changes(old, &relation)?;
        let target = qualified(place.0, place.1);
        let alter = |change: &str| format!("ALTER TABLE {target} {change}");
        let mut first = Vec::new();
        let again = self.schema.generation > old.generation;
        if again && !self.outlives(old)? {
            // A new generation is a new topic, which holds all rows under their new key.
            first.push(format!("TRUNCATE {target}"));
            first.extend(self.old_key(old, &relation).map(|drop| alter(&drop)));
        }
        first.extend(renames.iter().map(|rename| alter(rename)));
        // One statement: whatever has to be written anew is written once.
        let mut then = Vec::new();
        let types = changes.iter().any(|change| change.contains(" TYPE "));
        then.extend((!changes.is_empty()).then(|| alter(&changes.join(", "))));
        if again && !self.schema.key.is_empty() && key_names(old) != key_names(self.schema) {
            then.push(alter(&format!("ADD {}", self.primary_key())));
        }
        if !first.is_empty() || !then.is_empty() {
            self.run_bounded(&target, &relation, (first, then), types).await?;
            tracing::info!(table = %self.schema.id, version = self.schema.version, "changed the table's shape");
        }
        self.remember(place).await
    }

    /// Makes a table that was made in a newer shape take rows of this older one: columns are widened to hold both. Gives the columns that were
    /// dropped before the table was made: it never had them.
    pub(super) async fn look_back(
        &self,
        newest: &TableSchema,
        relation: &Relation,
        place: (&str, &str),
    ) -> Result<Vec<usize>> {
        let json = self.connection.config().json;
        let names = super::names_by_id(self.schema, newest);
        let (mut absent, mut changes, mut types) = (Vec::new(), Vec::new(), false);
        for (at, (column, name)) in self.schema.columns.iter().zip(&names).enumerate() {
            let now = newest.columns.iter().find(|c| c.id == column.id);
            let key = self.schema.key.contains(&(at as u32));
            match (now, relation.column(name)) {
                (None, None) if !key => absent.push(at),
                (Some(now), Some(there)) if !there.generated => {
                    if !takes(there, column, json)
                        && let Some(ty) = common_type(column, now, json)
                    {
                        changes.push(format!("ALTER COLUMN {0} TYPE {ty} USING {0}::{ty}", ident(name)));
                        types = true;
                    }
                    if there.not_null && !key && column.nullable {
                        changes.push(format!("ALTER COLUMN {} DROP NOT NULL", ident(name)));
                    }
                }
                _ => {}
            }
        }
        // A column of a type that nothing holds together with the newer one is told by whoever looks at the table next.
        if !changes.is_empty() {
            let target = qualified(place.0, place.1);
            let alter = format!("ALTER TABLE {target} {}", changes.join(", "));
            self.run_bounded(&target, relation, (Vec::new(), vec![alter]), types).await?;
        }
        Ok(absent)
    }

    /// Whether rows stay that the new topic may not hold: what was deleted, and what was before.
    fn outlives(&self, old: &TableSchema) -> Result<bool> {
        let rules = self.connection.config().rules(&self.schema.id);
        let outlives = rules.history || rules.deletes == Deletes::Soft;
        if outlives && key_names(old) != key_names(self.schema) {
            return Err(Error::config(format!(
                "{} has another key: rows that outlive their source's cannot follow",
                self.schema.id
            ))
            .field(self.option(if rules.history { "history" } else { "deletes" }))
            .hint(format!(
                "move the table away, and delete its row in {}.tables: a new one is begun",
                ident(&self.connection.config().state_schema)
            )));
        }
        Ok(outlives)
    }

    /// Runs a change of shape. The table's lock is waited for as others' locks are; once it is there, no statement may take longer than that
    /// either. Views are locked before their table, as readers do.
    async fn run_bounded(
        &self,
        target: &str,
        relation: &Relation,
        (first, then): (Vec<String>, Vec<String>),
        types: bool,
    ) -> Result<()> {
        let config = self.connection.config();
        const DOING: &str = "change the table's shape";
        let mut views = Views::default();
        if !first.is_empty() {
            self.run(&first.join("; "), DOING).await?;
        }
        if types {
            // Behind the renames: the views' texts have the columns' new names then.
            let found = Views::of(self.connection, relation).await;
            views = found.doing(config, format!("look for views of {target}"))?;
        }
        if then.is_empty() {
            return Ok(());
        }
        let drop: String = views.drop.iter().map(|drop| format!("{drop}; ")).collect();
        let then = [then, views.make].concat();
        let limited = format!(
            "{drop}LOCK TABLE {target} IN ACCESS EXCLUSIVE MODE; SET LOCAL statement_timeout = {}; {}; \
             SET LOCAL statement_timeout = 0",
            config.lock_timeout.as_millis(),
            then.join("; ")
        );
        match self.connection.batch(&limited).await {
            Err(failure) if failure.is_timeout() => {
                let by_hand = [first, views.drop, then].concat().join("; ");
                Err(Error::config(format!(
                    "a change of the shape of {} would lock its table for longer than {:?}; it was undone",
                    self.schema.id, config.lock_timeout
                ))
                .field(config.field("lock_timeout"))
                .hint(format!("run it at a quiet time, then the sink goes on by itself: {by_hand}")))
            }
            Err(failure) => Err(self.failed(failure, DOING)),
            Ok(()) => Ok(()),
        }
    }

    /// Takes the old key away, where the new shape has another.
    fn old_key(&self, old: &TableSchema, relation: &Relation) -> Option<String> {
        let key = key_names(old);
        let unique = relation.uniques.iter().find(|u| u.plain && is_key(u, &key))?;
        (key != key_names(self.schema)).then(|| format!("DROP CONSTRAINT IF EXISTS {}", ident(&unique.name)))
    }

    /// `ALTER TABLE` actions: renames, which stand alone, and all others.
    fn changes(&self, old: &TableSchema, relation: &Relation) -> Result<(Vec<String>, Vec<String>)> {
        let before: HashMap<u32, &Column> = old.columns.iter().map(|c| (c.id, c)).collect();
        let mut renames = Vec::new();
        let mut changes = Vec::new();
        for (at, column) in self.schema.columns.iter().enumerate() {
            let was = before.get(&column.id).copied();
            let there = relation.column(was.map_or(&column.name, |w| &w.name));
            match (was, there) {
                (Some(was), Some(there)) => {
                    if let Some(left) = self.left_behind(old, relation, &column.name)
                        && self.is_anew(at, left)
                    {
                        // Both stay: which is whose, only the values tell.
                        changes.extend(self.begin_anew(column, left, Some(&was.name)));
                        changes.extend(there.not_null.then(|| nullable(&was.name)));
                        continue;
                    }
                    if was.name != column.name {
                        renames.push((was.name.clone(), column.name.clone()));
                    }
                    changes.extend(self.adapt(at, was, there)?);
                }
                (None, Some(there)) if self.is_anew(at, there) => {
                    changes.extend(self.begin_anew(column, there, None))
                }
                (None, Some(there)) => changes.extend(self.adapt(at, column, there)?),
                (_, None) if relation.column(&column.name).is_some() => {}
                (_, None) => changes.push(self.add(column)),
            }
        }
        changes.extend(self.relax(old, relation));
        Ok((rename_order(renames), changes))
    }

    fn add(&self, column: &Column) -> String {
        let ty = of(&column.ty, self.connection.config().json).sql;
        // Rows that are there already have the source's default too; without a table rewrite.
        let default = literal_default(column).map(|d| format!(" DEFAULT {d}")).unwrap_or_default();
        format!("ADD COLUMN {} {ty}{default}", ident(&column.name))
    }

    /// Whether the table has a column by the name of a new one, with values that are not its: mostly those of one that the source dropped, and
    /// which stayed. What a history holds was true once.
    fn is_anew(&self, at: usize, there: &Present) -> bool {
        let column = &self.schema.columns[at];
        let key = self.schema.key.contains(&(at as u32));
        let history = self.connection.config().rules(&self.schema.id).history;
        !(key || history || there.generated || Role::of(column.id).is_some())
    }

    /// A column of the table by this name that is of no column of the shape: what the source dropped.
    fn left_behind<'r>(&self, old: &TableSchema, relation: &'r Relation, name: &str) -> Option<&'r Present> {
        let kept = |was: &&Column| self.schema.columns.iter().any(|column| column.id == was.id);
        let is_kept = old.columns.iter().filter(kept).any(|was| was.name == name);
        relation.column(name).filter(|_| !is_kept)
    }

    /// Gives such a column to all rows as adding it would, or with the values that are in the column `from`. Written anew in one go, so that its
    /// indexes and views stay.
    fn begin_anew(&self, column: &Column, there: &Present, from: Option<&str>) -> Vec<String> {
        tracing::warn!(
            table = %self.schema.id,
            column = column.name,
            "the target has a column of a new one's name, mostly of one that was dropped: its values are replaced"
        );
        let json = self.connection.config().json;
        let ty = if takes(there, column, json) { there.sql.clone() } else { of(&column.ty, json).sql };
        let (name, default) = (ident(&column.name), literal_default(column));
        let alter = |change: String| format!("ALTER COLUMN {name} {change}");
        let mut changes = vec![nullable(&column.name)];
        changes.extend(there.has_default.then(|| alter("DROP DEFAULT".to_owned())));
        let value = match from {
            Some(from) => ident(from),
            None => default.clone().unwrap_or_else(|| "NULL".to_owned()),
        };
        changes.push(alter(format!("TYPE {ty} USING {value}::{ty}")));
        changes.extend(default.map(|default| alter(format!("SET DEFAULT {default}"))));
        changes
    }

    /// Makes a column take the new shape's values.
    fn adapt(&self, at: usize, was: &Column, there: &Present) -> Result<Vec<String>> {
        let json = self.connection.config().json;
        let column = &self.schema.columns[at];
        let name = ident(&column.name);
        let mut changes = Vec::new();
        if !takes(there, column, json) {
            let ty = common_type(was, column, json).ok_or_else(|| {
                Error::config(format!(
                    "{}: column {} became {}, which {} cannot hold",
                    self.schema.id, column.name, column.native, there.sql
                ))
                .field(self.option("changes"))
                .hint(format!(
                    "`changes: ignore` keeps the column as it is and writes it no more, `changes: quarantine` sets the rows aside; \
                     or change the column's type in Postgres to {} yourself",
                    of(&column.ty, json).sql
                ))
            })?;
            changes.push(format!("ALTER COLUMN {name} TYPE {ty} USING {name}::{ty}"));
        }
        let key = self.schema.key.contains(&(at as u32));
        if there.not_null && !key && (column.nullable || may_become_null(&column.ty)) {
            changes.push(format!("ALTER COLUMN {name} DROP NOT NULL"));
        }
        Ok(changes)
    }

    /// Columns that the source dropped take NULL from now on.
    fn relax(&self, old: &TableSchema, relation: &Relation) -> Vec<String> {
        let gone = old.columns.iter().filter(|c| !self.schema.columns.iter().any(|n| n.id == c.id));
        gone.filter_map(|c| relation.column(&c.name))
            .filter(|there| there.not_null && !there.has_default)
            .filter(|there| !self.schema.columns.iter().any(|c| c.name == there.name))
            .map(|there| format!("ALTER COLUMN {} DROP NOT NULL", ident(&there.name)))
            .collect()
    }
}

fn nullable(column: &str) -> String {
    format!("ALTER COLUMN {} DROP NOT NULL", ident(column))
}

/// Renames in an order in which no name is taken: swaps go through a name of their own.
fn rename_order(renames: Vec<(String, String)>) -> Vec<String> {
    let taken = |name: &str| renames.iter().any(|(from, _)| from == name);
    let action = |from: &str, to: &str| format!("RENAME COLUMN {} TO {}", ident(from), ident(to));
    let (through, plain): (Vec<_>, Vec<_>) = renames.iter().partition(|(_, to)| taken(to));
    let aside = |i: usize| format!("caudal_renamed_{i}");
    let mut actions: Vec<String> =
        through.iter().enumerate().map(|(i, (from, _))| action(from, &aside(i))).collect();
    actions.extend(plain.iter().map(|(from, to)| action(from, to)));
    actions.extend(through.iter().enumerate().map(|(i, (_, to))| action(&aside(i), to)));
    actions
}

/// A type that holds the values of both shapes of a column.
fn common_type(was: &Column, is: &Column, json: JsonAs) -> Option<String> {
    let (old, new) = (of(&was.ty, json), of(&is.ty, json));
    let fits = |sql: &str| holds(sql, false, &old, None) && holds(sql, false, &new, None);
    [new.sql.as_str(), "numeric", "text"].into_iter().find(|sql| fits(sql)).map(str::to_owned)
}

/// The column's default as SQL, where it is a plain number or text. Sources write texts with or without quotes; what may be an
/// expression is left out.
fn literal_default(column: &Column) -> Option<String> {
    let text = column.default.as_deref()?;
    let quoted = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\''));
    let plain = quoted.unwrap_or(text);
    match &column.ty {
        ColumnType::Int { .. }
        | ColumnType::UInt { .. }
        | ColumnType::Decimal { .. }
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Year => plain.parse::<f64>().ok().filter(|n| n.is_finite()).map(|_| plain.to_owned()),
        ColumnType::Bool => match plain {
            "0" => Some("false".to_owned()),
            "1" => Some("true".to_owned()),
            _ => None,
        },
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. } => {
            let word = plain.chars().all(|c| c.is_alphanumeric() || " _-".contains(c));
            let expression = plain.eq_ignore_ascii_case("null") || plain.starts_with("CURRENT");
            (quoted.is_some() && !plain.contains(['\'', '\\', '\0']) || word && !expression)
                .then(|| literal(plain))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_names_go_through_one_of_their_own() {
        let swap = vec![("a".to_owned(), "b".to_owned()), ("b".to_owned(), "a".to_owned())];
        let actions = rename_order(swap).join("; ");
        assert_eq!(
            actions,
            "RENAME COLUMN \"a\" TO \"caudal_renamed_0\"; RENAME COLUMN \"b\" TO \"caudal_renamed_1\"; \
             RENAME COLUMN \"caudal_renamed_0\" TO \"b\"; RENAME COLUMN \"caudal_renamed_1\" TO \"a\""
        );
    }

    #[test]
    fn only_defaults_that_are_surely_values_are_taken() {
        let column = |ty, default: &str| Column {
            id: 1,
            name: "c".to_owned(),
            ty,
            nullable: true,
            native: String::new(),
            charset: None,
            default: Some(default.to_owned()),
            generated: false,
            auto_increment: false,
            comment: None,
        };
        let text = || ColumnType::Text { max_chars: None };
        assert_eq!(literal_default(&column(ColumnType::Int { bits: 32 }, "7")), Some("7".to_owned()));
        assert_eq!(literal_default(&column(ColumnType::Int { bits: 32 }, "f(7)")), None);
        assert_eq!(literal_default(&column(text(), "'new'")), Some("E'new'".to_owned()));
        assert_eq!(literal_default(&column(text(), "new")), Some("E'new'".to_owned()));
        assert_eq!(literal_default(&column(text(), "uuid()")), None);
        assert_eq!(literal_default(&column(text(), "NULL")), None);
    }
}
