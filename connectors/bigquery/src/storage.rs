//! The Storage Read API: a query's result as one stream of blocks of rows, in Avro, over gRPC.
//!
//! `CreateReadSession` and `ReadRows` of `google.cloud.bigquery.storage.v1.BigQueryRead`
//! (<https://cloud.google.com/bigquery/docs/reference/storage/rpc>): a call is a POST over HTTP/2, whose messages have five bytes before them (packed or not, and a length), and
//! whose outcome stands in the headers behind the answer (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
//!
//! # Why nothing is missed, and nothing comes twice
//! A session is of the table that a query's result is, which does not change. It has one stream: the service keeps the result's order in it, and a row's place is its number
//! there. Reading begins at any number: where one was cut off, the next goes on behind the last block that was whole.
//!
//! # Bounds
//! What the service may send before it is read ([`WINDOW`]), a block under way ([`MOST_BLOCK`] at most, 1 MB or so as the service makes them), and one that was read ahead.

use crate::auth::Auth;
use crate::avro::Plan;
use crate::client::{Dial, encoded};
use crate::fields::{Wire, Writer};
use crate::names::Object;
use bytes::{Buf, Bytes, BytesMut};
use caudal_core::{Error, Fault, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes that the service may send ahead.
const WINDOW: u32 = 4 << 20;
/// Most bytes of a message: a row has 100 MB at most, and blocks hold far less.
const MOST_BLOCK: usize = 128 << 20;
/// Most bytes of a refusal's text that are kept.
const MOST_SAID: usize = 1_000;
const SERVICE: &str = "/google.cloud.bigquery.storage.v1.BigQueryRead";
const AVRO: u64 = 1;

/// Who is asked.
pub(crate) struct Storage {
    dial: Dial,
    /// For a call's answer to begin, and from one block to the next.
    patience: Duration,
}

/// A result that can be read.
pub(crate) struct Opened {
    /// The stream's name; none of a result without rows.
    pub(crate) stream: Option<String>,
    pub(crate) plan: Arc<Plan>,
}

/// A stream that is read.
pub(crate) struct Reading {
    body: Incoming,
    buffer: BytesMut,
    /// What is behind the last block: the outcome.
    trailers: Option<HeaderMap>,
    patience: Duration,
}

/// Rows in Avro, one behind the other.
pub(crate) struct Block {
    pub(crate) rows: Bytes,
    pub(crate) count: u64,
}

impl Storage {
    pub(crate) fn new(dial: Dial, patience: Duration) -> Self {
        Self { dial, patience }
    }

    /// Opens a table for reading, paid for by `project`.
    ///
    /// # Errors
    /// As the service says; `Config` for a right that is missing.
    pub(crate) async fn open(&self, auth: &Auth, project: &str, table: &Object) -> Result<Opened> {
        let (what, table) = ("open the result for reading", table.path());
        let mut session = Writer::default();
        session.number(3, AVRO);
        session.text(6, &table);
        let mut request = Writer::default();
        request.text(1, &format!("projects/{project}"));
        request.bytes(2, &session.end());
        request.number(3, 1);
        let routed = format!("read_session.table={}", encoded(&table));
        let mut reading = self
            .call(auth, "CreateReadSession", &routed, request.end())
            .await
            .map_err(|e| e.context(what))?;
        let answer = reading.message().await.map_err(|e| e.context(what))?;
        let answer = answer.ok_or_else(|| odd(what))?;
        let (mut schema, mut stream) = (None, None);
        for field in Wire::new(&answer) {
            match field.ok_or_else(|| odd(what))? {
                (4, inner) => schema = Wire::new(inner.bytes()).find(1),
                (10, inner) => stream = stream.or(Wire::new(inner.bytes()).find(1)),
                _ => {}
            }
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| odd(what));
        let plan = schema.and_then(Plan::parse).ok_or_else(|| {
            Error::data(format!("{what}: the service gives no shape that is known")).hint("read: rest")
        })?;
        Ok(Opened { stream: stream.map(text).transpose()?, plan: Arc::new(plan) })
    }

    /// Reads a stream from row `offset` on.
    ///
    /// # Errors
    /// As the service says; `notFound` for a session that is over, six hours after it was opened.
    pub(crate) async fn read(&self, auth: &Auth, stream: &str, offset: u64) -> Result<Reading> {
        let mut request = Writer::default();
        request.text(1, stream);
        request.number(2, offset);
        let routed = format!("read_stream={}", encoded(stream));
        let reading = self.call(auth, "ReadRows", &routed, request.end()).await;
        reading.map_err(|e| e.context("read the result"))
    }

    async fn call(&self, auth: &Auth, method: &str, routed: &str, message: Vec<u8>) -> Result<Reading> {
        let asked = timeout(self.patience, self.ask(auth, method, routed, message)).await;
        let answer = asked.unwrap_or_else(|_| Err(silent(self.patience)))?;
        let (head, body) = answer.into_parts();
        if head.status != 200 {
            return Err(match head.status.as_u16() {
                401 => refused(auth, UNAUTHENTICATED, "").await,
                429 | 500..=599 => Error::transient(format!("answered {}", head.status)),
                _ => Error::config(format!("answered {}", head.status)).hint("look at `storage_endpoint`"),
            });
        }
        // An answer without a message has its outcome in front.
        if let Some((code, said)) = outcome(&head.headers)
            && code != 0
        {
            return Err(refused(auth, code, &said).await);
        }
        Ok(Reading { body, buffer: BytesMut::new(), trailers: None, patience: self.patience })
    }

    async fn ask(
        &self,
        auth: &Auth,
        method: &str,
        routed: &str,
        message: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let io = self.dial.connect().await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(io))
            .await;
        let (mut sender, connection) = handshake.map_err(broken)?;
        // It ends when the answer is dropped, or read.
        tokio::spawn(async move { drop(connection.await) });
        let mut body = Vec::with_capacity(message.len() + 5);
        body.push(0);
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(&message);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{SERVICE}/{method}", self.dial.origin()))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, concat!("caudal/", env!("CARGO_PKG_VERSION")))
            .header("x-goog-request-params", routed)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| Error::config("no such address can be asked for").because(e))?;
        if let Some((name, value)) = auth.header().await? {
            request.headers_mut().insert(name, value);
        }
        sender.send_request(request).await.map_err(broken)
    }
}

