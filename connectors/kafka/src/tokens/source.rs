//! Where tokens come from: a command, a file, or an endpoint by the client credentials grant (RFC 6749, section 4.4).

use super::{Token, now_ms};
use crate::config::{Mechanism, Sasl, Tls, TokenSource};
use crate::http::{Address, escaped};
use crate::topic_ids::connection::tls_config;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use caudal_core::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// A token longer than this is none.
const LONGEST: u64 = 64 << 10;
/// Of a token whose life nobody tells, seconds.
const LIFE: f64 = 300.0;

/// One source of tokens. Without `Debug`: it holds a secret.
pub(super) struct Source {
    way: Way,
    name: String,
}

enum Way {
    Endpoint { url: String, secret: String, scope: Option<String>, ca: Option<String> },
    Command(Vec<String>),
    File(String),
}

impl Source {
    /// As configured; none with another mechanism, or none of them.
    pub(super) fn of(sasl: &Sasl) -> Option<Self> {
        if sasl.mechanism != Mechanism::OauthBearer {
            return None;
        }
        let TokenSource { url, scope, ca, command, file } = sasl.token.clone()?;
        let way = match (url, file) {
            (Some(url), _) => Way::Endpoint { url, secret: sasl.password.clone(), scope, ca },
            (None, Some(file)) => Way::File(file),
            (None, None) => Way::Command(command),
        };
        Some(Self { way, name: sasl.username.clone() })
    }

    /// A new token. Waits for it.
    ///
    /// # Errors
    /// As [`super::Tokens::get`].
    pub(super) fn fetch(&self) -> Result<Token> {
        let fetched_ms = now_ms();
        let given = match &self.way {
            Way::Endpoint { url, secret, scope, ca } => {
                self.ask(url, secret, (scope.as_deref(), ca.as_ref()))?
            }
            Way::Command(command) => printed(&run(command)?),
            Way::File(path) => printed(&read(path)?),
        };
        self.token(&given, fetched_ms)
    }

    /// From what a source gave: an object with the token as `access_token`.
    fn token(&self, given: &Value, fetched_ms: i64) -> Result<Token> {
        let text = given["access_token"].as_str().unwrap_or_default();
        // RFC 6750, section 2.1: what a token may consist of.
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if text.is_empty() || !text.bytes().all(legal) {
            return Err(wrong("gave no token", self.hint()));
        }
        let claims = claims(text);
        let principal = claims["sub"].as_str().unwrap_or(&self.name);
        let principal = if principal.is_empty() { "caudal" } else { principal }.replace('\0', "");
        let expires_ms = claims["exp"].as_f64().map_or_else(
            || fetched_ms + (given["expires_in"].as_f64().unwrap_or(LIFE) * 1_000.0) as i64,
            |exp| (exp * 1_000.0) as i64,
        );
        if expires_ms <= fetched_ms {
            return Err(Error::transient("the source of tokens gave one that has expired").hint(self.hint()));
        }
        Ok(Token { text: text.to_owned(), principal, fetched_ms, expires_ms })
    }

    fn hint(&self) -> &'static str {
        match self.way {
            Way::Endpoint { .. } => "is `kafka.sasl.token.url` the token endpoint of your provider?",
            Way::Command(_) => {
                "`kafka.sasl.token.command` must print the token, or JSON with access_token and expires_in"
            }
            Way::File(_) => {
                "`kafka.sasl.token.file` must hold the token, or JSON with access_token and expires_in"
            }
        }
    }

    fn ask(&self, url: &str, secret: &str, (scope, ca): (Option<&str>, Option<&String>)) -> Result<Value> {
        let unreachable = |e: io::Error| {
            Error::transient("ask the endpoint for a token")
                .because(e)
                .hint("is the endpoint reachable at `kafka.sasl.token.url`?")
        };
        let address = Address::parse(url).map_err(|cause| wrong(cause, "look at `kafka.sasl.token.url`"))?;
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = scope {
            body.push_str(&format!("&scope={}", escaped(scope)));
        }
        let credentials = STANDARD.encode(format!("{}:{}", escaped(&self.name), escaped(secret)));
        let headers = format!(
            "Authorization: Basic {credentials}\r\nContent-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n"
        );
        let path = if address.path().is_empty() { "/" } else { address.path() };
        let trust = Tls { ca: ca.cloned(), ..Tls::default() };
        let tls = match address.is_encrypted() {
            true => Some(Arc::new(
                tls_config(&trust)
                    .map_err(|e| wrong("cannot be read", "look at `kafka.sasl.token.ca`").because(e))?,
            )),
            false => None,
        };
        let (code, answer) = address.post(tls.as_ref(), (path, &headers), &body).map_err(unreachable)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        match code {
            200..=299 => Ok(answer),
            _ => Err(refusal(code, &answer)),
        }
    }
}

fn wrong(what: &str, fix: &str) -> Error {
    Error::config(format!("the source of tokens {what}")).field("kafka.sasl.token").hint(fix)
}

/// The endpoint's own words (RFC 6749, section 5.2), which name no secret.
fn refusal(code: u16, answer: &Value) -> Error {
    let words =
        answer["error_description"].as_str().or(answer["error"].as_str()).unwrap_or("no reason given");
    let words: String = words.chars().take(500).collect();
    let text = format!("the token endpoint answers {code}: {words}");
    match code {
        500.. | 429 | 408 => Error::transient(text),
        _ => Error::config(text)
            .field("kafka.sasl.token")
            .hint("check `kafka.sasl`: username (the client's id), password (its secret), token.url and token.scope"),
    }
}

