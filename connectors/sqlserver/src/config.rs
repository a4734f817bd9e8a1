//! The source's configuration: as written, then resolved. After [`Config::resolve`] nothing can be "invalid config".

use crate::names::ObjectName;
use crate::place;
use crate::statement::Statement;
use crate::tls::{self, TlsConfig, TlsMode};
use crate::transport::Keepalive;
use caudal_core::quantity::DurationText;
use caudal_core::{Error, Result, TableId};
use caudal_poll::schedule::zone_of;
use caudal_poll::stores::{Attribute, Stores, StoresConfig};
use caudal_poll::{Mode, Schedule, ScheduleConfig};
use jiff::tz::TimeZone;
use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use crate::place::Place;

/// A SQL Server that is polled: each table is a table or a query there. Topics and events are those of a capture.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlserver://user:password@host:port/database`, in place of the five keys below.
    pub url: Option<String>,
    /// Host or address. May hold `{store.…}`; with stores by default their attribute `server`.
    pub server: Option<String>,
    /// In place of `server` where `environment` is `local`. With stores by default their attribute `server_local`.
    pub server_local: Option<String>,
    /// In place of `server` where `environment` is `production`. With stores by default their attribute `server_production`.
    pub server_production: Option<String>,
    /// Which server is meant: `local` or `production`. By default what the variable ETL_ENVIRONMENT says, else `local`.
    pub environment: Option<String>,
    /// By default the store's attribute `port`, else 1433.
    pub port: Option<Attribute>,
    /// The database there. May hold `{store.…}`; with stores by default their attribute `database`.
    pub database: Option<String>,
    /// A SQL login. May hold `{store.…}`.
    pub user: Option<String>,
    /// Its password. May hold `{store.…}`.
    pub password: Option<String>,
    /// What the log calls the database: topics are `<prefix>.<log_database>.<table>`. By default the source's name.
    pub log_database: Option<String>,
    /// How connections are encrypted.
    pub tls: TlsConfig,
    /// What a reading shows of transactions that go on.
    pub isolation: Isolation,
    /// Reads from a secondary replica of an availability group: `ApplicationIntent=ReadOnly`.
    pub read_only_intent: bool,
    /// The tables: name → table or query.
    #[schemars(with = "BTreeMap<String, TableConfig>")]
    pub tables: BTreeMap<String, TableConfig>,
    /// Many servers with the same tables.
    pub stores: StoresConfig,
    /// The time zone of dates, of times without a zone, and of schedules: `America/Caracas`. By default UTC.
    pub zone: Option<String>,
    /// When tables are read that say nothing else, in place of `every`.
    pub schedule: Option<ScheduleConfig>,
    /// From the start of a table's run to the start of its next. By default 5m.
    #[schemars(with = "Option<String>")]
    pub every: Option<DurationText>,
    /// How long the server may take for a page of rows, the first of which comes when it has worked the query out. By default 5m.
    #[schemars(with = "Option<String>")]
    pub timeout: Option<DurationText>,
    /// How long a statement waits for a lock before it is tried again. By default 30s.
    #[schemars(with = "Option<String>")]
    pub lock_timeout: Option<DurationText>,
    /// How long each step of connecting may take: to reach the host, to log in, a first query. By default 10s.
    #[schemars(with = "Option<String>")]
    pub connect_timeout: Option<DurationText>,
    /// Silence after which the server is probed, so that a dead VPN is found. By default 30s.
    #[schemars(with = "Option<String>")]
    pub keepalive: Option<DurationText>,
    /// Between two probes. By default 10s.
    #[schemars(with = "Option<String>")]
    pub keepalive_interval: Option<DurationText>,
    /// So many probes without an answer are a dead server. By default 5.
    pub keepalive_probes: Option<u32>,
    /// Most rows of a page. By default 10000.
    pub page_rows: Option<u32>,
    /// How often a run is tried before it has failed. Only what may pass by itself is tried again: a deadlock, a connection that
    /// broke. By default 3.
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
    /// The table or view: `dbo.Productos`. By default one of the table's own name.
    pub from: Option<String>,
    /// In place of `from`: a SELECT. `{today}`, `{yesterday}`, `{now}`, `{from}` (where a sliding window begins), `{store.…}` and what
    /// `params` names are bound as parameters, with a type if need be: `{deposito:varchar(10)}`. No WITH, no ORDER BY.
    pub query: Option<String>,
    /// The same, in a file. A relative path starts at the daemon's working folder.
    pub query_file: Option<PathBuf>,
    /// Values of the query's places: `{codigo_deposito: "{store.deposito}"}`.
    pub params: BTreeMap<String, String>,
    /// The columns of the key; of a table by default its primary key. With stores, their columns are put in front.
    pub key: Vec<String>,
    /// Which rows a run reads.
    pub mode: ModeWritten,
    /// For `incremental`: a column that grows with every change of a row: best a `rowversion`, else a time or a number. For `sliding_window`: a
    /// column that holds a time.
    pub column: Option<String>,
    /// For `incremental` by a time or number: how far below the highest value of the last run the next one begins, so that rows that were committed late are
    /// not missed. For a number, seconds are units. By a `rowversion` nothing is missed without.
    #[schemars(with = "Option<String>")]
    pub overlap: Option<DurationText>,
    /// For `sliding_window`: how far back a run reads. By default a day.
    #[schemars(with = "Option<String>")]
    pub lookback: Option<DurationText>,
    /// For `cdc`: the capture instance. By default schema and table, joined by `_`.
    pub capture_instance: Option<String>,
    /// In place of the source's.
    pub schedule: Option<ScheduleConfig>,
    /// In place of the source's.
    #[schemars(with = "Option<String>")]
    pub every: Option<DurationText>,
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
    /// What Change Tracking says has changed, deletes too.
    ChangeTracking,
    /// What Change Data Capture has recorded, deletes too.
    Cdc,
}

