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
//!
//! A letter is acknowledged by all in-sync replicas before [`DeadLetters::put`] returns, and so before the sink's commit
//! passes the event over. A letter may be written twice (a crash between the two), under one key.

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
}

impl LogDeadLetters {
    pub(crate) fn new(clients: Clients, names: TopicNames, sink: &str) -> Self {
        Self { clients, names, sink: sink.to_owned(), producer: OnceCell::new() }
    }

    /// Makes the topic and the producer.
    async fn connect(&self) -> Result<FutureProducer<Quiet>> {
        let role = format!("{}-dlq", self.sink);
        let spec = TopicSpec::dead_letters(&self.names, &self.sink, self.clients.resolved());
        Topics::new(&self.clients, &role)?.ensure(std::slice::from_ref(&spec)).await?;
        let limit = self.clients.resolved().config.topics.max_message_bytes.bytes() + (1 << 20);
        let mut config = self.clients.base(&role);
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
        config.set("message.max.bytes", limit.to_string());
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        config.create_with_context(Quiet).map_err(|e| classify(e, "make a producer of dead letters"))
    }

    async fn send(&self, producer: &FutureProducer<Quiet>, letter: Letter<'_>) -> Result<()> {
        let topic = self.names.dead_letters(&self.sink);
        let key = letter.key();
        let mut record = FutureRecord::to(&topic).key(&key).headers(letter.headers());
        record.payload = letter.raw.value.map(|value| letter.batch.bytes(value));
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
        try_join_all(letters.into_iter().map(|letter| self.send(producer, letter))).await.map(|_| ())
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
