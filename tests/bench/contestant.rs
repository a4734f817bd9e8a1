//! Whoever is measured: started and stopped alike, watched from outside.

use std::time::Duration;

use anyhow::Result;
use caudal_tests::process::Usage;
use caudal_tests::{Daemon, DaemonConfig, Kafka, MysqlServer, PgDatabase};

use crate::debezium::{Capture, Debezium};
use crate::plan::Runner;

const STOP: Duration = Duration::from_secs(20);

/// One contestant with its place in the source's log.
pub(crate) struct Contestant {
    pub(crate) runner: Runner,
    /// Topic of the measured table.
    pub(crate) topic: String,
    /// How many offsets of it were used when the last work ended.
    pub(crate) end: u64,
    process: Process,
}

enum Process {
    Caudal(Box<Daemon>, DaemonConfig),
    Debezium(Debezium),
}

impl Contestant {
    /// Writes the configuration; nothing runs yet. `number` makes its topics its own.
    pub(crate) fn prepare(runner: Runner, number: u32, server: &MysqlServer, database: &str) -> Result<Self> {
        let kind = match runner {
            Runner::Kafka => "kafka",
            Runner::Loose => "loose",
            Runner::Zstd => "zstd",
            Runner::Uncompressed => "uncompressed",
            Runner::Embedded => "embedded",
            Runner::Debezium => "debezium",
        };
        let prefix = format!("bench-{kind}-{number}");
        let topic = format!("{prefix}.{database}.sbtest");
        let process = if runner == Runner::Debezium {
            let brokers = Kafka::shared().bootstrap();
            let capture = Capture { server, database, prefix: &prefix, brokers: &brokers, schemas: false };
            Process::Debezium(Debezium::capture(&capture)?)
        } else {
            let mut config = DaemonConfig::new(&prefix).source("bench", &server.url(database), &["sbtest"]);
            if runner != Runner::Embedded {
                config = config.brokers(&Kafka::shared().bootstrap());
            }
            if runner == Runner::Loose {
                config = config.kafka("  delivery: at_least_once");
            }
            match runner {
                Runner::Zstd => config = config.kafka("  compression: zstd"),
                Runner::Uncompressed => config = config.kafka("  compression: none"),
                _ => {}
            }
            Process::Caudal(Box::new(Daemon::prepare(&config)?), config)
        };
        Ok(Self { runner, topic, end: 0, process })
    }

    /// Starts it; it goes on where it stopped.
    pub(crate) fn start(&mut self) -> Result<()> {
        match &mut self.process {
            Process::Caudal(daemon, _) => daemon.start_again(),
            Process::Debezium(debezium) => debezium.start(),
        }
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        match &mut self.process {
            Process::Caudal(daemon, _) => daemon.terminate(STOP).await.map(drop),
            Process::Debezium(debezium) => debezium.stop().await,
        }
    }

    /// Gives the daemon a sink, from its next start on.
    pub(crate) fn sink(&mut self, database: &PgDatabase) -> Result<()> {
        if let Process::Caudal(daemon, config) = &mut self.process {
            daemon.reconfigure(&config.clone().sink("warehouse", database, &[]))?;
        }
        Ok(())
    }

    pub(crate) fn brokers(&self) -> String {
        match &self.process {
            Process::Caudal(daemon, _) => daemon.brokers().to_owned(),
            Process::Debezium(_) => Kafka::shared().bootstrap(),
        }
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        match &self.process {
            Process::Caudal(daemon, _) => daemon.usage(),
            Process::Debezium(debezium) => debezium.usage(),
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        match &self.process {
            Process::Caudal(daemon, _) => daemon.log_tail(),
            Process::Debezium(debezium) => debezium.log_tail(),
        }
    }
}
