//! Group offsets for Kafka's tools: never relied on, the sink stores its own.
//!
//! What a sink has stored ends with its last record; behind it lie commit markers, which tools would show as a lag for ever.
//! So where a partition's reader has seen no record at or above the stored offset, its position is published.

use super::lanes::Tails;
use crate::group::{Member, Partition};
use caudal_core::LogPosition;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

/// What has been published, and what is durable.
pub(super) struct Publication {
    member: Arc<Member>,
    tails: Tails,
    durable: BTreeMap<Partition, i64>,
    published: BTreeMap<Partition, i64>,
}

impl Publication {
    /// Through a member of the group.
    pub(super) fn new(member: Arc<Member>, tails: Tails) -> Self {
        Self { member, tails, durable: BTreeMap::new(), published: BTreeMap::new() }
    }

    /// A position has become durable; gives all offsets that are.
    pub(super) fn durable(&mut self, position: &LogPosition) -> &BTreeMap<Partition, i64> {
        for offset in &position.offsets {
            self.durable.insert((offset.topic.to_string(), offset.partition), offset.offset);
        }
        self.refresh();
        &self.durable
    }

    /// Publishes what has changed.
    pub(super) fn refresh(&mut self) {
        let mut changed = Vec::new();
        {
            let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
            for (partition, &durable) in &self.durable {
                let tail = tails.get(&(Arc::from(partition.0.as_str()), partition.1)).copied();
                let offset = beyond_markers(durable, tail);
                if self.published.get(partition) != Some(&offset) {
                    changed.push((partition.clone(), offset));
                }
            }
        }
        self.published.extend(changed.iter().cloned());
        self.member.publish(changed.into_iter());
    }
}

/// The position, if no record lies between the durable offset and it.
fn beyond_markers(durable: i64, tail: Option<(i64, i64)>) -> i64 {
    match tail {
        Some((seen, position)) if seen <= durable => durable.max(position),
        _ => durable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_behind_the_last_record_are_not_a_lag() {
        assert_eq!(beyond_markers(3, Some((3, 4))), 4);
    }

    #[test]
    fn what_is_read_and_not_yet_durable_is_a_lag() {
        assert_eq!(beyond_markers(3, Some((5, 6))), 3);
        assert_eq!(beyond_markers(3, None), 3);
    }
}
