//! The ready-made after-load jobs, on rows of a small chain of stores.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, int, put, table, text};
use serde_json::json;
use std::sync::Arc;

fn config(db: &Database, run: serde_json::Value) -> caudal_postgres::Config {
    db.config_with(json!({"after_load": [{"name": "job", "tables": ["*"], "debounce": "1ms", "run": [run]}]}))
}

#[tokio::test]
async fn products_are_classified_by_what_they_sell() {
    let Some(db) = Database::new().await else { return };
    let job = json!({"abc": {"sales": "ventas", "product": "producto", "store": "tienda", "amount": "cantidad * precio", "into": "productos_abc_cache"}});
    let mut w = caudal_postgres::sink("test", config(&db, job)).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let t = Arc::new(table(
        "ventas",
        &[("id", int()), ("tienda", text()), ("producto", text()), ("cantidad", int()), ("precio", int())],
    ));
    let sale = |id, store, product, n, price| [I(id), T(store), T(product), I(n), I(price)];
    // In t1: 70, 15, 10, 5 percent; p4 twice over.
    let rows = [
        sale(1, "t1", "p1", 7, 10),
        sale(2, "t1", "p2", 1, 15),
        sale(3, "t1", "p3", 10, 1),
        sale(4, "t1", "p4", 1, 3),
        sale(5, "t1", "p4", 2, 1),
        sale(6, "t1", "gift", 1, 0),
        sale(7, "t2", "p4", 1, 1),
    ];
    let rows = rows.iter().fold(Rows::new(), |rows, row| rows.create(&t, row));
    put(w.as_mut(), rows.at(1)).await;
    db.wait_for("SELECT to_regclass('productos_abc_cache') IS NOT NULL").await;
    let shown = "SELECT store, product, amount, cumulative, rank, class FROM productos_abc_cache ORDER BY store, rank";
    db.wait_for("SELECT count(*) = 5 FROM productos_abc_cache").await;
    assert_eq!(
        db.rows(shown).await,
        [
            "t1|p1|70|0.700000|1|A",
            "t1|p2|15|0.850000|2|A",
            "t1|p3|10|0.950000|3|B",
            "t1|p4|5|1.000000|4|C",
            "t2|p4|1|1.000000|1|A"
        ]
    );
    // A product is sold no more, another one more: what has not changed is not written.
    let unchanged =
        db.value("SELECT xmin FROM productos_abc_cache WHERE store = 't1' AND product = 'p1'").await;
    put(
        w.as_mut(),
        Rows::new().delete(&t, &sale(7, "t2", "p4", 1, 1)).create(&t, &sale(8, "t2", "p5", 1, 9)).at(2),
    )
    .await;
    db.wait_for("SELECT EXISTS (SELECT 1 FROM productos_abc_cache WHERE store = 't2' AND product = 'p5')")
        .await;
    assert_eq!(db.value("SELECT count(*) FROM productos_abc_cache").await, "5");
    assert_eq!(
        db.value("SELECT xmin FROM productos_abc_cache WHERE store = 't1' AND product = 'p1'").await,
        unchanged
    );
}

