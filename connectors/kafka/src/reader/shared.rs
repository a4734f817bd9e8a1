//! `consistency: key`: each row by itself, in the order of its partition; instances share the partitions.
//!
//! Why rows are decoded by the right shape. A round asks the *committed* ends of the partitions that have something, then the
//! ends of the schemas topic with open transactions included, and reads rows below the former only once it has followed the
//! latter: a schema record is produced before its transaction commits, so it lies below.
//!
//! Freshness. Watermarks are followed from the moment of opening on. "Complete up to W" needs what lay before that moment
//! too, so nothing is said until each partition has reached the end that it had then. Each instance speaks for its own
//! partitions. A boundary here says "complete up to"; it is no state of the source.
//!
//! Memory: one batch (`batch_bytes` plus one row), one offset a partition, and the feed's own bound.

use super::feed::{Feed, Lane, Polled, Start};
use super::partitions::Partitions;
use super::runner::{Delivery, Mode, Progress};
use super::sides::{Shapes, SourceSides, open_side};
use super::whole::Limits;
use crate::group::Partition;
use crate::watermarks::{Chain, Watermark};
use caudal_core::{Batch, BatchBuilder, Boundary, Error, LogPosition, Position, Result, SourcePosition};
use std::collections::BTreeSet;

/// One source's watermarks.
struct Followed {
    chain: Chain,
    lane: Lane,
    /// The one that is being reached.
    target: Option<Watermark>,
    /// Those behind it, as one.
    later: Option<Watermark>,
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
    /// Topics that the group shares, owned by this instance or not.
    topics: BTreeSet<String>,
    sources: Vec<Followed>,
    /// Ends at the time of opening that are not reached yet.
    base: Vec<(Lane, i64)>,
    round: Option<Round>,
    batch: BatchBuilder,
    limits: Limits,
}

impl<F: Feed> Shared<F> {
    /// Of the partitions `owned`, among `shared`, resuming where the sink stands.
    ///
    /// # Errors
    /// Fault `Data` if a stored offset or topic is no longer there.
    pub(super) fn open(
        mut feed: F,
        sources: &[SourceSides],
        (owned, shared): (&BTreeSet<Partition>, &BTreeSet<Partition>),
        from: &LogPosition,
        limits: Limits,
    ) -> Result<Self> {
        let mut partitions = Partitions::new(from);
        let mut shapes = Shapes::default();
        let mut followed = Vec::new();
        for SourceSides { source, watermarks, schemas } in sources {
            shapes.open(&mut feed, schemas)?;
            let lane = open_side(&mut feed, watermarks, Start::End)?;
            let chain = Chain::new(source.as_str(), true);
            followed.push(Followed { chain, lane, target: None, later: None });
        }
        let lanes = partitions.open(&mut feed, owned.iter().map(|(topic, p)| (topic.as_str(), *p)))?;
        // Asked after the watermarks' lanes were fixed: what is written from here on has a watermark that is read.
        let base = lanes.iter().copied().zip(feed.committed(&lanes)?).collect();
        let topics = shared.iter().map(|(topic, _)| topic.clone()).collect();
        let batch = BatchBuilder::default();
        Ok(Self {
            feed,
            partitions,
            shapes,
            lanes,
            topics,
            sources: followed,
            base,
            round: None,
            batch,
            limits,
        })
    }

    /// Begins a round if a partition has something.
    fn begin(&mut self) -> Result<Option<Round>> {
        let mut ready = Vec::new();
        for &lane in &self.lanes {
            // No record lies below the least offset: this only looks.
            if self.feed.poll(lane, i64::MIN, &mut |_| {})? == Polled::Reached {
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
            if polled != Polled::Taken {
                round.open.pop();
            }
        }
        Ok(true)
    }

    /// Follows the watermarks; the first source that has reached its target.
    fn complete(&mut self) -> Result<Option<(usize, Watermark)>> {
        self.feed.locate()?;
        let (partitions, feed) = (&self.partitions, &self.feed);
        let reached = |lane: Lane, end: i64| {
            partitions.next(lane) >= end || feed.position(lane) >= end && !partitions.is_joining(lane)
        };
        self.base.retain(|(lane, end)| !reached(*lane, *end));
        for source in 0..self.sources.len() {
            self.follow(source)?;
            let followed = &mut self.sources[source];
            let (partitions, feed) = (&self.partitions, &self.feed);
            let all_reached = |watermark: &Watermark| {
                watermark.ends.iter().all(|((topic, partition), end)| {
                    let lane = partitions.lane(topic, *partition);
                    lane.is_none_or(|lane| {
                        partitions.next(lane) >= end.offset
                            || feed.position(lane) >= end.offset && !partitions.is_joining(lane)
                    })
                })
            };
            if self.base.is_empty() && followed.target.as_ref().is_some_and(all_reached) {
                let done = std::mem::replace(&mut followed.target, followed.later.take());
                return Ok(done.map(|watermark| (source, watermark)));
            }
        }
        Ok(None)
    }

    /// Takes the watermarks that are visible.
    fn follow(&mut self, source: usize) -> Result<()> {
        let followed = &mut self.sources[source];
        loop {
            let mut taken = Ok(None);
            let polled = self.feed.poll(followed.lane, i64::MAX, &mut |record| {
                taken = followed.chain.take(record.value, record.offset);
            })?;
            if polled != Polled::Taken {
                return Ok(());
            }
            let Some(watermark) = taken? else { continue };
            for ((topic, _), end) in &watermark.ends {
                self.partitions.check_id(topic, end.topic_id)?;
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
        let batch = std::mem::take(&mut self.batch);
        let complete = self.complete()?;
        let boundary = complete.as_ref().map(|(_, watermark)| Boundary {
            events: batch.events.len() as u32,
            position: SourcePosition { token: watermark.position.clone(), ..SourcePosition::default() },
            ts_us: watermark.ts_us,
        });
        let batch = batch.build(Position::Log(self.partitions.moved()), boundary);
        Ok(Delivery { batch, complete: complete.map(|(source, _)| source) })
    }
}

impl<F: Feed + Send> Mode for Shared<F> {
    fn advance(&mut self) -> Result<Progress> {
        if let Some(mut round) = self.round.take().map_or_else(|| self.begin(), |round| Ok(Some(round)))?
            && !self.read(&mut round)?
        {
            self.round = Some(round);
        }
        let delivery = self.build()?;
        let nothing = delivery.batch.raw.is_empty()
            && delivery.batch.undecodable.is_empty()
            && delivery.complete.is_none()
            && delivery.batch.position.log().is_none_or(|position| position.offsets.is_empty());
        Ok(if nothing { Progress::Waiting } else { Progress::Delivery(Box::new(delivery)) })
    }

    fn heartbeat(&mut self) -> Result<Batch> {
        Ok(Batch::empty(Position::Log(LogPosition::default())))
    }
}
