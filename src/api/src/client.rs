//! Asks a running daemon: one GET on a connection of its own.

use crate::view::Status;
use caudal_control::config::{HttpSettings, Secret};
use caudal_core::{Error, Result, fault::Classify, fault::Fault};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(10);
const LARGEST_ANSWER: usize = 32 << 20;

/// The answer's code and body.
///
/// # Errors
/// `Transient` when nobody listens or the answer takes longer than 10 s, or is larger than 32 MiB.
pub async fn get(address: SocketAddr, path: &str, key: Option<&Secret>) -> Result<(StatusCode, Bytes)> {
    let asked = tokio::time::timeout(WITHIN, ask(address, path, key)).await;
    asked.unwrap_or_else(|_| Err(Error::transient(format!("ask {address}: no answer within 10 s"))))
}

async fn ask(address: SocketAddr, path: &str, key: Option<&Secret>) -> Result<(StatusCode, Bytes)> {
    let failed = || format!("ask {address}");
    let stream = TcpStream::connect(address).await.fault(Fault::Transient, failed())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .fault(Fault::Transient, failed())?;
    let driver = tokio::spawn(connection);
    let mut request = Request::get(path).header(HOST, address.to_string());
    if let Some(key) = key {
        request = request.header(AUTHORIZATION, format!("Bearer {}", key.reveal()));
    }
    let request = request.body(Empty::<Bytes>::new()).fault(Fault::Config, "make the request")?;
    let response = sender.send_request(request).await.fault(Fault::Transient, failed())?;
    let code = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    driver.abort();
    Ok((code, body.fault(Fault::Transient, failed())?.to_bytes()))
}

/// Where the daemon of this configuration stands.
///
/// # Errors
/// `Transient` if it is not running; `Config` if it wants another key; `Bug` if the answer is of another version.
pub async fn status(settings: &HttpSettings) -> Result<Status> {
    let address = reachable(settings.listen);
    let (code, body) = get(address, "/status", settings.api_key.as_ref()).await?;
    match code {
        StatusCode::OK => serde_json::from_slice(&body).fault(Fault::Bug, "read the daemon's status"),
        StatusCode::UNAUTHORIZED => Err(Error::config("the daemon refused this API key")
            .field("http.api_key")
            .hint("use the key that the daemon was started with")),
        other => Err(Error::transient(format!("{address} answered {other} to /status"))
            .hint("another program may be listening there: see `http.listen`")),
    }
}

/// "All addresses" is no address to connect to.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
