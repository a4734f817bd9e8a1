//! The sink's side of `caudal verify`: digests that the server makes itself, and rows that it compares with the source's.
//!
//! Rows are compared as applying would compare them: encoded by the same code, cast to the columns' types by the server, and different
//! where an upsert would write. Everything is read in transactions of one statement that may not write. Memory: the batch in
//! hand, encoded.

use crate::catalog::Relation;
use crate::client::{Connection, Doing, Param};
use crate::config::{Deletes, Resolved};
use crate::parameter::borrow;
use crate::plan::{Mapped, Plan};
use crate::prepare::{Options, Prepared, Rows};
use crate::project::{Projector, VALID};
use crate::quote::{ident, literal, qualified};
use crate::state::State;
use crate::tables::TableRules;
use async_trait::async_trait;
use caudal_core::compare::{Difference, DifferenceKind, Digest, Found, Range, SinkSide, Trace};
use caudal_core::{Batch, ColumnType, Error, LogPosition, Result, TableId, TableSchema};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// What each transaction begins with: nothing is written, and values are written in one way.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '300s'; \
     SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'; \
     SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1";

/// One comparison's connection and plans.
pub(crate) struct Side {
    connection: Connection,
    config: Arc<Resolved>,
    plans: HashMap<TableId, Plan>,
    projector: Arc<Projector>,
    /// Whether the sink's own tables were seen.
    has_state: bool,
}

impl Side {
    pub(crate) async fn open(config: &Arc<Resolved>) -> Result<Self> {
        let connection = Connection::open(config).await?;
        let projector = Arc::new(Projector::for_comparison(config.tables.clone()));
        Ok(Self {
            connection,
            config: Arc::clone(config),
            plans: HashMap::new(),
            projector,
            has_state: false,
        })
    }

    async fn query(&self, sql: &str, params: &[Param<'_>], doing: String) -> Result<Vec<Row>> {
        self.connection.batch(BEGIN).await.doing(&self.config, &doing)?;
        let rows = self.connection.query(sql, params).await.doing(&self.config, &doing);
        // Behind an error too: the connection serves the next table.
        let end = if rows.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.connection.batch(end).await.doing(&self.config, &doing);
        let rows = rows?;
        ended.map(|()| rows)
    }

    fn plan(&self, schema: &TableSchema) -> Result<&Plan> {
        self.plans.get(&schema.id).ok_or_else(|| Error::bug("compare a table that was not opened"))
    }

    /// Which rows a range is, in SQL.
    fn within(plan: &Plan, range: &Range) -> Result<String> {
        let key: Vec<&str> = plan.key.iter().map(|k| plan.columns[*k].name()).collect();
        let bound = |numbers: &[i128]| numbers.iter().map(i128::to_string).collect::<Vec<_>>().join(", ");
        let mut terms = Vec::new();
        for (end, sign) in [(&range.from, ">"), (&range.to, "<=")] {
            let Some(end) = end else { continue };
            let numbers = end.numbers.as_ref().filter(|numbers| numbers.len() == key.len());
            let numbers = numbers.ok_or_else(|| Error::bug("a range that only the source finds"))?;
            terms.push(format!("({}) {sign} ({})", key.join(", "), bound(numbers)));
        }
        Ok(if terms.is_empty() { "true".to_owned() } else { terms.join(" AND ") })
    }

    /// Plans the comparison; `without_new`: columns that are not there are left out. Gives the table's name and their names.
    async fn planned(
        &mut self,
        schema: &TableSchema,
        without_new: bool,
    ) -> Result<Option<(String, Vec<String>)>> {
        let (place, table) = self.config.target_name(&schema.id)?;
        let relation = Relation::find(&self.connection, &place, &table).await;
        let Some(relation) = relation.doing(&self.config, format!("look at {place}.{table}"))? else {
            return Ok(None);
        };
        let schema = self.projector.schema(&Arc::new(schema.clone()))?;
        let names: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
        let absent: Vec<usize> =
            (0..names.len()).filter(|column| relation.column(&names[*column]).is_none()).collect();
        let in_key = |column: &usize| schema.key.contains(&(*column as u32));
        if let Some(column) = absent.iter().find(|column| !without_new || in_key(column)) {
            return Err(Error::transient(format!("{place}.{table} has no column {}", names[*column]))
                .hint("the sink may not have come to the change that added it: see caudal status"));
        }
        let stage = (String::new(), String::new());
        let (place_of, json) = ((place.as_str(), table.as_str()), self.config.json);
        let mut plan = Plan::new(&schema, &names, place_of, stage, &relation, (json, &absent));
        let rules = self.config.rules(&schema.id);
        plan.only = alive(&rules);
        self.plans.insert(schema.id.clone(), plan);
        let absent = absent.into_iter().map(|column| names[column].clone()).collect();
        Ok(Some((format!("{place}.{table}"), absent)))
    }
}

/// Which rows of a table are those that the source has now, in SQL; none where all are.
pub(crate) fn alive(rules: &TableRules) -> Option<String> {
    if rules.history {
        return Some(format!("{} IS NULL AND \"_op\" <> 'd'", ident(VALID[1])));
    }
    (rules.deletes == Deletes::Soft).then(|| "NOT \"_deleted\"".to_owned())
}

#[async_trait]
impl SinkSide for Side {
    async fn open(&mut self, schema: &TableSchema) -> Result<Option<String>> {
        Ok(self.planned(schema, false).await?.map(|(name, _)| name))
    }

