//! The source's configuration: as written, then resolved. After [`Config::resolve`] nothing can be "invalid config".

use crate::api::Api;
use crate::auth::Auth;
use crate::client::{Client, Dial, address, trust};
use crate::history::History;
use crate::names::Object;
use crate::prices::{LEAST, Prices};
use crate::statement::Statement;
use crate::storage::Storage;
use caudal_core::quantity::{DurationText, SizeText};
use caudal_core::{Error, Result, TableId};
use caudal_poll::schedule::zone_of;
use caudal_poll::{Mode, Schedule, ScheduleConfig};
use hyper::Uri;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// BigQuery, polled: each table is a table, a view or a query there. Topics and events are those of a capture.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The project that runs the queries, and pays for them: its id.
    pub project: String,
    /// The dataset of tables that name none.
    pub dataset: Option<String>,
    /// Where the dataset is: `US`, `southamerica-west1`. By default the service finds out.
    pub location: Option<String>,
    /// The JSON file of a service account's key, of a user or of an external account (workload identity federation). By default the file that
    /// GOOGLE_APPLICATION_CREDENTIALS names, else gcloud's own, else what the machine has (GCE, GKE with workload identity).
    pub credentials: Option<PathBuf>,
    /// In place of `credentials`: what is in the file.
    pub credentials_json: Option<String>,
    /// Another address than BigQuery's: an emulator's (`http://127.0.0.1:9050`), which is asked without credentials if none are named, or that of a private endpoint.
    pub endpoint: Option<String>,
    /// How results are read: `auto` takes the Storage Read API for those of more than 100,000 rows, and REST for smaller ones and where the account may not use the other, or it is not reached;
    /// `storage` and `rest` take one of them for all.
    pub read: ReadBy,
    /// Another address than the Storage Read API's: `http://127.0.0.1:9060`. With an `endpoint` of your own and without this, all is read by REST.
    pub storage_endpoint: Option<String>,
    /// What the log calls the database: topics are `<prefix>.<log_database>.<table>`. By default the source's name.
    pub log_database: Option<String>,
    /// The tables: name → table or query.
    #[schemars(with = "BTreeMap<String, TableConfig>")]
    pub tables: BTreeMap<String, TableConfig>,
    /// How many tables are read at a time. By default 2.
    pub max_concurrent: Option<usize>,
    /// How many answers of a table are fetched ahead: slices of its window by date, and pages. By default 2.
    pub parallel: Option<usize>,
    /// A query that would bill more is refused, and bills nothing: `10GiB`.
    #[schemars(with = "Option<String>")]
    pub maximum_bytes_billed: Option<SizeText>,
    /// What a TiB costs on demand, for the record of each run. By default 6.25 (US, in USD).
    pub price_per_tib: Option<f64>,
    /// Where capacity is paid rather than bytes: what a slot costs for an hour.
    pub price_per_slot_hour: Option<f64>,
    /// Whether the service may answer with the result of the same query from before, which bills nothing. By default yes.
    pub use_query_cache: Option<bool>,
    /// The time zone of dates, of times without a zone, and of schedules: `America/Lima`. By default UTC.
    pub zone: Option<String>,
    /// When tables are read that say nothing else, in place of `every`.
    pub schedule: Option<ScheduleConfig>,
    /// From the start of a table's run to the start of its next. By default 1h.
    #[schemars(with = "Option<String>")]
    pub every: Option<DurationText>,
    /// How long a query, and each page of its result, may take. By default 10m.
    #[schemars(with = "Option<String>")]
    pub timeout: Option<DurationText>,
    /// Most rows of an answer; the service gives fewer where they are large. By default 10000.
    pub page_rows: Option<u32>,
    /// How often a page is tried before its run has failed. Only what may pass by itself is tried again: `rateLimitExceeded`, `backendError`, 5xx, a broken connection. By
    /// default 3.
    pub attempts: Option<u32>,
    /// The greatest share of a table's known rows that one refresh may delete; an answer that lacks more is an error. By default 0.2.
    pub max_deleted_share: Option<f64>,
    /// Where hashes of the rows are kept, 24 bytes for each: to be kept from one start to the next, but never needed. By default
    /// `poll` in `data_dir`.
    pub dir: Option<PathBuf>,
    /// The source gives a sign of life at least so often. By default 10s.
    #[schemars(with = "Option<String>")]
    pub heartbeat: Option<DurationText>,
}

