//! `consistency: key`: each row by itself, in the order of its partition; instances share the partitions.
//!
//! Why rows are decoded by the right shape. A round asks the *committed* ends of the partitions that have something, then the
//! ends of the schemas topic with open transactions included, and reads rows below the former only once it has followed the
//! latter: a schema record is produced before its transaction commits, so it lies below.
//!
//! What was compacted away. A partition whose offset is too old is read anew with its table, with a sweep (`partitions.rs`): offsets
//! move on from the first record, marked as unswept until the end of the sweep is stored with them; who resumes at such
//! an offset begins again. Every batch moves an offset, so none passes the sink's comparison of offsets unfenced. As
//! partitions are read (or, where nothing is written, once in a while, as watermarks are reached) the moment up to which they are
//! complete is stored beside their offsets.
//!
//! Freshness. Watermarks are followed from the moment of opening on. "Complete up to W" needs what lay before that moment
//! too, so nothing is said until each partition has reached the end that it had then. Each instance speaks for its own
//! partitions. A boundary here says "complete up to"; it is no state of the source.
//!
//! Memory: one batch (`batch_bytes` plus one row), one offset a partition, and the feed's own bound.

use super::feed::{Feed, Lane, Polled, Start};
use super::partitions::Partitions;
use super::replays::Replays;
use super::runner::{Delivery, Mode, Progress};
use super::scopes::Scopes;
use super::sides::{Shapes, SourceSides, open_side};
use super::whole::Limits;
use super::whole::{AskIds, drop_foreign};
use crate::group::Partition;
use crate::watermarks::{Chain, Watermark};
use caudal_core::{
    Batch, BatchBuilder, Boundary, Error, LogPosition, Position, Result, Selected, SourcePosition,
};
use std::collections::BTreeSet;

/// How often idle partitions are stored anew, at last.
const STAMP_EVERY_MS: i64 = 3_600_000;

/// One source's watermarks.
struct Followed {
    chain: Chain,
    source: String,
    lane: Lane,
    /// The end of its partition before the topics' ids were asked.
    asked: i64,
    /// The one that is being reached.
    target: Option<Watermark>,
    /// Those behind it, as one.
    later: Option<Watermark>,
    scopes: Scopes,
}

/// A round over the partitions that have something.
struct Round {
    open: Vec<(Lane, i64)>,
    /// Sources whose shapes are not followed to the end yet.
    undecodable: Vec<usize>,
}

/// Reads partitions row by row.
pub(super) struct Shared<F> {
    feed: F,
    partitions: Partitions,
    shapes: Shapes,
    lanes: Vec<Lane>,
    /// What this instance owns.
    owned: BTreeSet<Partition>,
    /// The same, until it is opened.
    unopened: Option<BTreeSet<Partition>>,
    /// Topics that the group shares, owned by this instance or not.
    topics: BTreeSet<String>,
    sources: Vec<Followed>,
    /// Ends at the time of opening that are not reached yet.
    base: Vec<(Lane, i64)>,
    /// When idle partitions were stored last, by the log's clock.
    stamped_ms: i64,
    round: Option<Round>,
    batch: BatchBuilder,
    limits: Limits,
    replays: Option<Replays>,
}

impl<F: Feed> Shared<F> {
    /// Of the partitions `owned`, among `shared`, resuming where the sink stands.
    ///
    /// # Errors
    /// As the feed gives them.
    pub(super) fn open(
        mut feed: F,
        sources: &[SourceSides],
        (owned, shared): (&BTreeSet<Partition>, &BTreeSet<Partition>),
        from: &LogPosition,
        limits: Limits,
        ids: AskIds<'_>,
    ) -> Result<Self> {
        let mut shapes = Shapes::default();
        let mut followed = Vec::new();
        for (number, SourceSides { source, watermarks, schemas }) in sources.iter().enumerate() {
            shapes.open(&mut feed, schemas)?;
            shapes.aim(&mut feed, number)?;
            let lane = open_side(&mut feed, watermarks, Start::End)?;
            let chain = Chain::new(source.as_str(), true);
            let (source, asked) = (source.clone(), feed.end(lane)?);
            let scopes = Scopes::new(&source);
            followed.push(Followed { chain, source, lane, asked, target: None, later: None, scopes });
        }
        let topics: BTreeSet<String> = shared.iter().map(|(topic, _)| topic.clone()).collect();
        let now = ids(&topics.iter().cloned().collect::<Vec<_>>());
        let partitions = Partitions::new(from, &now, limits.promise);
        let batch = BatchBuilder::default();
        Ok(Self {
            feed,
            partitions,
            shapes,
            lanes: Vec::new(),
            owned: owned.clone(),
            unopened: Some(owned.clone()),
            topics,
            sources: followed,
            base: Vec::new(),
            stamped_ms: 0,
            round: None,
            batch,
            limits,
            replays: None,
        })
    }

