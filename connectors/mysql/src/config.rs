//! The keys of a `type: mysql` source, and what they resolve to.
//!
//! Two stages: [`Config`] is what was written; [`Config::resolve`] turns it into [`Resolved`], after which nothing can be
//! "invalid config" any more. Errors name the field, the cause and the fix; none of them shows a password.

use crate::connection::Keepalive;
use crate::heartbeat;
use crate::poll::PollConfig;
use crate::poll::config::Polls;
use crate::selection::{Columns, Filters, Keys, Selection};
use caudal_core::quantity::{DurationText, SizeText};
use caudal_core::{Error, Result, TableId};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

mod heartbeat_config;

pub use heartbeat_config::HeartbeatConfig;

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

/// How the connection is encrypted.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// What is asked of the server.
    #[serde(default)]
    pub mode: TlsMode,
    /// File of the authorities to trust, PEM. Needed for `verify-ca`; with `verify-identity` the public authorities are used
    /// when left out.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// File of the client's certificate chain, PEM.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// File of the client's private key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// What is asked of the server's encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Not encrypted.
    Disabled,
    /// Encrypted if the server can, plain otherwise; the certificate is not checked.
    #[default]
    Preferred,
    /// Encrypted; the certificate is not checked.
    Required,
    /// Encrypted; the certificate must come from `ca`.
    VerifyCa,
    /// Encrypted; the certificate must come from a trusted authority and be the host's.
    VerifyIdentity,
}

/// How existing rows are read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Whether rows that exist before the first start are read.
    #[serde(default)]
    pub mode: SnapshotMode,
    /// Most rows of one chunk.
    #[serde(default = "default_chunk_rows")]
    pub chunk_rows: u32,
    /// Most bytes of one chunk; also what the chunk takes in memory.
    #[serde(default = "default_chunk_bytes")]
    pub chunk_bytes: SizeText,
    /// How long the query of one chunk should take at most: chunks grow and shrink to stay below it.
    #[serde(default = "default_chunk_time")]
    pub chunk_time: DurationText,
    /// How many chunks are read at once, each by a connection of its own: of one large table, or of several.
    #[serde(default = "default_readers")]
    pub readers: u32,
    /// While more threads than this run on the source (`Threads_running`), no further chunk is begun. 0: whatever its load.
    #[serde(default = "default_max_threads_running")]
    pub max_threads_running: u32,
    /// While the server that is read is a replica and this far behind (beyond the delay that it is told to keep), no further chunk is begun.
    /// Whole seconds; 0s: however far. MariaDB tells it to accounts with REPLICA MONITOR.
    #[serde(default = "default_max_replica_lag")]
    pub max_replica_lag: DurationText,
    /// Where rows of large tables without a key are kept while the table is read, compressed transactions while they are
    /// decoded, and 24 bytes for each key of a table that is read again. The system's place for temporary files when left out.
    #[serde(default)]
    pub spool_dir: Option<PathBuf>,
}

/// Whether rows that exist before the first start are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// All rows of the selected tables are read once, while changes stream.
    #[default]
    Initial,
    /// Only changes from the first start on.
    #[serde(alias = "schema_only")]
    Never,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            mode: SnapshotMode::default(),
            chunk_rows: default_chunk_rows(),
            chunk_bytes: default_chunk_bytes(),
            chunk_time: default_chunk_time(),
            readers: default_readers(),
            max_threads_running: default_max_threads_running(),
            max_replica_lag: default_max_replica_lag(),
            spool_dir: None,
        }
    }
}

/// The table of the heartbeat's row. A poll writes nothing.
fn heartbeat_table(config: &Config, address: &Address) -> Result<Option<TableId>> {
    let Some(text) = &config.heartbeat.table else { return Ok(None) };
    if config.mode == Mode::Poll {
        return Err(Error::config("a poll writes no heartbeats").hint("remove `heartbeat.table`"));
    }
    heartbeat::table(text, address.database.as_deref()).map(Some)
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
fn default_chunk_rows() -> u32 {
    50_000
}
fn default_chunk_bytes() -> SizeText {
    SizeText::mib(1)
}
fn default_readers() -> u32 {
    2
}
fn default_max_replica_lag() -> DurationText {
    DurationText::secs(60)
}

fn default_max_threads_running() -> u32 {
    25
}
fn default_chunk_time() -> DurationText {
    DurationText::secs(2)
}

// The url may hold the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("tables", &self.tables).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// A text that no log, error or Debug shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text: only for handing it to the server.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the server is and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password, empty for none.
    pub password: Secret,
    /// Default database.
    pub database: Option<String>,
}

/// A source's configuration, checked.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The source's name.
    pub name: String,
    /// Where the server is.
    pub address: Address,
    /// Further servers.
    pub hosts: Vec<(String, u16)>,
    /// The only server that may answer, as it names itself, once one was chosen.
    pub identity: Option<String>,
    /// File of the password, in place of the address's.
    pub password_file: Option<PathBuf>,
    /// Encryption.
    pub tls: TlsConfig,
    /// Which tables.
    pub selection: Selection,
    /// The reader's id in the topology, if configured.
    pub server_id: Option<u32>,
    /// Heartbeat period.
    pub heartbeat: Duration,
    /// Where a row is written each period.
    pub heartbeat_table: Option<TableId>,
    /// How changes are found.
    pub mode: Mode,
    /// How tables are polled.
    pub(crate) poll: Polls,
    /// Snapshot settings.
    pub snapshot: SnapshotConfig,
    /// Bytes at which a batch is closed.
    pub batch_bytes: usize,
    /// Bound on connecting.
    pub connect_timeout: Duration,
    /// TCP keepalive.
    pub keepalive: Keepalive,
    /// Bound on undecided XA rows.
    pub xa_bytes: usize,
}

