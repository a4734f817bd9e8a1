//! A seeded random workload, changes of the tables' shapes among it, while daemon (with its log) and Postgres are killed at random: in the end
//! `caudal verify` finds nothing, then just what is planted, and after `--repair` nothing again.
//!
//! `CAUDAL_TEST_CRASHES` says how many (6 take about a minute); without it that test is not run. `CAUDAL_TEST_SEED` draws others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer, PgDatabase, Postgres};
use mysql_async::prelude::Queryable;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::Value;

/// Tables with their keys: `n` and `s` stay as they are, other columns come and go.
const TABLES: [(&str, &str); 3] = [
    ("t0", "id INT PRIMARY KEY"),
    ("t1", "code VARCHAR(20) PRIMARY KEY"),
    ("t2", "a INT, b INT, PRIMARY KEY (a, b)"),
];
const KINDS: [(&str, &str); 5] = [
    ("INT", "BIGINT"),
    ("VARCHAR(20)", "VARCHAR(60)"),
    ("DECIMAL(8,2)", "DECIMAL(14,4)"),
    ("DATETIME", "DATETIME(6)"),
    ("SMALLINT UNSIGNED NULL", "INT UNSIGNED NOT NULL DEFAULT 3"),
];

/// Columns that come and go: name, and which kind.
type Shape = Arc<Mutex<Vec<(String, usize)>>>;

#[derive(Clone)]
struct Workload {
    url: String,
    shapes: Vec<Shape>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
}

/// The condition that one row meets, and its key's values.
fn key(table: usize, id: u32) -> (String, String) {
    match table {
        0 => (format!("id = {id}"), id.to_string()),
        1 => (format!("code = 'k{id}'"), format!("'k{id}'")),
        _ => (format!("a = {} AND b = {}", id / 20, id % 20), format!("{}, {}", id / 20, id % 20)),
    }
}

fn value(rng: &mut SmallRng, kind: usize) -> String {
    match kind {
        0 => rng.random_range(-30_000..30_000).to_string(),
        1 => format!("'wört {}'", rng.random_range(0..1_000)),
        2 => format!("{}.{:02}", rng.random_range(0..9_000), rng.random_range(0..100)),
        3 => format!("'2024-02-{:02} 10:00:00'", rng.random_range(1..29)),
        _ => rng.random_range(0..60_000).to_string(),
    }
}

impl Workload {
    async fn create(url: String) -> Self {
        let mut conn = caudal_tests::mysql::connect(&url).await.unwrap();
        for (number, (table, key_columns)) in TABLES.iter().enumerate() {
            let (columns, end) = key_columns
                .split_once(", PRIMARY")
                .map_or((*key_columns, String::new()), |(c, k)| (c, format!(", PRIMARY{k}")));
            conn.query_drop(format!("CREATE TABLE {table} ({columns}, n INT NOT NULL, s VARCHAR(30){end})"))
                .await
                .unwrap();
            let rows: Vec<String> =
                (0..300).map(|id| format!("({}, {id}, 'row {id}')", key(number, id).1)).collect();
            conn.query_drop(format!("INSERT INTO {table} VALUES {}", rows.join(", "))).await.unwrap();
        }
        Self {
            url,
            shapes: TABLES.iter().map(|_| Shape::default()).collect(),
            stop: Arc::default(),
            done: Arc::default(),
            changes: Arc::default(),
        }
    }

