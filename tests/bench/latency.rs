//! How late a commit is seen: in the topic by a consumer, and in PostgreSQL by a query.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caudal_tests::PgDatabase;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::load::Loader;

/// Transactions that one connection writes per second at most: a server takes its time for each commit.
const PER_WRITER: u32 = 125;
/// Rows of a transaction where a server would not commit one row at a time so often.
const TOGETHER: u32 = 10;
/// From so many rows per second on.
const OFTEN: u32 = 2_000;
/// What is due after the last commit must have come by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// Latencies of one run, milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// What the writers reached per second: below the rate asked for, the source is the bound.
    pub(crate) rate: f64,
}

/// A steady rate of rows from `first` on, one or ten in a transaction.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) first: u64,
    pub(crate) rate: u32,
    pub(crate) time: Duration,
}

impl Load {
    fn count(&self) -> u64 {
        (f64::from(self.rate) * self.time.as_secs_f64()) as u64
    }

    /// Rows of a transaction.
    fn together(&self) -> u32 {
        if self.rate > OFTEN { TOGETHER } else { 1 }
    }

    /// When each row was committed, by its number.
    async fn write(self, loader: &Loader) -> Result<Vec<Instant>> {
        let rows = u64::from(self.together());
        let writers = u64::from((self.rate / self.together()).div_ceil(PER_WRITER));
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let mut conn = loader.connect().await?;
            tasks.spawn(async move {
                let mut commits = Vec::new();
                for i in (writer * rows..self.count()).step_by((writers * rows) as usize) {
                    let due = start + Duration::from_secs_f64(i as f64 / f64::from(self.rate));
                    tokio::time::sleep_until(due.into()).await;
                    let rows = rows.min(self.count() - i);
                    Loader::transaction(&mut conn, self.first + i, rows).await?;
                    let now = Instant::now();
                    commits.extend((i..i + rows).map(|row| (row, now)));
                }
                anyhow::Ok(commits)
            });
        }
        let mut all = vec![start; self.count() as usize];
        while let Some(commits) = tasks.join_next().await {
            for (i, at) in commits?? {
                all[i as usize] = at;
            }
        }
        Ok(all)
    }
}

/// From COMMIT to a `read_committed` consumer of the topic (one partition).
pub(crate) async fn to_topic(brokers: &str, topic: &str, loader: &Loader, load: Load) -> Result<Latency> {
    let consumer = consumer(brokers, topic)?;
    let (first, count) = (load.first, load.count());
    let watching = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + load.time * 3 + PATIENCE;
        let mut seen = HashMap::new();
        while (seen.len() as u64) < count && Instant::now() < deadline {
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let (at, message) = (Instant::now(), message?);
            if let Some(i) = message.key().and_then(id).and_then(|id| id.checked_sub(first)) {
                seen.entry(i).or_insert(at);
            }
        }
        anyhow::Ok(seen)
    });
    let commits = load.write(loader).await?;
    let seen = watching.await??;
    ensure!(seen.len() as u64 >= count, "{} of {count} rows came to {topic} in time", seen.len());
    Ok(summary(&commits, |i| seen.get(&i).copied(), load))
}

/// A reader of what comes from now on.
fn consumer(brokers: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "100")
        .create()?;
    let (_, end) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(10))?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Offset(end))?;
    consumer.assign(&partitions)?;
    // The first answer shows that it listens.
    drop(consumer.poll(Duration::from_secs(1)));
    Ok(consumer)
}

/// The number in a key: `{"id":17}`.
fn id(key: &[u8]) -> Option<u64> {
    let digits: Vec<u8> =
        key.iter().copied().skip_while(|b| !b.is_ascii_digit()).take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// From COMMIT to visible in PostgreSQL.
pub(crate) async fn to_sink(sink: &PgDatabase, loader: &Loader, load: Load) -> Result<Latency> {
    let client = sink.connect().await?;
    let query = client.prepare("SELECT id::bigint FROM public.sbtest WHERE id > $1 ORDER BY id").await?;
    let (first, count) = (load.first as i64, load.count());
    let deadline = Instant::now() + load.time * 3 + PATIENCE;
    let watching = tokio::spawn(async move {
        let mut seen: HashMap<u64, Instant> = HashMap::new();
        // Writers overtake each other: rows near the top may still come.
        let mut complete = first - 1;
        while (seen.len() as u64) < count {
            let rows = client.query(&query, &[&complete]).await?;
            let now = Instant::now();
            for row in &rows {
                seen.entry((row.get::<_, i64>(0) - first).unsigned_abs()).or_insert(now);
            }
            while seen.contains_key(&(complete + 1 - first).unsigned_abs()) {
                complete += 1;
            }
            if now > deadline {
                bail!("{} of {count} rows arrived in time", seen.len());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(seen)
    });
    let commits = load.write(loader).await?;
    let seen = watching.await.context("watch the sink")??;
    Ok(summary(&commits, |i| seen.get(&i).copied(), load))
}

fn summary(commits: &[Instant], seen: impl Fn(u64) -> Option<Instant>, load: Load) -> Latency {
    let late = (0..).zip(commits).filter_map(|(i, c)| Some(seen(i)?.saturating_duration_since(*c)));
    let mut sorted: Vec<Duration> = late.collect();
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    let span =
        commits.iter().max().zip(commits.iter().min()).map_or(load.time, |(last, first)| *last - *first);
    Latency { p50: at(0.5), p99: at(0.99), rate: commits.len() as f64 / span.as_secs_f64().max(1e-3) }
}
