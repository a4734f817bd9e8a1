//! Reading the log for a sink, against a real one: `CAUDAL_TEST_KAFKA` holds its `host:port`; without it nothing runs.

#![allow(clippy::unwrap_used, reason = "tests, and what only tests call")]

mod support;

use caudal_core::{Fault, Op, Source};
use caudal_kafka::Consistency;
use support::{Capture, TestLog, change, drain};

macro_rules! log_or_return {
    () => {
        match TestLog::from_env() {
            Some(log) => log,
            None => return,
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_sees_whole_transactions_across_tables_in_order() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1), change("b", Op::Create, 1)]).await;
    capture.transaction(&[change("a", Op::Update, 1), change("b", Op::Delete, 1)]).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    let seen = drain(reader.as_mut(), 4).await;
    assert_eq!(seen.of("a"), ["c1", "u1"]);
    assert_eq!(seen.of("b"), ["c1", "d1"]);
    assert!(seen.ends_at_boundary);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_at_any_boundary_gives_each_event_once() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    for n in 0..5 {
        capture.transaction(&[change("a", Op::Create, n), change("b", Op::Create, n)]).await;
    }
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut all = support::Seen::default();
    let mut position = None;
    for n in 5..10 {
        let mut reader = source.open(position.clone().map(caudal_core::Position::Log)).await.unwrap();
        let wanted = if n == 5 { 10 } else { 2 };
        all.extend(drain(reader.as_mut(), wanted).await);
        position = Some(all.position.clone());
        capture.transaction(&[change("a", Op::Create, n), change("b", Op::Create, n)]).await;
    }
    let expected: Vec<String> = (0..9).map(|n| format!("c{n}")).collect();
    assert_eq!(all.of("a"), expected);
    assert_eq!(all.of("b"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_named_and_not_read() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1)]).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    let seen = drain(reader.as_mut(), 1).await;
    drop(reader);
    drop(capture);
    log.delete(&log.topic("a")).await;
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 2), change("a", Op::Create, 3)]).await;
    let error = support::fails(source.as_ref(), seen.position).await;
    assert_eq!(error.fault(), Fault::Data, "{error}");
    assert!(error.to_string().contains(&log.topic("a")), "{error}");
    assert!(error.hint_text().unwrap().contains("rebuild"));
}
