//! What the machine allows at most: the same bytes without the work that is measured.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caudal_tests::process;
use caudal_tests::{Family, Kafka, MysqlServer, PgDatabase};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::watch::Volume;
use crate::{batches, produce};

/// Records that are read as a sample and produced again and again.
const SAMPLE: usize = 50_000;
/// Records of a transaction: about what the daemon puts into one.
const TRANSACTION: u64 = 20_000;

/// The whole binlog by the server's own tool: MB per second (`rate`, in bytes) and its CPU for a million of the `events` in it.
pub(crate) fn raw_binlog(server: &MysqlServer, events: u64) -> Result<Volume> {
    let dir = tempfile::Builder::new().prefix("caudal-raw-").tempdir()?;
    let tool = match server.family() {
        Family::MariaDb => "mariadb-binlog".into(),
        Family::Mysql97 | Family::Mysql80 => {
            let fetch = Command::new(caudal_tests::service::scripts().join("get-mysql97")).output()?;
            format!("{}/run-mysqlbinlog", String::from_utf8(fetch.stdout)?.trim())
        }
    };
    let (start, before) = (Instant::now(), children_cpu()?);
    let out = Command::new(tool)
        .args([
            "--no-defaults",
            "--raw",
            "--read-from-remote-server",
            "--host=127.0.0.1",
            "--user=admin",
            "--password=admin-secret",
        ])
        .arg(format!("--port={}", server.port()))
        .arg(format!("--result-file={}/", dir.path().display()))
        .args(["--to-last-log", "binlog.000001"])
        .stdin(Stdio::null())
        .output()?;
    if !out.status.success() {
        bail!("pull the binlog: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    let took = start.elapsed().as_secs_f64();
    let cpu = children_cpu()? - before;
    Ok(Volume { rate: events as f64 / took, cpu: cpu / events as f64 * 1e6, ..Volume::default() })
}

/// CPU seconds of all children that have ended: fields 16 and 17 of proc(5)'s `stat`.
fn children_cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a stat line")?.1.split_whitespace().collect();
    Ok((fields[13].parse::<f64>()? + fields[14].parse::<f64>()?) / 100.0)
}

type Sample = Vec<(Option<Vec<u8>>, Vec<u8>)>;

/// librdkafka producing the records of `topic` from memory, in transactions, into another topic of the same broker.
pub(crate) async fn produce(topic: &str, events: u64) -> Result<Volume> {
    let (brokers, topic) = (Kafka::shared().bootstrap(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let sample = sample(&brokers, &topic)?;
        let target = format!("{topic}-floor");
        tokio::runtime::Handle::current().block_on(produce::create(&brokers, &target))?;
        let producer = produce::producer(&brokers, Some(&target))?;
        let mine = std::process::id();
        let (start, before) = (Instant::now(), process::usage(mine)?.cpu_seconds);
        let mut sent = 0;
        while sent < events {
            producer.begin_transaction()?;
            for (key, value) in
                sample.iter().cycle().skip(sent as usize % sample.len()).take(TRANSACTION as usize)
            {
                produce::send(&producer, &target, key.as_deref(), value)?;
            }
            caudal_kafka::flush(&producer, produce::WAIT);
            producer.commit_transaction(produce::WAIT)?;
            sent += TRANSACTION;
        }
        let cpu = process::usage(mine)?.cpu_seconds - before;
        let rate = sent as f64 / start.elapsed().as_secs_f64();
        Ok(Volume { rate, cpu: cpu / sent as f64 * 1e6, ..Volume::default() })
    })
    .await?
}

/// The same in batches that are built here: what of that is the client's.
pub(crate) async fn batches(topic: &str, events: u64) -> Result<Volume> {
    let (brokers, topic) = (Kafka::shared().bootstrap(), topic.to_owned());
    let target = format!("{topic}-batches");
    produce::create(&brokers, &target).await?;
    tokio::task::spawn_blocking(move || {
        let sample = sample(&brokers, &topic)?;
        batches::produce(&brokers, &target, &sample, (events, TRANSACTION))
    })
    .await?
}

fn sample(brokers: &str, topic: &str) -> Result<Sample> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench-floor")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let mut sample = Vec::new();
    while sample.len() < SAMPLE {
        // What is there is all.
        let Some(message) = consumer.poll(Duration::from_secs(5)) else { break };
        let message = message?;
        let value = message.payload().unwrap_or_default().to_vec();
        sample.push((message.key().map(<[u8]>::to_vec), value));
    }
    ensure!(!sample.is_empty(), "{topic} is empty");
    Ok(sample)
}

/// COPY of the sink's rows, in PostgreSQL's binary form, into an empty table of the same shape.
pub(crate) async fn copy(sink: &PgDatabase) -> Result<Volume> {
    let copied = crate::copy::copy(sink).await?;
    Ok(Volume { rate: copied.rate, cpu: copied.cpu, ..Volume::default() })
}
