//! The suite that every source passes: the log is the source of sinks.

use crate::support::{Capture, Change, TestLog, change};
use async_trait::async_trait;
use caudal_core::conformance::SourceFixture;
use caudal_core::{Op, Source};
use caudal_kafka::{Consistency, LogSource};
use std::sync::Arc;
use tokio::sync::Mutex;

struct Captured {
    /// One for all readers: a second member of the sink's group would wait for the first to leave.
    source: Arc<LogSource>,
    capture: Mutex<Capture>,
}

impl Captured {
    async fn write(&self, op: Op, ids: impl Iterator<Item = i64>) {
        let changes: Vec<Change> =
            ids.map(|id| Change { text: format!("name {id}"), ..change("items", op, id) }).collect();
        self.capture.lock().await.transaction(&changes).await;
    }
}

#[async_trait]
impl SourceFixture for Captured {
    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    async fn insert(&self, ids: std::ops::Range<i64>) {
        self.write(Op::Create, ids).await;
    }

    async fn delete(&self, id: i64) {
        self.write(Op::Delete, std::iter::once(id)).await;
    }
}

async fn keeps_the_promises(consistency: Consistency) {
    let Some(log) = TestLog::from_env() else { return };
    let capture = Mutex::new(Capture::open(&log, "shop").await);
    let fixture = Captured { source: log.source("dash", &["shop"], consistency), capture };
    caudal_core::conformance::source(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_as_a_source_of_whole_transactions_keeps_the_promises_of_the_contract() {
    keeps_the_promises(Consistency::Transaction).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_as_a_source_of_rows_keeps_the_promises_of_the_contract() {
    keeps_the_promises(Consistency::Key).await;
}