impl Reading {
    /// The next block of rows; none at the end.
    ///
    /// # Errors
    /// As the service says; `Transient` for a stream that breaks off.
    pub(crate) async fn block(&mut self, auth: &Auth) -> Result<Option<Block>> {
        let what = "read the result";
        loop {
            let message = self.message().await.map_err(|e| e.context(what))?;
            let Some(message) = message else {
                let (code, said) =
                    self.trailers.as_ref().and_then(outcome).unwrap_or((UNKNOWN, String::new()));
                return match code {
                    0 => Ok(None),
                    code => Err(refused(auth, code, &said).await.context(what)),
                };
            };
            let (mut rows, mut count) = (None, 0);
            for field in Wire::new(&message) {
                match field.ok_or_else(|| odd(what))? {
                    (3, inner) => rows = Wire::new(inner.bytes()).find(1),
                    (6, value) => count = value.number(),
                    _ => {}
                }
            }
            // Others tell of progress alone.
            if let Some(rows) = rows
                && count > 0
            {
                return Ok(Some(Block { rows: message.slice_ref(rows), count }));
            }
        }
    }

    /// The next message; none at the end.
    async fn message(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(head) = self.buffer.get(..5) {
                let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if head[0] != 0 || size > MOST_BLOCK {
                    return Err(Error::data("a message is packed, or too large").hint("read: rest"));
                }
                if self.buffer.len() >= 5 + size {
                    self.buffer.advance(5);
                    return Ok(Some(self.buffer.split_to(size).freeze()));
                }
            }
            let frame = timeout(self.patience, self.body.frame()).await.map_err(|_| silent(self.patience))?;
            match frame {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::transient("the answer broke off")),
                Some(Err(e)) => return Err(broken(e)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(other) => self.trailers = other.into_trailers().ok(),
                },
            }
        }
    }
}

