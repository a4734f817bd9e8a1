//! The side partitions of sources, and the follower of their tables' shapes.

use super::feed::{Feed, Lane, Polled, Start, Wanted};
use crate::schemas::Schemas;
use caudal_core::{Error, Result};
use std::sync::Arc;
use uuid::Uuid;

/// A side topic's partition and what a sink has stored of it.
#[derive(Clone, Debug)]
pub(super) struct Side {
    /// The topic.
    pub(super) topic: Arc<str>,
    /// Its id; nil where unknown.
    pub(super) topic_id: Uuid,
    /// The partition.
    pub(super) partition: i32,
}

/// The side partitions of one source.
#[derive(Clone, Debug)]
pub(super) struct SourceSides {
    /// The source.
    pub(super) source: String,
    /// Its watermarks.
    pub(super) watermarks: Side,
    /// Its tables' shapes.
    pub(super) schemas: Side,
}

/// The follower of the schemas topic: a partition for each source.
#[derive(Default)]
pub(super) struct Shapes {
    pub(super) store: Schemas,
    /// By source: the lane, and the end asked last.
    lanes: Vec<(Lane, i64)>,
}

impl Shapes {
    /// Follows one more source's partition, from its beginning.
    pub(super) fn open(&mut self, feed: &mut impl Feed, side: &Side) -> Result<()> {
        self.lanes.push((open_side(feed, side, Start::First)?, 0));
        Ok(())
    }

    /// Asks the end of a source's partition: what was committed before now lies below it.
    pub(super) fn aim(&mut self, feed: &mut impl Feed, source: usize) -> Result<()> {
        let (lane, target) = &mut self.lanes[source];
        *target = feed.end(*lane)?;
        Ok(())
    }

    /// Reads towards the end asked last; whether it is reached.
    pub(super) fn follow(&mut self, feed: &mut impl Feed, source: usize) -> Result<bool> {
        let (lane, target) = self.lanes[source];
        loop {
            let mut taken = Ok(());
            let polled = feed.poll(lane, target, &mut |record| {
                taken = self.store.take(record.value, record.offset);
            })?;
            taken?;
            match polled {
                Polled::Taken => {}
                Polled::Reached => return Ok(true),
                Polled::Empty => {
                    feed.locate()?;
                    return Ok(feed.position(lane) >= target);
                }
            }
        }
    }
}

/// Opens one side partition.
pub(super) fn open_side(feed: &mut impl Feed, side: &Side, start: Start) -> Result<Lane> {
    let wanted = Wanted { topic: Arc::clone(&side.topic), partition: side.partition, start };
    let lanes = feed.open(&[wanted])?;
    lanes.first().copied().ok_or_else(|| Error::bug("a feed opened no lane"))
}
