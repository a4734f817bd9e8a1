//! librdkafka as a producer of what is in memory: the client that the floors and the comparison of logs share.

use std::time::Duration;

use anyhow::{Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

/// How long an answer of a broker is waited for.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// Makes the topic, with one partition. It may be there from the round before.
pub(crate) async fn create(brokers: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    for one in admin.create_topics([&new], &AdminOptions::new()).await? {
        if let Err((topic, code)) = one {
            ensure!(code == RDKafkaErrorCode::TopicAlreadyExists, "create {topic}: {code}");
        }
    }
    Ok(())
}

/// A producer with the settings that the daemon has; with a `transactional` id it is ready for transactions.
pub(crate) fn producer(
    brokers: &str,
    transactional: Option<&str>,
) -> Result<ThreadedProducer<DefaultProducerContext>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "25")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.kbytes", "16384");
    if let Some(id) = transactional {
        config.set("transactional.id", id);
    }
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    if transactional.is_some() {
        producer.init_transactions(WAIT)?;
    }
    Ok(producer)
}

/// Hands over one record; waits while the client's queue is full.
pub(crate) fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    key: Option<&[u8]>,
    value: &[u8],
) -> Result<()> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).payload(value);
    record.key = key;
    while let Err((error, same)) = producer.send(record) {
        ensure!(error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), error);
        std::thread::sleep(Duration::from_millis(1));
        record = same;
    }
    Ok(())
}
