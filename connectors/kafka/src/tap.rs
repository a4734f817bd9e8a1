//! Live records of the data topics, for `caudal tap`: committed ones only, in the order of each partition.

use crate::client::{Clients, Isolation, Quiet, blocking, heals};
use crate::faults::classify;
use crate::log::Log;
use crate::topics::Topics;
use caudal_core::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;

/// Records that wait for the reader of the tap. Beside them: librdkafka's queue of 4 MiB.
const WAITING: usize = 256;
/// How often topics that are new are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tapped {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Milliseconds since the epoch, UTC, as the record has it.
    pub timestamp_ms: Option<i64>,
    /// The key, JSON.
    pub key: Option<Vec<u8>>,
    /// The envelope, JSON; none for a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Where a tap begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TapFrom {
    /// With what is written from now on.
    #[default]
    Now,
    /// With the first record that is there.
    Beginning,
}

/// An open tap. Dropping it closes it.
pub struct Tap {
    records: mpsc::Receiver<Result<Tapped>>,
    /// Keeps the task that looks for new topics alive.
    _looking: tokio::task::JoinHandle<()>,
}

impl Tap {
    /// The next record. Safe to cancel.
    ///
    /// # Errors
    /// What the client gives; the tap is of no use after it.
    pub async fn next(&mut self) -> Result<Tapped> {
        self.records.recv().await.unwrap_or_else(|| Err(Error::transient("the tap was closed")))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self._looking.abort();
    }
}

impl Log {
    /// Taps data topics: those whose name, or whose `database.table`, is one of `tables`; all of this log if there are none.
    /// Topics that come later are tapped from their beginning.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn tap(&self, tables: &[String], from: TapFrom) -> Result<Tap> {
        let choice = Choice { prefix: format!("{}.", self.names.prefix()), tables: tables.to_vec() };
        let topics = Topics::new(&self.clients, "tap")?;
        let first = choice.partitions(&topics).await?;
        let (known, (send, records)) = (first.iter().cloned().collect(), mpsc::channel(WAITING));
        let (new, added) = mpsc::channel(16);
        let offset = if from == TapFrom::Now { Offset::End } else { Offset::Beginning };
        let consumer = open(self.clients.clone(), first, offset).await?;
        std::thread::Builder::new()
            .name("caudal-tap".into())
            .spawn(move || read(&consumer, &send, added))
            .map_err(|e| Error::transient("start the thread of a tap").because(e))?;
        let looking = tokio::spawn(look(choice, topics, known, new));
        Ok(Tap { records, _looking: looking })
    }
}

type Partitions = Vec<(String, i32)>;

/// Which topics are tapped.
struct Choice {
    prefix: String,
    tables: Vec<String>,
}

impl Choice {
    fn takes(&self, topic: &str) -> bool {
        let Some(table) = topic.strip_prefix(&self.prefix) else { return false };
        // `<prefix>.transaction` and the like have no table; neither has the topic of schema changes.
        table.contains('.')
            && (self.tables.is_empty() || self.tables.iter().any(|t| t == table || t == topic))
    }

    async fn partitions(&self, topics: &Topics) -> Result<Partitions> {
        let all = topics.list().await?;
        let taken = all.into_iter().filter(|(name, _)| self.takes(name));
        Ok(taken.flat_map(|(name, t)| (0..t.partitions as i32).map(move |p| (name.clone(), p))).collect())
    }
}

async fn open(clients: Clients, partitions: Partitions, offset: Offset) -> Result<BaseConsumer<Quiet>> {
    blocking(move || {
        let consumer = clients.reader("tap", Isolation::Committed)?;
        add(&consumer, &partitions, offset)?;
        Ok(consumer)
    })
    .await
}

fn add(consumer: &BaseConsumer<Quiet>, partitions: &Partitions, offset: Offset) -> Result<()> {
    if partitions.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, offset).map_err(|e| classify(e, "tap partitions"))?;
    }
    consumer.incremental_assign(&list).map_err(|e| classify(e, "tap partitions"))
}

async fn look(
    choice: Choice,
    topics: Topics,
    mut known: BTreeSet<(String, i32)>,
    new: mpsc::Sender<Partitions>,
) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(all) = choice.partitions(&topics).await else { continue };
        let added: Partitions = all.into_iter().filter(|partition| known.insert(partition.clone())).collect();
        if !added.is_empty() && new.send(added).await.is_err() {
            return;
        }
    }
}

fn read(
    consumer: &BaseConsumer<Quiet>,
    out: &mpsc::Sender<Result<Tapped>>,
    mut added: mpsc::Receiver<Partitions>,
) {
    while !out.is_closed() {
        let item = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => Some(Ok(tapped(&message))),
            None | Some(Err(KafkaError::PartitionEOF(_))) => None,
            Some(Err(error)) if heals(consumer, &error) => None,
            Some(Err(error)) => Some(Err(classify(error, "tap the log"))),
        };
        if item.is_some_and(|item| out.blocking_send(item).is_err()) {
            return;
        }
        if let Ok(partitions) = added.try_recv()
            && let Err(error) = add(consumer, &partitions, Offset::Beginning)
        {
            let _ = out.blocking_send(Err(error));
            return;
        }
    }
}

fn tapped(message: &impl Message) -> Tapped {
    Tapped {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_takes_tables_and_no_side_topics() {
        let all = Choice { prefix: "shop.".into(), tables: Vec::new() };
        assert!(all.takes("shop.db.orders"));
        for other in ["shop", "shop.transaction", "caudal.shop.positions", "other.db.orders"] {
            assert!(!all.takes(other), "{other}");
        }
        let one = Choice { prefix: "shop.".into(), tables: vec!["db.orders".into()] };
        assert!(one.takes("shop.db.orders") && !one.takes("shop.db.lines"));
    }
}
