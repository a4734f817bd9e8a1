//! A connection: greeting, TLS, authentication, and the few text queries that replication needs.

mod greeting;
pub(crate) mod results;
mod statement;
#[cfg(test)]
mod tests;

use crate::auth::authenticate;
use crate::packet::{Fields, Wire};
use crate::refusal::error_packet;
use crate::tls::{TlsMode, TlsOptions, Transport};
use bytes::Bytes;
use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use greeting::Greeting;
use results::{Failure, Head};
use socket2::{SockRef, TcpKeepalive};
pub(crate) use statement::Rows;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

const COM_QUERY: u8 = 0x03;
const COM_PING: u8 = 0x0e;

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// MySQL, and Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// A server's version, as it greets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// Whose server it is.
    pub family: Family,
    /// Major, minor, patch; 0 for what is not there.
    pub number: (u16, u16, u16),
    /// As the server writes it.
    pub text: String,
}

/// A server, and who we are there.
#[derive(Clone)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password; empty for none. Never shown.
    pub password: String,
    /// Default database.
    pub database: Option<String>,
    /// TLS.
    pub tls: TlsOptions,
    /// For connecting and authenticating together.
    pub connect_timeout: Duration,
    /// How a peer that vanished is found.
    pub keepalive: Keepalive,
}

/// TCP keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which the peer is probed.
    pub idle: Duration,
    /// Between two probes.
    pub interval: Duration,
    /// So many probes without an answer are a dead peer.
    pub probes: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 5 }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}@{}:{}, {:?})", self.user, self.host, self.port, self.tls.mode)
    }
}

/// A row of a text result: none is NULL.
pub type TextRow = Vec<Option<Bytes>>;

/// An authenticated connection.
pub struct Connection {
    pub(crate) wire: Wire,
    version: ServerVersion,
    /// A command was sent whose answer was not read to its end.
    outstanding: bool,
    /// The columns' names in the last answer that had any.
    pub(crate) names: Vec<Box<str>>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.version.text)
    }
}

impl Connection {
    /// Connects and authenticates. Payloads over `max_payload` bytes are refused for as long as the connection lives.
    ///
    /// # Errors
    /// `Config` where user, password, TLS or the host's name don't do; `Transient` where the server can't be reached.
    pub async fn connect(endpoint: &Endpoint, max_payload: usize) -> Result<Self> {
        let connected =
            tokio::time::timeout(endpoint.connect_timeout, Self::establish(endpoint, max_payload)).await;
        connected
            .unwrap_or_else(|_| {
                Err(Error::transient(format!("no answer within {:?}", endpoint.connect_timeout))
                    .hint("is it the right host and port, and does a firewall let us through?"))
            })
            .map_err(|e| e.context(format_args!("connect to {}:{}", endpoint.host, endpoint.port)))
    }

    async fn establish(endpoint: &Endpoint, max_payload: usize) -> Result<Self> {
        let tcp = reach(endpoint).await?;
        let mut wire = Wire::new(Transport::Plain(tcp), max_payload, endpoint.connect_timeout);
        let greeting = Greeting::parse(&wire.receive().await?)?;
        let plain = match endpoint.tls.mode {
            TlsMode::Disabled => true,
            TlsMode::Preferred => !greeting.has_tls(),
            TlsMode::Required | TlsMode::VerifyCa | TlsMode::VerifyIdentity => false,
        };
        if !plain {
            wire.send(&greeting.ask_for_tls(endpoint)?).await?;
            wire = wire.encrypt(async |plain| endpoint.tls.encrypt(&endpoint.host, plain).await).await?;
        }
        let answer = greeting.answer(endpoint, wire.is_encrypted());
        wire.send(&answer).await?;
        let Greeting { version, challenge, .. } = greeting;
        authenticate(&mut wire, challenge, &endpoint.password).await?;
        Ok(Self { wire, version, outstanding: false, names: Vec::new() })
    }

    /// The longest silence that is taken for life from now on.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.wire.patience = patience;
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.wire.is_encrypted()
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> &ServerVersion {
        &self.version
    }

    /// Whose server it is.
    #[must_use]
    pub fn family(&self) -> Family {
        self.version.family
    }

