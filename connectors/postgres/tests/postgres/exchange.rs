//! The exchange of a table with its shadow, step by step: what the locks and the comparison of offsets are for.

use crate::database::{Database, connect};
use crate::rows::{I, Rows, T, int, put, table, text, write};
use caudal_core::rebuild::{Begin, Rebuild};
use caudal_core::{TableSchema, Writer};
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn people() -> Arc<TableSchema> {
    Arc::new(table("people", &[("id", int()), ("name", text())]))
}

/// A sink that stands at offset 1, and a rebuild whose shadow stands there too. The rows of the sink's table are wrong.
pub(crate) async fn level(db: &Database) -> (Box<dyn Writer>, Box<dyn Rebuild>, Arc<TableSchema>) {
    let t = people();
    let sink = db.sink();
    let mut w = db.writer().await;
    let rows = || Rows::new().create(&t, &[I(1), T("a")]).at(1);
    put(w.as_mut(), rows()).await;
    db.run("UPDATE people SET name = 'wrong'").await;
    let mut rebuild = sink.rebuild().await.unwrap().unwrap();
    assert!(rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap());
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), rows()).await;
    (w, rebuild, t)
}

#[tokio::test]
async fn a_sink_that_has_gone_on_is_not_exchanged_with_a_shadow_that_has_not() {
    let Some(db) = Database::new().await else { return };
    let (mut w, mut rebuild, t) = level(&db).await;
    put(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(!rebuild.exchange(None).await.unwrap(), "row 2 is in the table before only");
    assert_eq!(db.rows("SELECT * FROM people ORDER BY id").await, ["1|wrong", "2|b"]);
    // Nothing is held any more, and once the shadow has come by it the same way succeeds.
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
    assert_eq!(db.rows("SELECT * FROM people ORDER BY id").await, ["1|a", "2|b"]);
    put(w.as_mut(), Rows::new().create(&t, &[I(3), T("c")]).at(3)).await;
    assert_eq!(db.value("SELECT count(*) FROM people").await, "3");
}

#[tokio::test]
async fn rows_that_a_transaction_has_written_and_not_committed_are_waited_for() {
    let Some(db) = Database::new().await else { return };
    let (mut w, mut rebuild, t) = level(&db).await;
    // Its offsets are not stored yet: a comparison would find nothing.
    write(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    assert!(!rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    w.commit().await.unwrap();
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(!rebuild.exchange(None).await.unwrap());
    assert_eq!(db.rows("SELECT * FROM people ORDER BY id").await, ["1|wrong", "2|b"]);
}

#[tokio::test]
async fn who_writes_while_the_tables_are_held_writes_to_the_new_one() {
    let Some(db) = Database::new().await else { return };
    let (mut w, mut rebuild, t) = level(&db).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    let writing = tokio::spawn(async move {
        put(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    });
    db.wait_for("SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database() AND NOT l.granted)").await;
    // Readers go on.
    let reader = connect(&db.url).await;
    let read =
        tokio::time::timeout(Duration::from_secs(30), reader.simple_query("SELECT * FROM people")).await;
    assert!(read.unwrap().is_ok());
    assert!(rebuild.exchange(None).await.unwrap());
    writing.await.unwrap();
    assert_eq!(db.rows("SELECT * FROM people ORDER BY id").await, ["1|a", "2|b"]);
    assert_eq!(db.rows("SELECT * FROM people__old").await, ["1|wrong"]);
}

#[tokio::test]
async fn a_kept_table_goes_when_its_time_is_over() {
    let Some(db) = Database::new().await else { return };
    let (mut w, mut rebuild, t) = level(&db).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(Some(Duration::from_secs(3600))).await.unwrap());
    let kept = "SELECT to_regclass('people__old') IS NOT NULL";
    db.sink().open().await.unwrap();
    assert_eq!(db.value(kept).await, "t");
    db.run("UPDATE caudal.rebuilds SET keep_until = now() - interval '1 second'").await;
    // Somebody reads it: it stays, and nobody waits for that.
    let reader = connect(&db.url).await;
    reader.batch_execute("BEGIN; SELECT 1 FROM people__old").await.unwrap();
    db.sink().open().await.unwrap();
    assert_eq!(db.value(kept).await, "t");
    reader.batch_execute("COMMIT").await.unwrap();
    db.sink().open().await.unwrap();
    assert_eq!(db.value(kept).await, "f");
    assert_eq!(db.value("SELECT count(*) FROM caudal.offsets WHERE sink LIKE '%/kept/%'").await, "0");
    w.resume().await.unwrap();
    put(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    assert_eq!(db.rows("SELECT * FROM people ORDER BY id").await, ["1|a", "2|b"]);
}

#[tokio::test]
async fn a_table_that_has_changed_its_shape_meanwhile_is_exchanged_in_the_new_one() {
    let Some(db) = Database::new().await else { return };
    let (mut w, mut rebuild, t) = level(&db).await;
    let mut new = (*t).clone();
    new.version = 2;
    new.columns.push(crate::rows::column(3, "more", int()));
    let new = Arc::new(new);
    let rows = || Rows::new().create(&new, &[I(2), T("b"), I(7)]).at(2);
    put(w.as_mut(), rows()).await;
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), rows()).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
    assert_eq!(db.rows("SELECT id, name, more FROM people ORDER BY id").await, ["1|a|∅", "2|b|7"]);
    put(w.as_mut(), Rows::new().create(&new, &[I(3), T("c"), I(8)]).at(3)).await;
    assert_eq!(db.value("SELECT count(more) FROM people").await, "2");
}

#[tokio::test]
async fn columns_that_were_chosen_since_come_with_a_rebuild() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let with = |columns: serde_json::Value| {
        let config = db.config_with(serde_json::json!({"tables": {"people": {"columns": columns}}}));
        caudal_postgres::sink("test", config).unwrap()
    };
    let rows = || Rows::new().create(&t, &[I(1), T("a")]).at(1);
    let mut w = with(serde_json::json!(["id"])).open().await.unwrap();
    w.resume().await.unwrap();
    put(w.as_mut(), rows()).await;
    let wider = with(serde_json::json!(["id", "name"]));
    let mut w = wider.open().await.unwrap();
    w.resume().await.unwrap();
    let mut next = Rows::new().create(&t, &[I(2), T("b")]).at(2);
    assert!(w.write(&mut next).await.is_err(), "a rebuild is asked for");
    let mut rebuild = wider.rebuild().await.unwrap().unwrap();
    assert!(rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap());
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), rows()).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
    w.resume().await.unwrap();
    put(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    assert_eq!(db.rows("SELECT id, name FROM people ORDER BY id").await, ["1|a", "2|b"]);
}

