//! The shapes of tables, followed from `caudal.<prefix>.schemas`.
//!
//! Which shape a record has follows from where it lies: the newest version that begins at or before its offset. A schema
//! record is committed with the first row that has its shape, so a reader that has followed this topic to its end (as asked
//! *after* it saw the watermark above that row) knows every shape that it needs. Memory: one shape for each version.

use caudal_core::{Error, Result, TableSchema};
use caudal_proto::side::{SchemaRecord, VERSION};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// All shapes of all tables, by topic.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    topics: HashMap<String, Topic>,
    changes: u64,
}

#[derive(Debug)]
struct Topic {
    id: Uuid,
    source: String,
    partitions: u32,
    versions: BTreeMap<u32, Version>,
}

#[derive(Debug)]
struct Version {
    from: HashMap<i32, i64>,
    schema: Arc<TableSchema>,
}

/// The shapes of one partition, oldest first: (first offset, shape).
pub(crate) type Shapes = Vec<(i64, Arc<TableSchema>)>;

impl Schemas {
    /// Takes one record of the topic, as it lies there.
    ///
    /// # Errors
    /// Fault `Data` if it is no schema record: going on would decode rows by a guess.
    pub(crate) fn take(&mut self, value: Option<&[u8]>, offset: i64) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let record: SchemaRecord = serde_json::from_slice(value)
            .map_err(|e| Error::data(format!("read the schema record at offset {offset}")).because(e))?;
        if record.v > VERSION {
            return Err(Error::config(format!(
                "the schema record at offset {offset} has format {}",
                record.v
            ))
            .hint("a newer release wrote it: upgrade this instance"));
        }
        self.insert(record);
        Ok(())
    }

    /// Takes a record. One of another topic id starts the topic afresh.
    pub(crate) fn insert(&mut self, record: SchemaRecord) {
        self.changes += 1;
        let is_another =
            |known: &Topic| !record.topic_id.is_nil() && !known.id.is_nil() && known.id != record.topic_id;
        if self.topics.get(&record.topic).is_some_and(is_another) {
            self.topics.remove(&record.topic);
        }
        let topic = self.topics.entry(record.topic).or_insert_with(|| Topic {
            id: record.topic_id,
            source: String::new(),
            partitions: 0,
            versions: BTreeMap::new(),
        });
        if !record.topic_id.is_nil() {
            topic.id = record.topic_id;
        }
        topic.source = record.source;
        topic.partitions = record.partitions;
        let version = Version { from: record.from.into_iter().collect(), schema: Arc::new(record.schema) };
        topic.versions.insert(version.schema.version, version);
    }

    /// Grows with each record taken: tells whether [`Schemas::shapes`] may give something new.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The shapes of one partition; empty for a topic that is not known.
    pub(crate) fn shapes(&self, topic: &str, partition: i32) -> Shapes {
        let Some(topic) = self.topics.get(topic) else { return Vec::new() };
        let from = |version: &Version| version.from.get(&partition).copied();
        let mut shapes: Shapes =
            topic.versions.values().filter_map(|v| Some((from(v)?, Arc::clone(&v.schema)))).collect();
        // By offset, and where two begin at one offset (no row of the first was ever written) by version.
        shapes.sort_by_key(|(from, _)| *from);
        shapes
    }

    /// Over how many partitions a topic's keys are spread; 1 for one that is not known.
    pub(crate) fn spread(&self, topic: &str) -> u32 {
        self.topics.get(topic).map_or(1, |topic| topic.partitions)
    }

    /// The source that writes a topic.
    pub(crate) fn source(&self, topic: &str) -> Option<&str> {
        self.topics.get(topic).map(|topic| topic.source.as_str())
    }

    /// The newest shape of a topic's table.
    pub(crate) fn newest(&self, topic: &str) -> Option<Arc<TableSchema>> {
        let newest = self.topics.get(topic)?.versions.values().next_back()?;
        Some(Arc::clone(&newest.schema))
    }

    /// The newest shape of each table of a source.
    pub(crate) fn tables(&self, source: &str) -> impl Iterator<Item = &TableSchema> {
        let topics = self.topics.values().filter(move |topic| topic.source == source);
        topics.filter_map(|topic| topic.versions.values().next_back()).map(|version| version.schema.as_ref())
    }

    /// The topics of a source, and over how many partitions its keys are spread.
    pub(crate) fn topics(&self, source: &str) -> impl Iterator<Item = (&str, u32)> {
        let topics = self.topics.iter().filter(move |(_, topic)| topic.source == source);
        topics.map(|(name, topic)| (name.as_str(), topic.partitions))
    }
}

/// The shape in force at an offset.
pub(crate) fn at(shapes: &Shapes, offset: i64) -> Option<&Arc<TableSchema>> {
    number_at(shapes, offset).map(|number| &shapes[number].1)
}

/// Its place among the shapes.
pub(crate) fn number_at(shapes: &Shapes, offset: i64) -> Option<usize> {
    shapes.partition_point(|(from, _)| *from <= offset).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::{KeyKind, TableId};

    fn record(version: u32, from: i64, id: u128) -> SchemaRecord {
        let schema = TableSchema {
            id: TableId::new("db", "t"),
            version,
            generation: 1,
            columns: Vec::new(),
            key: Vec::new(),
            key_kind: KeyKind::None,
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            charset: None,
            comment: None,
        };
        SchemaRecord {
            v: VERSION,
            source: "s".into(),
            topic: "p.db.t".into(),
            topic_id: Uuid::from_u128(id),
            partitions: 1,
            from: vec![(0, from)],
            position: String::new(),
            schema,
        }
    }

    fn version_at(schemas: &Schemas, offset: i64) -> Option<u32> {
        at(&schemas.shapes("p.db.t", 0), offset).map(|s| s.version)
    }

    #[test]
    fn a_record_has_the_newest_shape_that_begins_at_or_before_it() {
        let mut schemas = Schemas::default();
        for record in [record(1, 0, 7), record(2, 10, 7), record(3, 10, 7)] {
            schemas.insert(record);
        }
        assert_eq!([0, 9, 10, 99].map(|o| version_at(&schemas, o)), [Some(1), Some(1), Some(3), Some(3)]);
    }

    #[test]
    fn a_recreated_topic_forgets_the_shapes_of_the_old_one() {
        let mut schemas = Schemas::default();
        schemas.insert(record(5, 0, 7));
        schemas.insert(record(1, 0, 8));
        assert_eq!(version_at(&schemas, 3), Some(1));
    }

    #[test]
    fn a_record_that_tells_no_topic_id_forgets_nothing() {
        let mut schemas = Schemas::default();
        for record in [record(1, 0, 7), record(2, 10, 0), record(3, 20, 7)] {
            schemas.insert(record);
        }
        assert_eq!([5, 15, 25].map(|o| version_at(&schemas, o)), [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn a_damaged_schema_record_is_an_error_and_not_a_guess() {
        assert!(Schemas::default().take(Some(b"{}"), 3).is_err());
    }
}
