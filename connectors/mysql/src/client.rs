//! Ordinary SQL on the source: connections with a known session, and what went wrong told by who must act.
//!
//! The session: UTC, utf8mb4 results, an empty `sql_mode` (no ANSI quotes, no padding of CHAR, zero dates allowed as parameters),
//! REPEATABLE READ. So a query reads the same whatever the server's defaults are.

use crate::config::{Resolved, TlsMode};
use crate::connection::Family;
use caudal_core::{Error, Fault, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError, Opts, OptsBuilder, Row, SslOpts, Value};

/// MySQL's maximum; rows of 64 MB and more come in one packet.
const MAX_PACKET: usize = 1 << 30;

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

/// A connection for SQL. Dropping it closes it.
pub(crate) struct Client {
    conn: Conn,
    /// The server's version.
    pub(crate) version: Version,
    /// Whether the connection is encrypted.
    pub(crate) encrypted: bool,
}

impl Client {
    /// Connects and sets the session up.
    ///
    /// # Errors
    /// `Config` for a wrong password, missing privileges, failed TLS; `Transient` for what may pass.
    pub(crate) async fn connect(config: &Resolved) -> Result<Self> {
        let place = format!("connect to {}:{}", config.address.host, config.address.port);
        let within = tokio::time::timeout(config.connect_timeout, Self::connect_unbounded(config));
        match within.await {
            Ok(client) => client.map_err(|e| e.context(place).field(config.field("url"))),
            Err(_) => {
                Err(Error::transient(format!("{place}: no answer within {:?}", config.connect_timeout))
                    .field(config.field("url"))
                    .hint(UNREACHABLE_HINT))
            }
        }
    }

    async fn connect_unbounded(config: &Resolved) -> Result<Self> {
        let encrypted = config.tls.mode != TlsMode::Disabled;
        let (conn, encrypted) = match Conn::new(options(config, encrypted)).await {
            Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))
                if config.tls.mode == TlsMode::Preferred =>
            {
                (Conn::new(options(config, false)).await, false)
            }
            conn => (conn, encrypted),
        };
        let mut conn = conn.map_err(classify)?;
        let version: Option<String> = conn.query_first("SELECT @@version").await.map_err(classify)?;
        let version = Version::parse(&version.unwrap_or_default());
        Ok(Self { conn, version, encrypted })
    }

    /// All rows of a statement without parameters, by the text protocol. For small results.
    ///
    /// # Errors
    /// As [`classify`] tells; `what` is "verb object".
    pub(crate) async fn rows(&mut self, what: &str, sql: &str) -> Result<Vec<Row>> {
        self.conn.query(sql).await.map_err(|e| classify(e).context(what))
    }

    /// The first row, if any.
    ///
    /// # Errors
    /// As for [`Client::rows`].
    pub(crate) async fn row(&mut self, what: &str, sql: &str) -> Result<Option<Row>> {
        self.conn.query_first(sql).await.map_err(|e| classify(e).context(what))
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
        self.conn.exec(sql, parameters).await.map_err(|e| classify(e).context(what))
    }

    /// Runs a statement for its effect.
    ///
    /// # Errors
    /// As for [`Client::rows`].
    pub(crate) async fn run(&mut self, what: &str, sql: &str) -> Result<()> {
        self.conn.query_drop(sql).await.map_err(|e| classify(e).context(what))
    }

    /// The connection itself, for reading a large result row by row.
    pub(crate) fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// A column of a row of metadata as text; none for NULL.
#[must_use]
pub(crate) fn row_text(row: &Row, column: usize) -> Option<String> {
    match row.as_ref(column)? {
        Value::NULL => None,
        Value::Bytes(b) => Some(String::from_utf8_lossy(b).into_owned()),
        Value::Int(n) => Some(n.to_string()),
        Value::UInt(n) => Some(n.to_string()),
        other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

/// An identifier in backticks.
#[must_use]
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn options(config: &Resolved, encrypted: bool) -> Opts {
    let address = &config.address;
    let session =
        "SET NAMES utf8mb4, SESSION time_zone='+00:00', SESSION sql_mode='', SESSION autocommit=1".to_owned();
    OptsBuilder::default()
        .ip_or_hostname(address.host.clone())
        .tcp_port(address.port)
        .user(Some(address.user.clone()))
        .pass(Some(address.password.reveal().to_owned()))
        .db_name(address.database.clone())
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(config.keepalive))
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(28_800))
        .secure_auth(true)
        .ssl_opts(encrypted.then(|| ssl(config)))
        .init(vec![session, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned()])
        .into()
}

