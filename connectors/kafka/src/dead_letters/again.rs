//! Keys that a sink is asked to apply again, though it never refused them: what `caudal verify --repair` asks for.
//!
//! It is the way of a dead letter that is replayed (`desk.rs` says why that is right): the sink's own reader finds the key's current value in
//! its topic and applies it, between two of its steps, once. A letter is written for it that says so from the beginning. A key that the
//! topic has no record of is deleted: such a key is given in the form `{"id":1}`, which every reader of keys understands, and only where
//! the topic's own keys have it, so that a record that comes meanwhile is found by it.

use super::DeadLetter;
use super::desk::{producer, write};
use super::letter::{REPLAY, TOMBSTONE};
use crate::log::Log;
use crate::murmur2;
use crate::reader::HeldTable;
use crate::topics::{TopicSpec, Topics};
use caudal_core::Result;

impl Log {
    /// Asks a sink to apply the current values of keys of a table again, each with its partition if that is known. Gives the letters that are
    /// gone (see [`Log::letters`]) when it has.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn apply_again(
        &self,
        sink: &str,
        table: &HeldTable,
        keys: &[(Option<i32>, Vec<u8>)],
    ) -> Result<Vec<DeadLetter>> {
        let role = format!("{sink}-dlq-again");
        let spec = TopicSpec::dead_letters(&self.names, sink, self.clients.resolved());
        Topics::new(&self.clients, &role)?.ensure(std::slice::from_ref(&spec)).await?;
        let (topic, producer) = (self.names.dead_letters(sink), producer(&self.clients, &role)?);
        let spans = self.spans(table).await?;
        let mut letters = Vec::with_capacity(keys.len());
        for (partition, key) in keys {
            let partition = partition.unwrap_or_else(|| murmur2::partition(key, table.partitions.max(1)));
            let end = spans.get(partition as usize).map_or(0, |(_, end)| *end);
            let letter = letter(table, (partition, end), key);
            write(&producer, &topic, &letter.id, Some(&letter)).await?;
            letters.push(letter);
        }
        Ok(letters)
    }
}

/// A letter for a key; `end`: the partition's, at which the table has its newest shape.
fn letter(table: &HeldTable, (partition, end): (i32, i64), key: &[u8]) -> DeadLetter {
    let texts = [
        ("caudal.topic", table.topic.to_string().into_bytes()),
        ("caudal.partition", partition.to_string().into_bytes()),
        ("caudal.offset", end.to_string().into_bytes()),
        ("caudal.cause", b"a comparison with the source has found another row in the sink".to_vec()),
        ("caudal.attempts", b"0".to_vec()),
        ("caudal.key", key.to_vec()),
        (TOMBSTONE, b"1".to_vec()),
        (REPLAY, b"1".to_vec()),
    ];
    let all_headers = texts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    DeadLetter {
        id: format!("{}/{partition}/again-{}", table.topic, uuid::Uuid::new_v4()),
        topic: table.topic.to_string(),
        partition,
        offset: end,
        key: Some(key.to_vec()),
        replay: true,
        all_headers,
        ..DeadLetter::default()
    }
}
