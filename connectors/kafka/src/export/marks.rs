//! Which offset of the original is which of the copy.

use crate::replay::Partition;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// One partition's translated offsets. An offset stands for the first record at or behind it, for the end if there is none.
#[derive(Debug, Default)]
struct Marks {
    wanted: BTreeSet<i64>,
    found: BTreeMap<i64, i64>,
    /// Records copied.
    copied: i64,
}

impl Marks {
    fn pass(&mut self, offset: i64) {
        while self.wanted.first().is_some_and(|wanted| *wanted <= offset) {
            let Some(wanted) = self.wanted.pop_first() else { break };
            self.found.insert(wanted, self.copied);
        }
        self.copied += 1;
    }

    fn end(&mut self) {
        let end = self.copied;
        self.found.extend(std::mem::take(&mut self.wanted).into_iter().map(|wanted| (wanted, end)));
    }
}

/// All translated offsets, and the topics' ids there and here.
#[derive(Debug, Default)]
pub(super) struct Book {
    partitions: HashMap<Partition, Marks>,
    ids: BTreeMap<String, (Uuid, Uuid)>,
}

impl Book {
    /// Of topics with these ids: of the original, of the copy.
    pub(super) fn new(ids: BTreeMap<String, (Uuid, Uuid)>) -> Self {
        Self { partitions: HashMap::new(), ids }
    }

    /// Has an offset translated. Before its partition is copied.
    pub(super) fn want(&mut self, partition: &Partition, offset: i64) {
        self.partitions.entry(partition.clone()).or_default().wanted.insert(offset);
    }

    /// The record at that offset is copied now.
    pub(super) fn pass(&mut self, partition: &Partition, offset: i64) {
        match self.partitions.get_mut(partition) {
            Some(marks) => marks.pass(offset),
            None => self.partitions.entry(partition.clone()).or_default().pass(offset),
        }
    }

    /// A partition is copied; how many records it has.
    pub(super) fn end(&mut self, partition: &Partition) -> i64 {
        let marks = self.partitions.entry(partition.clone()).or_default();
        marks.end();
        marks.copied
    }

    /// An offset of the copy; none if it was not wanted, or the partition not copied.
    pub(super) fn of(&self, partition: &Partition, offset: i64) -> Option<i64> {
        self.partitions.get(partition)?.found.get(&offset).copied()
    }

    /// The id of the topic that stands for one with this id (nil: any); none for a topic that was not copied, or another one of
    /// its name.
    pub(super) fn id(&self, topic: &str, id: Uuid) -> Option<Uuid> {
        let (old, new) = self.ids.get(topic)?;
        (id.is_nil() || id == *old).then_some(*new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_stands_for_the_first_record_at_or_behind_it() {
        let mut book = Book::default();
        let t = ("t".to_owned(), 0);
        for offset in [0, 3, 5, 6, 9, 12] {
            book.want(&t, offset);
        }
        // Offsets 0 to 3 were deleted, 6 to 8 are a marker and what compaction took, 11 is a marker.
        for offset in [4, 5, 9, 10] {
            book.pass(&t, offset);
        }
        assert_eq!(book.end(&t), 4);
        let translated = [0, 3, 5, 6, 9, 12].map(|offset| book.of(&t, offset));
        assert_eq!(translated, [Some(0), Some(0), Some(1), Some(2), Some(2), Some(4)]);
        assert_eq!(book.of(&t, 4), None, "it was not asked for");
    }

    #[test]
    fn another_topic_of_the_same_name_has_no_place_in_the_copy() {
        let ids = BTreeMap::from([("t".to_owned(), (Uuid::from_u128(1), Uuid::from_u128(2)))]);
        let book = Book::new(ids);
        assert_eq!(book.id("t", Uuid::from_u128(1)), Some(Uuid::from_u128(2)));
        assert_eq!(book.id("t", Uuid::from_u128(9)), None);
        assert_eq!(book.id("u", Uuid::nil()), None);
    }
}
