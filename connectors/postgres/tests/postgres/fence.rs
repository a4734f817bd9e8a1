//! Two owners at once: only the one that took over last is ever visible.

use crate::database::Database;
use crate::rows::{I, Rows, T, at, int, put, table, text, write};
use caudal_core::{Fault, LogOffset, LogPosition, Position, TableSchema, Writer};
use std::sync::Arc;

fn items() -> Arc<TableSchema> {
    Arc::new(table("items", &[("id", int()), ("name", text())]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombies_open_transaction_is_rolled_back_when_it_wants_to_commit() {
    let Some(db) = Database::new().await else { return };
    let t = items();
    let mut zombie = db.writer().await;
    put(zombie.as_mut(), Rows::new().create(&t, &[I(1), T("old")]).at(100)).await;
    write(zombie.as_mut(), Rows::new().create(&t, &[I(2), T("zombie")]).at(200)).await;

    let mut owner = db.sink().open().await.unwrap();
    assert_eq!(owner.resume().await.unwrap(), Some(at(100)), "the open transaction does not count");
    put(owner.as_mut(), Rows::new().create(&t, &[I(3), T("new")]).at(150)).await;
    assert_eq!(zombie.commit().await.unwrap_err().fault(), Fault::Fenced);
    assert_eq!(db.rows("SELECT * FROM items ORDER BY id").await, ["1|old", "3|new"]);
    assert_eq!(db.value("SELECT next_offset FROM caudal.offsets").await, "150");
    // And it stays out.
    let mut batch = Rows::new().create(&t, &[I(4), T("zombie")]).at(300);
    assert!(zombie.write(&mut batch).await.is_err());
    assert!(zombie.commit().await.is_err());
    put(owner.as_mut(), Rows::new().create(&t, &[I(5), T("new")]).at(160)).await;
    assert_eq!(db.rows("SELECT id FROM items ORDER BY id").await, ["1", "3", "5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_that_holds_the_rows_delays_the_new_owner_and_changes_nothing() {
    let Some(db) = Database::new().await else { return };
    let t = items();
    let mut zombie = db.writer().await;
    put(zombie.as_mut(), Rows::new().create(&t, &[I(1), T("old")]).at(100)).await;
    write(zombie.as_mut(), Rows::new().create(&t, &[I(1), T("zombie")]).at(200)).await;
    let mut owner = db.writer().await;
    let t2 = Arc::clone(&t);
    let writing = tokio::spawn(async move {
        put(owner.as_mut(), Rows::new().create(&t2, &[I(1), T("new")]).at(150)).await;
    });
    db.wait_for(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
         AND datname = current_database() AND application_name = 'caudal')",
    )
    .await;
    assert_eq!(zombie.commit().await.unwrap_err().fault(), Fault::Fenced);
    writing.await.unwrap();
    assert_eq!(db.rows("SELECT * FROM items").await, ["1|new"]);
    assert_eq!(db.value("SELECT next_offset FROM caudal.offsets").await, "150");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_owners_of_a_sink_without_offsets_do_not_both_write() {
    let Some(db) = Database::new().await else { return };
    let t = items();
    let mut zombie = db.writer().await;
    write(zombie.as_mut(), Rows::new().create(&t, &[I(1), T("zombie")]).at(10)).await;
    let mut owner = db.sink().open().await.unwrap();
    assert_eq!(owner.resume().await.unwrap(), None);
    assert_eq!(zombie.commit().await.unwrap_err().fault(), Fault::Fenced);
    put(owner.as_mut(), Rows::new().create(&t, &[I(2), T("new")]).at(5)).await;
    assert_eq!(db.rows("SELECT * FROM items").await, ["2|new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_waits_for_an_owner_that_is_committing() {
    let Some(db) = Database::new().await else { return };
    let t = items();
    let mut first = db.writer().await;
    put(first.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(100)).await;
    drop(first);
    // An owner between its last statements and COMMIT, as another process would stand there.
    let committing = crate::database::connect(&db.url).await;
    committing
        .batch_execute(
            "BEGIN; INSERT INTO items VALUES (2, 'b');
             SELECT 1 FROM caudal.sinks WHERE sink = 'test' AND epoch = 1 FOR SHARE;
             UPDATE caudal.offsets SET next_offset = 200 WHERE sink = 'test' AND epoch = 1 AND next_offset = 100",
        )
        .await
        .unwrap();
    let sink = db.sink();
    let taking_over = tokio::spawn(async move { sink.open().await.unwrap().resume().await.unwrap() });
    db.wait_for(
        "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
         AND datname = current_database() AND application_name = 'caudal')",
    )
    .await;
    assert!(!taking_over.is_finished());
    committing.batch_execute("COMMIT").await.unwrap();
    assert_eq!(taking_over.await.unwrap(), Some(at(200)), "it reads what the owner before committed");
}

#[tokio::test]
async fn offsets_that_somebody_moved_underneath_stop_the_writer() {
    let Some(db) = Database::new().await else { return };
    let t = items();
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(100)).await;
    db.run("UPDATE caudal.offsets SET next_offset = 50").await;
    write(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(110)).await;
    assert_eq!(w.commit().await.unwrap_err().fault(), Fault::Fenced);
    assert_eq!(db.rows("SELECT id FROM items").await, ["1"]);
}

/// A position in one partition.
fn in_partition(partition: i32, offset: i64) -> Position {
    let (topic, topic_id) = ("shop.t".into(), uuid::Uuid::from_u128(7));
    Position::Log(LogPosition {
        offsets: vec![LogOffset {
            topic,
            topic_id,
            partition,
            offset,
            leader_epoch: 3,
            as_of_ms: 0,
            unswept: false,
            writer_epoch: 0,
        }],
    })
}

/// A writer of a sink that instances share.
async fn sharing(db: &Database) -> Box<dyn Writer> {
    let config = db.config_with(serde_json::json!({"consistency": "key", "lock_timeout": "20s"}));
    let mut writer = caudal_postgres::sink("test", config).unwrap().open().await.unwrap();
    writer.resume().await.unwrap();
    writer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_key_mode_instances_with_partitions_of_their_own_do_not_fence_each_other() {
    let Some(db) = Database::new().await else { return };
    let t = items();
    let row = |id: i64, partition, offset| {
        let mut batch = Rows::new().create(&t, &[I(id), T("x")]).at(offset);
        batch.position = in_partition(partition, offset);
        batch
    };
    let mut first = sharing(&db).await;
    put(first.as_mut(), row(1, 0, 10)).await;
    let mut second = sharing(&db).await;
    put(second.as_mut(), row(2, 1, 10)).await;
    put(first.as_mut(), row(3, 0, 20)).await;
    put(second.as_mut(), row(4, 1, 20)).await;
    assert_eq!(db.rows("SELECT id FROM items ORDER BY id").await, ["1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_key_mode_of_two_that_move_one_partition_only_the_first_to_commit_is_visible() {
    let Some(db) = Database::new().await else { return };
    let t = items();
    let mut zombie = sharing(&db).await;
    put(zombie.as_mut(), Rows::new().create(&t, &[I(1), T("old")]).at(100)).await;
    write(zombie.as_mut(), Rows::new().create(&t, &[I(2), T("zombie")]).at(200)).await;
    let mut owner = sharing(&db).await;
    put(owner.as_mut(), Rows::new().create(&t, &[I(3), T("new")]).at(150)).await;
    assert_eq!(zombie.commit().await.unwrap_err().fault(), Fault::Fenced);
    // Of a new partition too.
    let mut first = sharing(&db).await;
    let mut batch = Rows::new().create(&t, &[I(4), T("zombie")]).at(7);
    batch.position = in_partition(1, 7);
    write(first.as_mut(), batch).await;
    let mut batch = Rows::new().create(&t, &[I(5), T("new")]).at(5);
    batch.position = in_partition(1, 5);
    put(owner.as_mut(), batch).await;
    assert_eq!(first.commit().await.unwrap_err().fault(), Fault::Fenced);
    assert_eq!(db.rows("SELECT id FROM items ORDER BY id").await, ["1", "3", "5"]);
}
