//! The connection: simple and unnamed statements, COPY, and the one place where the server's errors get their fault.
//!
//! Nothing relies on a session's state beyond a transaction (settings are `SET LOCAL`, statements are unnamed), so a pooler in
//! transaction mode may stand between. COPY alone is prepared under a name, inside a transaction, and closed there.

use crate::config::Resolved;
use crate::tls;
use bytes::Bytes;
use caudal_core::{Error, Fault, Result};
use futures::SinkExt;
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// Bytes of one COPY message.
const COPY_CHUNK: usize = 256 << 10;

/// Begins a transaction, whatever the user's defaults are: the fence relies on READ COMMITTED.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// A parameter with its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection of the sink. Dropping it ends it; the server rolls an open transaction back.
pub(crate) struct Connection {
    client: Client,
    config: Arc<Resolved>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// `Config` with the field for what the operator must mend (password, database, host name); `Transient` for a server
    /// that does not answer.
    pub(crate) async fn open(config: &Arc<Resolved>) -> Result<Self> {
        let connector = tls::connector(&config.target).map_err(|e| e.field(config.field("url")))?;
        let (client, connection) =
            config.target.config.connect(connector).await.map_err(|e| connect_error(config, &e))?;
        let name = config.name.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(sink = name, %error, "the connection to Postgres ended");
            }
        });
        Ok(Self { client, config: Arc::clone(config), task })
    }

    /// Runs statements without parameters.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// Runs an unnamed statement and gives the rows it changed.
    pub(crate) async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, Failure> {
        Ok(self.client.execute_typed(sql, params).await?)
    }

    /// Runs an unnamed query.
    pub(crate) async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        Ok(self.client.query_typed(sql, params).await?)
    }

    /// Streams rows in COPY's binary form (without its head and end); gives their number.
    pub(crate) async fn copy(&self, sql: &str, rows: &Bytes) -> Result<u64, Failure> {
        const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
        const END: &[u8] = &[0xff, 0xff];
        let sink = self.client.copy_in::<_, Bytes>(sql).await?;
        let mut sink = pin!(sink);
        sink.feed(Bytes::from_static(HEAD)).await?;
        let mut rest = rows.clone();
        while !rest.is_empty() {
            sink.send(rest.split_to(rest.len().min(COPY_CHUNK))).await?;
        }
        sink.feed(Bytes::from_static(END)).await?;
        Ok(sink.as_mut().finish().await?)
    }

    /// The configuration it was opened with.
    pub(crate) fn config(&self) -> &Resolved {
        &self.config
    }
}

