//! One connection to one server: a request at a time, with a time-out, and bodies of bounded size.
//!
//! `hyper` speaks HTTP/1.1 over a socket of ours, or over `rustls`. No redirects (whoever is redirected to would be shown the key), no
//! cookies, no proxies.

use crate::gate::{Gate, LONGEST_WAIT};
use bytes::{Bytes, BytesMut};
use caudal_core::{Error, Fault, Result};
use flate2::write::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where a server is, and how it is talked to.
pub(crate) struct Server {
    /// Scheme, host and port, and the path that all others begin with.
    pub(crate) base: Uri,
    pub(crate) tls: Arc<ClientConfig>,
    /// For one request, from connecting to the body's last byte.
    pub(crate) timeout: Duration,
    /// Most bytes of a body, unpacked.
    pub(crate) max_body: usize,
    /// The rate of all requests of a source.
    pub(crate) gate: Arc<Gate>,
    /// Closed by `Retry-After`: this server's own, others go on.
    pub(crate) closed: Arc<Gate>,
}

/// What is asked.
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

/// What came, with a status of 2xx.
pub(crate) struct Reply {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A connection, made when it is needed.
pub(crate) struct Client {
    server: Arc<Server>,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Server {
    pub(crate) fn host(&self) -> &str {
        self.base.host().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.base.port_u16().unwrap_or(if self.is_secure() { 443 } else { 80 })
    }

    fn is_secure(&self) -> bool {
        self.base.scheme_str() == Some("https")
    }

    /// Whether an address that an answer names is on this server: the key is shown to no other.
    pub(crate) fn has(&self, uri: &Uri) -> bool {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        uri.scheme() == self.base.scheme() && uri.host() == self.base.host() && port == self.port()
    }
}

/// The authorities to trust: those of a PEM file, or the web's.
///
/// # Errors
/// `Config` if the file cannot be read.
pub(crate) fn trust(ca: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let wrong = |e: String| {
                Error::config(format!("read {}", path.display()))
                    .field("ca")
                    .because(e)
                    .hint("give a PEM file of certificates that this user can read")
            };
            let found = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
            for certificate in found {
                let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
                roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("no certificate in it".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::bug("set up TLS").because(e))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

impl Client {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server, open: None }
    }

    /// Asks, when the gate lets it. Errors name what was asked (the path, not the query).
    ///
    /// # Errors
    /// `Transient` for what may pass: no connection, a time-out, a broken answer, 408, 429, 5xx. `Config` for what the operator must look at:
    /// a certificate, 401, 403, other 4xx, a redirect. `Data` for a body that is too large.
    pub(crate) async fn ask(&mut self, ask: Ask) -> Result<Reply> {
        let server = Arc::clone(&self.server);
        server.closed.pass().await;
        server.gate.pass().await;
        let path = ask.target.split('?').next().unwrap_or_default().to_owned();
        let what = format!("{} {}{path}", ask.method, server.host());
        let asked = tokio::time::timeout(server.timeout, self.exchange(ask)).await;
        let asked = asked.unwrap_or_else(|_| {
            Err(Error::transient(format!("no answer within {:?}", server.timeout))
                .hint("raise `timeout`, or ask for smaller pages"))
        });
        if asked.is_err() {
            self.open = None;
        }
        asked.map_err(|e| e.context(what))
    }

    async fn exchange(&mut self, ask: Ask) -> Result<Reply> {
        let mut sender = match self.open.take() {
            Some(sender) if sender.is_ready() => sender,
            _ => connect(&self.server).await?,
        };
        let authority = self.server.base.authority().map_or("", |a| a.as_str());
        let mut request = Request::builder()
            .method(ask.method)
            .uri(&ask.target)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "gzip")
            .header(header::USER_AGENT, concat!("caudal/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(ask.body))
            .map_err(|e| Error::config("no such address can be asked for").because(e))?;
        request.headers_mut().extend(ask.headers.into_iter().map(|(name, value)| (Some(name), value)));
        let reply = sender.send_request(request).await.map_err(|e| broken("the connection broke", e))?;
        let (head, body) = reply.into_parts();
        self.judge(head.status, &head.headers)?;
        let body = collect(body, self.server.max_body).await?;
        let body = unpacked(&head.headers, body, self.server.max_body)?;
        self.open = Some(sender);
        Ok(Reply { headers: head.headers, body })
    }

    fn judge(&self, status: StatusCode, headers: &HeaderMap) -> Result<()> {
        let said = format!("answered {status}");
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => {
                let wait = retry_after(headers);
                if let Some(wait) = wait {
                    self.server.closed.close(wait);
                }
                let asks = wait.map(|w| format!(", and to wait {} s", w.min(LONGEST_WAIT).as_secs()));
                Err(Error::transient(format!("{said}{}", asks.unwrap_or_default())))
            }
            401 | 403 => Err(Error::config(said).field("auth").hint("look at the key, and what it may read")),
            404 | 410 => Err(Error::config(said).hint("look at `url` and the table's `path`")),
            300..=399 => Err(Error::config(format!("{said}: redirects are not followed"))
                .hint("name the address that it redirects to in `url`")),
            _ => Err(Error::config(said).hint("look at the table's `path` and `params`")),
        }
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok()
}

async fn connect(server: &Server) -> Result<SendRequest<Full<Bytes>>> {
    let (host, port) = (server.host().trim_matches(['[', ']']), server.port());
    let tcp = TcpStream::connect((host, port)).await.map_err(|e| {
        Error::transient(format!("connect to {host}:{port}"))
            .because(e)
            .hint("the host is down, or the network or VPN between")
    })?;
    let _ = tcp.set_nodelay(true);
    if !server.is_secure() {
        return speak(TokioIo::new(tcp)).await;
    }
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| Error::config("`url` names no host").field("url").because(e))?;
    let tls = TlsConnector::from(Arc::clone(&server.tls)).connect(name, tcp).await.map_err(refused)?;
    speak(TokioIo::new(tls)).await
}

async fn speak<T>(io: T) -> Result<SendRequest<Full<Bytes>>>
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
        true => Error::config("the server's certificate does not hold").field("url").because(error).hint(
            "renew it if it has expired; name the authority that signed it in `ca`; look at the clock of this machine",
        ),
        false => Error::transient("encrypt the connection").because(error),
    }
}

fn broken(what: &str, error: hyper::Error) -> Error {
    Error::transient(what.to_owned()).because(error)
}

async fn collect(mut body: hyper::body::Incoming, most: usize) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken("the answer broke off", e))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_large(most));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn too_large(most: usize) -> Error {
    Error::data(format!("the answer is larger than {} MiB", most >> 20))
        .hint("ask for smaller pages, or raise `max_body`")
}

fn unpacked(headers: &HeaderMap, body: Bytes, most: usize) -> Result<Bytes> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => return Ok(body),
        Some(b"gzip" | b"x-gzip") => {}
        Some(_) => return Err(Error::data("the answer is packed in a way that was not asked for")),
    }
    let mut decoder = GzDecoder::new(Bounded { bytes: Vec::new(), most });
    let written = decoder.write_all(&body).and_then(|()| decoder.finish());
    match written {
        Ok(bounded) => Ok(bounded.bytes.into()),
        Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => Err(too_large(most)),
        Err(e) => Err(Error::new(Fault::Transient, "the answer broke off, or is no gzip").because(e)),
    }
}

/// Takes so many bytes: a small body can hold a huge one.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + buffer.len() > self.most {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
