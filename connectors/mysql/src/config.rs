//! The keys of a `type: mysql` source, and what they resolve to.
//!
//! Two stages: [`Config`] is what was written; [`Config::resolve`] turns it into [`Resolved`], after which nothing can be
//! "invalid config" any more. Errors name the field, the cause and the fix; none of them shows a password.

mod address;
mod heartbeat_config;
mod resolved;
mod snapshot_config;
mod tls_config;

pub use address::{Address, Secret};
pub use heartbeat_config::HeartbeatConfig;
pub use resolved::Resolved;
pub use snapshot_config::{SnapshotConfig, SnapshotMode};
pub use tls_config::{TlsConfig, TlsMode};

use crate::connection::Keepalive;
use crate::heartbeat;
use crate::poll::PollConfig;
use crate::selection::{Columns, Filters, Keys, Selection};
use address::{parse_url, split_port};
use caudal_core::quantity::{DurationText, SizeText};
use caudal_core::{Error, Result, TableId};
use resolved::field_of;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A MySQL (8.0 or newer) or MariaDB (10.11 or newer) server to capture.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the server is: `mysql://user:password@host:3306/database`. The password may stand there as it is, also with
    /// characters like `@`, `/` and `#`. Without a database, all databases but the server's own are seen.
    pub url: String,
    /// The password, where it should not stand in the url. Taken as it is.
    #[serde(default)]
    pub password: Option<String>,
    /// A file that holds the password, read anew for each connection: a password that was changed there needs no restart. Wins over `password`
    /// and the url's.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Further servers of the same topology, as `host` or `host:port`, for a failover: the first that answers and can go on from where reading
    /// stopped is read; the url's own comes first. They share the url's user, password and database. Needs GTIDs.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Which tables to capture: `orders`, `fact*`, `otherdb.table`, `!*_tmp`. A pattern with `!` excludes, and wins. A pattern
    /// without a database means the url's. Empty: all tables.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Which databases to capture: `shop`, `shop_*`, `!shop_test`. With these, a table pattern that names no database means each of
    /// them, and the url's database is only the one that the connection begins in.
    #[serde(default)]
    pub databases: Vec<String>,
    /// Which columns to capture: `!people.ssn`, `!*.*_token`, `crm.people.name`. A pattern with `!` excludes, and wins: such a column is
    /// in no topic and is not selected from the table. Tables that no other pattern names keep all their columns. Columns of
    /// the key cannot be excluded. Names are compared in any case.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Keys of tables that have none: `shop.visits: [visitor, seen_at]`. Rows with equal keys are one row. With an index that begins with
    /// these columns the table is read in chunks.
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<String>>,
    /// Which rows to capture, by table pattern: `orders: "status IN ('paid', 'sent') AND deleted_at IS NULL"`. A row that comes
    /// into the filter by an update is a create, one that leaves it a delete. See `docs/selection.md` for the language.
    #[serde(default)]
    pub filters: BTreeMap<String, String>,
    /// How the connection is encrypted.
    #[serde(default)]
    pub tls: TlsConfig,
    /// The id under which the server knows this reader; must differ from that of every server and reader of the topology.
    /// Chosen by chance from a high range when left out.
    #[serde(default)]
    pub server_id: Option<u32>,
    /// How often the source's clock and position are asked while nothing changes: `5s`. With `{every: 5s, table: caudal.heartbeat}` a
    /// row is written there each time, which comes back through the log to the sinks.
    #[serde(default)]
    pub heartbeat: HeartbeatConfig,
    /// A table with the columns `id`, `type` and `data`, as Debezium's `signal.data.collection`: a row that is inserted there is a command,
    /// `execute-snapshot`, `stop-snapshot`, `pause-snapshot`, `resume-snapshot` or `log`. It is captured, too.
    #[serde(default)]
    pub signal_table: Option<String>,
    /// Whether changes are captured from the binlog, or tables are read again and again (for an account without replication
    /// rights).
    #[serde(default)]
    pub mode: Mode,
    /// How tables are polled, with `mode: poll`.
    #[serde(default)]
    pub poll: PollConfig,
    /// How existing rows are read.
    #[serde(default)]
    pub snapshot: SnapshotConfig,
    /// Bytes at which a batch is closed.
    #[serde(default = "default_batch_bytes")]
    pub batch_bytes: SizeText,
    /// How long connecting may take.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: DurationText,
    /// Idle time after which TCP probes a connection.
    #[serde(default = "default_keepalive")]
    pub keepalive: DurationText,
    /// Time between two probes that are not answered.
    #[serde(default = "default_keepalive_interval")]
    pub keepalive_interval: DurationText,
    /// So many probes without an answer end the connection.
    #[serde(default = "default_keepalive_probes")]
    pub keepalive_probes: u32,
    /// Bytes of rows of prepared but undecided XA transactions that are kept; of a larger one the tables are read again when it is committed.
    #[serde(default = "default_xa_bytes")]
    pub xa_bytes: SizeText,
}

