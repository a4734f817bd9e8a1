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
//! Why a step may be shown although compaction goes on. A step ends at a watermark that is young, or at the newest one: what
//! superseded a row below its ends is then younger still, and no row is compacted away before that is as old as the lag.
//! Where the *base* of a step (the watermark before) is older, its tables are read anew (`partitions.rs`), with a sweep at the end of
//! the step. A sink that is ahead of a watermark in some table (it was filled in key mode) merges watermarks until it no longer is.
//!
//! Steps of several sources follow each other and are never mixed. Memory: one batch (`batch_bytes` plus one row) and the
//! feed's own bound.

use super::feed::{Feed, Lane, Polled, Start};
use super::partitions::{Partitions, Promise};
use super::replays::Replays;
use super::runner::{Delivery, Mode, Progress};
use super::scopes::Scopes;
use super::sides::{Shapes, Side, SourceSides, open_side};
use crate::topic_ids::TopicIds;
use crate::watermarks::{Chain, Watermark};
use caudal_core::{
    Batch, BatchBuilder, Boundary, Error, LogOffset, LogPosition, Position, Result, Selected, SourcePosition,
};
use std::sync::Arc;

/// Bounds of what is delivered at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A batch is closed at this size.
    pub(super) batch_bytes: usize,
    /// Watermarks are merged into one step up to about so many records.
    pub(super) step_records: i64,
    /// For how long compaction leaves everything in place.
    pub(super) promise: Promise,
}

/// Asks the ids of topics.
pub(super) type AskIds<'a> = &'a dyn Fn(&[String]) -> TopicIds;

/// One source's watermarks.
struct Followed {
    side: Side,
    chain: Chain,
    lane: Lane,
    /// The end of its partition before the topics' ids were asked: a watermark below it with another id is of a topic that
    /// is gone.
    asked: i64,
    /// All that was written before this moment is read; 0 where unknown.
    base_ms: i64,
    /// Watermarks taken that are no step yet, and what they wait for.
    pending: Option<(Watermark, Hold)>,
    /// What a heartbeat repeats.
    last: Option<Boundary>,
    scopes: Scopes,
}

/// What watermarks wait for that are no step yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// A later one: the sink is ahead of these.
    Later,
    /// Those that were there when the reader was opened: these are old.
    Asked,
}

/// A step being read.
struct Step {
    source: usize,
    watermark: Watermark,
    /// Lanes that have not reached their ends.
    open: Vec<(Lane, i64)>,
    /// Whether the schemas that it needs are known, and its lanes open.
    ready: bool,
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
    replays: Option<Replays>,
}

