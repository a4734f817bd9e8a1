//! kill -9 of the embedded log under its clients' load: nothing that was acknowledged is missing, and no transaction is there in part.
//!
//! Ten rounds; `CAUDAL_TEST_ROUNDS` raises them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caudal_tests::{Daemon, DaemonConfig, patience};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

const PLAIN: &str = "plain";
const PARTS: [&str; 3] = ["part-a", "part-b", "part-c"];
const PARTITIONS: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers of acknowledged records.
#[derive(Clone, Default)]
struct Acknowledged(Arc<std::sync::Mutex<BTreeSet<u64>>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        if result.is_ok() {
            self.0.lock().unwrap().insert(*number);
        }
    }
}

/// Numbered records, acks=all, idempotent, over all kills.
fn produce(brokers: &str, stop: &AtomicBool) -> BTreeSet<u64> {
    let acknowledged = Acknowledged::default();
    let producer: BaseProducer<Acknowledged> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "120000")
        .set("reconnect.backoff.max.ms", "500")
        .create_with_context(acknowledged.clone())
        .unwrap();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            let value = number.to_string();
            let record = BaseRecord::with_opaque_to(PLAIN, Box::new(number))
                .partition((number % PARTITIONS as u64) as i32)
                .key(&value)
                .payload(&value);
            if producer.send(record).is_err() {
                break;
            }
            number += 1;
        }
        producer.poll(Duration::from_millis(2));
    }
    producer.flush(PATIENCE).unwrap();
    acknowledged.0.lock().unwrap().clone()
}

/// Numbered transactions, each with a record in every partition; gives those whose commit was answered.
fn transact(brokers: &str, stop: &AtomicBool) -> BTreeSet<u64> {
    let mut committed = BTreeSet::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", "rounds")
            .set("transaction.timeout.ms", "10000")
            .set("message.timeout.ms", "10000")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .unwrap();
        if producer.init_transactions(Duration::from_secs(30)).is_err() {
            continue;
        }
        while !stop.load(Ordering::Relaxed) && transaction(&producer, number).is_ok() {
            committed.insert(number);
            number += 1;
        }
        // What became of the last one nobody knows: the next has another number.
        number += 1;
    }
    committed
}

fn transaction(producer: &BaseProducer, number: u64) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    let value = number.to_string();
    for topic in PARTS {
        for partition in 0..PARTITIONS {
            let record = BaseRecord::to(topic).partition(partition).key(&value).payload(&value);
            producer.send(record).map_err(|(e, _)| e)?;
        }
    }
    producer.commit_transaction(Duration::from_secs(30))
}

/// The numbers in each partition of a topic, as a reader of committed records sees them, in order.
fn numbers(brokers: &str, topic: &str) -> Vec<Vec<u64>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "none")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut found = vec![Vec::new(); PARTITIONS as usize];
    let mut open = PARTITIONS;
    while open > 0 {
        match consumer.poll(Duration::from_secs(60)).expect("an answer") {
            Ok(message) => {
                let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
                found[message.partition() as usize].push(text.parse().unwrap());
            }
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => panic!("{error}"),
        }
    }
    found
}

async fn create(brokers: &str) {
    let made = async || {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).create()?;
        let topics: Vec<_> = [PLAIN]
            .iter()
            .chain(&PARTS)
            .map(|name| {
                NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)).set("segment.bytes", "1048576")
            })
            .collect();
        let made = admin.create_topics(&topics, &AdminOptions::new()).await?;
        made.into_iter()
            .try_for_each(|topic| topic.map(drop).map_err(|(_, code)| anyhow::anyhow!("{code}")))?;
        Ok(true)
    };
    patience::until("topics", PATIENCE, Duration::from_millis(200), made).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_the_embedded_log_loses_nothing_acknowledged_and_shows_no_part_of_a_transaction() {
    let rounds: u64 = std::env::var("CAUDAL_TEST_ROUNDS").map_or(10, |n| n.parse().unwrap());
    let mut daemon = Daemon::start_healthy(&DaemonConfig::new("rounds")).await.unwrap();
    let brokers = daemon.brokers().to_owned();
    create(&brokers).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (own, at) = (Arc::clone(&stop), brokers.clone());
    let plain = tokio::task::spawn_blocking(move || produce(&at, &own));
    let (own, at) = (Arc::clone(&stop), brokers.clone());
    let transactions = tokio::task::spawn_blocking(move || transact(&at, &own));
    let mut rng = SmallRng::seed_from_u64(91);
    let begun = Instant::now();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(rng.random_range(150..900))).await;
        daemon.kill().unwrap();
        daemon.start_again().unwrap();
        daemon.wait_healthy(Duration::from_secs(60)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let (acknowledged, committed) = (plain.await.unwrap(), transactions.await.unwrap());

    let at = brokers.clone();
    let (seen, parts) =
        tokio::task::spawn_blocking(move || (numbers(&at, PLAIN), PARTS.map(|topic| numbers(&at, topic))))
            .await
            .unwrap();
    let counted: usize = seen.iter().map(Vec::len).sum();
    let there: BTreeSet<u64> = seen.iter().flatten().copied().collect();
    assert_eq!(counted, there.len(), "an idempotent producer's record is there twice");
    assert!(seen.iter().all(|numbers| numbers.is_sorted()), "records of one producer are out of order");
    let lost: Vec<_> = acknowledged.difference(&there).take(10).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");

    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for number in parts.iter().flatten().flatten() {
        *places.entry(*number).or_default() += 1;
    }
    let all = PARTS.len() * PARTITIONS as usize;
    let torn: Vec<_> = places.iter().filter(|(_, count)| **count != all).take(10).collect();
    assert!(torn.is_empty(), "transactions that are there in part: {torn:?} of {all}");
    let lost: Vec<_> = committed.iter().filter(|number| !places.contains_key(number)).take(10).collect();
    assert!(lost.is_empty(), "committed and lost: {lost:?}");
    // Enough was under way that a kill meets something.
    assert!(acknowledged.len() as u64 > rounds * 20, "{} acknowledged", acknowledged.len());
    assert!(committed.len() as u64 > rounds, "{} committed", committed.len());
    println!(
        "{rounds} rounds in {:?}: {} acknowledged, {} transactions",
        begun.elapsed(),
        acknowledged.len(),
        committed.len()
    );
}
