//! What sinks have stored of the log, translated and stored again.

use super::marks::Book;
use super::sides::Sides;
use crate::replay::Partition;
use caudal_core::{Batch, LogOffset, LogPosition, Position, Result, Sink};
use caudal_proto::side::TopicNames;
use std::collections::BTreeMap;
use std::sync::Arc;

/// By sink.
pub(super) type Stored = BTreeMap<String, LogPosition>;

/// What each sink stores; those that store nothing are left out.
///
/// # Errors
/// As the sinks give them.
pub(super) async fn stored(sinks: &[(String, Arc<dyn Sink>)]) -> Result<Stored> {
    let mut stored = Stored::new();
    for (name, sink) in sinks {
        let mut writer = sink.open().await?;
        if let Some(Position::Log(position)) = writer.resume().await? {
            stored.insert(name.clone(), position);
        }
    }
    Ok(stored)
}

/// Has the stored offsets translated.
pub(super) fn want(stored: &Stored, names: &TopicNames, book: &mut Book) {
    for (sink, position) in stored {
        for offset in &position.offsets {
            book.want(&place(sink, offset, names), offset.offset);
        }
    }
}

/// Moves the sinks; gives those that go on where they were. What a sink has stored of other topics than these stays.
///
/// # Errors
/// As the sinks give them: `Fenced` if one is in use.
pub(super) async fn moved(
    sinks: &[(String, Arc<dyn Sink>)],
    stored: &Stored,
    names: &TopicNames,
    book: &Book,
) -> Result<Vec<String>> {
    let mut moved = Vec::new();
    for (name, sink) in sinks.iter().filter(|(name, _)| stored.contains_key(name)) {
        let mut writer = sink.open().await?;
        let Some(Position::Log(now)) = writer.resume().await? else { continue };
        let offsets: Vec<LogOffset> =
            now.offsets.iter().filter_map(|offset| translated(name, offset, names, book)).collect();
        if offsets.is_empty() {
            continue;
        }
        let mut batch = Batch::empty(Position::Log(LogPosition { offsets }));
        writer.write(&mut batch).await?;
        writer.commit().await?;
        moved.push(name.clone());
    }
    Ok(moved)
}

/// The partition that an offset is of. Those under the dead letters' topic have numbers of their own, and lie in its only partition.
fn place(sink: &str, offset: &LogOffset, names: &TopicNames) -> Partition {
    let topic = offset.topic.to_string();
    let partition = if topic == names.dead_letters(sink) { 0 } else { offset.partition };
    (topic, partition)
}

fn translated(sink: &str, offset: &LogOffset, names: &TopicNames, book: &Book) -> Option<LogOffset> {
    let partition = place(sink, offset, names);
    let topic_id = book.id(&partition.0, offset.topic_id)?;
    // Of the watermarks there is one, which a sink that has shown it passes at once.
    let anew = Sides::topics(names).contains(&partition.0);
    let moved = if anew { 0 } else { book.of(&partition, offset.offset)? };
    let topic_id = if offset.topic_id.is_nil() { offset.topic_id } else { topic_id };
    Some(LogOffset { offset: moved, topic_id, leader_epoch: -1, ..offset.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn offsets_of_another_topic_of_the_name_stay_as_they_are() {
        let names = TopicNames::new("p");
        let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let topics = ["p.d.t", "caudal.p.watermarks", "caudal.p.dlq.dash"];
        let mut book = Book::new(topics.iter().map(|t| ((*t).to_owned(), (old, new))).collect());
        let at = |topic: &str, topic_id, partition| LogOffset {
            topic: topic.into(),
            topic_id,
            partition,
            offset: 7,
            leader_epoch: 3,
            as_of_ms: 9,
            unswept: true,
            writer_epoch: 5,
        };
        let position = LogPosition {
            offsets: vec![
                at("p.d.t", old, 0),
                at("p.d.t", Uuid::from_u128(8), 1),
                at("caudal.p.watermarks", old, 3),
                at("caudal.p.dlq.dash", Uuid::nil(), 12_345),
            ],
        };
        want(&BTreeMap::from([("dash".to_owned(), position.clone())]), &names, &mut book);
        for partition in [("p.d.t".to_owned(), 0), ("caudal.p.dlq.dash".to_owned(), 0)] {
            (0..6).for_each(|offset| book.pass(&partition, offset));
            book.end(&partition);
        }
        let moved: Vec<_> =
            position.offsets.iter().filter_map(|o| translated("dash", o, &names, &book)).collect();
        assert_eq!(moved.len(), 3);
        assert_eq!((moved[0].offset, moved[0].topic_id), (6, new));
        assert_eq!((moved[0].as_of_ms, moved[0].unswept, moved[0].writer_epoch), (9, true, 5));
        assert_eq!((moved[1].partition, moved[1].offset), (3, 0));
        assert_eq!((moved[2].partition, moved[2].offset, moved[2].topic_id), (12_345, 6, Uuid::nil()));
    }
}
