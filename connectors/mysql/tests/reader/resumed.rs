//! Re-reads that a restart cuts off: they go on with the chunks that are left, and end as if nothing had happened.

use crate::capture::{Capture, unlogged};
use crate::server::{Database, servers};
use crate::snapshot::{filled, selected, writers};
use caudal_core::Action;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One reader, so that chunks come in the order of the key.
const ONE: &str = r#""tables":["t","marker"],"snapshot":{"chunk_rows":50,"readers":1}"#;

impl Capture {
    /// Up to which key the re-read of a table is stored as read.
    fn reached(&self) -> i64 {
        let notes = self.stored.position.iter().flat_map(|p| &p.notes);
        let reread =
            notes.filter(|(name, _)| name.starts_with("reread/")).filter_map(|(_, text)| text.as_deref());
        // With one reader all that is left is one range, or the front.
        let from = reread
            .filter_map(|text| text.split(r#""from":[{"int":"#).nth(1)?.split('}').next()?.parse().ok());
        from.max().unwrap_or(0)
    }

    async fn until_reached(&mut self, key: i64) {
        while self.pending() == 0 {
            self.step().await;
        }
        while self.reached() < key {
            assert!(self.pending() > 0, "it was over before it was cut off");
            self.step().await;
        }
    }

    async fn until_paused(&mut self) {
        while !self.stored.position.iter().any(|p| p.notes.contains_key("paused")) {
            self.step().await;
        }
    }

    fn text(&self, id: i64) -> String {
        self.state.tables["t"].get(&vec![id.to_string()]).map_or("gone".to_owned(), |row| row[2].clone())
    }
}

/// A table of 3,000 rows of which a re-read has ended with about a third.
async fn cut_off(database: &Database) -> Capture {
    filled(database, 3_000).await;
    database.run(&["CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
    let mut capture = Capture::open(database, ONE).await;
    capture.snapshot(&["t", "marker"]).await;
    unlogged(
        database,
        &[
            "DELETE FROM t WHERE id < 10 OR id BETWEEN 2000 AND 2009",
            "UPDATE t SET s = 'x' WHERE id BETWEEN 20 AND 29 OR id BETWEEN 2020 AND 2029",
        ],
    )
    .await;
    capture.reread("one", "t", None);
    capture.until_reached(1_000).await;
    assert!(capture.reached() < 1_900, "cut off too late: {}", capture.reached());
    assert_eq!(capture.count("t", 'r'), 10);
    capture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_goes_on_with_the_chunks_that_are_left_and_reads_none_twice() {
    for server in servers() {
        let database = Database::create(&server).await;
        let mut capture = cut_off(&database).await;
        // The stream is to be ahead of the chunks that are left: what they find already told is told by the stream alone.
        capture.signal("p", Action::Pause);
        capture.until_paused().await;
        // What a chunk that is done would bring if it were read again, and what one that is left must bring.
        unlogged(&database, &["UPDATE t SET s = 'late' WHERE id IN (500, 2500)"]).await;
        let changes = [
            "DELETE FROM t WHERE id IN (600, 2600)",
            "UPDATE t SET s = 'logged' WHERE id IN (601, 2601)",
            "INSERT INTO t VALUES (-5, 1, 'logged'), (5, 1, 'logged')",
        ];
        database.run(&changes).await;
        capture.reopen(&database, ONE).await;
        capture.catch_up(&database).await;
        capture.signal("go", Action::Resume);
        let ended = capture.until("one").await;
        assert_eq!((capture.text(500), capture.text(2500)), ("t:old".into(), "t:late".into()));
        assert_eq!(capture.count("t", 'r'), 10 + 10 + 1, "mariadb: {}", server.mariadb);
        // Row 5 came back before it was told gone.
        assert_eq!(capture.count("t", 'd'), 9 + 10 + 2, "each delete once (mariadb: {})", server.mariadb);
        assert!(ended[0].rows <= 3_001, "each row is read once: {ended:?}");
        assert_eq!(ended[0].deleted, 19, "{ended:?}");
        // What was behind the re-read's back is not its matter; all else is as it is at the source.
        database.run(&["UPDATE t SET n = n + 1 WHERE id = 500"]).await;
        capture.catch_up(&database).await;
        assert!(capture.state.tables["t"] == selected(&database).await.tables["t"]);
        let left = std::fs::read_dir(capture.kept.path().join("rereads/test")).unwrap().count();
        assert_eq!(left, 0, "nothing is kept of a re-read that is over");
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_of_which_nothing_is_known_any_more_begins_anew() {
    for server in servers() {
        let database = Database::create(&server).await;
        let mut capture = cut_off(&database).await;
        unlogged(&database, &["UPDATE t SET s = 'late' WHERE id IN (500, 2500)"]).await;
        std::fs::remove_dir_all(capture.kept.path().join("rereads")).unwrap();
        capture.reopen(&database, ONE).await;
        capture.until("one").await;
        assert!(capture.state.tables["t"] == selected(&database).await.tables["t"]);
        assert_eq!(capture.count("t", 'd'), 20, "mariadb: {}", server.mariadb);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_that_is_asked_for_again_does_not_go_on_from_where_it_stood() {
    for server in servers() {
        for restart_first in [true, false] {
            let database = Database::create(&server).await;
            let mut capture = cut_off(&database).await;
            if restart_first {
                // What goes on after the restart waits when the same is asked for.
                capture.signal("p", Action::Pause);
                capture.until_paused().await;
                capture.reopen(&database, ONE).await;
            }
            unlogged(&database, &["UPDATE t SET s = 'late' WHERE id IN (500, 2500)"]).await;
            capture.reread("two", "t", None);
            let taken = format!("{}", capture.numbers);
            let is_taken = |c: &Capture| {
                c.stored
                    .position
                    .iter()
                    .any(|p| p.notes.get("signal").is_some_and(|n| n.as_deref() == Some(&taken)))
            };
            while !is_taken(&capture) {
                capture.step().await;
            }
            assert_eq!(capture.pending(), 1);
            if restart_first {
                capture.signal("go", Action::Resume);
            } else {
                // Chunks that come after it must not say how far the first one is.
                let read =
                    |c: &Capture| c.source.progress().iter().filter(|p| p.id == "one").map(|p| p.rows).max();
                let before = read(&capture).unwrap_or(0);
                while read(&capture).unwrap_or(0) < before + 200 {
                    capture.step().await;
                }
                assert_eq!(capture.reached(), 0, "a restart would leave out what was read before");
                capture.reopen(&database, ONE).await;
            }
            while capture.pending() > 0 {
                capture.step().await;
            }
            let case = format!("mariadb: {}, restart first: {restart_first}", server.mariadb);
            assert_eq!(capture.text(500), "t:late", "{case}");
            assert!(capture.state.tables["t"] == selected(&database).await.tables["t"], "{case}");
            drop(capture);
            database.drop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_that_a_re_read_finds_are_told_once_over_restarts() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 2_500).await;
        let options = r#""tables":["t"],"snapshot":{"chunk_rows":200,"readers":2}"#;
        let mut capture = Capture::open(&database, options).await;
        capture.snapshot(&["t"]).await;
        unlogged(&database, &["DELETE FROM t WHERE id >= 500"]).await;
        capture.reread("one", "t", None);
        while capture.count("t", 'd') == 0 {
            capture.step().await;
        }
        assert!(capture.count("t", 'd') < 2_000, "cut off too late");
        unlogged(&database, &["UPDATE t SET s = 'late' WHERE id = 100"]).await;
        capture.reopen(&database, options).await;
        capture.until("one").await;
        assert_eq!((capture.count("t", 'd'), capture.state.tables["t"].len()), (2_000, 500));
        assert_eq!(capture.text(100), "t:old", "its chunk was read before (mariadb: {})", server.mariadb);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_cut_off_again_and_again_under_writers_ends_in_the_sources_state() {
    for server in servers() {
        let database = Arc::new(Database::create(&server).await);
        filled(&database, 2_000).await;
        database.run(&["CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
        let options = r#""tables":["t","marker"],"snapshot":{"chunk_rows":50,"readers":3}"#;
        let mut capture = Capture::open(&database, options).await;
        capture.snapshot(&["t", "marker"]).await;
        unlogged(
            &database,
            &["DELETE FROM t WHERE id % 7 = 0", "UPDATE t SET s = 'unlogged' WHERE id % 7 = 3"],
        )
        .await;
        let stop = Arc::new(AtomicBool::new(false));
        let writing = writers(&database, 4, 2_000, &stop);
        capture.reread("one", "t", None);
        while capture.pending() == 0 {
            capture.step().await;
        }
        let mut restarts = 0;
        while capture.pending() > 0 {
            for _ in 0..25 {
                capture.step().await;
            }
            if capture.pending() > 0 && restarts < 6 {
                capture.reopen(&database, options).await;
                restarts += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writing {
            writer.await.unwrap();
        }
        capture.catch_up(&database).await;
        let (got, want) = (&capture.state.tables["t"], &selected(&database).await.tables["t"]);
        let wrong: Vec<_> = want.iter().filter(|(k, v)| got.get(*k) != Some(*v)).take(5).collect();
        let more: Vec<_> = got.keys().filter(|k| !want.contains_key(*k)).take(5).collect();
        assert!(wrong.is_empty() && more.is_empty(), "mariadb: {}: {wrong:?} {more:?}", server.mariadb);
        assert!(restarts > 0);
        drop(capture);
        Arc::into_inner(database).unwrap().drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_cascades_read_the_childrens_topic_once_and_not_each() {
    for server in servers() {
        let database = Database::create(&server).await;
        let parents: Vec<String> = (0..300).map(|i| format!("({i})")).collect();
        let children: Vec<String> = (0..900).map(|i| format!("({i},{})", i / 3)).collect();
        database
            .run(&[
                "CREATE TABLE p (id INT PRIMARY KEY)",
                "CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
                "CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT)",
                &format!("INSERT INTO p VALUES {}", parents.join(",")),
                &format!("INSERT INTO c VALUES {}", children.join(",")),
            ])
            .await;
        let mut capture = Capture::open(&database, "").await;
        capture.snapshot(&["p", "c", "marker"]).await;
        capture.signal("p", Action::Pause);
        capture.until_paused().await;
        let mut conn = database.connect().await;
        for parent in 0..200 {
            conn.query_drop(format!("DELETE FROM p WHERE id = {parent}")).await.unwrap();
        }
        capture.catch_up(&database).await;
        let (asked, before) = (capture.pending(), capture.topic.1.load(Ordering::Relaxed));
        assert!(asked == 0 || asked == 200, "by the server's family: {asked}");
        capture.signal("go", Action::Resume);
        capture.catch_up(&database).await;
        while capture.pending() > 0 {
            capture.step().await;
        }
        let read = capture.topic.1.load(Ordering::Relaxed) - before;
        let case = format!("mariadb: {}, {:?}", server.mariadb, server.kind);
        assert_eq!(read, usize::from(asked > 0), "{case}");
        assert_eq!((capture.count("c", 'd'), capture.state.tables["c"].len()), (600, 300), "{case}");
        drop(capture);
        database.drop().await;
    }
}
