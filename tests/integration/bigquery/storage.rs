//! Results by the Storage Read API: the same rows as by REST, whatever breaks on the way.

use super::{Bench, COUNT, PATIENCE, caudal, last, logged, one, types, until};
use caudal_tests::bigquery::Emulator;
use caudal_tests::{Daemon, patience};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// More than what `auto` takes for large.
const LARGE: u32 = 150_000;

/// A relay before the emulator's Storage API; its connections end after so many bytes of answers, one after the other, and later ones are let be.
struct Relay {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    async fn start(ends: &'static [usize]) -> Self {
        let target = Emulator::shared().storage_port().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let end = ends.get(count.fetch_add(1, Ordering::SeqCst)).copied();
                tokio::spawn(pass(client, target, end.unwrap_or(usize::MAX)));
            }
        });
        Self { port, connections }
    }

    fn endpoint(&self) -> String {
        format!("storage_endpoint: http://127.0.0.1:{}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Passes on both ways until so many bytes have come back.
async fn pass(client: TcpStream, target: u16, mut left: usize) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let asked = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let Ok(n @ 1..) = from_server.read(&mut buffer).await else { break };
        let n = n.min(left);
        if to_client.write_all(&buffer[..n]).await.is_err() {
            break;
        }
        left -= n;
    }
    asked.abort();
}

async fn poll(daemon: &Daemon) -> serde_json::Value {
    let (code, said) = caudal(daemon, &["poll", "pulso", "gestiones"]);
    assert_eq!(code, 0, "{said}\n{}", daemon.log_tail());
    last(daemon, "gestiones").await
}

#[tokio::test(flavor = "multi_thread")]
async fn types_arrive_as_exactly_as_by_rest() {
    let bench = Bench::new("bq_avro").await;
    let relay = Relay::start(&[]).await;
    // Which the emulator fails to write in Avro.
    types(&bench, &["read: storage", &relay.endpoint()], "INTERVAL").await;
    assert!(relay.connections() > 0, "nothing was read by the Storage API");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_is_a_stream_that_goes_on_where_it_was_cut_and_gives_what_rest_gives() {
    let bench = Bench::new("bq_stream").await;
    bench.gestiones(LARGE).await;
    // The first connection opens the session.
    let relay = Relay::start(&[usize::MAX, 600_000, 100_000, 1_400_000]).await;
    let table = ["tables:", "  gestiones: {key: [id], every: 1h}"];
    let mut daemon = bench.start(&[&[relay.endpoint().as_str()][..], &table].concat());
    until(&daemon, &bench.sink, COUNT, &LARGE.to_string()).await;
    let sums = "SELECT concat(sum(id), ' ', count(DISTINCT id), ' ', count(DISTINCT nombre), ' ', max(fecha)) FROM gestiones";
    let sum = u64::from(LARGE) * u64::from(LARGE + 1) / 2;
    assert_eq!(one(&bench.sink, sums).await.unwrap(), format!("{sum} {LARGE} {LARGE} 2026-01-10"));
    assert!(relay.connections() >= 5, "{} connections", relay.connections());
    let run = last(&daemon, "gestiones").await;
    assert_eq!((&run["rows"], &run["changed"]), (&LARGE.into(), &LARGE.into()), "{run}");
    let state = bench.front.state().asked.iter().filter(|a| a.parameters.contains_key("pageToken")).count();
    assert_eq!((state, bench.front.state().queries().len()), (0, 1), "one query, and no page by REST");

    // By REST not a row has changed.
    daemon.terminate(PATIENCE).await.unwrap();
    drop(daemon);
    let daemon = bench.start(&[&["read: rest"][..], &table].concat());
    logged(&daemon, "polling").await;
    let run = poll(&daemon).await;
    assert_eq!((&run["rows"], &run["changed"]), (&LARGE.into(), &0.into()), "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_storage_api_is_out_of_reach_auto_reads_by_rest_and_says_so() {
    let bench = Bench::new("bq_fallback").await;
    bench.gestiones(LARGE).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let endpoint = format!("storage_endpoint: http://127.0.0.1:{closed}");
    let table = ["tables:", "  gestiones: {key: [id], every: 1h}"];
    let mut daemon = bench.start(&[&[endpoint.as_str()][..], &table].concat());
    until(&daemon, &bench.sink, COUNT, &LARGE.to_string()).await;
    let told = async || {
        let found = last(&daemon, "gestiones").await["findings"].to_string();
        Ok(found.contains("read by REST, which is slower") && found.contains("connect to 127.0.0.1"))
    };
    patience::until("the finding", PATIENCE, Duration::from_millis(100), told).await.unwrap();
    daemon.terminate(PATIENCE).await.unwrap();
    drop(daemon);

    let daemon = bench.start(&[&["read: storage", "attempts: 1", &endpoint][..], &table].concat());
    logged(&daemon, "open the result for reading: connect to 127.0.0.1").await;
    assert_eq!(one(&bench.sink, COUNT).await.unwrap(), LARGE.to_string());
}
