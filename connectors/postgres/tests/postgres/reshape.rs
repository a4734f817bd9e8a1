//! Rebuilds to another shape: what the configuration says now, made of the topic's events.

use crate::database::Database;
use crate::rows::{I, Rows, T, V::J, int, put, table, text};
use crate::tables::timed;
use caudal_core::rebuild::{Begin, Rebuild};
use caudal_core::{Batch, ColumnType, Sink, TableSchema, Writer};
use serde_json::{Value, json};
use std::sync::Arc;

fn people() -> Arc<TableSchema> {
    Arc::new(table("people", &[("id", int()), ("name", text()), ("mail", text()), ("doc", ColumnType::Json)]))
}

fn sink(db: &Database, more: Value) -> Arc<dyn Sink> {
    caudal_postgres::sink("test", db.config_with(more)).unwrap()
}

async fn open(sink: &Arc<dyn Sink>) -> Box<dyn Writer> {
    let mut writer = sink.open().await.unwrap();
    writer.resume().await.unwrap();
    writer
}

/// What the log holds: two batches.
fn events(t: &Arc<TableSchema>) -> [Batch; 2] {
    let row = |id, name| [I(id), T(name), T("m@x"), J("{\"a\": 1}")];
    let first = Rows::new().create(t, &row(1, "a")).create(t, &row(2, "x"));
    let second = Rows::new().update(t, &row(1, "a"), &row(1, "b")).delete(t, &row(2, "x"));
    [timed(first, 1), timed(second, 2)]
}

fn later(t: &Arc<TableSchema>, name: &'static str, offset: i64) -> Batch {
    let row = |name| [I(1), T(name), T("m@x"), J("{\"a\": 1}")];
    timed(Rows::new().update(t, &row("b"), &row(name)), offset)
}

/// Fills the shadow with what the log holds.
async fn filled(rebuild: &mut Box<dyn Rebuild>, t: &Arc<TableSchema>, begin: Begin, batches: Vec<Batch>) {
    assert!(rebuild.begin(t, "shop.t", begin).await.unwrap());
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    for batch in batches {
        put(shadow.as_mut(), batch).await;
    }
}

async fn exchanged(rebuild: &mut Box<dyn Rebuild>, t: &Arc<TableSchema>) {
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
}

const VERSIONS: &str = "SELECT id, name, _op, _valid_to IS NULL FROM people ORDER BY _seq";
const HANGING: &str = "CREATE INDEX by_name ON people (name); CREATE VIEW names AS SELECT id, name FROM people; \
    COMMENT ON TABLE people IS 'ours'; ALTER TABLE people ADD COLUMN seen int DEFAULT 7";
const HANGS: &str = "SELECT string_agg(indexname, ',' ORDER BY indexname), obj_description('people'::regclass, 'pg_class'), \
    (SELECT count(seen) > 0 FROM people) FROM pg_indexes WHERE tablename = 'people' AND indexname NOT LIKE 'people\\__new%'";

#[tokio::test]
async fn rows_become_a_history_of_the_topics_events_and_the_way_back_leads_to_rows() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let rows = sink(&db, json!({}));
    let mut w = open(&rows).await;
    for batch in events(&t) {
        put(w.as_mut(), batch).await;
    }
    db.run(HANGING).await;
    let history = sink(&db, json!({"tables": {"people": {"history": true}}}));
    let mut w = open(&history).await;
    let error = w.write(&mut later(&t, "c", 3)).await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.starts_with("caudal rebuild")), "{error}");

    let mut rebuild = history.rebuild().await.unwrap().unwrap();
    assert_eq!(rebuild.look(&t).await.unwrap().obstacles, Vec::<String>::new());
    filled(&mut rebuild, &t, Begin::Empty, events(&t).into()).await;
    assert_eq!(rebuild.shadow(&t).await.unwrap().1, 1, "one row is alive");
    exchanged(&mut rebuild, &t).await;
    assert_eq!(db.rows(VERSIONS).await, ["1|a|c|f", "2|x|c|f", "1|b|u|t", "2|x|d|f"]);
    assert_eq!(db.rows(HANGS).await, ["by_name,people_pkey|ours|t"]);
    assert_eq!(db.value("SELECT count(*) FROM names").await, "4");
    assert_eq!(db.value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'people'::regclass AND contype = 'p'").await, "PRIMARY KEY (id, _position)");
    // The sink goes on where it stood.
    w.resume().await.unwrap();
    put(w.as_mut(), later(&t, "c", 3)).await;
    assert_eq!(db.value("SELECT count(*) FROM people WHERE id = 1").await, "3");
    // It is a history now: what its topic no longer holds would be kept.
    assert!(rebuild.look(&t).await.unwrap().keeps);

    // The way back asks for the configuration that there was.
    let mut w = open(&rows).await;
    assert!(w.write(&mut later(&t, "d", 4)).await.is_err());
    let mut rebuild = rows.rebuild().await.unwrap().unwrap();
    filled(&mut rebuild, &t, Begin::Kept, vec![later(&t, "c", 3)]).await;
    exchanged(&mut rebuild, &t).await;
    assert_eq!(db.rows("SELECT id, name, seen FROM people").await, ["1|c|7"]);
    assert_eq!(db.rows(HANGS).await, ["by_name,people_pkey|ours|t"]);
    w.resume().await.unwrap();
    put(w.as_mut(), later(&t, "d", 4)).await;
    assert_eq!(db.rows("SELECT id, name FROM names").await, ["1|d"]);
}

