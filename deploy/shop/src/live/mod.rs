//! Live work on the shop, and how long each commit takes to become visible in the sink.
//!
//! Each client notes the moment its COMMIT was answered and hands the order it touched to the watcher, which asks the sink for all
//! orders it still waits for, every few milliseconds: an insert is visible when its order is there, an update when its version is reached, a
//! delete when its order is gone. The latency measured is therefore that of the whole way, plus at most one such question.

mod report;
mod shopper;
mod watcher;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use caudal_tests::{mysql, postgres};
use mysql_async::prelude::Queryable;
use tokio::sync::mpsc;

use crate::Ends;
use shopper::Shopper;
use watcher::Watcher;

const CLIENTS: u32 = 8;
/// After the last commit, so long may it take to arrive.
const GRACE: Duration = Duration::from_secs(15);

/// What a transaction changed, when it was committed, and how to see it in the sink.
#[derive(Clone, Copy, Debug)]
struct Commit {
    order: i64,
    sign: Sign,
    at: Instant,
    inserts: u64,
    updates: u64,
    deletes: u64,
}

/// By what a commit is recognised in the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    There,
    Version(i32),
    Gone,
}

/// Works for `time` at `rate` transactions per second; prints what arrives, second by second. False when something never arrived.
///
/// # Errors
/// When an end can't be reached, or the source refuses the work.
pub(crate) async fn run(ends: &Ends, time: Duration, rate: u32) -> Result<bool> {
    let sink = postgres::connect(&ends.sink).await.context("connect to the sink")?;
    let mut conn = mysql::connect(&ends.source).await.context("connect to the source")?;
    let top: Option<u64> = conn.query_first("SELECT MAX(id) FROM orders").await?;
    conn.disconnect().await?;
    let (commits, seen) = mpsc::channel(10_000);
    let mut shoppers = Vec::new();
    for number in 0..CLIENTS {
        let conn = mysql::connect(&ends.source).await?;
        shoppers.push(Shopper::new(conn, top.unwrap_or(0), number, commits.clone()).await?);
    }
    let start = Instant::now();
    let pace = Duration::from_secs_f64(f64::from(CLIENTS) / f64::from(rate.max(1)));
    let mut clients = Vec::new();
    for (number, mut shopper) in (0..).zip(shoppers) {
        let first = start + pace.mul_f64(f64::from(number) / f64::from(CLIENTS));
        clients.push(tokio::spawn(async move { shopper.work(first, pace, start + time).await }));
    }
    drop(commits);
    let arrived = Watcher::new(sink, &ends.schema, start).follow(seen, start + time + GRACE).await?;
    for client in clients {
        client.await??;
    }
    Ok(arrived)
}