#[tokio::test]
async fn stock_that_is_told_as_none_while_it_sells_is_found_and_forgiven() {
    let Some(db) = Database::new().await else { return };
    db.run("CREATE TABLE ventas (tienda text, producto text, fecha timestamptz);
        INSERT INTO ventas SELECT 't1', p, now() - d * interval '1 day' FROM unnest(ARRAY['often', 'full', 'stopped']) p, generate_series(0, 9) d WHERE p <> 'stopped' OR d > 4;
        INSERT INTO ventas VALUES ('t1', 'once', now())").await;
    let job = json!({"phantom_zeros": {"stock": "inventario_actual", "product": "producto", "store": "tienda", "quantity": "cantidad", "sales": "public.ventas", "at": "fecha"}});
    let mut w = caudal_postgres::sink("test", config(&db, job)).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let t = Arc::new(table(
        "inventario_actual",
        &[("id", int()), ("tienda", text()), ("producto", text()), ("cantidad", int())],
    ));
    let stock = |id, product, n: V| [I(id), T("t1"), T(product), n];
    let rows = [
        stock(1, "often", I(0)),
        stock(2, "full", I(3)),
        stock(3, "stopped", I(0)),
        stock(4, "once", I(-1)),
        stock(5, "never", I(0)),
    ];
    put(w.as_mut(), rows.iter().fold(Rows::new(), |rows, row| rows.create(&t, row)).at(1)).await;
    db.wait_for("SELECT to_regclass('phantom_zeros') IS NOT NULL").await;
    db.wait_for("SELECT count(*) = 1 FROM phantom_zeros").await;
    assert_eq!(
        db.rows("SELECT store, product, quantity, sold_on_days >= 9, resolved_at FROM phantom_zeros").await,
        ["t1|often|0|t|∅"]
    );
    // Counted again: it is over, and remembered; once more, and it begins anew.
    put(w.as_mut(), Rows::new().update(&t, &stock(1, "often", I(0)), &stock(1, "often", I(5))).at(2)).await;
    db.wait_for("SELECT resolved_at IS NOT NULL FROM phantom_zeros").await;
    let since = db.value("SELECT since FROM phantom_zeros").await;
    put(w.as_mut(), Rows::new().update(&t, &stock(1, "often", I(5)), &stock(1, "often", I(-2))).at(3)).await;
    db.wait_for("SELECT resolved_at IS NULL AND quantity = -2 FROM phantom_zeros").await;
    assert_ne!(db.value("SELECT since FROM phantom_zeros").await, since);
}

const STOCK: &str = "inventario_actual";

fn stock_table() -> Arc<caudal_core::TableSchema> {
    Arc::new(table(STOCK, &[("id", int()), ("producto", text()), ("cantidad", int())]))
}

fn stock(id: i64, n: i64) -> [V; 3] {
    [I(id), T("p"), I(n)]
}

/// The runs of the job that have ended well.
const RUNS: &str = "(SELECT count(*) FROM caudal.after_load_runs WHERE error IS NULL)";

#[tokio::test]
async fn of_each_day_the_last_state_stays_or_the_first_and_old_days_go() {
    let Some(db) = Database::new().await else { return };
    let hour: u32 = db.value("SELECT extract(hour FROM now() AT TIME ZONE 'UTC')").await.parse().unwrap();
    // Where it is another day than in UTC, and stays so for two hours.
    let zone = if hour < 10 { "Etc/GMT+12" } else { "Etc/GMT-14" };
    let snapshot = |into: &str, more: serde_json::Value| {
        let mut all = json!({"from": STOCK, "into": into, "zone": zone});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"snapshot": all})
    };
    let steps = json!([
        snapshot("last", json!({"keep": "3d"})),
        snapshot("first state", json!({"same_day": "first"})),
        snapshot("every", json!({"per": "run"})),
    ]);
    let config = db.config_with(
        json!({"after_load": [{"name": "job", "tables": [STOCK], "debounce": "1ms", "run": steps}]}),
    );
    let mut w = caudal_postgres::sink("test", config).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let t = stock_table();
    put(w.as_mut(), Rows::new().create(&t, &stock(1, 5)).create(&t, &stock(2, 7)).at(1)).await;
    db.wait_for(&format!("SELECT {RUNS} = 1")).await;
    let local = format!("(now() AT TIME ZONE '{zone}')::date");
    let today = db.value(&format!("SELECT {local}")).await;
    assert_ne!(today, db.value("SELECT (now() AT TIME ZONE 'UTC')::date").await);
    let shown = "SELECT snapshot_day, id, cantidad FROM last ORDER BY 1, 2";
    let [one, two] = [format!("{today}|1|5"), format!("{today}|2|7")];
    assert_eq!(db.rows(shown).await, [one.as_str(), two.as_str()]);
    assert_eq!(
        db.value("SELECT count(*) FROM last WHERE snapshot_at > now() - interval '1 hour'").await,
        "2"
    );

    // The same day again: a row is changed, one is gone. Of days that went before, what is too old goes.
    db.run(&format!("INSERT INTO last (snapshot_day, id, cantidad) SELECT {local} - d, 1, 100 + d FROM generate_series(1, 4) AS d")).await;
    put(w.as_mut(), Rows::new().update(&t, &stock(1, 5), &stock(1, 6)).delete(&t, &stock(2, 7)).at(2)).await;
    db.wait_for(&format!("SELECT {RUNS} = 2")).await;
    assert_eq!(
        db.rows("SELECT id, cantidad FROM last ORDER BY snapshot_day").await,
        ["1|102", "1|101", "1|6"]
    );
    assert_eq!(db.rows("SELECT id, cantidad FROM \"first state\" ORDER BY id").await, ["1|5", "2|7"]);
    let runs = "SELECT dense_rank() OVER (ORDER BY snapshot_at), id, cantidad FROM every ORDER BY 1, 2";
    assert_eq!(db.rows(runs).await, ["1|1|5", "1|2|7", "2|1|6"]);
}