impl<F: Feed> Whole<F> {
    /// Of `sources`, resuming where the sink stands.
    ///
    /// # Errors
    /// As the feed gives them.
    pub(super) fn open(
        mut feed: F,
        sources: &[SourceSides],
        from: &LogPosition,
        limits: Limits,
        ids: AskIds<'_>,
    ) -> Result<Self> {
        let mut shapes = Shapes::default();
        let mut followed = Vec::new();
        for SourceSides { source, watermarks: side, schemas } in sources {
            shapes.open(&mut feed, schemas)?;
            let (lane, base_ms) = resume(&mut feed, side, from)?;
            let chain = Chain::new(source.as_str(), base_ms.is_some()).of_states();
            followed.push(Followed {
                side: side.clone(),
                chain,
                asked: feed.end(lane)?,
                lane,
                base_ms: base_ms.unwrap_or(0),
                pending: None,
                last: None,
                scopes: Scopes::new(source),
            });
        }
        let topics: std::collections::BTreeSet<String> =
            from.offsets.iter().map(|offset| offset.topic.to_string()).collect();
        let now = ids(&topics.into_iter().collect::<Vec<_>>());
        let partitions = Partitions::new(from, &now, limits.promise);
        let batch = BatchBuilder::default();
        Ok(Self {
            feed,
            partitions,
            shapes,
            sources: followed,
            turn: 0,
            step: None,
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

    /// The next dead letter that is applied again, between two steps: the state stays that of the last one.
    fn replay(&mut self) -> Result<Option<Delivery>> {
        let Some(replays) = &mut self.replays else { return Ok(None) };
        let Some((offset, replayed)) =
            replays.advance(&self.partitions, &self.shapes.store, &mut self.batch)?
        else {
            return Ok(None);
        };
        let batch = std::mem::take(&mut self.batch);
        let events = batch.events.len() as u32;
        let boundary = self.last().map(|last| Boundary { events, ..last });
        let batch = batch.build(Position::Log(LogPosition { offsets: vec![offset] }), boundary);
        Ok(Some(Delivery { batch, complete: None, replayed: Some(replayed) }))
    }

    /// The state that is shown.
    fn last(&self) -> Option<Boundary> {
        let last = self.sources.iter().filter_map(|source| source.last.as_ref());
        last.min_by_key(|boundary| boundary.ts_us).cloned()
    }

    /// Begins the next step, from the source whose turn it is or the next one that has a watermark.
    fn begin(&mut self) -> Result<Option<Step>> {
        for _ in 0..self.sources.len() {
            let source = self.turn;
            self.turn = (self.turn + 1) % self.sources.len();
            if let Some(watermark) = self.watermarks(source)? {
                self.shapes.aim(&mut self.feed, source)?;
                return Ok(Some(Step { source, watermark, open: Vec::new(), ready: false }));
            }
        }
        Ok(None)
    }

    /// The watermarks of a source that are visible, as one, within the limit of a step; none if nothing has come since it was
    /// asked last.
    fn watermarks(&mut self, source: usize) -> Result<Option<Watermark>> {
        let promise = self.limits.promise;
        let (mut merged, hold) = self.sources[source].pending.take().unzip();
        let mut came = hold == Some(Hold::Asked);
        while merged.as_ref().is_none_or(|merged| {
            !came
                || promise.is_old(merged.logged_ms)
                || self.partitions.records(merged) < self.limits.step_records
        }) {
            let Some(next) = self.next_watermark(source)? else { break };
            came = true;
            match &mut merged {
                Some(merged) => merged.merge(next),
                None => merged = Some(next),
            }
        }
        let Some(watermark) = merged else { return Ok(None) };
        let hold = self.hold(source, &watermark, came)?;
        if let Some(hold) = hold {
            self.sources[source].pending = Some((watermark, hold));
            return Ok(None);
        }
        Ok(Some(watermark))
    }

    /// What keeps a watermark from being a step. `came`: it is not the one that was held before.
    fn hold(&mut self, source: usize, watermark: &Watermark, came: bool) -> Result<Option<Hold>> {
        if !came {
            return Ok(Some(Hold::Later));
        }
        if !self.limits.promise.is_old(watermark.logged_ms) {
            return Ok(None);
        }
        self.feed.locate()?;
        let followed = &self.sources[source];
        let all_seen = self.feed.position(followed.lane) >= followed.asked;
        Ok((!all_seen).then_some(Hold::Asked))
    }

    /// The next watermark that is visible. Ends in topics that are gone are left out: nobody can reach them.
    fn next_watermark(&mut self, source: usize) -> Result<Option<Watermark>> {
        let followed = &mut self.sources[source];
        loop {
            let (mut taken, mut at) = (Ok(None), 0);
            let polled = self.feed.poll(followed.lane, i64::MAX, &mut |record| {
                at = record.offset;
                taken = followed.chain.take(record.value, (record.offset, record.ts_ms));
            })?;
            if polled != Polled::Taken {
                return Ok(None);
            }
            let Some(mut next) = taken? else { continue };
            drop_foreign(&mut next, &mut self.partitions, at < followed.asked)?;
            return Ok(Some(next));
        }
    }

    /// Opens what the step reads; whether it may be read. Not so while the sink is ahead of it.
    fn make_ready(&mut self, step: &mut Step) -> Result<bool> {
        if !self.shapes.follow(&mut self.feed, step.source)? {
            return Ok(false);
        }
        let Followed { base_ms, .. } = self.sources[step.source];
        let ends = &step.watermark.ends;
        let whole = ends.keys().flat_map(|(topic, partition)| {
            let spread = self.shapes.store.spread(topic) as i32;
            let others = if spread > 1 { 0..spread } else { *partition..*partition + 1 };
            others.map(move |p| (topic.as_str(), p))
        });
        let names: std::collections::BTreeSet<(&str, i32)> = whole.collect();
        self.partitions.open(&mut self.feed, names.into_iter(), base_ms, &self.shapes.store)?;
        let mut open = self.partitions.unnamed(&step.watermark);
        for ((topic, partition), end) in ends {
            let lane = self.partitions.lane(topic, *partition);
            open.push((lane.ok_or_else(|| Error::bug("a lane was not opened"))?, end.offset));
        }
        if open.iter().any(|(lane, end)| self.partitions.next(*lane) > *end) {
            return Ok(false);
        }
        open.retain(|(lane, end)| self.partitions.next(*lane) < *end);
        self.partitions.stamp(open.iter().map(|(lane, _)| *lane), base_ms);
        // Of this step alone: another source's tables may wait for a later watermark.
        let is_read = |topic: &str| ends.keys().any(|(read, _)| read == topic);
        self.partitions.begin_sweeps(&mut self.batch, is_read);
        (step.open, step.ready) = (open, true);
        Ok(true)
    }

    /// Whether the sink has read beyond the step in some table.
    fn is_ahead(&self, step: &Step) -> bool {
        step.watermark.ends.iter().any(|((topic, partition), end)| {
            let lane = self.partitions.lane(topic, *partition);
            lane.is_some_and(|lane| self.partitions.next(lane) > end.offset)
        })
    }

    /// Reads the step's partitions up to their ends, or to the batch's limit; whether all have reached them.
    fn read(&mut self, step: &mut Step) -> Result<bool> {
        let mut waiting = Vec::new();
        while let Some(&(lane, end)) = step.open.last() {
            if self.batch.size() >= self.limits.batch_bytes {
                break;
            }
            match self.partitions.poll(&mut self.feed, (lane, end), &self.shapes.store, &mut self.batch)? {
                Polled::Taken if self.partitions.is_barred(lane) => waiting.push((lane, end)),
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
            if self.partitions.next(lane) >= end || self.partitions.position(&self.feed, lane) >= end {
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
        self.partitions.end_sweeps(&mut self.batch, |_| true);
        self.partitions.stamp_moved(step.watermark.logged_ms);
        followed.base_ms = followed.base_ms.max(step.watermark.logged_ms);
        let batch = std::mem::take(&mut self.batch);
        let scope = followed.scopes.whole(&self.shapes.store, &self.partitions, step.watermark.incomplete);
        let boundary = Boundary {
            events: batch.events.len() as u32,
            position: SourcePosition { token: step.watermark.position, ..SourcePosition::default() },
            ts_us: step.watermark.ts_us,
            scope: Some(scope),
        };
        followed.last = Some(Boundary { events: 0, ..boundary.clone() });
        let mut position = self.partitions.moved();
        position.offsets.push(LogOffset {
            topic: Arc::clone(&followed.side.topic),
            topic_id: followed.side.topic_id,
            partition: followed.side.partition,
            offset: step.watermark.next,
            leader_epoch: -1,
            as_of_ms: followed.base_ms,
            unswept: false,
            writer_epoch: 0,
        });
        let batch = batch.build(Position::Log(position), Some(boundary));
        Delivery { batch, complete: Some(step.source), replayed: None }
    }

    /// A part of a step that is too large for one batch.
    fn part(&mut self) -> Delivery {
        let position = self.partitions.moved();
        let batch = std::mem::take(&mut self.batch).build(Position::Log(position), None);
        Delivery { batch, complete: None, replayed: None }
    }
}

impl<F: Feed + Send> Mode for Whole<F> {
    fn advance(&mut self) -> Result<Progress> {
        if self.step.is_none()
            && let Some(delivery) = self.replay()?
        {
            return Ok(Progress::Delivery(Box::new(delivery)));
        }
        let mut step = loop {
            let Some(mut step) = self.step.take().map_or_else(|| self.begin(), |step| Ok(Some(step)))? else {
                return Ok(Progress::Waiting);
            };
            if step.ready || self.make_ready(&mut step)? {
                break step;
            }
            if !self.is_ahead(&step) {
                self.step = Some(step);
                return Ok(Progress::Waiting);
            }
            // Each turn takes one more of the watermarks that are visible.
            self.sources[step.source].pending = Some((step.watermark, Hold::Later));
        };
        if self.read(&mut step)? {
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
            batch.boundary = self.last();
        }
        Ok(batch)
    }
}

/// Opens a source's watermarks where the sink stands, and gives the moment up to which it has read; none if it must begin with a
/// full watermark: what is stored is of another topic, or no longer there.
fn resume(feed: &mut impl Feed, side: &Side, from: &LogPosition) -> Result<(Lane, Option<i64>)> {
    let stored = from.offsets.iter().find(|o| o.topic == side.topic && o.partition == side.partition);
    let same = |o: &&LogOffset| o.topic_id.is_nil() || side.topic_id.is_nil() || o.topic_id == side.topic_id;
    if let Some(stored) = stored.filter(same) {
        let spans = feed.spans(&[(Arc::clone(&side.topic), side.partition)])?;
        if spans.first().is_some_and(|(first, end)| (*first..=*end).contains(&stored.offset)) {
            return Ok((open_side(feed, side, Start::At(stored.offset))?, Some(stored.as_of_ms)));
        }
    }
    Ok((open_side(feed, side, Start::First)?, None))
}

/// Leaves out ends in topics that are gone.
///
/// # Errors
/// `Transient` if a topic was made again since the reader was opened.
pub(super) fn drop_foreign(
    watermark: &mut Watermark,
    partitions: &mut Partitions,
    is_old: bool,
) -> Result<()> {
    let mut made_again = None;
    watermark.ends.retain(|(topic, _), end| {
        let same = partitions.is_same(topic, end.topic_id);
        let forgiven = is_old && partitions.is_verified(topic);
        if !same && !forgiven {
            made_again = Some(topic.clone());
        }
        same
    });
    match made_again {
        Some(topic) => Err(Error::transient(format!("topic {topic} was made again; reading it anew"))),
        None => Ok(()),
    }
}
