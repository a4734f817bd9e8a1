//! Watching the snapshot arrive.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use caudal_tests::{mysql, postgres};
use mysql_async::prelude::Queryable;
use tokio_postgres::Client;

use crate::Ends;
use crate::schema::TABLES;

const LOOK: Duration = Duration::from_millis(500);
/// Between two lines, where there is no terminal to draw on.
const LINE: Duration = Duration::from_secs(2);

/// Shows how many of the source's rows are in the sink, until all are.
///
/// # Errors
/// When nothing arrives for `patience`.
pub(crate) async fn watch(ends: &Ends, patience: Duration) -> Result<()> {
    let expected = source_rows(ends).await.context("count the source's rows")?;
    let client = postgres::connect(&ends.sink).await.context("connect to the sink")?;
    let started = Instant::now();
    let (mut last, mut moved, mut drawn) = (0, Instant::now(), Instant::now());
    loop {
        let arrived = sink_rows(&client, &ends.schema).await?;
        if arrived != last {
            (last, moved) = (arrived, Instant::now());
        }
        if arrived >= expected || drawn.elapsed() >= LINE || std::io::stdout().is_terminal() {
            draw(arrived, expected, started.elapsed(), arrived >= expected);
            drawn = Instant::now();
        }
        if arrived >= expected {
            return Ok(());
        }
        if moved.elapsed() > patience {
            bail!("no row arrived for {} s: {arrived} of {expected} are in the sink", patience.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn source_rows(ends: &Ends) -> Result<u64> {
    let mut conn = mysql::connect(&ends.source).await?;
    let mut sum = 0;
    for table in TABLES {
        let rows: Option<u64> = conn.query_first(format!("SELECT COUNT(*) FROM {table}")).await?;
        sum += rows.unwrap_or(0);
    }
    conn.disconnect().await?;
    Ok(sum)
}

/// Rows in those tables that exist already.
async fn sink_rows(client: &Client, schema: &str) -> Result<u64> {
    let mut sum = 0;
    for table in TABLES {
        let name = format!("\"{schema}\".\"{table}\"");
        let there = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&name]).await?;
        if there.get(0) {
            let rows: i64 = client.query_one(&format!("SELECT COUNT(*) FROM {name}"), &[]).await?.get(0);
            sum += rows.unsigned_abs();
        }
    }
    Ok(sum)
}

fn draw(arrived: u64, expected: u64, elapsed: Duration, done: bool) {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = arrived as f64 / seconds;
    let share = 100.0 * arrived as f64 / expected.max(1) as f64;
    let left = if done || rate < 1.0 {
        String::new()
    } else {
        format!(", {:.0} s left", (expected - arrived) as f64 / rate)
    };
    let line = format!(
        "snapshot: {arrived} of {expected} rows ({share:.0} %), {seconds:.1} s, {rate:.0} rows/s{left}"
    );
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K{line}{}", if done { "\n" } else { "" });
        let _ = std::io::stdout().flush();
    } else {
        println!("{line}");
    }
}
