//! Tables that change their shape.

use crate::mirror::Mirror;
use crate::server::{Database, Stored, full_servers, next, servers};
use crate::state::{State, row};
use caudal_core::{Op, TableSchema};
use std::sync::Arc;

/// Reads events until there are `count`, as `(schema, operation, row)`.
async fn collect(
    reader: &mut Box<dyn caudal_core::Reader>,
    stored: &mut Stored,
    count: usize,
) -> Vec<(Arc<TableSchema>, Op, String)> {
    let mut out = Vec::new();
    while out.len() < count {
        let batch = next(reader).await;
        stored.apply(&batch);
        for event in &batch.events {
            let image = batch.after(event).or(batch.before(event)).map(|cells| row(&batch, cells).join(","));
            out.push((Arc::clone(batch.table(event)), event.op, image.unwrap_or_default()));
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_a_column_that_is_added_and_its_first_row_guesses_no_rename() {
    for server in full_servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
                "INSERT INTO t VALUES (1, 11), (2, 12)",
                "CREATE TABLE other (id INT PRIMARY KEY)",
            ])
            .await;
        let mut mirror = Mirror::open(&database, "").await;
        mirror.stop();
        let columns = ["ALTER TABLE t DROP COLUMN a", "ALTER TABLE t ADD COLUMN b INT"];
        database.run(&[columns[0], columns[1], "INSERT INTO other VALUES (1)"]).await;
        while mirror.rows("other").is_empty() {
            mirror.step().await;
        }
        mirror.stop();
        database.run(&["UPDATE t SET b = 5 WHERE id = 2"]).await;
        mirror.settle(&database).await;
        mirror.equals(&database, &["t"], "after a restart").await;
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_alters_while_nobody_read_never_put_values_in_wrong_columns() {
    for server in full_servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(10), flag TINYINT(1))"]).await;
        let mut reader = database.open(None, "").await;
        let mut stored = Stored::default();
        while !stored.done(&["t"]) {
            stored.apply(&next(&mut reader).await);
        }
        database.run(&["INSERT INTO t VALUES (1, 'one', 1)"]).await;
        let first = collect(&mut reader, &mut stored, 1).await;
        assert_eq!(first[0].2, "1,t:one,1");
        drop(reader);
        database
            .run(&[
                "INSERT INTO t VALUES (2, 'two', 0)",
                "/* moves everything */ ALTER TABLE t ADD COLUMN x VARCHAR(5) AFTER id, MODIFY flag TINYINT(1) AFTER id",
                "INSERT INTO t (id, a, flag, x) VALUES (3, 'three', 1, 'x3')",
                "ALTER TABLE t DROP COLUMN x, RENAME COLUMN a TO b, ADD COLUMN n BIGINT UNSIGNED FIRST",
                "INSERT INTO t (id, b, flag, n) VALUES (4, 'four', 0, 18446744073709551615)",
            ])
            .await;
        let mut reader = database.open(stored.position.as_ref(), "").await;
        let rows = collect(&mut reader, &mut stored, 3).await;
        let told: Vec<(String, String)> = rows
            .iter()
            .map(|(schema, _, row)| {
                let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
                (names.join(","), row.clone())
            })
            .collect();
        let expected = [
            ("id,a,flag", "2,t:two,0"),
            ("id,flag,x,a", "3,1,t:x3,t:three"),
            ("n,id,flag,b", "u18446744073709551615,4,0,t:four"),
        ];
        assert_eq!(told, expected.map(|(a, b)| (a.to_owned(), b.to_owned())), "mariadb: {}", server.mariadb);
        let versions: Vec<u32> = rows.iter().map(|(schema, ..)| schema.version).collect();
        assert!(
            versions.is_sorted() && versions[0] < versions[1] && versions[1] < versions[2],
            "{versions:?}"
        );
        let flag = |schema: &TableSchema| {
            schema.columns.iter().find(|c| c.name == "flag").map(|c| (c.id, c.ty.clone()))
        };
        assert_eq!(flag(&rows[0].0), flag(&rows[1].0), "a column keeps its id and its type");
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_any_kind_reach_the_pipeline_and_never_stop_it() {
    for server in full_servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY, a INT)", "INSERT INTO t VALUES (1, 1)"]).await;
        let mut reader = database.open(None, r#""tables":["t","new*"]"#).await;
        let mut stored = Stored::default();
        while !stored.done(&["t"]) {
            stored.apply(&next(&mut reader).await);
        }
        database
            .run(&[
                "ALTER TABLE t ADD KEY (a), COMMENT 'x'",
                "CREATE TABLE other (id INT)",
                "CREATE VIEW v AS SELECT * FROM t",
                "CREATE TABLE new1 (id INT PRIMARY KEY)",
                "INSERT INTO other VALUES (1)",
                "INSERT INTO new1 VALUES (5)",
                "TRUNCATE t",
                "RENAME TABLE new1 TO new2",
                "INSERT INTO new2 VALUES (6)",
                "DROP TABLE other",
                "ANALYZE TABLE t",
                "INSERT INTO t VALUES (9, 9)",
            ])
            .await;
        let (mut told, mut ddl) = (Vec::new(), Vec::new());
        while told.len() < 4 {
            let batch = next(&mut reader).await;
            stored.apply(&batch);
            ddl.extend(batch.ddl.iter().map(|d| d.statement.clone()));
            for event in &batch.events {
                let image = batch.after(event).map(|cells| row(&batch, cells).join(",")).unwrap_or_default();
                told.push(format!("{} {} {image}", batch.table(event).id.table, event.op.letter()));
            }
        }
        assert_eq!(told, ["new1 c 5", "t t ", "new2 c 6", "t c 9,9"]);
        let starts: Vec<&str> = ddl.iter().map(|d| &d[..12]).collect();
        assert_eq!(starts, ["ALTER TABLE ", "CREATE TABLE", "RENAME TABLE"]);
        assert!(stored.done(&["new1"]), "a table made while streaming needs no snapshot");
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_altered_during_its_snapshot_ends_in_the_sources_state() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL)"]).await;
        let values: Vec<String> = (0..3000).map(|i| format!("({i},{i})")).collect();
        database.run(&[&format!("INSERT INTO t VALUES {}", values.join(","))]).await;
        let mut reader = database.open(None, r#""snapshot":{"chunk_rows":100}"#).await;
        let (mut state, mut stored) = (State::default(), Stored::default());
        let mut batches = 0;
        while !stored.done(&["t"]) {
            let batch = next(&mut reader).await;
            state.apply(&batch);
            stored.apply(&batch);
            batches += 1;
            if batches == 5 {
                database
                    .run(&["ALTER TABLE t DROP COLUMN a, ADD COLUMN b VARCHAR(5) NOT NULL DEFAULT 'z' FIRST"])
                    .await;
            }
        }
        database.run(&["UPDATE t SET b = 'end' WHERE id = 2999"]).await;
        // What the statement did to rows that were read before it is read again, before or after this row.
        let mut last = None;
        let end = loop {
            let batch = next(&mut reader).await;
            state.apply(&batch);
            stored.apply(&batch);
            last = batch.events.last().map(|event| Arc::clone(batch.table(event))).or(last);
            let told = state.tables["t"].get(&vec!["2999".to_owned()]).is_some_and(|row| row[0] == "t:end");
            let open =
                stored.position.as_ref().is_some_and(|p| p.notes.keys().any(|n| n.starts_with("reread/")));
            if let (Some(schema), true, false) = (&last, told, open) {
                break Arc::clone(schema);
            }
        };
        assert_eq!(end.columns[0].name, "b");
        let rows = &state.tables["t"];
        assert_eq!(rows.len(), 3000);
        assert_eq!(rows[&vec!["2999".to_owned()]], ["t:end", "2999"]);
        assert_eq!(rows[&vec!["2998".to_owned()]], ["t:z", "2998"]);
        database.drop().await;
    }
}