    async fn open_without_new(&mut self, schema: &TableSchema) -> Result<Option<(String, Vec<String>)>> {
        self.planned(schema, true).await
    }

    fn has_all_columns(&self, schema: &TableSchema) -> bool {
        let rules = self.projector.rules(&schema.id);
        if self.plans.get(&schema.id).is_some_and(|plan| plan.columns.iter().any(Mapped::is_absent)) {
            return false;
        }
        // Values that are replaced are not what the source's server sees.
        rules.values_as_they_come() && schema.columns.iter().all(|column| rules.takes(&column.name))
    }

    async fn complete_to_us(&mut self, table: &TableId) -> Result<Option<i64>> {
        let freshness = qualified(&self.config.state_schema, "freshness");
        if !self.has_state {
            // A sink that was never started has told nothing.
            let sql = "SELECT to_regclass($1) IS NOT NULL";
            let rows =
                self.query(sql, &[(&freshness, Type::TEXT)], "look for the freshness".to_owned()).await?;
            self.has_state = rows.first().is_some_and(|row| row.get(0));
            if !self.has_state {
                return Ok(None);
            }
        }
        let sql = format!(
            "SELECT (extract(epoch FROM complete_to) * 1000000)::bigint FROM {freshness} WHERE sink = $1 AND source_table = $2"
        );
        let table = table.to_string();
        let params = [(&self.config.name as _, Type::TEXT), (&table as _, Type::TEXT)];
        let rows = self.query(&sql, &params, "ask for the freshness".to_owned()).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    async fn digest(&mut self, schema: &TableSchema, range: &Range) -> Result<Digest> {
        let plan = self.plan(schema)?;
        let texts: Option<Vec<String>> =
            schema.columns.iter().zip(&plan.columns).map(|(c, m)| canonical(&c.ty, m.name())).collect();
        if schema.columns.len() != plan.columns.len() {
            return Err(Error::bug("the digest of a table with other columns"));
        }
        let texts = texts.ok_or_else(|| Error::bug("the digest of a column without a canonical text"))?;
        let marked = |text: &String| format!("coalesce(length({text})::text || ':' || {text}, 'N')");
        let row = texts.iter().map(marked).collect::<Vec<_>>().join(" || ");
        let sql = format!(
            "SELECT count(*), coalesce(sum(('x' || left(md5(convert_to({row}, 'UTF8')), 15))::bit(60)::bigint), 0)::text \
             FROM {} AS t WHERE {}",
            plan.compared_with(),
            Self::within(plan, range)?
        );
        let rows = self.query(&sql, &[], format!("ask for the digest of rows of {}", plan.name)).await?;
        let row = rows.first().ok_or_else(|| Error::bug("an aggregate without a row"))?;
        Ok(Digest { rows: row.get::<_, i64>(0) as u64, sum: row.get(1) })
    }

    async fn keys(
        &mut self,
        schema: &TableSchema,
        after: Option<&[String]>,
        most: u32,
    ) -> Result<Option<Vec<Vec<String>>>> {
        if self.config.rules(&schema.id).deletes == Deletes::Ignore {
            return Ok(None);
        }
        let plan = self.plan(schema)?;
        let sql = plan.keys(after.is_some(), most);
        let params: Vec<Param<'_>> =
            after.into_iter().flatten().map(|text| (text as _, Type::TEXT)).collect();
        let rows = self.query(&sql, &params, format!("read keys of {}", plan.name)).await?;
        Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
    }

    async fn trace(&mut self, schema: &TableSchema, key: &[String]) -> Result<Option<Trace>> {
        let plan = self.plan(schema)?;
        if key.is_empty() || key.len() != plan.key.len() {
            return Err(Error::config(format!("the key of {} has {} columns", schema.id, plan.key.len())));
        }
        let is = |(at, column): (usize, &usize)| plan.columns[*column].is_text(at + 1);
        let terms: Vec<String> = plan.key.iter().enumerate().map(is).collect();
        let sql = format!(
            "SELECT xmin::text, CASE WHEN current_setting('track_commit_timestamp') = 'on' \
             THEN pg_xact_commit_timestamp(xmin)::text END FROM {} WHERE {}{}",
            plan.target,
            terms.join(" AND "),
            plan.only.as_ref().map_or_else(String::new, |only| format!(" AND {only}"))
        );
        let params: Vec<Param<'_>> = key.iter().map(|text| (text as _, Type::TEXT)).collect();
        let rows = self.query(&sql, &params, format!("look for a row of {}", plan.name)).await?;
        Ok(rows.first().map(|row| Trace { transaction: row.get(0), committed: row.get(1) }))
    }

    async fn stands_at(&mut self, topic: &str) -> Result<Option<LogPosition>> {
        let state = State::new(&self.config.state_schema);
        let offsets = state.of_topic(&self.connection, &self.config.name, topic).await;
        offsets.doing(&self.config, "look where the sink stands").map(Some)
    }

    async fn compare(&mut self, batch: &mut Batch, schema: &TableSchema, range: &Range) -> Result<Found> {
        let options = Options {
            json: self.config.json,
            projector: Arc::clone(&self.projector),
            copy_rows: usize::MAX,
            copy_new_rows: usize::MAX,
        };
        self.projector.apply(batch)?;
        let prepared = Prepared::of(batch, 0..batch.events.len() as u32, &options);
        let plan = self.plan(schema)?;
        let doing = format!("compare rows of {}", plan.name);
        let surplus = range.is_shared()
            && self.config.rules(&schema.id).deletes != Deletes::Ignore
            && prepared.rejected.is_empty();
        let unstorable = prepared.rejected.len() as u64;
        let rows = match prepared.groups.first().map(|group| &group.upserts) {
            Some(Rows::Arrays(columns)) if columns.len > 0 => {
                let within = surplus.then(|| Self::within(plan, range)).transpose()?;
                let arrays = columns.arrays();
                self.query(&plan.compare(within.as_deref()), &borrow(&arrays), doing).await?
            }
            Some(Rows::Copy(..)) => {
                return Err(Error::config(format!("{}: a column's values cannot be compared", plan.name)));
            }
            _ if surplus => self.query(&plan.all_surplus(&Self::within(plan, range)?), &[], doing).await?,
            _ => Vec::new(),
        };
        Ok(Found { differences: rows.iter().map(difference).collect(), unstorable })
    }
}

fn difference(row: &Row) -> Difference {
    let kind = match row.get::<_, &str>(1) {
        "missing" => DifferenceKind::Missing,
        "surplus" => DifferenceKind::Surplus,
        _ => DifferenceKind::Different,
    };
    Difference { key: row.get(0), kind, columns: row.get(2), stamp: row.get(3) }
}

impl Plan {
    /// Compares rows given as arrays with the table's: key, kind, columns, stamp of each that differs. `within`: rows of the table there
    /// that are not given are surplus.
    fn compare(&self, within: Option<&str>) -> String {
        let values: Vec<String> =
            (0..self.columns.len()).map(|i| format!("{} AS v{i}", self.given(i))).collect();
        let arrays: Vec<String> = (1..=self.columns.len()).map(|i| format!("${i}")).collect();
        let names: Vec<String> = (0..self.columns.len()).map(|i| format!("c{i}")).collect();
        let equal: Vec<String> =
            self.key.iter().map(|k| format!("t.{} = s.v{k}", self.columns[*k].name())).collect();
        let key: Vec<String> = self
            .key
            .iter()
            .map(|k| format!("coalesce(t.{}, s.v{k})::text", self.columns[*k].name()))
            .collect();
        let differs: Vec<String> = self
            .compared()
            .map(|i| {
                let column = &self.columns[i];
                let (old, new) = (
                    column.comparable(&format!("t.{}", column.name())),
                    column.comparable(&format!("s.v{i}")),
                );
                let name = literal(&unquoted(column.name()));
                format!("CASE WHEN {old} IS DISTINCT FROM {new} THEN {name}::text END")
            })
            .collect();
        let stamp: Vec<String> = (0..self.columns.len()).map(|i| format!("s.v{i}::text")).collect();
        let first = self.key.first().copied().unwrap_or_default();
        let (join, table) = match within {
            Some(within) => ("FULL", format!("(SELECT * FROM {} AS t WHERE {within})", self.compared_with())),
            None => ("LEFT", self.compared_with()),
        };
        // A key is never NULL: so its first column tells on which side there is a row.
        format!(
            "WITH s AS MATERIALIZED (SELECT {values} FROM unnest({arrays}) AS u({names})), d AS ( \
             SELECT ARRAY[{key}] AS key, CASE WHEN t.{k0} IS NULL THEN 'missing' WHEN s.v{first} IS NULL THEN 'surplus' \
             ELSE 'different' END AS kind, array_remove(ARRAY[{differs}]::text[], NULL) AS columns, \
             CASE WHEN s.v{first} IS NULL THEN '' ELSE md5(ROW({stamp})::text) END AS stamp \
             FROM s {join} JOIN {table} AS t ON {equal}) \
             SELECT key, kind, CASE kind WHEN 'different' THEN columns ELSE '{{}}' END, stamp FROM d \
             WHERE kind <> 'different' OR columns <> '{{}}'",
            values = values.join(", "),
            arrays = arrays.join(", "),
            names = names.join(", "),
            key = key.join(", "),
            k0 = self.columns[first].name(),
            differs = differs.join(", "),
            stamp = stamp.join(", "),
            equal = equal.join(" AND "),
        )
    }

