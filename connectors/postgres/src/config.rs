//! The sink's configuration: as written, then resolved. After [`Config::resolve`] nothing can be "invalid config".

use crate::ready::{Abc, PhantomZeros, Snapshot};
use crate::tables::{TableOptions, TableRules, Tables};
use crate::types::JsonAs;
use crate::url::Target;
use caudal_core::{DurationText, Error, Result, TableId};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Names are cut by Postgres, silently, beyond this many bytes (`NAMEDATALEN` - 1).
const NAME_BYTES: usize = 63;

/// A Postgres sink as written in the configuration.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `postgres://user:password@host:5432/database?sslmode=require`, with libpq's parameters: `sslmode` (`disable`, `prefer`,
    /// `require`, `verify-ca`, `verify-full`), `sslrootcert` (a file, or `system`), `connect_timeout`, `options`, ….
    pub url: String,
    /// Schema of the tables; `{database}` stands for the source's database.
    #[serde(default = "public")]
    pub schema: String,
    /// Name of each table; `{database}` and `{table}` stand for the source's names.
    #[serde(default = "table")]
    pub table: String,
    /// Names for single tables: `shop.orders: web_orders`. They win over `table`.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Options of single tables, by patterns of their names: `orders`, `fact_*`, `shop.orders`.
    #[serde(default)]
    pub tables: BTreeMap<String, TableOptions>,
    /// Whether readers may ever see a part of a source transaction.
    #[serde(default)]
    pub consistency: Consistency,
    /// What deletes in the source do here.
    #[serde(default)]
    pub deletes: Deletes,
    /// How JSON columns are created.
    #[serde(default)]
    pub json: JsonAs,
    /// Schema of Caudal's own tables (offsets, freshness, stage). A sink's name must be unique among all daemons that share it.
    #[serde(default = "caudal")]
    pub state_schema: String,
    /// After a long absence, or when a topic was made again, rows that the topic does not hold are swept away. More than so many
    /// percent of a table's rows are not (and the sink stops, with the reason): the topic may not be complete. 100: no limit.
    #[serde(default = "sweep_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub sweep_limit: u8,
    /// SQL that runs when given tables have advanced, in this order.
    #[serde(default)]
    pub after_load: Vec<AfterLoad>,
    /// How long `caudal rebuild` keeps the table that it has replaced, for `--rollback`.
    #[serde(default = "rollback_window")]
    pub rollback_window: DurationText,
    /// Longest wait for a lock that somebody else holds; then the batch is tried again later. A change of a table's shape holds its own lock
    /// no longer than this either: one that takes longer is undone, and told with the statements to run at a quiet time.
    #[serde(default = "lock_timeout")]
    pub lock_timeout: DurationText,
}

fn public() -> String {
    "public".to_owned()
}

fn table() -> String {
    "{table}".to_owned()
}

fn caudal() -> String {
    "caudal".to_owned()
}

fn sweep_limit() -> u8 {
    50
}

fn rollback_window() -> DurationText {
    DurationText::secs(24 * 3600)
}

fn lock_timeout() -> DurationText {
    DurationText::secs(30)
}

/// Whether readers may see a part of a source transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Never: database transactions end only where source transactions do.
    #[default]
    Transaction,
    /// They may, for moments; each row is right by itself.
    Key,
}

/// What deletes in the source do in the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deletes {
    /// Rows are deleted, tables truncated.
    #[default]
    Apply,
    /// Rows stay. An update of a key leaves the row under its old key behind.
    Ignore,
    /// Rows stay, with `_deleted` true and the time of the delete in `_deleted_at`; so do those of a truncated table.
    Soft,
}

/// Statements that run, in one transaction, when given tables have advanced.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AfterLoad {
    /// Its name in `caudal.after_load_runs`; unique within the sink.
    pub name: String,
    /// Tables, as `table` or `database.table` of the source; `*`: all.
    pub tables: Vec<String>,
    /// Statements and files, in this order.
    pub run: Vec<Step>,
    /// It runs when nothing has changed for so long,
    #[serde(default = "debounce")]
    pub debounce: DurationText,
    /// and at the latest so long after the first change.
    #[serde(default = "at_latest")]
    pub at_latest: DurationText,
    /// The longest that a run may take; then it is ended, and counts as failed.
    #[serde(default = "run_timeout")]
    pub timeout: DurationText,
    /// What follows a run that failed. The sink itself goes on in any case.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// One step of what runs after the load: one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// SQL; several statements are separated by `;`.
    pub sql: Option<String>,
    /// A file of SQL, read at each run.
    pub file: Option<PathBuf>,
    /// ABC classification of products by their sales.
    pub abc: Option<Abc>,
    /// Products that sell, with a stock of none.
    pub phantom_zeros: Option<PhantomZeros>,
    /// A history of a table, by the run or by the day.
    pub snapshot: Option<Snapshot>,
}