    /// One client; the first changes shapes too.
    async fn client(self, seed: u64, shaping: bool) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut conn = caudal_tests::mysql::connect(&self.url).await.unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let statements = if shaping && rng.random_range(0..60) == 0 {
                vec![self.reshape(&mut rng)]
            } else {
                self.change(&mut rng)
            };
            for statement in statements {
                match conn.query_drop(&statement).await {
                    Ok(()) => {
                        self.done.fetch_add(1, Ordering::Relaxed);
                        self.changes.fetch_add(u64::from(statement.starts_with("ALTER")), Ordering::Relaxed);
                    }
                    // Two keys alike, a lock, a column that is no more: the next one.
                    Err(mysql_async::Error::Server(_)) => {
                        conn.query_drop("ROLLBACK").await.unwrap();
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..8))).await;
        }
    }

    fn change(&self, rng: &mut SmallRng) -> Vec<String> {
        let table = rng.random_range(0..TABLES.len());
        let (name, id) = (TABLES[table].0, rng.random_range(0..400));
        let (is, values) = key(table, id);
        let extra = {
            let shape = self.shapes[table].lock().unwrap();
            (!shape.is_empty()).then(|| shape[rng.random_range(0..shape.len())].clone())
        };
        let keys = ["id", "code", "a, b"][table];
        let n = rng.random_range(0..10_000);
        let mut insert = format!("REPLACE INTO {name} ({keys}, n, s) VALUES ({values}, {n}, 'new {n}')");
        let mut update = format!("UPDATE {name} SET n = n + 1 WHERE {is}");
        if let Some((column, kind)) = extra {
            let value = value(rng, kind);
            insert =
                format!("REPLACE INTO {name} ({keys}, n, s, {column}) VALUES ({values}, {n}, NULL, {value})");
            update = format!("UPDATE {name} SET n = n + 1, {column} = {value} WHERE {is}");
        }
        let (_, other) = key(table, id + 1_000);
        let moved: Vec<String> = keys
            .split(", ")
            .zip(other.split(", "))
            .map(|(column, value)| format!("{column} = {value}"))
            .collect();
        match rng.random_range(0..10) {
            0..3 => vec![insert],
            3..7 => vec![update],
            7 => vec![format!("DELETE FROM {name} WHERE {is}")],
            8 => vec![format!("UPDATE {name} SET {} WHERE {is}", moved.join(", "))],
            _ => {
                let second = format!("UPDATE t0 SET n = n - 1 WHERE id = {}", rng.random_range(0..400));
                let end = if rng.random_range(0..3) == 0 { "ROLLBACK" } else { "COMMIT" };
                vec!["BEGIN".to_owned(), insert, second, end.to_owned()]
            }
        }
    }

    /// Adds, drops, renames or widens a column.
    fn reshape(&self, rng: &mut SmallRng) -> String {
        let table = rng.random_range(0..TABLES.len());
        let name = TABLES[table].0;
        let mut shape = self.shapes[table].lock().unwrap();
        let fresh = format!("c{}", rng.random_range(0..1_000_000));
        let what = if shape.is_empty() { 0 } else { rng.random_range(0..4) };
        if what == 0 {
            let kind = rng.random_range(0..KINDS.len());
            shape.push((fresh.clone(), kind));
            return format!("ALTER TABLE {name} ADD COLUMN {fresh} {}", KINDS[kind].0);
        }
        let at = rng.random_range(0..shape.len());
        match what {
            1 if shape.len() > 2 => format!("ALTER TABLE {name} DROP COLUMN {}", shape.remove(at).0),
            2 => {
                let old = std::mem::replace(&mut shape[at].0, fresh.clone());
                format!("ALTER TABLE {name} RENAME COLUMN {old} TO {fresh}")
            }
            _ => format!("ALTER TABLE {name} MODIFY {} {}", shape[at].0, KINDS[shape[at].1].1),
        }
    }
}

fn number(name: &str, unless: u64) -> u64 {
    std::env::var(name).ok().map_or(unless, |text| text.parse().unwrap())
}

async fn verify(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = tokio::process::Command::new("timeout");
    command.arg("900").arg(caudal_tests::daemon::binary().unwrap()).args(["verify", "dash", "--wait", "240"]);
    command.args(["--output", "json"]).args(arguments).arg("--config").arg(daemon.config_file());
    let out = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let said = serde_json::from_str(&text).unwrap_or_else(|e| {
        panic!("{e}: {text}\n{}\n{}", String::from_utf8_lossy(&out.stderr), daemon.log_tail())
    });
    (out.status.code(), said)
}

async fn plant(sink: &PgDatabase) {
    sink.sql(
        "UPDATE t0 SET n = n + 7 WHERE id = (SELECT min(id) FROM t0);
        DELETE FROM t1 WHERE code = (SELECT max(code) FROM t1);
        INSERT INTO t1 (code, n) VALUES ('surplus', 1);
        INSERT INTO t2 (a, b, n) VALUES (-1, -1, 1);
        UPDATE t2 SET s = 'flipped' WHERE (a, b) = (SELECT max(a), 1 FROM t2 WHERE b = 1)",
    )
    .await
    .unwrap();
}

