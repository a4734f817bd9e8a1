//! Columns, keys and rows that the configuration chooses.

use crate::server::{Database, Stored, next, servers};
use crate::state::State;
use caudal_core::{Batch, Fault, KeyKind, Op, Reader, Severity};
use mysql_async::prelude::Queryable;
use std::collections::BTreeSet;

const COLUMNS: &str = "id INT PRIMARY KEY, i INT, u BIGINT UNSIGNED, flag TINYINT(1), y YEAR, b BIT(9), \
    d DECIMAL(20,4), f FLOAT, g DOUBLE, t VARCHAR(40) CHARACTER SET utf8mb4, l VARCHAR(40) CHARACTER SET latin1, \
    e ENUM('new','paid','Zurück'), s SET('a','b','c'), bin VARBINARY(20), fix BINARY(4), \
    da DATE, zd DATE NOT NULL, dt DATETIME(3), ts TIMESTAMP(6) NULL, ti TIME(2), j JSON";

const ROWS: [&str; 7] = [
    "(1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0000-00-00', NULL, NULL, NULL, NULL)",
    "(2, 0, 0, 0, 2024, 0, 0, 0, 0, '', '', 'new', '', '', '', '0000-00-00', '0000-00-00', '0000-00-00 00:00:00', '1970-01-01 00:00:01', '00:00:00', 'null')",
    "(3, -2147483648, 18446744073709551615, 1, 2155, 511, -1234567890123456.7890, 0.1, 0.1, 'a', 'a', 'paid', 'a,c', X'00ff', X'61', '2024-02-00', '2024-02-29', '2024-02-29 23:59:59.999', '2024-02-29 23:59:59.999999', '-838:59:59', '{}')",
    "(4, 2147483647, 9223372036854775808, 5, 1901, 1, 0.0001, -0.0, 1e300, 'A', 'A', 'Zurück', 'b', X'61', X'61626364', '9999-12-31', '2024-03-01', '9999-12-31 23:59:59', '2038-01-19 03:14:07', '838:59:59', '[1]')",
    "(5, 5, 24, -1, 1970, 24, 2.5, 16777217, -1.5, 'a ', 'ñandú', 'new', 'a,b,c', 'a', 'a', '2024-01-01', '1000-01-01', '2024-01-01', '2024-01-01', '-00:00:00.5', '\"x\"')",
    "(6, 24, 2, 0, 2024, 2, 10, 2.5, 2.5, 'ñandú_100%', 'a%', 'paid', 'c', X'6162', X'00', '2024-01-02', '2024-00-31', '2024-01-01 12:00:00.5', '2024-01-01 12:00:00.5', '12:34:56.78', '{\"a\": 1}')",
    "(7, 1, 1, 1, 2000, 3, 9.9999, 1, 1, '\u{1F600}é', 'Éa', 'paid', 'b,c', X'ff', X'ffffffff', '1000-01-01', '9999-12-31', '1000-01-01', '2001-09-09 01:46:40', '00:00:00.01', 'true')",
];