/// One table, or one query as a table.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// The table or view: `ventas`, `dataset.ventas`, `project.dataset.ventas`. By default one of the table's own name.
    pub from: Option<String>,
    /// In place of `from`: a SELECT. `{today}`, `{yesterday}`, `{now}`, `{from}` (where a sliding window begins), `{watermark}` (where an incremental one does)
    /// and what `params` names are bound as parameters, with a type if need be: `{from:DATE}`.
    pub query: Option<String>,
    /// The same, in a file. A relative path starts at the daemon's working folder.
    pub query_file: Option<PathBuf>,
    /// Values of the query's places: `{cartera: TEMPRANA}`.
    pub params: BTreeMap<String, String>,
    /// Of the table only these columns: others are not read, and not billed.
    pub columns: Vec<String>,
    /// The columns of the key; of a table by default the primary key that it declares.
    pub key: Vec<String>,
    /// Which rows a run reads.
    pub mode: ModeWritten,
    /// For `incremental`: a column that grows with every change of a row. For `sliding_window`: a column that holds a time. Best the one that the table is partitioned by: then only
    /// the partitions of the window are read, and billed.
    pub column: Option<String>,
    /// For `incremental`: how far below the highest value of the last run the next one begins, so that rows that came late are not missed; of a DATE in
    /// whole days, of a number seconds are units. By default 5m.
    #[schemars(with = "Option<String>")]
    pub overlap: Option<DurationText>,
    /// For `sliding_window`: how far back a run reads. By default a day.
    #[schemars(with = "Option<String>")]
    pub lookback: Option<DurationText>,
    /// A window is read in pieces of so long, several at a time: `7d`.
    #[schemars(with = "Option<String>")]
    pub slice: Option<DurationText>,
    /// The column that pieces are made by: a DATE, DATETIME or TIMESTAMP. By default `column`.
    pub partition: Option<String>,
    /// Where pieces begin of a window that has no begin (a refresh, the first run): `2024-01-01`. What is older is one piece.
    pub since: Option<String>,
    /// In place of the source's.
    #[schemars(with = "Option<String>")]
    pub maximum_bytes_billed: Option<SizeText>,
    /// In place of the source's.
    pub schedule: Option<ScheduleConfig>,
    /// In place of the source's.
    #[schemars(with = "Option<String>")]
    pub every: Option<DurationText>,
}

/// How results are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadBy {
    /// Large ones by the Storage Read API, small ones by REST.
    #[default]
    Auto,
    /// All by the Storage Read API.
    Storage,
    /// All by REST.
    Rest,
}

/// Which rows a run reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModeWritten {
    /// All; rows that are gone from two runs in a row are deleted.
    #[default]
    FullRefresh,
    /// Those whose column has grown. Deletes are not seen.
    Incremental,
    /// Those of the last days. Deletes are not seen.
    SlidingWindow,
    /// All, and all of them go out again, changed or not.
    Force,
    /// What `CHANGES` tells of a table with `enable_change_history`, deletes too; up to eleven minutes ago.
    Changes,
    /// What `APPENDS` tells of a table: rows that were added.
    Appends,
}

// The credentials, and values of parameters.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("project", &self.project)
            .field("tables", &self.tables.keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TableConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableConfig")
            .field("from", &self.from)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// A configuration that can be used.
pub(crate) struct Resolved {
    pub(crate) name: String,
    pub(crate) api: Api,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) zone: TimeZone,
    pub(crate) concurrent: usize,
    pub(crate) parallel: usize,
    pub(crate) prices: Prices,
    pub(crate) page_rows: u32,
    pub(crate) page_timeout: Duration,
    pub(crate) attempts: u32,
    pub(crate) most_deleted: f64,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) heartbeat: Duration,
}

