//! Rows that the target cannot take are named, alone.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, at, int, put, table, text};
use caudal_core::{Batch, ColumnType, Writer};
use std::sync::Arc;

async fn rejected(w: &mut dyn Writer, mut batch: Batch) -> Vec<(u32, String)> {
    if let Some(prepare) = w.prepare() {
        prepare.prepare(&mut batch).unwrap();
    }
    let outcome = w.write(&mut batch).await.unwrap();
    outcome.rejected.into_iter().map(|r| (r.event, r.cause)).collect()
}

#[tokio::test]
async fn text_and_json_with_the_null_character_name_their_column() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table("docs", &[("id", int()), ("body", text()), ("meta", ColumnType::Json)]));
    let mut w = db.writer().await;
    let batch = Rows::new()
        .create(&t, &[I(1), T("fine"), V::J("{}")])
        .create(&t, &[I(2), T("a\0b"), V::J("{}")])
        .create(&t, &[I(3), T("fine"), V::J(r#"{"a":"\u0000"}"#)])
        .create(&t, &[I(4), T("fine"), V::J(r#"{"a":"\\u0000"}"#)])
        .at(1);
    let named = rejected(w.as_mut(), batch).await;
    assert_eq!(named.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 2]);
    assert!(named[0].1.contains("column body") && named[1].1.contains("column meta"), "{named:?}");
    assert_eq!(w.commit().await.unwrap(), at(1));
    assert_eq!(db.rows("SELECT id FROM docs ORDER BY id").await, ["1", "4"]);
}

#[tokio::test]
async fn rows_that_a_constraint_refuses_are_found_among_many_and_the_others_stay() {
    let Some(db) = Database::new().await else { return };
    db.run("CREATE TABLE stock (id int PRIMARY KEY, n int CONSTRAINT sane CHECK (n >= 0))").await;
    let t = Arc::new(table("stock", &[("id", int()), ("n", int())]));
    let mut w = db.writer().await;
    let rows = (0..700).fold(Rows::new(), |rows, i| {
        rows.create(&t, &[I(i), I(if i == 13 || i == 699 { -4_711 } else { i })])
    });
    let named = rejected(w.as_mut(), rows.at(1)).await;
    assert_eq!(named.iter().map(|r| r.0).collect::<Vec<_>>(), [13, 699]);
    assert!(
        named[0].1.contains("sane") && !named[0].1.contains("4711"),
        "names the constraint, no value: {named:?}"
    );
    w.commit().await.unwrap();
    assert_eq!(db.value("SELECT count(*) FROM stock").await, "698");
}

#[tokio::test]
async fn where_a_keys_last_image_is_refused_the_one_before_stays() {
    let Some(db) = Database::new().await else { return };
    db.run("CREATE TABLE stock (id int PRIMARY KEY, n int CHECK (n >= 0), note text)").await;
    let t = Arc::new(table("stock", &[("id", int()), ("n", int()), ("note", text())]));
    let mut w = db.writer().await;
    let batch = Rows::new()
        .create(&t, &[I(1), I(5), V::Null])
        .update(&t, &[I(1), I(5), V::Null], &[I(1), I(-1), V::Null])
        .create(&t, &[I(2), I(6), T("ok")])
        .update(&t, &[I(2), I(6), T("ok")], &[I(2), I(7), T("\0")])
        .at(1);
    let named = rejected(w.as_mut(), batch).await;
    assert_eq!(named.iter().map(|r| r.0).collect::<Vec<_>>(), [1, 3]);
    w.commit().await.unwrap();
    assert_eq!(db.rows("SELECT * FROM stock ORDER BY id").await, ["1|5|∅", "2|6|ok"]);
}

#[tokio::test]
async fn rows_accepted_before_a_rejected_one_stay_in_the_same_transaction() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table("docs", &[("id", int()), ("meta", ColumnType::Json)]));
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&t, &[I(0), V::Null]).at(1)).await;
    assert!(rejected(w.as_mut(), Rows::new().create(&t, &[I(1), V::J("1")]).at(2)).await.is_empty());
    let named = rejected(w.as_mut(), Rows::new().create(&t, &[I(2), V::J("{no json")]).at(3)).await;
    assert_eq!(named.len(), 1);
    assert!(!named[0].1.contains("no json"), "{named:?}");
    assert_eq!(db.value("SELECT count(*) FROM docs").await, "1");
    assert_eq!(w.commit().await.unwrap(), at(3));
    assert_eq!(db.rows("SELECT id FROM docs ORDER BY id").await, ["0", "1"]);
}
