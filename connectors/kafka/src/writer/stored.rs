//! What the log knows of a source from before: its position and notes, and the shapes of its tables.

use crate::replay::Replayer;
use caudal_core::{Error, Result, SourcePosition, TableSchema};
use caudal_proto::side::{EpochRecord, PositionRecord, SchemaRecord, TopicNames, VERSION};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use uuid::Uuid;

/// All that the log knows of a source.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) position: StoredPosition,
    /// The source's topics by name.
    pub(crate) topics: BTreeMap<String, StoredTopic>,
}

impl Stored {
    /// Reads the source's partitions of `positions` and `schemas`. After `init_transactions` only: before it, a transaction
    /// of the displaced writer may still be undecided.
    pub(crate) fn read(
        replayer: &mut Replayer,
        names: &TopicNames,
        (source, number): (&str, i32),
        patience: Duration,
    ) -> Result<Self> {
        let mut stored = Self::default();
        let partitions = [(names.positions(), number), (names.schemas(), number)];
        replayer.replay(&partitions, patience, |i, (key, value, _)| match i {
            0 => stored.position.take(source, key, value),
            _ => {
                stored.take_shape(source, value);
                Ok(())
            }
        })?;
        Ok(stored)
    }

    fn take_shape(&mut self, source: &str, value: Option<&[u8]>) {
        let Some(record) = value.and_then(|v| serde_json::from_slice::<SchemaRecord>(v).ok()) else { return };
        if record.source != source {
            return;
        }
        let stored = self.topics.entry(record.topic).or_insert_with(|| StoredTopic {
            partitions: record.partitions,
            id: record.topic_id,
            shapes: HashMap::new(),
        });
        if stored.id != record.topic_id {
            // The topic was made anew: what the old one held is gone, its shapes too.
            stored.shapes.clear();
        }
        stored.partitions = record.partitions;
        stored.id = record.topic_id;
        stored.shapes.insert(record.schema.version, record.schema);
    }
}

/// The last committed position of a source.
#[derive(Debug, Default)]
pub(crate) struct StoredPosition {
    pub(crate) record: Option<PositionRecord>,
    /// The last writer at least once; 0: there was none.
    claimed: u64,
    notes: BTreeMap<String, Option<String>>,
}

impl StoredPosition {
    fn take(&mut self, source: &str, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let Some(rest) = key.strip_prefix(source.as_bytes()) else { return Ok(()) };
        match (rest, value) {
            ([], Some(value)) => {
                let record: PositionRecord = serde_json::from_slice(value).map_err(|e| {
                    Error::config(format!("the stored position of {source} is unreadable")).because(e)
                })?;
                if record.v > VERSION {
                    return Err(Error::config(format!(
                        "the stored position of {source} is of a newer Caudal"
                    ))
                    .hint("run at least that version"));
                }
                self.record = Some(record);
            }
            (b"#epoch", Some(value)) => {
                // What cannot be read is no claim of a release that this one follows.
                let claim = serde_json::from_slice::<EpochRecord>(value);
                self.claimed = claim.map_or(self.claimed, |claim| claim.epoch.max(self.claimed));
            }
            ([b'/', name @ ..], value) => {
                let name = String::from_utf8_lossy(name).into_owned();
                match value {
                    Some(value) => {
                        self.notes.insert(name, Some(String::from_utf8_lossy(value).into_owned()));
                    }
                    None => {
                        self.notes.remove(&name);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The number of the writer that takes over now.
    pub(crate) fn epoch(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.epoch).max(self.claimed) + 1
    }

    /// Where the source resumes.
    pub(crate) fn position(&self) -> Option<SourcePosition> {
        let record = self.record.as_ref()?;
        Some(SourcePosition { token: record.token.clone(), notes: self.notes.clone() })
    }
}

/// One topic of the source, as `schemas` tells it.
#[derive(Debug)]
pub(crate) struct StoredTopic {
    pub(crate) partitions: u32,
    pub(crate) id: Uuid,
    pub(crate) shapes: HashMap<u32, TableSchema>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_note_replaces_and_a_tombstone_deletes() {
        let mut stored = StoredPosition::default();
        let record = PositionRecord {
            v: 1,
            token: "p".into(),
            touched: BTreeMap::new(),
            watermark: 3,
            epoch: 2,
            transaction: None,
        };
        stored.take("plex", b"plex/a", Some(b"1")).unwrap();
        stored.take("plex", b"plex/b", Some(b"2")).unwrap();
        stored.take("plex", b"plex", Some(&serde_json::to_vec(&record).unwrap())).unwrap();
        stored.take("plex", b"plex/a", None).unwrap();
        let position = stored.position().unwrap();
        assert_eq!(position.token, "p");
        assert_eq!(position.notes, BTreeMap::from([("b".into(), Some("2".into()))]));
    }

    #[test]
    fn a_position_of_a_newer_format_is_refused() {
        let record = PositionRecord {
            v: 99,
            token: "p".into(),
            touched: BTreeMap::new(),
            watermark: 3,
            epoch: 2,
            transaction: None,
        };
        let value = serde_json::to_vec(&record).unwrap();
        assert!(StoredPosition::default().take("plex", b"plex", Some(&value)).is_err());
    }
}
