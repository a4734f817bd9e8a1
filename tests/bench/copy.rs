//! What the server takes at most of the sink's own rows: COPY into an empty table of the same shape, and upserts of rows that it has already.

use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use caudal_tests::{PgDatabase, process};
use futures::{SinkExt, StreamExt};

/// Rows that are copied at most: they are held in memory, some 300 bytes each.
const MOST: u64 = 1_000_000;

/// Rows of one upserting statement, as many as the sink writes in about one batch.
const STATEMENT: i64 = 5_000;

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// Rows per second.
    pub(crate) rate: f64,
    /// CPU seconds per million rows: of a COPY this process's, of upserts the server's.
    pub(crate) cpu: f64,
}

/// Copies rows of `public.sbtest`, in PostgreSQL's binary form, from memory.
pub(crate) async fn copy(sink: &PgDatabase) -> Result<Copied> {
    let client = sink.connect().await?;
    let mut all: Vec<Bytes> = Vec::new();
    {
        let rows = format!("COPY (SELECT * FROM public.sbtest LIMIT {MOST}) TO STDOUT (FORMAT binary)");
        let stream = client.copy_out(&rows).await?;
        let mut stream = std::pin::pin!(stream);
        while let Some(part) = stream.next().await {
            all.push(part?);
        }
    }
    client
        .batch_execute("DROP TABLE IF EXISTS floor; CREATE TABLE floor (LIKE public.sbtest INCLUDING ALL)")
        .await?;
    let mine = std::process::id();
    let (start, before) = (Instant::now(), process::usage(mine)?.cpu_seconds);
    let rows = {
        let target = client.copy_in("COPY floor FROM STDIN (FORMAT binary)").await?;
        let mut target = std::pin::pin!(target);
        for part in all {
            target.feed(part).await?;
        }
        target.finish().await?
    };
    let cpu = process::usage(mine)?.cpu_seconds - before;
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    Ok(Copied { rate, cpu: cpu / rows as f64 * 1e6 })
}

/// Upserts rows, of which some columns have changed, over what [`copy`] has copied: no client has a part in it, and the rows lie in a table
/// beside. `server` tells the CPU seconds that the server has used so far.
pub(crate) async fn upsert(sink: &PgDatabase, server: impl Fn() -> Result<f64>) -> Result<Copied> {
    let client = sink.connect().await?;
    let columns = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('excluded.' || quote_ident(attname), ', ' ORDER BY attnum), \
                   string_agg('t.' || quote_ident(attname), ', ' ORDER BY attnum) \
                   FROM pg_attribute WHERE attrelid = 'floor'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'";
    let row = client.query_one(columns, &[]).await?;
    let (names, new, old): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let rows: i64 = client.query_one("SELECT count(*) FROM floor", &[]).await?.get(0);
    client
        .batch_execute(
            "CREATE UNLOGGED TABLE given AS SELECT * FROM floor; UPDATE given SET k = k + 1, price = price + 1; \
             CREATE UNIQUE INDEX ON given (id); ANALYZE given; ANALYZE floor",
        )
        .await?;
    let sql = format!(
        "INSERT INTO floor AS t (id, {names}) SELECT id, {names} FROM given WHERE id > $1 AND id <= $1 + {STATEMENT} \
         ON CONFLICT (id) DO UPDATE SET ({names}) = ROW({new}) WHERE ROW({old}) IS DISTINCT FROM ROW({new})"
    );
    let statement = client.prepare(&sql).await?;
    let (start, before, mut done) = (Instant::now(), server()?, 0);
    for first in (0..rows).step_by(STATEMENT as usize) {
        done += client.execute(&statement, &[&first]).await?;
    }
    let (rate, cpu) = (done as f64 / start.elapsed().as_secs_f64(), server()? - before);
    client.batch_execute("DROP TABLE floor, given").await?;
    Ok(Copied { rate, cpu: cpu / done as f64 * 1e6 })
}
