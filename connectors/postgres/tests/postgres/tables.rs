//! Options of single tables: columns, names, soft deletes, histories, watermarks, values that Postgres cannot hold.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, int, put, table, text};
use caudal_core::compare::Range;
use caudal_core::{Batch, ColumnType, Fault, Sweep, SweepPart, TableSchema, Writer};
use serde_json::json;
use std::sync::Arc;

/// A writer under these options of tables.
async fn writer(db: &Database, tables: serde_json::Value) -> Box<dyn Writer> {
    let sink = caudal_postgres::sink("test", db.config_with(json!({"tables": tables}))).unwrap();
    let mut writer = sink.open().await.unwrap();
    writer.resume().await.unwrap();
    writer
}

/// Each event has a place and a time of its own: seconds since 2023-11-14 22:13:20, as the batch's offset says.
pub(crate) fn timed(rows: Rows, offset: i64) -> Batch {
    let mut batch = rows.at(offset);
    for (number, event) in batch.events.iter_mut().enumerate() {
        event.pos = offset as u64 * 1_000 + number as u64;
        event.ts_us = 1_700_000_000_000_000 + offset * 1_000_000;
    }
    batch
}

fn goods() -> Arc<TableSchema> {
    Arc::new(table("goods", &[("id", int()), ("name", text()), ("price", int()), ("secret", text())]))
}

fn row(id: i64, name: &'static str, price: i64) -> [V; 4] {
    [I(id), T(name), I(price), T("hush")]
}

#[tokio::test]
async fn chosen_columns_arrive_under_their_new_names_in_another_schema() {
    let Some(db) = Database::new().await else { return };
    let options = json!({
        "*": {"schema": "raw_{database}"},
        "shop.goods": {"name": "products", "columns": ["*", "!secret"], "rename": {"name": "title", "price": "cost"}},
    });
    let t = goods();
    let sink = caudal_postgres::sink("test", db.config_with(json!({"tables": options}))).unwrap();
    let selected = sink.selected().unwrap();
    assert_eq!(selected.of(&t).as_deref(), Some(&[true, true, true, false][..]));
    assert_eq!(selected.of(&Arc::new(table("other", &[("id", int())]))), None);
    let mut w = writer(&db, options).await;
    let rows = Rows::new().create(&t, &row(1, "a", 1)).create(&t, &row(2, "b", 2));
    put(w.as_mut(), rows.at(1)).await;
    let rows = Rows::new().update(&t, &row(1, "a", 1), &row(1, "c", 3)).delete(&t, &row(2, "b", 2));
    put(w.as_mut(), rows.at(2)).await;
    // Of some columns only, and many at once.
    let part = [I(1), V::Unchanged, I(4), V::Unchanged];
    put(w.as_mut(), Rows::new().update(&t, &part, &part).at(3)).await;
    let many = (10..700).fold(Rows::new(), |rows, i| rows.create(&t, &row(i, "m", i)));
    put(w.as_mut(), many.at(4)).await;
    let shown = db.rows("SELECT * FROM raw_shop.products WHERE id < 10").await;
    assert_eq!(shown, ["1|c|4"]);
    let names = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'raw_shop.products'::regclass AND attnum > 0";
    assert_eq!(db.value(names).await, "id,title,cost");
    assert_eq!(db.value("SELECT count(*) FROM raw_shop.products").await, "691");
}