/// How changes are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// From the binlog, as they happen.
    #[default]
    Capture,
    /// By SELECTs, again and again.
    Poll,
}

/// The table of the heartbeat's row. A poll writes nothing.
fn heartbeat_table(config: &Config, address: &Address) -> Result<Option<TableId>> {
    let Some(text) = &config.heartbeat.table else { return Ok(None) };
    if config.mode == Mode::Poll {
        return Err(Error::config("a poll writes no heartbeats").hint("remove `heartbeat.table`"));
    }
    heartbeat::table(text, address.database.as_deref()).map(Some)
}

/// The table of commands. A poll reads no log.
fn signal_table(config: &Config, address: &Address) -> Result<Option<TableId>> {
    let Some(text) = &config.signal_table else { return Ok(None) };
    if config.mode == Mode::Poll {
        return Err(Error::config("a poll reads no commands from a table").hint("remove `signal_table`"));
    }
    let wrong = |e: Error| e.hint("write it like `signal_table: shop.debezium_signal`");
    heartbeat::table(text, address.database.as_deref()).map(Some).map_err(wrong)
}

fn default_batch_bytes() -> SizeText {
    SizeText::mib(1)
}
fn default_connect_timeout() -> DurationText {
    DurationText::secs(10)
}
fn default_keepalive() -> DurationText {
    DurationText::secs(30)
}
fn default_keepalive_interval() -> DurationText {
    DurationText::secs(10)
}
fn default_keepalive_probes() -> u32 {
    5
}
fn default_xa_bytes() -> SizeText {
    SizeText::mib(32)
}

// The url may hold the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("tables", &self.tables).field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl Config {
    /// Checks everything that can be checked without the server.
    ///
    /// # Errors
    /// `Config`, naming the field.
    pub fn resolve(self, name: &str) -> Result<Resolved> {
        let field = |f: &str| field_of(name, f);
        probes(name, &self)?;
        let mut address = parse_url(&self.url).map_err(|e| e.field(field("url")))?;
        if let Some(password) = &self.password {
            address.password = Secret::new(password.clone());
        }
        let mut selection = self.selection(name, address.database.as_deref())?;
        tls_config::check(&self.tls).map_err(|e| e.field(field("tls")))?;
        if self.server_id == Some(0) {
            return Err(Error::config("0 is no server id")
                .field(field("server_id"))
                .hint("leave it out, or take a number that no server or reader of the topology has"));
        }
        bounds(name, &self.heartbeat.every, &self.snapshot, self.batch_bytes)?;
        let heartbeat_table =
            heartbeat_table(&self, &address).map_err(|e| e.field(field("heartbeat.table")))?;
        if let Some(table) = &heartbeat_table {
            selection.add(table.clone());
        }
        let signal_table = signal_table(&self, &address).map_err(|e| e.field(field("signal_table")))?;
        if let Some(table) = &signal_table {
            selection.add(table.clone());
        }
        let scope = address.database.as_deref().filter(|_| self.databases.is_empty());
        let poll = self.poll.resolve(scope).map_err(|e| {
            let own = e.field_name().unwrap_or("poll").to_owned();
            e.field(field(&own))
        })?;
        Ok(Resolved {
            name: name.to_owned(),
            hosts: hosts(name, &self.hosts)?,
            identity: None,
            password_file: self.password_file,
            address,
            tls: self.tls,
            selection,
            server_id: self.server_id,
            heartbeat: self.heartbeat.every.get(),
            heartbeat_table,
            signal_table,
            mode: self.mode,
            poll,
            kept: None,
            batch_bytes: self.batch_bytes.bytes() as usize,
            connect_timeout: self.connect_timeout.get().max(Duration::from_secs(1)),
            keepalive: Keepalive {
                idle: self.keepalive.get(),
                interval: self.keepalive_interval.get(),
                probes: self.keepalive_probes,
            },
            snapshot: self.snapshot,
            xa_bytes: self.xa_bytes.bytes() as usize,
        })
    }
}

impl Config {
    fn selection(&self, name: &str, database: Option<&str>) -> Result<Selection> {
        let field = |f: &'static str| move |e: Error| e.field(field_of(name, f));
        // With patterns of databases, those of tables do not mean the url's.
        let database = database.filter(|_| self.databases.is_empty());
        Selection::within(&self.databases, &[], database).map_err(field("databases"))?;
        let mut selection =
            Selection::within(&self.databases, &self.tables, database).map_err(field("tables"))?;
        selection.columns = Columns::parse(&self.columns, database).map_err(field("columns"))?;
        selection.keys = Keys::parse(&self.keys, database).map_err(field("keys"))?;
        selection.filters = Filters::parse(&self.filters, database).map_err(field("filters"))?;
        Ok(selection)
    }
}

