//! Servers that log no names of columns (`binlog_row_metadata` is not FULL). A binary of its own: the setting is the whole server's,
//! and other tests need it as it was.

#![allow(clippy::unwrap_used, reason = "tests: an error is a failed test, whatever it says")]
#![allow(dead_code, reason = "modules shared with the reader's tests")]

#[path = "../reader/mirror.rs"]
mod mirror;
#[path = "../reader/server.rs"]
mod server;
#[path = "../reader/state.rs"]
mod state;

use caudal_core::Op;
use mirror::Mirror;
use mysql_async::prelude::Queryable;
use server::{Database, Server, servers};

/// Names are back in the log when it goes, whatever came of the test.
struct Nameless(Database);

impl Nameless {
    async fn begin(server: &Server) -> Self {
        let database = Database::create(server).await;
        let setting = if server.mariadb { "NO_LOG" } else { "MINIMAL" };
        let mut conn = database.connect().await;
        conn.query_drop(format!("SET GLOBAL binlog_row_metadata = {setting}")).await.unwrap();
        Self(database)
    }
}

impl Drop for Nameless {
    fn drop(&mut self) {
        let database = self.0.clone();
        let restore = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut conn = database.connect_to(None).await;
                conn.query_drop("SET GLOBAL binlog_row_metadata = FULL").await.unwrap();
            });
        };
        std::thread::spawn(restore).join().unwrap();
    }
}

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)";
const ROWS: &str = "INSERT INTO t VALUES (1, 11, 21), (2, 12, 22), (3, 13, 23)";

async fn shapes_are_asked_for_and_kept_over_a_stop(server: &Server) {
    let guard = Nameless::begin(server).await;
    let database = &guard.0;
    database.run(&[TABLE, ROWS]).await;
    let mut mirror = Mirror::open(database, "").await;
    database.run(&["ALTER TABLE t ADD c VARCHAR(9)", "INSERT INTO t VALUES (4, 14, 24, 'four')"]).await;
    mirror.settle(database).await;
    mirror.equals(database, &["t"], "an ALTER while streaming").await;
    assert_eq!(mirror.count("t", Op::Read), 3);
    // Columns that only change places: nothing but names tells them apart.
    mirror.stop();
    database
        .run(&[
            "INSERT INTO t VALUES (5, 15, 25, 'five')",
            "ALTER TABLE t MODIFY b INT AFTER id",
            "UPDATE t SET a = a + 1000 WHERE id IN (4, 5)",
        ])
        .await;
    mirror.settle(database).await;
    mirror.equals(database, &["t"], "columns that changed places while nobody read").await;
    // Twice: the shape between the two is nowhere to be asked for.
    mirror.stop();
    database
        .run(&[
            "ALTER TABLE t RENAME COLUMN a TO x, RENAME COLUMN b TO a",
            "UPDATE t SET a = 77 WHERE id = 1",
            "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN x TO a",
            "UPDATE t SET b = 78 WHERE id = 2",
        ])
        .await;
    mirror.settle(database).await;
    mirror.equals(database, &["t"], "two changes while nobody read").await;
    database.run(&[&format!("DROP DATABASE `{}`", database.name)]).await;
    drop(guard);
}

async fn a_table_that_cannot_be_followed_is_set_aside_alone(server: &Server) {
    let guard = Nameless::begin(server).await;
    let database = &guard.0;
    database.run(&[TABLE, ROWS, "CREATE TABLE other (id INT PRIMARY KEY)"]).await;
    let mut mirror = Mirror::open(database, "").await;
    mirror.stop();
    database
        .run(&[
            // Rows in a shape that is gone when they are read: three columns of other types.
            "ALTER TABLE t ADD wide VARCHAR(300), MODIFY a BIGINT",
            "INSERT INTO t VALUES (4, 14, 24, 'wide')",
            "INSERT INTO other VALUES (1)",
            "ALTER TABLE t DROP COLUMN wide, MODIFY a VARCHAR(20), ADD z DECIMAL(5,2)",
            "INSERT INTO other VALUES (2)",
        ])
        .await;
    let mut aside = false;
    while mirror.rows("other").len() < 2 {
        mirror.step().await;
        aside |= mirror.pending().iter().any(|note| note.starts_with("quarantine/"));
    }
    // Without anybody's doing it is read again, and followed.
    mirror.settle(database).await;
    mirror.equals(database, &["t", "other"], "set aside").await;
    assert!(aside, "the table was never set aside: this test tests nothing");
    database.run(&["INSERT INTO t VALUES (9, '19', 29, 1.5)"]).await;
    mirror.settle(database).await;
    mirror.equals(database, &["t", "other"], "followed again").await;
    database.run(&[&format!("DROP DATABASE `{}`", database.name)]).await;
    drop(guard);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_names_in_the_log_tables_end_in_the_sources_state() {
    for server in servers() {
        shapes_are_asked_for_and_kept_over_a_stop(&server).await;
        a_table_that_cannot_be_followed_is_set_aside_alone(&server).await;
    }
}
