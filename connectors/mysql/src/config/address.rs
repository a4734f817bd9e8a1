//! A server's url.

use caudal_core::{Error, Result};
use std::fmt;

/// A text that no log, error or Debug shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// From the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text: only for handing it to the server.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the server is and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password, empty for none.
    pub password: Secret,
    /// Default database.
    pub database: Option<String>,
}

/// Reads a url. Passwords come from the environment as they are, so the last `@` ends them, and only complete `%HH` are decoded.
pub(super) fn parse_url(url: &str) -> Result<Address> {
    let example = "write it as mysql://user:password@host:3306/database";
    let wrong = |message: &str| Error::config(message.to_owned()).hint(example);
    let rest = ["mysql://", "mariadb://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or_else(|| wrong("the url does not begin with mysql://"))?;
    let (who, place) = rest.rsplit_once('@').ok_or_else(|| wrong("the url names no user"))?;
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    if user.is_empty() {
        return Err(wrong("the url names no user"));
    }
    if place.contains('?') {
        return Err(wrong("the url has parameters (`?…`); there are none")
            .hint("use the keys of the source instead: tls, heartbeat, …"));
    }
    let (host_port, database) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = split_port(host_port).ok_or_else(|| wrong("the url's port is no port"))?;
    if host.is_empty() {
        return Err(wrong("the url names no host"));
    }
    Ok(Address {
        host: host.to_owned(),
        port,
        user: percent_decoded(user),
        password: Secret::new(percent_decoded(password)),
        database: (!database.is_empty()).then(|| percent_decoded(database)),
    })
}

pub(super) fn split_port(place: &str) -> Option<(&str, u16)> {
    const DEFAULT: u16 = 3306;
    if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => after.is_empty().then_some((host, DEFAULT)),
        };
    }
    match place.rsplit_once(':') {
        Some((host, port)) => Some((host, port.parse().ok().filter(|&p| p != 0)?)),
        None => Some((place, DEFAULT)),
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%')
            .then(|| bytes.get(i + 1..i + 3))
            .flatten()
            .and_then(|h| std::str::from_utf8(h).ok())
            .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(hex.unwrap_or(bytes[i]));
        i += if hex.is_some() { 3 } else { 1 };
    }
    // Decoded bytes that are no UTF-8 were no escapes.
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        parse_url(url).unwrap()
    }

    #[test]
    fn a_url_is_read_with_its_defaults() {
        let a = address("mysql://cdc:pw@db/plex");
        assert_eq!((a.host.as_str(), a.port, a.user.as_str()), ("db", 3306, "cdc"));
        assert_eq!(a.database.as_deref(), Some("plex"));
        let a = address("mariadb://cdc@[::1]:3307");
        assert_eq!((a.host.as_str(), a.port, a.database), ("::1", 3307, None));
    }

    #[test]
    fn a_password_may_hold_any_character() {
        assert_eq!(address("mysql://u:p@ss/w#r:d%@h/db").password.reveal(), "p@ss/w#r:d%");
        assert_eq!(address("mysql://u:p%40ss@h/db").password.reveal(), "p@ss");
    }

    #[test]
    fn a_wrong_url_is_refused_with_an_example_and_without_the_password() {
        for url in
            ["http://u:topsecret@h", "mysql://h", "mysql://u:topsecret@h:x/d", "mysql://u:topsecret@/d"]
        {
            let e = parse_url(url).unwrap_err();
            assert!(e.hint_text().is_some());
            assert!(!format!("{e} {e:?}").contains("topsecret"), "{e}");
        }
    }
}
