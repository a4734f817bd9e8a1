//! Changes of a source's table under each policy, and what they may cost those who read.

use crate::database::{Database, connect};
use crate::rows::{I, Rows, T, V, int, put, table, text};
use caudal_core::{ColumnType, Fault, TableSchema, Writer};
use serde_json::json;
use std::sync::Arc;

async fn writer(db: &Database, changes: &str) -> Box<dyn Writer> {
    let config = db.config_with(json!({"tables": {"t": {"changes": changes}}}));
    let mut writer = caudal_postgres::sink("test", config).unwrap().open().await.unwrap();
    writer.resume().await.unwrap();
    writer
}

/// Two versions of a table: the second renames `a`, makes `b` a text, drops `c` and adds `d`.
fn versions() -> (Arc<TableSchema>, Arc<TableSchema>) {
    let old = table("t", &[("id", int()), ("a", int()), ("b", int()), ("c", int())]);
    let mut new = old.clone();
    new.version = 2;
    new.columns[1].name = "a2".to_owned();
    new.columns[2].ty = text();
    new.columns[3] = crate::rows::column(5, "d", int());
    (Arc::new(old), Arc::new(new))
}

const COLUMNS: &str = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
    FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";

#[tokio::test]
async fn a_table_that_ignores_changes_stays_as_it_is_and_takes_what_it_can() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    let mut w = writer(&db, "ignore").await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), I(1), I(1), I(1)]).at(1)).await;
    let before = db.value(COLUMNS).await;
    let rows = Rows::new().create(&new, &[I(2), I(2), T("two"), I(2)]).update(
        &new,
        &[I(1), I(1), T("1"), V::Null],
        &[I(1), I(5), T("five"), I(5)],
    );
    put(w.as_mut(), rows.at(2)).await;
    let many = (10..700).fold(Rows::new(), |rows, i| rows.create(&new, &[I(i), I(i), T("n"), I(i)]));
    put(w.as_mut(), many.at(3)).await;
    assert_eq!(db.value(COLUMNS).await, before);
    assert_eq!(
        db.rows("SELECT id, a, b, c FROM t WHERE id < 11 ORDER BY id").await,
        ["1|5|1|1", "2|2|∅|∅", "10|10|∅|∅"]
    );
    // Chosen later, the table follows.
    let mut w = writer(&db, "apply").await;
    put(w.as_mut(), Rows::new().create(&new, &[I(3), I(3), T("three"), I(3)]).at(4)).await;
    assert_eq!(
        db.rows("SELECT id, a2, b, c, d FROM t WHERE id IN (1, 3) ORDER BY id").await,
        ["1|5|1|1|∅", "3|3|three|∅|3"]
    );
}

#[tokio::test]
async fn a_quarantined_tables_rows_are_set_aside_while_others_go_on() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    let other = Arc::new(table("other", &[("id", int())]));
    let mut w = writer(&db, "quarantine").await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), I(1), I(1), I(1)]).at(1)).await;
    for offset in [2, 3] {
        let rows = Rows::new()
            .create(&old, &[I(offset * 10), I(1), I(1), I(1)])
            .create(&other, &[I(offset)])
            .create(&new, &[I(offset * 10 + 1), I(2), T("two"), I(2)])
            .update(&new, &[I(1), I(1), T("1"), V::Null], &[I(1), I(5), T("five"), I(5)]);
        let mut batch = rows.at(offset);
        w.prepare().unwrap().prepare(&mut batch).unwrap();
        let outcome = w.write(&mut batch).await.unwrap();
        let named: Vec<u32> = outcome.rejected.iter().map(|r| r.event).collect();
        assert_eq!(named, [2, 3]);
        let cause = &outcome.rejected[0].cause;
        for part in ["a was renamed to a2", "b became", "c was dropped", "d was added", "quarantine"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        w.commit().await.unwrap();
    }
    assert_eq!(db.rows("SELECT id, a, b FROM t ORDER BY id").await, ["1|1|1", "20|1|1", "30|1|1"]);
    assert_eq!(db.rows("SELECT id FROM other ORDER BY id").await, ["2", "3"]);
    let mut w = writer(&db, "apply").await;
    put(w.as_mut(), Rows::new().create(&new, &[I(21), I(2), T("two"), I(2)]).at(4)).await;
    assert_eq!(db.rows("SELECT a2, b, d FROM t WHERE id = 21").await, ["2|two|2"]);
}

