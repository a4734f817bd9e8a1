//! Reading what exists while changes stream.

use crate::server::{Database, Stored, next, servers};
use crate::state::State;
use caudal_core::{Op, SnapshotMark};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes at random, with several connections, until told to stop.
fn writers(
    database: &Arc<Database>,
    count: u32,
    rows: u32,
    stop: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<u32>> {
    (0..count)
        .map(|writer| {
            let (database, stop) = (Arc::clone(database), Arc::clone(stop));
            tokio::spawn(async move {
                let mut conn = database.connect().await;
                let (mut seed, mut done) = (writer.wrapping_mul(2_654_435_761) | 1, 0u32);
                while !stop.load(Ordering::Relaxed) {
                    let mut random = || {
                        seed ^= seed << 13;
                        seed ^= seed >> 17;
                        seed ^= seed << 5;
                        seed
                    };
                    let (what, id, other) = (random() % 10, random() % rows, random() % rows);
                    let statement = match what {
                        0 => format!("DELETE FROM t WHERE id = {id}"),
                        1 => format!("UPDATE IGNORE t SET id = {other} WHERE id = {id}"),
                        2..=4 => format!("INSERT IGNORE INTO t VALUES ({id}, {writer}, 'new')"),
                        _ => format!("UPDATE t SET n = n + 1, s = 'w{writer} {done}' WHERE id = {id}"),
                    };
                    // Two writers may meet in a deadlock: then one of them has done nothing.
                    let _ = conn.query_drop(statement).await;
                    done += 1;
                }
                done
            })
        })
        .collect()
}

async fn filled(database: &Database, rows: u32) {
    database.run(&["CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL, s VARCHAR(40))"]).await;
    let mut conn = database.connect().await;
    for start in (0..rows).step_by(1000) {
        let values: Vec<String> =
            (start..(start + 1000).min(rows)).map(|i| format!("({i},0,'old')")).collect();
        conn.query_drop(format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
    }
}

/// The rows of `t`, as the model renders them.
async fn selected(database: &Database) -> State {
    let mut conn = database.connect().await;
    let rows: Vec<(i64, i64, Option<String>)> = conn.query("SELECT id, n, s FROM t").await.unwrap();
    let mut state = State::default();
    let table = state.tables.entry("t".to_owned()).or_default();
    for (id, n, s) in rows {
        let s = s.map_or("NULL".to_owned(), |s| format!("t:{s}"));
        table.insert(vec![id.to_string()], vec![id.to_string(), n.to_string(), s]);
    }
    state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existing_rows_are_read_once_then_changes_stream() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 5_000).await;
        let mut reader = database.open(None, "").await;
        let (mut state, mut stored) = (State::default(), Stored::default());
        let mut marks = Vec::new();
        while !stored.done(&["t"]) {
            let batch = next(&mut reader).await;
            marks.extend(batch.events.iter().map(|e| (e.op, e.snapshot)));
            state.apply(&batch);
            stored.apply(&batch);
        }
        assert_eq!(marks.len(), 5_000);
        assert_eq!(marks[0], (Op::Read, SnapshotMark::First));
        assert_eq!(marks[4_999], (Op::Read, SnapshotMark::Last));
        database.run(&["UPDATE t SET n = 7 WHERE id = 3", "DELETE FROM t WHERE id = 4"]).await;
        let mut changes = Vec::new();
        while changes.len() < 2 {
            let batch = next(&mut reader).await;
            changes.extend(batch.events.iter().map(|e| e.op));
            state.apply(&batch);
        }
        assert_eq!(changes, [Op::Update, Op::Delete]);
        assert!(state == selected(&database).await, "the replayed state differs from the source's");
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_under_concurrent_writers_ends_in_the_sources_state() {
    const ROWS: u32 = 6_000;
    for server in servers() {
        let database = Arc::new(Database::create(&server).await);
        filled(&database, ROWS).await;
        database.run(&["CREATE TABLE marker (id INT PRIMARY KEY)"]).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writing = writers(&database, 8, ROWS, &stop);
        let mut reader = database.open(None, r#""snapshot":{"chunk_rows":100}"#).await;
        let (mut state, mut stored) = (State::default(), Stored::default());
        while !stored.done(&["t", "marker"]) {
            let batch = next(&mut reader).await;
            state.apply(&batch);
            stored.apply(&batch);
        }
        stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for writer in writing {
            written += writer.await.unwrap();
        }
        database.run(&["INSERT INTO marker VALUES (1)"]).await;
        while !state.tables.get("marker").is_some_and(|m| !m.is_empty()) {
            let batch = next(&mut reader).await;
            state.apply(&batch);
        }
        state.tables.remove("marker");
        let expected = selected(&database).await;
        let (got, want) = (&state.tables["t"], &expected.tables["t"]);
        let wrong = want.iter().filter(|(k, v)| got.get(*k) != Some(*v)).count()
            + got.keys().filter(|k| !want.contains_key(*k)).count();
        assert_eq!(wrong, 0, "of {} rows, after {written} writes (mariadb: {})", want.len(), server.mariadb);
        Arc::into_inner(database).unwrap().drop().await;
    }
}
