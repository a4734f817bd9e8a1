//! Reading again: reconciled with what the log holds, while changes stream.

use crate::capture::{Capture, unlogged};
use crate::server::{Database, servers};
use crate::snapshot::{filled, selected, writers};
use caudal_core::{Action, Phase};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_delivers_what_the_log_does_not_show_and_nothing_else() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 3_000).await;
        let mut capture = Capture::open(&database, r#""tables":["t"],"snapshot":{"chunk_rows":100}"#).await;
        capture.snapshot(&["t"]).await;
        unlogged(
            &database,
            &[
                "DELETE FROM t WHERE id < 10 OR id BETWEEN 1000 AND 1099",
                "UPDATE t SET s = 'x' WHERE id BETWEEN 20 AND 29",
                "INSERT INTO t SELECT id + 10000, n, s FROM t WHERE id BETWEEN 40 AND 46",
            ],
        )
        .await;
        capture.reread("one", "t", None);
        let ended = capture.until("one").await;
        assert_eq!((ended.len(), ended[0].phase, ended[0].deleted), (1, Phase::Done, 110));
        assert_eq!((capture.count("t", 'r'), capture.count("t", 'd')), (17, 110));
        assert!(capture.state == selected(&database).await, "mariadb: {}", server.mariadb);
        // Once more: nothing is left to tell.
        capture.ops.clear();
        capture.reread("two", "t", None);
        capture.until("two").await;
        assert!(capture.ops.is_empty(), "{:?}", capture.ops);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_under_concurrent_writers_ends_in_the_sources_state() {
    for server in servers() {
        let database = Arc::new(Database::create(&server).await);
        filled(&database, 2_000).await;
        database.run(&["CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
        let mut capture = Capture::open(&database, r#""snapshot":{"chunk_rows":50,"readers":3}"#).await;
        capture.snapshot(&["t", "marker"]).await;
        for round in 0..3 {
            unlogged(
                &database,
                &[
                    &format!("DELETE FROM t WHERE id % 7 = {round}"),
                    &format!("UPDATE t SET s = 'unlogged' WHERE id % 7 = {}", round + 3),
                ],
            )
            .await;
            let stop = Arc::new(AtomicBool::new(false));
            let writing = writers(&database, 4, 2_000, &stop);
            let id = format!("round {round}");
            capture.reread(&id, "t", None);
            let ended = capture.until(&id).await;
            stop.store(true, Ordering::Relaxed);
            for writer in writing {
                writer.await.unwrap();
            }
            assert!(ended[0].deleted > 0);
            capture.catch_up(&database).await;
            let expected = selected(&database).await;
            let (got, want) = (&capture.state.tables["t"], &expected.tables["t"]);
            let wrong: Vec<_> = want.iter().filter(|(k, v)| got.get(*k) != Some(*v)).take(5).collect();
            let more: Vec<_> = got.keys().filter(|k| !want.contains_key(*k)).take(5).collect();
            assert!(
                wrong.is_empty() && more.is_empty(),
                "mariadb: {}, {id}: {wrong:?} {more:?}",
                server.mariadb
            );
        }
        drop(capture);
        Arc::into_inner(database).unwrap().drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_on_a_parent_reads_its_children_too() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE p (id INT PRIMARY KEY, kind VARCHAR(9))",
                "CREATE TABLE c (id INT PRIMARY KEY, p INT, s VARCHAR(9), FOREIGN KEY (p) REFERENCES p (id))",
                "CREATE TABLE g (id INT PRIMARY KEY, c INT, s VARCHAR(9), FOREIGN KEY (c) REFERENCES c (id))",
                "INSERT INTO p VALUES (1,'a'),(2,'b'),(3,'a')",
                "INSERT INTO c VALUES (10,1,''),(11,1,''),(20,2,''),(30,3,'')",
                "INSERT INTO g VALUES (100,10,''),(200,20,'')",
            ])
            .await;
        let mut capture = Capture::open(&database, "").await;
        capture.snapshot(&["p", "c", "g"]).await;
        unlogged(&database, &["UPDATE c SET s = 'x'", "UPDATE g SET s = 'x'", "DELETE FROM c WHERE id = 11"])
            .await;
        capture.reread("w", "p", Some("kind = 'a' -- those"));
        let ended = capture.until("w").await;
        assert_eq!(ended.len(), 3, "{ended:?}");
        // Of the children of `b` nothing was read; the row that is gone is gone whatever it was.
        assert_eq!((capture.count("p", 'r'), capture.count("c", 'r'), capture.count("g", 'r')), (0, 2, 1));
        assert_eq!(capture.count("c", 'd'), 1);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_pauses_goes_on_and_is_given_up() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 1_000).await;
        let options = r#""tables":["t"],"snapshot":{"chunk_rows":50}"#;
        let mut capture = Capture::open(&database, options).await;
        capture.snapshot(&["t"]).await;
        unlogged(&database, &["UPDATE t SET s = 'x'"]).await;
        capture.signal("p", Action::Pause);
        capture.reread("r", "t", None);
        capture.reread("none", "nowhere", None);
        while capture.pending() == 0 || capture.ended("none").is_empty() {
            capture.step().await;
        }
        assert_eq!(capture.ended("none")[0].phase, Phase::Refused);
        for _ in 0..5 {
            capture.step().await;
        }
        assert_eq!(capture.count("t", 'r'), 0, "paused");
        // Paused over a restart, and the command is not lost; given again, it is not taken twice.
        capture.reopen(&database, options).await;
        for _ in 0..5 {
            capture.step().await;
        }
        assert_eq!((capture.count("t", 'r'), capture.pending()), (0, 1));
        capture.signal("go", Action::Resume);
        capture.until("r").await;
        assert_eq!(capture.count("t", 'r'), 1_000);
        capture.signal("p", Action::Pause);
        capture.reread("s", "t", None);
        capture.signal("stop", Action::Stop { tables: Vec::new() });
        assert_eq!(capture.until("s").await[0].phase, Phase::Stopped);
        assert_eq!(capture.pending(), 0);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_table_is_read_by_several_readers_and_goes_on_where_each_of_them_was() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id VARCHAR(20) COLLATE utf8mb4_general_ci, n INT, s VARCHAR(40), PRIMARY KEY (id, n))"]).await;
        let mut conn = database.connect().await;
        for start in (0..20_000).step_by(1_000) {
            let values: Vec<String> =
                (start..start + 1_000).map(|i| format!("('k{}',{i},'old')", i * 7_919 % 10_007)).collect();
            conn.query_drop(format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        }
        database.run(&["ANALYZE TABLE t"]).await;
        let options = r#""snapshot":{"chunk_rows":100,"readers":4}"#;
        let mut capture = Capture::open(&database, options).await;
        let (mut steps, mut ranges) = (0, 0);
        while !capture.stored.done(&["t"]) {
            capture.step().await;
            steps += 1;
            let notes = capture.stored.position.iter().flat_map(|p| &p.notes);
            let tables = notes.filter(|(name, _)| name.starts_with("table/"));
            ranges = tables
                .filter_map(|(_, t)| Some(t.as_ref()?.matches("\"to\"").count()))
                .max()
                .unwrap_or(0)
                .max(ranges);
            if steps % 30 == 29 {
                capture.reopen(&database, options).await;
            }
        }
        assert!(ranges > 1, "one range at a time");
        assert_eq!(
            capture.count("t", 'r'),
            20_000,
            "each row once, over restarts (mariadb: {})",
            server.mariadb
        );
        assert_eq!(capture.state.tables["t"].len(), 20_000);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_that_is_asked_for_again_while_it_goes_on_stays_stored() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 5_000).await;
        let options = r#""tables":["t"],"snapshot":{"chunk_rows":50,"readers":1}"#;
        let mut capture = Capture::open(&database, options).await;
        capture.snapshot(&["t"]).await;
        capture.reread("one", "t", None);
        let read = |capture: &Capture| capture.source.progress().iter().any(|p| p.id == "one" && p.rows > 0);
        while !read(&capture) {
            capture.step().await;
        }
        capture.reread("two", "t", None);
        let known = |capture: &Capture| capture.source.progress().iter().any(|p| p.id == "two");
        while !known(&capture) || capture.pending() == 0 {
            capture.step().await;
        }
        // The first one's end must not take the second one's note away.
        while capture.ended("two").is_empty() {
            assert!(capture.pending() == 1, "a death now would lose the second one");
            capture.step().await;
        }
        capture.until("two").await;
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_left_out_for_a_while_is_read_again_when_it_is_back() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 500).await;
        database.run(&["CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
        let (both, one) = (r#""tables":["t","marker"]"#, r#""tables":["marker"]"#);
        let mut capture = Capture::open(&database, both).await;
        capture.snapshot(&["t", "marker"]).await;
        capture.reopen(&database, one).await;
        database
            .run(&[
                "DELETE FROM t WHERE id < 10",
                "UPDATE t SET s = 'x' WHERE id BETWEEN 20 AND 29",
                "INSERT INTO t SELECT id + 10000, n, s FROM t WHERE id BETWEEN 40 AND 46",
            ])
            .await;
        capture.catch_up(&database).await;
        // A start without the table in between changes nothing.
        capture.reopen(&database, one).await;
        capture.catch_up(&database).await;
        capture.ops.clear();
        capture.reopen(&database, both).await;
        capture.catch_up(&database).await;
        while capture.pending() > 0 {
            capture.step().await;
        }
        assert_eq!((capture.count("t", 'r'), capture.count("t", 'd')), (17, 10));
        assert!(
            capture.state.tables["t"] == selected(&database).await.tables["t"],
            "mariadb: {}",
            server.mariadb
        );
        // And once only.
        capture.ops.clear();
        capture.reopen(&database, both).await;
        capture.catch_up(&database).await;
        assert_eq!(capture.pending(), 0);
        assert_eq!((capture.count("t", 'r'), capture.count("t", 'd')), (0, 0));
        drop(capture);
        database.drop().await;
    }
}
