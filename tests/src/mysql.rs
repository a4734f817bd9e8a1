//! MariaDB and MySQL servers.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};

use crate::service::Service;

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// MariaDB 10.11.
    MariaDb,
    /// MySQL 9.7, transactions compressed in the binlog.
    Mysql97,
    /// MySQL 8.0.
    Mysql80,
}

impl Family {
    fn kind(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::Mysql97 => "mysql97",
            Self::Mysql80 => "mysql80",
        }
    }
}

/// A running server with the accounts of `tests/services/accounts.sh`.
pub struct MysqlServer {
    family: Family,
    service: Service,
}

impl MysqlServer {
    /// A server of the test's own; `options` are the server's (`--binlog-format=STATEMENT`), the later wins.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start(family: Family, options: &[&str]) -> Result<Self> {
        Ok(Self { family, service: Service::start(family.kind(), options)? })
    }

    /// The server with default options that the tests of this process share.
    ///
    /// # Panics
    /// When it doesn't start: every test that needs it fails with the reason.
    #[must_use]
    pub fn shared(family: Family) -> &'static Self {
        static SERVERS: [OnceLock<MysqlServer>; 3] = [const { OnceLock::new() }; 3];
        SERVERS[family as usize]
            .get_or_init(|| Self::start(family, &[]).unwrap_or_else(|e| panic!("shared {family:?}: {e:#}")))
    }

    /// Which server it is.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The process behind it, to stop and start it again.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.service.port()
    }

    /// The certificate authority that signed the server's certificate (PEM). MariaDB's names localhost and 127.0.0.1, MySQL's names nobody.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        match self.family {
            Family::MariaDb => self.service.dir().join("ca.pem"),
            Family::Mysql97 | Family::Mysql80 => self.service.dir().join("data/ca.pem"),
        }
    }

    /// The URL of the capture account, which has the documented grants and no more.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as("cdc", "cdc-secret", database)
    }

    /// The URL of the account that may do everything.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        self.url_as("admin", "admin-secret", database)
    }

    /// The URL of any account.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("mysql://{user}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// A connection of the admin account: UTC, strict, utf8mb4.
    ///
    /// # Errors
    /// When the server doesn't let us in.
    pub async fn admin(&self, database: &str) -> Result<Conn> {
        connect(&self.admin_url(database)).await
    }

    /// Runs statements (separated by `;`) as admin.
    ///
    /// # Errors
    /// The first statement that fails.
    pub async fn sql(&self, database: &str, statements: &str) -> Result<()> {
        let mut conn = self.admin(database).await?;
        conn.query_drop(statements).await.with_context(|| format!("run: {statements}"))?;
        conn.disconnect().await?;
        Ok(())
    }

    /// Creates a database for one test and returns its name: `<name>_<number>`, unique on this server.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn database(&self, name: &str) -> Result<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{name}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("mysql", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await?;
        Ok(name)
    }
}

/// Connects with the session settings that the kit's comparisons rely on: UTC and utf8mb4.
///
/// # Errors
/// A bad URL, or what the server answers.
pub async fn connect(url: &str) -> Result<Conn> {
    let opts = OptsBuilder::from_opts(Opts::from_url(url)?)
        .prefer_socket(false)
        .setup(vec!["SET time_zone = '+00:00', NAMES utf8mb4"]);
    Ok(Conn::new(opts).await?)
}
