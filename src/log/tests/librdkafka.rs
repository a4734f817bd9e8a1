//! A real client against a real process that is killed with SIGKILL: what was acknowledged is there once, and transactions
//! are whole. The process under test is this program itself, started with the argument `serve`.

use caudal_log::{Config, Log};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Test = fn() -> Outcome;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|a| a == "serve") {
        return serve(&arguments[2], arguments[3].parse()?);
    }
    let tests: &[(&str, Test)] = &[
        ("acknowledged_records_survive_sigkill_once_and_in_order", acknowledged_records_survive),
        ("transactions_are_whole_after_sigkill", transactions_are_whole),
        ("groups_share_partitions_with_every_assignor", groups_share_partitions),
        ("a_compacted_topic_keeps_the_newest_of_each_key", compaction_keeps_the_newest),
    ];
    let wanted = arguments.iter().skip(1).find(|a| !a.starts_with('-'));
    for (name, test) in tests {
        if wanted.is_none_or(|w| name.contains(w.as_str())) {
            let begun = Instant::now();
            test().map_err(|e| format!("{name}: {e}"))?;
            println!("test {name} ... ok ({} ms)", begun.elapsed().as_millis());
        }
    }
    Ok(())
}

#[tokio::main]
async fn serve(dir: &str, port: u16) -> Outcome {
    let config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        data_dir: dir.into(),
        maintenance_interval: Duration::from_millis(200),
        ..Config::default()
    };
    let log = Log::start(config).await?;
    println!("{}", log.address());
    // Ends with the test, or by being killed.
    std::future::pending::<()>().await;
    Ok(())
}

/// How clients reach the process under test, whichever of its lives it is in.
#[derive(Clone, Copy)]
struct Access {
    port: u16,
}

/// The process under test; killed when dropped.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    access: Access,
}

impl Server {
    fn start() -> std::io::Result<Server> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Server { child: Server::spawn(folder.path(), port)?, folder, access: Access { port } })
    }

    fn spawn(dir: &Path, port: u16) -> std::io::Result<Child> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve".as_ref(), dir.as_os_str(), port.to_string().as_ref()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        if line.is_empty() { Err(std::io::Error::other("the log did not start")) } else { Ok(child) }
    }

    /// SIGKILL, and a start on what is left.
    fn kill_and_restart(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = Server::spawn(self.folder.path(), self.access.port)?;
        Ok(())
    }
}

impl Access {
    fn client(self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port));
        config.set("reconnect.backoff.ms", "10").set("reconnect.backoff.max.ms", "100");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config
    }

    fn create(self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Outcome {
        let admin: AdminClient<_> = self.client(&[]).create()?;
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let results = runtime.block_on(admin.create_topics([&new], &AdminOptions::new()))?;
        results.into_iter().try_for_each(|r| r.map(|_| ()).map_err(|(t, e)| format!("create {t}: {e}")))?;
        Ok(())
    }

    /// Offset and payload of everything that a committed reader sees in partition 0.
    fn read(self, topic: &str) -> Result<Vec<(i64, String)>, Box<dyn std::error::Error>> {
        let consumer: BaseConsumer = self
            .client(&[("group.id", "reader"), ("isolation.level", "read_committed"), ("check.crcs", "true")])
            .create()?;
        let (_, end) = consumer.fetch_watermarks(topic, 0, SOON)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&assignment)?;
        let (mut seen, begun) = (Vec::new(), Instant::now());
        while position(&consumer, topic)? < end {
            if begun.elapsed() > SOON {
                return Err(format!("{topic} was not read to {end}").into());
            }
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(m)) => {
                    let payload = m.payload().map(|p| String::from_utf8_lossy(p).into_owned());
                    seen.push((m.offset(), payload.unwrap_or_default()));
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(e)) => return Err(e.into()),
            }
        }
        Ok(seen)
    }
}

