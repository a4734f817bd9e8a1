//! The side topics of sources: positions, watermarks, shapes.

use super::marks::Book;
use crate::client::Clients;
use crate::faults::classify;
use crate::replay::{Partition, Replayer};
use crate::topic_ids::TopicIds;
use crate::writer::polled::Polled;
use crate::writer::deliveries::NO_SLOT;
use crate::writer::session::{made_for, settings_for};
use caudal_core::{Error, Result};
use caudal_proto::side::{PositionRecord, SchemaRecord, TopicEnds, TopicNames, WatermarkRecord};
use rdkafka::producer::{BaseRecord, Producer};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(600);

/// What the side topics tell of all sources.
#[derive(Default)]
pub(super) struct Sides {
    sources: Vec<Source>,
    /// Side topics that are written anew, with their partitions of sources.
    partitions: Vec<Partition>,
}

/// One source.
struct Source {
    name: String,
    number: i32,
    position: Option<PositionRecord>,
    /// Notes and claims, by key.
    notes: BTreeMap<Vec<u8>, Vec<u8>>,
    schemas: Vec<SchemaRecord>,
    /// The last one, with the ends of all partitions.
    watermark: Option<WatermarkRecord>,
}

impl Sides {
    /// The topics that are not copied but written anew.
    pub(super) fn topics(names: &TopicNames) -> [String; 3] {
        [names.positions(), names.watermarks(), names.schemas()]
    }

    /// Reads those of a log whose topics have the ids `now`. What tells of a topic that is gone is left out.
    pub(super) fn read(
        reader: &mut Replayer,
        names: &TopicNames,
        numbers: &BTreeMap<String, i32>,
        now: &TopicIds,
    ) -> Result<Self> {
        let mut all = Self::default();
        let is_there = |topic: &str, id: Uuid| now.get(topic).is_some_and(|now| id.is_nil() || id == *now);
        for (name, &number) in numbers {
            let partitions = Self::topics(names).map(|topic| (topic, number));
            let mut source = Source {
                name: name.clone(),
                number,
                position: None,
                notes: BTreeMap::new(),
                schemas: Vec::new(),
                watermark: None,
            };
            reader.replay(&partitions, PATIENCE, |i, (key, value, _)| match i {
                0 => source.take_position(key, value),
                1 => source.take_watermark(value, is_there),
                _ => source.take_schema(value, is_there),
            })?;
            all.partitions.extend(partitions);
            all.sources.push(source);
        }
        Ok(all)
    }

    /// The sources that have a position.
    pub(super) fn sources(&self) -> Vec<String> {
        let stored = self.sources.iter().filter(|source| source.position.is_some());
        stored.map(|source| source.name.clone()).collect()
    }

    /// The partitions that are written anew.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.partitions.clone()
    }

    /// The data topics, and whether their records have keys.
    pub(super) fn tables(&self) -> HashMap<String, bool> {
        let schemas = self.sources.iter().flat_map(|source| &source.schemas);
        schemas.map(|record| (record.topic.clone(), !record.schema.key.is_empty())).collect()
    }

    /// Has the offsets translated that the records hold.
    pub(super) fn want(&self, book: &mut Book) {
        for source in &self.sources {
            for record in &source.schemas {
                for (partition, offset) in &record.from {
                    book.want(&(record.topic.clone(), *partition), *offset);
                }
            }
            let touched = source.position.iter().flat_map(|position| &position.touched);
            for (topic, ends) in touched {
                ends.iter().for_each(|(partition, end)| book.want(&(topic.clone(), *partition), *end));
            }
            let ends = source.watermark.iter().flat_map(|watermark| &watermark.ends);
            for (topic, TopicEnds { ends, .. }) in ends {
                ends.iter().for_each(|(partition, end)| book.want(&(topic.clone(), *partition), *end));
            }
        }
    }

    /// Writes the records with the offsets of the copy: shapes, watermarks, and positions last.
    ///
    /// # Errors
    /// As the brokers give them.
    pub(super) fn write(&self, to: &Clients, names: &TopicNames, book: &mut Book) -> Result<()> {
        let producer = made_for(&settings_for(to, "export"), "export", (Arc::default(), to.quiet()))?;
        let mut out = Out { producer: &producer, sent: 0 };
        let [positions, watermarks, schemas] = Self::topics(names);
        for source in &self.sources {
            for record in &source.schemas {
                let key = format!("{}/{}", record.topic, record.schema.version);
                out.json(&(schemas.clone(), source.number), &key, &translated_schema(record, book))?;
            }
            if let Some(watermark) = &source.watermark {
                let record = translated_watermark(watermark, book);
                out.json(&(watermarks.clone(), source.number), &source.name, &record)?;
            }
        }
        out.delivered()?;
        for source in &self.sources {
            let partition = (positions.clone(), source.number);
            for (key, value) in &source.notes {
                out.raw(&partition, key, value)?;
            }
            if let Some(position) = &source.position {
                out.json(&partition, &source.name, &translated_position(position, book))?;
            }
        }
        out.delivered()
    }
}

impl Source {
    fn take_position(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        match value {
            Some(value) if key == self.name.as_bytes() => {
                let read = serde_json::from_slice(value);
                let what = || format!("read the position of {}", self.name);
                self.position = Some(read.map_err(|e| Error::data(what()).because(e))?);
            }
            Some(value) => drop(self.notes.insert(key.to_vec(), value.to_vec())),
            None => drop(self.notes.remove(key)),
        }
        Ok(())
    }

