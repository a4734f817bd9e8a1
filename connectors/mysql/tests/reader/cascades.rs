//! What foreign keys do by themselves, on servers that log it and on those that do not.

use crate::mirror::Mirror;
use crate::server::{Database, servers};
use mysql_async::prelude::Queryable;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cascades_reach_the_log_several_levels_deep() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE a (id INT PRIMARY KEY, v INT)",
                "CREATE TABLE b (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES a (id) ON DELETE CASCADE ON UPDATE CASCADE)",
                "CREATE TABLE c (id INT, b INT, v INT, PRIMARY KEY (id, b), FOREIGN KEY (b) REFERENCES b (id) ON DELETE CASCADE ON UPDATE CASCADE)",
                "CREATE TABLE d (id INT PRIMARY KEY, c INT, b INT, FOREIGN KEY (c, b) REFERENCES c (id, b) ON DELETE SET NULL ON UPDATE CASCADE)",
                "CREATE TABLE e (id INT PRIMARY KEY, a INT, FOREIGN KEY (a) REFERENCES a (id) ON DELETE SET NULL)",
                "CREATE TABLE tree (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE)",
                "INSERT INTO a VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
                "INSERT INTO b VALUES (10, 1), (11, 1), (20, 2), (30, 3)",
                "INSERT INTO c VALUES (100, 10, 1), (101, 11, 1), (200, 20, 1), (300, 30, 1)",
                "INSERT INTO d VALUES (1000, 100, 10), (1001, 101, 11), (2000, 200, 20), (3000, 300, 30)",
                "INSERT INTO e VALUES (1, 1), (2, 2), (3, NULL)",
                "INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, 3), (5, NULL), (6, 5)",
            ])
            .await;
        let mut mirror = Mirror::open(&database, "").await;
        let tables = ["a", "b", "c", "d", "e", "tree"];
        mirror.equals(&database, &tables, "at first").await;
        for statements in [
            &["DELETE FROM a WHERE id = 1"][..],
            &["UPDATE b SET id = 21 WHERE id = 20"],
            &["DELETE FROM tree WHERE id = 1"],
            &["UPDATE a SET v = 9 WHERE id = 4"],
            &[
                "BEGIN",
                "DELETE FROM e WHERE id = 2",
                "DELETE FROM a WHERE id IN (2, 3)",
                "INSERT INTO a VALUES (2, 22)",
                "INSERT INTO b VALUES (20, 2)",
                "COMMIT",
            ],
        ] {
            database.run(statements).await;
            mirror.settle(&database).await;
            mirror.equals(&database, &tables, &statements.join("; ")).await;
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_of_tables_that_are_not_captured_are_read_again_too() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE top (id INT PRIMARY KEY)",
                "CREATE TABLE middle (id INT PRIMARY KEY, top INT, FOREIGN KEY (top) REFERENCES top (id) ON DELETE CASCADE)",
                "CREATE TABLE t (id INT PRIMARY KEY, middle INT, FOREIGN KEY (middle) REFERENCES middle (id) ON DELETE CASCADE)",
                "INSERT INTO top VALUES (1), (2)",
                "INSERT INTO middle VALUES (10, 1), (20, 2), (21, 2)",
                "INSERT INTO t VALUES (100, 10), (200, 20), (210, 21)",
            ])
            .await;
        let mut mirror = Mirror::open(&database, r#""tables":["t","marker"]"#).await;
        for statement in ["DELETE FROM middle WHERE id = 20", "DELETE FROM top WHERE id = 1"] {
            database.run(&[statement]).await;
            mirror.settle(&database).await;
            mirror.equals(&database, &["t"], statement).await;
        }
        assert_eq!(mirror.rows("t").len(), 1);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_key_made_while_streaming_counts_and_a_restart_forgets_no_cascade() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE p (id INT PRIMARY KEY)", "INSERT INTO p VALUES (1), (2), (3)"]).await;
        let mut mirror = Mirror::open(&database, "").await;
        database
            .run(&[
                "CREATE TABLE k (id INT PRIMARY KEY, p INT)",
                "INSERT INTO k VALUES (1, 1), (2, 2), (3, 3)",
                "ALTER TABLE k ADD FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE",
            ])
            .await;
        mirror.settle(&database).await;
        database.run(&["DELETE FROM p WHERE id = 1"]).await;
        mirror.settle(&database).await;
        mirror.equals(&database, &["p", "k"], "a new key").await;
        mirror.stop();
        database.run(&["DELETE FROM p WHERE id = 2"]).await;
        // Until the parent's row is delivered, and not one batch more.
        let before = mirror.rows("p").len();
        while mirror.rows("p").len() == before {
            mirror.step().await;
        }
        mirror.stop();
        mirror.settle(&database).await;
        mirror.equals(&database, &["p", "k"], "after a restart").await;
        let mut conn = database.connect().await;
        let left: Option<u32> = conn.query_first("SELECT COUNT(*) FROM k").await.unwrap();
        assert_eq!(left, Some(1));
        database.drop().await;
    }
}
