//! What hostile or broken clients send costs them their connection, and nobody else anything.

use super::kit::{Bench, Client, frame};
use crate::api::OFFERED;
use crate::batch::samples;
use kafka_protocol::messages::{ApiKey, RequestKind};

async fn still_serves(bench: &Bench) {
    let mut client = bench.client().await;
    assert_eq!(client.create_topic("probe", 1, &[]).await % 36, 0, "created, or there already");
    client.produce("probe", None, samples::plain(&[(None, Some("v"))])).await.unwrap();
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_impossible_size_close_the_connection() {
    let bench = Bench::start().await;
    for size in [-1i32, 0, 7, i32::MAX, 33 << 20] {
        let mut client = bench.client().await;
        client.send_raw(&size.to_be_bytes()).await;
        client.send_raw(b"GET / HTTP/1.1").await;
        assert!(client.is_closed().await, "size {size}");
    }
    still_serves(&bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_array_that_says_it_has_two_thousand_million_elements_reserves_nothing() {
    let bench = Bench::start().await;
    for (key, low, high) in OFFERED {
        for version in *low..=*high {
            let flexible = key.request_header_version(version) >= 2;
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&(*key as i16).to_be_bytes());
            bytes.extend_from_slice(&version.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
            bytes.extend_from_slice(if flexible { &[0] } else { &[] });
            // Whatever the fields are, each count is as large as it can be.
            bytes.extend_from_slice(if flexible {
                &[0xff, 0xff, 0xff, 0xff, 0x07]
            } else {
                &[0x7f, 0xff, 0xff, 0xff]
            });
            bytes.extend_from_slice(&[0x7f; 64]);
            let mut client = bench.client().await;
            client.send_raw(&(bytes.len() as i32).to_be_bytes()).await;
            client.send_raw(&bytes).await;
        }
    }
    still_serves(&bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutated_requests_never_end_the_server() {
    let bench = Bench::start().await;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let batch = samples::plain(&[(Some("k"), Some("v"))]);
    let produce = frame(ApiKey::Produce, 9, 1, &Client::produce_request("probe", 0, None, batch));
    for _ in 0..400 {
        let mut bytes = produce.to_vec();
        for _ in 0..1 + random.next(4) {
            let at = 4 + random.next(bytes.len() - 4);
            bytes[at] ^= 1 << random.next(8);
        }
        bench.client().await.send_raw(&bytes).await;
    }
    still_serves(&bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_batches_are_refused_and_leave_nothing() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    client.create_topic("t", 1, &[]).await;
    let batch = samples::plain(&[(Some("k"), Some("v"))]);
    for at in 16..batch.len() {
        let mut bad = batch.to_vec();
        bad[at] ^= 0x10;
        assert!(client.produce("t", None, bad.into()).await.is_err(), "byte {at}");
    }
    let two = [batch.as_ref(), batch.as_ref()].concat();
    assert!(client.produce("t", None, two.into()).await.is_err());
    assert_eq!(client.offset("t", -1, false).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_closed_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::Config { max_connections: 2, ..super::kit::config(folder.path()) };
    let log = crate::Log::start(config).await.unwrap();
    let mut first = Client::connect(log.address()).await;
    first.create_topic("t", 1, &[]).await;
    let mut second = Client::connect(log.address()).await;
    second.offset("t", -1, false).await;
    assert!(Client::connect(log.address()).await.is_closed().await);
    assert_eq!(first.offset("t", -1, false).await, 0);
    drop(second);
    log.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_not_offered_closes_the_connection() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let request = kafka_protocol::messages::SaslHandshakeRequest::default();
    client.send(ApiKey::SaslHandshake, 1, &RequestKind::SaslHandshake(request)).await;
    assert!(client.is_closed().await);
    still_serves(&bench).await;
}
