//! Tables of the sink: created, taken over, and led on to new shapes, forward only.
//!
//! The newest shape seen is kept with the sink's state. Columns are matched by their id, so a rename is a rename; a column that the
//! source dropped stays, and takes NULL. A table that somebody else made is used if it holds every value, and is otherwise refused by
//! name; it is changed only when the source's table changes later. All of it happens under an advisory lock, and waits for table
//! locks no longer than `lock_timeout`.

mod change;
mod fit;
mod views;

pub(crate) use fit::misfits;

use crate::catalog::{Relation, schema_exists};
use crate::client::{Connection, Doing, Failure};
use crate::plan::{Plan, takes};
use crate::project::{Role, VALID};
use crate::quote::{ident, literal, qualified};
use crate::state::{State, advisory, fnv};
use crate::tables::Changes;
use crate::types::{may_become_null, of};
use caudal_core::{Error, Result, TableSchema};
use std::collections::HashMap;
use tokio_postgres::types::Type;

/// Brings the table of a shape about and plans how rows of it are written. Runs inside the caller's transaction.
pub(crate) struct Shaper<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) state: &'a State,
    pub(crate) schema: &'a TableSchema,
}

/// What became of a shape.
pub(crate) enum Ensured {
    /// The table takes its rows.
    Planned(Box<Plan>),
    /// Its rows are set aside; why.
    Quarantined(String),
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
    pub(crate) async fn ensure(&self) -> Result<Ensured> {
        let config = self.connection.config();
        let (target_schema, target_table) = config.target_name(&self.schema.id)?;
        let place = (target_schema.as_str(), target_table.as_str());
        self.check_names()?;
        self.lock(place).await?;
        let record = self.record(place).await?;
        let relation = self.find(place).await?;
        let rules = config.rules(&self.schema.id);
        let mut absent = Vec::new();
        let names = match (record, relation) {
            (None, None) => {
                self.create(place).await?;
                own_names(self.schema)
            }
            (None, Some(relation)) => {
                self.check_present(&relation, &own_names(self.schema), &[], place)?;
                own_names(self.schema)
            }
            (Some(_), None) => return Err(self.vanished(place)),
            (Some(record), Some(relation)) if newer(self.schema, &record.shape) => match rules.changes {
                Changes::Apply => {
                    self.lead_on(&record.shape, place).await?;
                    own_names(self.schema)
                }
                Changes::Ignore => {
                    absent = self.left_out(&record.shape, &relation)?;
                    names_by_id(self.schema, &record.shape)
                }
                Changes::Quarantine => {
                    let cause = changed(&record.shape, self.schema);
                    return Ok(Ensured::Quarantined(format!(
                        "the table has another shape: {cause}; `changes: quarantine` waits for `apply` or `ignore`"
                    )));
                }
            },
            (Some(record), Some(_)) if reshaped(self.schema, &record.shape) => {
                self.check_reshaping(&record.shape)?;
                self.lead_on(&record.shape, place).await?;
                own_names(self.schema)
            }
            (Some(record), Some(relation)) => {
                absent = if rules.changes == Changes::Ignore {
                    self.left_out(&record.shape, &relation)?
                } else {
                    self.look_back(&record.shape, &relation, place).await?
                };
                names_by_id(self.schema, &record.shape)
            }
        };
        let relation = self.find(place).await?.ok_or_else(|| self.vanished(place))?;
        self.check_present(&relation, &names, &absent, place)?;
        self.check_constraints(&relation, place)?;
        let stage = self.stage_name(place);
        let plan = Plan::new(self.schema, &names, place, stage, &relation, (config.json, &absent));
        Ok(Ensured::Planned(Box::new(plan)))
    }

    /// Columns that a table which stays as it is does not have, or does not hold any more.
    fn left_out(&self, stored: &TableSchema, relation: &Relation) -> Result<Vec<usize>> {
        let json = self.connection.config().json;
        let names = names_by_id(self.schema, stored);
        let mut absent = Vec::new();
        for (at, (column, name)) in self.schema.columns.iter().zip(&names).enumerate() {
            let known = stored.columns.iter().any(|c| c.id == column.id);
            let there = relation.column(name).filter(|_| known);
            if there.is_some_and(|there| there.generated || takes(there, column, json)) {
                continue;
            }
            if self.schema.key.contains(&(at as u32)) {
                return Err(Error::config(format!(
                    "{}: the key's column {} became {}, and `changes: ignore` keeps the table as it is",
                    self.schema.id, column.name, column.native
                ))
                .field(self.option("changes"))
                .hint("choose `changes: apply`"));
            }
            absent.push(at);
        }
        Ok(absent)
    }

    /// Whether the table can follow what the configuration says otherwise than before.
    fn check_reshaping(&self, stored: &TableSchema) -> Result<()> {
        let config = self.connection.config();
        let kept = |schema: &TableSchema| schema.columns.iter().any(|c| Role::of(c.id) == Some(Role::Seq));
        if kept(stored) != kept(self.schema) {
            return Err(Error::config(format!(
                "{}: a history and a table of rows are not of one shape",
                self.schema.id
            ))
            .field(self.option("history"))
            .hint(if config.is_shadow {
                "to go back to that table, set `history` back first".to_owned()
            } else {
                format!("caudal rebuild {} {}", config.name, self.schema.id)
            }));
        }
        let new =
            self.schema.columns.iter().find(|column| {
                Role::of(column.id).is_none() && stored.columns.iter().all(|c| c.id != column.id)
            });
        match new {
            Some(column) if !config.is_shadow => Err(Error::config(format!(
                "{}: column {} was not written until now: the rows that are there have no value for it",
                self.schema.id, column.name
            ))
            .field(self.option("columns"))
            .hint(format!("caudal rebuild {} {}", config.name, self.schema.id))),
            _ => Ok(()),
        }
    }

