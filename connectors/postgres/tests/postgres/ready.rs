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

#[test]
fn a_step_is_one_thing_and_says_what_is_wrong_with_it() {
    for run in [
        json!({}),
        json!({"sql": "SELECT 1", "file": "/x"}),
        json!({"abc": {"sales": "v", "product": "p", "amount": "n", "a": 99}}),
    ] {
        let config = serde_json::from_value(json!({"url": "postgres://u@h/d",
            "after_load": [{"name": "job", "tables": ["*"], "run": [run]}]}));
        let error = caudal_postgres::sink("test", config.unwrap()).err().unwrap();
        assert_eq!(error.field_name(), Some("sinks.test.after_load[0]"), "{error}");
        assert!(error.hint_text().is_some());
    }
}
