//! Events that a sink cannot take, set aside in `caudal.<prefix>.dlq.<sink>`.
//!
//! | part | what |
//! |---|---|
//! | key | `<topic>/<partition>/<offset>`: the event's place in the log, so that setting it aside again writes the same key |
//! | value | the record's value, as it came |
//! | `caudal.key` | the record's key, as it came; missing where it had none |
//! | `caudal.cause`, `caudal.attempts` | why, and how often it was tried |
//! | `caudal.topic`, `caudal.partition`, `caudal.offset` | where it lies |
//! | `caudal.position` | file, position and row in the source; missing for what could not be decoded |
//! | `caudal.tombstone` | there where the record's value was none: a letter without a value would be a letter dropped |
//! | `caudal.replay` | there while somebody wants it applied again (`desk.rs`) |
//! | any other | the record's own headers, as they came |
//!
//! A record without a value under a letter's key says that it was dropped, or applied after all.
//!
//! A letter is acknowledged by all in-sync replicas before [`DeadLetters::put`] returns, and so before the sink's commit
//! passes the event over. A letter may be written twice (a crash between the two), under one key.

mod again;
mod desk;
mod letter;

pub(crate) use desk::{Desk, Desks, Request, follow, producer, write};
pub use letter::DeadLetter;

use crate::client::{Clients, Quiet};
use crate::faults::classify;
use crate::topics::{TopicSpec, Topics};
use async_trait::async_trait;
use caudal_core::{Batch, DeadLetters, Error, Raw, Rejected, Result, Slice};
use caudal_proto::side::TopicNames;
use futures::future::try_join_all;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long a letter may take to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(30);

/// The dead letters of one sink. Connects at the first letter.
pub(crate) struct LogDeadLetters {
    clients: Clients,
    names: TopicNames,
    sink: String,
    producer: OnceCell<FutureProducer<Quiet>>,
    desk: Arc<Desk>,
}

impl LogDeadLetters {
    pub(crate) fn new(clients: Clients, names: TopicNames, sink: &str, desk: Arc<Desk>) -> Self {
        Self { clients, names, sink: sink.to_owned(), producer: OnceCell::new(), desk }
    }

    /// Makes the topic and the producer.
    async fn connect(&self) -> Result<FutureProducer<Quiet>> {
        let role = format!("{}-dlq", self.sink);
        let spec = TopicSpec::dead_letters(&self.names, &self.sink, self.clients.resolved());
        Topics::new(&self.clients, &role)?.ensure(std::slice::from_ref(&spec)).await?;
        producer(&self.clients, &role)
    }

    async fn send(&self, producer: &FutureProducer<Quiet>, letter: Letter<'_>) -> Result<()> {
        let topic = self.names.dead_letters(&self.sink);
        let key = letter.key();
        let mut record = FutureRecord::to(&topic).key(&key).headers(letter.headers());
        record.payload = Some(letter.raw.value.map_or(&[][..], |value| letter.batch.bytes(value)));
        let sent = producer.send(record, Timeout::After(PATIENCE)).await;
        sent.map(|_| ()).map_err(|(error, _)| classify(error, format!("set aside {key} in {topic}")))
    }
}

#[async_trait]
impl DeadLetters for LogDeadLetters {
    async fn put(&self, batch: &Batch, rejected: &[Rejected], attempts: u32) -> Result<()> {
        let producer = self.producer.get_or_try_init(|| self.connect()).await?;
        let mut letters = Vec::with_capacity(rejected.len() + batch.undecodable.len());
        for event in rejected {
            letters.push(Letter::of(batch, event, attempts)?);
        }
        for bad in &batch.undecodable {
            letters.push(Letter { batch, raw: &bad.raw, cause: &bad.cause, attempts, position: None });
        }
        for letter in &mut letters {
            letter.attempts += self.desk.refused(&letter.key());
        }
        try_join_all(letters.into_iter().map(|letter| self.send(producer, letter))).await.map(|_| ())
    }

    fn open(&self) -> Option<u64> {
        Some(self.desk.open_letters())
    }
}

/// One letter.
struct Letter<'a> {
    batch: &'a Batch,
    raw: &'a Raw,
    cause: &'a str,
    attempts: u32,
    position: Option<String>,
}

impl<'a> Letter<'a> {
    fn of(batch: &'a Batch, rejected: &'a Rejected, attempts: u32) -> Result<Self> {
        let index = rejected.event as usize;
        let (Some(event), Some(raw)) = (batch.events.get(index), batch.raw.get(index)) else {
            return Err(Error::bug(format!("event {index} to set aside is not of the log")));
        };
        let transaction = batch.transactions.get(event.transaction as usize);
        let file = transaction.and_then(|t| t.file).map_or("", |file| batch.text(file));
        let position = Some(format!("{file}:{}:{}", event.pos, event.row));
        Ok(Self { batch, raw, cause: &rejected.cause, attempts, position })
    }

    fn key(&self) -> String {
        format!("{}/{}/{}", self.raw.topic, self.raw.partition, self.raw.offset)
    }

    fn headers(&self) -> OwnedHeaders {
        let texts = [
            ("caudal.cause", Some(self.cause.to_owned())),
            ("caudal.attempts", Some(self.attempts.to_string())),
            ("caudal.topic", Some(self.raw.topic.to_string())),
            ("caudal.partition", Some(self.raw.partition.to_string())),
            ("caudal.offset", Some(self.raw.offset.to_string())),
            ("caudal.position", self.position.clone()),
        ];
        let mut headers = OwnedHeaders::new();
        for (name, value) in &self.raw.headers {
            let header = Header { key: self.batch.text(*name), value: Some(self.batch.bytes(*value)) };
            headers = headers.insert(header);
        }
        if self.raw.value.is_none() {
            headers = headers.insert(Header { key: letter::TOMBSTONE, value: Some(b"1") });
        }
        for (key, value) in texts {
            if let Some(value) = value {
                headers = headers.insert(Header { key, value: Some(value.as_bytes()) });
            }
        }
        let key = self.raw.key.map(|key: Slice| self.batch.bytes(key));
        match key {
            Some(key) => headers.insert(Header { key: "caudal.key", value: Some(key) }),
            None => headers,
        }
    }
}
