//! All that lies in the topics of a prefix.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// A record as a consumer gets it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// Names and values.
    pub headers: Vec<(String, String)>,
}

impl Record {
    /// The key as text; `NULL` for none.
    pub(crate) fn key(&self) -> String {
        self.key.as_ref().map_or_else(|| "NULL".into(), |k| String::from_utf8_lossy(k).into_owned())
    }

    /// The value as text; `NULL` for none.
    pub(crate) fn value(&self) -> String {
        self.value.as_ref().map_or_else(|| "NULL".into(), |v| String::from_utf8_lossy(v).into_owned())
    }

    /// Whether a snapshot read it.
    pub(crate) fn is_read(&self) -> bool {
        self.value().contains("\"op\":\"r\"")
    }
}

/// Records by topic, each partition's in their order.
pub(crate) type Topics = BTreeMap<String, Vec<Record>>;

/// Whether a topic is Debezium's for this prefix; the side topics of Caudal are not.
fn belongs(topic: &str, prefix: &str) -> bool {
    topic == prefix
        || topic.starts_with(&format!("{prefix}."))
        || topic == format!("__debezium-heartbeat.{prefix}")
}

/// Reads all topics of a prefix from their beginning to the end that they have now, committed records only.
pub(crate) async fn read(brokers: &str, prefix: &str) -> Result<Topics> {
    let (brokers, prefix) = (brokers.to_owned(), prefix.to_owned());
    tokio::task::spawn_blocking(move || read_all(&brokers, &prefix)).await?
}

fn read_all(brokers: &str, prefix: &str) -> Result<Topics> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "caudal-conformance")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(30)).context("list the topics")?;
    let mut topics = Topics::new();
    let mut assignment = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|t| belongs(t.name(), prefix)) {
        topics.insert(topic.name().to_owned(), Vec::new());
        for partition in topic.partitions() {
            assignment.add_partition_offset(topic.name(), partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&assignment)?;
    let mut left = assignment.count();
    let deadline = Instant::now() + Duration::from_secs(120);
    while left > 0 {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => topics.entry(message.topic().to_owned()).or_default().push(record(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error).context("read the topics"),
            None => {}
        }
        if Instant::now() > deadline {
            bail!("{left} partitions of {prefix} were not read to their end within two minutes");
        }
    }
    Ok(topics)
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let headers =
        message.headers().map(|headers| headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect());
    Record {
        partition: message.partition(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