    fn take_schema(&mut self, value: Option<&[u8]>, is_there: impl Fn(&str, Uuid) -> bool) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let what = || format!("read a shape of {}", self.name);
        let record: SchemaRecord =
            serde_json::from_slice(value).map_err(|e| Error::data(what()).because(e))?;
        if record.source == self.name && is_there(&record.topic, record.topic_id) {
            self.schemas.push(record);
        }
        Ok(())
    }

    /// Adds up the ends that watermarks tell, from a full one on.
    fn take_watermark(&mut self, value: Option<&[u8]>, is_there: impl Fn(&str, Uuid) -> bool) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let what = || format!("read a watermark of {}", self.name);
        let mut record: WatermarkRecord =
            serde_json::from_slice(value).map_err(|e| Error::data(what()).because(e))?;
        record.ends.retain(|topic, ends| is_there(topic, ends.id));
        let before = self.watermark.take();
        if before.is_none() && !record.full {
            return Ok(());
        }
        let mut ends = before.map(|before| before.ends).unwrap_or_default();
        for (topic, new) in record.ends {
            let known = ends.entry(topic).or_insert_with(|| TopicEnds { id: new.id, ends: Vec::new() });
            known.id = new.id;
            for (partition, end) in new.ends {
                match known.ends.iter_mut().find(|(known, _)| *known == partition) {
                    Some((_, old)) => *old = end,
                    None => known.ends.push((partition, end)),
                }
            }
        }
        self.watermark = Some(WatermarkRecord { ends, full: true, ..record });
        Ok(())
    }
}

fn translated_schema(record: &SchemaRecord, book: &Book) -> SchemaRecord {
    SchemaRecord {
        topic_id: book.id(&record.topic, record.topic_id).unwrap_or_default(),
        from: translated(&record.topic, &record.from, book),
        ..record.clone()
    }
}

fn translated_watermark(record: &WatermarkRecord, book: &Book) -> WatermarkRecord {
    let ends = record.ends.iter().filter_map(|(topic, of_topic)| {
        let id = book.id(topic, of_topic.id)?;
        Some((topic.clone(), TopicEnds { id, ends: translated(topic, &of_topic.ends, book) }))
    });
    WatermarkRecord { ends: ends.collect(), ..record.clone() }
}

fn translated_position(record: &PositionRecord, book: &Book) -> PositionRecord {
    let touched = record.touched.iter().filter(|(topic, _)| book.id(topic, Uuid::nil()).is_some());
    let touched = touched.map(|(topic, ends)| (topic.clone(), translated(topic, ends, book)));
    PositionRecord { touched: touched.collect(), ..record.clone() }
}

fn translated(topic: &str, offsets: &[(i32, i64)], book: &Book) -> Vec<(i32, i64)> {
    let one = |(partition, offset): &(i32, i64)| {
        Some((*partition, book.of(&(topic.to_owned(), *partition), *offset)?))
    };
    offsets.iter().filter_map(one).collect()
}

/// Writes records whose offsets do not matter.
struct Out<'a> {
    producer: &'a Polled,
    sent: u64,
}

impl Out<'_> {
    fn json<T: serde::Serialize>(&mut self, to: &Partition, key: &str, record: &T) -> Result<()> {
        let value = serde_json::to_vec(record)
            .map_err(|e| Error::bug(format!("encode a record of {}", to.0)).because(e))?;
        self.raw(to, key.as_bytes(), &value)
    }

    fn raw(&mut self, (topic, partition): &Partition, key: &[u8], value: &[u8]) -> Result<()> {
        let record = BaseRecord::with_opaque_to(topic, NO_SLOT).partition(*partition).key(key).payload(value);
        self.producer.send(record).map_err(|(e, _)| classify(e, format!("write to {topic}")))?;
        self.sent += 1;
        // The queue holds more than that.
        if self.sent.is_multiple_of(1_000) { self.delivered() } else { Ok(()) }
    }

    fn delivered(&self) -> Result<()> {
        match self.producer.context().wait(self.sent, PATIENCE) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::transient("the brokers did not take the records in time")),
            Err(e) => Err(classify(e, "write the side topics")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermarks::tests::record_of;

    #[test]
    fn the_last_watermark_is_told_with_the_ends_of_all_since_a_full_one() {
        let mut source = Source {
            name: "s".into(),
            number: 0,
            position: None,
            notes: BTreeMap::new(),
            schemas: Vec::new(),
            watermark: None,
        };
        let here = |topic: &str, _: Uuid| topic != "gone";
        source.take_watermark(Some(&record_of(1, false, &[("x", 1)], 7)), here).unwrap();
        assert!(source.watermark.is_none(), "what lies below it is not known");
        for record in
            [record_of(2, true, &[("t", 3), ("u", 8), ("gone", 2)], 7), record_of(3, false, &[("t", 5)], 7)]
        {
            source.take_watermark(Some(&record), here).unwrap();
        }
        let last = source.watermark.unwrap();
        let ends: Vec<_> = last.ends.iter().map(|(t, e)| (t.as_str(), e.ends[0])).collect();
        assert_eq!((last.number, last.full, ends), (3, true, vec![("t", (0, 5)), ("u", (0, 8))]));
    }
}
