//! What a batch leaves in the tables.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, at, int, keyless, put, table, text, write};
use caudal_core::{ColumnType, Op, TableSchema};
use std::sync::Arc;

fn people() -> Arc<TableSchema> {
    Arc::new(table("people", &[("id", int()), ("name", text()), ("mail", text())]))
}

#[tokio::test]
async fn the_last_event_of_a_key_decides() {
    let Some(db) = Database::new().await else { return };
    let (mut w, t) = (db.writer().await, people());
    let row = |id, name| [I(id), T(name), T("m")];
    let batch = Rows::new()
        .create(&t, &row(1, "a"))
        .update(&t, &row(1, "a"), &row(1, "b"))
        .create(&t, &row(2, "gone"))
        .delete(&t, &row(2, "gone"))
        .create(&t, &row(3, "x"))
        .delete(&t, &row(3, "x"))
        .create(&t, &row(3, "back"))
        .at(10);
    put(w.as_mut(), batch).await;
    assert_eq!(db.rows("SELECT id, name FROM people ORDER BY id").await, ["1|b", "3|back"]);
    let batch = Rows::new().update(&t, &row(1, "b"), &row(9, "moved")).delete(&t, &row(3, "back")).at(20);
    put(w.as_mut(), batch).await;
    assert_eq!(db.rows("SELECT id, name FROM people").await, ["9|moved"]);
    assert_eq!(db.value("SELECT next_offset FROM caudal.offsets").await, "20");
    assert_eq!(db.value("SELECT source_position FROM caudal.freshness").await, "gtid-20");
    let time = "SELECT extract(epoch FROM complete_to)::numeric(20,6) FROM caudal.freshness";
    assert_eq!(db.value(time).await, "1700000000.000020");
}

#[tokio::test]
async fn values_of_another_unique_index_swap_within_a_batch() {
    let Some(db) = Database::new().await else { return };
    let (mut w, t) = (db.writer().await, people());
    let batch = Rows::new().create(&t, &[I(1), T("a"), T("one")]).create(&t, &[I(2), T("b"), T("two")]).at(1);
    put(w.as_mut(), batch).await;
    // Under the writer's feet: it looks again before it calls rows bad.
    db.run("CREATE UNIQUE INDEX ON people (mail)").await;
    let batch = Rows::new()
        .update(&t, &[I(1), T("a"), T("one")], &[I(1), T("a"), T("tmp")])
        .update(&t, &[I(2), T("b"), T("two")], &[I(2), T("b"), T("one")])
        .update(&t, &[I(1), T("a"), T("tmp")], &[I(1), T("a"), T("two")])
        .at(2);
    put(w.as_mut(), batch).await;
    assert_eq!(db.rows("SELECT id, mail FROM people ORDER BY id").await, ["1|two", "2|one"]);
    // A row that a snapshot read ahead of the events, with the value of one whose delete is yet to come: in the order of the
    // events this could not be written, in the order of the batch it can.
    let batch = Rows::new()
        .event(&t, Op::Read, None, Some(&[I(3), T("c"), T("two")]))
        .event(&t, Op::Read, None, Some(&[I(2), T("b"), T("new")]))
        .event(&t, Op::Read, None, Some(&[I(4), T("d"), T("one")]))
        .delete(&t, &[I(1), T("a"), T("two")])
        .at(3);
    put(w.as_mut(), batch).await;
    assert_eq!(db.rows("SELECT id, mail FROM people ORDER BY id").await, ["2|new", "3|two", "4|one"]);
}

#[tokio::test]
async fn a_unique_swap_also_works_through_the_stage() {
    let Some(db) = Database::new().await else { return };
    let (mut w, t) = (db.writer().await, Arc::new(table("pairs", &[("id", int()), ("place", int())])));
    let n = 6_000;
    let fill = (0..n).fold(Rows::new(), |rows, i| rows.create(&t, &[I(i), I(i)])).at(1);
    put(w.as_mut(), fill).await;
    db.run("CREATE UNIQUE INDEX ON pairs (place)").await;
    let mut w = db.writer().await;
    let turn =
        (0..n).fold(Rows::new(), |rows, i| rows.update(&t, &[I(i), I(i)], &[I(i), I(n - 1 - i)])).at(2);
    put(w.as_mut(), turn).await;
    assert_eq!(
        db.value(&format!("SELECT count(*) FROM pairs WHERE place = {n} - 1 - id")).await,
        n.to_string()
    );
}

