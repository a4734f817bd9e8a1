//! Watching a contestant work, and writing down what it cost.
//!
//! Rate and CPU are those between the first movement and the last: the start of a process, and of a Java machine, is told by itself
//! (`ready`). Peak memory is that of the whole life of the process.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use caudal_tests::PgDatabase;
use caudal_tests::kafka::Offsets;
use caudal_tests::process::Usage;

use crate::contestant::Contestant;

const LOOK: Duration = Duration::from_millis(40);
/// Work is done when nothing has moved for so long: markers of transactions take offsets too, so a count alone is early.
const QUIET: Duration = Duration::from_secs(2);
/// Nothing at all may move for so long.
const STUCK: Duration = Duration::from_secs(90);

/// A volume that went through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volume {
    /// Events per second.
    pub(crate) rate: f64,
    /// CPU seconds of the process per million events.
    pub(crate) cpu: f64,
    /// Most resident memory, bytes.
    pub(crate) peak: u64,
    /// From the start of the process to the first movement, seconds.
    pub(crate) ready: f64,
}

/// What was seen at one moment.
#[derive(Clone, Copy)]
struct Seen {
    count: u64,
    at: Instant,
    usage: Usage,
}

/// The first and the last movement of a count.
struct Watch {
    start: Instant,
    from: u64,
    first: Option<Seen>,
    last: Option<Seen>,
}

impl Watch {
    fn new(from: u64) -> Self {
        Self { start: Instant::now(), from, first: None, last: None }
    }

    fn look(&mut self, count: u64, usage: Usage) {
        if count > self.last.map_or(self.from, |s| s.count) {
            let seen = Seen { count, at: Instant::now(), usage };
            self.first.get_or_insert(seen);
            self.last = Some(seen);
        }
    }

    fn quiet(&self) -> Duration {
        self.last.map_or(self.start, |s| s.at).elapsed()
    }

    /// `events`: how many the whole movement stood for.
    fn volume(&self, events: u64, peak: u64) -> Volume {
        let (Some(first), Some(last)) = (self.first, self.last) else { return Volume::default() };
        let share = (last.count - first.count) as f64 / (last.count - self.from).max(1) as f64;
        let counted = events as f64 * share;
        Volume {
            rate: counted / (last.at - first.at).as_secs_f64().max(1e-3),
            cpu: (last.usage.cpu_seconds - first.usage.cpu_seconds) / counted.max(1.0) * 1e6,
            peak,
            ready: (first.at - self.start).as_secs_f64(),
        }
    }
}

/// Waits until the contestant's topic holds `events` more than before, and grows no more.
pub(crate) async fn until_log_holds(contestant: &mut Contestant, events: u64) -> Result<Volume> {
    let offsets = Offsets::of(&contestant.brokers())?;
    let mut watch = Watch::new(contestant.end);
    loop {
        // It may not listen, or have made its topic, yet.
        let end = offsets.end(&contestant.topic).unwrap_or(0).unsigned_abs();
        let usage = contestant.usage()?;
        watch.look(end, usage);
        if end >= contestant.end + events && watch.quiet() > QUIET {
            contestant.end = end;
            return Ok(watch.volume(events, usage.peak));
        }
        if watch.quiet() > STUCK {
            let (topic, from) = (&contestant.topic, contestant.end);
            bail!("{topic} stands at {end}, {events} are due from {from}:\n{}", contestant.log_tail());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the contestant rests: it takes what others left for it.
pub(crate) async fn until_quiet(contestant: &mut Contestant) -> Result<()> {
    let offsets = Offsets::of(&contestant.brokers())?;
    let mut watch = Watch::new(contestant.end);
    // A Java machine takes some seconds before anything moves.
    while watch.first.is_none() && watch.quiet() < Duration::from_secs(20) || watch.quiet() < QUIET {
        watch.look(offsets.end(&contestant.topic).unwrap_or(0).unsigned_abs(), contestant.usage()?);
        tokio::time::sleep(LOOK).await;
    }
    contestant.end = watch.last.map_or(contestant.end, |s| s.count);
    Ok(())
}

/// Waits until a topic holds `records` and rests.
pub(crate) async fn until_topic_rests(brokers: &str, topic: &str, records: u64) -> Result<()> {
    let offsets = Offsets::of(brokers)?;
    let mut watch = Watch::new(0);
    loop {
        let end = offsets.end(topic).unwrap_or(0).unsigned_abs();
        watch.look(end, Usage::default());
        if end >= records && watch.quiet() > QUIET {
            return Ok(());
        }
        if watch.quiet() > STUCK {
            bail!("{topic} stands at {end} of {records} records");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the table in PostgreSQL has `rows` rows and rests. `events` is how many were applied for that.
pub(crate) async fn until_sink_holds(
    usage: impl Fn() -> Result<Usage>,
    sink: &PgDatabase,
    rows: u64,
    events: u64,
) -> Result<Volume> {
    let client = sink.connect().await?;
    let mut watch = Watch::new(0);
    loop {
        // Row count and the sum of a column that every change moves: updates are seen too.
        let query = "SELECT COUNT(*) + COALESCE(SUM(k), 0)::bigint, COUNT(*) FROM public.sbtest";
        let found = client.query_one(query, &[]).await;
        let (state, count): (i64, i64) = found.map(|r| (r.get(0), r.get(1))).unwrap_or_default();
        let now = usage()?;
        watch.look(state.unsigned_abs(), now);
        if count.unsigned_abs() >= rows && watch.quiet() > QUIET {
            return Ok(watch.volume(events, now.peak));
        }
        if watch.quiet() > STUCK {
            bail!("the sink stands at {count} of {rows} rows");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