    /// Runs a statement for its effect, and gives how many rows it changed. Rows that it returns are passed over.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn execute(&mut self, sql: &str) -> Result<u64> {
        let (affected, _) = self.answer(sql, |_| Some(())).await.map_err(told)?;
        Ok(affected)
    }

    /// Runs a statement and gives its rows as text. For small answers: all rows are held.
    ///
    /// # Errors
    /// What the server says, with its fault; `Transient` where the connection is lost.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>> {
        self.text_rows(sql).await.map_err(told)
    }

    /// Whether the server still answers.
    pub(crate) async fn ping(&mut self) -> Result<(), Failure> {
        self.ask(&[COM_PING]).await.map(drop)
    }

    /// As [`Connection::query`].
    pub(crate) async fn text_rows(&mut self, sql: &str) -> Result<Vec<TextRow>, Failure> {
        let (_, rows) = self.answer(sql, text_row).await?;
        Ok(rows)
    }

    /// Runs a statement, and makes something of each row's packet: the columns in it are `usize`.
    async fn answer<T>(
        &mut self,
        sql: &str,
        mut make: impl FnMut((&Bytes, usize)) -> Option<T>,
    ) -> Result<(u64, Vec<T>), Failure> {
        let mut rows = Vec::new();
        match self.ask(&[&[COM_QUERY], sql.as_bytes()].concat()).await? {
            Head::Done { affected } => return Ok((affected, rows)),
            Head::Rows(forms) => {
                while let Some(packet) = self.row().await? {
                    rows.push(make((&packet, forms.len())).ok_or_else(garbled)?);
                }
            }
        }
        Ok((0, rows))
    }

    /// The first value of the first row, as text.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn scalar(&mut self, sql: &str) -> Result<Option<String>> {
        let rows = self.query(sql).await?;
        let cell = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
        Ok(cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Sends a command: what comes back is the caller's to read.
    pub(crate) async fn command(&mut self, payload: &[u8]) -> Result<()> {
        self.wire.restart();
        self.wire.send(payload).await
    }

    /// Sends a command that is answered with OK or an error.
    pub(crate) async fn acknowledged(&mut self, doing: &str, payload: &[u8]) -> Result<()> {
        self.command(payload).await?;
        let answer = self.wire.receive().await?;
        match answer.first() {
            Some(0x00) => Ok(()),
            Some(0xff) => Err(error_packet(doing, &answer)),
            _ => Err(garbled()),
        }
    }
}

/// A failure while replication is prepared, whose statements are ours.
fn told(failure: Failure) -> Error {
    match failure {
        Failure::Refused(refusal) => refusal.of("query the server"),
        Failure::Lost(error) => error,
    }
}

fn text_row((packet, columns): (&Bytes, usize)) -> Option<TextRow> {
    let mut fields = Fields(packet);
    let mut row = Vec::with_capacity(columns);
    for _ in 0..columns {
        // MySQL 8.0 leaves the last field out for a replica without a UUID (SHOW SLAVE HOSTS).
        if fields.0.is_empty() {
            row.push(None);
        } else if fields.0.first() == Some(&0xfb) {
            fields.take(1)?;
            row.push(None);
        } else {
            let length = usize::try_from(fields.length_encoded()?).ok()?;
            row.push(Some(packet.slice_ref(fields.take(length)?)));
        }
    }
    Some(row)
}

fn garbled() -> Error {
    Error::transient("the server's answer is not understood")
}

/// Tries each address of the host.
async fn reach(endpoint: &Endpoint) -> Result<TcpStream> {
    let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await.map_err(|e| {
        Error::transient("look up the host's name").hint("check the host of the source's url").because(e)
    })?;
    let mut last = Error::transient("the host's name has no address");
    for address in addresses {
        match dial(address, endpoint.keepalive).await {
            Ok(tcp) => return Ok(tcp),
            Err(e) => last = e.hint("is the server running, and is it the right host and port?"),
        }
    }
    Err(last)
}

/// Without delay, and with keep-alive: a peer that vanished is found even where no heartbeat is due.
async fn dial(address: SocketAddr, keepalive: Keepalive) -> Result<TcpStream> {
    let tcp = TcpStream::connect(address).await.fault(Fault::Transient, "connect")?;
    let probes = TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.probes);
    SockRef::from(&tcp).set_tcp_keepalive(&probes).fault(Fault::Transient, "set keep-alive")?;
    tcp.set_nodelay(true).fault(Fault::Transient, "set no-delay")?;
    Ok(tcp)
}