/// What follows a run that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is run again after 5 s, 10 s, … up to 10 minutes.
    #[default]
    Retry,
    /// It is run again when the tables have advanced again.
    Skip,
}

fn debounce() -> DurationText {
    DurationText::secs(5)
}

fn at_latest() -> DurationText {
    DurationText::secs(60)
}

fn run_timeout() -> DurationText {
    DurationText::secs(300)
}

// The URL holds a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}

/// A configuration that can be used.
#[derive(Clone)]
pub struct Resolved {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) rename: BTreeMap<String, String>,
    pub(crate) tables: Tables,
    pub(crate) consistency: Consistency,
    pub(crate) json: JsonAs,
    pub(crate) state_schema: String,
    pub(crate) sweep_limit: u8,
    pub(crate) after_load: Vec<AfterLoad>,
    pub(crate) rollback_window: Duration,
    pub(crate) lock_timeout: Duration,
    /// Whether a table is written that nobody reads yet.
    pub(crate) is_shadow: bool,
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved")
            .field("name", &self.name)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Checks the configuration of sink `name`.
    ///
    /// # Errors
    /// Fault `Config`, with the field.
    pub fn resolve(self, name: &str) -> Result<Resolved> {
        let at = |field: &str| format!("sinks.{name}.{field}");
        let target = Target::parse(&self.url).map_err(|e| e.field(at("url")))?;
        named("schema", &self.schema, &["{database}"]).map_err(|e| e.field(at("schema")))?;
        named("table", &self.table, &["{database}", "{table}"]).map_err(|e| e.field(at("table")))?;
        named("state schema", &self.state_schema, &[]).map_err(|e| e.field(at("state_schema")))?;
        if !self.table.contains("{table}") {
            return Err(Error::config("all tables would have the same name")
                .field(at("table"))
                .hint("let the name contain {table}; name single tables in `rename`"));
        }
        for (from, to) in &self.rename {
            let field = at(&format!("rename.{from}"));
            if from.split('.').count() != 2 {
                return Err(Error::config("is no table of the source")
                    .field(field)
                    .hint("write database.table: new_name"));
            }
            named("table", to, &[]).map_err(|e| e.field(field))?;
        }
        let tables = Tables::new(&self.tables, self.deletes)
            .map_err(|(option, error)| error.field(at(&format!("tables.{option}"))))?;
        if self.sweep_limit > 100 {
            return Err(Error::config("is no percentage")
                .field(at("sweep_limit"))
                .hint("0 to 100; 50 is the default"));
        }
        for (number, job) in self.after_load.iter().enumerate() {
            let field = at(&format!("after_load[{number}]"));
            job.check().map_err(|e| e.field(field.clone()))?;
            if self.after_load[..number].iter().any(|other| other.name == job.name) {
                return Err(Error::config(format!("the name {} is used twice", job.name))
                    .field(field)
                    .hint("give it another"));
            }
        }
        if self.lock_timeout.get().is_zero() {
            return Err(Error::config("a wait without end would stop the sink silently")
                .field(at("lock_timeout"))
                .hint("give a duration such as 30s"));
        }
        Ok(Resolved {
            name: name.to_owned(),
            target,
            schema: self.schema,
            table: self.table,
            rename: self.rename,
            tables,
            consistency: self.consistency,
            json: self.json,
            state_schema: self.state_schema,
            sweep_limit: self.sweep_limit,
            after_load: self.after_load,
            rollback_window: self.rollback_window.get(),
            // The server takes milliseconds in 31 bits.
            lock_timeout: self.lock_timeout.get().min(Duration::from_millis(i32::MAX as u64)),
            is_shadow: false,
        })
    }
}

impl AfterLoad {
    fn check(&self) -> Result<()> {
        if self.name.is_empty() || self.tables.is_empty() || self.run.is_empty() {
            return Err(Error::config("a name, tables and something to run are needed")
                .hint("after_load: [{ name: refresh, tables: [orders], run: [{ sql: REFRESH MATERIALIZED VIEW totals }] }]"));
        }
        for step in &self.run {
            step.check()?;
        }
        if self.timeout.get().is_zero() {
            return Err(
                Error::config("a run without end would stop all others").hint("give a time-out such as 300s")
            );
        }
        Ok(())
    }
}

