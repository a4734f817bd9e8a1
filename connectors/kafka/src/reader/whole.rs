//! `consistency: transaction`: from watermark to watermark, each step one state of the source.
//!
//! Why a step is whole. A watermark and the records below its ends are one Kafka transaction (or several, whose watermark is
//! in the last), but brokers mark the end of a transaction partition by partition: the watermark can be visible before the
//! last of its data. So visibility proves nothing; a partition has reached its end E when its next record lies at or above
//! E, or its position has passed to E (commit markers and aborted records have offsets and are never handed over). Only
//! when all partitions of the step have reached their ends does its last batch get a boundary. Nothing at or above E is
//! taken: the record that showed it stays in its queue.
//!
//! Why rows are decoded by the right shape. The end of the schemas topic is asked, open transactions included, after the
//! watermark was seen: the schema records that its rows need lie below that end, and are read before the rows.
//!
//! Steps of several sources follow each other and are never mixed. Memory: one batch (`batch_bytes` plus one row) and the
//! feed's own bound.

use super::feed::{Feed, Lane, Polled};
use super::partitions::Partitions;
use super::runner::{Delivery, Mode, Progress};
use super::sides::{Shapes, Side, SourceSides, open_side};
use crate::watermarks::{Chain, Watermark};
use caudal_core::{Batch, BatchBuilder, Boundary, LogOffset, LogPosition, Position, Result, SourcePosition};
use std::sync::Arc;

/// Bounds of what is delivered at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A batch is closed at this size.
    pub(super) batch_bytes: usize,
    /// Watermarks are merged into one step up to about so many records.
    pub(super) step_records: i64,
}

/// One source's watermarks.
struct Followed {
    side: Side,
    chain: Chain,
    lane: Lane,
    /// Whether the sink has stored a watermark of it. One that has not may be ahead of the first watermarks in some tables
    /// (it was filled in key mode), which is no sign of a topic that was made again.
    resumed: bool,
    /// What a heartbeat repeats.
    last: Option<Boundary>,
}

/// A step being read.
struct Step {
    source: usize,
    watermark: Watermark,
    /// Lanes that have not reached their ends.
    open: Vec<(Lane, i64)>,
    /// Whether the schemas that it needs are known.
    decodable: bool,
}

/// Reads whole transactions.
pub(super) struct Whole<F> {
    feed: F,
    partitions: Partitions,
    shapes: Shapes,
    sources: Vec<Followed>,
    turn: usize,
    step: Option<Step>,
    batch: BatchBuilder,
    limits: Limits,
}

impl<F: Feed> Whole<F> {
    /// Of `sources`, resuming where the sink stands.
    ///
    /// # Errors
    /// Fault `Data` if a stored offset or topic is no longer there.
    pub(super) fn open(
        mut feed: F,
        sources: &[SourceSides],
        from: &LogPosition,
        limits: Limits,
    ) -> Result<Self> {
        let mut partitions = Partitions::new(from);
        let mut shapes = Shapes::default();
        let mut followed = Vec::new();
        for SourceSides { source, watermarks: side, schemas } in sources {
            shapes.open(&mut feed, schemas)?;
            partitions.check_id(&side.topic, side.topic_id)?;
            let stored = partitions.stored(&side.topic, side.partition);
            let lane = open_side(&mut feed, side, stored.into())?;
            let resumed = stored.is_some();
            let chain = Chain::new(source.as_str(), resumed);
            followed.push(Followed { side: side.clone(), chain, lane, resumed, last: None });
        }
        let batch = BatchBuilder::default();
        Ok(Self { feed, partitions, shapes, sources: followed, turn: 0, step: None, batch, limits })
    }

    /// Begins the next step, from the source whose turn it is or the next one that has a watermark.
    fn begin(&mut self) -> Result<Option<Step>> {
        for _ in 0..self.sources.len() {
            let source = self.turn;
            self.turn = (self.turn + 1) % self.sources.len();
            if let Some(watermark) = self.watermarks(source)? {
                return self.step(source, watermark).map(Some);
            }
        }
        Ok(None)
    }

