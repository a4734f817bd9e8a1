//! Unique indexes beside the key, of tables whose rows may not be deleted on the way.

use crate::database::Database;
use crate::rows::{I, Rows, T, int, put, table, text};
use caudal_core::{Batch, Op, Sweep, SweepPart, TableSchema};
use std::sync::Arc;

fn people() -> Arc<TableSchema> {
    Arc::new(table("people", &[("id", int()), ("mail", text())]))
}

/// Two rows, which a column of the target's own and rows of another table hang on.
async fn family(db: &Database, mail: &str) {
    let t = people();
    put(
        db.writer().await.as_mut(),
        Rows::new().create(&t, &[I(1), T("one")]).create(&t, &[I(2), T("two")]).at(1),
    )
    .await;
    db.run(&format!(
        "ALTER TABLE people {mail}; ALTER TABLE people ADD note text; UPDATE people SET note = 'of ' || id; \
         CREATE TABLE children (parent bigint REFERENCES people ON DELETE CASCADE); \
         INSERT INTO children SELECT id FROM people"
    ))
    .await;
}

const FAMILY: &str = "SELECT id, mail, note, (SELECT count(*) FROM children c WHERE c.parent = id) \
     FROM people ORDER BY id";

fn swap(offset: i64) -> Batch {
    let t = people();
    Rows::new()
        .update(&t, &[I(1), T("one")], &[I(1), T("tmp")])
        .update(&t, &[I(2), T("two")], &[I(2), T("one")])
        .update(&t, &[I(1), T("tmp")], &[I(1), T("two")])
        .at(offset)
}

#[tokio::test]
async fn values_move_between_rows_that_others_hang_on() {
    for mail in ["ADD UNIQUE (mail)", "ADD UNIQUE (mail) DEFERRABLE"] {
        let Some(db) = Database::new().await else { return };
        family(&db, mail).await;
        put(db.writer().await.as_mut(), swap(2)).await;
        assert_eq!(db.rows(FAMILY).await, ["1|two|of 1|1", "2|one|of 2|1"], "{mail}");
    }
}

#[tokio::test]
async fn a_row_read_ahead_of_the_events_is_refused_rather_than_taking_another_away() {
    let Some(db) = Database::new().await else { return };
    family(&db, "ADD UNIQUE (mail)").await;
    let (mut w, t) = (db.writer().await, people());
    let ahead = || Rows::new().event(&t, Op::Read, None, Some(&[I(3), T("two")]));
    let outcome = w.write(&mut ahead().at(2)).await.unwrap();
    assert_eq!(outcome.rejected.len(), 1);
    assert!(outcome.rejected[0].cause.contains("people_mail_key"), "{outcome:?}");
    w.commit().await.unwrap();
    assert_eq!(db.rows(FAMILY).await, ["1|one|of 1|1", "2|two|of 2|1"]);
}

fn swept(schema: &Arc<TableSchema>, rows: Rows, part: SweepPart, offset: i64) -> Batch {
    let mut batch = rows.at(offset);
    batch.sweeps.push(Sweep { topic: "shop.t".into(), schema: Arc::clone(schema), partitions: 1, part });
    batch
}

/// Of one sweep: row 1 has the value of row 2, which comes with another one.
async fn sweep(db: &Database) -> Vec<String> {
    let (mut w, t) = (db.writer().await, people());
    put(w.as_mut(), swept(&t, Rows::new().create(&t, &[I(1), T("two")]), SweepPart::Begin, 2)).await;
    put(w.as_mut(), swept(&t, Rows::new().create(&t, &[I(2), T("new")]), SweepPart::End, 3)).await;
    db.rows(FAMILY).await
}

#[tokio::test]
async fn a_sweep_takes_a_value_from_a_row_that_comes_again_and_leaves_what_hangs_on_it() {
    for mail in ["ADD UNIQUE (mail)", "ADD UNIQUE (mail) DEFERRABLE"] {
        let Some(db) = Database::new().await else { return };
        family(&db, mail).await;
        assert_eq!(sweep(&db).await, ["1|two|of 1|1", "2|new|of 2|1"], "{mail}");
    }
}

#[tokio::test]
async fn a_sweep_refuses_a_row_whose_value_cannot_be_taken_from_another() {
    let Some(db) = Database::new().await else { return };
    family(&db, "ALTER mail SET NOT NULL, ADD UNIQUE (mail)").await;
    let mut t = table("people", &[("id", int()), ("mail", text())]);
    // Else the sink lets NULL in, as the source does.
    t.columns[1].nullable = false;
    let (mut w, t) = (db.writer().await, Arc::new(t));
    let outcome =
        w.write(&mut swept(&t, Rows::new().create(&t, &[I(1), T("two")]), SweepPart::Begin, 2)).await;
    assert_eq!(outcome.unwrap().rejected.len(), 1);
    put(w.as_mut(), swept(&t, Rows::new().create(&t, &[I(2), T("new")]), SweepPart::End, 3)).await;
    assert_eq!(db.rows(FAMILY).await, ["1|one|of 1|1", "2|new|of 2|1"]);
}

#[tokio::test]
async fn a_row_that_nothing_hangs_on_gives_way_in_a_sweep() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    put(
        db.writer().await.as_mut(),
        Rows::new().create(&t, &[I(1), T("one")]).create(&t, &[I(2), T("two")]).at(1),
    )
    .await;
    db.run("ALTER TABLE people ALTER mail SET NOT NULL, ADD UNIQUE (mail)").await;
    let mut w = db.writer().await;
    put(w.as_mut(), swept(&t, Rows::new().create(&t, &[I(1), T("two")]), SweepPart::Begin, 2)).await;
    assert_eq!(db.rows("SELECT * FROM people").await, ["1|two"]);
    put(w.as_mut(), swept(&t, Rows::new().create(&t, &[I(3), T("one")]), SweepPart::End, 3)).await;
    assert_eq!(db.rows("SELECT * FROM people ORDER BY id").await, ["1|two", "3|one"]);
}