    /// Of a sink that looks at these columns only.
    pub(super) fn selecting(mut self, selected: Option<Selected>) -> Self {
        self.partitions.selecting(selected);
        self
    }

    /// Applies dead letters again on request.
    pub(super) fn with(mut self, replays: Replays) -> Self {
        self.replays = Some(replays);
        self
    }

    /// The next dead letter that is applied again.
    fn replay(&mut self) -> Result<Option<Delivery>> {
        let Some(replays) = &mut self.replays else { return Ok(None) };
        let Some((offset, replayed)) =
            replays.advance(&self.partitions, &self.shapes.store, &mut self.batch)?
        else {
            return Ok(None);
        };
        let batch = std::mem::take(&mut self.batch);
        let batch = batch.build(Position::Log(LogPosition { offsets: vec![offset] }), None);
        Ok(Some(Delivery { batch, complete: None, replayed: Some(replayed) }))
    }

    /// Opens the partitions once the shapes of their tables are known; whether they are open.
    fn open_lanes(&mut self) -> Result<bool> {
        let Some(owned) = self.unopened.take() else { return Ok(true) };
        for source in 0..self.sources.len() {
            if !self.shapes.follow(&mut self.feed, source)? {
                self.unopened = Some(owned);
                return Ok(false);
            }
        }
        let names = owned.iter().map(|(topic, p)| (topic.as_str(), *p));
        self.lanes = self.partitions.open(&mut self.feed, names, 0, &self.shapes.store)?;
        // Asked after the watermarks' lanes were fixed: what is written from here on has a watermark that is read.
        self.base = self.lanes.iter().copied().zip(self.feed.committed(&self.lanes)?).collect();
        self.partitions.begin_sweeps(&mut self.batch, |_| true);
        Ok(true)
    }

    /// Begins a round if a partition has something.
    fn begin(&mut self) -> Result<Option<Round>> {
        let mut ready = Vec::new();
        for &lane in &self.lanes {
            // No record lies below the least offset: this only looks.
            if !self.partitions.is_barred(lane)
                && self.feed.poll(lane, i64::MIN, &mut |_| {})? == Polled::Reached
            {
                ready.push(lane);
            }
        }
        if ready.is_empty() {
            return Ok(None);
        }
        let ends = self.feed.committed(&ready)?;
        let undecodable: Vec<usize> = (0..self.sources.len()).collect();
        for &source in &undecodable {
            self.shapes.aim(&mut self.feed, source)?;
        }
        Ok(Some(Round { open: ready.into_iter().zip(ends).collect(), undecodable }))
    }

    /// Reads what the round found, up to the batch's limit; whether the round is over.
    fn read(&mut self, round: &mut Round) -> Result<bool> {
        while let Some(source) = round.undecodable.last() {
            if !self.shapes.follow(&mut self.feed, *source)? {
                return Ok(false);
            }
            round.undecodable.pop();
        }
        while let Some(&(lane, end)) = round.open.last() {
            if self.batch.size() >= self.limits.batch_bytes {
                return Ok(false);
            }
            let polled =
                self.partitions.poll(&mut self.feed, (lane, end), &self.shapes.store, &mut self.batch)?;
            if polled != Polled::Taken || self.partitions.is_barred(lane) {
                round.open.pop();
            }
        }
        Ok(true)
    }

