//! Records of partitions, in order, with their times and headers.

use super::letters;
use super::marks::Book;
use super::{Progress, Told};
use crate::client::Clients;
use crate::faults::classify;
use crate::replay::{Partition, Replayer};
use crate::writer::polled::Polled;
use crate::writer::deliveries::Delivered;
use crate::writer::session::{made_for, settings_for};
use caudal_core::{Error, Result};
use caudal_proto::side::TopicNames;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseRecord, Producer};
use std::sync::Arc;
use std::time::Duration;

/// Partitions that are read at a time.
pub(super) const AT_ONCE: usize = 16;
/// Bound on copying so many partitions.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bound on the brokers' taking of what is in flight.
const DELIVERY: Duration = Duration::from_secs(120);
/// How often it is told how far it is, in records.
const TELL_EVERY: u64 = 10_000;

/// Copies partitions of one log to another.
pub(super) struct Copier {
    reader: Replayer,
    producer: Polled,
    progress: Progress,
    told: Told,
}

impl Copier {
    pub(super) fn new(from: &Clients, to: &Clients, partitions: u64, told: Told) -> Result<Self> {
        let producer = made_for(&settings_for(to, "export"), "export", (Arc::default(), to.quiet()))?;
        let progress = Progress { partitions, ..Progress::default() };
        Ok(Self { reader: Replayer::new(from, "export"), producer, progress, told })
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// Copies partitions into the empty ones of the same name. `letters`: they hold dead letters, of the topics of these names.
    ///
    /// # Errors
    /// As either log gives them; `Bug` if a record did not get the offset that was counted for it: somebody else writes there.
    pub(super) fn copy(
        &mut self,
        partitions: &[Partition],
        book: &mut Book,
        letters: Option<&TopicNames>,
    ) -> Result<()> {
        for some in partitions.chunks(AT_ONCE) {
            let deliveries = self.producer.context();
            deliveries.reset();
            let (producer, progress, told) = (&self.producer, &mut self.progress, &self.told);
            let mut sent = 0;
            self.reader.messages(some, PATIENCE, |i, message| {
                send(producer, (&some[i], i), message, book, letters.is_some())?;
                book.pass(&some[i], message.offset());
                sent += 1;
                progress.records += 1;
                progress.bytes += (message.key_len() + message.payload_len()) as u64;
                if progress.records.is_multiple_of(TELL_EVERY) {
                    told(*progress);
                }
                Ok(())
            })?;
            match deliveries.wait(sent, DELIVERY) {
                Ok(true) => {}
                Ok(false) => return Err(Error::transient("the brokers did not take the records in time")),
                Err(e) => return Err(classify(e, "copy records")),
            }
            for (i, partition) in some.iter().enumerate() {
                let copied = book.end(partition);
                let wanted = Delivered { first: 0, last: copied - 1, count: copied as u64 };
                if copied > 0 && deliveries.slot(i) != wanted {
                    let (topic, partition) = partition;
                    return Err(Error::config(format!(
                        "somebody else writes to {topic}/{partition} of the cluster while it is filled"
                    ))
                    .hint("stop whoever it is, delete the topics, and export again"));
                }
            }
            self.progress.done += some.len() as u64;
            (self.told)(self.progress);
        }
        Ok(())
    }
}

fn send(
    producer: &Polled,
    ((topic, partition), slot): (&Partition, usize),
    message: &BorrowedMessage<'_>,
    book: &Book,
    is_letter: bool,
) -> Result<()> {
    let letter = if is_letter { letters::translated(message, book) } else { None };
    let mut record: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(topic, slot).partition(*partition);
    record.key = letter.as_ref().map_or(message.key(), |(key, _)| Some(key.as_bytes()));
    record.payload = message.payload();
    record.timestamp = message.timestamp().to_millis();
    let headers = || message.headers().map(rdkafka::message::BorrowedHeaders::detach);
    record.headers = match &letter {
        Some((_, headers)) => Some(headers.clone()),
        None => headers(),
    };
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(Code::QueueFull), same)) => {
                record = same;
                let next = producer.context().reported() + 1;
                let waited = producer.context().wait(next, Duration::from_millis(50));
                waited.map_err(|e| classify(e, format!("copy records to {topic}")))?;
            }
            Err((e, _)) => return Err(classify(e, format!("copy a record to {topic}"))),
        }
    }
}