/// One table.
pub(crate) struct Table {
    pub(crate) id: TableId,
    /// None of a table.
    pub(crate) statement: Option<Statement>,
    /// None of a query.
    pub(crate) object: Option<Object>,
    /// Empty: all.
    pub(crate) columns: Vec<String>,
    /// Empty: the primary key.
    pub(crate) key: Vec<String>,
    pub(crate) mode: Mode,
    /// The column of what is incremental.
    pub(crate) grows: Option<String>,
    /// Of what the service tells itself.
    pub(crate) history: Option<History>,
    pub(crate) slices: Option<Slices>,
    pub(crate) most_billed: Option<u64>,
    pub(crate) schedule: Schedule,
}

/// How a window is cut.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slices {
    pub(crate) column: String,
    pub(crate) step: Duration,
    /// Where they begin if the window does not say it.
    pub(crate) since: Option<Date>,
}

const SERVICE: &str = "https://bigquery.googleapis.com";
const PATH: &str = "/bigquery/v2";
const STORAGE: &str = "https://bigquerystorage.googleapis.com";
/// For one request: longer than the service holds an answer back.
const REQUEST: Duration = Duration::from_secs(90);
const DAY: Duration = Duration::from_secs(86_400);

fn wrong(field: &str, says: impl Into<String>) -> Error {
    Error::config(says).field(field.to_owned())
}

impl Config {
    /// Checks the configuration of source `name`.
    ///
    /// # Errors
    /// Fault `Config`, with the field.
    pub(crate) fn resolve(self, name: &str) -> Result<Resolved> {
        self.resolve_fields(name).map_err(|e| under(e, &format!("sources.{name}")))
    }

    fn resolve_fields(self, name: &str) -> Result<Resolved> {
        if !is_project(&self.project) {
            return Err(wrong("project", "is no id of a project").hint("project: mibot-222814"));
        }
        if self.tables.is_empty() {
            return Err(wrong("tables", "there are none")
                .hint("tables: {ventas: {key: [numero], mode: incremental, column: fecha}}"));
        }
        let most_deleted = self.max_deleted_share.unwrap_or(0.2);
        if !(0.0..=1.0).contains(&most_deleted) {
            return Err(wrong("max_deleted_share", "must be between 0 and 1"));
        }
        let within =
            |field: &str, value: Option<usize>, default: usize, most: usize| match value.unwrap_or(default) {
                value if (1..=most).contains(&value) => Ok(value),
                _ => Err(wrong(field, format!("must be between 1 and {most}"))),
            };
        let concurrent = within("max_concurrent", self.max_concurrent, 2, 32)?;
        let parallel = within("parallel", self.parallel, 2, 32)?;
        let page_rows = within("page_rows", self.page_rows.map(|n| n as usize), 10_000, 100_000)? as u32;
        let prices = self.prices()?;
        let zone = zone_of(self.zone.as_deref().unwrap_or("UTC"))?;
        let mut tables = Vec::new();
        for (table, config) in &self.tables {
            let id = TableId::new(self.log_database.clone().unwrap_or_else(|| name.to_owned()), table);
            let resolved = self.table(id, config, &zone);
            tables.push(Arc::new(resolved.map_err(|e| under(e, &format!("tables.{table}")))?));
        }
        let or = |text: Option<DurationText>, secs: u64| {
            text.map_or(Duration::from_secs(secs), DurationText::get).max(Duration::from_millis(500))
        };
        let timeout = or(self.timeout, 600);
        Ok(Resolved {
            name: name.to_owned(),
            api: self.api(name, timeout)?,
            tables,
            zone,
            concurrent,
            parallel,
            prices,
            page_rows,
            // A page waits for its query, and for a token.
            page_timeout: timeout + Duration::from_secs(60),
            attempts: self.attempts.unwrap_or(3).max(1),
            most_deleted,
            dir: self.dir.clone(),
            heartbeat: or(self.heartbeat, 10),
        })
    }