/// A statement's failure, before anybody decided whose fault it is.
#[derive(Debug)]
pub(crate) struct Failure(tokio_postgres::Error);

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl Failure {
    /// Whether the server refuses the rows themselves: a value, a constraint, a size.
    pub(crate) fn is_data(&self) -> bool {
        self.0
            .code()
            .is_some_and(|c| matches!(&c.code()[..2], "22" | "23" | "54") || *c == SqlState::RAISE_EXCEPTION)
    }

    /// Whether a unique constraint refused a row.
    pub(crate) fn is_unique_violation(&self) -> bool {
        self.0.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Whether the statement took longer than it may.
    pub(crate) fn is_timeout(&self) -> bool {
        self.0.code() == Some(&SqlState::QUERY_CANCELED)
    }

    /// Whether a lock was not to be had in time, or only at the price of a deadlock.
    pub(crate) fn is_lock(&self) -> bool {
        matches!(self.0.code(), Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// What the server says about data, without its values: only names and the condition.
    pub(crate) fn data_cause(&self) -> String {
        let Some(db) = self.0.as_db_error() else { return "the server refused the row".to_owned() };
        let mut cause = format!("{} (SQLSTATE {})", condition(db), db.code().code());
        for (what, name) in
            [("column", db.column()), ("constraint", db.constraint()), ("data type", db.datatype())]
        {
            if let Some(name) = name {
                cause.push_str(&format!(", {what} {name}"));
            }
        }
        cause
    }

    /// The error for the engine; `doing` says what failed.
    pub(crate) fn into_error(self, config: &Resolved, doing: impl Into<String>) -> Error {
        let Some(db) = self.0.as_db_error() else {
            return Error::transient(doing).because(self.0);
        };
        let (fault, hint) = classify(db, config);
        let mut message = doing.into();
        // The server's text of a data error may quote values.
        if self.is_data() {
            message = format!("{message}: {}", self.data_cause());
        } else {
            message = format!("{message}: {} (SQLSTATE {})", db.message(), db.code().code());
        }
        let error = Error::new(fault, message);
        let error = if fault == Fault::Config { error.field(config.field("url")) } else { error };
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Turns a [`Failure`] into the engine's error.
pub(crate) trait Doing<T> {
    /// `doing` says what failed: "apply public.orders".
    fn doing(self, config: &Resolved, doing: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for Result<T, Failure> {
    fn doing(self, config: &Resolved, doing: impl Into<String>) -> Result<T> {
        self.map_err(|failure| failure.into_error(config, doing))
    }
}

/// SQLSTATE → who must act. After "PostgreSQL Error Codes", appendix A of its manual.
fn classify(db: &DbError, config: &Resolved) -> (Fault, Option<String>) {
    let code = db.code();
    let user = config.target.config.get_user().unwrap_or_default();
    if *code == SqlState::DISK_FULL {
        return (Fault::Transient, Some("free disk space on the Postgres server".to_owned()));
    }
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return (
            Fault::Config,
            Some(format!("grant it to {user}: `caudal check` lists the privileges that are needed")),
        );
    }
    // "cannot set transaction read-write mode during recovery" has only the code of what is not supported.
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION || is_standby(db) {
        return (
            // A failover passes by: the standby is promoted, or the primary's URL leads to it again.
            Fault::Transient,
            Some(
                "point the URL at the primary (target_session_attrs=read-write finds it among several hosts)"
                    .to_owned(),
            ),
        );
    }
    if *code == SqlState::LOCK_NOT_AVAILABLE {
        let hint = "somebody else holds a lock on the table: look for open transactions in pg_stat_activity; it is tried again";
        return (Fault::Transient, Some(hint.to_owned()));
    }
    match &code.code()[..2] {
        "28" => {
            (Fault::Config, Some(format!("correct user ({user}) and password of the URL, and pg_hba.conf")))
        }
        "3D" => (Fault::Config, Some("create the database, or correct its name in the URL".to_owned())),
        "23" if *code == SqlState::FOREIGN_KEY_VIOLATION => (
            Fault::Config,
            Some(
                "add the foreign key when the snapshot is complete, DEFERRABLE INITIALLY DEFERRED".to_owned(),
            ),
        ),
        "22" | "23" | "54" => (Fault::Data, None),
        "42" => (
            Fault::Config,
            Some("the table's shape was changed while in use: undo that, or restart the sink".to_owned()),
        ),
        "0A" => (Fault::Config, Some("the target table cannot be written that way".to_owned())),
        "P0" => (Fault::Data, None),
        _ => (Fault::Transient, None),
    }
}

/// Whether the server takes no writes because it follows another one: `BEGIN … READ WRITE` is refused by the check of that setting.
fn is_standby(db: &DbError) -> bool {
    *db.code() == SqlState::FEATURE_NOT_SUPPORTED && db.routine() == Some("call_bool_check_hook")
}

/// The condition's name for what happens with data; others by their class.
fn condition(db: &DbError) -> &'static str {
    match db.code().code() {
        "23502" => "NULL in a column that forbids it",
        "23503" => "a foreign key is violated",
        "23505" => "a unique key is violated",
        "23514" => "a check constraint is violated",
        "22003" => "a number is out of range",
        "22001" => "a text is too long",
        "22P02" | "22P03" => "the value is no valid input for the column's type",
        "22P05" | "22021" => "the text holds characters that the database cannot store",
        "22008" => "a time is out of range",
        "22026" => "a bit string has the wrong length",
        "54000" => "a value is too large for an index or the server's limits",
        "P0001" => "a trigger refused the row",
        code if code.starts_with("23") => "a constraint is violated",
        _ => "the value cannot be stored",
    }
}

fn connect_error(config: &Resolved, error: &tokio_postgres::Error) -> Error {
    let place = config.target.place();
    let field = config.field("url");
    if let Some(db) = error.as_db_error() {
        let (fault, hint) = classify(db, config);
        let error = Error::new(fault, format!("connect to {place}: {}", db.message())).field(field);
        return match hint {
            Some(hint) => error.hint(hint),
            None => error,
        };
    }
    let text = chain(error);
    let certificate = text.contains("certificate");
    let unknown_host =
        text.contains("failed to lookup address") || text.contains("Name or service not known");
    if certificate {
        return Error::config(format!("connect to {place}: {text}"))
            .field(field)
            .hint("give the server's authority as sslrootcert=FILE, or choose another sslmode");
    }
    if unknown_host {
        return Error::config(format!("connect to {place}: {text}"))
            .field(field)
            .hint("correct the host's name");
    }
    if text.contains("server does not support TLS") {
        return Error::config(format!("connect to {place}: {text}"))
            .field(field)
            .hint("turn TLS on in the server (ssl = on), or use sslmode=prefer");
    }
    if text.contains("password missing") || text.contains("authentication") {
        return Error::config(format!("connect to {place}: {text}"))
            .field(field)
            .hint("correct user and password of the URL");
    }
    Error::transient(format!("connect to {place}: {text}"))
        .field(field)
        .hint("start the server, or correct host and port of the URL")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let part = c.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = c.source();
    }
    text
}
