//! Where servers are: one, or one for each store.

use crate::config::Config;
use caudal_core::{Error, Result};
use caudal_poll::stores::Stores;
use std::collections::BTreeMap;
use std::fmt;

/// One server, with its database and login.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: String,
    /// Attributes of the store.
    pub(crate) store: BTreeMap<String, String>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({}@{}:{}/{})", self.user, self.host, self.port, self.database)
    }
}

/// The servers of a configuration, in the order of its stores.
///
/// # Errors
/// `Config`, with the field.
pub(crate) fn places(config: &Config, stores: Option<&Stores>) -> Result<Vec<Place>> {
    let url = config.url.as_deref().map(Url::parse).transpose()?;
    let environment = environment(config)?;
    let nobody = BTreeMap::new();
    let all: Vec<(Option<&str>, &BTreeMap<String, String>)> = match stores {
        Some(stores) => stores.stores.iter().map(|s| (Some(s.id.as_str()), &s.attributes)).collect(),
        None => vec![(None, &nobody)],
    };
    all.into_iter().map(|(id, store)| place(config, url.as_ref(), &environment, (id, store))).collect()
}

/// Which of a server's addresses counts.
fn environment(config: &Config) -> Result<String> {
    let told = config.environment.clone().or_else(|| std::env::var("ETL_ENVIRONMENT").ok());
    match told.as_deref().map(str::trim) {
        None | Some("" | "local") => Ok("local".to_owned()),
        Some("production") => Ok("production".to_owned()),
        Some(_) => Err(Error::config("is neither `local` nor `production`")
            .field("environment")
            .hint("set `environment`, or the variable ETL_ENVIRONMENT, to one of them")),
    }
}

fn place(
    config: &Config,
    url: Option<&Url>,
    environment: &str,
    (id, store): (Option<&str>, &BTreeMap<String, String>),
) -> Result<Place> {
    let of = id.map_or(String::new(), |id| format!(" of the store {id}"));
    // As written, or else the store's own.
    let told = |written: Option<&String>, name: &str| -> Result<Option<String>> {
        match written {
            Some(text) => fill(text, store).map(Some).map_err(|e| e.field(name.to_owned())),
            None => Ok(store.get(name).filter(|value| !value.trim().is_empty()).cloned()),
        }
    };
    let by_environment = match environment {
        "production" => told(config.server_production.as_ref(), "server_production")?,
        _ => told(config.server_local.as_ref(), "server_local")?,
    };
    let missing = |field: &str, hint: &str| {
        Error::config(format!("there is no {field}{of}")).field(field.to_owned()).hint(hint.to_owned())
    };
    let host = match by_environment {
        Some(host) => Some(host),
        None => told(config.server.as_ref(), "server")?.or_else(|| url.map(|u| u.host.clone())),
    };
    let host = host
        .ok_or_else(|| missing("server", "server: 192.168.1.100, or the attribute `server` of each store"))?;
    let (host, in_host) = split_port(host.trim())?;
    let port = match (told(config.port.as_ref().map(|port| &port.0), "port")?, in_host) {
        (Some(text), _) => text.trim().parse().ok().filter(|port| *port > 0).ok_or_else(|| {
            Error::config(format!("the port{of} is no port")).field("port").hint("port: 1433")
        })?,
        (None, Some(port)) => port,
        (None, None) => url.and_then(|u| u.port).unwrap_or(1433),
    };
    let database =
        told(config.database.as_ref(), "database")?.or_else(|| url.and_then(|u| u.database.clone()));
    let user = told(config.user.as_ref(), "user")?.or_else(|| url.map(|u| u.user.clone()));
    let password = told(config.password.as_ref(), "password")?.or_else(|| url.map(|u| u.password.clone()));
    Ok(Place {
        host,
        port,
        database: database.ok_or_else(|| {
            missing("database", "database: VAD10, or the attribute `database` of each store")
        })?,
        user: user.filter(|u| !u.is_empty()).ok_or_else(|| missing("user", "user: caudal, a SQL login"))?,
        password: password.unwrap_or_default(),
        store: store.clone(),
    })
}