/// A filter of ours, and what SQL would write for it where a plain condition means the same.
const FILTERS: [(&str, &str); 58] = [
    ("i = 5", "i = 5"),
    ("i <> 5", "i <> 5"),
    ("NOT (i = 5)", "NOT (i = 5)"),
    ("i > 4.5 AND i < 24.00001", "i > 4.5 AND i < 24.00001"),
    ("i IN (0, 5, -2147483648)", "i IN (0, 5, -2147483648)"),
    ("i NOT IN (0, 5)", "i NOT IN (0, 5)"),
    ("i IS NULL OR i BETWEEN 1 AND 5", "i IS NULL OR i BETWEEN 1 AND 5"),
    ("i NOT BETWEEN 1 AND 24", "i NOT BETWEEN 1 AND 24"),
    ("i < 99999999999999999999999999", "i < 99999999999999999999999999"),
    ("u > 9223372036854775807", "u > 9223372036854775807"),
    ("u = 18446744073709551615", "u = 18446744073709551615"),
    ("u > -1", "u > -1"),
    ("u < 0.5", "u < 0.5"),
    ("flag", "flag <> 0"),
    ("NOT flag", "flag = 0"),
    ("flag = 1 AND i IS NOT NULL", "flag <> 0 AND i IS NOT NULL"),
    ("y = 2024", "y = 2024"),
    ("y = 24", "y + 0 = 24"),
    ("y >= 1970 AND y < 2155", "y + 0 >= 1970 AND y + 0 < 2155"),
    ("b = 511 OR b < 2", "b + 0 = 511 OR b + 0 < 2"),
    ("d = 2.5", "d = 2.5"),
    ("d >= 9.9999", "d >= 9.9999"),
    ("d < -1234567890123456.7889", "d < -1234567890123456.7889"),
    ("d IN (0, 0.0001, 10.0)", "d IN (0, 0.0001, 10.0)"),
    ("f = 0.1", "f = 0.1e0"),
    ("f > 0.1", "f > 0.1e0"),
    ("f = 16777216", "f = 16777216e0"),
    ("f = 0", "f = 0e0"),
    ("g = 0.1", "g = 0.1e0"),
    ("g <= -1.5 OR g > 100", "g <= -1.5 OR g > 100"),
    ("t = 'a'", "CAST(t AS BINARY) = 'a'"),
    ("t > 'a'", "CAST(t AS BINARY) > 'a'"),
    ("t <> 'A'", "CAST(t AS BINARY) <> 'A'"),
    ("t IN ('a ', '')", "CAST(t AS BINARY) IN ('a ', '')"),
    ("t LIKE 'ñ%'", "t LIKE 'ñ%' COLLATE utf8mb4_bin"),
    ("t LIKE '_'", "t LIKE '_' COLLATE utf8mb4_bin"),
    ("t LIKE '__'", "t LIKE '__' COLLATE utf8mb4_bin"),
    ("t LIKE '%\\_100\\%'", "t LIKE '%\\_100\\%' COLLATE utf8mb4_bin"),
    ("t NOT LIKE 'a%'", "t NOT LIKE 'a%' COLLATE utf8mb4_bin"),
    ("l = 'ñandú'", "CAST(CONVERT(l USING utf8mb4) AS BINARY) = 'ñandú'"),
    ("l LIKE 'É_' OR l LIKE 'a\\%'", "CONVERT(l USING utf8mb4) LIKE 'É_' COLLATE utf8mb4_bin OR l = 'a%'"),
    ("e = 'paid'", "e = 'paid'"),
    ("e IN ('Zurück', 'PAID')", "e = 'Zurück'"),
    ("s = 'a,c' OR s = ''", "s = 'a,c' OR s = ''"),
    ("s LIKE '%b%'", "s LIKE '%b%'"),
    ("bin = X'00ff' OR bin = 'a'", "bin = X'00ff' OR bin = X'61'"),
    ("bin >= X'61'", "bin >= X'61'"),
    ("fix = X'61000000'", "fix = X'61000000'"),
    ("da = '0000-00-00'", "da = '0000-00-00'"),
    ("da < '2024-01-02' OR da IS NULL", "da < '2024-01-02' OR da IS NULL"),
    ("zd IS NULL", "FALSE"),
    ("zd IS NOT NULL AND zd <= '2024-00-31'", "zd <= '2024-00-31'"),
    (
        "dt > '2024-01-01' AND dt <= '2024-01-01 12:00:00.500'",
        "dt > '2024-01-01' AND dt <= '2024-01-01 12:00:00.500'",
    ),
    ("dt < '2024-02-29 23:59:59.999001'", "CAST(dt AS CHAR) < '2024-02-29 23:59:59.999001'"),
    (
        "ts >= '2024-01-01 12:00:00.5' AND ts <> '2038-01-19 03:14:07'",
        "ts >= '2024-01-01 12:00:00.5' AND ts <> '2038-01-19 03:14:07'",
    ),
    ("ti < '00:00:00'", "ti < '00:00:00'"),
    ("ti BETWEEN '-838:59:59' AND '12:34:56.78'", "ti BETWEEN '-838:59:59' AND '12:34:56.78'"),
    (
        "j IS NOT NULL AND NOT (t = 'a' OR i > 20)",
        "j IS NOT NULL AND NOT (CAST(t AS BINARY) = 'a' OR i > 20)",
    ),
];

async fn ids(database: &Database, sql: &str) -> BTreeSet<String> {
    let mut conn = database.connect().await;
    let rows: Vec<i64> = conn.query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows.iter().map(ToString::to_string).collect()
}

fn told(state: &State, table: &str) -> BTreeSet<String> {
    let rows = state.tables.get(table);
    rows.map(|rows| rows.values().map(|row| row[0].clone()).collect()).unwrap_or_default()
}