#[tokio::test]
async fn columns_chosen_later_ask_for_a_rebuild_and_other_names_are_followed() {
    let Some(db) = Database::new().await else { return };
    let t = goods();
    let mut w = writer(&db, json!({"goods": {"columns": ["name"]}})).await;
    let error = w.write(&mut Rows::new().create(&t, &row(1, "a", 1)).at(1)).await.unwrap_err();
    assert!(error.fault() == Fault::Config && error.to_string().contains("column id"), "{error}");
    let mut w = writer(&db, json!({"goods": {"columns": ["id", "name", "price"]}})).await;
    put(w.as_mut(), Rows::new().create(&t, &row(1, "a", 1)).at(1)).await;
    let mut w = writer(&db, json!({"goods": {"columns": ["id", "name"], "rename": {"name": "title"}}})).await;
    put(w.as_mut(), Rows::new().create(&t, &row(2, "b", 2)).at(2)).await;
    assert_eq!(db.rows("SELECT id, title, price FROM goods ORDER BY id").await, ["1|a|1", "2|b|∅"]);
    let mut w = writer(&db, json!({"goods": {"rename": {"name": "title"}}})).await;
    let error = w.write(&mut Rows::new().create(&t, &row(3, "c", 3)).at(3)).await.unwrap_err();
    assert_eq!(error.field_name(), Some("sinks.test.tables.shop.goods.columns"), "{error}");
    assert_eq!(error.hint_text(), Some("caudal rebuild test shop.goods"));
    for tables in [
        json!({"goods": {"rename": {"name": "price"}}}),
        json!({"goods": {"rename": {"name": "_op"}, "history": true}}),
    ] {
        let mut w = writer(&db, tables).await;
        let error = w.write(&mut Rows::new().create(&t, &row(3, "c", 3)).at(3)).await.unwrap_err();
        assert!(error.fault() == Fault::Config && error.to_string().contains("would be called"), "{error}");
    }
}

#[tokio::test]
async fn soft_deletes_keep_the_row_and_tell_when() {
    let Some(db) = Database::new().await else { return };
    let t = goods();
    let mut w = writer(&db, json!({"*": {"deletes": "soft", "watermark": true}})).await;
    let rows = (1..=4).fold(Rows::new(), |rows, i| rows.create(&t, &row(i, "a", i)));
    put(w.as_mut(), timed(rows, 1)).await;
    // Deleted; deleted by its key alone; deleted and made again; made and deleted at once.
    let key = |id| [I(id), V::Unchanged, V::Unchanged, V::Unchanged];
    let rows = Rows::new()
        .delete(&t, &row(1, "a", 1))
        .delete(&t, &key(2))
        .delete(&t, &row(3, "a", 3))
        .create(&t, &row(3, "again", 3))
        .create(&t, &row(5, "short", 5))
        .delete(&t, &key(5));
    put(w.as_mut(), timed(rows, 2)).await;
    let shown = "SELECT id, name, price, _deleted, extract(epoch FROM _deleted_at)::bigint - 1700000000, extract(epoch FROM _watermark)::bigint - 1700000000 FROM goods ORDER BY id";
    assert_eq!(
        db.rows(shown).await,
        ["1|a|1|t|2|2", "2|a|2|t|2|2", "3|again|3|f|∅|2", "4|a|4|f|∅|1", "5|short|5|t|2|2"]
    );
    // The same row once more is no change: it keeps its time.
    put(
        w.as_mut(),
        timed(Rows::new().update(&t, &row(4, "a", 4), &row(4, "a", 4)).delete(&t, &row(1, "a", 1)), 3),
    )
    .await;
    assert_eq!(db.rows(shown).await[0], "1|a|1|t|2|2");
    assert_eq!(db.rows(shown).await[3], "4|a|4|f|∅|1");
    // A truncate too; what was written before it in the same batch outlives it.
    let rows = Rows::new().create(&t, &row(6, "late", 6)).truncate(&t).create(&t, &row(7, "new", 7));
    put(w.as_mut(), timed(rows, 4)).await;
    assert_eq!(
        db.rows("SELECT id, _deleted, extract(epoch FROM _deleted_at)::bigint - 1700000000 FROM goods WHERE id > 2 ORDER BY id").await,
        ["3|t|4", "4|t|4", "5|t|2", "6|t|4", "7|f|∅"]
    );
    // Brought back to life.
    put(w.as_mut(), timed(Rows::new().create(&t, &row(1, "back", 1)), 5)).await;
    assert_eq!(db.rows(shown).await[0], "1|back|1|f|∅|5");
}

#[tokio::test]
async fn soft_deletes_of_a_table_without_a_key_are_refused() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(crate::rows::keyless((*goods()).clone()));
    let mut w = writer(&db, json!({"goods": {"deletes": "soft"}})).await;
    let error = w.write(&mut Rows::new().create(&t, &row(1, "a", 1)).at(1)).await.unwrap_err();
    assert!(error.fault() == Fault::Config && error.to_string().contains("it has no key"), "{error}");
}

const VERSIONS: &str = "SELECT id, name, _op, extract(epoch FROM _at)::bigint - 1700000000, \
    extract(epoch FROM _valid_from)::bigint - 1700000000, extract(epoch FROM _valid_to)::bigint - 1700000000 FROM goods ORDER BY _seq";

