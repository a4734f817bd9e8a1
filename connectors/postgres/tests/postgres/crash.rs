//! Rows and offsets become durable together or not at all.

use crate::database::Database;
use crate::rows::{I, Rows, T, at, int, put, table, text, write};
use caudal_core::Fault;
use std::sync::Arc;

#[tokio::test]
async fn a_connection_that_breaks_takes_rows_and_offsets_with_it() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table("items", &[("id", int()), ("name", text())]));
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(10)).await;
    write(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(20)).await;
    db.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'caudal'",
    )
    .await;
    let error = w.commit().await.unwrap_err();
    assert_eq!(error.fault(), Fault::Transient, "{error}");
    let mut w = db.sink().open().await.unwrap();
    assert_eq!(w.resume().await.unwrap(), Some(at(10)));
    assert_eq!(db.rows("SELECT id FROM items").await, ["1"]);
    put(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(20)).await;
    assert_eq!(db.rows("SELECT id FROM items ORDER BY id").await, ["1", "2"]);
}

#[tokio::test]
async fn a_writer_that_failed_never_moves_offsets_past_what_was_rolled_back() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table("items", &[("id", int()), ("name", text())]));
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(10)).await;
    write(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(20)).await;
    // A table that does not fit is not a matter of the row.
    let other = Arc::new(table("other", &[("id", int()), ("name", text())]));
    db.run("CREATE TABLE other (id int PRIMARY KEY)").await;
    let mut batch = Rows::new().create(&other, &[I(2), T("b")]).at(30);
    assert_eq!(w.write(&mut batch).await.unwrap_err().fault(), Fault::Config);
    assert!(w.commit().await.is_err());
    assert_eq!(db.value("SELECT next_offset FROM caudal.offsets").await, "10");
    assert_eq!(w.resume().await.unwrap(), Some(at(10)), "after which it can be used again");
}
