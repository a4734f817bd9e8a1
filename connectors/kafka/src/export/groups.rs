//! The offsets that consumer groups have committed: those of sinks, for Kafka's tools, and of whoever else reads the topics.

use super::marks::Book;
use super::sides::Sides;
use crate::client::{Clients, Quiet, REQUEST_TIMEOUT, serve};
use crate::faults::classify;
use crate::replay::Partition;
use caudal_core::{Error, Result};
use caudal_proto::side::TopicNames;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// By group: the next offset of each partition.
pub(super) type Groups = BTreeMap<String, BTreeMap<Partition, i64>>;

/// How long a new cluster may take to be ready for groups.
const PATIENCE: Duration = Duration::from_secs(60);

fn member(clients: &Clients, group: &str) -> Result<BaseConsumer<Quiet>> {
    let mut config = clients.base("export");
    config.set("group.id", group).set("enable.auto.commit", "false");
    let member: BaseConsumer<Quiet> = config
        .create_with_context(clients.quiet())
        .map_err(|e| classify(e, format!("ask for the group {group}")))?;
    serve(&member)?;
    Ok(member)
}

/// What groups have committed in these partitions.
pub(super) fn read(from: &Clients, partitions: &[Partition]) -> Result<Groups> {
    let mut groups = Groups::new();
    if partitions.is_empty() {
        return Ok(groups);
    }
    let listed = member(from, "export")?
        .fetch_group_list(None, REQUEST_TIMEOUT)
        .map_err(|e| classify(e, "list the groups"))?;
    for name in listed.groups().iter().map(|group| group.name()) {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition(topic, *partition);
        }
        let what = || format!("ask for the offsets of the group {name}");
        let committed =
            member(from, name)?.committed_offsets(list, REQUEST_TIMEOUT).map_err(|e| classify(e, what()))?;
        let elements = committed.elements();
        let offsets: BTreeMap<Partition, i64> = elements
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some(((element.topic().to_owned(), element.partition()), offset)),
                _ => None,
            })
            .collect();
        if !offsets.is_empty() {
            groups.insert(name.to_owned(), offsets);
        }
    }
    Ok(groups)
}

/// Commits them there, translated. Side topics that were written anew have been read: their offsets are left out.
pub(super) fn write(to: &Clients, groups: &Groups, book: &Book, names: &TopicNames) -> Result<()> {
    let anew = Sides::topics(names);
    for (group, offsets) in groups {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets.iter().filter(|((topic, _), _)| !anew.contains(topic)) {
            let Some(offset) = book.of(partition, *offset) else { continue };
            list.add_partition_offset(&partition.0, partition.1, Offset::Offset(offset))
                .map_err(|e| classify(e, format!("commit the offsets of {group}")))?;
        }
        if list.count() > 0 {
            commit(&member(to, group)?, group, &list)?;
        }
    }
    Ok(())
}

fn commit(consumer: &BaseConsumer<Quiet>, group: &str, list: &TopicPartitionList) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match consumer.commit(list, CommitMode::Sync) {
            Ok(()) => return Ok(()),
            Err(e) => classify(e, format!("commit the offsets of the group {group}")),
        };
        if error.fault() != caudal_core::Fault::Transient || Instant::now() > deadline {
            return Err(Error::hint(error, "is a member of that group running on the cluster? Stop it"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