/// What a command printed, or a file holds: the answer of an endpoint, or the token alone.
fn printed(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    match text.starts_with('{') {
        true => serde_json::from_str(text).unwrap_or_default(),
        false => serde_json::json!({ "access_token": text }),
    }
}

fn read(path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        // Whoever writes it may not have done so yet.
        Err(e) => Err(Error::transient(format!("read the token in {path}"))
            .because(e)
            .hint("`kafka.sasl.token.file` names the file that holds it")),
    }
}

/// What a program prints. What it says on its error output is not shown: nobody knows what is in there.
fn run(command: &[String]) -> Result<Vec<u8>> {
    let (program, arguments) = command.split_first().ok_or_else(|| wrong("is missing", "write one"))?;
    let failed = |what: String| {
        Error::transient(what).hint("run `kafka.sasl.token.command` by hand, as the user of the daemon")
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| {
            wrong("is a command that cannot be run", "look at `kafka.sasl.token.command`").because(e)
        })?;
    let (send, receive) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = output.take(LONGEST).read_to_end(&mut bytes).map(|_| bytes);
            // Nobody waits for it any longer: it is of no use.
            drop(send.send(read));
        });
    }
    let deadline = Instant::now() + PATIENCE;
    let bytes = receive.recv_timeout(PATIENCE);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            _ => {
                drop(child.kill());
                drop(child.wait());
                return Err(failed(format!("the command for tokens takes longer than {PATIENCE:?}")));
            }
        }
    };
    match bytes {
        Ok(Ok(bytes)) if status.success() => Ok(bytes),
        _ => Err(failed(format!("the command for tokens failed: {status}"))),
    }
}

/// What a token says of itself, if it is a JWT (RFC 7519); the brokers verify it.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::Fault;
    use std::io::Write;
    use std::net::TcpListener;

    fn source(token: TokenSource) -> Source {
        let sasl = Sasl {
            mechanism: Mechanism::OauthBearer,
            username: "cdc".into(),
            password: "hunter:2".into(),
            token: Some(token),
        };
        Source::of(&sasl).unwrap()
    }

    fn by_command(script: &str) -> Result<Token> {
        source(TokenSource { command: ["sh", "-c", script].map(String::from).into(), ..Default::default() })
            .fetch()
    }

    /// An endpoint that gives one answer; what it was asked.
    fn asked(answer: String) -> (Result<Token>, String) {
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
        let token = TokenSource { url: Some(url), scope: Some("kafka write".into()), ..Default::default() };
        (source(token).fetch(), server.join().unwrap())
    }

    #[test]
    fn a_token_is_asked_for_with_the_clients_credentials_and_tells_its_own_name_and_end() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"sub":"svc","exp":1900000000}"#);
        let body = format!(r#"{{"access_token":"e30.{claims}.","expires_in":60}}"#);
        let (token, asked) = asked(format!("HTTP/1.1 200 OK\r\n\r\n{body}"));
        let token = token.unwrap();
        assert_eq!((token.principal.as_str(), token.expires_ms), ("svc", 1_900_000_000_000));
        assert!(asked.starts_with("POST /oauth/token HTTP/1.0\r\n"), "{asked}");
        let credentials = STANDARD.encode("cdc:hunter%3A2");
        assert!(asked.contains(&format!("Authorization: Basic {credentials}")), "{asked}");
        assert!(asked.ends_with("grant_type=client_credentials&scope=kafka%20write"), "{asked}");
    }

    #[test]
    fn a_refusal_is_told_in_the_endpoints_words_without_the_secret() {
        let answer = |code: &str| format!("HTTP/1.1 {code}\r\n\r\n{{\"error\":\"invalid_client\"}}");
        let error = asked(answer("401 Unauthorized")).0.err().unwrap();
        assert_eq!(error.fault(), Fault::Config);
        let text = format!("{error} {error:?}");
        assert!(text.contains("401: invalid_client") && !text.contains("hunter"), "{text}");
        assert_eq!(asked(answer("503 Busy")).0.err().unwrap().fault(), Fault::Transient);
    }

    #[test]
    fn a_command_prints_a_token_or_an_object_with_its_life() {
        let bare = by_command("echo '  abc.def-_~+/= '").unwrap();
        assert_eq!((bare.text.as_str(), bare.principal.as_str()), ("abc.def-_~+/=", "cdc"));
        assert_eq!(bare.expires_ms - bare.fetched_ms, 300_000);
        let object = by_command(r#"echo '{"access_token":"abc","expires_in":7}'"#).unwrap();
        assert_eq!((object.text.as_str(), object.expires_ms - object.fetched_ms), ("abc", 7_000));
    }

    #[test]
    fn what_is_no_token_is_told_and_not_shown() {
        for (script, fault) in [
            ("echo two words hunter2", Fault::Config),
            ("true", Fault::Config),
            ("echo hunter2 >&2; exit 3", Fault::Transient),
            (r#"echo '{"access_token":"abc","expires_in":0}'"#, Fault::Transient),
        ] {
            let error = by_command(script).err().unwrap_or_else(|| panic!("{script}"));
            assert_eq!(error.fault(), fault, "{error}");
            assert!(error.hint_text().is_some());
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        let none = source(TokenSource { command: vec!["/no/such/program".into()], ..Default::default() });
        assert_eq!(none.fetch().err().unwrap().fault(), Fault::Config);
    }

    #[test]
    fn a_file_is_read_again_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = source(TokenSource { file: Some(path.display().to_string()), ..Default::default() });
        assert_eq!(source.fetch().err().unwrap().fault(), Fault::Transient);
        for text in ["first", "second"] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            assert_eq!(source.fetch().unwrap().text, text);
        }
    }
}
