//! How a request shows who asks.

use crate::client::{Ask, Client, Server};
use crate::template::encoded;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use caudal_core::{Error, Result};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Uri};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How a request shows who asks: one of an API key, a bearer token, user and password, or OAuth client credentials.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// An API key.
    pub api_key: Option<String>,
    /// The header that carries the API key.
    pub header: Option<String>,
    /// A token: `Authorization: Bearer …`.
    pub bearer: Option<String>,
    /// With `password`: `Authorization: Basic …`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// OAuth 2.0 client credentials: where a token is fetched, with `client_id` and `client_secret`.
    pub token_url: Option<String>,
    /// For OAuth.
    pub client_id: Option<String>,
    /// For OAuth.
    pub client_secret: Option<String>,
    /// For OAuth, where the server asks for it.
    pub scope: Option<String>,
}

// All of it may be secret.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Ready to be shown.
pub(crate) enum Auth {
    None,
    Header(HeaderName, HeaderValue),
    Token(Box<OAuth>),
}

/// A token before its end is fetched anew this long ahead.
const AHEAD: Duration = Duration::from_secs(30);

pub(crate) struct OAuth {
    server: Arc<Server>,
    target: String,
    form: Bytes,
    token: Mutex<Option<(HeaderValue, Instant)>>,
}

impl AuthConfig {
    /// # Errors
    /// `Config`, naming the key.
    pub(crate) fn resolve(self, mut server: impl FnMut(Uri) -> Arc<Server>) -> Result<Auth> {
        let wrong = |field: &str, says: &str| Error::config(says.to_owned()).field(format!("auth.{field}"));
        let ways =
            [self.api_key.is_some(), self.bearer.is_some(), self.user.is_some(), self.token_url.is_some()];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err(wrong("api_key", "more than one way to show who asks")
                .hint("keep one of `api_key`, `bearer`, `user` and `token_url`"));
        }
        if let Some(key) = self.api_key {
            let name = self.header.as_deref().unwrap_or("X-API-Key");
            let name = HeaderName::try_from(name).map_err(|_| wrong("header", "is no header's name"))?;
            return Ok(Auth::Header(name, secret(&key, "api_key")?));
        }
        if let Some(token) = self.bearer {
            return Ok(Auth::Header(header::AUTHORIZATION, secret(&format!("Bearer {token}"), "bearer")?));
        }
        if let Some(user) = self.user {
            let password = self.password.ok_or_else(|| wrong("password", "is missing beside `user`"))?;
            let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            return Ok(Auth::Header(header::AUTHORIZATION, secret(&text, "user")?));
        }
        let Some(url) = self.token_url else {
            let left = self.header.is_some() || self.password.is_some() || self.client_id.is_some();
            return match left {
                true => Err(wrong("api_key", "nothing says how to show who asks")
                    .hint("add `api_key`, `bearer`, `user` or `token_url`")),
                false => Ok(Auth::None),
            };
        };
        let uri: Uri = url.parse().map_err(|_| wrong("token_url", "is no URL"))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("token_url", "is no URL").hint("https://login.example/oauth/token"));
        }
        let id = self.client_id.ok_or_else(|| wrong("client_id", "is missing beside `token_url`"))?;
        let secret =
            self.client_secret.ok_or_else(|| wrong("client_secret", "is missing beside `token_url`"))?;
        let mut form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            encoded(&id, false),
            encoded(&secret, false)
        );
        if let Some(scope) = &self.scope {
            form.push_str(&format!("&scope={}", encoded(scope, false)));
        }
        let target = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Ok(Auth::Token(Box::new(OAuth {
            server: server(uri),
            target,
            form: form.into(),
            token: Mutex::new(None),
        })))
    }
}

fn secret(text: &str, field: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        Error::config("no header can carry it")
            .field(format!("auth.{field}"))
            .hint("look for line breaks in it")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl Auth {
    /// The header to show.
    ///
    /// # Errors
    /// As the server that gives tokens answers.
    pub(crate) async fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>> {
        match self {
            Self::None => Ok(None),
            Self::Header(name, value) => Ok(Some((name.clone(), value.clone()))),
            Self::Token(oauth) => Ok(Some((header::AUTHORIZATION, oauth.token().await?))),
        }
    }

    /// What was shown was refused. Whether there is something else to show.
    pub(crate) async fn refused(&self) -> bool {
        match self {
            Self::Token(oauth) => oauth.token.lock().await.take().is_some(),
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl OAuth {
    async fn token(&self) -> Result<HeaderValue> {
        let mut token = self.token.lock().await;
        if let Some((value, until)) = &*token
            && Instant::now() < *until
        {
            return Ok(value.clone());
        }
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let ask = Ask {
            method: Method::POST,
            target: self.target.clone(),
            headers: vec![(header::CONTENT_TYPE, form)],
            body: self.form.clone(),
        };
        let reply =
            Client::new(Arc::clone(&self.server)).ask(ask).await.map_err(|e| e.context("fetch a token"))?;
        let granted: Granted = serde_json::from_slice(&reply.body)
            .map_err(|_| Error::config("the answer holds no token").field("auth.token_url"))?;
        let value = secret(&format!("Bearer {}", granted.access_token), "token_url")?;
        let lasts = Duration::from_secs(granted.expires_in.unwrap_or(300));
        *token = Some((value.clone(), Instant::now() + lasts.saturating_sub(AHEAD)));
        Ok(value)
    }
}
