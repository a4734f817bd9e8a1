//! Tools that alter a table by a copy of it: their statements, while others write.

use crate::mirror::Mirror;
use crate::server::{Database, servers};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT NOT NULL, note VARCHAR(20))";

/// Writes to `t` until told to stop; errors while the table is away are no matter.
fn writer(database: &Database, seed: u32, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u32> {
    let (stop, database) = (Arc::clone(stop), database.clone());
    tokio::spawn(async move {
        let mut conn = database.connect().await;
        let mut n = seed;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let id = n.wrapping_mul(2_654_435_761) % 200 + 1;
            let statement = match n % 4 {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                1 => format!("REPLACE INTO t (id, v) VALUES ({id}, {n})"),
                _ => format!("UPDATE t SET v = {n} WHERE id = {id}"),
            };
            let _ = conn.query_drop(statement).await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        n - seed
    })
}

async fn swapped(tool: &[&str], options: &str) {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&[TABLE]).await;
        let rows: Vec<String> = (1..=200).map(|i| format!("({i}, {i}, 'n{i}')")).collect();
        database.run(&[&format!("INSERT INTO t VALUES {}", rows.join(","))]).await;
        let mut mirror = Mirror::open(&database, options).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = [1, 1_000_000].iter().map(|seed| writer(&database, *seed, &stop)).collect();
        for statement in tool {
            database.run(&[statement]).await;
            mirror.step().await;
        }
        for _ in 0..20 {
            mirror.step().await;
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            assert!(writer.await.unwrap() > 0);
        }
        mirror.settle(&database).await;
        mirror.equals(&database, &["t"], tool[0]).await;
        database.drop().await;
    }
}

/// With triggers that keep the copy up to date, as pt-online-schema-change does.
const TRIGGERS: &[&str] = &[
    "CREATE TABLE _t_new LIKE t",
    "ALTER TABLE _t_new ADD COLUMN extra INT NOT NULL DEFAULT 5, DROP COLUMN note",
    "CREATE TRIGGER tr_del AFTER DELETE ON t FOR EACH ROW DELETE IGNORE FROM _t_new WHERE _t_new.id <=> OLD.id",
    "CREATE TRIGGER tr_upd AFTER UPDATE ON t FOR EACH ROW REPLACE INTO _t_new (id, v) VALUES (NEW.id, NEW.v)",
    "CREATE TRIGGER tr_ins AFTER INSERT ON t FOR EACH ROW REPLACE INTO _t_new (id, v) VALUES (NEW.id, NEW.v)",
    "INSERT LOW_PRIORITY IGNORE INTO _t_new (id, v) SELECT id, v FROM t FORCE INDEX (PRIMARY) WHERE id <= 100 LOCK IN SHARE MODE",
    "INSERT LOW_PRIORITY IGNORE INTO _t_new (id, v) SELECT id, v FROM t FORCE INDEX (PRIMARY) WHERE id > 100 LOCK IN SHARE MODE",
    "ANALYZE TABLE _t_new",
    "RENAME TABLE t TO _t_old, _t_new TO t",
    "DROP TABLE IF EXISTS _t_old",
    "DROP TRIGGER IF EXISTS tr_del",
    "DROP TRIGGER IF EXISTS tr_upd",
    "DROP TRIGGER IF EXISTS tr_ins",
];

/// With a copy that a client keeps, a table of marks and a rename under a lock, as gh-ost does.
const GHOST: &[&str] = &[
    "CREATE /* gh-ost */ TABLE `_t_ghc` (id BIGINT AUTO_INCREMENT PRIMARY KEY, hint VARCHAR(64) UNIQUE, value VARCHAR(255))",
    "CREATE /* gh-ost */ TABLE `_t_gho` LIKE t",
    "ALTER /* gh-ost */ TABLE `_t_gho` MODIFY v BIGINT NOT NULL, ADD COLUMN extra VARCHAR(9) DEFAULT 'x' FIRST",
    "INSERT /* gh-ost */ IGNORE INTO `_t_gho` (id, v, note) SELECT id, v, note FROM t FORCE INDEX (PRIMARY) LOCK IN SHARE MODE",
    "INSERT INTO `_t_ghc` (hint, value) VALUES ('copy', 'done')",
    "CREATE TABLE `_t_del` (id INT AUTO_INCREMENT PRIMARY KEY) COMMENT='ghost-cut-over-sentry'",
    "DROP TABLE IF EXISTS `_t_del`",
    "RENAME /* gh-ost */ TABLE `t` TO `_t_del`, `_t_gho` TO `t`",
    "DROP /* gh-ost */ TABLE IF EXISTS `_t_ghc`",
    "DROP TABLE `_t_del`",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_altered_by_triggers_and_a_copy_ends_in_the_sources_state() {
    swapped(TRIGGERS, r#""tables":["t","marker"]"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_altered_by_a_ghost_copy_ends_in_the_sources_state() {
    swapped(GHOST, r#""tables":["t","marker"]"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_captured_too_changes_nothing() {
    swapped(TRIGGERS, "").await;
}
