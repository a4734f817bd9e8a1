//! Readers see whole source transactions only.

use crate::database::Database;
use crate::rows::{I, Rows, int, put, table, write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_that_moves_between_tables_is_never_missing() {
    let Some(db) = Database::new().await else { return };
    let left = Arc::new(table("left_side", &[("id", int()), ("amount", int())]));
    let right = Arc::new(table("right_side", &[("id", int()), ("amount", int())]));
    let mut w = db.writer().await;
    let accounts = 50;
    let fill = |rows: Rows, i| rows.create(&left, &[I(i), I(100)]).create(&right, &[I(i), I(100)]);
    put(w.as_mut(), (0..accounts).fold(Rows::new(), fill).at(1)).await;

    let done = Arc::new(AtomicBool::new(false));
    let looked = Arc::new(AtomicU32::new(0));
    let (reader, stop) = (crate::database::connect(&db.url).await, Arc::clone(&done));
    let looking = Arc::clone(&looked);
    let summing = tokio::spawn(async move {
        let sum = "SELECT (SELECT sum(amount) FROM left_side) + (SELECT sum(amount) FROM right_side)";
        while !stop.load(Ordering::Relaxed) {
            let total: i64 = reader.query_one(sum, &[]).await.unwrap().get(0);
            let looks = looking.fetch_add(1, Ordering::Relaxed);
            assert_eq!(total, accounts * 200, "after {looks} looks");
        }
    });
    // However quick the server is, the reader is to look in between; if it has failed, that is all.
    let more = |round| round < 150 || looked.load(Ordering::Relaxed) <= 10 && !summing.is_finished();
    for round in (0_i64..).take_while(|round| more(*round)) {
        // One source transaction moves money between all accounts, and comes in three parts.
        let moved = round % 37;
        for part in 0..3 {
            let mut rows = Rows::new();
            for i in (0..accounts).filter(|i| i % 3 == part) {
                rows = rows.update(&left, &[I(i), I(0)], &[I(i), I(100 - moved)]);
                let other = accounts - 1 - i;
                rows = rows.update(&right, &[I(other), I(0)], &[I(other), I(100 + moved)]);
            }
            let mut batch = rows.at(2 + round * 3 + part);
            batch.boundary = batch.boundary.filter(|_| part == 2);
            write(w.as_mut(), batch).await;
        }
        w.commit().await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    summing.await.unwrap();
}