/// Reads until the row with this id of this table was told, or the snapshots of the named tables are done.
async fn until(
    reader: &mut Box<dyn Reader>,
    stored: &mut Stored,
    state: &mut State,
    mut done: impl FnMut(&Stored, &State) -> bool,
) -> Vec<Batch> {
    let mut seen = Vec::new();
    while !done(stored, state) {
        let batch = next(reader).await;
        stored.apply(&batch);
        state.apply(&batch);
        seen.push(batch);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_takes_the_same_rows_by_snapshot_by_stream_and_by_the_servers_own_where() {
    for server in servers() {
        let database = Database::create(&server).await;
        let mut statements = vec![
            format!("CREATE TABLE template ({COLUMNS})"),
            format!("INSERT INTO template VALUES {}", ROWS.join(",")),
            "CREATE TABLE mark (id INT PRIMARY KEY)".to_owned(),
        ];
        let (mut filters, mut names) = (serde_json::Map::new(), Vec::new());
        for (n, (filter, _)) in FILTERS.iter().enumerate() {
            statements.push(format!("CREATE TABLE a{n} LIKE template"));
            statements.push(format!("INSERT INTO a{n} SELECT * FROM template"));
            statements.push(format!("CREATE TABLE b{n} LIKE template"));
            filters.insert(format!("?{n}"), (*filter).into());
            names.push(format!("a{n}"));
        }
        database.run(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let options = serde_json::json!({ "tables": ["!template"], "filters": filters }).to_string();
        let options = &options[1..options.len() - 1];
        let mut reader = database.open(None, options).await;
        let (mut stored, mut state) = (Stored::default(), State::default());
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        until(&mut reader, &mut stored, &mut state, |stored, _| stored.done(&all)).await;
        let fill: Vec<String> =
            (0..FILTERS.len()).map(|n| format!("INSERT INTO b{n} SELECT * FROM template")).collect();
        database.run(&fill.iter().map(String::as_str).collect::<Vec<_>>()).await;
        database.run(&["INSERT INTO mark VALUES (1)"]).await;
        until(&mut reader, &mut stored, &mut state, |_, state| !told(state, "mark").is_empty()).await;
        for (n, (filter, sql)) in FILTERS.iter().enumerate() {
            let expected = ids(&database, &format!("SELECT id FROM template WHERE {sql}")).await;
            assert_eq!(told(&state, &format!("a{n}")), expected, "snapshot: {filter}");
            assert_eq!(told(&state, &format!("b{n}")), expected, "stream: {filter}");
        }
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_enter_or_leave_the_filter_are_created_and_deleted() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE o (id INT PRIMARY KEY, state VARCHAR(10), n INT)",
                "INSERT INTO o VALUES (1, 'paid', 0), (2, 'new', 0)",
            ])
            .await;
        let mut reader = database.open(None, r#""tables":["o"],"filters":{"o":"state = 'paid'"}"#).await;
        let (mut stored, mut state) = (Stored::default(), State::default());
        until(&mut reader, &mut stored, &mut state, |stored, _| stored.done(&["o"])).await;
        assert_eq!(told(&state, "o"), BTreeSet::from(["1".to_owned()]));
        database
            .run(&[
                "UPDATE o SET state = 'paid' WHERE id = 2",
                "UPDATE o SET n = 1 WHERE id = 2",
                "UPDATE o SET state = 'gone' WHERE id = 1",
                "UPDATE o SET n = 2 WHERE id = 1",
                "DELETE FROM o WHERE id = 1",
                "INSERT INTO o VALUES (3, NULL, 0)",
                "DELETE FROM o WHERE id = 3",
                "UPDATE o SET id = 4 WHERE id = 2",
                "DELETE FROM o WHERE id = 4",
                "INSERT INTO o VALUES (9, 'paid', 0)",
            ])
            .await;
        let seen = until(&mut reader, &mut stored, &mut state, |_, s| told(s, "o").contains("9")).await;
        let ops: Vec<(Op, bool, bool)> = seen
            .iter()
            .flat_map(|b| b.events.iter().map(|e| (e.op, b.before(e).is_some(), b.after(e).is_some())))
            .collect();
        let expected = [
            (Op::Create, false, true),
            (Op::Update, true, true),
            (Op::Delete, true, false),
            (Op::Update, true, true),
            (Op::Delete, true, false),
            (Op::Create, false, true),
        ];
        assert_eq!(ops, expected);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_of_which_the_filter_cannot_tell_has_its_table_read_again_and_is_never_a_guess() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE o (id INT PRIMARY KEY, state VARCHAR(10), n INT)",
                "INSERT INTO o VALUES (1, 'paid', 0), (2, 'paid', 0)",
            ])
            .await;
        let options = r#""tables":["o"],"filters":{"o":"state = 'paid'"}"#;
        let mut reader = database.open(None, options).await;
        let (mut stored, mut state) = (Stored::default(), State::default());
        until(&mut reader, &mut stored, &mut state, |stored, _| stored.done(&["o"])).await;
        let mut conn = database.connect().await;
        conn.query_drop("SET SESSION binlog_row_image = MINIMAL").await.unwrap();
        // Deleting what may not be there harms nothing.
        conn.query_drop("DELETE FROM o WHERE id = 2").await.unwrap();
        until(&mut reader, &mut stored, &mut state, |_, s| !told(s, "o").contains("2")).await;
        conn.query_drop("UPDATE o SET n = 7 WHERE id = 1").await.unwrap();
        let note = format!("quarantine/{}.o", database.name);
        let mut aside = false;
        let seen = until(&mut reader, &mut stored, &mut state, |stored, state| {
            aside |= stored.position.as_ref().is_some_and(|p| p.notes.contains_key(&note));
            aside && state.tables.get("o").is_some_and(|rows| rows.values().any(|row| row[2] == "7"))
        })
        .await;
        // By reading the table: the event itself was delivered in no form.
        assert!(seen.iter().flat_map(|batch| &batch.events).all(|event| event.op == Op::Read));
        assert_eq!(told(&state, "o"), ["1".to_owned()].into());
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_excluded_column_is_in_no_batch_whoever_brings_the_row() {
    const SECRET: &str = "secret-0123456789";
    for server in servers() {
        let database = Database::create(&server).await;
        let long = SECRET.repeat(4_000);
        database
            .run(&[
                "CREATE TABLE p (ssn VARCHAR(40), id INT PRIMARY KEY, name VARCHAR(20), Doc MEDIUMTEXT, n INT, UNIQUE (ssn), UNIQUE (n))",
                &format!("INSERT INTO p VALUES ('{SECRET}', 1, 'one', '{long}', 1)"),
                "CREATE TABLE nokey (token VARCHAR(40), n INT)",
                &format!("INSERT INTO nokey VALUES ('{SECRET}', 1)"),
            ])
            .await;
        let options = r#""columns":["!p.SSN","!*.doc","!*.tok*"],"filters":{"p":"ssn IS NOT NULL"}"#;
        let mut reader = database.open(None, options).await;
        let (mut stored, mut state) = (Stored::default(), State::default());
        let mut seen =
            until(&mut reader, &mut stored, &mut state, |stored, _| stored.done(&["p", "nokey"])).await;
        // Not even in memory: the snapshot does not select it.
        let holds = |batch: &Batch| {
            batch.buffers.iter().any(|b| b.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()))
        };
        assert!(!seen.iter().any(holds));
        database
            .run(&[
                &format!("INSERT INTO p VALUES ('{SECRET}-2', 2, 'two', '{long}', 2)"),
                "UPDATE p SET name = 'zwei' WHERE id = 2",
                &format!("INSERT INTO nokey VALUES ('{SECRET}', 2)"),
                "INSERT INTO p VALUES ('x', 9, 'end', NULL, 9)",
            ])
            .await;
        seen.extend(until(&mut reader, &mut stored, &mut state, |_, s| told(s, "p").contains("9")).await);
        for batch in &seen {
            for event in &batch.events {
                let schema = batch.table(event);
                let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
                let expected: &[&str] = if schema.id.table == "p" { &["id", "name", "n"] } else { &["n"] };
                assert_eq!(names, expected);
                assert!(schema.unique_keys.iter().all(|k| k.columns == [2]), "{:?}", schema.unique_keys);
                for cells in [batch.before(event), batch.after(event)].into_iter().flatten() {
                    let row = crate::state::row(batch, cells).join("|");
                    assert!(!row.contains("secret"), "{row}");
                }
            }
        }
        let rows: Vec<String> = state.tables["p"].values().map(|r| r.join(",")).collect();
        assert_eq!(rows, ["1,t:one,1", "2,t:zwei,2", "9,t:end,9"]);
        assert_eq!(state.counted["nokey"].len(), 2);
        // Excluding more is a new version of the shape, which continues the old one's.
        let version = |batch: &Batch| batch.tables.iter().find(|t| t.id.table == "p").map(|t| t.version);
        let before = seen.iter().filter_map(version).max();
        drop(reader);
        let mut reader =
            database.open(stored.position.as_ref(), r#""columns":["!p.ssn","!*.doc","!p.n"]"#).await;
        database.run(&["INSERT INTO p VALUES ('y', 10, 'more', NULL, 10)"]).await;
        let seen = until(&mut reader, &mut stored, &mut state, |_, s| told(s, "p").contains("10")).await;
        assert_eq!(seen.iter().filter_map(version).max(), before.map(|v| v + 1));
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_cannot_mean_is_refused_with_field_and_table() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE p (id INT PRIMARY KEY, name VARCHAR(20), j POINT)"]).await;
        let name = &database.name;
        for (options, field, says) in [
            (r#""columns":["!*.i?"]"#.to_owned(), "columns", "`!*.i?` excludes the column `id`"),
            (r#""filters":{"p":"nope = 1"}"#.to_owned(), "filters", "has no column `nope`"),
            (r#""filters":{"p":"name > 5"}"#.to_owned(), "filters", "a text in quotes"),
            (r#""filters":{"p":"j = 'x'"}"#.to_owned(), "filters", "only IS NULL"),
            (format!(r#""keys":{{"{name}.p":["nope"]}}"#), "keys", "`nope`"),
        ] {
            let error = database.try_open(None, &options).await.err().expect(says);
            assert_eq!(error.fault(), Fault::Config, "{error}");
            assert_eq!(error.field_name(), Some(format!("sources.test.{field}").as_str()), "{error}");
            assert!(error.to_string().contains(says) && error.to_string().contains(name.as_str()), "{error}");
            let source = caudal_mysql::source("test", database.config(&options)).unwrap();
            let found = source.check().await;
            assert!(
                found.iter().any(|f| f.severity == Severity::Error && f.message.contains(says)),
                "{found:?}"
            );
        }
        let options = r#""columns":["!p.nmae"],"filters":{"nope":"a = 1"}"#;
        let found = caudal_mysql::source("test", database.config(options)).unwrap().check().await;
        let warned = |field: &str, what: &str| {
            found.iter().any(|f| {
                f.subject.ends_with(field) && f.severity == Severity::Warning && f.message.contains(what)
            })
        };
        assert!(warned(".columns", "!p.nmae") && warned(".filters", "nope"), "{found:?}");
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_key_is_read_in_chunks_and_its_nulls_are_values() {
    for server in servers() {
        let database = Database::create(&server).await;
        let mut rows: Vec<String> = (0..700).map(|n| format!("({}, {}, {n})", n / 7, n % 7)).collect();
        rows.extend((0..40).map(|n| format!("(NULL, {n}, 1000)")));
        rows.extend((0..40).map(|n| format!("({n}, NULL, 2000)")));
        database
            .run(&[
                "CREATE TABLE v (a INT, b INT, n INT, KEY by_n (n), KEY by_key (a, b, n))",
                &format!("INSERT INTO v VALUES {}", rows.join(",")),
            ])
            .await;
        let key = format!(r#""keys":{{"{}.v":["A","b"]}}"#, database.name);
        for filter in ["", r#","filters":{"v":"n >= 600"}"#] {
            let options = format!(r#"{key},"snapshot":{{"chunk_rows":50}}{filter}"#);
            let mut reader = database.open(None, &options).await;
            let (mut stored, mut state) = (Stored::default(), State::default());
            let (mut chunks, mut again) = (0, false);
            while !stored.done(&["v"]) {
                let batch = next(&mut reader).await;
                chunks += usize::from(
                    batch.position.source().unwrap().notes.keys().any(|k| k.starts_with("table/")),
                );
                stored.apply(&batch);
                state.apply(&batch);
                if chunks == 3 && !again {
                    again = true;
                    // Goes on behind a key that may hold NULL.
                    reader = database.open(stored.position.as_ref(), &options).await;
                }
            }
            assert!(chunks > 5, "{chunks}");
            let expected = if filter.is_empty() { 780 } else { 180 };
            assert_eq!(state.tables["v"].len(), expected);
            database
                .run(&[
                    "UPDATE v SET n = n + 1 WHERE a IS NULL AND b = 3",
                    "INSERT INTO v VALUES (900, 900, 900)",
                ])
                .await;
            let seen = until(&mut reader, &mut stored, &mut state, |_, s| told(s, "v").contains("900")).await;
            let schema = seen.iter().flat_map(|b| &b.tables).next().unwrap();
            assert_eq!((schema.key_kind, schema.key.as_slice()), (KeyKind::Configured, &[0, 1][..]));
            let nulls = vec!["NULL".to_owned(), "3".to_owned()];
            assert!(state.tables["v"][&nulls][2].starts_with("100"));
            database.run(&["DELETE FROM v WHERE a = 900"]).await;
        }
        database.drop().await;
    }
}
