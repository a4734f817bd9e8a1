//! A schema registry, by Confluent's API: one schema is registered under one subject, and has a number from then on.
//!
//! Blocking, on a connection of its own for each request: it is asked once for each shape of a table, on the threads that prepare batches.
//! Memory: the numbers of the shapes asked for are kept by the caller; an answer is read up to 1 MiB.

use crate::config::Tls;
use crate::format::Registry;
use crate::http::{Address, escaped};
use crate::topic_ids::connection::tls_config;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use caudal_core::{Error, Result};
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Which language a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Avro,
    Protobuf,
}

/// Asks a registry.
#[derive(Clone)]
pub(crate) struct Client {
    address: Address,
    tls: Option<Arc<rustls::ClientConfig>>,
    authorization: Option<String>,
}

// Debug shows no password.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// From the configuration. Connects to nothing yet.
    ///
    /// # Errors
    /// `Config` for a URL or a file of authorities that cannot be used.
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let wrong = |field: &str, cause: &str| {
            Error::config(cause.to_owned()).field(format!("kafka.registry.{field}"))
        };
        let address = Address::parse(&registry.url).map_err(|cause| wrong("url", cause))?;
        let trust = Tls { ca: registry.ca.clone(), ..Tls::default() };
        let tls = if address.is_encrypted() {
            let config = tls_config(&trust).map_err(|e| wrong("ca", "cannot be read").because(e))?;
            Some(Arc::new(config))
        } else {
            None
        };
        let authorization = registry.username.as_ref().map(|user| {
            let password = registry.password.as_deref().unwrap_or_default();
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        });
        Ok(Self { address, tls, authorization })
    }

    /// The number of a schema, registered under the subject if it is not yet.
    ///
    /// # Errors
    /// `Transient` if the registry does not answer; `Config` with the subject and the registry's reason if it refuses the schema as
    /// incompatible with the subject's earlier ones, or this user.
    pub(crate) fn register(&self, subject: &str, language: Language, schema: &str) -> Result<u32> {
        let body = match language {
            Language::Avro => json!({ "schema": schema }),
            Language::Protobuf => json!({ "schemaType": "PROTOBUF", "schema": schema }),
        };
        let path = format!("{}/subjects/{}/versions", self.address.path(), escaped(subject));
        let (code, answer) = self.post(&path, &body.to_string()).map_err(|e| {
            Error::transient(format!("register the schema of {subject}"))
                .because(e)
                .hint("is the schema registry reachable at `kafka.registry.url`?")
        })?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        match (code, answer["id"].as_u64().and_then(|id| u32::try_from(id).ok())) {
            (200..=299, Some(id)) => Ok(id),
            _ => Err(refusal(subject, code, &answer)),
        }
    }

    /// One request; gives the answer's code and body.
    fn post(&self, path: &str, body: &str) -> io::Result<(u16, Vec<u8>)> {
        let kind = "application/vnd.schemaregistry.v1+json";
        let mut headers = format!("Content-Type: {kind}\r\nAccept: {kind}\r\n");
        if let Some(authorization) = &self.authorization {
            headers.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        self.address.post(self.tls.as_ref(), (path, &headers), body)
    }
}

/// The registry's own words, with what to do.
fn refusal(subject: &str, code: u16, answer: &Value) -> Error {
    let words =
        answer["message"].as_str().unwrap_or("no reason given").chars().take(2_000).collect::<String>();
    match code {
        409 => Error::config(format!(
            "the schema registry refuses the new schema of subject {subject} as incompatible: {words}"
        ))
        .hint(format!(
            "loosen it (PUT /config/{subject} {{\"compatibility\":\"NONE\"}}), or give the table's rows a topic of their own"
        )),
        401 | 403 => Error::config(format!("the schema registry refuses this user the subject {subject} ({code})"))
            .field("kafka.registry.username")
            .hint("give it the right to register schemas under this subject"),
        500.. | 429 | 408 => Error::transient(format!("the schema registry failed on subject {subject} ({code}): {words}")),
        _ => Error::config(format!("the schema registry refuses the schema of subject {subject} ({code}): {words}"))
            .hint("does `kafka.registry.url` lead to Confluent's API? Apicurio has it under /apis/ccompat/v7"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    fn registry(url: &str) -> Registry {
        Registry { url: url.into(), username: Some("u".into()), password: Some("hunter2".into()), ca: None }
    }

    /// A registry that gives one answer; gives what it was asked.
    fn answering(answer: &'static str) -> (Client, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut buffer = [0; 4096];
            while !asked.ends_with(b"}") {
                let n = stream.read(&mut buffer).unwrap();
                asked.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (Client::new(&registry(&url)).unwrap(), server)
    }

    #[test]
    fn a_schema_gets_its_number_under_its_subject() {
        let (client, server) = answering("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"id\":7}");
        assert_eq!(client.register("p.db.t x-value", Language::Avro, "{}").unwrap(), 7);
        let asked = server.join().unwrap();
        assert!(asked.starts_with("POST /api/subjects/p.db.t%20x-value/versions HTTP/1.0\r\n"), "{asked}");
        assert!(asked.contains("Authorization: Basic "));
    }

    #[test]
    fn an_incompatible_schema_is_told_with_subject_and_reason() {
        let (client, server) = answering(
            "HTTP/1.1 409 Conflict\r\n\r\n{\"error_code\":409,\"message\":\"reader type INT not compatible with STRING\"}",
        );
        let error = client.register("p.db.t-value", Language::Avro, "{}").unwrap_err();
        server.join().unwrap();
        assert_eq!(error.fault(), caudal_core::Fault::Config);
        let text = error.to_string();
        assert!(text.contains("p.db.t-value") && text.contains("INT not compatible"), "{text}");
        assert!(error.hint_text().unwrap().contains("compatibility"));
    }

    #[test]
    fn a_registry_that_is_away_is_waited_for_and_no_message_shows_the_password() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&registry(&format!("http://{free}"))).unwrap();
        let error = client.register("s", Language::Avro, "{}").unwrap_err();
        assert_eq!(error.fault(), caudal_core::Fault::Transient);
        assert!(!format!("{error:?} {error} {:?}", registry("x")).contains("hunter2"));
    }
}

/// A registry for tests of others.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// One that knows every schema under the same number.
    pub(crate) fn always(id: u32) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut asked = Vec::new();
                let mut buffer = [0; 65_536];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    asked.extend_from_slice(&buffer[..n]);
                    if asked.ends_with(b"}") {
                        break;
                    }
                }
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{{\"id\":{id}}}").as_bytes());
            }
        });
        Client::new(&Registry { url, username: None, password: None, ca: None }).unwrap()
    }
}