impl Step {
    fn check(&self) -> Result<()> {
        let given = [
            self.sql.is_some(),
            self.file.is_some(),
            self.abc.is_some(),
            self.phantom_zeros.is_some(),
            self.snapshot.is_some(),
        ];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(Error::config("a step is just one of sql, file, abc, phantom_zeros, snapshot")
                .hint("run: [{ sql: … }, { file: /etc/caudal/totals.sql }]"));
        }
        self.abc.as_ref().map_or(Ok(()), Abc::check)?;
        self.phantom_zeros.as_ref().map_or(Ok(()), PhantomZeros::check)?;
        self.snapshot.as_ref().map_or(Ok(()), Snapshot::check)
    }
}

/// Checks a name; `marks` are the parts in braces that may occur.
pub(crate) fn named(what: &str, name: &str, marks: &[&str]) -> Result<()> {
    let plain = marks.iter().fold(name.to_owned(), |n, mark| n.replace(mark, ""));
    if plain.contains(['{', '}']) {
        let allowed = if marks.is_empty() { "none".to_owned() } else { marks.join(", ") };
        return Err(Error::config(format!("the {what} name has an unknown part in braces"))
            .hint(format!("allowed here: {allowed}")));
    }
    if name.is_empty() || plain.len() > NAME_BYTES || name.contains('\0') {
        return Err(
            Error::config(format!("a {what} name has 1 to {NAME_BYTES} bytes")).hint("choose another name")
        );
    }
    Ok(())
}

impl Resolved {
    /// Schema and table that a source's table is written to.
    ///
    /// # Errors
    /// Fault `Config` for a name that Postgres would cut.
    pub(crate) fn target_name(&self, id: &TableId) -> Result<(String, String)> {
        let rules = self.tables.of(id);
        let schema = rules.schema.as_ref().unwrap_or(&self.schema).replace("{database}", &id.database);
        let table = self.rename.get(&id.to_string()).cloned().unwrap_or_else(|| {
            let pattern = rules.name.as_ref().unwrap_or(&self.table);
            pattern.replace("{database}", &id.database).replace("{table}", &id.table)
        });
        for (part, field) in [(&schema, "schema"), (&table, "rename")] {
            if part.len() > NAME_BYTES {
                return Err(Error::config(format!(
                    "{id}: the name {part} is longer than {NAME_BYTES} bytes"
                ))
                .field(self.field(field))
                .hint(format!("give it a shorter one: rename: {{ {id}: … }}")));
            }
        }
        Ok((schema, table))
    }

    /// What is said of a table.
    pub(crate) fn rules(&self, id: &TableId) -> TableRules {
        self.tables.of(id)
    }

    pub(crate) fn field(&self, field: &str) -> String {
        format!("sinks.{}.{field}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> Config {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn defaults_put_tables_into_public_whole_transactions_at_a_time() {
        let r = config(serde_json::json!({"url": "postgres://u:p@h/db"})).resolve("s").unwrap();
        assert_eq!(
            r.target_name(&TableId::new("shop", "orders")).unwrap(),
            ("public".to_owned(), "orders".to_owned())
        );
        assert_eq!(r.consistency, Consistency::Transaction);
    }

    #[test]
    fn names_follow_the_patterns_and_single_tables_their_own() {
        let r = config(serde_json::json!({
            "url": "postgres://u:p@h/db", "schema": "{database}", "table": "raw_{table}",
            "rename": {"shop.orders": "web_orders"}
        }));
        let r = r.resolve("s").unwrap();
        let name = |t| r.target_name(&TableId::new("shop", t)).unwrap();
        assert_eq!(name("orders"), ("shop".to_owned(), "web_orders".to_owned()));
        assert_eq!(name("lines"), ("shop".to_owned(), "raw_lines".to_owned()));
        assert!(r.target_name(&TableId::new("shop", "x".repeat(60))).is_err(), "Postgres would cut it");
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            (serde_json::json!({"url": "mysql://u:p@h/db"}), "sinks.s.url"),
            (serde_json::json!({"url": "postgres://u:p@h/db", "schema": "{table}"}), "sinks.s.schema"),
            (serde_json::json!({"url": "postgres://u:p@h/db", "table": "one"}), "sinks.s.table"),
            (
                serde_json::json!({"url": "postgres://u:p@h/db", "rename": {"orders": "o"}}),
                "sinks.s.rename.orders",
            ),
        ] {
            let error = config(json).resolve("s").unwrap_err();
            assert_eq!(error.field_name(), Some(field));
            assert!(error.hint_text().is_some(), "{error}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let c = config(serde_json::json!({"url": "postgres://user:hush@h/db?bad=hush"}));
        assert!(!format!("{c:?}").contains("hush"));
        let error = c.resolve("s").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        let r = config(serde_json::json!({"url": "postgres://user:hush@h/db"})).resolve("s").unwrap();
        assert!(!format!("{r:?}").contains("hush"));
    }
}
