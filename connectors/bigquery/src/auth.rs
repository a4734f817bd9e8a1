//! Who asks: an access token, fetched when it is needed and before the one that is there ends.
//!
//! | credentials | how a token is had |
//! |---|---|
//! | a service account's file | a JWT signed with its key (RS256) is exchanged at the file's `token_uri` (RFC 7523) |
//! | a user's file (`gcloud auth application-default login`) | its refresh token is exchanged |
//! | an external account's file (workload identity federation) | the token of the other system is exchanged (RFC 8693, <https://google.aip.dev/auth/4117>), and where the file says so, that one for a service account's |
//! | none: on Google's machines, and in GKE with workload identity | asked of the metadata server |
//! | none, with an `endpoint` | no token: an emulator |
//!
//! Which of them it is, unless the configuration says: the file that GOOGLE_APPLICATION_CREDENTIALS names, gcloud's own, the metadata server.

use crate::client::{Ask, Client, address, encoded};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use caudal_core::{Error, Result};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::ClientConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What a token is for. Reading alone would do for tables, but a query is a job, which this one covers.
const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";
/// A token is fetched anew so long before its end.
const AHEAD: Duration = Duration::from_secs(60);
/// How long a signed assertion holds: the most that is allowed.
const HOUR: i64 = 3600;
/// For one request for a token.
const TIMEOUT: Duration = Duration::from_secs(30);
const METADATA: &str = "metadata.google.internal";

/// Where a token comes from.
pub(crate) enum Auth {
    /// Nobody asks for one.
    None,
    Token(Box<Tokens>),
}

pub(crate) struct Tokens {
    way: Way,
    tls: Arc<ClientConfig>,
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

enum Way {
    Account(Box<Account>),
    User { token_uri: String, form: String },
    External(Box<External>),
    Metadata { host: String },
}

struct Account {
    email: String,
    key_id: Option<String>,
    key: RsaKeyPair,
    token_uri: String,
}

/// A file of credentials, of any kind.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "type", default)]
    kind: String,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    service_account_impersonation_url: Option<String>,
    credential_source: Option<Subject>,
}

struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    impersonate: Option<String>,
    subject: Subject,
}

/// Where the token of the other system is.
#[derive(Clone, Deserialize)]
struct Subject {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Default, Deserialize)]
struct Format {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    subject_token_field_name: String,
}

fn wrong(says: impl Into<String>) -> Error {
    Error::config(says).field("credentials")
}

impl Auth {
    /// What the configuration says, or else what the machine has. `emulated`: the service is an emulator, which asks for nothing.
    ///
    /// # Errors
    /// `Config` for a file that cannot be read or is none of credentials.
    pub(crate) fn resolve(
        text: Option<&str>,
        path: Option<&Path>,
        emulated: bool,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self> {
        let way = match (text, path) {
            (Some(_), Some(_)) => {
                return Err(wrong("there is `credentials_json`, too").hint("keep one of them"));
            }
            (Some(text), None) => way(text).map_err(|e| e.field("credentials_json"))?,
            (None, Some(path)) => way(&read(path)?)?,
            (None, None) if emulated => return Ok(Self::None),
            (None, None) => match found() {
                Some(path) => way(&read(&path)?)?,
                None => {
                    let host = std::env::var("GCE_METADATA_HOST").unwrap_or_else(|_| METADATA.to_owned());
                    Way::Metadata { host }
                }
            },
        };
        Ok(Self::Token(Box::new(Tokens { way, tls: Arc::clone(tls), token: Mutex::new(None) })))
    }

    /// The header to show.
    ///
    /// # Errors
    /// As the server that gives tokens answers.
    pub(crate) async fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>> {
        match self {
            Self::None => Ok(None),
            Self::Token(tokens) => Ok(Some((header::AUTHORIZATION, tokens.token().await?))),
        }
    }

    /// What was shown was refused. Whether there is something else to show.
    pub(crate) async fn refused(&self) -> bool {
        match self {
            Self::Token(tokens) => tokens.token.lock().await.take().is_some(),
            Self::None => false,
        }
    }
}

fn found() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").filter(|v| !v.is_empty()) {
        return Some(named.into());
    }
    let own = PathBuf::from(std::env::var_os("HOME")?);
    Some(own.join(".config/gcloud/application_default_credentials.json")).filter(|path| path.exists())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| {
        wrong(format!("read {}", path.display()))
            .because(e)
            .hint("name the JSON file of a service account's key, which this user can read")
    })
}

