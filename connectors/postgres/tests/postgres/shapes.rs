//! Tables that are there already, and tables whose source changes.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, column, int, put, table, text};
use caudal_core::{ColumnType, Fault, TableSchema, Writer};
use std::sync::Arc;

async fn refusal(db: &Database, schema: TableSchema) -> caudal_core::Error {
    let mut w = db.writer().await;
    let row: Vec<V> = schema.columns.iter().map(|_| V::Null).collect();
    let mut row = row;
    row[0] = I(1);
    let mut batch = Rows::new().create(&Arc::new(schema), &row).at(1);
    let error = w.write(&mut batch).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Config, "{error}");
    assert!(error.hint_text().is_some(), "{error}");
    error
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused_with_all_that_does_not_fit() {
    let Some(db) = Database::new().await else { return };
    db.run(
        "CREATE TABLE orders (id int PRIMARY KEY, total numeric(4,2), who text NOT NULL, more int NOT NULL)",
    )
    .await;
    let columns = [
        ("id", ColumnType::Int { bits: 64 }),
        ("total", ColumnType::Decimal { precision: 10, scale: 2 }),
        ("who", text()),
        ("at", ColumnType::DateTime { precision: 0 }),
    ];
    let text = refusal(&db, table("orders", &columns)).await.to_string();
    for part in [
        "column id is integer",
        "column total is numeric(4,2)",
        "column who forbids NULL",
        "column at",
        "column more",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(db.value("SELECT count(*) FROM orders").await, "0");
}

#[tokio::test]
async fn a_table_without_the_key_gets_the_statement_that_adds_it() {
    let Some(db) = Database::new().await else { return };
    db.run("CREATE TABLE orders (id int, who text)").await;
    let error = refusal(&db, table("orders", &[("id", int()), ("who", text())])).await;
    assert_eq!(error.hint_text(), Some("ALTER TABLE \"public\".\"orders\" ADD PRIMARY KEY (\"id\")"));
}

#[tokio::test]
async fn a_foreign_key_that_is_checked_at_once_is_refused_and_a_deferred_one_holds() {
    let Some(db) = Database::new().await else { return };
    db.run(
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (id int PRIMARY KEY, parent int CONSTRAINT fk REFERENCES parent)",
    )
    .await;
    let child = table("child", &[("id", int()), ("parent", int())]);
    let error = refusal(&db, child.clone()).await;
    assert!(error.hint_text().unwrap().contains("DEFERRABLE"), "{error}");
    db.run("ALTER TABLE child ALTER CONSTRAINT fk DEFERRABLE").await;
    let (child, parent) = (Arc::new(child), Arc::new(table("parent", &[("id", int())])));
    let rows = Rows::new().create(&child, &[I(1), I(7)]).create(&parent, &[I(7)]);
    let mut w = db.writer().await;
    put(w.as_mut(), rows.at(1)).await;
    assert_eq!(db.rows("SELECT * FROM child").await, ["1|7"]);
    // A parent that never comes is told at the commit, and nothing is passed over.
    let mut orphan = Rows::new().create(&child, &[I(2), I(8)]).at(2);
    assert!(w.write(&mut orphan).await.unwrap().rejected.is_empty());
    let error = w.commit().await.unwrap_err();
    assert_eq!(error.fault(), Fault::Config, "{error}");
    assert!(error.to_string().contains("constraint fk"), "{error}");
    assert_eq!(w.resume().await.unwrap(), Some(crate::rows::at(1)));
    put(w.as_mut(), Rows::new().create(&child, &[I(2), I(7)]).at(2)).await;
}

#[tokio::test]
async fn a_wider_table_of_somebody_else_is_used_as_it_is() {
    let Some(db) = Database::new().await else { return };
    db.run(
        "CREATE TYPE size AS ENUM ('s', 'l');
         CREATE TABLE goods (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note varchar(50), size size, price numeric, \
         doubled numeric GENERATED ALWAYS AS (price * 2) STORED, doc json, mine text DEFAULT 'x' NOT NULL)",
    )
    .await;
    let t = Arc::new(table(
        "goods",
        &[
            ("id", int()),
            ("note", ColumnType::Text { max_chars: Some(50) }),
            ("size", ColumnType::Enum { members: vec!["s".into(), "l".into()] }),
            ("price", ColumnType::Decimal { precision: 5, scale: 2 }),
            ("doubled", ColumnType::Decimal { precision: 6, scale: 2 }),
            ("doc", ColumnType::Json),
        ],
    ));
    let mut w = db.writer().await;
    let row = |i| [I(i), T("n"), T("l"), V::D("1.50"), V::D("9.99"), V::J("{}")];
    put(w.as_mut(), Rows::new().create(&t, &row(5)).at(1)).await;
    let many = (0..6_000).fold(Rows::new(), |rows, i| rows.update(&t, &row(i), &row(i)));
    put(w.as_mut(), many.at(2)).await;
    assert_eq!(db.rows("SELECT * FROM goods WHERE id = 5").await, ["5|n|l|1.50|3.00|{}|x"]);
    assert_eq!(db.value("SELECT count(*) FROM goods").await, "6000");
}

/// Version 1 of a table, and one that renames, swaps, adds, widens and drops.
fn versions() -> (Arc<TableSchema>, Arc<TableSchema>) {
    let old = table("t", &[("id", int()), ("a", int()), ("b", text()), ("c", text()), ("gone", int())]);
    let mut old = old;
    old.columns[4].nullable = false;
    let mut new = old.clone();
    new.version = 2;
    new.columns.pop();
    new.columns[1].ty = ColumnType::Int { bits: 64 };
    new.columns[2].name = "c".to_owned();
    new.columns[3].name = "b".to_owned();
    let mut added = column(9, "added", int());
    added.default = Some("7".to_owned());
    new.columns.push(added);
    (Arc::new(old), Arc::new(new))
}

async fn shape(db: &Database) -> String {
    db.value(
        "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attname) \
         FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped",
    )
    .await
}

const NEW_SHAPE: &str = "a bigint, added integer, b text, c text, gone integer, id integer";

#[tokio::test]
async fn a_change_of_shape_is_followed_by_column_ids() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), I(10), T("b1"), T("c1"), I(0)]).at(1)).await;
    put(w.as_mut(), Rows::new().create(&new, &[I(2), I(1 << 40), T("c2"), T("b2"), I(5)]).at(2)).await;
    assert_eq!(shape(&db).await, NEW_SHAPE);
    let rows = "SELECT id, a, b, c, gone, added FROM t ORDER BY id";
    assert_eq!(db.rows(rows).await, ["1|10|c1|b1|0|7", "2|1099511627776|b2|c2|∅|5"]);
    // An older row that arrives late goes to where its columns are now, and changes no shape back.
    put(w.as_mut(), Rows::new().create(&old, &[I(3), I(30), T("b3"), T("c3"), I(1)]).at(3)).await;
    assert_eq!(shape(&db).await, NEW_SHAPE);
    assert_eq!(db.rows("SELECT b, c, gone FROM t WHERE id = 3").await, ["c3|b3|1"]);
}

