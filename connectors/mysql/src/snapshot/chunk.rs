//! Steps 2 and 3 of a window: wait, then read one chunk whole into bounded memory.

use crate::client::Client;
use crate::connection::results::{Failure, PackedRow};
use crate::position::Place;
use crate::snapshot::access::Access;
use crate::snapshot::bounds::{Part, key_parameters};
use crate::snapshot::cells;
use crate::snapshot::plan::{Filter, Plan};
use crate::value::Value;
use caudal_core::batch::NO_ROW;
use caudal_core::{BatchBuilder, Error, EventHead, Op, Result, SnapshotMark};
use caudal_index::KeyHash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What to read.
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    /// The last key read so far.
    pub(crate) from: Option<Vec<Value>>,
    /// The last key of the range; to the table's end with none.
    pub(crate) to: Option<Vec<Value>>,
    /// Which rows, if not all.
    pub(crate) filter: Option<Filter>,
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
    /// Rows that were read.
    pub(crate) rows: u64,
    /// What they take in memory.
    pub(crate) bytes: u64,
    /// The last row's key; none if there is no row.
    pub(crate) last: Option<Vec<Value>>,
    /// Nothing follows.
    pub(crate) end: bool,
    /// How long the SELECT took.
    pub(crate) took: Duration,
    /// What was read.
    pub(crate) plan: Arc<Plan>,
    /// Of a re-read: the hashes of the keys of all rows that were read.
    pub(crate) keys: Vec<KeyHash>,
    /// Of a re-read: which entries of the index they are.
    pub(crate) met: Vec<u64>,
}

