//! One connection: reached, encrypted, logged in, and asked.

use crate::config::{Place, Resolved};
use crate::param::Param;
use crate::refusal::classify;
use crate::transport::{self, Transport};
use caudal_core::{Error, Result};
use tiberius::{AuthMethod, ColumnData, Config as Tds, EncryptionLevel, QueryStream, Row, ToSql};

/// A connection whose answers were all read to their end. One whose query was given up is dropped with it: what is left of the answer would come first.
pub(crate) struct Client {
    tds: tiberius::Client<Transport>,
}

impl Client {
    /// Reaches the host, logs in and asks: each has its own time, and its own diagnosis.
    ///
    /// # Errors
    /// `Transient` for what may pass (no way there, a server that starts); `Config` for what the operator must look at (login, database, certificate).
    pub(crate) async fn connect(source: &Resolved, place: &Place) -> Result<Self> {
        let (host, port) = (place.host.as_str(), place.port);
        let within = source.connect_timeout;
        let late = |says: String| Error::transient(format!("{host}:{port}: {says} within {within:?}"));
        let tcp = tokio::time::timeout(within, transport::reach(host, port, source.keepalive)).await;
        let tcp = tcp.unwrap_or_else(|_| {
            Err(Error::transient(format!("{host}:{port} cannot be reached within {within:?}: VPN or host down"))
                .hint(format!("from this machine: `nc -vz {host} {port}`; look at the VPN (`wg show`: a recent handshake), the host and its firewall")))
        })?;
        let opened =
            tokio::time::timeout(within, Transport::open(tcp, host, source.tls_mode, source.tls.as_ref()));
        let transport = opened.await.unwrap_or_else(|_| {
            Err(late("it is reached, but does not speak".into())
                .hint("something listens there: look whether SQL Server is up, or only a VPN's gateway"))
        });
        let transport = transport.map_err(|e| e.context(format!("{host}:{port}")))?;
        let login =
            tokio::time::timeout(within, tiberius::Client::connect(settings(source, place), transport));
        let tds = match login.await {
            Ok(tds) => tds.map_err(|e| classify(&format!("log in at {host}:{port} as {}", place.user), e))?,
            Err(_) => {
                return Err(late("no answer to the login".into()).hint("look at the server's load and log"));
            }
        };
        let mut client = Self { tds };
        let set = tokio::time::timeout(within, client.set_up(source)).await;
        set.unwrap_or_else(|_| Err(late("logged in, but a first query has no answer".into())))
            .map_err(|e| e.context(format!("{host}:{port}")))?;
        Ok(client)
    }

    /// Statements of their own: within a prepared one they would hold only for it.
    async fn set_up(&mut self, source: &Resolved) -> Result<()> {
        let lock_ms =
            i64::try_from(source.lock_timeout.as_millis()).unwrap_or(i64::MAX).min(i64::from(i32::MAX));
        let sql = format!(
            "SET TRANSACTION ISOLATION LEVEL {}; SET LOCK_TIMEOUT {lock_ms}; SET XACT_ABORT ON; SET TEXTSIZE 2147483647",
            source.isolation.sql()
        );
        let stream = self.tds.simple_query(sql).await.map_err(|e| classify("set the session up", e))?;
        stream.into_results().await.map_err(|e| classify("set the session up", e))?;
        Ok(())
    }

    /// All rows of a small answer.
    ///
    /// # Errors
    /// As [`classify`] says; `what` names what was asked.
    pub(crate) async fn rows(&mut self, what: &str, sql: &str, params: &[Param]) -> Result<Vec<Row>> {
        let stream = self.stream(what, sql, params).await?;
        stream.into_first_result().await.map_err(|e| classify(what, e))
    }

    /// An answer as it comes.
    ///
    /// # Errors
    /// As [`classify`] says.
    pub(crate) async fn stream(
        &mut self,
        what: &str,
        sql: &str,
        params: &[Param],
    ) -> Result<QueryStream<'_>> {
        let params: Vec<&dyn ToSql> = params.iter().map(|param| param as &dyn ToSql).collect();
        self.tds.query(sql, &params).await.map_err(|e| classify(what, e))
    }
}

fn settings(source: &Resolved, place: &Place) -> Tds {
    let mut settings = Tds::new();
    settings.host(&place.host);
    settings.port(place.port);
    settings.database(&place.database);
    settings.application_name("caudal");
    settings.authentication(AuthMethod::sql_server(&place.user, &place.password));
    // The transport has settled it.
    settings.encryption(EncryptionLevel::NotSupported);
    settings.readonly(source.read_only_intent);
    settings.packet_size(16_384);
    settings
}

/// A row's values, in order.
pub(crate) fn values(row: Row) -> Vec<ColumnData<'static>> {
    row.into_iter().collect()
}

/// A text of a small answer.
pub(crate) fn text(value: Option<&ColumnData<'static>>) -> Option<String> {
    match value {
        Some(ColumnData::String(Some(text))) => Some(text.to_string()),
        _ => None,
    }
}

/// A number of a small answer.
pub(crate) fn number(value: Option<&ColumnData<'static>>) -> Option<i64> {
    Some(match value? {
        ColumnData::U8(n) => i64::from((*n)?),
        ColumnData::I16(n) => i64::from((*n)?),
        ColumnData::I32(n) => i64::from((*n)?),
        ColumnData::I64(n) => (*n)?,
        ColumnData::Bit(bit) => i64::from((*bit)?),
        _ => return None,
    })
}

/// Bytes of a small answer.
pub(crate) fn bytes(value: Option<&ColumnData<'static>>) -> Option<Vec<u8>> {
    match value {
        Some(ColumnData::Binary(Some(bytes))) => Some(bytes.to_vec()),
        _ => None,
    }
}
