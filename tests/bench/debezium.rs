//! Debezium in Kafka Connect (standalone), tuned: large batches and queues, lz4, 512 MB of heap, the JIT's full optimisation.
//!
//! It lives as long as this process: the kernel kills it with us.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caudal_tests::process::{self, Usage};
use caudal_tests::service::scripts;
use caudal_tests::{Family, MysqlServer, ports};

/// What makes it fast, as its own documentation advises.
const TUNED: &str = "max.batch.size=8192
max.queue.size=32768
poll.interval.ms=10
snapshot.fetch.size=10000
producer.override.batch.size=524288
producer.override.linger.ms=5
producer.override.compression.type=lz4
producer.override.buffer.memory=67108864
";

const JAVA: [&str; 3] = ["-Xms256m", "-Xmx512m", "-XX:+UseG1GC"];

/// One Connect process and the folder with its offsets.
pub(crate) struct Debezium {
    dir: tempfile::TempDir,
    dist: PathBuf,
    child: Option<Child>,
}

/// What it captures, and where to. It uses the account that may lock tables, which its snapshot wants.
pub(crate) struct Capture<'a> {
    pub(crate) server: &'a MysqlServer,
    pub(crate) database: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) brokers: &'a str,
    /// With the schema in each record: what the JDBC sink needs.
    pub(crate) schemas: bool,
}

impl Debezium {
    /// Writes the configuration of a capture; nothing runs yet.
    pub(crate) fn capture(capture: &Capture<'_>) -> Result<Self> {
        let (class, tls) = match capture.server.family() {
            Family::MariaDb => {
                ("io.debezium.connector.mariadb.MariaDbConnector", "database.ssl.mode=disable\n")
            }
            Family::Mysql97 | Family::Mysql80 => (
                "io.debezium.connector.mysql.MySqlConnector",
                "driver.allowPublicKeyRetrieval=true\ndatabase.ssl.mode=disabled\n",
            ),
        };
        let mut text = format!(
            "name=source\nconnector.class={class}\n{tls}{TUNED}tasks.max=1\ndatabase.hostname=127.0.0.1\ndatabase.port={}\ndatabase.user=admin\n\
             database.password=admin-secret\ndatabase.server.id={}\ntopic.prefix={}\ndatabase.include.list={}\ntable.include.list={}.sbtest\n\
             include.schema.changes=false\nsnapshot.mode=initial\n",
            capture.server.port(),
            50_000 + capture.server.port(),
            capture.prefix,
            capture.database,
            capture.database,
        );
        let _ = write!(
            text,
            "schema.history.internal.kafka.bootstrap.servers={}\nschema.history.internal.kafka.topic=history.{}\n\
             topic.creation.default.partitions=1\ntopic.creation.default.replication.factor=1\n",
            capture.brokers, capture.prefix
        );
        Self::with(capture.brokers, &text, capture.schemas)
    }

    /// Writes the configuration of Debezium's JDBC sink from a topic into PostgreSQL.
    pub(crate) fn sink(brokers: &str, topic: &str, postgres: &str) -> Result<Self> {
        let url = postgres.strip_prefix("postgres://postgres@").context("a URL of the kit")?;
        let text = format!(
            "name=sink\nconnector.class=io.debezium.connector.jdbc.JdbcSinkConnector\ntasks.max=1\ntopics={topic}\n\
             connection.url=jdbc:postgresql://{url}\nconnection.username=postgres\nconnection.password=none\ninsert.mode=upsert\n\
             delete.enabled=true\nprimary.key.mode=record_key\nschema.evolution=basic\ncollection.name.format=sbtest\nbatch.size=5000\n\
             use.reduction.buffer=true\nconsumer.override.max.poll.records=5000\nconsumer.override.auto.offset.reset=earliest\n\
             consumer.override.max.partition.fetch.bytes=16777216\n"
        );
        Self::with(brokers, &text, true)
    }

    fn with(brokers: &str, connector: &str, schemas: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("caudal-debezium-").tempdir()?;
        let at = dir.path().display();
        let (dist, jdbc) = (fetched("get-debezium")?, fetched("get-debezium-jdbc")?);
        let worker = format!(
            "bootstrap.servers={brokers}\nlisteners=http://127.0.0.1:{}\nplugin.path={}/plugins,{}\nplugin.discovery=service_load\n\
             key.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter=org.apache.kafka.connect.json.JsonConverter\n\
             key.converter.schemas.enable={schemas}\nvalue.converter.schemas.enable={schemas}\n\
             connector.client.config.override.policy=All\noffset.storage.file.filename={at}/offsets\noffset.flush.interval.ms=1000\n\
             topic.creation.enable=true\n",
            ports::free_port()?,
            dist.display(),
            jdbc.display()
        );
        fs::write(dir.path().join("worker.properties"), worker)?;
        fs::write(dir.path().join("connector.properties"), connector)?;
        fs::write(
            dir.path().join("log4j2.properties"),
            "appender.out.type=Console\nappender.out.name=OUT\nappender.out.layout.type=PatternLayout\n\
             appender.out.layout.pattern=%d %p %c %m%n\nrootLogger.level=warn\nrootLogger.appenderRef.out.ref=OUT\n",
        )?;
        Ok(Self { dir, dist, child: None })
    }

    /// Starts it; it resumes from its offsets.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "Debezium runs already");
        let file = |name: &str| self.dir.path().join(name);
        let log = OpenOptions::new().create(true).append(true).open(file("log"))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "java"])
            .args(JAVA)
            .arg(format!("-Dlog4j2.configurationFile={}", file("log4j2.properties").display()))
            .args(["-cp", &format!("{}/libs/*", self.dist.display())])
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .args([file("worker.properties"), file("connector.properties")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start Kafka Connect")?;
        self.child = Some(child);
        Ok(())
    }

    /// Stops it with its offsets written; after half a minute it is killed.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        process::signal(child.id(), "TERM")?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// CPU and memory of its process.
    pub(crate) fn usage(&self) -> Result<Usage> {
        process::usage(self.child.as_ref().context("Debezium doesn't run")?.id())
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Debezium {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where something lies that a script fetches the first time.
fn fetched(script: &str) -> Result<PathBuf> {
    let out = Command::new(scripts().join(script)).stdin(Stdio::null()).output()?;
    if !out.status.success() {
        bail!("{script}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    let path = String::from_utf8(out.stdout)?;
    Ok(Path::new(path.trim()).to_owned())
}