fn way(text: &str) -> Result<Way> {
    // What is wrong with it is not quoted: it is secret.
    let file: File = serde_json::from_str(text).map_err(|_| {
        wrong("is no file of credentials")
            .hint("gcloud iam service-accounts keys create key.json --iam-account=…")
    })?;
    let need = |value: Option<String>, name: &str| value.ok_or_else(|| wrong(format!("has no `{name}`")));
    match file.kind.as_str() {
        "service_account" => {
            let pem = need(file.private_key, "private_key")?;
            let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
                .map_err(|_| wrong("its `private_key` is no PEM of PKCS #8"))?;
            let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der())
                .map_err(|_| wrong("its `private_key` is no RSA key that can be used"))?;
            Ok(Way::Account(Box::new(Account {
                email: need(file.client_email, "client_email")?,
                key_id: file.private_key_id,
                key,
                token_uri: need(file.token_uri, "token_uri")?,
            })))
        }
        "authorized_user" => {
            let form = format!(
                "grant_type=refresh_token&client_id={}&client_secret={}&refresh_token={}",
                encoded(&need(file.client_id, "client_id")?),
                encoded(&need(file.client_secret, "client_secret")?),
                encoded(&need(file.refresh_token, "refresh_token")?),
            );
            let token_uri =
                file.token_uri.unwrap_or_else(|| "https://oauth2.googleapis.com/token".to_owned());
            Ok(Way::User { token_uri, form })
        }
        "external_account" => {
            let subject = file.credential_source.ok_or_else(|| wrong("has no `credential_source`"))?;
            if subject.file.is_none() && subject.url.is_none() {
                return Err(wrong("its `credential_source` is neither a file nor a URL")
                    .hint("tokens of AWS and of programs are not read: use a file or a URL as source"));
            }
            Ok(Way::External(Box::new(External {
                audience: need(file.audience, "audience")?,
                subject_token_type: need(file.subject_token_type, "subject_token_type")?,
                token_url: need(file.token_url, "token_url")?,
                impersonate: file.service_account_impersonation_url,
                subject,
            })))
        }
        _ => Err(wrong("is of a kind that is not read")
            .hint("a file of type service_account, authorized_user or external_account")),
    }
}

/// What a server of tokens gives.
#[derive(Deserialize)]
struct Granted {
    #[serde(alias = "accessToken")]
    access_token: String,
    expires_in: Option<u64>,
    #[serde(rename = "expireTime")]
    /// RFC 3339.
    expire_time: Option<String>,
}

/// What it says in place of that.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Denied {
    error: Value,
    error_description: String,
}

impl Tokens {
    async fn token(&self) -> Result<HeaderValue> {
        let mut token = self.token.lock().await;
        if let Some((value, until)) = &*token
            && Instant::now() < *until
        {
            return Ok(value.clone());
        }
        let granted = self.fetch().await.map_err(|e| e.context("fetch a token"))?;
        let value = bearer(&granted.access_token)?;
        let end = granted.expire_time.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let by_time = end.and_then(|at| Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok());
        let lasts = granted.expires_in.map(Duration::from_secs).or(by_time).unwrap_or(TIMEOUT * 10);
        *token = Some((value.clone(), Instant::now() + lasts.saturating_sub(AHEAD)));
        Ok(value)
    }