fn position(consumer: &BaseConsumer, topic: &str) -> Result<i64, KafkaError> {
    let positions = consumer.position()?;
    let found = positions.find_partition(topic, 0).map(|p| p.offset());
    Ok(match found {
        Some(Offset::Offset(offset)) => offset,
        _ => 0,
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Notes which records were acknowledged.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<BTreeSet<usize>>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        if result.is_ok() {
            self.0.lock().expect("no panic inside").insert(*number);
        }
    }
}

fn acknowledged_records_survive() -> Outcome {
    let mut server = Server::start()?;
    server.access.create("t", 1, &[("segment.bytes", "65536")])?;
    let acknowledged = Acknowledged::default();
    let producer: ThreadedProducer<Acknowledged> = server
        .access
        .client(&[("enable.idempotence", "true"), ("linger.ms", "1"), ("message.timeout.ms", "60000")])
        .create_with_context(acknowledged.clone())?;
    let mut sent = 0;
    for round in 0..6 {
        let until = Instant::now() + Duration::from_millis(150 + 37 * round);
        while Instant::now() < until {
            for _ in 0..20 {
                let payload = sent.to_string();
                let record = BaseRecord::with_opaque_to("t", Box::new(sent)).payload(&payload).key("k");
                producer.send(record).map_err(|(e, _)| e)?;
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill_and_restart()?;
    }
    producer.flush(SOON)?;
    let seen: Vec<usize> =
        server.access.read("t")?.into_iter().map(|(_, p)| p.parse()).collect::<Result<_, _>>()?;
    if !seen.windows(2).all(|w| w[0] < w[1]) {
        return Err("records are doubled or out of order".into());
    }
    let seen: BTreeSet<usize> = seen.into_iter().collect();
    let acknowledged = acknowledged.0.lock().expect("no panic inside");
    match acknowledged.difference(&seen).next() {
        Some(lost) => Err(format!("{lost} of {sent} was acknowledged and is lost").into()),
        None if acknowledged.len() < sent / 2 => Err("most records were never acknowledged".into()),
        None => Ok(()),
    }
}

/// Writes numbers to two topics, one transaction each, from the first that is not committed yet. A failure means: begin
/// again with a new producer.
fn write_transactions(access: Access, until: usize) -> Outcome {
    let producer: BaseProducer = access
        .client(&[
            ("transactional.id", "writer"),
            ("transaction.timeout.ms", "20000"),
            ("message.timeout.ms", "10000"),
            ("linger.ms", "0"),
        ])
        .create()?;
    producer.init_transactions(SOON)?;
    for number in access.read("a")?.len()..until {
        producer.begin_transaction()?;
        let payload = number.to_string();
        for topic in ["a", "b"] {
            producer
                .send(BaseRecord::<str, str>::to(topic).payload(&payload).key("k"))
                .map_err(|(e, _)| e)?;
        }
        // The client's own flush, which a commit begins with, waits in steps of 100 ms.
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        // A commit whose outcome is unknown is asked for again.
        while let Err(e) = producer.commit_transaction(SOON) {
            match &e {
                KafkaError::Transaction(inner) if inner.is_retriable() => {}
                _ => return Err(e.into()),
            }
        }
    }
    Ok(())
}

fn transactions_are_whole() -> Outcome {
    const TRANSACTIONS: usize = 800;
    let mut server = Server::start()?;
    let access = server.access;
    access.create("a", 1, &[])?;
    access.create("b", 1, &[])?;
    let writing = std::thread::spawn(move || {
        let begun = Instant::now();
        while let Err(e) = write_transactions(access, TRANSACTIONS).map_err(|e| e.to_string()) {
            if begun.elapsed() > 3 * SOON {
                return Err(e);
            }
        }
        Ok(())
    });
    for round in 0..6u64 {
        std::thread::sleep(Duration::from_millis(120 + 61 * round));
        server.kill_and_restart()?;
    }
    writing.join().map_err(|_| "the writer panicked")??;
    let expected: Vec<String> = (0..TRANSACTIONS).map(|n| n.to_string()).collect();
    for topic in ["a", "b"] {
        let seen: Vec<String> = access.read(topic)?.into_iter().map(|(_, payload)| payload).collect();
        if seen != expected {
            return Err(
                format!("{topic} holds {} records, not each of {TRANSACTIONS} once", seen.len()).into()
            );
        }
    }
    Ok(())
}

fn groups_share_partitions() -> Outcome {
    let server = Server::start()?;
    for assignor in ["range", "roundrobin", "cooperative-sticky"] {
        share_partitions(server.access, assignor).map_err(|e| format!("{assignor}: {e}"))?;
    }
    Ok(())
}

fn share_partitions(access: Access, assignor: &str) -> Outcome {
    access.create(assignor, 6, &[])?;
    let settings = [
        ("group.id", assignor),
        ("partition.assignment.strategy", assignor),
        ("auto.offset.reset", "earliest"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "100"),
    ];
    let mut members: Vec<BaseConsumer> = Vec::new();
    for count in [1, 2, 3] {
        let member: BaseConsumer = access.client(&settings).create()?;
        member.subscribe(&[assignor])?;
        members.push(member);
        wait_for_balance(&members, 6 / count)?;
    }
    // Who leaves gives its part to the others.
    drop(members.pop());
    wait_for_balance(&members, 3)
}

fn wait_for_balance(members: &[BaseConsumer], each: usize) -> Outcome {
    let begun = Instant::now();
    loop {
        for member in members {
            if let Some(Err(e)) = member.poll(Duration::from_millis(5)) {
                return Err(e.into());
            }
        }
        let counts: Vec<usize> =
            members.iter().map(|m| m.assignment().map(|a| a.count())).collect::<Result<_, _>>()?;
        if counts.iter().all(|count| *count == each) {
            return Ok(());
        }
        if begun.elapsed() > SOON {
            return Err(format!("partitions are spread {counts:?}").into());
        }
    }
}

fn compaction_keeps_the_newest() -> Outcome {
    const KEYS: usize = 50;
    let server = Server::start()?;
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "16384"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.ms", "500"),
    ];
    server.access.create("t", 1, &settings)?;
    let producer: BaseProducer =
        server.access.client(&[("compression.type", "lz4"), ("linger.ms", "0")]).create()?;
    for n in 0..40 * KEYS {
        let (key, payload) = ((n % KEYS).to_string(), n.to_string());
        producer.send(BaseRecord::to("t").key(&key).payload(&payload)).map_err(|(e, _)| e)?;
        producer.poll(Duration::ZERO);
        if n % 100 == 0 {
            producer.flush(SOON)?;
        }
    }
    producer.flush(SOON)?;
    let newest: Vec<String> = (39 * KEYS..40 * KEYS).map(|n| n.to_string()).collect();
    let begun = Instant::now();
    loop {
        let seen: Vec<String> = server.access.read("t")?.into_iter().map(|(_, payload)| payload).collect();
        if seen == newest {
            return Ok(());
        }
        if !seen.ends_with(&newest) {
            return Err("a newest record is gone".into());
        }
        if begun.elapsed() > SOON {
            return Err(format!("{} records are left", seen.len()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