    fn prices(&self) -> Result<Prices> {
        let price = |field: &str, price: f64| match (0.0..1e6).contains(&price) {
            true => Ok(price),
            false => Err(wrong(field, "is no price")),
        };
        match (self.price_per_slot_hour, self.price_per_tib) {
            (Some(_), Some(_)) => {
                Err(wrong("price_per_slot_hour", "there is `price_per_tib`, too").hint("keep one of them"))
            }
            (Some(slots), None) => Ok(Prices::Slots(price("price_per_slot_hour", slots)?)),
            (None, bytes) => Ok(Prices::Bytes(price("price_per_tib", bytes.unwrap_or(6.25))?)),
        }
    }

    fn api(&self, name: &str, timeout: Duration) -> Result<Api> {
        let base = match &self.endpoint {
            Some(text) => {
                let given = address(text).filter(|uri| uri.query().is_none());
                given.ok_or_else(|| {
                    wrong("endpoint", "is no URL of a service").hint("endpoint: http://127.0.0.1:9050")
                })?
            }
            None => Uri::from_static(SERVICE),
        };
        let text = base.to_string();
        let text = text.trim_end_matches('/');
        let whole = if text.ends_with(PATH) { text.to_owned() } else { format!("{text}{PATH}") };
        let base: Uri = whole.parse().map_err(|_| wrong("endpoint", "is no URL of a service"))?;
        let tls = trust()?;
        let storage = self.storage()?.map(|base| Storage::new(Dial::http2(base, &tls), REQUEST));
        let auth = Auth::resolve(
            self.credentials_json.as_deref(),
            self.credentials.as_deref(),
            self.endpoint.is_some(),
            &tls,
        )?;
        let label: String =
            name.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(60).collect();
        Ok(Api {
            client: Client::new(base, tls, REQUEST),
            auth,
            project: self.project.clone(),
            location: self.location.clone(),
            dataset: self.dataset.clone().map(|dataset| match dataset.rsplit_once('.') {
                Some((project, dataset)) => (project.to_owned(), dataset.to_owned()),
                None => (self.project.clone(), dataset),
            }),
            use_cache: self.use_query_cache.unwrap_or(true),
            timeout,
            labels: json!({ "caudal_source": label }),
            storage,
            read: self.read,
        })
    }

    /// Where the Storage API is; none if it is not to be used.
    fn storage(&self) -> Result<Option<Uri>> {
        match (&self.storage_endpoint, &self.endpoint, self.read) {
            (.., ReadBy::Rest) => Ok(None),
            (Some(text), ..) => {
                let given = address(text).filter(|uri| uri.query().is_none() && uri.path() == "/");
                let wrong = || {
                    wrong("storage_endpoint", "is no URL of a service")
                        .hint("storage_endpoint: http://127.0.0.1:9060")
                };
                given.ok_or_else(wrong).map(Some)
            }
            (None, Some(_), ReadBy::Storage) => {
                Err(wrong("storage_endpoint", "is missing: `endpoint` is not BigQuery's own")
                    .hint("storage_endpoint: http://127.0.0.1:9060, or read: rest"))
            }
            (None, Some(_), ReadBy::Auto) => Ok(None),
            (None, None, _) => Ok(Some(Uri::from_static(STORAGE))),
        }
    }

