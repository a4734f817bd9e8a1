//! Requests to one server, over as many connections as are asked for at a time, with a time-out and answers of bounded size.
//!
//! `hyper` speaks HTTP/1.1 over a socket of ours, or over `rustls`. No redirects (whoever is redirected to would be shown the token), no
//! cookies, no proxies.

use bytes::{Bytes, BytesMut};
use caudal_core::{Error, Fault, Result};
use flate2::write::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connections that are kept for the next request.
const IDLE: usize = 16;

/// Most bytes of an answer, unpacked: BigQuery's pages have 20 MB at most, as it says.
const MAX_BODY: usize = 64 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// Where a server is, and how it is spoken to.
pub(crate) struct Dial {
    /// Scheme, host and port, and the path that all others begin with.
    base: Uri,
    tls: Arc<ClientConfig>,
}

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Asks one server. Memory: an answer for each request under way.
pub(crate) struct Client {
    dial: Dial,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

/// What is asked.
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path and query, behind the base's.
    pub(crate) target: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

/// What came, whatever its status.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// TLS that trusts the web's authorities.
///
/// # Errors
/// `Bug` if the provider has none of the protocol's versions.
pub(crate) fn trust() -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug("set up TLS").because(e))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A URL of a server.
pub(crate) fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.trim_end_matches('/').parse().ok()?;
    let fits = uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"));
    (fits && uri.authority().is_some_and(|a| !a.as_str().contains('@'))).then_some(uri)
}

impl Client {
    pub(crate) fn new(base: Uri, tls: Arc<ClientConfig>, timeout: Duration) -> Self {
        Self { dial: Dial { base, tls }, timeout, idle: Mutex::default() }
    }

    /// Asks. Errors name what was asked (the path, not the query).
    ///
    /// # Errors
    /// `Transient` for no connection, a time-out, a broken answer; `Config` for a certificate that does not hold or a redirect; `Data` for an
    /// answer that is too large.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Reply> {
        let path = ask.target.split('?').next().unwrap_or_default();
        let what = format!("{} {}{path}", ask.method, self.dial.host());
        let asked = tokio::time::timeout(self.timeout, self.exchange(ask)).await;
        let asked = asked.unwrap_or_else(|_| {
            Err(Error::transient(format!("no answer within {:?}", self.timeout)).hint("raise `timeout`"))
        });
        asked.map_err(|e| e.context(what))
    }

    async fn exchange(&self, ask: Ask) -> Result<Reply> {
        let kept = self.kept();
        let mut sender = match kept {
            Some(sender) => sender,
            None => speak(TokioIo::new(self.dial.connect().await?)).await?,
        };
        let authority = self.dial.base.authority().map_or("", |a| a.as_str());
        let target = format!("{}{}", self.dial.base.path().trim_end_matches('/'), ask.target);
        let mut request = Request::builder()
            .method(ask.method)
            .uri(&target)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "gzip")
            // Google packs answers only for those whose name says so, too.
            .header(header::USER_AGENT, concat!("caudal/", env!("CARGO_PKG_VERSION"), " (gzip)"))
            .body(Full::new(ask.body))
            .map_err(|e| Error::config("no such address can be asked for").because(e))?;
        request.headers_mut().extend(ask.headers.into_iter().map(|(name, value)| (Some(name), value)));
        let reply = sender.send_request(request).await.map_err(|e| broken("the connection broke", e))?;
        let (head, body) = reply.into_parts();
        let status = head.status.as_u16();
        if (300..400).contains(&status) {
            return Err(Error::config(format!("answered {status}: redirects are not followed"))
                .hint("name the address that it redirects to in `endpoint`"));
        }
        let body = collect(body).await?;
        let body = unpacked(&head.headers, body)?;
        self.keep(sender);
        Ok(Reply { status, body })
    }

    fn kept(&self) -> Option<Sender> {
        // A panic while the lock was held leaves a whole list.
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(sender);
        }
    }
}

impl Dial {
    /// For HTTP/2 alone.
    pub(crate) fn http2(base: Uri, tls: &ClientConfig) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self { base, tls: Arc::new(tls) }
    }

    fn host(&self) -> &str {
        self.base.host().unwrap_or_default()
    }

    fn is_secure(&self) -> bool {
        self.base.scheme_str() == Some("https")
    }

    /// `https://host:port`
    pub(crate) fn origin(&self) -> String {
        let authority = self.base.authority().map_or("", |a| a.as_str());
        format!("{}://{authority}", self.base.scheme_str().unwrap_or("https"))
    }

    /// # Errors
    /// `Transient` for nobody there, `Config` for a certificate that does not hold.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>> {
        let port = self.base.port_u16().unwrap_or(if self.is_secure() { 443 } else { 80 });
        let host = self.host().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, port)).await.map_err(|e| {
            Error::transient(format!("connect to {host}:{port}"))
                .because(e)
                .hint("look at the network, and at `endpoint`")
        })?;
        let _ = tcp.set_nodelay(true);
        if !self.is_secure() {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| Error::config("names no host").field("endpoint").because(e))?;
        let tls = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.map_err(refused)?;
        Ok(Box::new(tls))
    }
}

async fn speak<T>(io: T) -> Result<Sender>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await.map_err(|e| broken("the connection broke", e))?;
    // It ends when the sender is dropped.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// A certificate that does not hold is the operator's matter, a broken connection time's.
fn refused(error: std::io::Error) -> Error {
    let is_certificate = |e: &rustls::Error| matches!(e, rustls::Error::InvalidCertificate(_));
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls.is_some_and(is_certificate) {
        true => Error::config("the server's certificate does not hold").because(error).hint(
            "look at the clock of this machine, and whether something between opens encrypted connections",
        ),
        false => Error::transient("encrypt the connection").because(error),
    }
}

fn broken(what: &str, error: hyper::Error) -> Error {
    Error::transient(what.to_owned()).because(error)
}

async fn collect(mut body: hyper::body::Incoming) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken("the answer broke off", e))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn too_large() -> Error {
    Error::data(format!("the answer is larger than {} MiB", MAX_BODY >> 20)).hint("lower `page_rows`")
}

fn unpacked(headers: &HeaderMap, body: Bytes) -> Result<Bytes> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => return Ok(body),
        Some(b"gzip" | b"x-gzip") => {}
        Some(_) => return Err(Error::data("the answer is packed in a way that was not asked for")),
    }
    let mut decoder = GzDecoder::new(Bounded(Vec::new()));
    let written = decoder.write_all(&body).and_then(|()| decoder.finish());
    match written {
        Ok(bounded) => Ok(bounded.0.into()),
        Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => Err(too_large()),
        Err(e) => Err(Error::new(Fault::Transient, "the answer broke off, or is no gzip").because(e)),
    }
}

/// Takes so many bytes: a small body can hold a huge one.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + buffer.len() > MAX_BODY {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// As it stands in a path or a query: all but letters, digits and `-._~` as `%XX`.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
