//! Commands to running sources, in `caudal.<prefix>.signals`: written by `caudal snapshot` or by any producer, read by the daemon.
//!
//! The daemon reads them from the beginning each time it starts. A source takes none twice: it stores the offset of the last one
//! with its own position, which is why the topic has one partition; and the topic's id, since in one that was made again offsets begin again.

use crate::client::{Quiet, blocking, heals};
use crate::faults::classify;
use crate::log::Log;
use crate::topic_ids;
use crate::topics::{TopicSpec, Topics};
use caudal_core::{Error, Result, Signal};
use caudal_proto::side::SignalRecord;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a command may take to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(15);
/// Commands that wait for the reader.
const WAITING: usize = 64;

/// Commands as they come. Dropping it ends the reading.
pub struct Signals(mpsc::Receiver<Result<(String, Signal)>>);

impl Signals {
    /// The next command, and its source. Cancel-safe.
    ///
    /// # Errors
    /// What the client gives; no more commands come after it.
    pub async fn next(&mut self) -> Result<(String, Signal)> {
        self.0.recv().await.unwrap_or_else(|| Err(Error::transient("reading commands has ended")))
    }
}

impl Log {
    /// Writes a command to `source`, durably.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn send_signal(&self, source: &str, record: &SignalRecord) -> Result<()> {
        self.signals_topic().await?;
        let mut config = self.clients.durable("signals");
        // A producer that numbers its records asks for a number first, and the client lets half a second pass before it does. Whoever gave the command waits for
        // that; and one that is written twice, because its answer was lost, only has the same done twice.
        config.set("enable.idempotence", "false");
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let producer: FutureProducer<Quiet> = config
            .create_with_context(self.clients.quiet())
            .map_err(|e| classify(e, "make a producer of commands"))?;
        let value = serde_json::to_vec(record).map_err(|e| Error::bug("write a command").because(e))?;
        let topic = self.names.signals();
        let record = FutureRecord::to(&topic).key(source).payload(&value);
        let sent = producer.send(record, Timeout::After(PATIENCE)).await;
        sent.map(|_| ()).map_err(|(e, _)| classify(e, format!("send a command to {source}")))
    }

    async fn signals_topic(&self) -> Result<()> {
        let spec = TopicSpec::signals(&self.names, self.clients.resolved());
        Topics::new(&self.clients, "signals")?.ensure(std::slice::from_ref(&spec)).await.map(|_| ())
    }

    /// All commands, from the oldest that is kept.
    ///
    /// # Errors
    /// `Transient` if the brokers do not answer.
    pub async fn signals(&self) -> Result<Signals> {
        self.signals_topic().await?;
        let (clients, topic) = (self.clients.clone(), self.names.signals());
        let consumer = blocking(move || {
            let consumer = clients.watcher("signals")?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, 0, Offset::Beginning)
                .map_err(|e| classify(e, "read commands"))?;
            consumer.assign(&list).map_err(|e| classify(e, "read commands"))?;
            Ok(consumer)
        })
        .await?;
        let name = self.names.signals();
        let ids = topic_ids::fetch(self.clients.resolved(), std::slice::from_ref(&name)).await;
        let origin = ids.get(&name).filter(|id| !id.is_nil()).map_or_else(String::new, ToString::to_string);
        let (send, receive) = mpsc::channel(WAITING);
        std::thread::Builder::new()
            .name("caudal-signals".into())
            .spawn(move || read(&consumer, &origin, &send))
            .map_err(|e| Error::transient("start the thread that reads commands").because(e))?;
        Ok(Signals(receive))
    }
}

/// Of a record that says something to be logged: what. Only of those that are sent while this daemon runs: all are read again at each
/// start.
fn message(record: &SignalRecord, message: &impl Message, began_ms: i64) -> Option<String> {
    let is_new = message.timestamp().to_millis().is_some_and(|at| at >= began_ms);
    let text = record.data.message.as_ref().filter(|_| is_new && record.kind == "log")?;
    Some(text.replace("{}", &message.offset().to_string()))
}

fn read(consumer: &BaseConsumer<Quiet>, origin: &str, out: &mpsc::Sender<Result<(String, Signal)>>) {
    let began_ms = crate::encode::system_clock() / 1_000;
    while !out.is_closed() {
        let item = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => signal(&message, origin, began_ms).map(Ok),
            None | Some(Err(KafkaError::PartitionEOF(_))) => None,
            Some(Err(error)) if heals(consumer, &error) => None,
            Some(Err(error)) => Some(Err(classify(error, "read commands"))),
        };
        let Some(item) = item else { continue };
        let last = item.is_err();
        if out.blocking_send(item).is_err() || last {
            return;
        }
    }
}

/// What is no command is passed over with a warning: anybody may write here.
fn signal(record: &impl Message, origin: &str, began_ms: i64) -> Option<(String, Signal)> {
    let source = record.key().and_then(|key| std::str::from_utf8(key).ok())?.to_owned();
    let (message, payload) = (record, record.payload()?);
    let record: Result<SignalRecord, _> = serde_json::from_slice(payload);
    if let Ok(record) = &record
        && record.kind == "log"
    {
        if let Some(text) = self::message(record, message, began_ms) {
            tracing::info!(source, id = record.id, "signal: {text}");
        }
        return None;
    }
    let signal = record.ok().and_then(|record| record.signal(message.offset() + 1));
    if signal.is_none() {
        tracing::warn!(offset = message.offset(), source, "a record of the commands' topic is no command");
    }
    signal.map(|signal| (source, Signal { origin: origin.to_owned(), ..signal }))
}
