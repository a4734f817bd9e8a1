//! The suite that every source passes.

use crate::server::{Database, servers};
use async_trait::async_trait;
use caudal_core::Source;
use caudal_core::conformance::SourceFixture;
use std::sync::Arc;

#[async_trait]
impl SourceFixture for Database {
    fn source(&self) -> Arc<dyn Source> {
        caudal_mysql::source("test", self.config(r#""tables":["items"]"#)).unwrap()
    }

    async fn insert(&self, ids: std::ops::Range<i64>) {
        let rows: Vec<String> = ids.map(|id| format!("({id}, 'name {id}')")).collect();
        self.run(&[&format!("INSERT INTO items VALUES {}", rows.join(", "))]).await;
    }

    async fn delete(&self, id: i64) {
        self.run(&[&format!("DELETE FROM items WHERE id = {id}")]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_keeps_the_promises_of_the_contract() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE items (id BIGINT PRIMARY KEY, name TEXT)",
                "CREATE TABLE others (id BIGINT PRIMARY KEY)",
            ])
            .await;
        caudal_core::conformance::source(&database).await;
        database.drop().await;
    }
}