#[tokio::test]
async fn a_rebuild_of_another_kind_that_was_begun_is_neither_gone_on_with_nor_thrown_away() {
    let Some(db) = Database::new().await else { return };
    let (_, mut rebuild, t) = level(&db).await;
    for begin in [Begin::Copy, Begin::Kept] {
        let error = rebuild.begin(&t, "shop.t", begin).await.unwrap_err().to_string();
        assert!(error.contains("another rebuild of public.people was begun (empty)"), "{error}");
        assert_eq!(db.rows("SELECT * FROM people__new").await, ["1|a"], "what was filled stays");
    }
    assert!(!rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap(), "the same kind goes on");
    assert!(rebuild.discard(&t.id).await.unwrap());
    assert!(rebuild.begin(&t, "shop.t", Begin::Copy).await.unwrap());
    assert_eq!(db.rows("SELECT * FROM people__new").await, ["1|wrong"]);
    let error = rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap_err().to_string();
    assert!(error.contains("was begun (copy)"), "{error}");
}

#[tokio::test]
async fn identity_and_serial_columns_go_on_counting_behind_an_exchange_and_behind_the_way_back() {
    let Some(db) = Database::new().await else { return };
    let (_, mut rebuild, t) = level(&db).await;
    rebuild.discard(&t.id).await.unwrap();
    db.run(
        "ALTER TABLE people ADD COLUMN one int GENERATED ALWAYS AS IDENTITY, ADD COLUMN two serial, \
            ADD COLUMN three int GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT 10)",
    )
    .await;
    let counted = |id: i32| format!("INSERT INTO people (id) VALUES ({id}) RETURNING one, two, three");
    assert_eq!(db.rows(&counted(-1)).await, ["2|2|110"]);
    db.run("DELETE FROM people WHERE id < 0").await;
    assert!(rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap());
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(1)).await;
    // Who writes while the shadow is filled counts on, too.
    assert_eq!(db.rows(&counted(-1)).await, ["3|4|120"]);
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
    assert_eq!(db.rows(&counted(-2)).await, ["4|5|130"]);
    assert!(rebuild.begin(&t, "shop.t", Begin::Kept).await.unwrap());
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
    assert_eq!(db.rows(&counted(-3)).await, ["5|6|140"]);
    // The kept table goes, and takes no sequence with it.
    db.run("UPDATE caudal.rebuilds SET keep_until = now() - interval '1 second'").await;
    db.sink().open().await.unwrap();
    assert_eq!(db.rows(&counted(-4)).await, ["6|7|150"]);
}

