//! Ordinary SQL on the source: connections with a known session, and what went wrong told by who must act.
//!
//! The session: UTC, utf8mb4 results, an empty `sql_mode` (no ANSI quotes, no padding of CHAR, zero dates allowed as parameters),
//! REPEATABLE READ. So a query reads the same whatever the server's defaults are.

use crate::config::{Resolved, TlsMode};
use crate::connection::results::Failure;
use crate::connection::{Connection, Endpoint, Family, Rows};
use crate::tls::{self, TlsOptions};
use crate::value::Value;
use caudal_core::{Error, Result};
use std::time::{Duration, Instant};

/// Largest row. MySQL's own limit is 1 GiB for a field; a row is refused beyond that.
const MAX_ROW: usize = (1 << 30) + (1 << 20);
/// The longest silence before or within an answer: more than any bound that is set on a statement.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A connection that was not used for this long may have been cut.
const IDLE: Duration = Duration::from_secs(1);
/// How long an idle connection may take to answer; then it is replaced.
const PING: Duration = Duration::from_secs(5);

/// A row of a small result.
pub(crate) type Row = Vec<Value>;

/// A server's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Which family.
    pub(crate) family: Family,
    /// Major, minor, patch.
    pub(crate) number: (u16, u16, u16),
    /// As the server says it.
    pub(crate) text: String,
}

impl Version {
    /// Reads `@@version`: `9.7.4`, `10.11.19-MariaDB-log`, also with MariaDB's old `5.5.5-` in front.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let family =
            if text.to_ascii_lowercase().contains("mariadb") { Family::MariaDb } else { Family::MySql };
        let digits =
            if family == Family::MariaDb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut parts = digits
            .split(|c: char| !c.is_ascii_digit())
            .map(|p| p.parse::<u16>().unwrap_or(0))
            .chain(std::iter::repeat(0));
        let mut next = || parts.next().unwrap_or(0);
        Self { family, number: (next(), next(), next()), text: text.to_owned() }
    }

    /// Whether it is MariaDB.
    #[must_use]
    pub(crate) fn is_mariadb(&self) -> bool {
        self.family == Family::MariaDb
    }

    /// Whether this version is among those that Caudal is tested with.
    #[must_use]
    pub(crate) fn supported(&self) -> bool {
        match self.family {
            Family::MySql => self.number >= (8, 0, 0),
            Family::MariaDb => self.number >= (10, 11, 0),
        }
    }

    /// The statement that shows the binlog's end: MySQL 8.2 renamed it, 8.4 removed the old name.
    #[must_use]
    pub(crate) fn show_binlog_status(&self) -> &'static str {
        match self.family {
            Family::MySql if self.number >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
            _ => "SHOW MASTER STATUS",
        }
    }
}

/// A connection for SQL. Dropping it closes it; so does dropping the future of one of its statements, for it refuses to be used then.
pub(crate) struct Client {
    conn: Connection,
    /// The server's version.
    pub(crate) version: Version,
    /// Whether the connection is encrypted.
    pub(crate) encrypted: bool,
    /// What the server calls itself: no other server of a topology has the same name.
    pub(crate) identity: String,
    config: Box<Resolved>,
    /// When a statement was last given.
    used: Instant,
    /// When a table's write lock was last asked for in vain.
    pub(crate) pressed: Option<Instant>,
}

impl Client {
    /// Connects and sets the session up.
    ///
    /// # Errors
    /// `Config` for a wrong password, missing privileges, failed TLS; `Transient` for what may pass.
    pub(crate) async fn connect(config: &Resolved) -> Result<Self> {
        Self::set_up(config).await.map_err(|e| {
            let field = config.field(e.field_name().unwrap_or("url"));
            e.field(field)
        })
    }

    async fn set_up(config: &Resolved) -> Result<Self> {
        let mut conn = Connection::connect(&endpoint(config)?, MAX_ROW).await?;
        let told = |e: Failure| e.into_error().context("set up the session");
        for statement in SESSION {
            conn.text_rows(statement).await.map_err(told)?;
        }
        let mut client = Self {
            encrypted: conn.is_encrypted(),
            conn,
            version: Version::parse(""),
            identity: String::new(),
            config: Box::new(config.clone()),
            used: Instant::now(),
            pressed: None,
        };
        let version = client.text("ask for the version", "SELECT @@version").await?;
        client.version = Version::parse(&version.unwrap_or_default());
        client.identity = client.ask_identity().await?;
        if config.identity.as_ref().is_some_and(|expected| *expected != client.identity) {
            return Err(Error::transient(format!(
                "another server answers there now: {}, not {}",
                client.identity,
                config.identity.as_deref().unwrap_or_default()
            )));
        }
        client.conn.set_patience(PATIENCE);
        Ok(client)
    }

    async fn ask_identity(&mut self) -> Result<String> {
        let (name, sql) = match self.version.family {
            Family::MySql => ("server_uuid", "SELECT @@GLOBAL.server_uuid"),
            Family::MariaDb => ("server_id", "SELECT @@GLOBAL.server_id"),
        };
        let value = self.text("ask who the server is", sql).await?.unwrap_or_default();
        Ok(format!("{name} {value}"))
    }