fn ssl(config: &Resolved) -> SslOpts {
    let tls = &config.tls;
    let checked = matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyIdentity);
    let mut options = SslOpts::default()
        .with_danger_accept_invalid_certs(!checked)
        .with_danger_skip_domain_validation(tls.mode != TlsMode::VerifyIdentity);
    if let Some(ca) = &tls.ca {
        options = options.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(checked);
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        let identity = mysql_async::ClientIdentity::new(cert.clone().into(), key.clone().into());
        options = options.with_client_identity(Some(identity));
    }
    options
}

const UNREACHABLE_HINT: &str = "check host and port of the url, that the server runs and listens there (bind-address), and that no firewall is between";

/// Tells who must act on an error of the driver.
#[must_use]
pub(crate) fn classify(error: mysql_async::Error) -> Error {
    use mysql_async::Error as E;
    match error {
        E::Server(e) => server_error(e.code, &e.message),
        E::Io(IoError::Tls(e)) => Error::config("set up TLS").because(e).hint(
            "check tls.mode, tls.ca and the server's certificate; certificates that MySQL makes by itself hold no host name: use verify-ca with its ca.pem",
        ),
        E::Io(IoError::Io(e)) => Error::transient("talk to the server").because(e).hint(UNREACHABLE_HINT),
        E::Driver(DriverError::ConnectionClosed) => Error::transient("the server closed the connection"),
        E::Driver(DriverError::NoClientSslFlagFromServer) => {
            Error::config("the server offers no TLS").hint("enable TLS on the server, or set tls.mode: disabled")
        }
        E::Driver(DriverError::UnknownAuthPlugin { name }) => {
            Error::config(format!("the server asks for authentication by `{name}`, which is not supported"))
                .hint("use caching_sha2_password, mysql_native_password or ed25519 for this user")
        }
        E::Driver(e) => Error::transient("talk to the server").because(e),
        other => Error::transient("talk to the server").because(other),
    }
}

fn server_error(code: u16, message: &str) -> Error {
    let fault = match code {
        1044 | 1045 | 1049 | 1130 | 1142 | 1143 | 1227 | 1370 | 1698 | 1820 | 1862 | 3118 | 4151 => {
            Fault::Config
        }
        _ => Fault::Transient,
    };
    let error = Error::new(fault, format!("the server says {code}: {message}"));
    match code {
        1045 | 1698 => error.hint("check user and password; in SQL: ALTER USER … IDENTIFIED BY '…'"),
        1044 => error.hint(
            grant_for(message).unwrap_or_else(|| "grant this user SELECT on the url's database".to_owned()),
        ),
        1142 | 1143 | 1227 | 1370 => {
            error.hint("grant the missing privilege; `caudal check` prints the statements")
        }
        1049 => error.hint("check the database in the url"),
        1130 => error.hint("create the user for this host: CREATE USER 'user'@'%' …"),
        1820 | 1862 => error.hint("the password has expired: set a new one"),
        3118 | 4151 => error.hint("the account is locked: ALTER USER … ACCOUNT UNLOCK"),
        _ => error,
    }
}

/// The statement that lets the account into the database, for "Access denied for user 'u'@'h' to database 'd'". Such an account
/// cannot connect, so nobody can look at its privileges.
fn grant_for(message: &str) -> Option<String> {
    let (_, who) = message.split_once(" for user ")?;
    let (user, database) = who.split_once(" to database ")?;
    Some(format!("GRANT SELECT ON {}.* TO {user};", quoted(database.trim_matches('\''))))
}

/// The server's code, where an error came from the server.
#[must_use]
pub(crate) fn server_code(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(e) => Some(e.code),
        _ => None,
    }
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
    fn an_account_that_may_not_use_the_database_is_told_the_grant() {
        let error = server_error(1044, "Access denied for user 'cdc'@'%' to database 'shop'");
        assert_eq!(error.hint_text(), Some("GRANT SELECT ON `shop`.* TO 'cdc'@'%';"));
        assert!(server_error(1044, "Zugriff verweigert").hint_text().is_some());
    }

    #[test]
    fn a_wrong_password_is_the_operators_and_a_cut_connection_passes() {
        assert_eq!(server_error(1045, "denied").fault(), Fault::Config);
        assert_eq!(server_error(1040, "too many").fault(), Fault::Transient);
        assert_eq!(classify(DriverError::ConnectionClosed.into()).fault(), Fault::Transient);
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted("a`b"), "`a``b`");
    }
}