#[tokio::test]
async fn a_history_has_each_change_once_with_its_time() {
    let Some(db) = Database::new().await else { return };
    let t = goods();
    let history = json!({"goods": {"history": true, "columns": ["!secret"]}});
    let mut w = writer(&db, history.clone()).await;
    let first = || {
        let rows = Rows::new().create(&t, &row(1, "a", 1)).update(&t, &row(1, "a", 1), &row(1, "b", 1));
        timed(rows.create(&t, &row(2, "x", 1)), 1)
    };
    put(w.as_mut(), first()).await;
    assert_eq!(db.rows(VERSIONS).await, ["1|a|c|1|1|1", "1|b|u|1|1|∅", "2|x|c|1|1|∅"]);
    let rows = Rows::new().update(&t, &row(1, "b", 1), &row(1, "c", 1)).delete(&t, &row(2, "x", 1));
    put(w.as_mut(), timed(rows, 2)).await;
    // Another writer reads a part of it again, and what came since; of the last deletion only the key is known, and no time.
    drop(w);
    let mut w = writer(&db, history).await;
    put(w.as_mut(), {
        let mut again = first();
        again.position = crate::rows::at(3);
        again
    })
    .await;
    let rows =
        Rows::new().create(&t, &row(2, "y", 1)).delete(&t, &[I(1), V::Unchanged, V::Unchanged, V::Unchanged]);
    let mut batch = timed(rows, 4);
    batch.events[1].ts_us = 0;
    put(w.as_mut(), batch).await;
    let shown = db.rows(VERSIONS).await;
    assert_eq!(shown[..3], ["1|a|c|1|1|1", "1|b|u|1|1|2", "2|x|c|1|1|2"]);
    assert_eq!(shown[4..6], ["2|x|d|2|2|2", "2|y|c|4|4|∅"]);
    assert!(
        shown[3].starts_with("1|c|u|2|2|") && !shown[3].ends_with('∅'),
        "the deletion ends it: {shown:?}"
    );
    assert!(shown.len() == 7 && shown[6].starts_with("1|∅|d|"), "{shown:?}");
    assert_eq!(db.value("SELECT count(*) FROM goods WHERE _valid_to IS NULL").await, "1");
    // Many at once, by COPY, and a truncate between them.
    let many = (1..=600).fold(Rows::new(), |rows, i| rows.create(&t, &row(i + 100, "m", i)));
    let many = many.truncate(&t).create(&t, &row(1, "after", 1));
    put(w.as_mut(), timed(many, 5)).await;
    assert_eq!(db.rows("SELECT id, name, _op FROM goods WHERE _valid_to IS NULL").await, ["1|after|c"]);
    assert_eq!(db.value("SELECT count(*), min(extract(epoch FROM _valid_to)::bigint - 1700000000) FROM goods WHERE name = 'm'").await, "600|5");
    // As of a moment each key has one version at most. (When the first one was deleted is not known.)
    let as_of = "SELECT coalesce(max(n), 0) FROM generate_series(0, 6) s, LATERAL (SELECT count(*) AS n FROM goods \
        WHERE id > 1 AND _valid_from <= to_timestamp(1700000000 + s) AND coalesce(_valid_to > to_timestamp(1700000000 + s), true) GROUP BY id) v";
    assert_eq!(db.value(as_of).await, "1");
}

#[tokio::test]
async fn a_history_takes_no_part_of_a_row_and_tables_without_a_key_have_one_too() {
    let Some(db) = Database::new().await else { return };
    let t = goods();
    let mut w = writer(&db, json!({"*": {"history": true}})).await;
    let part = [I(1), T("b"), V::Unchanged, V::Unchanged];
    let mut batch = timed(Rows::new().create(&t, &row(1, "a", 1)).update(&t, &part, &part), 1);
    let outcome = w.write(&mut batch).await.unwrap();
    assert!(
        outcome.rejected.len() == 1 && outcome.rejected[0].cause.contains("binlog_row_image"),
        "{outcome:?}"
    );
    w.commit().await.unwrap();
    let loose = Arc::new(crate::rows::keyless(table("loose", &[("a", int())])));
    let rows = Rows::new().create(&loose, &[I(1)]).create(&loose, &[I(1)]).delete(&loose, &[I(1)]);
    put(w.as_mut(), timed(rows, 2)).await;
    assert_eq!(db.rows("SELECT a, _op FROM loose ORDER BY _seq").await, ["1|c", "1|c", "1|d"]);
}