#[tokio::test]
async fn rows_older_than_the_table_are_taken_with_columns_that_it_never_had_and_values_that_were_wider() {
    let Some(db) = Database::new().await else { return };
    let old = table(
        "t",
        &[("id", int()), ("a", int()), ("b", ColumnType::Int { bits: 64 }), ("gone", int()), ("c", int())],
    );
    let mut new = old.clone();
    new.version = 3;
    new.columns.remove(3);
    new.columns[1].name = "a2".to_owned();
    new.columns[2].ty = int();
    new.columns[3].nullable = false;
    let (old, new) = (Arc::new(old), Arc::new(new));
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&new, &[I(1), I(1), I(1), I(1)]).at(1)).await;
    put(w.as_mut(), Rows::new().create(&old, &[I(2), I(2), I(1 << 40), I(2), V::Null]).at(2)).await;
    let many = (10..700).fold(Rows::new(), |rows, i| rows.create(&old, &[I(i), I(i), I(i), I(i), I(i)]));
    put(w.as_mut(), many.at(3)).await;
    put(w.as_mut(), Rows::new().create(&new, &[I(3), I(3), I(3), I(3)]).at(4)).await;
    assert_eq!(
        db.rows("SELECT * FROM t WHERE id < 11 ORDER BY id").await,
        ["1|1|1|1", "2|2|1099511627776|∅", "3|3|3|3", "10|10|10|10"]
    );
}

