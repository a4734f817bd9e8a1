//! A connection: greeting, TLS, authentication, and the few text queries that replication needs.

use crate::tls::TlsOptions;
use std::fmt;
use std::time::Duration;

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// MySQL, and Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// A server's version, as it greets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    /// Whose server it is.
    pub family: Family,
    /// Major, minor, patch; 0 for what is not there.
    pub number: (u16, u16, u16),
    /// As the server writes it.
    pub text: String,
}

/// A server, and who we are there.
#[derive(Clone)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password; empty for none. Never shown.
    pub password: String,
    /// TLS.
    pub tls: TlsOptions,
    /// For connecting and authenticating together.
    pub connect_timeout: Duration,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}@{}:{}, {:?})", self.user, self.host, self.port, self.tls.mode)
    }
}
