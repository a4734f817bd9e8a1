//! The source's configuration: as written, then resolved. After [`Config::resolve`] nothing can be "invalid config".

use crate::auth::{Auth, AuthConfig};
use crate::client::{Server, trust};
use crate::gate::{Gate, LONGEST_WAIT};
use crate::template::Template;
use crate::types;
use caudal_core::quantity::{DurationText, SizeText};
use caudal_core::{ColumnType, Error, Result, TableId};
use caudal_poll::schedule::zone_of;
use caudal_poll::stores::{Stores, StoresConfig};
use caudal_poll::{Mode, Schedule, ScheduleConfig};
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A JSON API that is polled: each table is an endpoint. Topics and events are those of a capture.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What all paths begin with: `https://api.example/v1`. May hold `{store.…}`.
    pub url: String,
    /// What the log calls the database: topics are `<prefix>.<database>.<table>`. By default the source's name.
    #[serde(default)]
    pub database: Option<String>,
    /// How requests show who asks.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Headers of each request, beside those of `auth`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// PEM file of the authorities to trust; without it the web's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The tables: name → endpoint.
    #[schemars(with = "BTreeMap<String, TableConfig>")]
    pub tables: BTreeMap<String, TableConfig>,
    /// Many systems with the same API.
    #[serde(default)]
    pub stores: StoresConfig,
    /// The time zone of dates, of times without a zone, and of schedules: `America/Caracas`.
    #[serde(default = "utc")]
    pub zone: String,
    /// When tables are read that say nothing else, in place of `every`.
    #[serde(default)]
    pub schedule: Option<ScheduleConfig>,
    /// From the start of a table's run to the start of its next.
    #[serde(default = "every")]
    pub every: DurationText,
    /// Most requests a second, over all tables and stores; a fraction for less: 0.5. 0: no limit.
    #[serde(default)]
    pub requests_per_second: f64,
    /// How long one request may take.
    #[serde(default = "timeout")]
    pub timeout: DurationText,
    /// Most bytes of an answer, unpacked.
    #[serde(default = "max_body")]
    pub max_body: SizeText,
    /// How often a request is tried before its table's run has failed. Only what may pass by itself is tried again.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// The greatest share of a table's known rows that one refresh may delete; an answer that lacks more is an error.
    #[serde(default = "share")]
    pub max_deleted_share: f64,
    /// Where hashes of the rows are kept, 24 bytes for each: to be kept from one start to the next, but never needed. By default
    /// `poll` in `data_dir`.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// The source gives a sign of life at least so often.
    #[serde(default = "heartbeat")]
    pub heartbeat: DurationText,
}

/// One endpoint as a table.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// Behind the source's `url`: `/inventory`. May hold `{store.…}` and dates.
    pub path: String,
    /// Parameters of the query: `{fecha: "{today}"}`. There are `{today}`, `{yesterday}`, `{now}`, `{from}` (where a sliding window begins),
    /// `{day}` (one request for each day of the window), `{watermark}` and `{store.…}`, dates with a format if need be:
    /// `{today:%d/%m/%Y}`. One without a value yet (the first `{watermark}`) is left out.
    pub params: BTreeMap<String, String>,
    /// Where the list of records is in the answer: `data.items`. Left out: the answer is the list.
    pub records: String,
    /// How more of an answer is asked for.
    pub paging: Paging,
    /// The columns of the key. With stores, their columns are put in front.
    pub key: Vec<String>,
    /// Columns, with their type and where they come from. What is not named here keeps its name, and gets the type that the first
    /// records show; it keeps that type from then on.
    pub fields: BTreeMap<String, FieldConfig>,
    /// Only what `fields` names is taken.
    pub only_fields: bool,
    /// Which rows a run reads.
    pub mode: ModeWritten,
    /// For `incremental`: a column that grows with every change of a record.
    pub column: Option<String>,
    /// For `incremental`: how far below the highest value of the last run the next one begins. For a column that holds a number, seconds
    /// are units.
    #[schemars(with = "Option<String>")]
    pub overlap: Option<DurationText>,
    /// For `sliding_window`: how far back a run reads: `1d` is yesterday and today.
    #[schemars(with = "Option<String>")]
    pub lookback: Option<DurationText>,
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
}

/// A column that is declared.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FieldConfig {
    /// Where it is in the record: `precio`, `producto.codigo`. Left out: under the column's own name.
    pub from: Option<String>,
    /// `text`, `integer`, `number`, `decimal(12,2)`, `boolean`, `date`, `datetime`, `timestamp`, `time`, `uuid` or `json`.
    #[serde(rename = "type")]
    pub ty: String,
}

