//! Reading what exists while changes stream.

use crate::server::{Database, Stored, next, servers};
use crate::state::State;
use caudal_core::{Op, SnapshotMark};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Writes at random, with several connections, until told to stop.
pub(crate) fn writers(
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

pub(crate) async fn filled(database: &Database, rows: u32) {
    database.run(&["CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL, s VARCHAR(40))"]).await;
    let mut conn = database.connect().await;
    for start in (0..rows).step_by(1000) {
        let values: Vec<String> =
            (start..(start + 1000).min(rows)).map(|i| format!("({i},0,'old')")).collect();
        conn.query_drop(format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
    }
}

/// The rows of `t`, as the model renders them.
pub(crate) async fn selected(database: &Database) -> State {
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

/// A commit is in the log, and at a dump client, for a while before a SELECT sees it; waiting for the disk makes that longer.
async fn slow_commits(database: &Database, on: bool) {
    let (sync, flush) = if on { (1, 1) } else { (0, 2) };
    database
        .run(&[
            &format!("SET GLOBAL sync_binlog = {sync}"),
            &format!("SET GLOBAL innodb_flush_log_at_trx_commit = {flush}"),
        ])
        .await;
}

/// One snapshot of a table that eight connections change, and what is wrong at its end.
async fn wrong_rows_after_a_snapshot(database: &Arc<Database>, rows: u32, chunk: u32) -> usize {
    database.run(&["DROP TABLE IF EXISTS t, marker"]).await;
    filled(database, rows).await;
    database.run(&["CREATE TABLE marker (id INT PRIMARY KEY)"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = writers(database, 8, rows, &stop);
    let mut reader = database.open(None, &format!(r#""snapshot":{{"chunk_rows":{chunk}}}"#)).await;
    let (mut state, mut stored) = (State::default(), Stored::default());
    while !stored.done(&["t", "marker"]) {
        let batch = next(&mut reader).await;
        state.apply(&batch);
        stored.apply(&batch);
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writing {
        writer.await.unwrap();
    }
    database.run(&["INSERT INTO marker VALUES (1)"]).await;
    while state.tables.get("marker").is_none_or(|m| m.is_empty()) {
        state.apply(&next(&mut reader).await);
    }
    let expected = selected(database).await;
    let (got, want) = (&state.tables["t"], &expected.tables["t"]);
    want.iter().filter(|(k, v)| got.get(*k) != Some(*v)).count()
        + got.keys().filter(|k| !want.contains_key(*k)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_under_concurrent_writers_ends_in_the_sources_state() {
    for server in servers() {
        let database = Arc::new(Database::create(&server).await);
        slow_commits(&database, true).await;
        // Small and hot: most rows change while their chunk is read. Large: many windows.
        for (rows, chunk) in [(60, 50), (6_000, 100), (60, 50), (400, 50), (60, 50)] {
            let wrong = wrong_rows_after_a_snapshot(&database, rows, chunk).await;
            assert_eq!(wrong, 0, "wrong rows of {rows} (mariadb: {})", server.mariadb);
        }
        slow_commits(&database, false).await;
        Arc::into_inner(database).unwrap().drop().await;
    }
}

/// Key columns and literals for them, in no order.
const KEYS: &[(&str, &str, &[&str])] = &[
    ("a INT, b INT", "a, b", &["1,2", "1,1", "-5,9", "1,-7", "2,0", "0,0"]),
    (
        "a VARCHAR(9) CHARACTER SET latin1 COLLATE latin1_swedish_ci",
        "a",
        &["'a'", "'B'", "'c'", "'Z'", "'ä'", "''", "'zz'"],
    ),
    (
        "a VARCHAR(9) COLLATE utf8mb4_general_ci, b VARCHAR(9)",
        "a, b",
        &["'ñ','x'", "'n','w'", "'O','z'", "'ñ','y'", "'日','x'"],
    ),
    ("a ENUM('z','m','a'), b INT", "a, b", &["'a',1", "'z',2", "'m',3", "'z',1", "'a',0"]),
    ("a SET('z','m','a')", "a", &["'a'", "'z'", "'z,m'", "''", "'m,a'"]),
    ("a BINARY(4)", "a", &["0x00", "0xFF", "0x00FF", "0x41420000", "0x4143"]),
    ("a VARBINARY(9)", "a", &["0x00", "0x0000", "''", "0xFF", "0x41"]),
    ("a BIGINT UNSIGNED", "a", &["18446744073709551615", "9223372036854775808", "0", "7"]),
    (
        "a DECIMAL(30,10)",
        "a",
        &["12345678901234567890.0000000001", "12345678901234567890.0000000002", "-1", "0", "0.1"],
    ),
    ("a FLOAT", "a", &["0.1", "16777216", "16777218", "-1.5", "3.4e38"]),
    ("a DOUBLE", "a", &["0.1", "0.2", "-1e300", "1e300"]),
    (
        "a DATE, b TIME(3)",
        "a, b",
        &[
            "'0000-00-00','-1:00:00'",
            "'2024-01-01','-00:00:00.001'",
            "'2024-01-01','00:00'",
            "'2024-00-00','1:00'",
        ],
    ),
    (
        "a DATETIME(6)",
        "a",
        &["'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00.000002'", "'1000-01-01'", "'0000-00-00'"],
    ),
    ("a TIMESTAMP(3)", "a", &["'2024-10-27 00:30:00'", "'2024-10-27 01:30:00'", "'2024-03-31 02:30:00'"]),
    ("a BIT(9)", "a", &["b'1'", "b'100000000'", "b'0'", "b'11111111'"]),
    ("a YEAR", "a", &["1901", "2155", "0", "2000"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_any_key_are_together_the_table() {
    for server in servers() {
        let database = Database::create(&server).await;
        let mut keys = KEYS.to_vec();
        if server.mariadb {
            keys.push((
                "a UUID",
                "a",
                &[
                    "'123e4567-e89b-12d3-a456-426655440000'",
                    "'ffffffff-0000-1000-8000-00805f9b34fb'",
                    "'00000000-0000-0000-0000-000000000001'",
                ],
            ));
            keys.push(("a INET6", "a", &["'::1'", "'ff::'", "'::ffff:1.2.3.4'"]));
        }
        let mut conn = database.connect().await;
        for (i, (columns, key, values)) in keys.iter().enumerate() {
            database.run(&[&format!("CREATE TABLE k{i:02} ({columns}, PRIMARY KEY ({key}))")]).await;
            for value in *values {
                conn.query_drop(format!("INSERT INTO k{i:02} VALUES ({value})")).await.unwrap();
            }
        }
        let names: Vec<String> = (0..keys.len()).map(|i| format!("k{i:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut reader = database.open(None, r#""snapshot":{"chunk_rows":2}"#).await;
        let (mut stored, mut reads) =
            (Stored::default(), std::collections::BTreeMap::<String, Vec<String>>::new());
        let mut batches = 0;
        while !stored.done(&names) {
            let batch = next(&mut reader).await;
            batches += usize::from(!batch.events.is_empty());
            stored.apply(&batch);
            for event in &batch.events {
                let row = crate::state::row(&batch, batch.after(event).unwrap()).join(",");
                reads.entry(batch.table(event).id.table.clone()).or_default().push(row);
            }
            // Each boundary goes through its stored form.
            if !batch.events.is_empty() && batches % 7 == 3 {
                reader = database.open(stored.position.as_ref(), r#""snapshot":{"chunk_rows":2}"#).await;
            }
        }
        for (i, (columns, _, values)) in keys.iter().enumerate() {
            let mut rows = reads.remove(names[i]).unwrap_or_default();
            let read = rows.len();
            rows.sort();
            rows.dedup();
            assert_eq!(
                (read, rows.len()),
                (values.len(), values.len()),
                "{columns} (mariadb: {})",
                server.mariadb
            );
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_key_is_read_exactly_while_it_changes() {
    for server in servers() {
        let database = Arc::new(Database::create(&server).await);
        database
            .run(&["CREATE TABLE nokey (n INT, s VARCHAR(9))", "CREATE TABLE t (id INT PRIMARY KEY)"])
            .await;
        let values: Vec<String> = (0..4000).map(|i| format!("({}, 'x')", i % 700)).collect();
        database.run(&[&format!("INSERT INTO nokey VALUES {}", values.join(","))]).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writing: Vec<_> = (0..4)
            .map(|w| {
                let (database, stop) = (Arc::clone(&database), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut conn = database.connect().await;
                    for i in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                        let statement = match i % 3 {
                            0 => format!("INSERT INTO nokey VALUES ({i}, 'w{w}')"),
                            1 => format!("DELETE FROM nokey WHERE n = {} LIMIT 1", i % 700),
                            _ => format!("UPDATE nokey SET s = 'u{w}' WHERE n = {} LIMIT 1", i % 700),
                        };
                        let _ = conn.query_drop(statement).await;
                    }
                })
            })
            .collect();
        // The spool is made to go to its file, and the piece into several batches.
        let options = r#""batch_bytes":"64KiB","snapshot":{"chunk_bytes":"64KiB"}"#;
        let (mut state, mut stored) = (State::default(), Stored::default());
        let mut reader = database.open(None, options).await;
        let mut batches = 0;
        while !stored.done(&["nokey", "t"]) {
            let batch = next(&mut reader).await;
            state.apply(&batch);
            stored.apply(&batch);
            batches += usize::from(!batch.events.is_empty());
            if batches == 2 {
                // In the middle of the piece: it begins anew, after a truncate.
                batches += 1;
                reader = database.open(stored.position.as_ref(), options).await;
            }
        }
        reader = database.open(stored.position.as_ref(), options).await;
        stop.store(true, Ordering::Relaxed);
        for writer in writing {
            writer.await.unwrap();
        }
        database.run(&["INSERT INTO t VALUES (1)"]).await;
        while !state.tables.contains_key("t") {
            state.apply(&next(&mut reader).await);
        }
        let mut conn = database.connect().await;
        let rows: Vec<(i64, String, i64)> =
            conn.query("SELECT n, s, COUNT(*) FROM nokey GROUP BY n, s").await.unwrap();
        let want: std::collections::BTreeMap<Vec<String>, i64> =
            rows.into_iter().map(|(n, s, count)| (vec![n.to_string(), format!("t:{s}")], count)).collect();
        assert!(state.counted["nokey"] == want, "mariadb: {}: the multisets differ", server.mariadb);
        Arc::into_inner(database).unwrap().drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_written_without_a_pause_are_read_all_the_same() {
    for server in servers() {
        let database = Arc::new(Database::create(&server).await);
        let tables = ["keyed", "nokey"];
        database
            .run(&["CREATE TABLE keyed (n INT PRIMARY KEY, s INT)", "CREATE TABLE nokey (n INT, s INT)"])
            .await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writing = Vec::new();
        for (table, writer) in tables.into_iter().flat_map(|table| (0..3).map(move |writer| (table, writer)))
        {
            database.run(&[&format!("INSERT INTO {table} VALUES ({writer}, 0)")]).await;
            let (database, stop) = (Arc::clone(&database), Arc::clone(&stop));
            writing.push(tokio::spawn(async move {
                let mut conn = database.connect().await;
                // Of three sessions out of step one always holds the table; MySQL lets them all go before a read lock. Rows are locked for no longer
                // than they take.
                let pause = 0.1 + 0.037 * f64::from(writer);
                let slept = format!("(SELECT SLEEP({pause}) AS z) AS d WHERE z = 1");
                let hold = format!("INSERT INTO {table} SELECT 9, 9 FROM {slept}");
                let write = format!("UPDATE {table} SET s = s + 1 WHERE n = {writer}");
                while !stop.load(Ordering::Relaxed) {
                    for statement in [&hold, &write] {
                        let _ = conn.query_drop(statement).await;
                    }
                }
            }));
        }
        let (mut state, mut stored) = (State::default(), Stored::default());
        let mut reader = database.open(None, "").await;
        let read = tokio::time::timeout(std::time::Duration::from_secs(50), async {
            while !stored.done(&tables) {
                let batch = next(&mut reader).await;
                state.apply(&batch);
                stored.apply(&batch);
            }
        });
        assert!(
            read.await.is_ok(),
            "mariadb: {}, {:?}: the tables were never read",
            server.mariadb,
            server.kind
        );
        stop.store(true, Ordering::Relaxed);
        for writer in writing {
            writer.await.unwrap();
        }
        database.run(&["INSERT INTO keyed VALUES (100, 0)"]).await;
        while !state.tables["keyed"].contains_key(&vec!["100".to_owned()]) {
            state.apply(&next(&mut reader).await);
        }
        let mut conn = database.connect().await;
        for table in tables {
            let rows: Vec<(i64, i64)> =
                conn.query(format!("SELECT n, s FROM {table} ORDER BY n")).await.unwrap();
            let want: Vec<Vec<String>> =
                rows.into_iter().map(|(n, s)| vec![n.to_string(), s.to_string()]).collect();
            let got: Vec<&Vec<String>> = match table {
                "keyed" => state.tables[table].values().collect(),
                _ => state.counted[table].keys().collect(),
            };
            let mut got: Vec<Vec<String>> = got.into_iter().cloned().collect();
            got.sort_by_key(|row| row[0].parse::<i64>().unwrap());
            assert_eq!(got, want, "mariadb: {}, {:?}: {table}", server.mariadb, server.kind);
        }
        Arc::into_inner(database).unwrap().drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_key_is_read_when_the_transaction_that_holds_it_has_ended() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE nokey (n INT)", "INSERT INTO nokey VALUES (1), (2)"]).await;
        let mut conn = database.connect().await;
        conn.query_drop("BEGIN").await.unwrap();
        conn.query_drop("INSERT INTO nokey VALUES (3)").await.unwrap();
        let holding = tokio::spawn(async move {
            // Longer than a lock is waited for.
            tokio::time::sleep(std::time::Duration::from_secs(4)).await;
            conn.query_drop("COMMIT").await.unwrap();
        });
        let (mut state, mut stored) = (State::default(), Stored::default());
        let mut reader = database.open(None, "").await;
        while !stored.done(&["nokey"]) || state.counted["nokey"].values().sum::<i64>() < 3 {
            let batch = next(&mut reader).await;
            state.apply(&batch);
            stored.apply(&batch);
        }
        holding.await.unwrap();
        assert_eq!(state.counted["nokey"].len(), 3, "mariadb: {}", server.mariadb);
        database.drop().await;
    }
}

#[tokio::test]
async fn the_last_chunk_comes_at_once_and_not_with_the_next_heartbeat() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 2_000).await;
        let options = r#""heartbeat":"30s","tables":["t"]"#;
        let mut reader = database.open(None, options).await;
        let rows = async {
            let mut rows = 0;
            while rows < 2_000 {
                rows += next(&mut reader).await.events.len();
            }
        };
        let all = tokio::time::timeout(std::time::Duration::from_secs(10), rows).await;
        assert!(all.is_ok(), "the rows were read, and waited for the clock");
        database.drop().await;
    }
}