/// `host,port`, as SQL Server's own tools write it.
fn split_port(text: &str) -> Result<(String, Option<u16>)> {
    let wrong =
        || Error::config("is no host").field("server").hint("server: 192.168.1.100, and `port` beside it");
    let text = text.strip_prefix("tcp:").unwrap_or(text);
    if text.contains('\\') {
        return Err(wrong().hint("named instances are found by their port: `server: host`, `port: 50123`"));
    }
    match text.split_once(',') {
        Some((host, port)) => Ok((host.trim().to_owned(), Some(port.trim().parse().map_err(|_| wrong())?))),
        None if text.is_empty() || text.contains(['/', ' ', '{']) => Err(wrong()),
        None => Ok((text.to_owned(), None)),
    }
}

fn fill(text: &str, store: &BTreeMap<String, String>) -> Result<String> {
    let mut text = text.to_owned();
    for (name, value) in store {
        text = text.replace(&format!("{{store.{name}}}"), value);
    }
    match text.contains("{store.") {
        true => Err(Error::config("names an attribute that not every store has")),
        false => Ok(text),
    }
}

struct Url {
    host: String,
    port: Option<u16>,
    database: Option<String>,
    user: String,
    password: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self> {
        // The text holds a password: nothing of it is told.
        let wrong = || {
            Error::config("is no address of a SQL Server")
                .field("url")
                .hint("sqlserver://user:password@host:1433/database")
        };
        let rest =
            text.strip_prefix("sqlserver://").or_else(|| text.strip_prefix("mssql://")).ok_or_else(wrong)?;
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
            None => (address, None),
        };
        if host.is_empty() {
            return Err(wrong());
        }
        let decoded = |text: &str| percent_decoded(text).ok_or_else(wrong);
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            database: Some(decoded(database)?).filter(|d| !d.is_empty()),
            user: decoded(user)?,
            password: decoded(password)?,
        })
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_of(json: &str) -> Result<Vec<Place>> {
        let config: Config = serde_json::from_str(json).unwrap();
        let stores = config.stores.clone().resolve()?;
        places(&config, stores.as_ref())
    }

    #[test]
    fn each_store_has_its_own_server_by_the_environment() {
        let stores = |environment: &str| {
            format!(
                r#"{{"environment": "{environment}", "user": "caudal_{{store.id}}", "password": "p{{x}}", "stores": {{"list": [
                    {{"id": "a", "server": "10.0.0.1", "server_production": "192.168.20.11", "port": 14330, "database": "VAD10"}},
                    {{"id": "b", "server": "10.0.0.2,1500", "server_local": "localhost", "port": "", "database": "VAD20"}}]}}}}"#
            )
        };
        let told = |environment: &str| {
            let all = places_of(&stores(environment)).unwrap();
            all.iter().map(|p| format!("{}@{}:{}/{}", p.user, p.host, p.port, p.database)).collect::<Vec<_>>()
        };
        assert_eq!(told("local"), ["caudal_a@10.0.0.1:14330/VAD10", "caudal_b@localhost:1433/VAD20"]);
        assert_eq!(
            told("production"),
            ["caudal_a@192.168.20.11:14330/VAD10", "caudal_b@10.0.0.2:1500/VAD20"]
        );
        assert_eq!(places_of(&stores("local")).unwrap()[0].password, "p{x}");
        assert!(places_of(&stores("staging")).is_err());
    }

    #[test]
    fn an_address_is_read_and_nothing_of_it_is_told() {
        let url = r#"{"environment": "local", "url": "sqlserver://sa:p%40ss%2Fw@db.example:1533/VAD10"}"#;
        let place = places_of(url).unwrap().remove(0);
        assert_eq!((place.host.as_str(), place.port, place.database.as_str()), ("db.example", 1533, "VAD10"));
        assert_eq!((place.user.as_str(), place.password.as_str()), ("sa", "p@ss/w"));
        assert!(!format!("{place:?}").contains("p@ss"));
        for wrong in [
            "http://h/d",
            "sqlserver://u:geheim@h:x/d",
            "sqlserver://u:geheim@/d",
            "sqlserver://u:%zz@h/d",
            "sqlserver://u:geheim@h",
        ] {
            let error = places_of(&format!(r#"{{"environment": "local", "url": "{wrong}"}}"#)).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{wrong}");
        }
        assert!(
            places_of(r#"{"environment": "local", "server": "h\\SQLEXPRESS", "database": "d", "user": "u"}"#)
                .is_err()
        );
    }
}