    /// The watermarks of a source that are visible, as one, within the limit of a step.
    fn watermarks(&mut self, source: usize) -> Result<Option<Watermark>> {
        let followed = &mut self.sources[source];
        let mut merged: Option<Watermark> = None;
        while merged.as_ref().is_none_or(|merged| self.partitions.records(merged) < self.limits.step_records)
        {
            let mut taken = Ok(None);
            let polled = self.feed.poll(followed.lane, i64::MAX, &mut |record| {
                taken = followed.chain.take(record.value, record.offset);
            })?;
            if polled != Polled::Taken {
                break;
            }
            let Some(next) = taken? else { continue };
            for ((topic, _), end) in &next.ends {
                self.partitions.check_id(topic, end.topic_id)?;
            }
            match &mut merged {
                Some(merged) => merged.merge(next),
                None => merged = Some(next),
            }
        }
        Ok(merged)
    }

    fn step(&mut self, source: usize, watermark: Watermark) -> Result<Step> {
        let names = watermark.ends.keys().map(|(topic, partition)| (topic.as_str(), *partition));
        let lanes = self.partitions.open(&mut self.feed, names)?;
        let mut open = Vec::with_capacity(lanes.len());
        for (lane, end) in lanes.into_iter().zip(watermark.ends.values()) {
            if self.sources[source].resumed {
                self.partitions.check_end(lane, *end)?;
            }
            if self.partitions.next(lane) < end.offset {
                open.push((lane, end.offset));
            }
        }
        self.shapes.aim(&mut self.feed, source)?;
        Ok(Step { source, watermark, open, decodable: false })
    }

    /// Reads the step's partitions up to their ends, or to the batch's limit; whether all have reached them.
    fn read(&mut self, step: &mut Step) -> Result<bool> {
        let mut waiting = Vec::new();
        while let Some(&(lane, end)) = step.open.last() {
            if self.batch.size() >= self.limits.batch_bytes {
                break;
            }
            match self.partitions.poll(&mut self.feed, (lane, end), &self.shapes.store, &mut self.batch)? {
                Polled::Taken if self.partitions.next(lane) < end => continue,
                Polled::Taken | Polled::Reached => self.partitions.reached(lane, end)?,
                Polled::Empty => waiting.push((lane, end)),
            }
            step.open.pop();
        }
        if !waiting.is_empty() {
            self.feed.locate()?;
        }
        for (lane, end) in waiting {
            if self.feed.position(lane) >= end {
                self.partitions.reached(lane, end)?;
            } else {
                step.open.push((lane, end));
            }
        }
        Ok(step.open.is_empty())
    }

    /// The step's last batch, with its boundary.
    fn finish(&mut self, step: Step) -> Delivery {
        let followed = &mut self.sources[step.source];
        let batch = std::mem::take(&mut self.batch);
        let boundary = Boundary {
            events: batch.events.len() as u32,
            position: SourcePosition { token: step.watermark.position, ..SourcePosition::default() },
            ts_us: step.watermark.ts_us,
        };
        followed.last = Some(Boundary { events: 0, ..boundary.clone() });
        let mut position = self.partitions.moved();
        position.offsets.push(LogOffset {
            topic: Arc::clone(&followed.side.topic),
            topic_id: followed.side.topic_id,
            partition: followed.side.partition,
            offset: step.watermark.next,
            leader_epoch: -1,
        });
        let batch = batch.build(Position::Log(position), Some(boundary));
        Delivery { batch, complete: Some(step.source) }
    }

    /// A part of a step that is too large for one batch.
    fn part(&mut self) -> Delivery {
        let position = self.partitions.moved();
        let batch = std::mem::take(&mut self.batch).build(Position::Log(position), None);
        Delivery { batch, complete: None }
    }
}

impl<F: Feed + Send> Mode for Whole<F> {
    fn advance(&mut self) -> Result<Progress> {
        let Some(mut step) = self.step.take().map_or_else(|| self.begin(), |step| Ok(Some(step)))? else {
            return Ok(Progress::Waiting);
        };
        step.decodable = step.decodable || self.shapes.follow(&mut self.feed, step.source)?;
        if step.decodable && self.read(&mut step)? {
            return Ok(Progress::Delivery(Box::new(self.finish(step))));
        }
        self.step = Some(step);
        if self.batch.size() >= self.limits.batch_bytes {
            return Ok(Progress::Delivery(Box::new(self.part())));
        }
        Ok(Progress::Waiting)
    }

    /// Between two steps it repeats the last boundary.
    fn heartbeat(&mut self) -> Result<Batch> {
        self.partitions.look(&mut self.feed)?;
        let mut batch = Batch::empty(Position::Log(LogPosition::default()));
        if self.step.is_none() {
            let last = self.sources.iter().filter_map(|source| source.last.as_ref());
            batch.boundary = last.min_by_key(|boundary| boundary.ts_us).cloned();
        }
        Ok(batch)
    }
}
