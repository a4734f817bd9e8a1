//! PostgreSQL servers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls};

use crate::service::Service;

/// A running server.
pub struct Postgres {
    service: Service,
}

/// One test's database on a server.
#[derive(Clone, Debug)]
pub struct PgDatabase {
    /// Its URL, for the daemon's config.
    pub url: String,
}

impl Postgres {
    /// A server of the test's own; `settings` as `name=value`.
    ///
    /// # Errors
    /// When it doesn't start.
    pub fn start(settings: &[&str]) -> Result<Self> {
        Ok(Self { service: Service::start("postgres", settings)? })
    }

    /// The server with default settings that the tests of this process share.
    ///
    /// # Panics
    /// When it doesn't start: every test that needs it fails with the reason.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Postgres> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(&[]).unwrap_or_else(|e| panic!("shared PostgreSQL: {e:#}")))
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

    /// Creates a database for one test.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn database(&self, name: &str) -> Result<PgDatabase> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{name}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&self.url("postgres")).await?;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(PgDatabase { url: self.url(&name) })
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }
}

impl PgDatabase {
    /// A connection.
    ///
    /// # Errors
    /// When the server doesn't let us in.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.url).await
    }

    /// Runs statements, separated by `;`.
    ///
    /// # Errors
    /// The first statement that fails.
    pub async fn sql(&self, statements: &str) -> Result<()> {
        self.connect().await?.batch_execute(statements).await.with_context(|| format!("run: {statements}"))
    }
}

/// Connects with the session settings that the kit's comparisons rely on: UTC, ISO dates, `postgres` intervals, exact floats.
///
/// # Errors
/// A bad URL, or what the server answers.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move {
        // An error here reaches the caller through its next query.
        let _ = connection.await;
    });
    client
        .batch_execute(
            "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1",
        )
        .await?;
    Ok(client)
}
