//! What is read first, how far it is said to be, and under which ids; how much a start asks of the server.

use crate::server::{Database, Kind, Stored, full_servers, next, servers};
use caudal_core::{Fault, Phase, Position};
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_tables_are_read_first_and_tell_how_far_they_are() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE a_small (id INT PRIMARY KEY)",
                "INSERT INTO a_small VALUES (1), (2), (3)",
                "CREATE TABLE m_large (id INT PRIMARY KEY, s VARCHAR(100))",
                "CREATE TABLE z_small (id INT PRIMARY KEY)",
                "INSERT INTO z_small VALUES (1), (2), (3)",
            ])
            .await;
        let mut conn = database.connect().await;
        for at in (0..6_000).step_by(1_000) {
            let rows: Vec<String> = (at..at + 1_000).map(|i| format!("({i}, REPEAT('x', 90))")).collect();
            conn.query_drop(format!("INSERT INTO m_large VALUES {}", rows.join(","))).await.unwrap();
        }
        database.run(&["ANALYZE TABLE a_small, m_large, z_small"]).await;
        let options = r#""tables":["*"],"snapshot":{"chunk_rows":200,"readers":1}"#;
        let source = caudal_mysql::source("test", database.config(options)).unwrap();
        let mut reader = source.open(None).await.unwrap();
        let (mut stored, mut order, mut rows) = (Stored::default(), Vec::<String>::new(), 0);
        let mut estimates = Vec::new();
        while !stored.done(&["a_small", "m_large", "z_small"]) {
            let batch = next(&mut reader).await;
            stored.apply(&batch);
            for event in &batch.events {
                let table = &batch.table(event).id.table;
                if order.last() != Some(table) {
                    order.push(table.clone());
                }
                rows += u64::from(table == "m_large");
            }
            let large = format!("{}.m_large", database.name);
            let shown = source.progress().into_iter().find(|p| p.table == large);
            let Some(shown) = shown.filter(|p| p.phase == Phase::Reading && p.rows > 0) else { continue };
            assert!(shown.rows <= rows + 200 && shown.rows <= shown.estimated_rows, "{shown:?} of {rows}");
            estimates.push((shown.estimated_rows, shown.seconds_left.is_some()));
        }
        assert_eq!(order.first().map(String::as_str), Some("m_large"), "{order:?}");
        assert_eq!(order.len(), 3, "one after the other: {order:?}");
        // As the server estimates, which need not be exact.
        assert!(estimates.len() > 3, "{estimates:?}");
        assert!(estimates.iter().all(|(n, _)| (3_000..=12_000).contains(n)), "{estimates:?}");
        assert!(estimates.iter().any(|(_, left)| *left), "{estimates:?}");
        let ended = source.progress().into_iter().filter(|p| p.phase == Phase::Done).count();
        assert_eq!(ended, 3);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reader_has_a_server_id_of_its_own_and_the_servers_is_refused() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
        let mut conn = database.connect().await;
        let own: u32 = conn.query_first("SELECT @@GLOBAL.server_id").await.unwrap().unwrap();
        let options = |id: u32| format!(r#""server_id":{id},"snapshot":{{"mode":"never"}}"#);
        let error = database.try_open(None, &options(own)).await.err().expect("its own id is refused");
        assert_eq!(
            (error.fault(), error.field_name()),
            (Fault::Config, Some("sources.test.server_id")),
            "{error}"
        );
        let chosen = 60_000 + std::process::id() % 4_000;
        let never = r#""snapshot":{"mode":"never"}"#;
        let mut readers = [
            database.open(None, &options(chosen)).await,
            database.open(None, never).await,
            database.open(None, never).await,
        ];
        for reader in &mut readers {
            let _ = next(reader).await;
        }
        // The list of MySQL 8.0.15 lacks a field, which not every client takes.
        if server.kind == Kind::Old {
            continue;
        }
        let list = if server.mariadb { "SHOW SLAVE HOSTS" } else { "SHOW REPLICAS" };
        let rows: Vec<mysql_async::Row> = conn.query(list).await.unwrap();
        let ids: Vec<u32> = rows.iter().filter_map(|row| row.get(0)).collect();
        assert_eq!(ids.iter().filter(|id| **id == chosen).count(), 1, "{ids:?}");
        let mut by_chance: Vec<u32> = ids.iter().copied().filter(|id| *id >= 0x8000_0000).collect();
        let all = by_chance.len();
        by_chance.sort_unstable();
        by_chance.dedup();
        assert!(all >= 2 && by_chance.len() == all, "{ids:?}");
        drop(readers);
        database.drop().await;
    }
}