#[tokio::test]
async fn a_sink_whose_offsets_move_between_the_two_locks_of_an_exchange_is_not_exchanged() {
    let Some(db) = Database::new().await else { return };
    let (mut w, mut rebuild, t) = level(&db).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    // Level when it was looked at; a reader holds the exclusive lock up.
    assert_eq!(rebuild.live("shop.t").await.unwrap().offsets[0].offset, 1);
    let reader = connect(&db.url).await;
    reader.batch_execute("BEGIN; SELECT * FROM people").await.unwrap();
    let exchanging = tokio::spawn(async move { rebuild.exchange(None).await });
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE relation = 'people'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted)";
    db.wait_for(waits).await;
    // Meanwhile a transaction of the sink moves its offsets: of rows of another table, or none.
    let other = Arc::new(table("others", &[("id", int())]));
    put(w.as_mut(), Rows::new().create(&other, &[I(1)]).at(2)).await;
    reader.batch_execute("COMMIT").await.unwrap();
    assert!(!exchanging.await.unwrap().unwrap(), "the sink has gone on");
    assert_eq!(db.rows("SELECT * FROM people").await, ["1|wrong"]);
    assert_eq!(db.value("SELECT phase FROM caudal.rebuilds").await, "rebuild");
}

#[tokio::test]
async fn a_table_that_a_partitioned_one_refers_to_is_refused_before_anything_is_done() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    put(db.writer().await.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(1)).await;
    db.run("CREATE TABLE parts (person bigint REFERENCES people, day date) PARTITION BY RANGE (day)").await;
    let mut rebuild = db.sink().rebuild().await.unwrap().unwrap();
    let told = rebuild.look(&t).await.unwrap().obstacles;
    assert_eq!(told, ["parts, which is partitioned, has a foreign key to it"]);
    assert!(rebuild.begin(&t, "shop.t", Begin::Empty).await.is_err());
}

/// A session in a transaction, behind a statement.
async fn inside(db: &Database, sql: &str) -> tokio_postgres::Client {
    let client = connect(&db.url).await;
    client.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    client
}

#[tokio::test]
async fn what_only_a_vacuum_holds_is_waited_for_as_long_as_it_takes_to_cancel_one() {
    let Some(db) = Database::new().await else { return };
    let (_w, mut rebuild, t) = level(&db).await;
    let vacuum = inside(&db, "LOCK TABLE people IN SHARE UPDATE EXCLUSIVE MODE").await;
    let ended = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        vacuum.batch_execute("COMMIT").await.unwrap();
    });
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    ended.await.unwrap();
    assert!(rebuild.exchange(None).await.unwrap());
}

#[tokio::test]
async fn who_reads_through_a_view_meets_the_exchange_in_its_own_order() {
    let Some(db) = Database::new().await else { return };
    let (_w, mut rebuild, t) = level(&db).await;
    db.run("CREATE VIEW names AS SELECT name FROM people").await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    // Holds the exchange up in its middle.
    let early = inside(&db, "SELECT * FROM people").await;
    let exchange = tokio::spawn(async move { rebuild.exchange(None).await });
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                 WHERE d.datname = current_database() AND NOT l.granted AND l.relation = 'people'::regclass)";
    db.wait_for(waits).await;
    let reader = connect(&db.url).await;
    let read = tokio::spawn(async move { reader.simple_query("SELECT * FROM names").await.map(|_| ()) });
    let waiting = "SELECT count(*) = 2 FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                   WHERE d.datname = current_database() AND NOT l.granted";
    db.wait_for(waiting).await;
    early.batch_execute("COMMIT").await.unwrap();
    assert!(exchange.await.unwrap().unwrap(), "the exchange met the reader");
    read.await.unwrap().expect("the reader met the exchange");
    assert_eq!(db.rows("SELECT * FROM names").await, ["a"]);
}