const UNKNOWN: u16 = 2;
const UNAUTHENTICATED: u16 = 16;

/// The outcome, by number and in words.
fn outcome(headers: &HeaderMap) -> Option<(u16, String)> {
    let text = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let code = std::str::from_utf8(text("grpc-status")?).ok()?.parse().ok()?;
    Some((code, unescaped(text("grpc-message").unwrap_or_default())))
}

/// `%XX` is a byte.
fn unescaped(text: &[u8]) -> String {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first().filter(|_| out.len() < MOST_SAID) {
        let digits = behind.get(..2).filter(|_| first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => (out.push(byte), rest = &behind[2..]).1,
            None => (out.push(first), rest = behind).1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a code is, whose matter, and whether the service's words may be shown: those of others may quote rows.
fn fault(code: u16) -> (&'static str, Fault, bool) {
    match code {
        3 => ("invalid argument", Fault::Config, false),
        // In the words of REST's refusals: what reads them knows that the result is gone.
        5 => ("it is gone (notFound)", Fault::Config, true),
        7 => ("access denied", Fault::Config, true),
        12 => ("not offered", Fault::Config, true),
        UNAUTHENTICATED => ("the token was refused", Fault::Config, false),
        4 => ("too late", Fault::Transient, false),
        8 => ("a quota is used up for now", Fault::Transient, true),
        _ => ("the service has a passing fault", Fault::Transient, false),
    }
}

async fn refused(auth: &Auth, code: u16, said: &str) -> Error {
    let (name, fault, shown) = fault(code);
    if code == UNAUTHENTICATED && auth.refused().await {
        return Error::transient(name).hint("another token is fetched");
    }
    let told = if shown && !said.is_empty() { format!(": {said}") } else { String::new() };
    let error = Error::new(fault, format!("{name} ({code}{told})"));
    match (code, fault) {
        (7, _) => error.hint(
            "give the account the role roles/bigquery.readSessionUser on the project that runs the queries, or set `read: rest`",
        ),
        (_, Fault::Config) => error.hint("look at `storage_endpoint`, or set `read: rest`"),
        _ => error.hint("it is tried again"),
    }
}

fn odd(what: &str) -> Error {
    Error::transient(format!("{what}: the service's answer is not understood"))
        .hint("look whether `storage_endpoint` is BigQuery's Storage API, and what is between")
}

fn silent(patience: Duration) -> Error {
    Error::transient(format!("no answer within {patience:?}")).hint("look at the network")
}

fn broken(error: hyper::Error) -> Error {
    Error::transient("the connection broke").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_with_its_words() {
        let mut headers = HeaderMap::new();
        assert_eq!(outcome(&headers), None);
        headers.insert("grpc-status", HeaderValue::from_static("7"));
        headers.insert("grpc-message", HeaderValue::from_static("Tabla %C3%B1 100%"));
        assert_eq!(outcome(&headers), Some((7, "Tabla ñ 100%".to_owned())));
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_a_missing_role_is_named() {
        for code in [1, 2, 4, 8, 10, 13, 14, 15, 99] {
            assert_eq!(refused(&Auth::None, code, "").await.fault(), Fault::Transient, "{code}");
        }
        for code in [3, 5, 7, 12, 16] {
            assert_eq!(refused(&Auth::None, code, "").await.fault(), Fault::Config, "{code}");
        }
        // A session is over after six hours.
        assert!(crate::session::is_gone(&refused(&Auth::None, 5, "Stream not found").await));
        let denied = refused(&Auth::None, 7, "no bigquery.readsessions.create").await;
        assert!(denied.hint_text().unwrap().contains("roles/bigquery.readSessionUser"));
        assert!(!refused(&Auth::None, 13, "row 'geheim'").await.to_string().contains("geheim"));
    }
}
