//! The embedded log beside Kafka 4.1: the same client produces the same records into each and consumes them, in turns, for some rounds.
//!
//!     cargo bench -p caudal-tests --bench logs -- --records 1000000 --rounds 3
//!
//! CAUDAL_BIN names the daemon, which should be built with optimisation; `tests/bench/run --logs` does both. CPU and memory are the
//! server's alone (the daemon, Kafka's Java machine), read from `/proc`; the client shares the two cores with them.

mod produce;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caudal_tests::{Daemon, DaemonConfig, Family, Kafka, MysqlServer, process};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::Producer;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Records of a transaction: about what the daemon puts into one.
const TRANSACTION: u64 = 20_000;
/// Nothing may come for so long.
const STUCK: Duration = Duration::from_secs(30);

/// What one kind of work cost.
struct Figure {
    log: &'static str,
    work: &'static str,
    rates: Vec<f64>,
    cpu: Vec<f64>,
    peak: u64,
}

/// A log under test.
struct Log {
    name: &'static str,
    brokers: String,
    pid: u32,
}

struct Plan {
    records: u64,
    bytes: usize,
    rounds: u32,
}

fn main() -> Result<()> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(plan.run())
}

impl Plan {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut plan = Self { records: 1_000_000, bytes: 300, rounds: 3 };
        while let Some(name) = arguments.next() {
            // `cargo bench` adds this one, `tests/bench/run` that one.
            if name == "--bench" || name == "--logs" {
                continue;
            }
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--records" => plan.records = value.parse()?,
                "--bytes" => plan.bytes = value.parse()?,
                "--rounds" => plan.rounds = value.parse()?,
                _ => bail!("unknown: {name}; known: --records N, --bytes N, --rounds N"),
            }
        }
        Ok(plan)
    }

    async fn run(&self) -> Result<()> {
        // A daemon serves its log only with something to capture; nothing happens there.
        let source = MysqlServer::shared(Family::MariaDb);
        let database = source.database("logs").await?;
        source.sql(&database, "CREATE TABLE t (id INT PRIMARY KEY)").await?;
        let config = DaemonConfig::new("logs").source("idle", &source.url(&database), &[]);
        let daemon = Daemon::start_healthy(&config).await?;
        let kafka = Kafka::shared();
        let logs = [
            Log { name: "embedded", brokers: daemon.brokers().to_owned(), pid: daemon.pid()? },
            Log { name: "Kafka 4.1", brokers: kafka.bootstrap(), pid: kafka.service().pid()? },
        ];
        let mut figures = Vec::new();
        for round in 0..self.rounds {
            for turn in 0..logs.len() {
                let log = &logs[(turn + round as usize) % logs.len()];
                for (work, transactional) in [("produce", false), ("produce in transactions", true)] {
                    let topic = format!("bench-{round}-{transactional}");
                    produce::create(&log.brokers, &topic).await?;
                    tokio::task::block_in_place(|| {
                        log.measure(&mut figures, self.records, work, || {
                            self.produce(log, &topic, transactional)
                        })?;
                        let work = if transactional { "consume, read_committed" } else { "consume" };
                        log.measure(&mut figures, self.records, work, || self.consume(log, &topic))
                    })?;
                }
            }
        }
        println!(
            "| log | work | records/s | CPU-s of the server per million | its peak MB |\n|---|---|---|---|---|"
        );
        for f in &figures {
            println!(
                "| {} | {} | {} | {} | {} |",
                f.log,
                f.work,
                spread(&f.rates, 0),
                spread(&f.cpu, 2),
                f.peak / 1_000_000
            );
        }
        Ok(())
    }

    /// A value that compresses about as JSON does: half of it changes from record to record.
    fn value(&self, n: u64) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.bytes + 32);
        let mut state = n;
        while value.len() < self.bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            value.extend_from_slice(format!("\"field\":\"{:012x}\",", state >> 16).as_bytes());
        }
        value.truncate(self.bytes);
        value
    }

    fn produce(&self, log: &Log, topic: &str, transactional: bool) -> Result<()> {
        let producer = produce::producer(&log.brokers, transactional.then_some(topic))?;
        let sample: Vec<Vec<u8>> = (0..1_000).map(|n| self.value(n)).collect();
        let mut sent = 0;
        while sent < self.records {
            if transactional {
                producer.begin_transaction()?;
            }
            let until = self.records.min(sent + TRANSACTION);
            while sent < until {
                let key = sent.to_string();
                produce::send(&producer, topic, Some(key.as_bytes()), &sample[sent as usize % sample.len()])?;
                sent += 1;
            }
            if transactional {
                producer.commit_transaction(produce::WAIT)?;
            }
        }
        Ok(producer.flush(produce::WAIT)?)
    }

    fn consume(&self, log: &Log, topic: &str) -> Result<()> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &log.brokers)
            .set("group.id", "bench-logs")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .create()?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&partitions)?;
        for read in 0..self.records {
            match consumer.poll(STUCK) {
                Some(message) => drop(message?),
                None => bail!("{}: {read} of {} records of {topic} came", log.name, self.records),
            }
        }
        Ok(())
    }
}

impl Log {
    fn measure(
        &self,
        figures: &mut Vec<Figure>,
        records: u64,
        work: &'static str,
        run: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let (start, before) = (Instant::now(), process::usage(self.pid)?);
        run()?;
        let (took, after) = (start.elapsed().as_secs_f64(), process::usage(self.pid)?);
        let (rate, cpu) =
            (records as f64 / took, (after.cpu_seconds - before.cpu_seconds) / records as f64 * 1e6);
        eprintln!("{}: {work}: {rate:.0} records/s, {cpu:.2} CPU-s per million", self.name);
        ensure!(rate > 0.0, "no time passed");
        match figures.iter_mut().find(|f| (f.log, f.work) == (self.name, work)) {
            Some(figure) => {
                figure.rates.push(rate);
                figure.cpu.push(cpu);
                figure.peak = after.peak;
            }
            None => figures.push(Figure {
                log: self.name,
                work,
                rates: vec![rate],
                cpu: vec![cpu],
                peak: after.peak,
            }),
        }
        Ok(())
    }
}

/// `median (least–most)`
fn spread(values: &[f64], digits: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    format!("{:.digits$} ({least:.digits$}–{most:.digits$})", sorted[sorted.len() / 2])
}
