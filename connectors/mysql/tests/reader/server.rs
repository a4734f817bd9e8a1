//! Real servers, a database of its own for each test, and readers on it.

use caudal_core::{Batch, Position, Reader, SourcePosition};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A server under test.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) mariadb: bool,
    /// What it lacks.
    pub(crate) kind: Kind,
}

/// What a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All that it can: GTIDs, and names of columns in its log.
    Full,
    /// MySQL 8.0, which lacks newer types and statements.
    Old,
    /// Neither GTIDs nor names of columns in its log.
    Plain,
}

/// The servers that the environment names.
pub(crate) fn servers() -> Vec<Server> {
    let named = |variable: &str, mariadb, kind| {
        let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
        url.map(|url| Server { url, mariadb, kind })
    };
    let servers: Vec<Server> = [
        named("CAUDAL_TEST_MARIADB_URL", true, Kind::Full),
        named("CAUDAL_TEST_MYSQL_URL", false, Kind::Full),
        named("CAUDAL_TEST_MYSQL80_URL", false, Kind::Old),
        named("CAUDAL_TEST_MYSQL_PLAIN_URL", false, Kind::Plain),
    ]
    .into_iter()
    .flatten()
    .collect();
    if servers.is_empty() {
        eprintln!("no server: set CAUDAL_TEST_MARIADB_URL or CAUDAL_TEST_MYSQL_URL");
    }
    servers
}

/// Those among them that lack nothing.
pub(crate) fn full_servers() -> Vec<Server> {
    servers().into_iter().filter(|s| s.kind == Kind::Full).collect()
}

/// Those among them that have GTIDs.
pub(crate) fn gtid_servers() -> Vec<Server> {
    servers().into_iter().filter(|s| s.kind != Kind::Plain).collect()
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A database of its own.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) server: Server,
    pub(crate) name: String,
    _alive: Arc<()>,
}

/// How long a test may take with a database: one that goes round for ever ends the suite, and says which it was.
const PATIENCE: Duration = Duration::from_secs(600);

fn watch(alive: &Arc<()>) {
    let (alive, test) = (Arc::downgrade(alive), std::thread::current().name().unwrap_or("a test").to_owned());
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        if alive.upgrade().is_some() {
            eprintln!("{test} has not ended with a database of its within {PATIENCE:?}");
            std::process::exit(101);
        }
    });
}

impl Database {
    pub(crate) async fn create(server: &Server) -> Self {
        let unique = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("caudal_reader_{}_{unique}", std::process::id());
        let alive = Arc::new(());
        watch(&alive);
        let database = Self { server: server.clone(), name, _alive: alive };
        let mut conn = database.connect_to(None).await;
        conn.query_drop(format!("CREATE DATABASE `{}` CHARACTER SET utf8mb4", database.name)).await.unwrap();
        database
    }

    pub(crate) async fn connect_to(&self, name: Option<&str>) -> Conn {
        let opts = mysql_async::Opts::from_url(&self.server.url).unwrap();
        let opts = OptsBuilder::from_opts(opts)
            .db_name(name)
            .prefer_socket(false)
            .init(vec!["SET NAMES utf8mb4, time_zone='+00:00', sql_mode=''"]);
        Conn::new(opts).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Conn {
        self.connect_to(Some(&self.name)).await
    }

    /// Runs statements, one after the other.
    pub(crate) async fn run(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    pub(crate) async fn drop(self) {
        let mut conn = self.connect_to(None).await;
        conn.query_drop(format!("DROP DATABASE `{}`", self.name)).await.unwrap();
    }

    pub(crate) fn config(&self, extra: &str) -> caudal_mysql::Config {
        let base = self
            .server
            .url
            .rsplit_once('/')
            .filter(|(head, _)| head.contains('@'))
            .map_or(self.server.url.as_str(), |(head, _)| head);
        let comma = if extra.is_empty() { "" } else { "," };
        let heartbeat = if extra.contains("heartbeat") { "" } else { r#","heartbeat":"200ms""# };
        let text = format!(r#"{{"url":"{base}/{}"{heartbeat}{comma}{extra}}}"#, self.name);
        serde_json::from_str(&text).unwrap()
    }

    /// Opens a reader; `extra` are further keys of the configuration, as JSON.
    pub(crate) async fn open(&self, from: Option<&SourcePosition>, extra: &str) -> Box<dyn Reader> {
        self.try_open(from, extra).await.unwrap_or_else(|e| panic!("open: {e}"))
    }

    pub(crate) async fn try_open(
        &self,
        from: Option<&SourcePosition>,
        extra: &str,
    ) -> caudal_core::Result<Box<dyn Reader>> {
        let source = caudal_mysql::source("test", self.config(extra)).unwrap();
        source.open(from.cloned().map(Position::Source)).await
    }
}

/// What a log would have stored: the newest token, and the notes that are alive.
#[derive(Clone, Default)]
pub(crate) struct Stored {
    pub(crate) position: Option<SourcePosition>,
}

impl Stored {
    pub(crate) fn apply(&mut self, batch: &Batch) {
        let new = batch.position.source().expect("a source's position").clone();
        let mut notes: BTreeMap<String, Option<String>> =
            self.position.take().map(|p| p.notes).unwrap_or_default();
        for (name, text) in new.notes {
            match text {
                Some(text) => notes.insert(name, Some(text)),
                None => notes.remove(&name),
            };
        }
        self.position = Some(SourcePosition { token: new.token, notes });
    }

    /// Whether the snapshot of all these tables is done.
    pub(crate) fn done(&self, tables: &[&str]) -> bool {
        let Some(position) = &self.position else { return false };
        tables.iter().all(|table| {
            position.notes.iter().any(|(name, text)| {
                name.starts_with("table/")
                    && name.ends_with(&format!(".{table}"))
                    && text.as_deref().is_some_and(|t| t.contains(r#""done":true"#))
            })
        })
    }
}

/// The next batch, or a panic after a minute.
pub(crate) async fn next(reader: &mut Box<dyn Reader>) -> Batch {
    let batch = tokio::time::timeout(Duration::from_secs(60), reader.next()).await;
    batch.expect("a batch within a minute").unwrap_or_else(|e| panic!("next: {e}"))
}
