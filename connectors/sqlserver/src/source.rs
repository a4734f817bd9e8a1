//! The source: what a configuration resolved to, and how a reader is opened.

use crate::check;
use crate::config::{Config, Resolved};
use crate::session::SqlSession;
use async_trait::async_trait;
use caudal_core::{
    Check, PollStatus, Position, Progress, Reader, Result, Signal, Source, TableSchema, Written,
};
use caudal_poll::{Desk, Job, Look, PollReader, Polled, Session, Start, Window};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Bytes at which a page is cut short.
const PAGE_BYTES: usize = 4 << 20;

/// A source of SQL Server's tables.
///
/// # Errors
/// `Config`, naming the field, for settings that cannot be.
pub fn source(name: &str, config: Config) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(SqlSource {
        config: Arc::new(config.resolve(name)?),
        written: OnceLock::new(),
        desk: Arc::default(),
        kept: OnceLock::new(),
    }))
}

struct SqlSource {
    config: Arc<Resolved>,
    written: OnceLock<Arc<dyn Written>>,
    desk: Arc<Desk>,
    /// The folder of the instance's data.
    kept: OnceLock<PathBuf>,
}

/// One store, or the only server.
struct System {
    config: Arc<Resolved>,
    at: usize,
}

#[async_trait]
impl Polled for System {
    async fn connect(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(SqlSession::open(&self.config, self.at).await?))
    }
}

#[async_trait]
impl Source for SqlSource {
    async fn check(&self) -> Vec<Check> {
        check::check(&self.config).await
    }

    async fn discover(&self) -> Result<Vec<TableSchema>> {
        let mut session = SqlSession::open(&self.config, 0).await?;
        let mut found = Vec::new();
        for table in &self.config.tables {
            let look =
                Look { table: &table.id, known: None, window: Window::All, planned: jiff::Timestamp::now() };
            found.push(session.schema(&look).await?.as_ref().clone());
        }
        Ok(found)
    }

    fn bind(&self, written: Arc<dyn Written>) {
        // Only the first one counts.
        let _ = self.written.set(written);
    }

    fn keep_in(&self, folder: &Path) {
        let _ = self.kept.set(folder.to_owned());
    }

    fn signal(&self, signal: Signal) {
        self.desk.signal(signal);
    }

    fn progress(&self) -> Vec<Progress> {
        self.desk.progress()
    }

    fn polls(&self) -> Vec<PollStatus> {
        self.desk.polls()
    }

    async fn open(&self, from: Option<Position>) -> Result<Box<dyn Reader>> {
        let config = &self.config;
        let system = |at| Arc::new(System { config: Arc::clone(config), at }) as Arc<dyn Polled>;
        let start = Start {
            name: config.name.clone(),
            systems: (0..config.places.len()).map(system).collect(),
            concurrent: config.stores.as_ref().map_or(1, |stores| stores.concurrent),
            jobs: jobs(config),
            dir: caudal_poll::folder(
                config.dir.as_deref(),
                self.kept.get().map(PathBuf::as_path),
                &config.name,
            ),
            written: self.written.get().cloned(),
            heartbeat: config.heartbeat,
            desk: Arc::clone(&self.desk),
            clock: Arc::new(jiff::Timestamp::now),
            from,
        };
        tracing::info!(
            source = config.name,
            tables = config.tables.len(),
            stores = config.places.len(),
            "polling"
        );
        let reader = PollReader::open(start).await;
        Ok(Box::new(reader.map_err(|e| e.context(format!("open source {}", config.name)))?))
    }
}

/// One for each table of each store.
fn jobs(config: &Resolved) -> Vec<Job> {
    let mut jobs = Vec::new();
    for system in 0..config.places.len() {
        let scope = config.stores.as_ref().and_then(|stores| stores.scope(system));
        jobs.extend(config.tables.iter().map(|table| Job {
            table: table.id.clone(),
            system,
            scope: scope.clone(),
            mode: table.mode.clone(),
            schedule: table.schedule.clone(),
            page_rows: config.page_rows,
            page_bytes: PAGE_BYTES,
            timeout: config.page_timeout,
            attempts: config.attempts,
            most_deleted: config.most_deleted,
            partial: table.statement.tells_time(),
        }));
    }
    jobs
}
