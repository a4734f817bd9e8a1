//! Debezium in Kafka Connect.

use std::fs;

use anyhow::Result;
use caudal_tests::service::Service;
use caudal_tests::{Family, Kafka, MysqlServer};
use tempfile::TempDir;

/// A running Connect with one connector; ends when it is dropped.
pub(crate) struct Debezium {
    _properties: TempDir,
    service: Service,
}

impl Debezium {
    /// Captures a database of the server into topics of `prefix`, with Debezium's and Connect's own defaults but for what is
    /// announced: truncates, transactions, heartbeats, notifications.
    pub(crate) fn start(server: &MysqlServer, database: &str, prefix: &str, kafka: &Kafka) -> Result<Self> {
        let (name, class) = match server.family() {
            Family::MariaDb => ("mariadb", "io.debezium.connector.mariadb.MariaDbConnector"),
            _ => ("mysql", "io.debezium.connector.mysql.MySqlConnector"),
        };
        let family = match server.family() {
            Family::MariaDb => "database.ssl.mode=disable",
            _ => "database.ssl.mode=disabled\ndriver.allowPublicKeyRetrieval=true",
        };
        // The snapshot's global lock needs RELOAD, which the capture account of Caudal does not have.
        let text = format!(
            "name={name}\nconnector.class={class}\ntasks.max=1\n{family}\n\
             database.hostname=127.0.0.1\ndatabase.port={}\ndatabase.user=admin\ndatabase.password=admin-secret\n\
             database.server.id={}\ntopic.prefix={prefix}\ndatabase.include.list={database}\n\
             skipped.operations=none\nnotification.enabled.channels=sink\nnotification.sink.topic.name={prefix}.notifications\nprovide.transaction.metadata=true\nheartbeat.interval.ms=500\npoll.interval.ms=50\n\
             schema.history.internal=io.debezium.storage.file.history.FileSchemaHistory\n\
             schema.history.internal.file.filename=@DIR@/history\n\
             topic.creation.default.replication.factor=1\ntopic.creation.default.partitions=3\n\
             topic.creation.groups=single\ntopic.creation.single.partitions=1\ntopic.creation.single.replication.factor=1\n\
             topic.creation.single.include={prefix},{prefix}\\\\.transaction,{prefix}\\\\.notifications,__debezium.*\n",
            server.port(),
            50_000 + u32::from(server.port()) % 10_000
        );
        let properties = TempDir::new()?;
        let file = properties.path().join("connector.properties");
        fs::write(&file, text)?;
        let service = Service::start("debezium", &[&kafka.bootstrap(), &file.to_string_lossy()])?;
        Ok(Self { _properties: properties, service })
    }

    /// The lines of its log that tell of errors.
    pub(crate) fn errors(&self) -> String {
        let log = fs::read_to_string(self.service.dir().join("log")).unwrap_or_default();
        let lines: Vec<&str> =
            log.lines().filter(|l| l.contains(" ERROR ") || l.contains("Caused by")).collect();
        lines[..lines.len().min(20)].join("\n")
    }
}