    /// The same where no row is given.
    fn all_surplus(&self, within: &str) -> String {
        let key: Vec<String> =
            self.key.iter().map(|k| format!("t.{}::text", self.columns[*k].name())).collect();
        format!(
            "SELECT ARRAY[{}], 'surplus', '{{}}'::text[], '' FROM {} AS t WHERE {within}",
            key.join(", "),
            self.compared_with()
        )
    }

    /// The texts of keys in their order, behind one that parameters give.
    fn keys(&self, after: bool, most: u32) -> String {
        let names: Vec<&str> = self.key.iter().map(|k| self.columns[*k].name()).collect();
        let texts: Vec<String> = names.iter().map(|name| format!("t.{name}::text")).collect();
        let given: Vec<String> =
            self.key.iter().enumerate().map(|(at, k)| self.columns[*k].of_text(at + 1)).collect();
        let names = names.iter().map(|name| format!("t.{name}")).collect::<Vec<_>>().join(", ");
        let behind = if after { format!(" WHERE ({names}) > ({})", given.join(", ")) } else { String::new() };
        format!(
            "SELECT ARRAY[{}] FROM {} AS t{behind} ORDER BY {names} LIMIT {most}",
            texts.join(", "),
            self.compared_with()
        )
    }

    /// The rows that a comparison looks at: those that are alive.
    fn compared_with(&self) -> String {
        match &self.only {
            Some(only) => format!("(SELECT * FROM {} WHERE {only})", self.target),
            None => self.target.clone(),
        }
    }
}

/// The name that [`ident`] has quoted.
fn unquoted(name: &str) -> String {
    let inner = name.strip_prefix('"').and_then(|n| n.strip_suffix('"')).unwrap_or(name);
    let plain = inner.replace("\"\"", "\"");
    debug_assert_eq!(ident(&plain), name);
    plain
}

/// The text of a column, as `caudal_core::compare` says; none where there is no such.
fn canonical(ty: &ColumnType, name: &str) -> Option<String> {
    if !caudal_core::compare::has_canonical_text(ty) {
        return None;
    }
    Some(match ty {
        ColumnType::Bool => format!("{name}::int::text"),
        ColumnType::Bytes { .. } => format!("encode({name}, 'hex')"),
        ColumnType::Date => format!("to_char({name}, 'YYYY-MM-DD')"),
        ColumnType::DateTime { .. } => format!("to_char({name}, 'YYYY-MM-DD HH24:MI:SS.US')"),
        ColumnType::Timestamp { .. } => {
            format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')")
        }
        _ => format!("{name}::text"),
    })
}
