//! Rebuilds of tables that stay what they are, and hold more than their topic: histories and kept deleted rows.

use crate::database::Database;
use crate::exchange::people;
use crate::rows::{I, Rows, T, V, put};
use crate::tables::timed;
use caudal_core::rebuild::{Begin, Rebuild};
use caudal_core::{Batch, Sink, TableSchema, Writer};
use serde_json::{Value, json};
use std::sync::Arc;

fn sink(db: &Database, rules: Value) -> Arc<dyn Sink> {
    caudal_postgres::sink("test", db.config_with(json!({"tables": {"people": rules}}))).unwrap()
}

/// What was written: row 1 changes twice, row 2 goes, row 3 stays.
fn written(t: &Arc<TableSchema>) -> [Batch; 3] {
    let row = |id, name| [I(id), T(name)];
    [
        timed(Rows::new().create(t, &row(1, "a")).create(t, &row(2, "x")).create(t, &row(3, "s")), 1),
        timed(Rows::new().update(t, &row(1, "a"), &row(1, "b")).delete(t, &row(2, "x")), 2),
        timed(Rows::new().update(t, &row(1, "b"), &row(1, "c")), 3),
    ]
}

/// What a topic holds of that behind its compaction: the newest of each key.
fn compacted(t: &Arc<TableSchema>) -> Vec<Batch> {
    let mut first = timed(
        Rows::new().create(t, &[I(1), T("-")]).create(t, &[I(2), T("-")]).create(t, &[I(3), T("s")]),
        1,
    );
    first.events.drain(..2);
    let [.., last] = written(t);
    vec![first, last]
}

async fn apply(writer: &mut Box<dyn Writer>, batches: impl IntoIterator<Item = Batch>) {
    writer.resume().await.unwrap();
    for batch in batches {
        put(writer.as_mut(), batch).await;
    }
}

async fn filled(rebuild: &mut Box<dyn Rebuild>, t: &Arc<TableSchema>, begin: Begin, batches: Vec<Batch>) {
    assert!(rebuild.begin(t, "shop.t", begin).await.unwrap());
    apply(&mut rebuild.writer(&t.id).await.unwrap(), batches).await;
}

async fn exchanged(rebuild: &mut Box<dyn Rebuild>, t: &Arc<TableSchema>) {
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
}

const HISTORY: &str =
    "SELECT id, name, _op, _position, _at, _valid_from, _valid_to FROM people ORDER BY id, _seq";

#[tokio::test]
async fn a_history_that_stays_one_keeps_the_versions_that_its_topic_no_longer_holds() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let history = sink(&db, json!({"history": true}));
    let mut w = history.open().await.unwrap();
    apply(&mut w, written(&t)).await;
    let before = db.rows(HISTORY).await;
    assert_eq!(before.len(), 6);
    // In doubt: what the topic holds is mended.
    db.run("UPDATE people SET name = 'wrong' WHERE name IN ('c', 's')").await;
    let mut rebuild = history.rebuild().await.unwrap().unwrap();
    let outlook = rebuild.look(&t).await.unwrap();
    assert_eq!((outlook.obstacles, outlook.keeps), (Vec::new(), true));
    filled(&mut rebuild, &t, Begin::Empty, compacted(&t)).await;
    // What the sink writes meanwhile is the shadow's own matter.
    let next = || timed(Rows::new().update(&t, &[I(3), T("s")], &[I(3), T("t")]), 4);
    put(w.as_mut(), next()).await;
    assert_eq!(rebuild.keep(&t.id).await.unwrap(), 4);
    assert_eq!(rebuild.keep(&t.id).await.unwrap(), 0, "they are there once");
    assert_eq!(rebuild.shadow(&t).await.unwrap().1, 2, "alive is what the topic says");
    apply(&mut rebuild.writer(&t.id).await.unwrap(), [next()]).await;
    exchanged(&mut rebuild, &t).await;
    let after = db.rows(HISTORY).await;
    assert_eq!((after.len(), &after[..5]), (7, &before[..5]));
    assert_eq!(
        db.rows("SELECT name, _op, _valid_to IS NULL FROM people WHERE id = 3 ORDER BY _seq").await,
        ["s|c|f", "t|u|t"]
    );
    apply(&mut w, [timed(Rows::new().delete(&t, &[I(3), T("t")]), 5)]).await;
    assert_eq!(db.value("SELECT count(*) FROM people WHERE _valid_to IS NULL").await, "1");

    // Also of a part of the columns; and with a copy of it, from an offset.
    let narrow = sink(&db, json!({"history": true, "columns": ["id"]}));
    let mut rebuild = narrow.rebuild().await.unwrap().unwrap();
    let mut all = compacted(&t);
    all.extend([next(), timed(Rows::new().delete(&t, &[I(3), T("t")]), 5)]);
    filled(&mut rebuild, &t, Begin::Empty, all).await;
    assert_eq!(rebuild.keep(&t.id).await.unwrap(), 4);
    exchanged(&mut rebuild, &t).await;
    assert_eq!(db.value("SELECT count(*) || ' ' || count(_valid_to) FROM people").await, "8 7");
    let mut rebuild = narrow.rebuild().await.unwrap().unwrap();
    assert!(rebuild.begin(&t, "shop.t", Begin::Copy).await.unwrap());
    assert_eq!(rebuild.keep(&t.id).await.unwrap(), 0);
    assert_eq!(db.value("SELECT count(*) FROM people__new").await, "8");
}

