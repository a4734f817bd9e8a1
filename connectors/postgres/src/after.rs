//! After-load SQL: statements that run when given tables have advanced.
//!
//! **Why no run is missed.** That a job's tables have advanced is written in the transaction that advances them (`changed` of
//! `caudal.after_load`), and that it has run, for what had come until then, in the transaction of its own statements (`done`). So
//! a crash anywhere leaves `changed` above `done`, and the next writer runs it. A run may come twice only if it did not commit the first time.
//!
//! Jobs run on a connection of their own, one after the other in the order of the configuration, so the second sees what the first has made. The
//! sink goes on meanwhile. Where instances share a sink an advisory lock lets one of them run a job at a time. Memory: the texts.

use crate::client::{BEGIN, Connection, Doing, Failure, Param};
use crate::config::{AfterLoad, OnFailure, Resolved, Step};
use crate::quote::qualified;
use crate::state::advisory;
use caudal_core::{Batch, Error, Result, TableId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;

/// How often it is looked whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same after the connection was lost.
const AGAIN: Duration = Duration::from_secs(5);
/// Runs that are remembered of each job.
const REMEMBERED: i64 = 100;

/// The jobs of one writer. Dropping it ends the running.
#[derive(Default)]
pub(crate) struct After {
    jobs: Vec<AfterLoad>,
    table: String,
    /// Jobs whose tables have rows accepted since the last commit.
    changed: BTreeSet<usize>,
    wake: Arc<Notify>,
    runner: Option<JoinHandle<()>>,
}

impl Drop for After {
    fn drop(&mut self) {
        if let Some(runner) = &self.runner {
            runner.abort();
        }
    }
}

impl After {
    /// Makes the tables, and starts to run what is due; nothing where there are no jobs.
    pub(crate) async fn start(connection: &Connection, config: &Arc<Resolved>) -> Result<Self> {
        if config.after_load.is_empty() {
            return Ok(Self::default());
        }
        let table = qualified(&config.state_schema, "after_load");
        let runs = qualified(&config.state_schema, "after_load_runs");
        let sql = format!(
            "{BEGIN}; SELECT pg_advisory_xact_lock({}); CREATE TABLE IF NOT EXISTS {table} ( \
             sink text NOT NULL, job text NOT NULL, changed bigint NOT NULL DEFAULT 0, done bigint NOT NULL DEFAULT 0, \
             first_at timestamptz, changed_at timestamptz, again_at timestamptz, failures integer NOT NULL DEFAULT 0, \
             PRIMARY KEY (sink, job)); \
             CREATE TABLE IF NOT EXISTS {runs} ( \
             sink text NOT NULL, job text NOT NULL, changed bigint NOT NULL, started_at timestamptz NOT NULL, \
             ended_at timestamptz NOT NULL, error text); COMMIT",
            advisory(&config.state_schema)
        );
        connection.batch(&sql).await.doing(config, "create the tables of after-load jobs")?;
        let names: Vec<&str> = config.after_load.iter().map(|job| job.name.as_str()).collect();
        let sql =
            format!("INSERT INTO {table} (sink, job) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING");
        let params: [Param<'_>; 2] = [(&config.name, Type::TEXT), (&names, Type::TEXT_ARRAY)];
        connection.execute(&sql, &params).await.doing(config, "note the after-load jobs")?;
        let wake = Arc::new(Notify::new());
        let runner =
            Runner { config: Arc::clone(config), table: table.clone(), runs, wake: Arc::clone(&wake) };
        let runner = Some(tokio::spawn(runner.run()));
        Ok(Self { jobs: config.after_load.clone(), table, changed: BTreeSet::new(), wake, runner })
    }

    /// Takes note of a batch's tables.
    pub(crate) fn accept(&mut self, batch: &Batch) {
        if self.jobs.is_empty() || batch.events.is_empty() && batch.sweeps.is_empty() {
            return;
        }
        let ids = batch.tables.iter().map(|t| &t.id).chain(batch.sweeps.iter().map(|s| &s.schema.id));
        for id in ids {
            let concerned = self.jobs.iter().enumerate().filter(|(_, job)| is_of(job, id));
            self.changed.extend(concerned.map(|(at, _)| at));
        }
    }

    /// Writes, in the transaction of the rows, which jobs are due.
    pub(crate) async fn tell(&self, connection: &Connection) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let config = connection.config();
        let names: Vec<&str> = self.changed.iter().map(|at| self.jobs[*at].name.as_str()).collect();
        let sql = format!(
            "UPDATE {} SET changed = changed + 1, changed_at = clock_timestamp(), \
             first_at = CASE WHEN changed = done THEN clock_timestamp() ELSE first_at END WHERE sink = $1 AND job = ANY($2)",
            self.table
        );
        let params: [Param<'_>; 2] = [(&config.name, Type::TEXT), (&names, Type::TEXT_ARRAY)];
        connection.execute(&sql, &params).await.doing(config, "note what is to run after the load").map(drop)
    }

    /// The transaction is durable.
    pub(crate) fn committed(&mut self) {
        if !std::mem::take(&mut self.changed).is_empty() {
            self.wake.notify_one();
        }
    }

    /// The transaction was rolled back: what comes again is noted again.
    pub(crate) fn rolled_back(&mut self) {
        self.changed.clear();
    }
}

fn is_of(job: &AfterLoad, id: &TableId) -> bool {
    job.tables.iter().any(|name| name == "*" || *name == id.table || *name == id.to_string())
}

struct Runner {
    config: Arc<Resolved>,
    table: String,
    runs: String,
    wake: Arc<Notify>,
}

impl Runner {
    async fn run(self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::warn!(sink = self.config.name, %error, "after-load jobs cannot be run now");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(&self) -> Result<()> {
        let connection = Connection::open(&self.config).await?;
        loop {
            let mut waiting = false;
            for job in &self.config.after_load {
                waiting |= self.look(&connection, job).await?;
            }
            // Without anything due nothing is asked: a commit wakes it. Of several instances another one's commit may be the first.
            let pause = if waiting { LOOK_EVERY } else { LOOK_EVERY * 60 };
            let _ = tokio::time::timeout(pause, self.wake.notified()).await;
        }
    }

    /// Runs the job if it is due; whether it is to be looked at again soon.
    async fn look(&self, connection: &Connection, job: &AfterLoad) -> Result<bool> {
        let sql = format!(
            "SELECT changed, (clock_timestamp() - changed_at >= $3 * interval '1 millisecond' \
             OR clock_timestamp() - first_at >= $4 * interval '1 millisecond') \
             AND coalesce(again_at <= clock_timestamp(), true) \
             FROM {} WHERE sink = $1 AND job = $2 AND changed > done",
            self.table
        );
        let (quiet, latest) = (job.debounce.get().as_millis() as f64, job.at_latest.get().as_millis() as f64);
        let params: [Param<'_>; 4] = [
            (&self.config.name, Type::TEXT),
            (&job.name, Type::TEXT),
            (&quiet, Type::FLOAT8),
            (&latest, Type::FLOAT8),
        ];
        let rows = connection.query(&sql, &params).await.doing(&self.config, "look for after-load jobs")?;
        let Some(row) = rows.first() else { return Ok(false) };
        let (changed, due): (i64, bool) = (row.get(0), row.get(1));
        if due {
            self.once(connection, job, changed).await?;
        }
        Ok(true)
    }

    async fn once(&self, connection: &Connection, job: &AfterLoad, changed: i64) -> Result<()> {
        let doing = || format!("run {} after the load", job.name);
        let begin = format!(
            "{BEGIN}; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}",
            job.timeout.get().as_millis().min(i32::MAX as u128),
            self.config.lock_timeout.as_millis()
        );
        connection.batch(&begin).await.doing(&self.config, doing())?;
        let lock = advisory(&format!("after {}/{}", self.config.name, job.name));
        let rows = connection
            .query("SELECT pg_try_advisory_xact_lock($1), clock_timestamp()::text", &[(&lock, Type::INT8)])
            .await;
        let rows = rows.doing(&self.config, doing())?;
        let (got, started): (bool, String) =
            rows.first().map_or((false, String::new()), |row| (row.get(0), row.get(1)));
        // Another instance may have run it between the look and the lock.
        if !got || !self.is_wanted(connection, job, changed).await? {
            return connection.batch("ROLLBACK").await.doing(&self.config, doing());
        }
        match self.steps(connection, job).await {
            Ok(()) => {
                self.record(connection, (job, changed), &started, None).await?;
                connection.batch("COMMIT").await.doing(&self.config, doing())
            }
            Err(error) => {
                connection.batch("ROLLBACK").await.doing(&self.config, doing())?;
                tracing::warn!(sink = self.config.name, job = job.name, %error, "an after-load job failed");
                self.record(connection, (job, changed), &started, Some(&error.to_string())).await
            }
        }
    }

    /// Whether nobody has run the job for this change.
    async fn is_wanted(&self, connection: &Connection, job: &AfterLoad, changed: i64) -> Result<bool> {
        let sql = format!("SELECT FROM {} WHERE sink = $1 AND job = $2 AND done < $3", self.table);
        let params: [Param<'_>; 3] =
            [(&self.config.name, Type::TEXT), (&job.name, Type::TEXT), (&changed, Type::INT8)];
        let rows = connection.query(&sql, &params).await;
        Ok(!rows.doing(&self.config, "look for after-load jobs")?.is_empty())
    }

    async fn steps(&self, connection: &Connection, job: &AfterLoad) -> Result<()> {
        let begun = tokio::time::Instant::now();
        for step in &job.run {
            let left = job.timeout.get().saturating_sub(begun.elapsed()).as_millis().max(1);
            let limit = format!("SET LOCAL statement_timeout = {}", left.min(i32::MAX as u128));
            connection.batch(&limit).await.doing(&self.config, "set a time limit")?;
            let text = match step {
                Step { sql: Some(sql), .. } => sql.clone(),
                Step { file: Some(file), .. } => tokio::fs::read_to_string(file)
                    .await
                    .map_err(|e| Error::config(format!("read {}", file.display())).because(e))?,
                Step { abc: Some(abc), .. } => abc.sql(),
                Step { phantom_zeros: Some(zeros), .. } => zeros.sql(),
                Step { snapshot: Some(snapshot), .. } => {
                    snapshot.take(connection).await?.map_err(|failure| self.failed(job, failure))?;
                    continue;
                }
                Step { .. } => continue,
            };
            connection.batch(&text).await.map_err(|failure| self.failed(job, failure))?;
        }
        Ok(())
    }

    fn failed(&self, job: &AfterLoad, failure: Failure) -> Error {
        failure.into_error(&self.config, format!("run {}", job.name))
    }

    /// Notes a run: a failed one is tried again later, or counts as done, as the job says.
    async fn record(
        &self,
        connection: &Connection,
        (job, changed): (&AfterLoad, i64),
        started: &str,
        error: Option<&str>,
    ) -> Result<()> {
        let done = error.is_none() || job.on_failure == OnFailure::Skip;
        let sql = format!(
            "WITH r AS (INSERT INTO {runs} (sink, job, changed, started_at, ended_at, error) \
               VALUES ($1, $2, $3, $4::timestamptz, clock_timestamp(), $5)), \
             old AS (DELETE FROM {runs} WHERE sink = $1 AND job = $2 AND started_at < (SELECT started_at FROM {runs} \
               WHERE sink = $1 AND job = $2 ORDER BY started_at DESC OFFSET {REMEMBERED} LIMIT 1)) \
             UPDATE {table} SET done = CASE WHEN $6 THEN greatest(done, $3) ELSE done END, \
               first_at = CASE WHEN $6 AND changed > $3 THEN clock_timestamp() ELSE first_at END, \
               failures = CASE WHEN $5 IS NULL THEN 0 ELSE failures + 1 END, \
               again_at = CASE WHEN $6 THEN NULL ELSE clock_timestamp() + least(600, 5 * 2 ^ least(failures, 10)) * interval '1 second' END \
             WHERE sink = $1 AND job = $2",
            runs = self.runs,
            table = self.table
        );
        let params: [Param<'_>; 6] = [
            (&self.config.name, Type::TEXT),
            (&job.name, Type::TEXT),
            (&changed, Type::INT8),
            (&started, Type::TEXT),
            (&error, Type::TEXT),
            (&done, Type::BOOL),
        ];
        connection.execute(&sql, &params).await.doing(&self.config, "note a run after the load").map(drop)
    }
}
