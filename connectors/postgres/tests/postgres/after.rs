//! When after-load jobs run, and what a failed run leaves.

use crate::database::Database;
use crate::rows::{I, Rows, int, put, table};
use caudal_core::{TableSchema, Writer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn people() -> Arc<TableSchema> {
    Arc::new(table("people", &[("id", int())]))
}

/// A sink with one job; `seen` is for its steps.
async fn writer(db: &Database, mut job: Value) -> Box<dyn Writer> {
    db.run("CREATE TABLE seen (n bigint)").await;
    job["name"] = json!("job");
    job["tables"] = json!(["people"]);
    let sink = caudal_postgres::sink("test", db.config_with(json!({"after_load": [job]}))).unwrap();
    let mut writer = sink.open().await.unwrap();
    writer.resume().await.unwrap();
    writer
}

const DONE: &str = "SELECT changed > 0 AND changed = done FROM caudal.after_load";
const COUNT: &str = "INSERT INTO seen SELECT count(*) FROM people";

#[tokio::test]
async fn a_job_waits_until_its_tables_are_quiet_and_then_runs_once() {
    let Some(db) = Database::new().await else { return };
    let mut w = writer(&db, json!({"debounce": "4s", "run": [{"sql": COUNT}]})).await;
    for id in 1..4 {
        put(w.as_mut(), Rows::new().create(&people(), &[I(id)]).at(id)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    db.wait_for(DONE).await;
    assert_eq!(db.rows("SELECT n FROM seen").await, ["3"]);
    assert_eq!(db.value("SELECT count(*) FROM caudal.after_load_runs WHERE error IS NULL").await, "1");
}

#[tokio::test]
async fn a_job_whose_tables_are_never_quiet_runs_all_the_same() {
    let Some(db) = Database::new().await else { return };
    let job = json!({"debounce": "1h", "at_latest": "1s", "run": [{"sql": COUNT}]});
    let mut w = writer(&db, job).await;
    let ran = async || db.value("SELECT count(*) FROM seen").await != "0";
    let mut id = 0;
    while !ran().await {
        id += 1;
        assert!(id < 300, "it never ran");
        put(w.as_mut(), Rows::new().create(&people(), &[I(id)]).at(id)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_run_that_fails_is_undone_told_and_comes_again() {
    let Some(db) = Database::new().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("step.sql");
    // What fails behind the first step is no statement of the server's, which would undo it by itself.
    let steps = json!([{"sql": COUNT}, {"file": file}]);
    let mut w = writer(&db, json!({"debounce": "1ms", "run": steps})).await;
    put(w.as_mut(), Rows::new().create(&people(), &[I(1)]).at(1)).await;
    db.wait_for("SELECT count(*) = 1 FROM caudal.after_load_runs WHERE error LIKE '%step.sql%'").await;
    assert_eq!(db.value("SELECT count(*) FROM seen").await, "0");
    assert_eq!(db.value("SELECT changed > done AND failures = 1 FROM caudal.after_load").await, "t");
    std::fs::write(&file, "SELECT 1").unwrap();
    db.wait_for(DONE).await;
    assert_eq!(db.rows("SELECT n FROM seen").await, ["1"]);
    assert_eq!(db.value("SELECT failures FROM caudal.after_load").await, "0");
}

#[tokio::test]
async fn a_run_that_fails_and_is_skipped_comes_with_the_next_change() {
    let Some(db) = Database::new().await else { return };
    let job = json!({"debounce": "1ms", "on_failure": "skip", "run": [{"sql": "SELECT 1 / 0"}]});
    let mut w = writer(&db, job).await;
    for id in 1..3 {
        put(w.as_mut(), Rows::new().create(&people(), &[I(id)]).at(id)).await;
        db.wait_for(&format!(
            "SELECT count(*) = {id} FROM caudal.after_load_runs WHERE error LIKE '%22012%'"
        ))
        .await;
        assert_eq!(db.value(DONE).await, "t");
    }
}
