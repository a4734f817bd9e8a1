//! A database for each test.

use caudal_core::{Sink, Writer};
use caudal_postgres::Config;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A database of its own, with a connection to look into it.
pub(crate) struct Database {
    pub(crate) url: String,
    client: Client,
}

/// The server's URL, if the tests were given one.
pub(crate) fn server() -> Option<String> {
    std::env::var("CAUDAL_TEST_POSTGRES_URL").ok()
}

impl Database {
    /// Makes a database; none if no server was named.
    pub(crate) async fn new() -> Option<Self> {
        let server = server()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("caudal_test_{}_{number}", std::process::id());
        let admin = connect(&server).await;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"))
            .await
            .unwrap();
        let (base, query) = server.split_once('?').unwrap_or((&server, ""));
        let (base, _) = base.rsplit_once('/').expect("the server's URL ends in a database");
        let url = if query.is_empty() { format!("{base}/{name}") } else { format!("{base}/{name}?{query}") };
        let client = connect(&url).await;
        Some(Self { url, client })
    }

    pub(crate) fn config(&self) -> Config {
        serde_json::from_value(serde_json::json!({"url": self.url, "lock_timeout": "20s"})).unwrap()
    }

    pub(crate) fn config_with(&self, more: serde_json::Value) -> Config {
        let mut json = serde_json::json!({"url": self.url});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json).unwrap()
    }

    pub(crate) fn sink(&self) -> Arc<dyn Sink> {
        caudal_postgres::sink("test", self.config()).unwrap()
    }

    /// A writer that has taken over.
    pub(crate) async fn writer(&self) -> Box<dyn Writer> {
        let mut writer = self.sink().open().await.unwrap();
        writer.resume().await.unwrap();
        writer
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// Rows as text, columns joined by `|`, NULL as `∅`.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        let messages = self.client.simple_query(sql).await.unwrap();
        let text = |row: &tokio_postgres::SimpleQueryRow| {
            (0..row.len()).map(|i| row.get(i).unwrap_or("∅")).collect::<Vec<_>>().join("|")
        };
        messages
            .iter()
            .filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(text(row)) } else { None })
            .collect()
    }

    /// One value as text.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "{sql}");
        rows.into_iter().next().unwrap()
    }

    /// Waits until a query gives `t`; the deadline makes a hang a failure.
    pub(crate) async fn wait_for(&self, sql: &str) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
        while self.value(sql).await != "t" {
            assert!(tokio::time::Instant::now() < deadline, "never became true: {sql}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .expect("CAUDAL_TEST_POSTGRES_URL names a server that answers");
    tokio::spawn(connection);
    client
}