    /// Follows the watermarks; the first source that has reached its target.
    fn complete(&mut self) -> Result<Option<(usize, Watermark)>> {
        self.feed.locate()?;
        let (partitions, feed) = (&self.partitions, &self.feed);
        let reached =
            |lane: Lane, end: i64| partitions.next(lane) >= end || partitions.position(feed, lane) >= end;
        let (done, base): (Vec<_>, Vec<_>) =
            self.base.drain(..).partition(|(lane, end)| reached(*lane, *end));
        self.base = base;
        for (lane, end) in done {
            self.partitions.reached(lane, end)?;
        }
        let base = &self.base;
        self.partitions.end_sweeps(&mut self.batch, |lane| base.iter().all(|(open, _)| *open != lane));
        for source in 0..self.sources.len() {
            self.follow(source)?;
            let followed = &mut self.sources[source];
            let (partitions, feed) = (&self.partitions, &self.feed);
            let all_reached = |watermark: &Watermark| {
                watermark.ends.iter().all(|((topic, partition), end)| {
                    let lane = partitions.lane(topic, *partition);
                    lane.is_none_or(|lane| {
                        partitions.next(lane) >= end.offset || partitions.position(feed, lane) >= end.offset
                    })
                })
            };
            if self.base.is_empty() && followed.target.as_ref().is_some_and(all_reached) {
                let done = std::mem::replace(&mut followed.target, followed.later.take());
                if let Some(watermark) = &done {
                    self.stamp(source, watermark.logged_ms)?;
                }
                return Ok(done.map(|watermark| (source, watermark)));
            }
        }
        Ok(None)
    }

    /// Now and then, stores of a source's partitions that they are complete up to a moment, moved or not.
    fn stamp(&mut self, source: usize, as_of_ms: i64) -> Result<()> {
        let every = (self.limits.promise.lag_ms / 16).min(STAMP_EVERY_MS);
        if as_of_ms - self.stamped_ms < every {
            return Ok(());
        }
        if source + 1 == self.sources.len() {
            self.stamped_ms = as_of_ms;
        }
        let feed = &self.feed;
        let name = &self.sources[source].source;
        self.partitions.complete_to(as_of_ms, name, &self.shapes.store, feed)
    }

    /// Takes the watermarks that are visible.
    fn follow(&mut self, source: usize) -> Result<()> {
        let followed = &mut self.sources[source];
        loop {
            let (mut taken, mut at) = (Ok(None), 0);
            let polled = self.feed.poll(followed.lane, i64::MAX, &mut |record| {
                at = record.offset;
                taken = followed.chain.take(record.value, (record.offset, record.ts_ms));
            })?;
            if polled != Polled::Taken {
                return Ok(());
            }
            let Some(mut watermark) = taken? else { continue };
            drop_foreign(&mut watermark, &mut self.partitions, at < followed.asked)?;
            for (topic, _) in watermark.ends.keys() {
                if !self.topics.contains(topic) {
                    return Err(Error::transient(format!("topic {topic} is new; sharing it too")));
                }
            }
            match (&mut followed.target, &mut followed.later) {
                (None, _) => followed.target = Some(watermark),
                (Some(_), Some(later)) => later.merge(watermark),
                (Some(_), later) => *later = Some(watermark),
            }
        }
    }

    fn build(&mut self) -> Result<Delivery> {
        let complete = self.complete()?;
        let batch = std::mem::take(&mut self.batch);
        let (store, owned) = (&self.shapes.store, &self.owned);
        let boundary = complete.as_ref().map(|(source, watermark)| Boundary {
            events: batch.events.len() as u32,
            position: SourcePosition { token: watermark.position.clone(), ..SourcePosition::default() },
            ts_us: watermark.ts_us,
            scope: Some(self.sources[*source].scopes.shared(store, owned, watermark.incomplete.clone())),
        });
        let batch = batch.build(Position::Log(self.partitions.moved()), boundary);
        Ok(Delivery { batch, complete: complete.map(|(source, _)| source), replayed: None })
    }
}

impl<F: Feed + Send> Mode for Shared<F> {
    fn advance(&mut self) -> Result<Progress> {
        if !self.open_lanes()? {
            return Ok(Progress::Waiting);
        }
        if self.round.is_none()
            && self.batch.sweeps.is_empty()
            && let Some(delivery) = self.replay()?
        {
            return Ok(Progress::Delivery(Box::new(delivery)));
        }
        if let Some(mut round) = self.round.take().map_or_else(|| self.begin(), |round| Ok(Some(round)))?
            && !self.read(&mut round)?
        {
            self.round = Some(round);
        }
        let delivery = self.build()?;
        let nothing = delivery.batch.raw.is_empty()
            && delivery.batch.sweeps.is_empty()
            && delivery.batch.undecodable.is_empty()
            && delivery.complete.is_none()
            && delivery.batch.position.log().is_none_or(|position| position.offsets.is_empty());
        Ok(if nothing { Progress::Waiting } else { Progress::Delivery(Box::new(delivery)) })
    }

    fn heartbeat(&mut self) -> Result<Batch> {
        Ok(Batch::empty(Position::Log(LogPosition::default())))
    }
}
