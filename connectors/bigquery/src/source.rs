//! The source: what a configuration resolved to, and how a reader is opened.

use crate::answer::Jobs;
use crate::check;
use crate::config::{Config, Resolved, Table};
use crate::session::TableSession;
use crate::statement::Statement;
use async_trait::async_trait;
use caudal_core::{
    Check, PollStatus, Position, Progress, Reader, Result, Signal, Source, TableSchema, Written,
};
use caudal_poll::{Desk, Job, Look, PollReader, Polled, Session, Start, Window};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Bytes at which a page is cut short.
const PAGE_BYTES: usize = 4 << 20;

/// A source of BigQuery's tables.
///
/// # Errors
/// `Config`, naming the field, for settings that cannot be.
pub fn source(name: &str, config: Config) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(BigQuery {
        config: Arc::new(config.resolve(name)?),
        written: OnceLock::new(),
        desk: Arc::default(),
        kept: OnceLock::new(),
    }))
}

struct BigQuery {
    config: Arc<Resolved>,
    written: OnceLock<Arc<dyn Written>>,
    desk: Arc<Desk>,
    /// The folder of the instance's data.
    kept: OnceLock<PathBuf>,
}

/// One table: the poll engine has one run at a time of each system, and tables need not wait for each other.
struct System {
    config: Arc<Resolved>,
    table: Arc<Table>,
    jobs: Arc<Jobs>,
}

#[async_trait]
impl Polled for System {
    async fn connect(&self) -> Result<Box<dyn Session>> {
        // Connected to with the first request: what is wrong with a table is its own error.
        Ok(Box::new(TableSession::new(&self.config, &self.table, &self.jobs)))
    }
}

#[async_trait]
impl Source for BigQuery {
    async fn check(&self) -> Vec<Check> {
        check::check(&self.config).await
    }

    async fn discover(&self) -> Result<Vec<TableSchema>> {
        let mut found = Vec::new();
        for table in &self.config.tables {
            let session = TableSession::new(&self.config, table, &Arc::default());
            let look =
                Look { table: &table.id, known: None, window: Window::All, planned: jiff::Timestamp::now() };
            found.push(session.describe(&look).await?.0);
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
        let system = |table: &Arc<Table>| {
            let (config, table, jobs) = (Arc::clone(config), Arc::clone(table), Arc::default());
            Arc::new(System { config, table, jobs }) as Arc<dyn Polled>
        };
        let start = Start {
            name: config.name.clone(),
            systems: config.tables.iter().map(system).collect(),
            concurrent: config.concurrent,
            jobs: config.tables.iter().enumerate().map(|(at, table)| job(config, at, table)).collect(),
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
        tracing::info!(source = config.name, tables = config.tables.len(), "polling");
        let reader = PollReader::open(start).await;
        Ok(Box::new(reader.map_err(|e| e.context(format!("open source {}", config.name)))?))
    }
}

fn job(config: &Resolved, system: usize, table: &Table) -> Job {
    Job {
        table: table.id.clone(),
        system,
        scope: None,
        mode: table.mode.clone(),
        schedule: table.schedule.clone(),
        page_rows: config.page_rows,
        page_bytes: PAGE_BYTES,
        timeout: config.page_timeout,
        attempts: config.attempts,
        most_deleted: config.most_deleted,
        partial: table.statement.as_ref().is_some_and(Statement::tells_time),
    }
}