fn bounds(
    name: &str,
    heartbeat: &DurationText,
    snapshot: &SnapshotConfig,
    batch_bytes: SizeText,
) -> Result<()> {
    let range = |field: &str, ok: bool, says: &str| {
        if ok { Ok(()) } else { Err(Error::config(says).field(field_of(name, field)).hint(says)) }
    };
    range(
        "heartbeat",
        (100..=600_000).contains(&heartbeat.get().as_millis()),
        "must be between 100ms and 10m",
    )?;
    range(
        "batch_bytes",
        (64 << 10..=64 << 20).contains(&batch_bytes.bytes()),
        "must be between 64KiB and 64MiB",
    )?;
    range(
        "snapshot.chunk_bytes",
        (64 << 10..=64 << 20).contains(&snapshot.chunk_bytes.bytes()),
        "must be between 64KiB and 64MiB",
    )?;
    range(
        "snapshot.chunk_rows",
        (1..=10_000_000).contains(&snapshot.chunk_rows),
        "must be between 1 and 10000000",
    )?;
    range("snapshot.readers", (1..=64).contains(&snapshot.readers), "must be between 1 and 64")?;
    range(
        "snapshot.chunk_time",
        (50..=60_000).contains(&snapshot.chunk_time.get().as_millis()),
        "must be between 50ms and 1m",
    )
}

fn hosts(name: &str, written: &[String]) -> Result<Vec<(String, u16)>> {
    let place = |text: &String| {
        let (host, port) = split_port(text).filter(|(host, _)| !host.is_empty())?;
        (!host.contains(['/', '@'])).then(|| (host.to_owned(), port))
    };
    let wrong = || {
        Error::config("a host is not written as `host` or `host:port`")
            .field(field_of(name, "hosts"))
            .hint("write `hosts: [db2, \"db3:3307\"]`; user, password and database are the url's")
    };
    written.iter().map(|text| place(text).ok_or_else(wrong)).collect()
}

/// What the kernel takes.
fn probes(name: &str, config: &Config) -> Result<()> {
    let wrong = |field: &str, says: &str| Err(Error::config(says).field(field_of(name, field)).hint(says));
    for (field, time) in
        [("keepalive", config.keepalive.get()), ("keepalive_interval", config.keepalive_interval.get())]
    {
        if !(1..=32_767).contains(&time.as_secs()) {
            return wrong(field, "must be between 1s and 9h");
        }
    }
    if !(1..=127).contains(&config.keepalive_probes) {
        return wrong("keepalive_probes", "must be between 1 and 127");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_password() {
        let config: Config =
            serde_json::from_str(r#"{"url":"mysql://u:topsecret@h/d","password":"topsecret"}"#).unwrap();
        assert!(!format!("{config:?}").contains("topsecret"));
        assert!(!format!("{:?}", config.resolve("s").unwrap()).contains("topsecret"));
    }

    #[test]
    fn servers_are_tried_in_their_order_each_once() {
        let text = r#"{"url":"mysql://u@a:1/d","hosts":["b:2","a:1","[::1]"]}"#;
        let resolved = serde_json::from_str::<Config>(text).unwrap().resolve("s").unwrap();
        let places = resolved.places();
        assert_eq!(places, [("a".into(), 1), ("b".into(), 2), ("::1".into(), 3306)]);
        assert_eq!(resolved.at(&places[1]).address, parse_url("mysql://u@b:2/d").unwrap());
    }

    #[test]
    fn errors_name_the_field() {
        let with = |extra: &str| {
            let text = format!(r#"{{"url":"mysql://u@h/d",{extra}}}"#);
            serde_json::from_str::<Config>(&text).unwrap().resolve("plex").unwrap_err()
        };
        assert_eq!(with(r#""server_id":0"#).field_name(), Some("sources.plex.server_id"));
        assert_eq!(with(r#""tls":{"mode":"verify-ca"}"#).field_name(), Some("sources.plex.tls"));
        assert_eq!(with(r#""heartbeat":"1ms""#).field_name(), Some("sources.plex.heartbeat"));
        assert_eq!(with(r#""hosts":["b:x"]"#).field_name(), Some("sources.plex.hosts"));
        assert_eq!(with(r#""keepalive_probes":0"#).field_name(), Some("sources.plex.keepalive_probes"));
        assert_eq!(with(r#""tables":["a.b.c.","!"]"#).field_name(), Some("sources.plex.tables"));
    }

    #[test]
    fn connections_are_probed_after_30_10_and_5_unless_it_is_said() {
        let keepalive = |extra: &str| {
            let text = format!(r#"{{"url":"mysql://u@h/d"{extra}}}"#);
            let resolved = serde_json::from_str::<Config>(&text).unwrap().resolve("s").unwrap();
            crate::client::endpoint(&resolved).unwrap().keepalive
        };
        assert_eq!(keepalive(""), Keepalive::default());
        let said = keepalive(r#","keepalive":"7s","keepalive_interval":"3s","keepalive_probes":2"#);
        let secs = Duration::from_secs;
        assert_eq!(said, Keepalive { idle: secs(7), interval: secs(3), probes: 2 });
    }
}