/// Kind and table of each difference.
fn differences(said: &Value) -> Vec<String> {
    let mut all: Vec<String> = said["tables"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|table| {
            let name = table["table"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
            let told = table["differences"].as_array().cloned().unwrap_or_default();
            told.into_iter().map(move |d| format!("{name} {}", d["kind"].as_str().unwrap()))
        })
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_was_added_where_one_was_dropped_has_none_of_its_values() {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("dropped").await.unwrap();
    let make = "CREATE TABLE t (id INT PRIMARY KEY, gone INT); INSERT INTO t VALUES (1, 10), (2, 20)";
    server.sql(&db, make).await.unwrap();
    let sink = Postgres::shared().database("dropped").await.unwrap();
    let config = DaemonConfig::new(&format!("dropped{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let (code, said) = verify(&daemon, &[]).await;
    assert_eq!(code, Some(0), "{said}\n{}", daemon.log_tail());
    // No row between the two: the sink sees the shape before, and the one after.
    server.sql(&db, "ALTER TABLE t DROP COLUMN gone; ALTER TABLE t ADD COLUMN came INT").await.unwrap();
    let (code, said) = verify(&daemon, &[]).await;
    let without = &said["tables"][0]["without"];
    assert_eq!((code, &without[0]), (Some(0), &"came".into()), "a new column has no row yet: {said}");
    server.sql(&db, "INSERT INTO t VALUES (3, 3)").await.unwrap();
    let (code, said) = verify(&daemon, &[]).await;
    assert_eq!(
        (code, &said["tables"][0]["without"]),
        (Some(0), &Value::Null),
        "{said}\n{}",
        daemon.log_tail()
    );
    let rows = sink.connect().await.unwrap().query("SELECT id, came FROM t ORDER BY id", &[]).await.unwrap();
    let rows: Vec<(i32, Option<i32>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, [(1, None), (2, None), (3, Some(3))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_workload_with_changes_of_shape_and_crashes_ends_verified() {
    let crashes = number("CAUDAL_TEST_CRASHES", 0);
    if crashes == 0 {
        return;
    }
    let seed = number("CAUDAL_TEST_SEED", 2_026);
    let mut rng = SmallRng::seed_from_u64(seed);
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("torture").await.unwrap();
    let postgres = Postgres::start(&[]).unwrap();
    let sink = postgres.database("torture").await.unwrap();
    let workload = Workload::create(server.admin_url(&db)).await;
    let config = DaemonConfig::new(&format!("torture{}", std::process::id()))
        .source("shop", &server.url(&db), &[])
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", &sink, &[]);
    let mut daemon = Daemon::start(&config).unwrap();
    let clients: Vec<_> =
        (0..3).map(|client| tokio::spawn(workload.clone().client(seed * 10 + client, client == 0))).collect();
    for crash in 0..crashes {
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..2_500))).await;
        // Of the first two, one is of each.
        if if crash < 2 { crash == 0 } else { rng.random_range(0..2) == 0 } {
            daemon.kill().unwrap();
            daemon.start_again().unwrap();
        } else {
            postgres.service().stop(true).unwrap();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..1_000))).await;
            postgres.service().start_again().unwrap();
        }
    }
    workload.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    // A table's shape comes with its rows: the last change of each is followed by one.
    for (number, (table, _)) in TABLES.iter().enumerate() {
        let keys = ["id", "code", "a, b"][number];
        let row = format!("REPLACE INTO {table} ({keys}, n, s) VALUES ({}, 1, 'last')", key(number, 399).1);
        server.sql(&db, &row).await.unwrap();
    }
    let (done, changes) = (workload.done.load(Ordering::Relaxed), workload.changes.load(Ordering::Relaxed));
    assert!(done > 200 && changes > 3, "{done} statements, {changes} changes of shape are no workload");

    let (code, said) = verify(&daemon, &[]).await;
    assert_eq!((code, &said["equal"]), (Some(0), &true.into()), "seed {seed}: {said}\n{}", daemon.log_tail());
    assert_eq!(said["tables"].as_array().unwrap().len(), 3, "{said}");
    plant(&sink).await;
    let planted = ["t0 different", "t1 missing", "t1 surplus", "t2 different", "t2 surplus"];
    let (code, said) = verify(&daemon, &[]).await;
    assert_eq!(
        (code, differences(&said)),
        (Some(3), planted.map(str::to_owned).to_vec()),
        "seed {seed}: {said}"
    );
    let (code, said) = verify(&daemon, &["--repair"]).await;
    assert_eq!((code, &said["equal"]), (Some(0), &true.into()), "seed {seed}: {said}\n{}", daemon.log_tail());
}