#[tokio::test]
async fn a_history_follows_the_shape_of_its_table_and_keeps_what_that_loses() {
    let Some(db) = Database::new().await else { return };
    let job = json!({"snapshot": {"from": "seen", "into": "kept", "per": "run"}});
    // Not the sink's own table: its shape is changed at will here.
    db.run("CREATE TABLE seen (a varchar(3), n integer, \"it's \"\"b\"\"\" text); INSERT INTO seen VALUES ('abc', 1, 'x')").await;
    let mut w = caudal_postgres::sink("test", config(&db, job)).unwrap().open().await.unwrap();
    w.resume().await.unwrap();
    let t = stock_table();
    put(w.as_mut(), Rows::new().create(&t, &stock(1, 1)).at(1)).await;
    db.wait_for(&format!("SELECT {RUNS} = 1")).await;
    db.run("ALTER TABLE seen DROP COLUMN \"it's \"\"b\"\"\"; ALTER TABLE seen ALTER n TYPE bigint, ALTER a TYPE varchar(9), ADD c date; \
        UPDATE seen SET a = 'abcdef', n = 5000000000, c = '2026-11-22'").await;
    put(w.as_mut(), Rows::new().create(&t, &stock(2, 1)).at(2)).await;
    db.wait_for(&format!("SELECT {RUNS} = 2")).await;
    let shown = "SELECT a, n, \"it's \"\"b\"\"\", c FROM kept ORDER BY snapshot_at";
    assert_eq!(db.rows(shown).await, ["abc|1|x|∅", "abcdef|5000000000|∅|2026-11-22"]);
    // Narrower again: what the history holds is not cut.
    db.run("UPDATE seen SET n = 7; ALTER TABLE seen ALTER n TYPE smallint").await;
    put(w.as_mut(), Rows::new().create(&t, &stock(3, 1)).at(3)).await;
    db.wait_for(&format!("SELECT {RUNS} = 3")).await;
    assert_eq!(db.value("SELECT sum(n) FROM kept").await, "5000000008");
}

#[tokio::test]
async fn a_snapshot_whose_transaction_is_cut_off_leaves_nothing_and_comes_once() {
    let Some(db) = Database::new().await else { return };
    // The first run waits behind its snapshot; it is cut off there, as a crash does it.
    db.run("CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (false); \
        CREATE FUNCTION wait() RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(CASE WHEN open THEN 0 ELSE 600 END) FROM gate $$").await;
    let steps =
        json!([{"snapshot": {"from": STOCK, "into": "kept", "per": "run"}}, {"sql": "SELECT wait()"}]);
    let config = db.config_with(
        json!({"after_load": [{"name": "job", "tables": [STOCK], "debounce": "1ms", "timeout": "1h", "run": steps}]}),
    );
    let sink = caudal_postgres::sink("test", config).unwrap();
    let mut w = sink.open().await.unwrap();
    w.resume().await.unwrap();
    let t = stock_table();
    put(w.as_mut(), Rows::new().create(&t, &stock(1, 5)).at(1)).await;
    let waiting = "FROM pg_stat_activity WHERE query = 'SELECT wait()' AND datname = current_database()";
    db.wait_for(&format!("SELECT count(*) = 1 {waiting}")).await;
    db.run("UPDATE gate SET open = true").await;
    db.run(&format!("SELECT pg_terminate_backend(pid) {waiting}")).await;
    db.wait_for(&format!("SELECT count(*) = 0 {waiting}")).await;
    assert_eq!(db.value("SELECT to_regclass('kept') IS NULL").await, "t");
    // The next start finds it due.
    drop(w);
    let mut w = sink.open().await.unwrap();
    w.resume().await.unwrap();
    db.wait_for(&format!("SELECT {RUNS} = 1")).await;
    assert_eq!(db.rows("SELECT id, cantidad FROM kept").await, ["1|5"]);
    assert_eq!(db.value("SELECT changed = done FROM caudal.after_load").await, "t");
}

#[test]
fn a_step_is_one_thing_and_says_what_is_wrong_with_it() {
    for run in [
        json!({}),
        json!({"sql": "SELECT 1", "file": "/x"}),
        json!({"abc": {"sales": "v", "product": "p", "amount": "n", "a": 99}}),
        json!({"snapshot": {"from": "a", "into": "a"}}),
        json!({"snapshot": {"from": "a", "into": "b.c.d"}}),
        json!({"snapshot": {"from": "a", "into": "b", "zone": "America/Macondo"}}),
        json!({"snapshot": {"from": "a", "into": "b", "keep": "36h"}}),
        json!({"snapshot": {"from": "a", "into": "b", "keep": "0d"}}),
        json!({"snapshot": {"from": "a", "into": "b", "per": "run", "same_day": "first"}}),
    ] {
        let config = serde_json::from_value(json!({"url": "postgres://u@h/d",
            "after_load": [{"name": "job", "tables": ["*"], "run": [run]}]}));
        let error = caudal_postgres::sink("test", config.unwrap()).err().unwrap();
        assert_eq!(error.field_name(), Some("sinks.test.after_load[0]"), "{error}");
        assert!(error.hint_text().is_some());
    }
}
