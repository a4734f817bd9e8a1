//! Tables of the sink: created, taken over, and led on to new shapes, forward only.
//!
//! The newest shape seen is kept with the sink's state. Columns are matched by their id, so a rename is a rename; a column that the
//! source dropped stays, and takes NULL. A table that somebody else made is used if it holds every value, and is otherwise refused by
//! name; it is changed only when the source's table changes later. All of it happens under an advisory lock, and waits for table
//! locks no longer than `lock_timeout`.

use crate::catalog::{Present, Relation, is_key, schema_exists};
use crate::client::{Connection, Doing, Failure};
use crate::config::Consistency;
use crate::plan::{Plan, takes};
use crate::quote::{ident, literal, qualified};
use crate::state::{State, advisory, fnv};
use crate::types::{may_become_null, of};
use caudal_core::{Column, ColumnType, Error, Result, TableSchema};
use std::collections::HashMap;
use tokio_postgres::types::Type;

/// Brings the table of a shape about and plans how rows of it are written. Runs inside the caller's transaction.
pub(crate) struct Shaper<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) state: &'a State,
    pub(crate) schema: &'a TableSchema,
}

/// What is kept of a table: the newest shape.
struct Record {
    target: String,
    shape: TableSchema,
}

impl Shaper<'_> {
    /// The plan, once the table takes rows of this shape.
    ///
    /// # Errors
    /// `Config` for a table of another shape (naming the columns), missing privileges, or a name used twice.
    pub(crate) async fn ensure(&self) -> Result<Plan> {
        let config = self.connection.config();
        let (target_schema, target_table) = config.target_name(&self.schema.id)?;
        let place = (target_schema.as_str(), target_table.as_str());
        self.check_names()?;
        self.lock(place).await?;
        let record = self.record(place).await?;
        let relation = self.find(place).await?;
        let names = match (record, relation) {
            (None, None) => {
                self.create(place).await?;
                own_names(self.schema)
            }
            (None, Some(relation)) => {
                self.check_foreign(&relation, place)?;
                own_names(self.schema)
            }
            (Some(_), None) => return Err(self.vanished(place)),
            (Some(record), Some(_)) if newer(self.schema, &record.shape) => {
                self.lead_on(&record.shape, place).await?;
                own_names(self.schema)
            }
            (Some(record), Some(_)) => names_by_id(self.schema, &record.shape),
        };
        let relation = self.find(place).await?.ok_or_else(|| self.vanished(place))?;
        self.check_present(&relation, &names, place)?;
        self.check_constraints(&relation, place)?;
        let stage = self.stage_name(place);
        Ok(Plan::new(self.schema, &names, place, stage, &relation, config.json))
    }

    fn stage_name(&self, (schema, table): (&str, &str)) -> String {
        let config = self.connection.config();
        // One worker writes a sink: its stages are told apart by sink and table.
        let name = format!("stage_{:016x}_{:016x}", fnv(&config.name), fnv(&format!("{schema}.{table}")));
        self.state.stage(&name)
    }

    fn check_names(&self) -> Result<()> {
        match self.schema.columns.iter().find(|c| c.name.len() > 63) {
            None => Ok(()),
            Some(column) => Err(Error::config(format!(
                "{}: the column name {} is longer than the 63 bytes that Postgres keeps",
                self.schema.id, column.name
            ))
            .hint("rename the column in the source, or leave the table out")),
        }
    }

    async fn lock(&self, (schema, table): (&str, &str)) -> Result<()> {
        let number = advisory(&format!("{schema}.{table}"));
        self.run(&format!("SELECT pg_advisory_xact_lock({number})"), "lock the table's shape").await
    }

    async fn run(&self, sql: &str, doing: &str) -> Result<()> {
        let doing = format!("{doing} for {}", self.schema.id);
        self.connection.batch(sql).await.doing(self.connection.config(), doing)
    }

    async fn find(&self, (schema, table): (&str, &str)) -> Result<Option<Relation>> {
        let relation = Relation::find(self.connection, schema, table).await;
        relation.doing(self.connection.config(), format!("look at {schema}.{table}"))
    }

    /// The newest shape that was written to the table; refuses a name that another table of the source has.
    async fn record(&self, place: (&str, &str)) -> Result<Option<Record>> {
        let config = self.connection.config();
        let sql = format!(
            "SELECT source_table, target, shape FROM {} WHERE sink = $1 AND (source_table = $2 OR target = $3)",
            self.state.tables
        );
        let (source, target) = (self.schema.id.to_string(), qualified(place.0, place.1));
        let params =
            [(&config.name as _, Type::TEXT), (&source as _, Type::TEXT), (&target as _, Type::TEXT)];
        let rows = self.connection.query(&sql, &params).await.doing(config, "read the tables' shapes")?;
        let mut found = None;
        for row in &rows {
            let other: &str = row.get(0);
            if other != source {
                return Err(Error::config(format!("{source} and {other} would both be written to {target}"))
                    .field(config.field("rename"))
                    .hint(format!("give one another name: rename: {{ {source}: … }}")));
            }
            let shape: TableSchema = serde_json::from_str(row.get(2))
                .map_err(|e| Error::bug(format!("read the stored shape of {source}")).because(e))?;
            found = Some(Record { target: row.get(1), shape });
        }
        // Renamed in the configuration: the new table starts as a new one would.
        Ok(found.filter(|r| r.target == target))
    }

    async fn remember(&self, place: (&str, &str)) -> Result<()> {
        let config = self.connection.config();
        let sql = format!(
            "INSERT INTO {} (sink, source_table, target, version, generation, shape) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (sink, source_table) DO UPDATE SET target = excluded.target, version = excluded.version, \
             generation = excluded.generation, shape = excluded.shape",
            self.state.tables
        );
        let shape =
            serde_json::to_string(self.schema).map_err(|e| Error::bug("write a table's shape").because(e))?;
        let (source, target) = (self.schema.id.to_string(), qualified(place.0, place.1));
        let (version, generation) = (self.schema.version as i32, self.schema.generation as i32);
        let params = [
            (&config.name as _, Type::TEXT),
            (&source as _, Type::TEXT),
            (&target as _, Type::TEXT),
            (&version as _, Type::INT4),
            (&generation as _, Type::INT4),
            (&shape as _, Type::TEXT),
        ];
        self.connection.execute(&sql, &params).await.doing(config, "store a table's shape")?;
        Ok(())
    }

    fn vanished(&self, (schema, table): (&str, &str)) -> Error {
        let config = self.connection.config();
        Error::config(format!("table {schema}.{table} is gone: its rows cannot be continued")).hint(format!(
            "restore it; or, to copy it anew, delete the sink's rows in {0}.offsets and {0}.tables and restart",
            ident(&config.state_schema)
        ))
    }

    async fn create(&self, place: (&str, &str)) -> Result<()> {
        let json = self.connection.config().json;
        let mut parts: Vec<String> = self
            .schema
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let key = self.schema.key.contains(&(i as u32));
                let required = key || !column.nullable && !may_become_null(&column.ty);
                let null = if required { " NOT NULL" } else { "" };
                format!("{} {}{null}", ident(&column.name), of(&column.ty, json).sql)
            })
            .collect();
        if !self.schema.key.is_empty() {
            parts.push(self.primary_key());
        }
        // A privilege to create schemas is asked for even by IF NOT EXISTS, so it is not said where there is one.
        let config = self.connection.config();
        if !schema_exists(self.connection, place.0).await.doing(config, "look for the schema")? {
            self.run(&format!("CREATE SCHEMA IF NOT EXISTS {}", ident(place.0)), "create the schema").await?;
        }
        let mut sql = format!("CREATE TABLE {} ({})", qualified(place.0, place.1), parts.join(", "));
        if let Some(comment) = self.schema.comment.as_deref().filter(|c| !c.is_empty()) {
            sql.push_str(&format!(
                "; COMMENT ON TABLE {} IS {}",
                qualified(place.0, place.1),
                literal(&comment.replace('\0', ""))
            ));
        }
        self.run(&sql, "create the table").await?;
        tracing::info!(table = %self.schema.id, target = %qualified(place.0, place.1), "created the table");
        self.remember(place).await
    }

    fn primary_key(&self) -> String {
        let columns: Vec<String> = self.schema.key_columns().map(|c| ident(&c.name)).collect();
        format!("PRIMARY KEY ({})", columns.join(", "))
    }

    /// A table that somebody else made: everything that does not fit, in one message.
    fn check_foreign(&self, relation: &Relation, place: (&str, &str)) -> Result<()> {
        self.check_present(relation, &own_names(self.schema), place)
    }

    fn check_present(&self, relation: &Relation, names: &[String], place: (&str, &str)) -> Result<()> {
        if relation.kind != "r" && relation.kind != "p" {
            return Err(self.misfit(place, &["it is no table".to_owned()], None));
        }
        let problems = misfits(self.schema, relation, names, self.connection.config().json);
        if !problems.is_empty() {
            return Err(self.misfit(place, &problems, None));
        }
        let key: Vec<&str> = self.schema.key.iter().map(|k| names[*k as usize].as_str()).collect();
        if !key.is_empty() && !relation.has_key(&key) {
            let columns = key.iter().map(|k| ident(k)).collect::<Vec<_>>().join(", ");
            let fix = format!("ALTER TABLE {} ADD PRIMARY KEY ({columns})", qualified(place.0, place.1));
            let problem = format!("no primary key or unique index over just ({columns})");
            return Err(self.misfit(place, &[problem], Some(fix)));
        }
        Ok(())
    }

    fn misfit(&self, (schema, table): (&str, &str), problems: &[String], fix: Option<String>) -> Error {
        let config = self.connection.config();
        Error::config(format!(
            "table {schema}.{table} has another shape than {}: {}",
            self.schema.id,
            problems.join("; ")
        ))
        .field(config.field("rename"))
        .hint(fix.unwrap_or_else(|| {
            format!(
                "change those columns, move the table away, or write elsewhere: rename: {{ {}: … }}",
                self.schema.id
            )
        }))
    }

    /// Constraints that no order of writing could hold.
    fn check_constraints(&self, relation: &Relation, place: (&str, &str)) -> Result<()> {
        let config = self.connection.config();
        let by_key = config.consistency == Consistency::Key;
        let Some(reference) = relation.foreign_keys.iter().find(|f| by_key || !f.deferrable) else {
            return Ok(());
        };
        let name = ident(&reference.name);
        let target = qualified(place.0, place.1);
        let error = Error::config(format!(
            "foreign key {name} of {}.{} cannot be held: {}",
            place.0,
            place.1,
            if by_key {
                "with consistency: key, rows arrive in any order"
            } else {
                "it is checked at each statement"
            }
        ));
        Err(if by_key {
            error
                .hint(format!("ALTER TABLE {target} DROP CONSTRAINT {name}, or use consistency: transaction"))
        } else {
            error.hint(format!("ALTER TABLE {target} ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED"))
        })
    }

    /// From the stored shape to this newer one.
    async fn lead_on(&self, old: &TableSchema, place: (&str, &str)) -> Result<()> {
        let relation = self.find(place).await?.ok_or_else(|| self.vanished(place))?;
        let changes = self.changes(old, &relation)?;
        let target = qualified(place.0, place.1);
        let mut statements = Vec::new();
        let again = self.schema.generation > old.generation;
        if again {
            // A new generation is a new topic, which holds all rows under their new key.
            statements.push(format!("TRUNCATE {target}"));
            statements
                .extend(self.old_key(old, &relation).map(|name| format!("ALTER TABLE {target} {name}")));
        }
        statements.extend(changes.into_iter().map(|change| format!("ALTER TABLE {target} {change}")));
        if again && !self.schema.key.is_empty() && key_names(old) != key_names(self.schema) {
            statements.push(format!("ALTER TABLE {target} ADD {}", self.primary_key()));
        }
        if !statements.is_empty() {
            self.run(&statements.join("; "), "change the table's shape").await?;
            tracing::info!(table = %self.schema.id, version = self.schema.version, "changed the table's shape");
        }
        self.remember(place).await
    }

    /// Takes the old key away, where the new shape has another.
    fn old_key(&self, old: &TableSchema, relation: &Relation) -> Option<String> {
        let key = key_names(old);
        let unique = relation.uniques.iter().find(|u| u.plain && is_key(u, &key))?;
        (key != key_names(self.schema)).then(|| format!("DROP CONSTRAINT IF EXISTS {}", ident(&unique.name)))
    }

    /// `ALTER TABLE` actions, renames first.
    fn changes(&self, old: &TableSchema, relation: &Relation) -> Result<Vec<String>> {
        let before: HashMap<u32, &Column> = old.columns.iter().map(|c| (c.id, c)).collect();
        let mut renames = Vec::new();
        let mut changes = Vec::new();
        for (at, column) in self.schema.columns.iter().enumerate() {
            let was = before.get(&column.id).copied();
            let there = relation.column(was.map_or(&column.name, |w| &w.name));
            match (was, there) {
                (Some(was), Some(there)) => {
                    if was.name != column.name {
                        renames.push((was.name.clone(), column.name.clone()));
                    }
                    changes.extend(self.adapt(at, was, there)?);
                }
                (None, Some(there)) => changes.extend(self.adapt(at, column, there)?),
                (_, None) if relation.column(&column.name).is_some() => {}
                (_, None) => changes.push(self.add(column)),
            }
        }
        changes.extend(self.relax(old, relation));
        Ok(rename_order(renames).into_iter().chain(changes).collect())
    }

    fn add(&self, column: &Column) -> String {
        let ty = of(&column.ty, self.connection.config().json).sql;
        // Rows that are there already have the source's default too; without a table rewrite.
        let default = literal_default(column).map(|d| format!(" DEFAULT {d}")).unwrap_or_default();
        format!("ADD COLUMN {} {ty}{default}", ident(&column.name))
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
                .hint(format!(
                    "change the column's type in Postgres to {} and restart",
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

    /// Makes the stage table, or makes it anew where it has other columns. Runs inside the caller's transaction.
    pub(crate) async fn stage(connection: &Connection, state: &State, plan: &Plan) -> Result<(), Failure> {
        let wanted: Vec<(String, String)> =
            plan.stage_columns().into_iter().map(|(n, t)| (n, t.to_owned())).collect();
        let name = plan.stage.rsplit_once('.').map_or("", |(_, name)| name.trim_matches('"'));
        let there = Relation::find(connection, state.schema(), name).await?;
        if let Some(relation) = there {
            let columns: Vec<(String, String)> =
                relation.columns.iter().map(|c| (c.name.clone(), c.sql.clone())).collect();
            if columns == wanted {
                return Ok(());
            }
            connection.batch(&format!("DROP TABLE {}", plan.stage)).await?;
        }
        let columns: Vec<String> = wanted.iter().map(|(n, t)| format!("{n} {t}")).collect();
        // Vacuum has nothing to do here: the stage is truncated before each use.
        connection
            .batch(&format!(
                "CREATE UNLOGGED TABLE {} ({}) WITH (autovacuum_enabled = false)",
                plan.stage,
                columns.join(", ")
            ))
            .await
    }
}

fn key_names(schema: &TableSchema) -> Vec<&str> {
    schema.key_columns().map(|c| c.name.as_str()).collect()
}

fn own_names(schema: &TableSchema) -> Vec<String> {
    schema.columns.iter().map(|c| c.name.clone()).collect()
}

/// The names in the table for an older shape: those that its columns have now.
fn names_by_id(schema: &TableSchema, newest: &TableSchema) -> Vec<String> {
    let now: HashMap<u32, &str> = newest.columns.iter().map(|c| (c.id, c.name.as_str())).collect();
    schema
        .columns
        .iter()
        .map(|c| now.get(&c.id).map_or_else(|| c.name.clone(), |n| (*n).to_owned()))
        .collect()
}

fn newer(schema: &TableSchema, stored: &TableSchema) -> bool {
    (schema.generation, schema.version) > (stored.generation, stored.version)
}

/// What keeps rows of a shape out of a table.
pub(crate) fn misfits(
    schema: &TableSchema,
    relation: &Relation,
    names: &[String],
    json: crate::types::JsonAs,
) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, (column, name)) in schema.columns.iter().zip(names).enumerate() {
        let wanted = of(&column.ty, json).sql;
        match relation.column(name) {
            None => problems.push(format!("column {name} ({wanted}) is missing")),
            Some(there) if there.generated => {}
            Some(there) if !takes(there, column, json) => {
                problems.push(format!("column {name} is {}, which does not hold every {wanted}", there.sql));
            }
            Some(there) if there.not_null && column.nullable && !schema.key.contains(&(at as u32)) => {
                problems.push(format!("column {name} forbids NULL, the source allows it"));
            }
            Some(_) => {}
        }
    }
    for there in &relation.columns {
        if there.not_null && !there.has_default && !there.generated && !names.contains(&there.name) {
            problems
                .push(format!("column {} is not in the source, forbids NULL and has no default", there.name));
        }
    }
    problems
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
fn common_type(was: &Column, is: &Column, json: crate::types::JsonAs) -> Option<String> {
    let (old, new) = (of(&was.ty, json), of(&is.ty, json));
    let fits = |sql: &str| {
        crate::types::holds(sql, false, &old, None) && crate::types::holds(sql, false, &new, None)
    };
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