#[tokio::test]
async fn a_column_that_comes_again_under_its_name_has_none_of_the_old_values() {
    let Some(db) = Database::new().await else { return };
    let mut first = table("t", &[("id", int()), ("c", text())]);
    first.columns[1].nullable = false;
    let mut dropped = first.clone();
    dropped.version = 2;
    dropped.columns.pop();
    let mut again = dropped.clone();
    again.version = 3;
    let mut added = column(9, "c", int());
    added.default = Some("7".to_owned());
    again.columns.push(added);
    // Dropped and added with no row between, and of the same type.
    let mut at_once = again.clone();
    at_once.version = 4;
    at_once.columns[1] = column(10, "c", int());
    let [first, dropped, again, at_once] = [first, dropped, again, at_once].map(Arc::new);
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&first, &[I(1), T("old")]).at(1)).await;
    db.run("CREATE INDEX by_c ON t (c); CREATE VIEW seen AS SELECT id, c FROM t").await;
    put(w.as_mut(), Rows::new().create(&dropped, &[I(2)]).at(2)).await;
    assert_eq!(db.rows("SELECT * FROM seen ORDER BY id").await, ["1|old", "2|∅"]);
    put(w.as_mut(), Rows::new().create(&again, &[I(3), I(33)]).at(3)).await;
    assert_eq!(db.rows("SELECT * FROM seen ORDER BY id").await, ["1|7", "2|7", "3|33"]);
    put(w.as_mut(), Rows::new().create(&at_once, &[I(4), I(44)]).at(4)).await;
    assert_eq!(db.rows("SELECT * FROM seen ORDER BY id").await, ["1|∅", "2|∅", "3|∅", "4|44"]);
    assert_eq!(db.value("SELECT count(*) FROM pg_indexes WHERE indexname = 'by_c'").await, "1");
}

#[tokio::test]
async fn a_column_renamed_to_what_a_dropped_one_was_called_keeps_its_values() {
    let Some(db) = Database::new().await else { return };
    let mut first = table("t", &[("id", int()), ("a", int()), ("c", text()), ("b", text())]);
    first.columns[1].nullable = false;
    let mut dropped = first.clone();
    dropped.version = 2;
    dropped.columns.remove(2);
    let mut renamed = dropped.clone();
    renamed.version = 3;
    renamed.columns[1].name = "c".to_owned();
    // Dropped and renamed to it with no row between.
    let mut at_once = renamed.clone();
    at_once.version = 4;
    at_once.columns.remove(1);
    at_once.columns[1].name = "c".to_owned();
    let [first, dropped, renamed, at_once] = [first, dropped, renamed, at_once].map(Arc::new);
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&first, &[I(1), I(11), T("old"), T("b1")]).at(1)).await;
    put(w.as_mut(), Rows::new().create(&dropped, &[I(2), I(12), T("b2")]).at(2)).await;
    put(w.as_mut(), Rows::new().create(&renamed, &[I(3), I(13), T("b3")]).at(3)).await;
    assert_eq!(db.rows("SELECT id, c, b FROM t ORDER BY id").await, ["1|11|b1", "2|12|b2", "3|13|b3"]);
    put(w.as_mut(), Rows::new().create(&at_once, &[I(4), T("b4")]).at(4)).await;
    assert_eq!(db.rows("SELECT id, c FROM t ORDER BY id").await, ["1|b1", "2|b2", "3|b3", "4|b4"]);
}

#[tokio::test]
async fn a_change_of_shape_within_a_batch_separates_its_rows() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    let batch = Rows::new()
        .create(&old, &[I(1), I(10), T("b1"), T("c1"), I(0)])
        .create(&new, &[I(1), I(11), T("c2"), T("b2"), I(5)])
        .create(&new, &[I(2), I(11), T("c2"), T("b2"), I(5)])
        .at(1);
    put(db.writer().await.as_mut(), batch).await;
    assert_eq!(
        db.rows("SELECT id, a, b, c, added FROM t ORDER BY id").await,
        ["1|11|b2|c2|5", "2|11|b2|c2|5"]
    );
}