impl Resolved {
    /// Where what is too large for memory is kept for a while.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.snapshot.spool_dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// The full name of a field of this source, for errors.
    #[must_use]
    pub fn field(&self, field: &str) -> String {
        field_of(&self.name, field)
    }

    /// All servers, the url's first.
    #[must_use]
    pub fn places(&self) -> Vec<(String, u16)> {
        let first = (self.address.host.clone(), self.address.port);
        let others = self.hosts.iter().filter(|place| **place != first).cloned();
        std::iter::once(first.clone()).chain(others).collect()
    }

    /// The same for one server.
    #[must_use]
    pub fn at(&self, (host, port): &(String, u16)) -> Self {
        let address = Address { host: host.clone(), port: *port, ..self.address.clone() };
        Self { address, ..self.clone() }
    }

    /// The error with the full name of the field that it names within this source.
    pub(crate) fn own_field(&self, error: Error) -> Error {
        match error.field_name() {
            Some(field) if !field.starts_with("sources.") => {
                let field = self.field(field);
                error.field(field)
            }
            _ => error,
        }
    }
}

fn field_of(source: &str, field: &str) -> String {
    format!("sources.{source}.{field}")
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
        check_tls(&self.tls).map_err(|e| e.field(field("tls")))?;
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
            mode: self.mode,
            poll,
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

fn check_tls(tls: &TlsConfig) -> Result<()> {
    if tls.mode == TlsMode::VerifyCa && tls.ca.is_none() {
        return Err(Error::config("`verify-ca` needs the authorities to trust")
            .hint("set tls.ca to the PEM file of the server's authority (MySQL makes its own: ca.pem in its data directory)"));
    }
    if tls.cert.is_some() != tls.key.is_some() {
        return Err(
            Error::config("a client certificate needs both tls.cert and tls.key").hint("set both, or none")
        );
    }
    if tls.mode == TlsMode::Disabled && (tls.ca.is_some() || tls.cert.is_some()) {
        return Err(Error::config("certificates are given but tls.mode is `disabled`")
            .hint("set tls.mode to required, verify-ca or verify-identity"));
    }
    for (field, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
        if let Some(path) = path
            && let Err(e) = std::fs::File::open(path)
        {
            return Err(Error::config(format!("open tls.{field} ({})", path.display()))
                .because(e)
                .hint("check the path and that this user may read it"));
        }
    }
    Ok(())
}

/// Reads a url. Passwords come from the environment as they are, so the last `@` ends them, and only complete `%HH` are decoded.
fn parse_url(url: &str) -> Result<Address> {
    let example = "write it as mysql://user:password@host:3306/database";
    let wrong = |message: &str| Error::config(message.to_owned()).hint(example);
    let rest = ["mysql://", "mariadb://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or_else(|| wrong("the url does not begin with mysql://"))?;
    let (who, place) = rest.rsplit_once('@').ok_or_else(|| wrong("the url names no user"))?;
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    if user.is_empty() {
        return Err(wrong("the url names no user"));
    }
    if place.contains('?') {
        return Err(wrong("the url has parameters (`?…`); there are none")
            .hint("use the keys of the source instead: tls, heartbeat, …"));
    }
    let (host_port, database) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = split_port(host_port).ok_or_else(|| wrong("the url's port is no port"))?;
    if host.is_empty() {
        return Err(wrong("the url names no host"));
    }
    Ok(Address {
        host: host.to_owned(),
        port,
        user: percent_decoded(user),
        password: Secret::new(percent_decoded(password)),
        database: (!database.is_empty()).then(|| percent_decoded(database)),
    })
}

fn split_port(place: &str) -> Option<(&str, u16)> {
    const DEFAULT: u16 = 3306;
    if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => after.is_empty().then_some((host, DEFAULT)),
        };
    }
    match place.rsplit_once(':') {
        Some((host, port)) => Some((host, port.parse().ok().filter(|&p| p != 0)?)),
        None => Some((place, DEFAULT)),
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%')
            .then(|| bytes.get(i + 1..i + 3))
            .flatten()
            .and_then(|h| std::str::from_utf8(h).ok())
            .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(hex.unwrap_or(bytes[i]));
        i += if hex.is_some() { 3 } else { 1 };
    }
    // Decoded bytes that are no UTF-8 were no escapes.
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        parse_url(url).unwrap()
    }

    #[test]
    fn a_url_is_read_with_its_defaults() {
        let a = address("mysql://cdc:pw@db/plex");
        assert_eq!((a.host.as_str(), a.port, a.user.as_str()), ("db", 3306, "cdc"));
        assert_eq!(a.database.as_deref(), Some("plex"));
        let a = address("mariadb://cdc@[::1]:3307");
        assert_eq!((a.host.as_str(), a.port, a.database), ("::1", 3307, None));
    }

    #[test]
    fn a_password_may_hold_any_character() {
        assert_eq!(address("mysql://u:p@ss/w#r:d%@h/db").password.reveal(), "p@ss/w#r:d%");
        assert_eq!(address("mysql://u:p%40ss@h/db").password.reveal(), "p@ss");
    }

    #[test]
    fn a_wrong_url_is_refused_with_an_example_and_without_the_password() {
        for url in
            ["http://u:topsecret@h", "mysql://h", "mysql://u:topsecret@h:x/d", "mysql://u:topsecret@/d"]
        {
            let e = parse_url(url).unwrap_err();
            assert!(e.hint_text().is_some());
            assert!(!format!("{e} {e:?}").contains("topsecret"), "{e}");
        }
    }

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
        assert_eq!(resolved.at(&places[1]).address, address("mysql://u@b:2/d"));
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
}
