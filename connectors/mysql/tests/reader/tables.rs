//! The selection of tables changes in the middle of a transaction.

use crate::server::{Database, Stored, next, servers};
use crate::state::row;
use caudal_core::Op;
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_tables_in_the_middle_of_a_transaction_lose_and_repeat_nothing() {
    const ROWS: i64 = 400;
    for server in servers() {
        let database = Database::create(&server).await;
        for table in ["a", "b", "c"] {
            database.run(&[&format!("CREATE TABLE {table} (id INT PRIMARY KEY, pad VARCHAR(900))")]).await;
        }
        let options = |tables: &str| {
            format!(r#""tables":{tables},"batch_bytes":"64KiB","snapshot":{{"mode":"never"}}"#)
        };
        let (first, second) = (options(r#"["a","b"]"#), options(r#"["c","a"]"#));
        let mut stored = Stored::default();
        let mut reader = database.open(None, &first).await;
        stored.apply(&next(&mut reader).await);
        let mut conn = database.connect().await;
        conn.query_drop("BEGIN").await.unwrap();
        for i in 0..ROWS {
            for table in ["c", "a", "b"] {
                let sql = format!("INSERT INTO {table} VALUES ({i}, REPEAT('x', 800))");
                conn.query_drop(sql).await.unwrap();
            }
        }
        conn.query_drop("COMMIT").await.unwrap();
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let inside =
            |stored: &Stored| stored.position.as_ref().is_some_and(|p| p.token.contains(r#""row":"#));
        while !inside(&stored) {
            take(&next(&mut reader).await, &mut stored, &mut seen);
        }
        // And once more within what is left, with the selection that is new by then.
        for _ in 0..2 {
            reader = database.open(stored.position.as_ref(), &second).await;
            take(&next(&mut reader).await, &mut stored, &mut seen);
            assert!(
                inside(&stored),
                "batches must end within the transaction for this test to mean anything"
            );
        }
        reader = database.open(stored.position.as_ref(), &second).await;
        while seen.get("a").map_or(0, Vec::len) < ROWS as usize
            || seen.get("c").map_or(0, Vec::len) < ROWS as usize
        {
            take(&next(&mut reader).await, &mut stored, &mut seen);
        }
        let expected: Vec<String> = (0..ROWS).map(|i| i.to_string()).collect();
        assert_eq!(seen["a"], expected, "mariadb: {}", server.mariadb);
        assert_eq!(seen["c"], expected, "mariadb: {}", server.mariadb);
        assert!(seen["b"].len() < ROWS as usize);
        // The position behind it is one between two transactions.
        database.run(&["INSERT INTO a VALUES (-1, '')"]).await;
        while seen["a"].last().map(String::as_str) != Some("-1") {
            take(&next(&mut reader).await, &mut stored, &mut seen);
        }
        assert_eq!(seen["a"].len(), ROWS as usize + 1);
        database.drop().await;
    }
}

fn take(batch: &caudal_core::Batch, stored: &mut Stored, seen: &mut BTreeMap<String, Vec<String>>) {
    stored.apply(batch);
    for event in batch.events.iter().filter(|e| e.op == Op::Create) {
        let id = row(batch, batch.after(event).expect("an image after"))[0].clone();
        seen.entry(batch.table(event).id.table.clone()).or_default().push(id);
    }
}
