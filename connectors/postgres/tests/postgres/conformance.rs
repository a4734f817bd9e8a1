//! The suite that every sink passes.

use crate::database::Database;
use crate::rows::at;
use async_trait::async_trait;
use caudal_core::conformance::SinkFixture;
use caudal_core::{Position, Sink};
use std::sync::Arc;

#[async_trait]
impl SinkFixture for Database {
    fn sink(&self) -> Arc<dyn Sink> {
        Self::sink(self)
    }

    async fn position(&self, number: u64) -> Position {
        at(number as i64)
    }

    async fn visible(&self) -> Vec<i64> {
        if self.value("SELECT to_regclass('public.items') IS NULL").await == "t" {
            return Vec::new();
        }
        self.rows("SELECT id FROM items ORDER BY id").await.iter().map(|id| id.parse().unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sink_keeps_the_promises_of_the_contract() {
    let Some(db) = Database::new().await else { return };
    caudal_core::conformance::sink(&db).await;
}
