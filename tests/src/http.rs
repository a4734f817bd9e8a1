//! One HTTP GET, enough for `/health` and `/metrics`.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status code and body of `GET http://127.0.0.1:port<path>`; five seconds at most, 16 MiB at most.
///
/// # Errors
/// When nobody listens, or the answer isn't HTTP.
pub async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    tokio::time::timeout(Duration::from_secs(5), exchange(port, path))
        .await
        .context("no answer within 5 s")?
}

async fn exchange(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    // Version 1.0 asks for neither chunks nor a kept connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(16 << 20).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of headers")?;
    let code = head.split_whitespace().nth(1).and_then(|c| c.parse().ok()).context("no status code")?;
    Ok((code, body.to_owned()))
}