/// The deletion of row 2 as its tombstone alone tells of it.
fn tombstone(t: &Arc<TableSchema>) -> Batch {
    let mut batch = timed(Rows::new().delete(t, &[I(2), V::Unchanged]), 2);
    batch.events[0].ts_us = 0;
    batch
}

#[tokio::test]
async fn a_deletion_of_which_only_the_tombstone_is_left_is_not_in_a_history_twice() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let history = sink(&db, json!({"history": true}));
    apply(&mut history.open().await.unwrap(), written(&t)).await;
    let before = db.rows(HISTORY).await;
    let topic = || {
        let [first, last] = <[Batch; 2]>::try_from(compacted(&t)).unwrap();
        vec![first, tombstone(&t), last]
    };
    let mut rebuild = history.rebuild().await.unwrap().unwrap();
    filled(&mut rebuild, &t, Begin::Empty, topic()).await;
    rebuild.keep(&t.id).await.unwrap();
    exchanged(&mut rebuild, &t).await;
    assert_eq!(db.rows(HISTORY).await, before);
    // One that the table has missed is told by its tombstone.
    db.run("DELETE FROM people WHERE _op = 'd'").await;
    let mut rebuild = history.rebuild().await.unwrap().unwrap();
    filled(&mut rebuild, &t, Begin::Empty, topic()).await;
    for _ in 0..2 {
        rebuild.keep(&t.id).await.unwrap();
    }
    exchanged(&mut rebuild, &t).await;
    let of_two = "SELECT _op, _position LIKE '%@0' FROM people WHERE id = 2 ORDER BY _seq";
    assert_eq!(db.rows(of_two).await, ["c|f", "d|t"]);
}

#[tokio::test]
async fn an_open_version_that_the_topic_does_not_know_ends_and_is_not_lost() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let history = sink(&db, json!({"history": true}));
    apply(&mut history.open().await.unwrap(), written(&t)).await;
    // As after a long absence: the end of a version was missed.
    db.run("UPDATE people SET _valid_to = NULL WHERE name IN ('b', 'x') AND _op <> 'd'; DELETE FROM people WHERE _op = 'd'").await;
    let mut rebuild = history.rebuild().await.unwrap().unwrap();
    filled(&mut rebuild, &t, Begin::Empty, compacted(&t)).await;
    assert_eq!(rebuild.keep(&t.id).await.unwrap(), 3);
    exchanged(&mut rebuild, &t).await;
    assert_eq!(db.rows("SELECT name FROM people WHERE _valid_to IS NULL ORDER BY id").await, ["c", "s"]);
    let ends = "SELECT o._valid_to = n._at FROM people o JOIN people n USING (id) WHERE o.name = 'b' AND n.name = 'c'";
    assert_eq!(db.value(ends).await, "t", "with the next version of its key");
    assert_eq!(
        db.value("SELECT _valid_to > now() - interval '1 hour' FROM people WHERE name = 'x'").await,
        "t"
    );
}

#[tokio::test]
async fn rows_that_were_deleted_and_are_kept_stay_where_the_topic_no_longer_tells_of_them() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let soft = sink(&db, json!({"deletes": "soft"}));
    let mut w = soft.open().await.unwrap();
    apply(&mut w, written(&t)).await;
    let rows = "SELECT id, name, _deleted, _deleted_at FROM people ORDER BY id";
    let before = db.rows(rows).await;
    db.run("UPDATE people SET name = 'wrong' WHERE id = 3; INSERT INTO people (id, name, _deleted) VALUES (9, 'surplus', false)").await;
    let mut rebuild = soft.rebuild().await.unwrap().unwrap();
    assert!(rebuild.look(&t).await.unwrap().keeps);
    filled(&mut rebuild, &t, Begin::Empty, compacted(&t)).await;
    assert_eq!(rebuild.keep(&t.id).await.unwrap(), 1);
    assert_eq!(rebuild.shadow(&t).await.unwrap().1, 2);
    exchanged(&mut rebuild, &t).await;
    assert_eq!(db.rows(rows).await, before);
    // One that comes again is alive again.
    apply(&mut w, [timed(Rows::new().create(&t, &[I(2), T("y")]), 4)]).await;
    assert_eq!(db.value("SELECT name || _deleted FROM people WHERE id = 2").await, "yfalse");
}