#[tokio::test]
async fn rows_without_a_key_that_stay_are_not_there_twice_when_their_table_is_read_anew() {
    for keep in [json!({"history": true}), json!({"deletes": "ignore"})] {
        let Some(db) = Database::new().await else { return };
        let loose = Arc::new(crate::rows::keyless(table("loose", &[("a", int())])));
        let rows = || Rows::new().create(&loose, &[I(1)]).create(&loose, &[I(1)]);
        let anew = |offset| {
            let mut batch = timed(rows(), offset);
            let (topic, schema) = ("t".into(), Arc::clone(&loose));
            batch.sweeps.push(Sweep { topic, schema, partitions: 1, part: SweepPart::Begin });
            batch
        };
        let mut w = writer(&db, json!({"*": keep})).await;
        // An empty one can be filled.
        put(w.as_mut(), anew(1)).await;
        let error = w.write(&mut anew(2)).await.unwrap_err();
        assert!(error.fault() == Fault::Data && error.to_string().contains("loose has no key"), "{error}");
        drop(w);
        assert_eq!(db.value("SELECT count(*) FROM loose").await, "2");
    }
}

#[tokio::test]
async fn values_that_postgres_does_not_hold_follow_their_policies() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table(
        "odd",
        &[
            ("id", int()),
            ("t", text()),
            ("j", ColumnType::Json),
            ("f", ColumnType::Float64),
            ("d", ColumnType::Decimal { precision: 5, scale: 2 }),
            ("n", ColumnType::Int { bits: 16 }),
        ],
    ));
    let row = |id| {
        [
            I(id),
            T("a\0b"),
            V::J(r#"{"k":"x\u0000y\\u0000"}"#),
            V::F64(f64::INFINITY),
            V::D("1234.00"),
            I(70_000),
        ]
    };
    let mut w = writer(&db, json!({})).await;
    let outcome = w.write(&mut Rows::new().create(&t, &row(1)).at(1)).await.unwrap();
    assert_eq!(outcome.rejected.len(), 1, "without a policy it is rejected: {outcome:?}");
    w.commit().await.unwrap();
    for (id, zero) in [(2, "remove"), (3, "replace")] {
        let policies = json!({"zero_characters": zero, "infinite": if id == 2 { "null" } else { "keep" }, "out_of_range": "null"});
        let mut w = writer(&db, json!({"o*": policies})).await;
        // In the first batch of a shape and in those after it.
        for (id, at) in [(id, id), (id + 10, id + 10)] {
            put(w.as_mut(), Rows::new().create(&t, &row(id)).at(at)).await;
        }
    }
    let (removed, replaced) = (r"ab|xy\u0000|∅|∅|∅", "a\u{fffd}b|x\u{fffd}y\\u0000|Infinity|∅|∅");
    assert_eq!(
        db.rows("SELECT id, t, j->>'k', f, d, n FROM odd ORDER BY id").await,
        [format!("2|{removed}"), format!("3|{replaced}"), format!("12|{removed}"), format!("13|{replaced}")]
    );
}

#[tokio::test]
async fn infinite_numbers_can_be_refused() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table("odd", &[("id", int()), ("f", ColumnType::Float64), ("g", ColumnType::Float32)]));
    let mut w = writer(&db, json!({"odd": {"infinite": "reject"}})).await;
    let rows = |first: i64, last: i64| {
        let start = Rows::new()
            .create(&t, &[I(first), V::F64(f64::INFINITY), V::F32(1.0)])
            .create(&t, &[I(first + 1), V::F64(0.5), V::F32(f32::NAN)]);
        (first + 2..last).fold(start, |rows, id| rows.create(&t, &[I(id), V::F64(0.5), V::F32(1.0)]))
    };
    // As parameters, and by COPY.
    for (first, last) in [(1, 4), (1_000, 1_700)] {
        let outcome = w.write(&mut rows(first, last).at(first)).await.unwrap();
        assert_eq!(outcome.rejected.iter().map(|r| r.event).collect::<Vec<_>>(), [0, 1]);
        let cause = &outcome.rejected[1].cause;
        assert!(cause.contains("column g") && cause.contains("infinite: reject"), "{cause}");
        w.commit().await.unwrap();
    }
    assert_eq!(db.value("SELECT min(id) || ' ' || count(*) FROM odd").await, "3 699");
}