#[tokio::test]
async fn cells_that_an_image_lacks_keep_their_value() {
    let Some(db) = Database::new().await else { return };
    let (mut w, t) = (db.writer().await, people());
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a"), T("m")]).at(1)).await;
    let batch = Rows::new()
        .update(&t, &[I(1), V::Unchanged, V::Unchanged], &[I(1), T("b"), V::Unchanged])
        .create(&t, &[I(2), T("c"), T("n")])
        .update(&t, &[I(2), V::Unchanged, V::Unchanged], &[I(2), V::Unchanged, V::Null])
        .at(2);
    put(w.as_mut(), batch).await;
    assert_eq!(db.rows("SELECT * FROM people ORDER BY id").await, ["1|b|m", "2|c|∅"]);
}

#[tokio::test]
async fn a_truncate_removes_what_came_before_and_nothing_after() {
    let Some(db) = Database::new().await else { return };
    let (mut w, t) = (db.writer().await, people());
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a"), T("m")]).at(1)).await;
    let batch = Rows::new()
        .create(&t, &[I(2), T("b"), T("m")])
        .truncate(&t)
        .create(&t, &[I(3), T("c"), T("m")])
        .at(2);
    put(w.as_mut(), batch).await;
    assert_eq!(db.rows("SELECT id FROM people").await, ["3"]);
}

#[tokio::test]
async fn a_table_without_a_key_loses_one_row_for_each_delete() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(keyless(table("log", &[("at", int()), ("line", text()), ("doc", ColumnType::Json)])));
    let mut w = db.writer().await;
    let row = |at, line| [I(at), line, V::J("{\"a\": 1}")];
    let batch = Rows::new()
        .create(&t, &row(1, T("x")))
        .create(&t, &row(1, T("x")))
        .create(&t, &row(1, T("x")))
        .create(&t, &row(2, V::Null))
        .delete(&t, &row(1, T("x")))
        .update(&t, &row(2, V::Null), &row(2, T("y")))
        .at(1);
    put(w.as_mut(), batch).await;
    assert_eq!(db.rows("SELECT at, line FROM log ORDER BY at, line").await, ["1|x", "1|x", "2|y"]);
}

#[tokio::test]
async fn copying_straight_into_a_table_equals_upserting_and_gives_way_on_conflicts() {
    let Some(db) = Database::new().await else { return };
    let mut w = db.writer().await;
    let direct = Arc::new(table("direct", &[("id", int()), ("name", text())]));
    let upsert = Arc::new(table("upsert", &[("id", int()), ("name", text())]));
    let fill = |t: &Arc<TableSchema>, op, from, to, name, offset| {
        let row = move |rows: Rows, i: i64| {
            rows.event(t, op, (op == Op::Update).then_some(&[I(i), T("")]), Some(&[I(i), T(name)]))
        };
        (from..to).fold(Rows::new(), row).at(offset)
    };
    put(w.as_mut(), fill(&direct, Op::Read, 0, 2_000, "a", 1)).await;
    assert_eq!(
        db.value("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'stage%'").await,
        "0",
        "no stage was needed"
    );
    put(w.as_mut(), fill(&upsert, Op::Update, 0, 2_000, "a", 2)).await;
    // Half of these rows are there already.
    put(w.as_mut(), fill(&direct, Op::Read, 1_000, 3_000, "b", 3)).await;
    put(w.as_mut(), fill(&upsert, Op::Update, 1_000, 3_000, "b", 4)).await;
    put(w.as_mut(), fill(&upsert, Op::Update, 0, 6_000, "c", 5)).await;
    put(w.as_mut(), fill(&direct, Op::Read, 0, 6_000, "c", 6)).await;
    let difference = "SELECT count(*) FROM direct FULL JOIN upsert USING (id, name) WHERE direct.id IS NULL OR upsert.id IS NULL";
    assert_eq!(db.value(difference).await, "0");
    assert_eq!(db.value("SELECT count(*) FROM direct WHERE name = 'c'").await, "6000");
}

#[tokio::test]
async fn a_row_that_is_there_already_is_not_written_again() {
    let Some(db) = Database::new().await else { return };
    let (mut w, t) = (db.writer().await, people());
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a"), V::Null]).at(1)).await;
    let before = db.value("SELECT xmin FROM people").await;
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a"), V::Null]).at(2)).await;
    assert_eq!(db.value("SELECT xmin FROM people").await, before);
}

