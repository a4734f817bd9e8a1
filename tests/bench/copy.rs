//! COPY of the sink's own rows into an empty table of the same shape: what the server takes at most.

use std::time::Instant;

use anyhow::Result;
use bytes::Bytes;
use caudal_tests::{PgDatabase, process};
use futures::{SinkExt, StreamExt};

/// Rows that are copied at most: they are held in memory, some 300 bytes each.
const MOST: u64 = 1_000_000;

/// What a COPY did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// Rows per second.
    pub(crate) rate: f64,
    /// CPU seconds of this process per million rows.
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
    client.batch_execute("DROP TABLE floor").await?;
    Ok(Copied { rate, cpu: cpu / rows as f64 * 1e6 })
}