#[tokio::test]
async fn a_change_that_no_type_holds_asks_for_the_policy() {
    let Some(db) = Database::new().await else { return };
    let old = table("t", &[("id", int()), ("a", ColumnType::Bytes { max_bytes: None, fixed: false })]);
    let mut new = old.clone();
    (new.version, new.columns[1].ty) = (2, int());
    let (old, new) = (Arc::new(old), Arc::new(new));
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), V::B(b"x")]).at(1)).await;
    let error = w.write(&mut Rows::new().create(&new, &[I(2), I(2)]).at(2)).await.unwrap_err();
    assert_eq!(
        (error.fault(), error.field_name()),
        (Fault::Config, Some("sinks.test.tables.shop.t.changes"))
    );
    assert!(error.hint_text().unwrap().contains("changes: ignore"), "{error:?}");
    let mut w = writer(&db, "ignore").await;
    put(w.as_mut(), Rows::new().create(&new, &[I(2), I(2)]).at(2)).await;
    assert_eq!(db.rows("SELECT id, a FROM t ORDER BY id").await, [r"1|\x78", "2|∅"]);
}

#[tokio::test]
async fn views_outlive_a_change_of_type_with_all_that_is_said_of_them() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), I(1), I(7), I(1)]).at(1)).await;
    db.run("CREATE VIEW v WITH (security_barrier) AS SELECT id, b FROM t; CREATE VIEW w AS SELECT v.b, t.a FROM v JOIN t USING (id);
        COMMENT ON VIEW v IS 'it''s'; GRANT SELECT ON v TO PUBLIC; GRANT SELECT (b) ON w TO PUBLIC").await;
    let told = "SELECT string_agg(relname || coalesce(relacl::text, '') || coalesce(reloptions::text, '') || coalesce(obj_description(oid), ''), ';' ORDER BY relname) \
        FROM pg_class WHERE relname IN ('v', 'w')";
    let before = db.value(told).await;
    put(w.as_mut(), Rows::new().create(&new, &[I(2), I(2), T("two"), I(2)]).at(2)).await;
    assert_eq!(db.rows("SELECT b, a FROM w ORDER BY b").await, ["7|1", "two|2"]);
    assert_eq!(db.value(told).await, before);
    assert_eq!(
        db.value("SELECT attacl::text FROM pg_attribute WHERE attrelid = 'w'::regclass AND attname = 'b'")
            .await,
        "{=r/postgres}"
    );
}

#[tokio::test]
async fn a_change_holds_its_lock_no_longer_than_the_bound_and_names_what_to_run() {
    let Some(db) = Database::new().await else { return };
    let (old, new) = versions();
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&old, &[I(1), I(1), I(1), I(1)]).at(1)).await;
    // Whoever writes the table anew has to make the index anew: that takes a minute.
    db.run("CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN \
        IF current_setting('application_name') <> 'quick' THEN PERFORM pg_sleep(60); END IF; RETURN $1; END $$;
        SET application_name = 'quick'; CREATE INDEX ON t (slow(id))").await;
    let config = db.config_with(json!({"lock_timeout": "1s"}));
    let mut w = caudal_postgres::sink("test", config).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let error =
        w.write(&mut Rows::new().create(&new, &[I(2), I(2), T("two"), I(2)]).at(2)).await.unwrap_err();
    assert_eq!(
        (error.fault(), error.field_name()),
        (Fault::Config, Some("sinks.test.lock_timeout")),
        "{error}"
    );
    let hint = error.hint_text().unwrap();
    let statements = hint.split_once(": ").unwrap().1;
    assert!(statements.contains("RENAME COLUMN") && statements.contains(" TYPE text"), "{hint}");
    // Run by hand, as it says, it is taken as it is.
    let client = connect(&db.url).await;
    client.batch_execute("SET application_name = 'quick'").await.unwrap();
    client.batch_execute(statements).await.unwrap();
    db.run("ALTER FUNCTION slow(int) RENAME TO was_slow; CREATE OR REPLACE FUNCTION was_slow(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'").await;
    w.resume().await.unwrap();
    put(w.as_mut(), Rows::new().create(&new, &[I(2), I(2), T("two"), I(2)]).at(2)).await;
    assert_eq!(db.rows("SELECT id, a2, b FROM t ORDER BY id").await, ["1|1|1", "2|2|two"]);
}