    /// Makes sure that the connection works, before something new is begun on it: servers, proxies and firewalls cut what is idle. A
    /// connection that was cut is replaced; whatever the session held is gone then.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub(crate) async fn revive(&mut self) -> Result<()> {
        if self.used.elapsed() < IDLE {
            return Ok(());
        }
        let alive = tokio::time::timeout(PING, self.conn.ping()).await;
        if !matches!(alive, Ok(Ok(()))) {
            let config = Resolved { identity: Some(self.identity.clone()), ..(*self.config).clone() };
            let pressed = self.pressed;
            *self = Self { pressed, ..Self::connect(&config).await? };
        }
        self.used = Instant::now();
        Ok(())
    }

    /// All rows of a statement without parameters, by the text protocol. For small results.
    ///
    /// # Errors
    /// As [`classify`] tells; `what` is "verb object".
    pub(crate) async fn rows(&mut self, what: &str, sql: &str) -> Result<Vec<Row>> {
        self.used = Instant::now();
        let rows = self.conn.text_rows(sql).await.map_err(|e| e.into_error().context(what))?;
        let value = |cell: Option<bytes::Bytes>| cell.map_or(Value::Null, |b| Value::Bytes(b.to_vec()));
        Ok(rows.into_iter().map(|row| row.into_iter().map(value).collect()).collect())
    }

    /// The number of a column of the last answer, by any of these names.
    pub(crate) fn column(&self, names: &[&str]) -> Option<usize> {
        self.conn.names.iter().position(|name| names.iter().any(|n| name.eq_ignore_ascii_case(n)))
    }

    /// The first row, if any.
    ///
    /// # Errors
    /// As for [`Client::rows`].
    pub(crate) async fn row(&mut self, what: &str, sql: &str) -> Result<Option<Row>> {
        Ok(self.rows(what, sql).await?.into_iter().next())
    }

    /// The first column of the first row as text; none for NULL and for no row.
    ///
    /// # Errors
    /// As for [`Client::rows`].
    pub(crate) async fn text(&mut self, what: &str, sql: &str) -> Result<Option<String>> {
        Ok(self.row(what, sql).await?.and_then(|row| row_text(&row, 0)))
    }

    /// All rows of a statement with parameters, by the binary protocol. For small results.
    ///
    /// # Errors
    /// As for [`Client::rows`].
    pub(crate) async fn bound_rows(
        &mut self,
        what: &str,
        sql: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Row>> {
        self.used = Instant::now();
        let all = async {
            let (mut out, mut rows) = (Vec::new(), self.conn.run(sql, &parameters).await?);
            while let Some(row) = rows.next().await? {
                out.push(row.values().ok_or_else(|| Error::transient("a row is not understood"))?);
            }
            Ok(out)
        };
        all.await.map_err(|e: Failure| e.into_error().context(what))
    }

    /// Runs a statement for its effect.
    ///
    /// # Errors
    /// As for [`Client::rows`].
    pub(crate) async fn run(&mut self, what: &str, sql: &str) -> Result<()> {
        self.used = Instant::now();
        self.conn.text_rows(sql).await.map(drop).map_err(|e| e.into_error().context(what))
    }

    /// The rows of a statement, one by one as they come, for large results. Where they are not read to their end, the client is of
    /// no use any more.
    ///
    /// # Errors
    /// What the server refused, or how the connection was lost.
    pub(crate) async fn stream(&mut self, sql: &str, parameters: &[Value]) -> Result<Rows<'_>, Failure> {
        self.used = Instant::now();
        self.conn.run(sql, parameters).await
    }
}

/// What a session begins with.
const SESSION: [&str; 2] = [
    "SET NAMES utf8mb4, SESSION time_zone='+00:00', SESSION sql_mode='', SESSION autocommit=1",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
];

/// A column of a row of metadata as text; none for NULL.
#[must_use]
pub(crate) fn row_text(row: &[Value], column: usize) -> Option<String> {
    row.get(column)?.text()
}

/// An identifier in backticks.
#[must_use]
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The server of a configuration, as its connections know it.
///
/// # Errors
/// `Config` if the file of the password cannot be read. It is read each time, so that a new password needs no restart.
pub(crate) fn endpoint(config: &Resolved) -> Result<Endpoint> {
    let mode = match config.tls.mode {
        TlsMode::Disabled => tls::TlsMode::Disabled,
        TlsMode::Preferred => tls::TlsMode::Preferred,
        TlsMode::Required => tls::TlsMode::Required,
        TlsMode::VerifyCa => tls::TlsMode::VerifyCa,
        TlsMode::VerifyIdentity => tls::TlsMode::VerifyIdentity,
    };
    let address = &config.address;
    let password = match &config.password_file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| {
                Error::config(format!("read the password in {}", path.display()))
                    .field("password_file")
                    .hint("check the path and that this user may read it")
                    .because(e)
            })?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        None => address.password.reveal().to_owned(),
    };
    Ok(Endpoint {
        host: address.host.clone(),
        port: address.port,
        user: address.user.clone(),
        password,
        database: address.database.clone(),
        tls: TlsOptions {
            mode,
            ca: config.tls.ca.clone(),
            client: config.tls.cert.clone().zip(config.tls.key.clone()),
        },
        connect_timeout: config.connect_timeout,
        keepalive: config.keepalive,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_both_families_are_read() {
        let v = Version::parse("5.5.5-10.11.19-MariaDB-log");
        assert_eq!((v.family, v.number), (Family::MariaDb, (10, 11, 19)));
        let v = Version::parse("9.7.4");
        assert_eq!((v.family, v.number), (Family::MySql, (9, 7, 4)));
        assert_eq!(v.show_binlog_status(), "SHOW BINARY LOG STATUS");
        assert_eq!(Version::parse("8.0.15").show_binlog_status(), "SHOW MASTER STATUS");
        assert!(!Version::parse("5.7.44-log").supported());
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted("a`b"), "`a``b`");
    }
}
