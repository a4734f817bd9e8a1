//! One HTTP request on a connection of its own: for the schema registry, and for the endpoint that gives tokens.
//!
//! Blocking. HTTP/1.0: the answer ends with the connection. Memory: an answer is read up to 1 MiB.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(15);
const LARGEST_ANSWER: u64 = 1 << 20;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    tls: bool,
    host: String,
    port: u16,
    /// Empty, or `/…` without a slash at its end.
    path: String,
}

impl Address {
    /// From `http://host:port/path` or `https://…`.
    ///
    /// # Errors
    /// What is wrong, without the text: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("does not begin with http:// or https://"),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("holds a user: write it as `username` and `password` beside it");
        }
        let default = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| "has a port that is no number up to 65535")?)
            }
            _ => (authority, default),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        if host.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("names no host");
        }
        Ok(Self { tls, host, port, path: path.trim_end_matches('/').to_owned() })
    }

    /// Whether it is reached by TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls
    }

    /// Its path: empty, or `/…` without a slash at its end.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// One request to `path`; gives the answer's code and body. `headers` are lines, each with its end.
    ///
    /// # Errors
    /// As the network gives them, or if the answer is not HTTP.
    pub(crate) fn post(
        &self,
        tls: Option<&Arc<ClientConfig>>,
        (path, headers): (&str, &str),
        body: &str,
    ) -> io::Result<(u16, Vec<u8>)> {
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: {}:{}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.host,
            self.port,
            body.len()
        );
        let stream = self.connect()?;
        let answer = match tls {
            None => exchange(stream, &request)?,
            Some(config) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                exchange(StreamOwned::new(session, stream), &request)?
            }
        };
        parse_answer(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the host has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(LARGEST_ANSWER).read_to_end(&mut answer) {
        // Some servers end a TLS connection without saying so; the body's length was told.
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
        _ => Ok(answer),
    }
}

/// Code and body of an answer.
fn parse_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let code = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((code, answer[end + 4..].to_vec()))
}

/// For a path segment or a form's value: all but RFC 3986's unreserved characters escaped.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_host_port_and_path() {
        let address = Address::parse("https://registry/apis/ccompat/v7/").unwrap();
        assert_eq!((address.tls, address.port, address.path.as_str()), (true, 443, "/apis/ccompat/v7"));
        assert_eq!(Address::parse("http://[::1]:8081").unwrap().host, "::1");
        for wrong in ["registry:8081", "http://", "http://u:p@h", "http://h:99999", "http://h h"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