#[tokio::test]
async fn the_widest_decimals_of_any_source_arrive_to_the_last_digit() {
    let Some(db) = Database::new().await else { return };
    // BigQuery's BIGNUMERIC: 38 digits on both sides.
    let widest = ColumnType::Decimal { precision: 76, scale: 38 };
    let t = Arc::new(table("wide", &[("id", int()), ("d", widest)]));
    let whole = "12345678901234567890123456789012345678";
    let value = format!("-{whole}.{whole}");
    let leaked: &'static str = Box::leak(value.clone().into_boxed_str());
    let mut w = db.writer().await;
    put(w.as_mut(), Rows::new().create(&t, &[I(1), V::D(leaked)]).at(1)).await;
    let many = (2..700).fold(Rows::new(), |rows, id| rows.create(&t, &[I(id), V::D(leaked)]));
    put(w.as_mut(), many.at(2)).await;
    assert_eq!(db.rows("SELECT DISTINCT d FROM wide").await, [value]);
    assert_eq!(db.value("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'wide'::regclass AND attname = 'd'").await, "numeric(76,38)");
}

#[tokio::test]
async fn a_comparison_sees_of_soft_deletes_and_histories_what_is_alive() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table("people", &[("id", int()), ("name", text())]));
    for (name, options) in [("soft", json!({"deletes": "soft"})), ("history", json!({"history": true}))] {
        db.run("DROP TABLE IF EXISTS people; DROP SCHEMA IF EXISTS caudal CASCADE").await;
        let tables = json!({"people": options});
        let mut w = writer(&db, tables.clone()).await;
        let start =
            Rows::new().create(&t, &[I(1), T("a")]).create(&t, &[I(2), T("b")]).create(&t, &[I(3), T("c")]);
        put(w.as_mut(), timed(start, 1)).await;
        let rows = Rows::new().update(&t, &[I(1), T("a")], &[I(1), T("a2")]).delete(&t, &[I(2), T("b")]);
        put(w.as_mut(), timed(rows, 2)).await;
        let sink = caudal_postgres::sink("test", db.config_with(json!({"tables": tables}))).unwrap();
        let mut side = sink.side().await.unwrap().unwrap();
        assert_eq!(side.open(&t).await.unwrap().as_deref(), Some("public.people"));
        let all = Range { from: None, to: None };
        let mut differences = async |rows: &[(i64, &'static str)]| {
            let mut batch =
                rows.iter().fold(Rows::new(), |all, (id, name)| all.create(&t, &[I(*id), T(name)])).at(9);
            let found = side.compare(&mut batch, &t, &all).await.unwrap().differences;
            let mut told: Vec<String> = found.iter().map(|d| format!("{} {:?}", d.key[0], d.kind)).collect();
            told.sort();
            told
        };
        assert!(differences(&[(1, "a2"), (3, "c")]).await.is_empty(), "{name}");
        let told = differences(&[(1, "a"), (2, "b")]).await;
        assert_eq!(told, ["1 Different", "2 Missing", "3 Surplus"], "{name}");
    }
}

#[tokio::test]
async fn a_comparison_that_fails_leaves_the_next_table_its_turn() {
    let Some(db) = Database::new().await else { return };
    let tables = ["people", "goods"].map(|name| Arc::new(table(name, &[("id", int()), ("name", text())])));
    let rows = |t: &Arc<TableSchema>| Rows::new().create(t, &[I(1), T("a")]);
    put(db.writer().await.as_mut(), timed(rows(&tables[0]).create(&tables[1], &[I(1), T("a")]), 1)).await;
    let mut side = db.sink().side().await.unwrap().unwrap();
    for t in &tables {
        side.open(t).await.unwrap();
    }
    db.run("ALTER TABLE people DROP COLUMN name").await;
    let all = Range { from: None, to: None };
    assert!(side.compare(&mut rows(&tables[0]).at(9), &tables[0], &all).await.is_err());
    let found = side.compare(&mut rows(&tables[1]).at(9), &tables[1], &all).await.unwrap();
    assert!(found.differences.is_empty());
}
