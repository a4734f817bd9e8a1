//! A reader that is behind, and servers that fall silent.

use crate::own::Own;
use crate::resume::events;
use crate::server::{Database, Stored, next, servers};
use caudal_core::{Fault, Position};
use mysql_async::prelude::Queryable;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What is logged, a line each.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The server keeps its log for 8 s, and what is read is 5 s old, with a lot behind it.
async fn warned(kind: &'static str) {
    let start = move || Own::start(kind, &["--binlog-expire-logs-seconds=8"]);
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    server.run(&["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY, s VARCHAR(200))"]).await;
    let text = format!(
        r#"{{"url":"mysql://cdc:cdc-secret@{}/shop","heartbeat":"100ms","batch_bytes":"64KiB","snapshot":{{"mode":"never"}}}}"#,
        server.place()
    );
    let source = caudal_mysql::source("test", serde_json::from_str(&text).unwrap()).unwrap();
    let mut stored = Stored::default();
    let mut reader = source.open(None).await.unwrap();
    stored.apply(&next(&mut reader).await);
    drop(reader);
    let mut conn = server.connect().await;
    for at in (0..60_000).step_by(2_000) {
        let rows: Vec<String> = (at..at + 2_000).map(|id| format!("({id}, REPEAT('x', 150))")).collect();
        conn.query_drop(format!("INSERT INTO shop.t VALUES {}", rows.join(","))).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;

    let lines = Lines::default();
    let _logged = tracing::subscriber::set_default(lines.clone());
    let mut reader = source.open(stored.position.clone().map(Position::Source)).await.unwrap();
    let mut rows = 0;
    let told =
        || lines.0.lock().unwrap().iter().find(|line| line.contains("purges its binlog by age")).cloned();
    while rows < 60_000 && told().is_none() {
        rows += next(&mut reader).await.events.len();
        // What is behind the reader is slow: the stream always has more.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told = told().unwrap_or_else(|| panic!("{kind}: nothing was said while {rows} rows were read"));
    assert!(
        rows < 60_000 && told.contains("hours_left=\"0.0\"") && told.contains("binlog_expire_logs_seconds"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_behind_says_how_many_hours_are_left_while_it_still_reads() {
    if std::env::var_os("CAUDAL_TEST_MARIADB_URL").is_some() {
        warned("mariadb").await;
    }
    if std::env::var_os("CAUDAL_TEST_MYSQL_URL").is_some() {
        warned("mysql97").await;
    }
}

/// Commands that ask for the log.
const DUMPS: [u8; 2] = [0x12, 0x1e];

/// Forwards until it is told not to: then it swallows what the stream of the log brings, and closes nothing.
async fn swallowing_proxy(to: String, silent: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, silent) = (to.clone(), Arc::clone(&silent));
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(&to).await else { return };
                let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                let mut dumps = false;
                loop {
                    let (bytes, out) = tokio::select! {
                        n = near.read(&mut a) => {
                            let bytes = n.ok().map(|n| &a[..n]);
                            dumps |= bytes.and_then(|b| b.get(4)).is_some_and(|code| DUMPS.contains(code));
                            (bytes, &mut far)
                        }
                        n = far.read(&mut b) => (n.ok().map(|n| &b[..n]), &mut near),
                    };
                    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return };
                    let swallowed = dumps && silent.load(Ordering::Relaxed);
                    if !swallowed && out.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_is_found_out_by_the_heartbeats_that_do_not_come() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
        let silent = Arc::new(AtomicBool::new(false));
        let (who, place) = server.url.rsplit_once('@').unwrap();
        let port = swallowing_proxy(place.split('/').next().unwrap().to_owned(), Arc::clone(&silent)).await;
        let text = format!(
            r#"{{"url":"{who}@127.0.0.1:{port}/{}","heartbeat":"500ms","tls":{{"mode":"disabled"}},"snapshot":{{"mode":"never"}}}}"#,
            database.name
        );
        let source = caudal_mysql::source("test", serde_json::from_str(&text).unwrap()).unwrap();
        let mut reader = source.open(None).await.unwrap_or_else(|e| panic!("open: {e}"));
        let mut stored = Stored::default();
        // Until the stream has beaten, too.
        for _ in 0..6 {
            stored.apply(&next(&mut reader).await);
        }
        silent.store(true, Ordering::Relaxed);
        database.run(&["INSERT INTO t VALUES (7)"]).await;
        // The connection stands, and all others work: nothing but the silence tells.
        let error = tokio::time::timeout(Duration::from_secs(45), async {
            loop {
                match reader.next().await {
                    Ok(batch) => assert!(batch.events.is_empty()),
                    Err(error) => return error,
                }
            }
        });
        let error = error.await.expect("the silence is found out");
        assert!(error.fault() == Fault::Transient && error.to_string().contains("silent"), "{error}");
        silent.store(false, Ordering::Relaxed);
        let mut reader = source.open(stored.position.clone().map(Position::Source)).await.unwrap();
        let mut seen = Vec::new();
        while seen.is_empty() {
            seen = events(&next(&mut reader).await);
        }
        assert_eq!(seen, ["t c 7"]);
        database.drop().await;
    }
}