/// How more of an answer is asked for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paging {
    /// The way.
    #[serde(rename = "type")]
    pub kind: PagingKind,
    /// The parameter that tells the page, the offset or the cursor. By default `page`, `offset`, `cursor`.
    pub param: Option<String>,
    /// The number of the first page.
    pub first: u32,
    /// Records of a page: sent as `size_param`.
    pub size: Option<u32>,
    /// The parameter that tells the size. By default `limit`.
    pub size_param: Option<String>,
    /// Where the answer has the next cursor (`meta.next`), or with `link` the next address; without it the `Link` header is read.
    pub next: Option<String>,
    /// Where the answer says whether there is more: `meta.has_more`.
    pub more: Option<String>,
    /// Where the answer says how many records there are in all: `meta.total`. An answer that holds fewer deletes nothing.
    pub total: Option<String>,
    /// A page with fewer records than `size` is the last. Without it (and `more`, and `total`) pages are read until one is empty.
    pub short_is_last: bool,
    /// More pages are an error.
    pub max_pages: u32,
}

/// The way that pages are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PagingKind {
    /// All in one answer.
    #[default]
    None,
    /// By number.
    Page,
    /// By the number of records before.
    Offset,
    /// By what the answer before says.
    Cursor,
    /// By an address in the answer before, or in its `Link` header.
    Link,
}

impl Default for Paging {
    fn default() -> Self {
        Self {
            kind: PagingKind::None,
            param: None,
            first: 1,
            size: None,
            size_param: None,
            next: None,
            more: None,
            total: None,
            short_is_last: false,
            max_pages: 10_000,
        }
    }
}

impl Paging {
    pub(crate) fn next_path(&self) -> &str {
        self.next.as_deref().unwrap_or("next")
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

fn every() -> DurationText {
    DurationText::secs(300)
}

fn timeout() -> DurationText {
    DurationText::secs(60)
}

fn max_body() -> SizeText {
    SizeText::mib(64)
}

fn attempts() -> u32 {
    3
}

fn share() -> f64 {
    0.2
}

fn heartbeat() -> DurationText {
    DurationText::secs(10)
}

// Headers and parameters may hold secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("tables", &self.tables.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for TableConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A configuration that can be used.
pub(crate) struct Resolved {
    pub(crate) name: String,
    /// One for each store; one in all without stores.
    pub(crate) places: Vec<Place>,
    pub(crate) stores: Option<Stores>,
    pub(crate) auth: Auth,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) tables: Vec<Arc<Table>>,
    pub(crate) zone: TimeZone,
    pub(crate) attempts: u32,
    /// For a page: its request, and the longest wait before it.
    pub(crate) page_timeout: Duration,
    pub(crate) most_deleted: f64,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) heartbeat: Duration,
}

/// One system.
pub(crate) struct Place {
    pub(crate) server: Arc<Server>,
    /// Attributes of the store.
    pub(crate) store: BTreeMap<String, String>,
}

/// One endpoint.
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) path: Template,
    pub(crate) params: Vec<(String, Template)>,
    pub(crate) records: String,
    pub(crate) paging: Paging,
    pub(crate) key: Vec<String>,
    pub(crate) store_columns: Vec<(String, String)>,
    pub(crate) fields: Vec<Field>,
    pub(crate) infer: bool,
    pub(crate) mode: Mode,
    /// What is asked names a day, or where the window begins.
    pub(crate) tells_time: bool,
    pub(crate) schedule: Schedule,
}

/// A column that is declared.
pub(crate) struct Field {
    pub(crate) column: String,
    pub(crate) from: String,
    pub(crate) ty: ColumnType,
}

impl Table {
    /// Whether a field of records is a declared column's, or one that a store's column hides.
    pub(crate) fn takes(&self, field: &str) -> bool {
        let declared = |f: &Field| f.from.split('.').next() == Some(field) || f.column == field;
        self.fields.iter().any(declared) || self.store_columns.iter().any(|(column, _)| column == field)
    }

    /// Whether its window is read one day after the other.
    pub(crate) fn is_daily(&self) -> bool {
        self.path.is_daily() || self.params.iter().any(|(_, text)| text.is_daily())
    }
}

impl Config {
    /// Checks the configuration of source `name`.
    ///
    /// # Errors
    /// Fault `Config`, with the field.
    pub(crate) fn resolve(self, name: &str) -> Result<Resolved> {
        self.resolve_fields(name).map_err(|e| match e.field_name() {
            Some(field) => {
                let field = format!("sources.{name}.{field}");
                e.field(field)
            }
            None => e,
        })
    }

