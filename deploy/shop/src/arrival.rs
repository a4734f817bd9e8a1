//! Watching the snapshot arrive.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use caudal_tests::{mysql, postgres};
use mysql_async::prelude::Queryable;
use tokio_postgres::Client;

use crate::Ends;
use crate::figures::{bar, grouped};
use crate::schema::TABLES;

/// Rows of each table, in the order of [`TABLES`].
type Rows = [u64; TABLES.len()];

const LOOK: Duration = Duration::from_millis(250);
/// Between two lines, where there is no terminal to draw on.
const LINE: Duration = Duration::from_secs(1);

/// Shows how many of the source's rows are in the sink, until all are.
///
/// # Errors
/// When nothing arrives for `patience`.
pub(crate) async fn watch(ends: &Ends, patience: Duration) -> Result<()> {
    let expected = source_rows(ends).await.context("count the source's rows")?;
    let client = postgres::connect(&ends.sink).await.context("connect to the sink")?;
    let mut picture = Picture::new(expected);
    let (mut last, mut moved) = (Rows::default(), Instant::now());
    loop {
        let arrived = sink_rows(&client, &ends.schema).await?;
        if arrived != last {
            (last, moved) = (arrived, Instant::now());
        }
        let done = arrived.iter().zip(&expected).all(|(a, e)| a >= e);
        picture.draw(&arrived, done);
        if done {
            return Ok(());
        }
        if moved.elapsed() > patience {
            let (arrived, expected) = (arrived.iter().sum::<u64>(), expected.iter().sum::<u64>());
            bail!("no row arrived for {} s: {arrived} of {expected} are in the sink", patience.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn source_rows(ends: &Ends) -> Result<Rows> {
    let mut conn = mysql::connect(&ends.source).await?;
    let mut all = Rows::default();
    for (rows, table) in all.iter_mut().zip(TABLES) {
        let count: Option<u64> = conn.query_first(format!("SELECT COUNT(*) FROM {table}")).await?;
        *rows = count.unwrap_or(0);
    }
    conn.disconnect().await?;
    Ok(all)
}

/// Rows that are there; none in tables that do not exist yet.
async fn sink_rows(client: &Client, schema: &str) -> Result<Rows> {
    let mut all = Rows::default();
    for (rows, table) in all.iter_mut().zip(TABLES) {
        let name = format!("\"{schema}\".\"{table}\"");
        let there = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&name]).await?;
        if there.get(0) {
            let count: i64 = client.query_one(&format!("SELECT COUNT(*) FROM {name}"), &[]).await?.get(0);
            *rows = count.unsigned_abs();
        }
    }
    Ok(all)
}

/// A line per table that is redrawn on a terminal; elsewhere a line per second.
struct Picture {
    expected: Rows,
    started: Instant,
    drawn: Option<Instant>,
    terminal: bool,
}

impl Picture {
    fn new(expected: Rows) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { expected, started: Instant::now(), drawn: None, terminal }
    }

    fn draw(&mut self, arrived: &Rows, done: bool) {
        if self.terminal {
            if self.drawn.is_some() {
                print!("\x1b[{}A", TABLES.len() + 1);
            }
            for ((table, arrived), expected) in TABLES.iter().zip(arrived).zip(&self.expected) {
                let (picture, arrived, expected) =
                    (bar(*arrived, *expected), grouped(*arrived), grouped(*expected));
                println!("\x1b[2K  {table:<12} {picture} {arrived:>8} of {expected:>8}");
            }
            println!("\x1b[2K{}", self.sum(arrived, done));
            let _ = std::io::stdout().flush();
        } else if done || self.drawn.is_none_or(|at| at.elapsed() >= LINE) {
            println!("{}", self.sum(arrived, done));
        } else {
            return;
        }
        self.drawn = Some(Instant::now());
    }

    fn sum(&self, arrived: &Rows, done: bool) -> String {
        let (arrived, expected) = (arrived.iter().sum::<u64>(), self.expected.iter().sum::<u64>());
        if done && self.drawn.is_none() {
            return format!("  all {} rows are there", grouped(arrived));
        }
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = arrived as f64 / seconds;
        let share = 100.0 * arrived as f64 / expected.max(1) as f64;
        let rest = if done || rate < 1.0 {
            String::new()
        } else {
            format!(", {:.0} s left", (expected - arrived.min(expected)) as f64 / rate)
        };
        format!(
            "  {} of {} rows ({share:.0} %) after {seconds:.1} s, {} rows/s{rest}",
            grouped(arrived),
            grouped(expected),
            grouped(rate as u64)
        )
    }
}