    async fn fetch(&self) -> Result<Granted> {
        match &self.way {
            Way::Account(account) => {
                let assertion = account.assertion(jiff::Timestamp::now().as_second())?;
                let grant = encoded("urn:ietf:params:oauth:grant-type:jwt-bearer");
                let form = format!("grant_type={grant}&assertion={assertion}");
                self.form(&account.token_uri, form).await
            }
            Way::User { token_uri, form } => self.form(token_uri, form.clone()).await,
            Way::Metadata { host } => {
                let path = format!(
                    "/computeMetadata/v1/instance/service-accounts/default/token?scopes={}",
                    encoded(SCOPE)
                );
                let flavor = (HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
                let url = format!("http://{host}{path}");
                let asked = self.ask(&url, Method::GET, vec![flavor], String::new());
                asked.await.map_err(|e| {
                    e.hint("no credentials are configured, and this is no machine of Google's: name `credentials`, or set GOOGLE_APPLICATION_CREDENTIALS")
                })
            }
            Way::External(external) => self.exchange(external).await,
        }
    }

    async fn exchange(&self, external: &External) -> Result<Granted> {
        let subject = self.subject(&external.subject).await?;
        let cloud = "https://www.googleapis.com/auth/cloud-platform";
        // A service account's token has the scope; the one that asks for it needs the right to.
        let scope = if external.impersonate.is_some() { cloud } else { SCOPE };
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &external.audience),
            ("scope", scope),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", &external.subject_token_type),
            ("subject_token", &subject),
        ];
        let form: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let granted = self.form(&external.token_url, form.join("&")).await?;
        let Some(url) = &external.impersonate else { return Ok(granted) };
        let headers = vec![
            (header::AUTHORIZATION, bearer(&granted.access_token)?),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ];
        self.ask(url, Method::POST, headers, json!({ "scope": [SCOPE] }).to_string()).await
    }

    /// The token of the other system.
    async fn subject(&self, subject: &Subject) -> Result<String> {
        let text = match (&subject.file, &subject.url) {
            // Read anew each time: it is replaced there before it ends.
            (Some(path), _) => read(path)?,
            (None, Some(url)) => {
                let header = |(name, value): (&String, &String)| {
                    Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
                };
                let headers = subject.headers.iter().filter_map(header).collect();
                let reply = self.send(url, Method::GET, headers, String::new()).await?;
                String::from_utf8_lossy(&reply).into_owned()
            }
            (None, None) => return Err(wrong("its `credential_source` is neither a file nor a URL")),
        };
        if subject.format.kind != "json" {
            return Ok(text.trim().to_owned());
        }
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let token = value.get(&subject.format.subject_token_field_name).and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| wrong("the token of its `credential_source` is not there"))
    }

    async fn form(&self, url: &str, form: String) -> Result<Granted> {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        self.ask(url, Method::POST, vec![(header::CONTENT_TYPE, kind)], form).await
    }

    async fn ask(
        &self,
        url: &str,
        method: Method,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: String,
    ) -> Result<Granted> {
        let body = self.send(url, method, headers, body).await?;
        serde_json::from_slice(&body).map_err(|_| wrong("the answer holds no token"))
    }

    async fn send(
        &self,
        url: &str,
        method: Method,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: String,
    ) -> Result<Bytes> {
        let uri = address(url).ok_or_else(|| wrong("names no URL where tokens are given"))?;
        let target = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let client = Client::new(root(&uri)?, Arc::clone(&self.tls), TIMEOUT);
        let reply = client.ask(Ask { method, target, headers, body: body.into() }).await?;
        match reply.status {
            200..=299 => Ok(reply.body),
            408 | 429 | 500..=599 => Err(Error::transient(format!("answered {}", reply.status))),
            status => {
                let denied: Denied = serde_json::from_slice(&reply.body).unwrap_or_default();
                let error = denied.error.as_str().unwrap_or_default();
                Err(wrong(
                    format!("no token is given: {status} {error} {}", denied.error_description)
                        .trim()
                        .to_owned(),
                )
                .hint("look whether the account and its key still exist, and at the clock of this machine"))
            }
        }
    }
}

/// Scheme, host and port alone.
fn root(uri: &Uri) -> Result<Uri> {
    let authority = uri.authority().map_or("", |a| a.as_str());
    let text = format!("{}://{authority}", uri.scheme_str().unwrap_or("https"));
    text.parse().map_err(|_| wrong("names no URL where tokens are given"))
}

fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| wrong("no header can carry the token that was given"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Account {
    /// A JWT that says who asks, signed.
    fn assertion(&self, now: i64) -> Result<String> {
        let mut head = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = &self.key_id {
            head["kid"] = json!(id);
        }
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_uri, "iat": now, "exp": now + HOUR,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&head), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_| wrong("its `private_key` does not sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
