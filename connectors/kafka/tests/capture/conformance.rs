//! The suite that every sink passes.

use crate::kit::{brokers, log, prefix, read};
use async_trait::async_trait;
use caudal_core::conformance::SinkFixture;
use caudal_core::{Position, Sink, SourcePosition};
use caudal_kafka::CaptureOptions;
use std::sync::Arc;

struct Capture {
    brokers: String,
    prefix: String,
}

#[async_trait]
impl SinkFixture for Capture {
    fn sink(&self) -> Arc<dyn Sink> {
        log(&self.brokers, &self.prefix).capture_sink("items", CaptureOptions::default())
    }

    async fn position(&self, number: u64) -> Position {
        Position::Source(SourcePosition { token: format!("p{number}"), ..SourcePosition::default() })
    }

    async fn visible(&self) -> Vec<i64> {
        let (brokers, topic) = (self.brokers.clone(), format!("{}.db.items", self.prefix));
        let records = tokio::task::spawn_blocking(move || read(&brokers, &topic, 0)).await.unwrap();
        records.iter().map(|r| r.value.as_ref().unwrap()["after"]["id"].as_i64().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_capture_sink_keeps_the_promises_of_the_contract() {
    let Some(brokers) = brokers() else { return };
    caudal_core::conformance::sink(&Capture { brokers, prefix: prefix() }).await;
}