/// What a reading shows of transactions that go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Only what is committed; waits for locks, unless the database has READ_COMMITTED_SNAPSHOT.
    #[default]
    ReadCommitted,
    /// Also what may be rolled back; takes no locks and waits for none.
    ReadUncommitted,
    /// What was committed when the statement began; needs ALLOW_SNAPSHOT_ISOLATION.
    Snapshot,
}

impl Isolation {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::ReadUncommitted => "READ UNCOMMITTED",
            Self::Snapshot => "SNAPSHOT",
        }
    }
}

// The password, and values of parameters.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("tables", &self.tables.keys())
            .field("tls", &self.tls)
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
    /// One for each store; one in all without stores.
    pub(crate) places: Vec<Place>,
    pub(crate) stores: Option<Stores>,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) tls_mode: TlsMode,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) isolation: Isolation,
    pub(crate) read_only_intent: bool,
    pub(crate) zone: TimeZone,
    pub(crate) lock_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) keepalive: Keepalive,
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
    pub(crate) statement: Statement,
    /// None of a query.
    pub(crate) object: Option<ObjectName>,
    /// As configured, without the stores' columns; empty: the primary key.
    pub(crate) key: Vec<String>,
    pub(crate) store_columns: Vec<(String, String)>,
    pub(crate) mode: Mode,
    pub(crate) way: Way,
    pub(crate) schedule: Schedule,
}

/// How changes are found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Way {
    /// By reading rows; what is incremental has a column.
    Rows(Option<String>),
    /// By Change Tracking.
    Tracking,
    /// By Change Data Capture, with its capture instance.
    Capture(String),
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
        let wrong = |field: &str, says: &str| Error::config(says.to_owned()).field(field.to_owned());
        if self.tables.is_empty() {
            return Err(wrong("tables", "there are none").hint("tables: {productos: {from: dbo.Productos}}"));
        }
        let most_deleted = self.max_deleted_share.unwrap_or(0.2);
        if !(0.0..=1.0).contains(&most_deleted) {
            return Err(wrong("max_deleted_share", "must be between 0 and 1"));
        }
        if !(1..=1_000_000).contains(&self.page_rows.unwrap_or(1)) {
            return Err(wrong("page_rows", "must be between 1 and 1000000"));
        }
        if self.keepalive_probes == Some(0) {
            return Err(wrong("keepalive_probes", "must be 1 or more"));
        }
        let zone = zone_of(self.zone.as_deref().unwrap_or("UTC"))?;
        let stores = self.stores.clone().resolve().map_err(|e| under(e, "stores"))?;
        let places = place::places(&self, stores.as_ref())?;
        let mut tables = Vec::new();
        for (table, config) in &self.tables {
            let id = TableId::new(self.log_database.clone().unwrap_or_else(|| name.to_owned()), table);
            let resolved = self.table(id, config, &zone, stores.as_ref());
            tables.push(Arc::new(resolved.map_err(|e| under(e, &format!("tables.{table}")))?));
        }
        let least = Duration::from_secs(1);
        let or = |text: Option<DurationText>, secs: u64| {
            text.map_or(Duration::from_secs(secs), DurationText::get).max(least)
        };
        Ok(Resolved {
            name: name.to_owned(),
            places,
            stores,
            tables,
            tls: tls::client(&self.tls)?,
            tls_mode: self.tls.mode,
            isolation: self.isolation,
            read_only_intent: self.read_only_intent,
            zone,
            lock_timeout: or(self.lock_timeout, 30),
            connect_timeout: or(self.connect_timeout, 10),
            keepalive: Keepalive {
                idle: or(self.keepalive, 30),
                interval: or(self.keepalive_interval, 10),
                probes: self.keepalive_probes.unwrap_or(5),
            },
            page_rows: self.page_rows.unwrap_or(10_000),
            page_timeout: or(self.timeout, 300),
            attempts: self.attempts.unwrap_or(3).max(1),
            most_deleted,
            dir: self.dir.clone(),
            heartbeat: or(self.heartbeat, 10),
        })
    }

    fn table(
        &self,
        id: TableId,
        config: &TableConfig,
        zone: &TimeZone,
        stores: Option<&Stores>,
    ) -> Result<Table> {
        let wrong = |field: &str, says: String| Error::config(says).field(field.to_owned());
        let (statement, object) = self.statement(&id, config)?;
        let has = |attribute: &str| {
            stores.is_some_and(|s| s.stores.iter().all(|s| s.attributes.contains_key(attribute)))
        };
        if let Some(attribute) = statement.attributes().find(|attribute| !has(attribute)) {
            return Err(wrong("query", format!("not every store has the attribute `{attribute}`")));
        }
        if object.is_none() && config.key.is_empty() {
            return Err(wrong("key", "a query needs one".into())
                .hint("name what tells its rows apart: key: [codigo]"));
        }
        let (mode, way) = mode(config, object.as_ref(), statement.tells_time())?;
        let every = |every: Option<DurationText>, else_: u64| {
            Schedule::Every(
                every.map_or(Duration::from_secs(else_), DurationText::get).max(Duration::from_millis(100)),
            )
        };
        let schedule = match (&config.schedule, config.every, &self.schedule) {
            (Some(_), Some(_), _) => {
                return Err(wrong("every", "there is a `schedule`, too".into()).hint("keep one of them"));
            }
            (Some(schedule), ..) => schedule.resolve(zone).map_err(|e| under(e, "schedule"))?,
            (None, None, Some(schedule)) => schedule.resolve(zone).map_err(|e| under(e, "schedule"))?,
            (None, own, _) => every(own.or(self.every), 300),
        };
        Ok(Table {
            id,
            statement,
            object,
            key: config.key.clone(),
            store_columns: stores.map(|s| s.columns.clone()).unwrap_or_default(),
            mode,
            way,
            schedule,
        })
    }

    fn statement(&self, id: &TableId, config: &TableConfig) -> Result<(Statement, Option<ObjectName>)> {
        let wrong = |field: &str, says: String| Error::config(says).field(field.to_owned());
        let sql = match (&config.query, &config.query_file, &config.from) {
            (Some(sql), None, None) => sql.clone(),
            (None, Some(path), None) => std::fs::read_to_string(path)
                .map_err(|e| wrong("query_file", format!("read {}", path.display())).because(e))?,
            (None, None, from) => {
                let text = from.as_deref().unwrap_or(&id.table);
                let object = ObjectName::parse(text).ok_or_else(|| {
                    wrong("from", "is no name of a table".into()).hint("from: dbo.Productos")
                })?;
                return Ok((Statement::table(&object.quoted()), Some(object)));
            }
            _ => {
                return Err(wrong("query", "is one of several".into())
                    .hint("keep one of `from`, `query` and `query_file`"));
            }
        };
        Ok((Statement::parse(sql.trim_start_matches('\u{feff}'), &config.params)?, None))
    }
}