    fn resolve_fields(self, name: &str) -> Result<Resolved> {
        let wrong = |field: &str, says: &str| Error::config(says.to_owned()).field(field.to_owned());
        if self.tables.is_empty() {
            return Err(wrong("tables", "there are none")
                .hint("tables: {inventory: {path: /inventory, key: [code]}}"));
        }
        if !(0.0..=1.0).contains(&self.max_deleted_share) {
            return Err(wrong("max_deleted_share", "must be between 0 and 1"));
        }
        if !(0.0..=10_000.0).contains(&self.requests_per_second) {
            return Err(wrong("requests_per_second", "must be between 0 and 10000"));
        }
        if !(1 << 10..=1 << 30).contains(&self.max_body.bytes()) {
            return Err(wrong("max_body", "must be between 1KiB and 1GiB"));
        }
        let zone = zone_of(&self.zone)?;
        let stores = self.stores.clone().resolve().map_err(|e| under(e, "stores"))?;
        let mut tables = Vec::new();
        for (table, config) in &self.tables {
            let id = TableId::new(self.database.clone().unwrap_or_else(|| name.to_owned()), table);
            let resolved = self.table(id, config, &zone, stores.as_ref());
            tables.push(Arc::new(resolved.map_err(|e| under(e, &format!("tables.{table}")))?));
        }
        let apart = match self.requests_per_second {
            0.0 => Duration::ZERO,
            rate => Duration::from_secs_f64(1.0 / rate),
        };
        let (tls, timeout) = (trust(self.ca.as_deref())?, self.timeout.get().max(Duration::from_millis(100)));
        let max_body = self.max_body.bytes() as usize;
        let gate = Arc::new(Gate::new(apart));
        let mut doors: BTreeMap<String, Arc<Gate>> = BTreeMap::new();
        let mut server = |base: Uri| {
            let (tls, gate) = (Arc::clone(&tls), Arc::clone(&gate));
            let authority = base.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
            let closed = doors.entry(authority).or_insert_with(|| Arc::new(Gate::new(Duration::ZERO)));
            let closed = Arc::clone(closed);
            Arc::new(Server { base, tls, timeout, max_body, gate, closed })
        };
        let nobody = BTreeMap::new();
        let all: Vec<&BTreeMap<String, String>> = match &stores {
            Some(stores) => stores.stores.iter().map(|store| &store.attributes).collect(),
            None => vec![&nobody],
        };
        let mut places = Vec::new();
        for store in all {
            places.push(Place { server: server(base(&self.url, store)?), store: store.clone() });
        }
        Ok(Resolved {
            name: name.to_owned(),
            places,
            stores,
            auth: self.auth.resolve(server)?,
            headers: headers(&self.headers)?,
            tables,
            zone,
            attempts: self.attempts.max(1),
            page_timeout: timeout.saturating_mul(2) + LONGEST_WAIT,
            most_deleted: self.max_deleted_share,
            dir: self.dir,
            heartbeat: self.heartbeat.get().max(Duration::from_millis(500)),
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
        let template = |field: &str, text: &str| {
            let template = Template::parse(text).map_err(|e| e.field(field.to_owned()))?;
            let has = |attribute: &str| {
                stores.is_some_and(|s| s.stores.iter().all(|s| s.attributes.contains_key(attribute)))
            };
            let lacks = template.attributes().find(|attribute| !has(attribute)).map(str::to_owned);
            match lacks {
                Some(attribute) => {
                    Err(wrong(field, format!("not every store has the attribute `{attribute}`")))
                }
                None => Ok(template),
            }
        };
        if config.path.contains('?') {
            return Err(wrong("path", "has a query".into()).hint("put parameters into `params`"));
        }
        let path = template("path", &config.path)?;
        let params: Vec<(String, Template)> = config
            .params
            .iter()
            .map(|(param, text)| Ok((param.clone(), template(&format!("params.{param}"), text)?)))
            .collect::<Result<_>>()?;
        let store_columns = stores.map(|s| s.columns.clone()).unwrap_or_default();
        if config.key.is_empty() {
            return Err(
                wrong("key", "names no column".into()).hint("name what tells records apart: key: [code]")
            );
        }
        let mut key: Vec<String> = store_columns.iter().map(|(column, _)| column.clone()).collect();
        key.extend(
            config.key.iter().filter(|column| !store_columns.iter().any(|(c, _)| c == *column)).cloned(),
        );
        let mut fields = Vec::new();
        for (column, field) in &config.fields {
            let ty = types::parse(&field.ty).ok_or_else(|| {
                wrong(&format!("fields.{column}.type"), "there is no such type".into())
                    .hint("text, integer, number, decimal(12,2), boolean, date, datetime, timestamp, time, uuid, json")
            })?;
            let from = field.from.clone().unwrap_or_else(|| column.clone());
            fields.push(Field { column: column.clone(), from, ty });
        }
        if config.only_fields
            && let Some(column) = key.iter().chain(&config.column).find(|c| {
                !fields.iter().any(|f| f.column == **c)
                    && !store_columns.iter().any(|(column, _)| column == *c)
            })
        {
            return Err(wrong("fields", format!("lacks `{column}`, and `only_fields` is set")));
        }
        if config.paging.kind == PagingKind::Cursor && config.paging.next.is_none() {
            return Err(wrong("paging.next", "is missing: where is the next cursor?".into())
                .hint("next: meta.next_cursor"));
        }
        if config.paging.kind == PagingKind::Offset
            && config.paging.param.is_none()
            && config.paging.max_pages == 0
        {
            return Err(wrong("paging.max_pages", "must be 1 or more".into()));
        }
        let tells_time = path.tells_time() || params.iter().any(|(_, text)| text.tells_time());
        let mode = mode(config, tells_time)?;
        let schedule = match (&config.schedule, config.every, &self.schedule) {
            (Some(_), Some(_), _) => {
                return Err(wrong("every", "there is a `schedule`, too".into()).hint("keep one of them"));
            }
            (Some(schedule), ..) => schedule.resolve(zone).map_err(|e| under(e, "schedule"))?,
            (None, Some(every), _) => Schedule::Every(every.get().max(Duration::from_millis(100))),
            (None, None, Some(schedule)) => schedule.resolve(zone).map_err(|e| under(e, "schedule"))?,
            (None, None, None) => Schedule::Every(self.every.get().max(Duration::from_millis(100))),
        };
        Ok(Table {
            id,
            path,
            params,
            records: config.records.clone(),
            paging: config.paging.clone(),
            key,
            store_columns,
            fields,
            infer: !config.only_fields,
            mode,
            tells_time,
            schedule,
        })
    }
}

fn mode(config: &TableConfig, tells_time: bool) -> Result<Mode> {
    let day = Duration::from_secs(86_400);
    match config.mode {
        ModeWritten::FullRefresh if tells_time => Err(Error::config("a refresh reads all records, but `params` ask for a part of them: what is not in it would be deleted")
            .field("mode")
            .hint("mode: sliding_window, or incremental with a `column`")),
        ModeWritten::FullRefresh => Ok(Mode::FullRefresh),
        ModeWritten::Incremental => match config.column.clone() {
            Some(column) => {
                Ok(Mode::Incremental { column, overlap: config.overlap.map_or(Duration::from_secs(300), DurationText::get) })
            }
            None => Err(Error::config("names no column").field("column").hint("column: updated_at")),
        },
        ModeWritten::SlidingWindow if !tells_time => Err(Error::config("nothing tells the API which days are meant")
            .field("params")
            .hint("params: {from: \"{from}\", to: \"{today}\"}, or {date: \"{day}\"}")),
        ModeWritten::SlidingWindow => Ok(Mode::SlidingWindow {
            column: config.column.clone().unwrap_or_default(),
            lookback: config.lookback.map_or(day, DurationText::get),
        }),
    }
}

fn under(error: Error, path: &str) -> Error {
    let field = error.field_name().map_or(path.to_owned(), |field| format!("{path}.{field}"));
    error.field(field)
}

fn base(url: &str, store: &BTreeMap<String, String>) -> Result<Uri> {
    let wrong = || Error::config("is no URL of an API").field("url").hint("url: https://api.example/v1");
    let mut text = url.to_owned();
    for (name, value) in store {
        text = text.replace(&format!("{{store.{name}}}"), value);
    }
    if text.contains('{') {
        return Err(wrong().hint("it may hold {store.…} with an attribute that every store has"));
    }
    let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| wrong())?;
    let has_user = uri.authority().is_some_and(|a| a.as_str().contains('@'));
    if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
        return Err(wrong());
    }
    if has_user {
        return Err(wrong().hint("user and password belong into `auth`"));
    }
    Ok(uri)
}

fn headers(written: &BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let one = |(name, value): (&String, &String)| {
        let wrong = || Error::config("is no header").field(format!("headers.{name}"));
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok((HeaderName::try_from(name).map_err(|_| wrong())?, value))
    };
    written.iter().map(one).collect()
}
