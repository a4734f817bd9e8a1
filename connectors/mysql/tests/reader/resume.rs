//! Restarts: at any point, in the middle of large transactions, after a purge.

use crate::server::{Database, Stored, gtid_servers, next, servers};
use crate::state::{State, row};
use caudal_core::{Fault, Op};
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;

/// Each event as text, with its operation, in order.
pub(crate) fn events(batch: &caudal_core::Batch) -> Vec<String> {
    batch
        .events
        .iter()
        .map(|e| {
            let image = batch.after(e).or(batch.before(e)).map(|cells| row(batch, cells).join(","));
            format!("{} {} {}", batch.table(e).id.table, e.op.letter(), image.unwrap_or_default())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_dropped_anywhere_goes_on_without_gap_or_repetition() {
    const TRANSACTIONS: u32 = 16;
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE a (id INT PRIMARY KEY AUTO_INCREMENT, n INT, pad VARCHAR(3000))",
                "CREATE TABLE ignored (id INT)",
            ])
            .await;
        let options = r#""tables":["a"],"batch_bytes":"64KiB","snapshot":{"mode":"never"}"#;
        let mut stored = Stored::default();
        let mut reader = database.open(None, options).await;
        stored.apply(&next(&mut reader).await);
        let mut conn = database.connect().await;
        for n in 0..TRANSACTIONS {
            let rows = 1 + n * 7 % 90;
            conn.query_drop("BEGIN").await.unwrap();
            conn.query_drop("INSERT INTO ignored VALUES (1),(2),(3)").await.unwrap();
            let values: Vec<String> = (0..rows).map(|_| format!("({n}, REPEAT('x', 2500))")).collect();
            conn.query_drop(format!("INSERT INTO a (n, pad) VALUES {}", values.join(","))).await.unwrap();
            conn.query_drop("INSERT INTO ignored VALUES (4)").await.unwrap();
            conn.query_drop(format!("UPDATE a SET pad = 'short' WHERE n = {n}")).await.unwrap();
            conn.query_drop("COMMIT").await.unwrap();
        }
        let expected: usize = (0..TRANSACTIONS).map(|n| 2 * (1 + n * 7 % 90) as usize).sum();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        let (mut total, mut round, mut inside) = (0usize, 0u32, 0u32);
        while total < expected {
            round += 1;
            reader = database.open(stored.position.as_ref(), options).await;
            // From nothing to a few batches, and what was read after the last stored one is lost.
            for _ in 0..round % 6 {
                let batch = next(&mut reader).await;
                stored.apply(&batch);
                let token = &stored.position.as_ref().expect("a position").token;
                inside += u32::from(token.contains(r#""row":"#));
                for event in events(&batch) {
                    *seen.entry(event).or_default() += 1;
                    total += 1;
                }
            }
            let _ = next(&mut reader).await;
            drop(reader);
            assert!(
                round < 1_000,
                "no progress: {total} of {expected} after {round} rounds, {:?}",
                stored.position
            );
        }
        assert_eq!(total, expected);
        assert_eq!(seen.values().filter(|&&n| n != 1).count(), 0, "every event exactly once");
        assert!(inside > 5, "batches must end within transactions for this test to mean anything: {inside}");
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_where_it_stopped() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (a VARCHAR(10), b INT, PRIMARY KEY (a, b))"]).await;
        let mut conn = database.connect().await;
        for a in 0..30 {
            let values: Vec<String> = (0..40).map(|b| format!("('k{}', {b})", a * 7919 % 1000)).collect();
            conn.query_drop(format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        }
        let options = r#""snapshot":{"chunk_rows":60}"#;
        let (mut stored, mut reads) = (Stored::default(), 0);
        let mut state = State::default();
        while !stored.done(&["t"]) {
            let mut reader = database.open(stored.position.as_ref(), options).await;
            for _ in 0..3 {
                let batch = next(&mut reader).await;
                reads += batch.events.iter().filter(|e| e.op == Op::Read).count();
                state.apply(&batch);
                stored.apply(&batch);
            }
            // Read, but never stored.
            let _ = next(&mut reader).await;
        }
        assert_eq!((reads, state.tables["t"].len()), (1_200, 1_200));
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_move_the_place_and_the_clock_of_an_idle_source() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
        let mut reader = database.open(None, r#""snapshot":{"mode":"never"}"#).await;
        let mut times = Vec::new();
        while times.len() < 4 {
            let batch = next(&mut reader).await;
            let boundary = batch.boundary.as_ref().expect("an idle source is always between transactions");
            assert_eq!((batch.events.len(), boundary.events), (0, 0));
            if times.last() != Some(&boundary.ts_us) {
                times.push(boundary.ts_us);
            }
        }
        assert!(times.is_sorted());
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
        assert!((now - times[3]).abs() < 30_000_000, "the source's clock: {} of {now}", times[3]);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_the_server_never_had_is_refused_by_name() {
    for server in gtid_servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
        let mut reader = database.open(None, "").await;
        let mut stored = Stored::default();
        stored.apply(&next(&mut reader).await);
        drop(reader);
        let mut position = stored.position.unwrap();
        let foreign =
            if server.mariadb { "0-10-999999999" } else { "11111111-2222-3333-4444-555555555555:1-7" };
        let mut token: serde_json::Value = serde_json::from_str(&position.token).unwrap();
        token["gtid"] = foreign.into();
        position.token = token.to_string();
        let error = match database.try_open(Some(&position), "").await {
            Err(error) => error,
            Ok(mut reader) => loop {
                match reader.next().await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            },
        };
        assert_eq!(error.fault(), Fault::Config, "{error}");
        assert!(error.hint_text().is_some());
        if !server.mariadb {
            assert!(error.to_string().contains(foreign), "{error}");
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_prepared_transaction_come_when_it_is_committed_and_never_if_rolled_back() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
        let options = r#""snapshot":{"mode":"never"}"#;
        let mut reader = database.open(None, options).await;
        let mut stored = Stored::default();
        stored.apply(&next(&mut reader).await);
        let xid = |n: u32| format!("'{}-{n}'", database.name);
        for n in [1, 2] {
            let mut conn = database.connect().await;
            for sql in ["XA START", "INSERT", "XA END", "XA PREPARE"] {
                let sql = if sql == "INSERT" {
                    format!("INSERT INTO t VALUES ({n})")
                } else {
                    format!("{sql} {}", xid(n))
                };
                conn.query_drop(sql).await.unwrap();
            }
            conn.disconnect().await.unwrap();
        }
        let mut seen = Vec::new();
        database.run(&["INSERT INTO t VALUES (100)"]).await;
        while seen.is_empty() {
            let batch = next(&mut reader).await;
            seen.extend(events(&batch));
            stored.apply(&batch);
        }
        assert_eq!(seen, ["t c 100"]);
        // The prepared rows must survive a restart: they come from the log again, and nothing else does.
        drop(reader);
        let mut reader = database.open(stored.position.as_ref(), options).await;
        for (n, decision) in [(1, "XA ROLLBACK"), (2, "XA COMMIT")] {
            let statement = format!("{decision} {}", xid(n));
            // The server may still be taking leave of the connection that prepared it.
            let mut conn = database.connect().await;
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while let Err(e) = conn.query_drop(&statement).await {
                assert!(std::time::Instant::now() < deadline, "{statement}: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        database.run(&["INSERT INTO t VALUES (101)"]).await;
        while seen.len() < 3 {
            let batch = next(&mut reader).await;
            seen.extend(events(&batch));
            stored.apply(&batch);
        }
        assert_eq!(seen, ["t c 100", "t c 2", "t c 101"], "mariadb: {}", server.mariadb);
        drop(reader);
        // All is decided: nothing of it comes again.
        let mut reader = database.open(stored.position.as_ref(), options).await;
        database.run(&["INSERT INTO t VALUES (102)"]).await;
        let mut last = Vec::new();
        while last.is_empty() {
            last = events(&next(&mut reader).await);
        }
        assert_eq!(last, ["t c 102"]);
        database.drop().await;
    }
}
