//! The Java client and Kafka's own command-line tools, on the embedded log as on Kafka (`tests/clients`).

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use caudal_tests::Kafka;

/// Runs the suite; panics with what it printed if a check fails.
fn suite(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/run-suite");
    let out =
        Command::new("timeout").arg("900").arg(script).args(arguments).stderr(Stdio::inherit()).output();
    let out = out.unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains(" checks, 0 failed"), "{}: {said}", out.status);
    println!("{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_java_client_and_kafkas_tools_work_on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    let config = caudal_log::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: dir.path().join("log"),
        maintenance_interval: Duration::from_millis(200),
        ..caudal_log::Config::default()
    };
    let log = caudal_log::Log::start(config).await.unwrap();
    let brokers = log.address().to_string();
    tokio::task::spawn_blocking(move || suite(&[&brokers])).await.unwrap();
    log.shutdown().await;
}

/// What is asked of the embedded log is what Kafka does.
#[tokio::test]
async fn the_java_client_and_kafkas_tools_work_on_kafka_alike() {
    let kafka = Kafka::start(&[
        "log.cleaner.backoff.ms=200",
        "log.cleaner.threads=1",
        "log.retention.check.interval.ms=300",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
    ])
    .unwrap();
    let brokers = kafka.bootstrap();
    tokio::task::spawn_blocking(move || suite(&["--again", &brokers])).await.unwrap();
}
