//! Tokens for SASL OAUTHBEARER: the client credentials grant (RFC 6749, section 4.4) at the configured endpoint.
//!
//! librdkafka asks for a token when a client is made, and again before one expires; who asks is served by whoever polls the client.
//! What it needs travels in the client's own setting `sasl.oauthbearer.config`, so that contexts hold no secrets.
//!
//! Blocking, on a connection of its own for each request. Memory: an answer of up to 1 MiB.

use crate::config::{Sasl, Tls};
use crate::registry::Address;
use crate::topic_ids::connection::tls_config;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rdkafka::client::OAuthToken;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(15);
const LARGEST_ANSWER: u64 = 1 << 20;
/// Of a token whose lifetime nobody tells, seconds.
const LIFETIME: i64 = 300;

/// Where tokens come from. Its `Debug` is not derived: it holds a secret.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    url: String,
    client: String,
    secret: String,
    scope: Option<String>,
    ca: Option<String>,
}

impl Endpoint {
    /// As configured; none if no endpoint is.
    pub(crate) fn of(sasl: &Sasl) -> Option<Self> {
        Some(Self {
            url: sasl.token_url.clone()?,
            client: sasl.username.clone(),
            secret: sasl.password.clone(),
            scope: sasl.scope.clone(),
            ca: sasl.token_ca.clone(),
        })
    }

    /// The setting that carries it.
    pub(crate) fn setting(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A token, with the time at which it expires (milliseconds since the epoch) and the name in it.
    pub(crate) fn token(&self) -> io::Result<OAuthToken> {
        let (code, answer) = self.ask()?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let Some(token) = answer["access_token"].as_str().filter(|_| (200..300).contains(&code)) else {
            let words = answer["error_description"]
                .as_str()
                .or(answer["error"].as_str())
                .unwrap_or("no reason given");
            let words: String = words.chars().take(500).collect();
            return Err(io::Error::other(format!("the token endpoint answers {code}: {words}")));
        };
        let claims = claims(token);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        let expires = claims["exp"]
            .as_f64()
            .map(|exp| exp as i64)
            .unwrap_or_else(|| now + answer["expires_in"].as_i64().unwrap_or(LIFETIME));
        let principal_name = claims["sub"].as_str().unwrap_or(&self.client).to_owned();
        Ok(OAuthToken { token: token.to_owned(), principal_name, lifetime_ms: expires * 1_000 })
    }

    fn ask(&self) -> io::Result<(u16, Vec<u8>)> {
        let address = Address::parse(&self.url).map_err(io::Error::other)?;
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.scope {
            body.push_str(&format!("&scope={}", escaped(scope)));
        }
        let credentials = STANDARD.encode(format!("{}:{}", escaped(&self.client), escaped(&self.secret)));
        let (tls, host, port, path) = address.parts();
        let path = if path.is_empty() { "/" } else { path };
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: {host}:{port}\r\nAuthorization: Basic {credentials}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let stream = connect(host, port)?;
        let answer = if tls {
            let trust = Tls { ca: self.ca.clone(), ..Tls::default() };
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let session =
                ClientConnection::new(Arc::new(tls_config(&trust)?), name).map_err(io::Error::other)?;
            exchange(StreamOwned::new(session, stream), &request)?
        } else {
            exchange(stream, &request)?
        };
        parse_answer(&answer).ok_or_else(|| io::Error::other("the token endpoint's answer is not HTTP"))
    }
}

/// What a client's context answers librdkafka.
pub(crate) fn token(setting: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
    let endpoint: Endpoint = setting
        .and_then(|setting| serde_json::from_str(setting).ok())
        .ok_or("no endpoint for tokens: set `kafka.sasl.token_url`")?;
    endpoint.token().map_err(|error| {
        tracing::warn!(%error, "no token for the brokers");
        error.into()
    })
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the host has no address");
    for address in (host, port).to_socket_addrs()? {
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

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(LARGEST_ANSWER).read_to_end(&mut answer) {
        // Some servers end a TLS connection without saying so.
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
        _ => Ok(answer),
    }
}

fn parse_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let code = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((code, answer[end + 4..].to_vec()))
}

/// What a token says of itself, if it is a JWT; it is not verified here, the brokers do.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

/// For a form (RFC 3986's unreserved characters stay).
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    fn asked(answer: String) -> (io::Result<OAuthToken>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/oauth/token", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut buffer = [0; 4096];
            while !asked.ends_with(b"kafka%20write") {
                let n = stream.read(&mut buffer).unwrap();
                asked.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        let endpoint = Endpoint {
            url,
            client: "cdc".into(),
            secret: "hunter:2".into(),
            scope: Some("kafka write".into()),
            ca: None,
        };
        (endpoint.token(), server.join().unwrap())
    }

    #[test]
    fn a_token_is_asked_for_with_the_clients_credentials_and_tells_its_own_name_and_end() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"svc","exp":1900000000}"#);
        let body = format!(r#"{{"access_token":"e30.{claims}.","expires_in":60}}"#);
        let (token, asked) = asked(format!("HTTP/1.1 200 OK\r\n\r\n{body}"));
        let token = token.unwrap();
        assert_eq!((token.principal_name.as_str(), token.lifetime_ms), ("svc", 1_900_000_000_000));
        assert!(asked.starts_with("POST /oauth/token HTTP/1.0\r\n"), "{asked}");
        let credentials = STANDARD.encode("cdc:hunter%3A2");
        assert!(asked.contains(&format!("Authorization: Basic {credentials}")), "{asked}");
        assert!(asked.ends_with("grant_type=client_credentials&scope=kafka%20write"), "{asked}");
    }

    #[test]
    fn a_refusal_is_told_in_the_endpoints_words_without_the_secret() {
        let (token, _) = asked("HTTP/1.1 401 Unauthorized\r\n\r\n{\"error\":\"invalid_client\"}".to_owned());
        let error = token.err().unwrap().to_string();
        assert!(error.contains("401: invalid_client") && !error.contains("hunter"), "{error}");
    }
}