    fn table(&self, id: TableId, config: &TableConfig, zone: &TimeZone) -> Result<Table> {
        let (statement, object) = self.statement(&id, config)?;
        if object.is_none() && config.key.is_empty() {
            return Err(
                wrong("key", "a query needs one").hint("name what tells its rows apart: key: [numero]")
            );
        }
        let mode = mode(config, statement.as_ref())?;
        let slices = slices(config)?;
        let every = |every: Option<DurationText>| {
            Schedule::Every(
                every.map_or(Duration::from_secs(3_600), DurationText::get).max(Duration::from_millis(100)),
            )
        };
        let schedule = match (&config.schedule, config.every, &self.schedule) {
            (Some(_), Some(_), _) => {
                return Err(wrong("every", "there is a `schedule`, too").hint("keep one of them"));
            }
            (Some(schedule), ..) => schedule.resolve(zone).map_err(|e| under(e, "schedule"))?,
            (None, None, Some(schedule)) => schedule.resolve(zone).map_err(|e| under(e, "schedule"))?,
            (None, own, _) => every(own.or(self.every)),
        };
        let most_billed = config.maximum_bytes_billed.or(self.maximum_bytes_billed).map(SizeText::bytes);
        if most_billed.is_some_and(|most| most < LEAST) {
            return Err(wrong("maximum_bytes_billed", "is less than the service bills for any table")
                .hint("10 MB is the least: maximum_bytes_billed: 10GiB"));
        }
        let grows = match &mode {
            Mode::Incremental { column, .. } if !column.is_empty() => Some(column.clone()),
            _ => None,
        };
        Ok(Table {
            id,
            statement,
            object,
            columns: config.columns.clone(),
            key: config.key.clone(),
            mode,
            grows,
            history: history(config.mode),
            slices,
            most_billed,
            schedule,
        })
    }

    fn statement(&self, id: &TableId, config: &TableConfig) -> Result<(Option<Statement>, Option<Object>)> {
        let sql = match (&config.query, &config.query_file, &config.from) {
            (Some(sql), None, None) => sql.clone(),
            (None, Some(path), None) => std::fs::read_to_string(path)
                .map_err(|e| wrong("query_file", format!("read {}", path.display())).because(e))?,
            (None, None, from) => {
                let text = from.as_deref().unwrap_or(&id.table);
                let (project, dataset) = match &self.dataset {
                    Some(dataset) => match dataset.rsplit_once('.') {
                        Some((project, dataset)) => (project, Some(dataset)),
                        None => (self.project.as_str(), Some(dataset.as_str())),
                    },
                    None => (self.project.as_str(), None),
                };
                let object = Object::parse(text, project, dataset).ok_or_else(|| {
                    wrong("from", "is no name of a table with its dataset")
                        .hint("from: dataset.table; or `dataset` of the source")
                })?;
                return Ok((None, Some(object)));
            }
            _ => {
                return Err(
                    wrong("query", "is one of several").hint("keep one of `from`, `query` and `query_file`")
                );
            }
        };
        Ok((Some(Statement::parse(sql.trim_start_matches('\u{feff}'), &config.params)?), None))
    }
}

/// Letters, digits, dashes; those of an organisation have `example.com:` in front.
fn is_project(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))
}

fn mode(config: &TableConfig, statement: Option<&Statement>) -> Result<Mode> {
    let column =
        || config.column.clone().ok_or_else(|| wrong("column", "names no column").hint("column: fecha_foto"));
    let tells_time = statement.is_some_and(Statement::tells_time);
    let asks = statement.is_some_and(Statement::asks_watermark);
    if asks && config.mode != ModeWritten::Incremental {
        return Err(wrong("query", "{watermark} is where an incremental window begins, and there is none")
            .hint("mode: incremental, with a `column`"));
    }
    let told = |overlap: Duration| {
        let overlap = config.overlap.map_or(overlap, DurationText::get);
        match (statement, &config.column) {
            (None, None) => Ok(Mode::Incremental { column: String::new(), overlap }),
            (Some(_), _) => {
                Err(wrong("mode", "changes are told of a table, not of a query").hint("use `from`"))
            }
            (None, Some(_)) => Err(wrong("column", "is not looked at: the service tells when a row changed")
                .hint("leave it out; pieces of the first run are by `partition`")),
        }
    };
    match config.mode {
        ModeWritten::Changes => told(Duration::ZERO),
        ModeWritten::Appends => told(Duration::from_secs(300)),
        ModeWritten::FullRefresh | ModeWritten::Force if tells_time => Err(wrong(
            "mode",
            "a refresh reads all rows, but the query asks for a part of them by a time: what is not in it would be deleted",
        )
        .hint("mode: sliding_window, with {from}")),
        ModeWritten::FullRefresh => Ok(Mode::FullRefresh),
        ModeWritten::Force => Ok(Mode::Force),
        ModeWritten::Incremental => {
            let overlap = config.overlap.map_or(Duration::from_secs(300), DurationText::get);
            Ok(Mode::Incremental { column: column()?, overlap })
        }
        ModeWritten::SlidingWindow => {
            // The query itself may tell where the window begins.
            let column = if tells_time { config.column.clone().unwrap_or_default() } else { column()? };
            Ok(Mode::SlidingWindow { column, lookback: config.lookback.map_or(DAY, DurationText::get) })
        }
    }
}