impl Chunk {
    /// With nothing behind it.
    pub(crate) fn new(builder: BatchBuilder, plan: Arc<Plan>) -> Self {
        let (keys, met) = (Vec::new(), Vec::new());
        let (rows, bytes) = (builder.events.len() as u64, builder.size() as u64);
        Self { builder, rows, bytes, last: None, end: true, took: Duration::ZERO, plan, keys, met }
    }
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

/// Reads a chunk: step 2, step 3, and the end of the transaction, whatever came of it.
///
/// # Errors
/// As for SQL.
pub(crate) async fn read(access: &mut dyn Access, job: &Job) -> Result<Read> {
    if let Some(why) = access.wait(&job.delivered, &job.plan, job.limit).await? {
        return Ok(Read::Changed(why));
    }
    let read = access.select(job).await;
    access.close().await?;
    read
}

/// Statement limits, on a connection that works; a change of the table must not wait long behind us, nor we behind it.
pub(crate) async fn limits(client: &mut Client, limit: Duration) -> Result<()> {
    client.revive().await?;
    let sql = if client.version.is_mariadb() {
        format!("SET SESSION max_statement_time={}, SESSION lock_wait_timeout=2", limit.as_secs_f64())
    } else {
        // A SELECT has its limit in a hint: waiting to see the stream may take longer than a chunk.
        "SET SESSION lock_wait_timeout=2".to_owned()
    };
    client.run("bound the chunk's time", &sql).await
}

/// Lock wait time-outs come from a change of the table that is going on: then why; else the error.
pub(crate) fn changed_or(error: Error) -> Result<String> {
    let text = error.to_string();
    if ["1205", "1412", "1146"].iter().any(|code| text.contains(&format!("says {code}"))) {
        return Ok(text);
    }
    Err(error)
}

/// Whether a lock was not to be had in time.
pub(crate) fn is_held(error: &Error) -> bool {
    error.to_string().contains("says 1205")
}

/// The SELECT of one chunk.
///
/// # Errors
/// As for SQL.
pub(crate) async fn select(client: &mut Client, job: &Job) -> Result<Read> {
    let Some(parts) = &job.plan.parts else {
        return Err(Error::bug("read a chunk of a table without a key"));
    };
    let started = Instant::now();
    // Rows that a command's condition names are few, and found by an index of their own.
    let read = match job.plan.shape.condition() {
        Some(_) if job.filter.is_none() => filtered(client, job, parts).await,
        _ => bounded(client, job, parts, job.to.as_deref()).await,
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

/// The rows behind `job.from`, up to `to`.
async fn bounded(
    client: &mut Client,
    job: &Job,
    parts: &[Part],
    to: Option<&[Value]>,
) -> Result<Option<Chunk>, Failure> {
    let within = (job.from.as_deref(), to);
    let sql = job.plan.chunk(parts, within, job.filter.as_ref(), job.rows);
    let bounds = [within.0, within.1].into_iter().flatten();
    let mut parameters: Vec<Value> = bounds.flat_map(key_parameters).collect();
    parameters.extend(job.filter.iter().flat_map(|f| f.parameters.iter().cloned()));
    rows(client, job, &limited(client, sql, job.limit), parameters).await
}

/// A chunk of a table with a filter: first where it ends, then the rows up to there that pass. Without the first, a filter that few rows
/// pass would make one chunk of the whole table.
async fn filtered(client: &mut Client, job: &Job, parts: &[Part]) -> Result<Option<Chunk>, Failure> {
    let within = (job.from.as_deref(), job.to.as_deref());
    let sql = job.plan.cut(parts, within, u64::from(job.rows.max(1)) - 1);
    let sql = limited(client, sql, job.limit);
    let parameters: Vec<Value> =
        [within.0, within.1].into_iter().flatten().flat_map(key_parameters).collect();
    let mut found = client.stream(&sql, &parameters).await?;
    let to = match found.next().await? {
        Some(row) => {
            found.skip().await?;
            Some(row.values().ok_or_else(|| Error::transient("a row is not understood"))?)
        }
        None => None,
    };
    let Some(mut chunk) = bounded(client, job, parts, to.as_deref().or(within.1)).await? else {
        return Ok(None);
    };
    // Not cut short by the bounds: all up to the key that was found is done.
    if chunk.end {
        chunk.end = to.is_none();
        chunk.last = to.or(chunk.last);
        chunk.rows = u64::from(job.rows);
    }
    Ok(Some(chunk))
}

/// MySQL takes a statement's limit as a hint.
fn limited(client: &Client, sql: String, limit: Duration) -> String {
    if client.version.is_mariadb() {
        return sql;
    }
    sql.replacen("SELECT", &format!("SELECT /*+ MAX_EXECUTION_TIME({}) */", limit.as_millis()), 1)
}

/// Where a range may be cut.
pub(crate) enum Cut {
    /// Behind the row with this key.
    At(Vec<Value>),
    /// There are fewer rows.
    Nowhere,
    /// It took too long to tell, or the table is being changed.
    Unknown,
}

/// Asks for the key that is `rows` rows behind a bound. It needs no window: any key will do for a cut.
///
/// # Errors
/// As for SQL.
pub(crate) async fn cut(
    client: &mut Client,
    plan: &Plan,
    from: Option<&[Value]>,
    rows: u64,
    limit: Duration,
) -> Result<Cut> {
    let Some(parts) = &plan.parts else { return Ok(Cut::Nowhere) };
    limits(client, limit).await?;
    let sql = limited(client, plan.cut(parts, (from, None), rows), limit);
    let parameters = from.map(key_parameters).unwrap_or_default();
    let failed = |failure: Failure| match failure.code() {
        Some(3024 | 1969 | 1317 | 1054 | 1146 | 1412 | 1205 | 1176 | 1812 | 1814 | 1194 | 1195 | 1356) => {
            Ok(Cut::Unknown)
        }
        _ => Err(failure.into_error().context(format!("look where to cut {}", plan.id()))),
    };
    let mut rows = match client.stream(&sql, &parameters).await {
        Ok(rows) => rows,
        Err(failure) => return failed(failure),
    };
    match rows.next().await {
        Ok(None) => Ok(Cut::Nowhere),
        Ok(Some(row)) => {
            if let Err(failure) = rows.skip().await {
                return failed(failure);
            }
            Ok(row.values().map_or(Cut::Unknown, Cut::At))
        }
        Err(failure) => failed(failure),
    }
}

/// What the server's refusal of a SELECT means.
pub(crate) fn refused(failure: Failure, job: &Job) -> Result<Read> {
    match failure.code() {
        // Stopped at the limit (MySQL, MariaDB), or by somebody.
        Some(3024 | 1969 | 1317) => Ok(Read::TooSlow),
        // Unknown column, no such table, definition changed, lock wait, no such key; no tablespace, a crashed table, a broken view.
        Some(1054 | 1146 | 1412 | 1205 | 1176 | 1812 | 1814 | 1194 | 1195 | 1356) => {
            Ok(Read::Changed(failure.into_error().to_string()))
        }
        _ => Err(failure.into_error().context(format!("read a chunk of {}", job.plan.id()))),
    }
}

/// None if a value is not of its column's type.
async fn rows(
    client: &mut Client,
    job: &Job,
    sql: &str,
    parameters: Vec<Value>,
) -> Result<Option<Chunk>, Failure> {
    let width = job.plan.schema.width();
    let mut builder = BatchBuilder::default();
    let (mut last, mut end, mut taken) = (None, true, 0);
    let mut result = client.stream(sql, &parameters).await?;
    while let Some(row) = result.next().await? {
        // What is behind the bounds is left to the next chunk: the rows so far are a chunk of their own.
        if !end || taken == job.rows || (taken > 0 && builder.size() >= job.bytes) {
            end = false;
            continue;
        }
        if append(&row, &job.plan, &mut builder).is_none() {
            result.skip().await?;
            return Ok(None);
        }
        taken += 1;
        last = Some(row);
    }
    let last = last.and_then(|row| row.values()).map(|mut values| values.split_off(width));
    let chunk = Chunk::new(builder, Arc::clone(&job.plan));
    Ok(Some(Chunk { last, end, ..chunk }))
}

/// Appends one row as an event of [`Op::Read`]; none if a value is not of its column's type.
pub(crate) fn append(row: &PackedRow, plan: &Plan, builder: &mut BatchBuilder) -> Option<()> {
    let mut fields = row.fields();
    let start = builder.cells.len();
    for column in &plan.schema.columns {
        let cell = cells::cell(&fields.next()?, &column.ty, builder)?;
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
