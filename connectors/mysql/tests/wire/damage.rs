//! What comes damaged, cut, late or not at all ends in an error, never in a wrong value; and the next stream goes on where the last
//! whole transaction ended.

use super::proxy::{Harm, Plan, Proxy};
use super::server::{MARIADB, MYSQL, Server, decode};
use caudal_core::{Fault, TableSchema};
use caudal_mysql::binlog::{BinlogStream, Event, EventKind, Start, StreamOptions};
use caudal_mysql::connection::Endpoint;
use caudal_mysql::gtid::{Gtid, GtidSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Each kind of harm twice, once in large transactions and once in small ones; more with `CAUDAL_TEST_DAMAGES`.
fn rounds() -> u64 {
    std::env::var("CAUDAL_TEST_DAMAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

const PATIENCE: Duration = Duration::from_secs(60);

/// What one stream gave: whole transactions of the table.
struct Reading {
    schema: Arc<TableSchema>,
    done: GtidSet,
    rows: Vec<String>,
    open: Vec<Event>,
    gtid: Option<Gtid>,
}

impl Reading {
    fn take(&mut self, event: Event) {
        match &event.kind {
            EventKind::Begin(begin) => {
                self.gtid.clone_from(&begin.gtid);
                self.open.clear();
            }
            EventKind::Rows(_) => self.open.push(event),
            EventKind::Commit => {
                for row in decode(&self.open, &self.schema) {
                    self.rows.push(format!("{:?} {:?} {:?}", row.op, row.before, row.after));
                }
                self.open.clear();
                if let Some(gtid) = self.gtid.take() {
                    self.done.add(&gtid).expect("a GTID of this server");
                }
            }
            _ => {}
        }
    }
}

async fn open(endpoint: &Endpoint, start: GtidSet) -> caudal_core::Result<BinlogStream> {
    static SERVER_ID: AtomicU32 = AtomicU32::new(0);
    let id = 90_000_000 + std::process::id() % 10_000 * 1_000 + SERVER_ID.fetch_add(1, Ordering::Relaxed);
    let mut options = StreamOptions::new(id, Start::Gtid(start));
    options.heartbeat = Duration::from_millis(200);
    BinlogStream::open(endpoint, options).await
}

/// Rows whose bytes decode to something, whatever they are, beside large ones.
async fn workload(server: &mut Server) {
    server
        .run("CREATE TABLE t (id INT PRIMARY KEY, n TINYINT, v VARCHAR(60), d DECIMAL(10,2), b LONGBLOB)")
        .await;
    for id in 0..60 {
        server.run(&format!("INSERT INTO t VALUES ({id}, {id}, REPEAT('x', {id}), {id}.5, NULL)")).await;
        match id % 5 {
            0 => server.run(&format!("UPDATE t SET n = n + 1, v = 'y' WHERE id = {id}")).await,
            1 => server.run(&format!("DELETE FROM t WHERE id = {id}")).await,
            2 => server.run(&format!("UPDATE t SET b = RANDOM_BYTES({}) WHERE id = {id}", id * 16)).await,
            _ => {}
        }
    }
    // Compressed, it is still over what is held in memory.
    for step in ["BEGIN", "INSERT INTO t SELECT id + 1000, n, v, d, RANDOM_BYTES(1024) FROM t"] {
        server.run(step).await;
    }
    for n in 0..4 {
        server
            .run(&format!("INSERT INTO t SELECT id + {}, n, v, d, RANDOM_BYTES(1024) FROM t", 2000 << n))
            .await;
    }
    server.run("COMMIT").await;
    server.run("INSERT INTO t VALUES (-1, 1, 'last', 0, NULL)").await;
}

async fn nothing_damaged_is_believed(variable: &str, compress: bool, name: &str) {
    let Some(mut server) = Server::open(variable, name).await else { return };
    if compress {
        server.run("SET SESSION binlog_transaction_compression=ON").await;
    }
    let start = server.gtids().await;
    workload(&mut server).await;
    let schema = server.shape("t").await;
    let reading = || Reading {
        schema: Arc::clone(&schema),
        done: start.clone(),
        rows: vec![],
        open: vec![],
        gtid: None,
    };
    let last = |reading: &Reading| reading.rows.last().is_some_and(|row| row.contains("\"last\""));

    let mut whole = reading();
    let target = format!("{}:{}", server.endpoint.host, server.endpoint.port);
    let proxy = Proxy::start(&target, 7).await.expect("a free port");
    let endpoint = Endpoint { host: "127.0.0.1".into(), port: proxy.port(), ..server.endpoint.clone() };
    let mut stream = open(&endpoint, start.clone()).await.expect("the proxy lets it through");
    while !last(&whole) {
        let event = tokio::time::timeout(PATIENCE, stream.next()).await.expect("events come");
        whole.take(event.unwrap_or_else(|e| panic!("{e}")));
    }
    assert!(whole.rows.len() > 1000, "{}", whole.rows.len());
    let length = proxy.passed();

    let mut errors = 0;
    for round in 0..rounds() {
        let harm = Harm::ALL[(round % 8) as usize];
        // The large transaction takes most of the stream: half of the rounds aim at the small ones.
        let within = if round / 8 % 2 == 0 { length } else { 30_000 };
        proxy.plan(Some(Plan { harms: vec![harm], within, again: true }));
        let mut got = reading();
        let mut harmed = 0;
        while !last(&got) {
            let mut stream = match open(&endpoint, got.done.clone()).await {
                Ok(stream) => stream,
                Err(e) => panic!("open: {e}"),
            };
            loop {
                // A harmed stream that goes on to the end is one that believed what it should not.
                if last(&got) && !proxy.harmed() {
                    break;
                }
                match tokio::time::timeout(PATIENCE, stream.next()).await {
                    Ok(Ok(event)) => got.take(event),
                    Ok(Err(e)) => {
                        assert_eq!(e.fault(), Fault::Transient, "{harm:?}: {e}");
                        errors += u32::from(proxy.harmed());
                        break;
                    }
                    Err(_) => panic!("round {round}: {harm:?} went by without an error"),
                }
            }
            harmed += 1;
            // Silence takes its time.
            if harmed == 2 || harm == Harm::Silence {
                proxy.plan(None);
            }
        }
        assert_eq!(got.rows.len(), whole.rows.len(), "round {round}: {harm:?}");
        assert!(got.rows == whole.rows, "round {round}: {harm:?} gave other rows");
    }
    println!("{errors} errors in {} rounds over {length} bytes", rounds());
    assert!(u64::from(errors) >= rounds() / 3, "{errors} errors");
}

#[tokio::test]
async fn no_damage_to_mariadbs_stream_is_believed_and_the_next_one_goes_on() {
    nothing_damaged_is_believed(MARIADB, false, "wire_damage").await;
}

#[tokio::test]
async fn no_damage_to_mysqls_stream_is_believed_and_the_next_one_goes_on() {
    nothing_damaged_is_believed(MYSQL, true, "wire_damage").await;
}
