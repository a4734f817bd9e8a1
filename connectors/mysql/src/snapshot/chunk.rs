//! Steps 2 and 3 of a window: wait, then read one chunk whole into bounded memory.

use crate::client::{Client, classify, server_code};
use crate::position::Place;
use crate::snapshot::bounds::{Part, key_parameters};
use crate::snapshot::plan::Plan;
use crate::snapshot::{cells, visible};
use caudal_core::batch::NO_ROW;
use caudal_core::{BatchBuilder, Error, EventHead, Op, Result, SnapshotMark};
use mysql_async::Value;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to read.
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    /// The last key read so far.
    pub(crate) from: Option<Vec<Value>>,
    /// Most rows.
    pub(crate) rows: u32,
    /// Bytes at which the chunk is cut short.
    pub(crate) bytes: usize,
    /// All that the stream had delivered when recording began.
    pub(crate) delivered: Place,
    /// Bound on the SELECT.
    pub(crate) limit: Duration,
}

/// Rows that were read.
pub(crate) struct Chunk {
    /// One event of [`Op::Read`] per row.
    pub(crate) builder: BatchBuilder,
    /// The last row's key; none if there is no row.
    pub(crate) last: Option<Vec<Value>>,
    /// Nothing follows.
    pub(crate) end: bool,
    /// Rows that were looked at, where a filter left some of them out.
    pub(crate) scanned: Option<u32>,
    /// How long the SELECT took.
    pub(crate) took: Duration,
    /// What was read; a whole read of a table without usable key.
    pub(crate) plan: Arc<Plan>,
}

/// How reading a chunk went.
pub(crate) enum Read {
    /// Well.
    Chunk(Box<Chunk>),
    /// The server stopped the SELECT at its limit: ask for fewer rows.
    TooSlow,
    /// The table is not as planned any more, or locked by a change: plan again.
    Changed(String),
}

/// Reads a chunk.
///
/// # Errors
/// As for SQL.
pub(crate) async fn read(client: &mut Client, job: &Job, parts: &[Part]) -> Result<Read> {
    limits(client, job.limit).await?;
    if let Err(e) = visible::wait(client, &job.delivered, &job.plan.name()).await {
        return changed_or(e);
    }
    let read = select(client, job, parts).await;
    visible::close(client).await?;
    read
}

/// Statement limits; a change of the table must not wait long behind us, nor we behind it.
pub(crate) async fn limits(client: &mut Client, limit: Duration) -> Result<()> {
    let sql = if client.version.is_mariadb() {
        format!("SET SESSION max_statement_time={}, SESSION lock_wait_timeout=2", limit.as_secs_f64())
    } else {
        format!("SET SESSION max_execution_time={}, SESSION lock_wait_timeout=2", limit.as_millis())
    };
    client.run("bound the chunk's time", &sql).await
}

/// Lock wait time-outs come from a change of the table that is going on.
fn changed_or(error: Error) -> Result<Read> {
    let text = error.to_string();
    if ["1205", "1412", "1146"].iter().any(|code| text.contains(&format!("says {code}"))) {
        return Ok(Read::Changed(text));
    }
    Err(error)
}

async fn select(client: &mut Client, job: &Job, parts: &[Part]) -> Result<Read> {
    let started = Instant::now();
    let read = match job.plan.shape.condition() {
        Some(_) => filtered(client, job, parts).await,
        None => {
            let sql = job.plan.chunk(parts, job.from.as_deref(), job.rows);
            let parameters = job.from.as_deref().map(key_parameters).unwrap_or_default();
            rows(client, job, &sql, parameters).await
        }
    };
    match read {
        Ok(Some(mut chunk)) => {
            chunk.took = started.elapsed();
            Ok(Read::Chunk(Box::new(chunk)))
        }
        Ok(None) => Ok(Read::Changed("a value is not of its column's type".to_owned())),
        Err(e) => refused(e, job),
    }
}

/// A chunk of a table with a filter: first where it ends, then the rows up to there that pass.
async fn filtered(
    client: &mut Client,
    job: &Job,
    parts: &[Part],
) -> Result<Option<Chunk>, mysql_async::Error> {
    let from = job.from.as_deref();
    let behind = from.map(key_parameters).unwrap_or_default();
    let sql = job.plan.last_key(parts, from, job.rows);
    let upto: Option<Vec<Value>> = client
        .conn()
        .exec_first::<mysql_async::Row, _, _>(sql, behind.clone())
        .await?
        .map(mysql_async::Row::unwrap);
    let sql = job.plan.filtered(parts, from, upto.as_deref());
    let parameters = [behind, upto.as_deref().map(key_parameters).unwrap_or_default()].concat();
    let Some(mut chunk) = rows(client, job, &sql, parameters).await? else { return Ok(None) };
    // Not cut short by the bounds: all up to the key that was found is done.
    if chunk.end {
        chunk.end = upto.is_none();
        chunk.last = upto.or(chunk.last);
        chunk.scanned = Some(job.rows);
    }
    Ok(Some(chunk))
}

/// What the server's refusal of a SELECT means.
pub(crate) fn refused(error: mysql_async::Error, job: &Job) -> Result<Read> {
    match server_code(&error) {
        // Stopped at the limit (MySQL, MariaDB), or by somebody.
        Some(3024 | 1969 | 1317) => Ok(Read::TooSlow),
        // Unknown column, no such table, definition changed, lock wait, no such key.
        Some(1054 | 1146 | 1412 | 1205 | 1176) => Ok(Read::Changed(error.to_string())),
        _ => Err(classify(error).context(format!("read a chunk of {}", job.plan.id()))),
    }
}

/// None if a value is not of its column's type.
async fn rows(
    client: &mut Client,
    job: &Job,
    sql: &str,
    parameters: Vec<Value>,
) -> Result<Option<Chunk>, mysql_async::Error> {
    let width = job.plan.schema.width();
    let mut builder = BatchBuilder::default();
    let (mut last, mut end, mut taken) = (None, true, 0);
    let mut result = client.conn().exec_iter(sql, parameters).await?;
    while let Some(row) = result.next().await? {
        // What is behind the bounds is left to the next chunk: the rows so far are a chunk of their own.
        if !end || taken == job.rows || (taken > 0 && builder.size() >= job.bytes) {
            end = false;
            continue;
        }
        let values = row.unwrap();
        if append(&values, &job.plan, &mut builder).is_none() {
            result.drop_result().await?;
            return Ok(None);
        }
        taken += 1;
        last = Some(values);
    }
    let key = |mut row: Vec<Value>| row.split_off(width);
    let plan = Arc::clone(&job.plan);
    Ok(Some(Chunk { builder, last: last.map(key), end, scanned: None, took: Duration::ZERO, plan }))
}

/// Appends one row as an event of [`Op::Read`]; none if a value is not of its column's type.
pub(crate) fn append(row: &[Value], plan: &Plan, builder: &mut BatchBuilder) -> Option<()> {
    let start = builder.cells.len();
    for (i, column) in plan.schema.columns.iter().enumerate() {
        let cell = cells::cell(row.get(i)?, &column.ty, builder)?;
        builder.cells.push(cell);
    }
    let table = builder.table(&plan.schema);
    builder.events.push(EventHead {
        table,
        transaction: 0,
        before: NO_ROW,
        after: start as u32,
        row: 0,
        op: Op::Read,
        snapshot: SnapshotMark::True,
        pos: 0,
        ts_us: 0,
    });
    Some(())
}
