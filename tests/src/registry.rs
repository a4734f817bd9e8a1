//! A schema registry: Apicurio, which speaks the API of Confluent's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::service::Service;

/// Where Confluent's API lies.
const API: &str = "/apis/ccompat/v7";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running registry.
pub struct SchemaRegistry {
    service: Service,
}

impl SchemaRegistry {
    /// A registry of the test's own.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start() -> Result<Self> {
        Ok(Self { service: Service::start("apicurio", &[])? })
    }

    /// The registry that the tests of this process share; subjects begin with each one's topic prefix.
    ///
    /// # Panics
    /// When it doesn't start: every test that needs it fails with the reason.
    #[must_use]
    pub fn shared() -> &'static Self {
        static REGISTRY: OnceLock<SchemaRegistry> = OnceLock::new();
        REGISTRY.get_or_init(|| Self::start().unwrap_or_else(|e| panic!("shared schema registry: {e:#}")))
    }

    /// The process behind it, to stop and start it again.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// What `kafka.registry.url` is for it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.service.port())
    }

    /// Asks it: `GET`, or `PUT` with a body. Status code and answer.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Result<(u16, Value)> {
        let mut stream = connect(self.service.port())?;
        let request = format!(
            "{method} {API}{path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of headers")?;
        let code = head.split_whitespace().nth(1).and_then(|c| c.parse().ok()).context("no status code")?;
        Ok((code, serde_json::from_str(body).unwrap_or_default()))
    }

    /// The number of a subject's versions; none if there is no such subject.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn versions(&self, subject: &str) -> Result<usize> {
        let (code, answer) = self.ask("GET", &format!("/subjects/{subject}/versions"), "")?;
        Ok(if code == 200 { answer.as_array().map_or(0, Vec::len) } else { 0 })
    }

    /// The address of a door to this registry that opens only to a user with a password (basic authentication). It lives as long as this
    /// process.
    ///
    /// # Errors
    /// When no port is free.
    pub fn guarded(&self, credentials: &'static str) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, port) = (listener.local_addr()?, self.service.port());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    // What the client makes of a broken connection is its own affair.
                    let _ = guard(stream, port, credentials);
                });
            }
        });
        Ok(format!("http://{address}{API}"))
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Passes one request on, if it carries `credentials` (base64 of `user:password`).
fn guard(mut client: TcpStream, port: u16, credentials: &str) -> Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    let whole = loop {
        let n = client.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.and_then(|l| l.trim().parse().ok()).unwrap_or(0) {
                break text;
            }
        }
        if n == 0 {
            return Ok(());
        }
    };
    if !whole.lines().any(|line| line == format!("Authorization: Basic {credentials}")) {
        client.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    }
    let mut registry = connect(port)?;
    registry.write_all(&request)?;
    let mut answer = Vec::new();
    registry.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    Ok(())
}