#[tokio::test]
async fn a_history_becomes_a_table_of_rows() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let history = sink(&db, json!({"tables": {"people": {"history": true}}}));
    let mut w = open(&history).await;
    for batch in events(&t) {
        put(w.as_mut(), batch).await;
    }
    db.run("CREATE INDEX by_name ON people (name); CREATE VIEW now AS SELECT id FROM people WHERE _valid_to IS NULL").await;
    let soft = sink(&db, json!({"tables": {"people": {"deletes": "soft"}}}));
    let mut rebuild = soft.rebuild().await.unwrap().unwrap();
    // What needs a column that goes is told before anything is done.
    let error = rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap_err().to_string();
    assert!(error.contains("needs column _valid_to as it is"), "{error}");
    assert_eq!(db.value("SELECT to_regclass('people__new') IS NULL").await, "t");
    db.run("DROP VIEW now").await;
    filled(&mut rebuild, &t, Begin::Empty, events(&t).into()).await;
    exchanged(&mut rebuild, &t).await;
    assert_eq!(db.rows("SELECT id, name, _deleted FROM people ORDER BY id").await, ["1|b|f", "2|x|t"]);
    assert_eq!(db.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'people'::regclass AND attname IN ('_op', '_valid_from', '_seq') AND NOT attisdropped").await, "0");
    let mut w = open(&soft).await;
    put(w.as_mut(), later(&t, "c", 3)).await;
    assert_eq!(db.value("SELECT name FROM people WHERE id = 1").await, "c");
    assert_eq!(db.value("SELECT count(*) FROM people__old").await, "4", "the history is kept for a while");
}

#[tokio::test]
async fn columns_that_are_left_out_go_and_types_are_those_that_are_configured() {
    let Some(db) = Database::new().await else { return };
    let t = people();
    let mut w = open(&sink(&db, json!({}))).await;
    for batch in events(&t) {
        put(w.as_mut(), batch).await;
    }
    db.run("CREATE INDEX by_mail ON people (mail); CREATE INDEX by_name ON people (name)").await;
    let narrow = sink(&db, json!({"json": "json", "tables": {"people": {"columns": ["!mail"]}}}));
    let mut rebuild = narrow.rebuild().await.unwrap().unwrap();
    filled(&mut rebuild, &t, Begin::Empty, events(&t).into()).await;
    // What somebody adds meanwhile is not lost.
    db.run("CREATE INDEX meanwhile ON people (id, name)").await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    let error = rebuild.exchange(None).await.unwrap_err().to_string();
    assert!(error.contains("another index") && error.contains("meanwhile"), "{error}");
    db.run("DROP INDEX meanwhile").await;
    exchanged(&mut rebuild, &t).await;
    assert_eq!(
        db.rows("SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'people'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum").await,
        ["id|integer", "name|text", "doc|json"]
    );
    assert_eq!(
        db.value(
            "SELECT string_agg(indexname, ',' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'people'"
        )
        .await,
        "by_name,people_pkey"
    );
    let mut w = open(&narrow).await;
    put(w.as_mut(), later(&t, "c", 3)).await;
    assert_eq!(db.rows("SELECT * FROM people").await, ["1|c|{\"a\": 1}"]);
}