fn history(mode: ModeWritten) -> Option<History> {
    match mode {
        ModeWritten::Changes => Some(History::Changes),
        ModeWritten::Appends => Some(History::Appends),
        _ => None,
    }
}

fn slices(config: &TableConfig) -> Result<Option<Slices>> {
    let Some(step) = config.slice.map(DurationText::get) else {
        return match (&config.partition, &config.since) {
            (None, None) => Ok(None),
            _ => Err(wrong("slice", "is missing beside `partition` and `since`").hint("slice: 7d")),
        };
    };
    if step < Duration::from_secs(3_600) {
        return Err(wrong("slice", "must be an hour or longer"));
    }
    let column = config.partition.clone().or_else(|| config.column.clone()).ok_or_else(|| {
        wrong("partition", "names no column to cut the window by").hint("partition: fecha_foto")
    })?;
    let since = config
        .since
        .as_deref()
        .map(|text| text.parse().map_err(|_| wrong("since", "is no date").hint("since: 2024-01-01")));
    Ok(Some(Slices { column, step, since: since.transpose()? }))
}

fn under(error: Error, path: &str) -> Error {
    let field = error.field_name().map_or(path.to_owned(), |field| format!("{path}.{field}"));
    error.field(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(json: serde_json::Value) -> Result<Resolved> {
        let config: Config = serde_json::from_value(json).unwrap();
        config.resolve("bq")
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        for (table, field) in [
            (json!({ "query": "SELECT 1 AS a" }), "tables.t.key"),
            (json!({ "query": "SELECT 1 AS a", "from": "x", "key": ["a"] }), "tables.t.query"),
            (json!({ "mode": "incremental" }), "tables.t.column"),
            (json!({ "query": "SELECT {from} AS a", "key": ["a"] }), "tables.t.mode"),
            (
                json!({ "query": "SELECT {watermark} AS a", "key": ["a"], "mode": "sliding_window", "column": "a" }),
                "tables.t.query",
            ),
            (json!({ "slice": "1d" }), "tables.t.partition"),
            (json!({ "since": "2024-01-01" }), "tables.t.slice"),
            (json!({ "slice": "1d", "partition": "d", "since": "gestern" }), "tables.t.since"),
            (json!({ "maximum_bytes_billed": "1MB" }), "tables.t.maximum_bytes_billed"),
            (json!({ "from": "a b" }), "tables.t.from"),
            (json!({ "mode": "changes", "query": "SELECT 1 AS a", "key": ["a"] }), "tables.t.mode"),
            (json!({ "mode": "appends", "column": "d" }), "tables.t.column"),
        ] {
            let all = json!({ "project": "p", "dataset": "d", "endpoint": "http://127.0.0.1:1", "tables": { "t": table } });
            let error = resolved(all).err().unwrap_or_else(|| panic!("{field}"));
            assert_eq!(error.field_name(), Some(format!("sources.bq.{field}").as_str()), "{error}");
        }
        let error = resolved(json!({ "project": "p", "tables": { "t": { "key": ["a"] } } })).err().unwrap();
        assert_eq!(error.field_name(), Some("sources.bq.tables.t.from"), "no dataset");
    }

    #[test]
    fn credentials_are_in_no_message() {
        let secret = r#"{"type":"service_account","private_key":"-----BEGIN geheim","client_email":"x","token_uri":"http://x"}"#;
        let all =
            json!({ "project": "p", "dataset": "d", "credentials_json": secret, "tables": { "t": {} } });
        let error = resolved(all.clone()).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
        let config: Config = serde_json::from_value(all).unwrap();
        assert!(!format!("{config:?}").contains("geheim"));
    }
}
