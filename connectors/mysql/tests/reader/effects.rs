//! Statements that change rows without telling them: afterwards the log holds what the server selects.

use crate::mirror::Mirror;
use crate::server::{Database, Kind, servers};
use caudal_core::Op;
use mysql_async::prelude::Queryable;

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, n INT NOT NULL UNIQUE, a VARCHAR(20), d DECIMAL(10,2)) CHARACTER SET utf8mb4";
const ROWS: &str = "INSERT INTO t VALUES (1, 11, '5', 1.25), (2, 12, '6', NULL), (3, 13, NULL, 3.33)";

/// Runs statements on a table of its own; afterwards all must be equal. Gives how many rows were read for it.
async fn effect(database: &Database, statements: &[&str]) -> u32 {
    database.run(&[TABLE, ROWS]).await;
    let mut mirror = Mirror::open(database, "").await;
    mirror.equals(database, &["t"], "at first").await;
    let before = mirror.count("t", Op::Read);
    database.run(statements).await;
    // A row in the new shape.
    database.run(&["UPDATE t SET n = n + 100 WHERE id = 2"]).await;
    mirror.settle(database).await;
    mirror.equals(database, &["t"], &statements.join("; ")).await;
    let reads = mirror.count("t", Op::Read) - before;
    database.run(&["DROP TABLE t", "DROP TABLE marker"]).await;
    reads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_metadata_only_read_nothing_again() {
    for server in servers() {
        let database = Database::create(&server).await;
        for statement in [
            "ALTER TABLE t ADD COLUMN c INT NULL",
            "ALTER TABLE t ADD COLUMN c INT FIRST, ADD KEY (d), COMMENT 'x'",
            "ALTER TABLE t MODIFY a VARCHAR(40), MODIFY n BIGINT NOT NULL",
            "ALTER TABLE t RENAME COLUMN a TO z",
            "ALTER TABLE t CHANGE a z VARCHAR(20)",
            "ALTER TABLE t DROP COLUMN d",
            "CREATE INDEX i ON t (a)",
            "ALTER TABLE t ALTER a SET DEFAULT 'x', ENGINE=InnoDB, FORCE",
        ] {
            assert_eq!(effect(&database, &[statement]).await, 0, "{statement}");
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewritten_values_are_read_again() {
    for server in servers() {
        let database = Database::create(&server).await;
        for statements in [
            &["ALTER TABLE t ADD c INT NOT NULL DEFAULT 7"][..],
            // 8.0 refuses it where it logs GTIDs.
            &["ALTER TABLE t ADD c VARCHAR(36) DEFAULT (CONCAT('x', n))"]
                [..if server.kind == Kind::Old { 0 } else { 1 }],
            &["ALTER TABLE t ADD c INT AS (n * 2) STORED"],
            &["ALTER TABLE t ADD c INT AS (n * 3) VIRTUAL AFTER id"],
            &["ALTER TABLE t MODIFY a INT"],
            // Another column by the name of one that was there.
            &["ALTER TABLE t DROP COLUMN d, ADD COLUMN d DECIMAL(10,2)"],
            &["ALTER TABLE t DROP COLUMN d, RENAME COLUMN a TO d"],
            &["ALTER TABLE t RENAME COLUMN a TO d, RENAME COLUMN d TO a"],
            &["ALTER TABLE t MODIFY d DECIMAL(10,1)", "ALTER TABLE t ADD x INT DEFAULT 1"],
            &["UPDATE t SET a = 'añ日' WHERE id = 1", "ALTER TABLE t CONVERT TO CHARACTER SET latin1"],
            &[
                "UPDATE t SET a = 'ñ' WHERE id = 1",
                "ALTER IGNORE TABLE t MODIFY a VARCHAR(20) CHARACTER SET latin2",
            ][..if server.mariadb { 2 } else { 0 }],
            &["ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (n)"],
        ] {
            let reads = effect(&database, statements).await;
            assert!(reads >= 1 || statements.is_empty(), "{statements:?}: {reads}");
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_go_or_come_without_events_are_reconciled() {
    for server in servers() {
        let database = Database::create(&server).await;
        let by_range = "ALTER TABLE t PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (2), PARTITION p1 VALUES LESS THAN (3), PARTITION p2 VALUES LESS THAN MAXVALUE)";
        for statement in [
            "ALTER TABLE t DROP PARTITION p0",
            "ALTER TABLE t TRUNCATE PARTITION p2",
            "ALTER TABLE t EXCHANGE PARTITION p0 WITH TABLE x",
            "TRUNCATE TABLE t",
        ] {
            let like = "CREATE TABLE x LIKE t";
            let prepare = [
                "ALTER TABLE t DROP KEY n",
                by_range,
                like,
                "ALTER TABLE x REMOVE PARTITIONING",
                "INSERT INTO x VALUES (-1, 1, 'x', 2), (-2, 2, 'y', 2)",
            ];
            database.run(&["DROP TABLE IF EXISTS x"]).await;
            database.run(&[TABLE, ROWS]).await;
            database.run(&prepare).await;
            let mut mirror = Mirror::open(&database, "").await;
            database.run(&[statement, "INSERT INTO t VALUES (77, 77, '7', 7)"]).await;
            mirror.settle(&database).await;
            mirror.equals(&database, &["t", "x"], statement).await;
            database.run(&["DROP TABLE t", "DROP TABLE x", "DROP TABLE marker"]).await;
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tablespace_that_is_imported_is_read() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[TABLE, ROWS, "CREATE TABLE x LIKE t", "INSERT INTO x VALUES (8, 8, 'imported', 8)"])
            .await;
        let mut mirror = Mirror::open(&database, "").await;
        let mut conn = database.connect().await;
        let data: String = conn.query_first("SELECT @@datadir").await.unwrap().unwrap();
        let folder = std::path::Path::new(&data).join(&database.name);
        conn.query_drop("ALTER TABLE t DISCARD TABLESPACE").await.unwrap();
        conn.query_drop("FLUSH TABLES x FOR EXPORT").await.unwrap();
        for extension in ["ibd", "cfg"] {
            std::fs::copy(folder.join(format!("x.{extension}")), folder.join(format!("t.{extension}")))
                .unwrap();
        }
        conn.query_drop("UNLOCK TABLES").await.unwrap();
        conn.query_drop("ALTER TABLE t IMPORT TABLESPACE").await.unwrap();
        drop(conn);
        mirror.settle(&database).await;
        mirror.equals(&database, &["t", "x"], "IMPORT TABLESPACE").await;
        assert_eq!(mirror.rows("t").len(), 1);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_dropped_made_anew_or_renamed_hold_only_their_own_rows() {
    for server in servers() {
        let database = Database::create(&server).await;
        let mut cases = vec![
            vec![
                "DROP TABLE t",
                "CREATE TABLE t (id INT PRIMARY KEY, other INT)",
                "INSERT INTO t VALUES (9, 9)",
            ],
            vec![
                "RENAME TABLE t TO u",
                "CREATE TABLE t (id INT PRIMARY KEY)",
                "INSERT INTO t VALUES (5)",
                "INSERT INTO u VALUES (50, 50, 'u', 1)",
            ],
            vec![
                "ALTER TABLE t RENAME TO u",
                "CREATE TABLE IF NOT EXISTS t LIKE u",
                "INSERT INTO t VALUES (6, 6, '6', 6)",
            ],
            vec!["CREATE TABLE IF NOT EXISTS t (id INT)", "INSERT INTO t VALUES (7, 7, '7', 7)"],
            vec![
                "RENAME TABLE t TO u, x TO t, u TO x",
                "INSERT INTO t VALUES (60, 60, 'now t', 1)",
                "UPDATE x SET a = 'now x'",
            ],
            vec!["TRUNCATE t", "INSERT INTO t VALUES (1, 1, 'again', 1)"],
        ];
        if server.mariadb {
            cases.push(vec![
                "CREATE OR REPLACE TABLE t (id INT PRIMARY KEY, x INT)",
                "INSERT INTO t VALUES (3, 3)",
            ]);
            cases.push(vec![
                "CREATE OR REPLACE TABLE t (PRIMARY KEY (id)) SELECT 5 AS id, 'five' AS name",
                "INSERT INTO t VALUES (6, 'six')",
            ]);
        }
        for restart in [false, true] {
            for statements in &cases {
                database.run(&["DROP TABLE IF EXISTS t, u, x, marker"]).await;
                database
                    .run(&[TABLE, ROWS, "CREATE TABLE x LIKE t", "INSERT INTO x VALUES (20, 20, 'was x', 1)"])
                    .await;
                let mut mirror = Mirror::open(&database, "").await;
                if restart {
                    mirror.stop();
                }
                for statement in statements {
                    database.run(&[statement]).await;
                    if !restart {
                        mirror.settle(&database).await;
                    }
                }
                mirror.settle(&database).await;
                let mut tables = vec!["t", "x"];
                if statements.iter().any(|s| s.contains(" TO u") && !s.contains("u TO x")) {
                    tables.push("u");
                }
                mirror
                    .equals(&database, &tables, &format!("{}, restart: {restart}", statements.join("; ")))
                    .await;
            }
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_logged_as_statements_are_read_again() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&[TABLE, ROWS]).await;
        let mut mirror = Mirror::open(&database, "").await;
        database
            .run(&[
                "SET SESSION binlog_format = 'STATEMENT'",
                "UPDATE t SET a = 'by statement'",
                "DELETE FROM t WHERE id = 1",
            ])
            .await;
        mirror.settle(&database).await;
        mirror.equals(&database, &["t"], "statements").await;
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_behind_savepoints_that_were_rolled_back_never_come() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&[TABLE, ROWS]).await;
        let mut mirror = Mirror::open(&database, "").await;
        database
            .run(&[
                "BEGIN",
                "INSERT INTO t VALUES (10, 10, 'kept', 1)",
                "SAVEPOINT `a b`",
                "UPDATE t SET a = 'undone'",
                "ROLLBACK TO SAVEPOINT `a b`",
                "SAVEPOINT c",
                "DELETE FROM t WHERE id = 3",
                "RELEASE SAVEPOINT c",
                "COMMIT",
            ])
            .await;
        mirror.settle(&database).await;
        mirror.equals(&database, &["t"], "savepoints").await;
        assert_eq!((mirror.count("t", Op::Update), mirror.count("t", Op::Delete)), (0, 1));
        database.drop().await;
    }
}