fn mode(config: &TableConfig, object: Option<&ObjectName>, tells_time: bool) -> Result<(Mode, Way)> {
    let column = || {
        config.column.clone().ok_or_else(|| {
            Error::config("names no column")
                .field("column")
                .hint("column: rv, a rowversion; or a time of the last change")
        })
    };
    let of_table = |what: &str| match object {
        Some(object) => Ok(object),
        None => Err(Error::config(format!("{what} is of a table, not of a query"))
            .field("mode")
            .hint("use `from`")),
    };
    let rows = |mode| Ok((mode, Way::Rows(None)));
    let changes = |way: &str| Mode::Incremental { column: way.to_owned(), overlap: Duration::ZERO };
    match config.mode {
        ModeWritten::FullRefresh | ModeWritten::Force if tells_time => Err(Error::config(
            "a refresh reads all rows, but the query asks for a part of them by a time: what is not in it would be deleted",
        )
        .field("mode")
        .hint("mode: sliding_window, with {from}")),
        ModeWritten::FullRefresh => rows(Mode::FullRefresh),
        ModeWritten::Force => rows(Mode::Force),
        ModeWritten::Incremental => {
            let column = column()?;
            let overlap = config.overlap.map_or(Duration::from_secs(300), DurationText::get);
            Ok((Mode::Incremental { column: column.clone(), overlap }, Way::Rows(Some(column))))
        }
        ModeWritten::SlidingWindow => {
            // The query itself may tell where the window begins.
            let column = if tells_time { config.column.clone().unwrap_or_default() } else { column()? };
            let lookback = config.lookback.map_or(Duration::from_secs(86_400), DurationText::get);
            rows(Mode::SlidingWindow { column, lookback })
        }
        ModeWritten::ChangeTracking => {
            of_table("Change Tracking")?;
            Ok((changes("change_tracking"), Way::Tracking))
        }
        ModeWritten::Cdc => {
            let instance = match &config.capture_instance {
                Some(instance) => instance.clone(),
                None => of_table("Change Data Capture")?.capture_instance(),
            };
            of_table("Change Data Capture")?;
            Ok((changes("cdc"), Way::Capture(instance)))
        }
    }
}

fn under(error: Error, path: &str) -> Error {
    let field = error.field_name().map_or(path.to_owned(), |field| format!("{path}.{field}"));
    error.field(field)
}