#[tokio::test]
async fn values_that_are_equal_and_look_different_are_written() {
    let Some(db) = Database::new().await else { return };
    let columns =
        [("id", int()), ("f", ColumnType::Float64), ("g", ColumnType::Float32), ("doc", ColumnType::Json)];
    let (mut w, t) = (db.writer().await, Arc::new(table("signs", &columns)));
    let before = [I(1), V::F64(0.0), V::F32(0.0), V::J("[1.0]")];
    let after = [I(1), V::F64(-0.0), V::F32(-0.0), V::J("[1.00]")];
    put(w.as_mut(), Rows::new().create(&t, &before).at(1)).await;
    put(w.as_mut(), Rows::new().update(&t, &before, &after).at(2)).await;
    assert_eq!(db.rows("SELECT * FROM signs").await, ["1|-0|-0|[1.00]"]);
}

#[tokio::test]
async fn a_partitioned_table_is_written_like_any_other() {
    let Some(db) = Database::new().await else { return };
    db.run(
        "CREATE TABLE parts (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
         CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
         CREATE TABLE lines (id int, name text) PARTITION BY RANGE (id);
         CREATE TABLE lines_1 PARTITION OF lines FOR VALUES FROM (0) TO (1000);
         CREATE TABLE lines_2 PARTITION OF lines DEFAULT",
    )
    .await;
    let parts = Arc::new(table("parts", &[("id", int()), ("name", text())]));
    let lines = Arc::new(keyless(table("lines", &[("id", int()), ("name", text())])));
    let mut w = db.writer().await;
    let fill = |rows: Rows, i| rows.create(&parts, &[I(i), T("a")]).create(&lines, &[I(i), T("a")]);
    put(w.as_mut(), (0..2_000).fold(Rows::new(), fill).at(1)).await;
    let batch = Rows::new()
        .update(&parts, &[I(5), T("a")], &[I(5), T("b")])
        .delete(&parts, &[I(1_500), T("a")])
        .delete(&lines, &[I(1_000), T("a")])
        .at(2);
    put(w.as_mut(), batch).await;
    assert_eq!(db.value("SELECT count(*) FROM parts").await, "1999");
    assert_eq!(db.rows("SELECT id FROM parts WHERE name = 'b'").await, ["5"]);
    assert_eq!(db.value("SELECT count(*) FROM lines WHERE id <> 1000").await, "1999");
    assert_eq!(
        db.value("SELECT count(*) FROM lines").await,
        "1999",
        "only one of two rows at the same place is gone"
    );
}

#[tokio::test]
async fn a_source_transaction_in_parts_is_visible_at_its_end_only() {
    let Some(db) = Database::new().await else { return };
    let (mut w, t) = (db.writer().await, people());
    put(w.as_mut(), Rows::new().create(&t, &[I(0), T("a"), T("m")]).at(1)).await;
    for part in 1..5 {
        let mut batch = Rows::new().create(&t, &[I(part), T("a"), T("m")]).at(1 + part);
        batch.boundary = None;
        write(w.as_mut(), batch).await;
        assert_eq!(db.value("SELECT count(*) FROM people").await, "1");
    }
    assert_eq!(w.commit().await.unwrap(), at(5));
    assert_eq!(db.value("SELECT count(*) FROM people").await, "5");
}

#[tokio::test]
async fn deletes_can_be_ignored() {
    let Some(db) = Database::new().await else { return };
    let config = db.config_with(serde_json::json!({"deletes": "ignore"}));
    let mut w = caudal_postgres::sink("keep", config).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let t = people();
    let row = [I(1), T("a"), T("m")];
    put(w.as_mut(), Rows::new().create(&t, &row).delete(&t, &row).truncate(&t).at(1)).await;
    assert_eq!(db.rows("SELECT id FROM people").await, ["1"]);
}

#[tokio::test]
async fn the_freshness_table_of_earlier_releases_becomes_a_view() {
    let Some(db) = Database::new().await else { return };
    let (w, t) = (db.writer().await, people());
    drop(w);
    db.run(
        "DROP VIEW caudal.freshness; DROP TABLE caudal.watermarks; \
         CREATE TABLE caudal.freshness (sink text PRIMARY KEY, complete_to timestamptz NOT NULL)",
    )
    .await;
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&t, &[I(1), T("a"), T("m")]).at(10)).await;
    assert_eq!(db.value("SELECT source_table FROM caudal.freshness").await, "shop.people");
}
