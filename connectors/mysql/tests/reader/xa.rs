//! XA transactions that a capture cannot hold, or never saw.

use crate::mirror::Mirror;
use crate::server::{Database, gtid_servers, servers};
use caudal_core::Op;
use mysql_async::prelude::Queryable;
use std::time::{Duration, Instant};

/// Prepares a transaction and leaves it.
async fn prepare(database: &Database, xid: &str, statements: &[&str]) {
    let mut conn = database.connect().await;
    conn.query_drop(format!("XA START {xid}")).await.unwrap();
    for statement in statements {
        conn.query_drop(*statement).await.unwrap();
    }
    for step in ["XA END", "XA PREPARE"] {
        conn.query_drop(format!("{step} {xid}")).await.unwrap();
    }
    conn.disconnect().await.unwrap();
}

/// The server may still be taking leave of the connection that prepared it.
async fn decide(database: &Database, statement: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut conn = database.connect().await;
        match conn.query_drop(statement).await {
            Ok(()) => return,
            Err(e) => assert!(Instant::now() < deadline, "{statement}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_prepared_before_the_first_start_is_there_once_it_is_committed() {
    // Without GTIDs a chunk waits for a lock, which a prepared transaction withholds until it is decided.
    for server in gtid_servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE t (id INT PRIMARY KEY, n INT)",
                "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
            ])
            .await;
        let xid = format!("'{}-old'", database.name);
        prepare(
            &database,
            &xid,
            &[
                "INSERT INTO t VALUES (10, 10)",
                "UPDATE t SET n = 20 WHERE id = 2",
                "DELETE FROM t WHERE id = 3",
            ],
        )
        .await;
        let mut mirror = Mirror::open(&database, "").await;
        assert_eq!(mirror.rows("t").len(), 3);
        decide(&database, &format!("XA COMMIT {xid}")).await;
        mirror.settle(&database).await;
        mirror.equals(&database, &["t"], "prepared before the start").await;
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_transaction_that_is_too_large_to_hold_is_read_at_its_commit_and_never_at_its_rollback() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE t (id INT PRIMARY KEY, pad VARCHAR(2000))",
                "CREATE TABLE u (id INT PRIMARY KEY)",
            ])
            .await;
        let mut mirror = Mirror::open(&database, r#""xa_bytes":"4KiB""#).await;
        for (name, decision) in [("kept", "XA COMMIT"), ("undone", "XA ROLLBACK")] {
            let xid = format!("'{}-{name}'", database.name);
            let base = if name == "kept" { 0 } else { 100 };
            let mut statements: Vec<String> =
                (0..20).map(|i| format!("INSERT INTO t VALUES ({}, REPEAT('x', 1000))", base + i)).collect();
            statements.push(format!("INSERT INTO u VALUES ({base})"));
            let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
            prepare(&database, &xid, &statements).await;
            mirror.settle(&database).await;
            assert_eq!(mirror.rows("t").len(), if name == "kept" { 0 } else { 20 });
            // What could not be held must not be forgotten by a restart.
            mirror.stop();
            let reads = mirror.count("t", Op::Read);
            decide(&database, &format!("{decision} {xid}")).await;
            mirror.settle(&database).await;
            mirror.equals(&database, &["t", "u"], decision).await;
            if name == "undone" {
                assert_eq!(mirror.count("t", Op::Read), reads, "nothing is read for a rollback");
            }
        }
        database.drop().await;
    }
}