/// Forwards, and counts what is asked of the server.
async fn counting_proxy(to: String, asked: Arc<AtomicUsize>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, asked) = (to.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(&to).await else { return };
                let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                loop {
                    let (bytes, out) = tokio::select! {
                        n = near.read(&mut a) => {
                            asked.fetch_add(1, Ordering::Relaxed);
                            (n.ok().map(|n| &a[..n]), &mut far)
                        }
                        n = far.read(&mut b) => (n.ok().map(|n| &b[..n]), &mut near),
                    };
                    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return };
                    if out.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// CAUDAL_TEST_TABLES raises it.
fn table_count() -> usize {
    std::env::var("CAUDAL_TEST_TABLES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_asks_as_much_of_a_server_with_many_tables_and_years_of_changes_as_of_one_with_few() {
    for server in full_servers() {
        let mut asked = Vec::new();
        for tables in [10, table_count()] {
            let database = Database::create(&server).await;
            let mut conn = database.connect().await;
            for table in 0..tables {
                conn.query_drop(format!("CREATE TABLE t{table} (id INT PRIMARY KEY, v INT)")).await.unwrap();
            }
            let count = Arc::new(AtomicUsize::new(0));
            let (who, place) = server.url.rsplit_once('@').unwrap();
            let port = counting_proxy(place.split('/').next().unwrap().to_owned(), Arc::clone(&count)).await;
            // Plain, for what is counted are the client's packets; and no heartbeat while it lasts.
            let text = format!(
                r#"{{"url":"{who}@127.0.0.1:{port}/{}","heartbeat":"60s","tls":{{"mode":"disabled"}},"snapshot":{{"mode":"never"}}}}"#,
                database.name
            );
            let source = caudal_mysql::source("test", serde_json::from_str(&text).unwrap()).unwrap();
            let mut reader = source.open(None).await.unwrap_or_else(|e| panic!("open: {e}"));
            let mut stored = Stored::default();
            stored.apply(&next(&mut reader).await);
            let first = count.load(Ordering::Relaxed);
            // Years of changes.
            for table in 0..tables {
                conn.query_drop(format!("INSERT INTO t{table} VALUES (1, 1)")).await.unwrap();
                conn.query_drop(format!("ALTER TABLE t{table} ADD COLUMN w INT")).await.unwrap();
                conn.query_drop(format!("INSERT INTO t{table} VALUES (2, 2, 2)")).await.unwrap();
            }
            let mut rows = 0;
            while rows < 2 * tables {
                let batch = next(&mut reader).await;
                rows += batch.events.len();
                stored.apply(&batch);
            }
            drop(reader);
            count.store(0, Ordering::Relaxed);
            let mut reader = source.open(stored.position.map(Position::Source)).await.unwrap();
            let _ = next(&mut reader).await;
            asked.push((first, count.load(Ordering::Relaxed)));
            drop(reader);
            database.drop().await;
        }
        let (few, many) = (asked[0], asked[1]);
        assert!(many.0 <= few.0 + 10, "the first start: {asked:?}");
        assert!(many.1 <= few.1 + 10, "the next, behind changes of each table: {asked:?}");
    }
}