#[tokio::test]
async fn a_row_refused_behind_a_change_of_shape_does_not_undo_the_change() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), I(10), V::Null, V::Null, I(0)]).at(1)).await;
    db.run("ALTER TABLE t ADD CHECK (a > 0)").await;
    let mut batch = Rows::new()
        .create(&old, &[I(2), I(10), V::Null, V::Null, I(0)])
        .create(&new, &[I(3), I(-1), V::Null, V::Null, I(5)])
        .create(&new, &[I(4), I(11), T("c4"), V::Null, I(5)])
        .at(2);
    let outcome = w.write(&mut batch).await.unwrap();
    assert_eq!(outcome.rejected.iter().map(|r| r.event).collect::<Vec<_>>(), [1]);
    w.commit().await.unwrap();
    assert_eq!(shape(&db).await, NEW_SHAPE);
    assert_eq!(db.rows("SELECT id, c FROM t ORDER BY id").await, ["1|∅", "2|∅", "4|c4"]);
}

#[tokio::test]
async fn a_type_that_no_longer_fits_becomes_one_that_holds_both() {
    let Some(db) = Database::new().await else { return };
    let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
    let old = table("t", &[("id", int()), ("d", decimal(6, 4)), ("n", int())]);
    let mut new = old.clone();
    new.version = 2;
    new.columns[1].ty = decimal(6, 1);
    new.columns[2].ty = text();
    let (old, new) = (Arc::new(old), Arc::new(new));
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), V::D("12.3456"), I(1)]).at(1)).await;
    put(w.as_mut(), Rows::new().create(&new, &[I(2), V::D("12345.6"), T("one")]).at(2)).await;
    assert_eq!(db.rows("SELECT * FROM t ORDER BY id").await, ["1|12.3456|1", "2|12345.6|one"]);
}

#[tokio::test]
async fn a_new_generation_starts_the_table_anew_under_its_new_key() {
    let Some(db) = Database::new().await else { return };
    let old = table("t", &[("id", int()), ("code", text())]);
    let mut new = old.clone();
    (new.version, new.generation, new.key) = (2, 2, vec![1]);
    let (old, new) = (Arc::new(old), Arc::new(new));
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), T("a")]).create(&old, &[I(2), T("b")]).at(1)).await;
    put(w.as_mut(), Rows::new().create(&new, &[I(1), T("a")]).create(&new, &[I(1), T("z")]).at(2)).await;
    assert_eq!(db.rows("SELECT * FROM t ORDER BY code").await, ["1|a", "1|z"]);
}

#[tokio::test]
async fn two_tables_under_one_name_are_refused() {
    let Some(db) = Database::new().await else { return };
    let here = table("items", &[("id", int())]);
    let mut there = here.clone();
    there.id.database = "archive".to_owned();
    put(db.writer().await.as_mut(), Rows::new().create(&Arc::new(here), &[I(1)]).at(1)).await;
    let error = refusal(&db, there).await;
    assert!(error.to_string().contains("archive.items and shop.items"), "{error}");
}

#[tokio::test]
async fn a_table_that_was_dropped_is_not_silently_started_anew() {
    let Some(db) = Database::new().await else { return };
    let t = table("items", &[("id", int())]);
    put(db.writer().await.as_mut(), Rows::new().create(&Arc::new(t.clone()), &[I(1)]).at(1)).await;
    db.run("DROP TABLE items").await;
    assert!(refusal(&db, t).await.to_string().contains("is gone"));
}

#[tokio::test]
async fn a_lock_that_somebody_holds_is_waited_for_no_longer_than_allowed() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    put(db.writer().await.as_mut(), Rows::new().create(&old, &[I(1), I(1), T(""), T(""), I(0)]).at(1)).await;
    let config = db.config_with(serde_json::json!({"lock_timeout": "100ms"}));
    let mut w = caudal_postgres::sink("test", config).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let reader = crate::database::connect(&db.url).await;
    reader.batch_execute("BEGIN; SELECT * FROM t").await.unwrap();
    let mut batch = Rows::new().create(&new, &[I(2), I(1), T(""), T(""), I(0)]).at(2);
    let error = Writer::write(w.as_mut(), &mut batch).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Transient, "{error}");
}
