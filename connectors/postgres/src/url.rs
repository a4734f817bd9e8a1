//! Where the database is: libpq's URL, with the parts of `sslmode` that the driver does not know.

use caudal_core::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode};

/// How the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Not at all: `prefer` and `require` encrypt, no more.
    Nothing,
    /// That a trusted authority issued it.
    Authority,
    /// That, and the host's name.
    Full,
}

/// The authorities to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Those that browsers trust.
    Public,
    /// Those of a PEM file.
    File(PathBuf),
}

/// A database to connect to.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) verify: Verify,
    pub(crate) roots: Roots,
}

// The configuration holds a password.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

const FORM: &str = "write postgres://user:password@host:5432/database?sslmode=require";

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// Fault `Config`; the text never holds a part of the URL but the names of parameters.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(Error::config("is no Postgres URL").hint(FORM));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut verify = Verify::Nothing;
        let mut roots = Roots::Public;
        let mut mode = SslMode::Prefer;
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => (mode, verify) = ssl_mode(value)?,
                Some(("sslrootcert", "system")) => roots = Roots::Public,
                Some(("sslrootcert", file)) => roots = Roots::File(PathBuf::from(file.replace("%2F", "/"))),
                _ => rest.push(pair),
            }
        }
        let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        let mut config: tokio_postgres::Config = url.parse().map_err(|_| refused(&rest))?;
        if config.get_hosts().is_empty() || config.get_dbname().is_none() || config.get_user().is_none() {
            return Err(Error::config("the URL lacks host, user or database").hint(FORM));
        }
        config.ssl_mode(mode);
        config.application_name("caudal");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        config.tcp_user_timeout(Duration::from_secs(60));
        config.keepalives_idle(Duration::from_secs(30));
        Ok(Self { config, verify, roots })
    }

    /// `host:port/database`, for messages.
    pub(crate) fn place(&self) -> String {
        let host = self.config.get_hosts().first().map_or_else(String::new, |host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        });
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}/{}", self.config.get_dbname().unwrap_or_default())
    }
}

fn ssl_mode(value: &str) -> Result<(SslMode, Verify)> {
    Ok(match value {
        "disable" => (SslMode::Disable, Verify::Nothing),
        "prefer" => (SslMode::Prefer, Verify::Nothing),
        "require" => (SslMode::Require, Verify::Nothing),
        "verify-ca" => (SslMode::Require, Verify::Authority),
        "verify-full" => (SslMode::Require, Verify::Full),
        _ => {
            return Err(Error::config("unknown sslmode")
                .hint("use disable, prefer, require, verify-ca or verify-full"));
        }
    })
}

/// The driver's own message may quote a value, so it is not shown; the parameters' names are.
fn refused(rest: &[&str]) -> Error {
    let names: Vec<&str> = rest.iter().map(|p| p.split_once('=').map_or(*p, |(name, _)| name)).collect();
    let error = Error::config("the URL cannot be read");
    if names.is_empty() {
        error.hint(format!("{FORM}; percent-encode special characters of the password"))
    } else {
        error.hint(format!("{FORM}; unknown or unreadable may be: {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_libpq_are_understood() {
        for (mode, ssl, verify) in [
            ("disable", SslMode::Disable, Verify::Nothing),
            ("require", SslMode::Require, Verify::Nothing),
            ("verify-ca", SslMode::Require, Verify::Authority),
            ("verify-full", SslMode::Require, Verify::Full),
        ] {
            let t =
                Target::parse(&format!("postgresql://u:p@h:1/db?sslmode={mode}&connect_timeout=3")).unwrap();
            assert_eq!((t.config.get_ssl_mode(), t.verify), (ssl, verify));
            assert_eq!(t.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        }
        let t = Target::parse("postgres://u@h/db").unwrap();
        assert_eq!(t.config.get_ssl_mode(), SslMode::Prefer);
        assert_eq!(t.place(), "h:5432/db");
        let t = Target::parse("postgres://u@h/db?sslmode=verify-ca&sslrootcert=/etc/ca.pem").unwrap();
        assert_eq!(t.roots, Roots::File("/etc/ca.pem".into()));
    }

    #[test]
    fn what_is_no_url_gets_the_form() {
        for url in [
            "host=h dbname=db",
            "postgres://",
            "postgres://h",
            "postgres://u:p@h:x/db",
            "postgres://u@h/db?sslmode=on",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.hint_text().is_some(), "{url}: {error}");
        }
    }
}