    /// Where an option of the table is written.
    fn option(&self, option: &str) -> String {
        self.connection.config().field(&format!("tables.{}.{option}", self.schema.id))
    }

    fn stage_name(&self, (schema, table): (&str, &str)) -> (String, String) {
        let config = self.connection.config();
        // One worker writes a sink: its stages are told apart by sink and table.
        let name = format!("stage_{:016x}_{:016x}", fnv(&config.name), fnv(&format!("{schema}.{table}")));
        let quoted = self.state.stage(&name);
        (name, quoted)
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
        self.connection.batch(sql).await.map_err(|failure| self.failed(failure, doing))
    }

    fn failed(&self, failure: Failure, doing: &str) -> Error {
        let doing = format!("{doing} for {}", self.schema.id);
        if failure.is_data() {
            // Rows that are there stand in the way; no event is to blame.
            let cause = failure.data_cause();
            return Error::config(format!("{doing}: {cause}"))
                .hint("mend the rows or the constraint; it is tried again");
        }
        failure.into_error(self.connection.config(), doing)
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
        let history = self.connection.config().rules(&self.schema.id).history;
        if history {
            parts.extend(self.validity());
        }
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
        if history {
            sql.push_str(&self.of_history(place));
        }
        self.run(&sql, "create the table").await?;
        tracing::info!(table = %self.schema.id, target = %qualified(place.0, place.1), "created the table");
        self.remember(place).await
    }

    /// Columns of a history that the server fills; none of other tables.
    pub(crate) fn validity(&self) -> Vec<String> {
        if !self.connection.config().rules(&self.schema.id).history {
            return Vec::new();
        }
        vec![
            format!("{} timestamptz GENERATED ALWAYS AS (\"_at\") STORED", ident(VALID[0])),
            format!("{} timestamptz", ident(VALID[1])),
        ]
    }

    /// What a history needs beside its table: an index of the versions that are valid, and the numbers of batches.
    pub(crate) fn of_history(&self, place: (&str, &str)) -> String {
        let lock = advisory(self.state.schema());
        let mut sql = format!(
            "; SELECT pg_advisory_xact_lock({lock}); CREATE SEQUENCE IF NOT EXISTS {}",
            self.state.history_sequence()
        );
        let key: Vec<String> = self
            .schema
            .key_columns()
            .filter(|column| Role::of(column.id).is_none())
            .map(|column| ident(&column.name))
            .collect();
        if !key.is_empty() {
            sql.push_str(&format!(
                "; CREATE INDEX ON {} ({}) WHERE {} IS NULL",
                qualified(place.0, place.1),
                key.join(", "),
                ident(VALID[1])
            ));
        }
        sql
    }

    pub(crate) fn primary_key(&self) -> String {
        let columns: Vec<String> = self.schema.key_columns().map(|c| ident(&c.name)).collect();
        format!("PRIMARY KEY ({})", columns.join(", "))
    }

    /// Makes the stage table, or makes it anew where it has other columns. Runs inside the caller's transaction.
    pub(crate) async fn stage(connection: &Connection, state: &State, plan: &Plan) -> Result<(), Failure> {
        let wanted: Vec<(String, String)> =
            plan.stage_columns().into_iter().map(|(n, t)| (n, t.to_owned())).collect();
        let there = Relation::find(connection, state.schema(), &plan.stage_name).await?;
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

/// Whether the configuration gives a shape other columns, or other names, than it had.
fn reshaped(schema: &TableSchema, stored: &TableSchema) -> bool {
    let columns = |s: &TableSchema| -> Vec<(u32, String)> {
        let mut columns: Vec<_> = s.columns.iter().map(|c| (c.id, c.name.clone())).collect();
        columns.sort_unstable();
        columns
    };
    (schema.generation, schema.version) == (stored.generation, stored.version)
        && columns(schema) != columns(stored)
}

/// What is different in a newer shape, for people.
fn changed(old: &TableSchema, new: &TableSchema) -> String {
    let mut told = Vec::new();
    for column in &new.columns {
        match old.columns.iter().find(|c| c.id == column.id) {
            None => told.push(format!("column {} was added", column.name)),
            Some(was) if was.name != column.name => {
                told.push(format!("column {} was renamed to {}", was.name, column.name));
            }
            Some(was) if was.ty != column.ty => {
                told.push(format!("column {} became {}", column.name, column.native));
            }
            Some(was) if was.nullable != column.nullable => {
                let what = if column.nullable { "allows" } else { "forbids" };
                told.push(format!("column {} {what} NULL", column.name));
            }
            Some(_) => {}
        }
    }
    let gone = old.columns.iter().filter(|c| new.columns.iter().all(|n| n.id != c.id));
    told.extend(gone.map(|column| format!("column {} was dropped", column.name)));
    if key_names(old) != key_names(new) {
        told.push("it has another key".to_owned());
    }
    if told.is_empty() { "another version".to_owned() } else { told.join(", ") }
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
