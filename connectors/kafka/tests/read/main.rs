//! Reading the log for a sink, against a real one: `CAUDAL_TEST_KAFKA` holds its `host:port`; without it nothing runs.

#![allow(clippy::unwrap_used, reason = "tests, and what only tests call")]

mod conformance;
mod split;
mod support;

use caudal_core::{Fault, Op, Position, Raw, Rejected, Source, SweepPart, Undecodable};
use caudal_kafka::{Consistency, TapFrom};
use std::time::Duration;
use support::{Capture, TestLog, change, drain, drain_events, eventually};

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
async fn a_recreated_topic_is_read_from_its_first_record_with_a_sweep() {
    for consistency in [Consistency::Transaction, Consistency::Key] {
        let log = log_or_return!();
        let mut capture = Capture::open(&log, "src").await;
        capture.transaction(&[change("a", Op::Create, 1)]).await;
        let source = log.source("sink", &["src"], consistency);
        source.claim().await.unwrap();
        let mut reader = source.open(None).await.unwrap();
        let seen = drain_events(reader.as_mut(), 1).await;
        drop((reader, capture));
        log.delete(&log.topic("a")).await;
        let mut capture = Capture::open(&log, "src").await;
        capture.transaction(&[change("a", Op::Create, 2), change("a", Op::Create, 3)]).await;
        source.claim().await.unwrap();
        let mut reader = source.open(Some(Position::Log(seen.position))).await.unwrap();
        let seen = drain_events(reader.as_mut(), 2).await;
        assert_eq!(seen.of("a"), ["c2", "c3"], "{consistency:?}");
        assert_eq!(seen.sweeps, [SweepPart::Begin, SweepPart::End], "{consistency:?}");
    }
}

/// The capture does not start anew: it finds that its topic is another one by the offsets that its records get.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_under_a_running_capture_is_met_again() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1), change("b", Op::Create, 1)]).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    let mut seen = drain_events(reader.as_mut(), 2).await;
    log.delete(&log.topic("a")).await;
    log.create(&log.topic("a")).await;
    eventually("the capture writes to the new topic", async || {
        capture.try_transaction(&[change("a", Op::Create, 2)]).await.is_ok()
    })
    .await;
    let error = loop {
        match reader.next().await {
            Ok(batch) => seen.take(&batch),
            Err(error) => break error,
        }
    };
    assert_eq!(error.fault(), Fault::Transient, "{error}");
    drop(reader);
    source.claim().await.unwrap();
    let mut reader = source.open(Some(Position::Log(seen.position))).await.unwrap();
    let seen = drain_events(reader.as_mut(), 1).await;
    assert_eq!((seen.of("a"), seen.sweeps.len()), (vec!["c2".to_owned()], 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_key_mode_each_row_comes_once_and_new_tables_are_shared() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1), change("b", Op::Create, 1)]).await;
    let source = log.source("sink", &["src"], Consistency::Key);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    let mut seen = support::Seen::default();
    while seen.count < 2 {
        seen.take(&reader.next().await.unwrap());
    }
    capture.transaction(&[change("c", Op::Create, 1), change("a", Op::Update, 1)]).await;
    let error = loop {
        match reader.next().await {
            Ok(batch) => seen.take(&batch),
            Err(error) => break error,
        }
    };
    assert_eq!(error.fault(), Fault::Transient, "{error}");
    drop(reader);
    source.claim().await.unwrap();
    let mut reader = source.open(Some(Position::Log(seen.position.clone()))).await.unwrap();
    while seen.count < 4 || !seen.ends_at_boundary {
        let batch = reader.next().await.unwrap();
        seen.take(&batch);
        reader.commit(&Position::Log(seen.position.clone())).await.unwrap();
        if seen.count == 4 {
            // A watermark after the opening is what freshness starts with.
            capture.transaction(&[]).await;
        }
    }
    assert_eq!(
        (seen.of("a"), seen.of("b"), seen.of("c")),
        (vec!["c1".into(), "u1".into()], vec!["c1".into()], vec!["c1".into()],)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_between_the_claim_and_the_opening_is_read_too() {
    let log = log_or_return!();
    let mut early = Capture::open(&log, "early").await;
    early.transaction(&[change("a", Op::Create, 1)]).await;
    let source = log.source("sink", &["early", "late"], Consistency::Key);
    source.claim().await.unwrap();
    let mut late = Capture::open(&log, "late").await;
    late.transaction(&[change("b", Op::Create, 1)]).await;
    let mut seen = support::Seen::default();
    let both = async {
        while seen.count < 2 {
            let mut reader = source.open(Some(Position::Log(seen.position.clone()))).await.unwrap();
            // Until the group has given it the other table too.
            while seen.count < 2
                && let Ok(batch) = reader.next().await
            {
                seen.take(&batch);
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, both).await.expect("the table of the late source has an owner");
    assert_eq!((seen.of("a"), seen.of("b")), (vec!["c1".to_owned()], vec!["c1".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_holds_no_reader_up() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1)]).await;
    // Nobody listens there.
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let half = log.with_brokers(&[&away.to_string(), &log.brokers]);
    let source = half.source("sink", &["src"], Consistency::Transaction);
    let opened = async {
        source.claim().await.unwrap();
        source.open(None).await.unwrap()
    };
    let mut reader = tokio::time::timeout(support::PATIENCE, opened).await.expect("opened");
    assert_eq!(drain(reader.as_mut(), 1).await.of("a"), ["c1"]);
    let mut tap = half.log.tap(&[], TapFrom::Beginning).await.unwrap();
    let first = tokio::time::timeout(support::PATIENCE, tap.next()).await.unwrap().unwrap();
    assert_eq!((first.topic, first.offset), (log.topic("a"), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_starts_while_the_first_one_has_no_table_is_not_waited_past() {
    let log = log_or_return!();
    let _idle = Capture::open(&log, "idle").await;
    let source = log.source("sink", &["idle", "late"], Consistency::Key);
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut late = Capture::open(&log, "late").await;
        late.transaction(&[change("b", Op::Create, 1)]).await;
        late
    };
    let claimed = async {
        tokio::time::timeout(support::PATIENCE, source.claim()).await.expect("there is a table").unwrap();
    };
    let (_late, ()) = tokio::join!(late, claimed);
    let mut reader = source.open(None).await.unwrap();
    let mut seen = support::Seen::default();
    while seen.of("b").is_empty() {
        seen.take(&reader.next().await.unwrap());
    }
    assert_eq!(seen.of("b"), ["c1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_instance_leaves_another_one_goes_on_undisturbed() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1)]).await;
    let first = log.source("sink", &["src"], Consistency::Transaction);
    first.claim().await.unwrap();
    let mut reader = first.open(None).await.unwrap();
    let seen = drain(reader.as_mut(), 1).await;
    let second = log.source("sink", &["src"], Consistency::Transaction);
    let waiting = tokio::spawn(async move {
        second.claim().await.unwrap();
        second
    });
    drop((reader, first));
    let second = tokio::time::timeout(support::PATIENCE, waiting).await.unwrap().unwrap();
    let mut reader = second.open(Some(Position::Log(seen.position))).await.unwrap();
    capture.transaction(&[change("a", Op::Create, 2)]).await;
    assert_eq!(drain(reader.as_mut(), 1).await.of("a"), ["c2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_of_several_sources_works_in_one_instance_and_another_waits() {
    let log = log_or_return!();
    let mut captures = Vec::new();
    // More than half of the partitions that the group gives out: two members cannot but both get one of these.
    let sources = ["s0", "s1", "s2", "s3", "s4"];
    for source in sources {
        let mut capture = Capture::open(&log, source).await;
        capture.transaction(&[change(source, Op::Create, 1)]).await;
        captures.push(capture);
    }
    let first = log.source("sink", &sources, Consistency::Transaction);
    first.claim().await.unwrap();
    let mut reader = first.open(None).await.unwrap();
    drain(reader.as_mut(), sources.len()).await;
    let second = log.source("sink", &sources, Consistency::Transaction);
    // Long enough for the group to share its partitions anew; one of the two then works, and for all sources.
    let granted = tokio::select! {
        granted = tokio::time::timeout(Duration::from_secs(8), second.claim()) => granted.is_ok(),
        fenced = async { loop { if let Err(error) = reader.next().await { break error } } } => {
            assert_eq!(fenced.fault(), Fault::Fenced, "{fenced}");
            second.claim().await.unwrap();
            true
        }
    };
    if granted {
        reader = second.open(None).await.unwrap();
        drain(reader.as_mut(), sources.len()).await;
    }
    for (capture, source) in captures.iter_mut().zip(sources) {
        capture.transaction(&[change(source, Op::Create, 2)]).await;
    }
    let seen = drain(reader.as_mut(), sources.len()).await;
    assert!(sources.iter().all(|source| seen.of(source) == ["c2"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_partition_the_group_gives_away_stops_as_fenced() {
    let log = log_or_return!();
    let mut captures = Vec::new();
    for source in ["s0", "s1"] {
        let mut capture = Capture::open(&log, source).await;
        capture.transaction(&[change(source, Op::Create, 1)]).await;
        captures.push(capture);
    }
    let both = ["s0", "s1"];
    let first = log.source("sink", &both, Consistency::Key);
    first.claim().await.unwrap();
    // Both tables were there, so the group's first member has both, and a second one takes over one of them.
    let mut reader = first.open(None).await.unwrap();
    let second = log.source("sink", &both, Consistency::Key);
    second.claim().await.unwrap();
    let error = loop {
        if let Err(error) = reader.next().await {
            break error;
        }
    };
    assert_eq!(error.fault(), Fault::Fenced, "{error}");
    first.claim().await.unwrap();
    assert!(first.open(None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_see_no_lag_on_idle_partitions_and_freshness_follows_what_is_durable() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1), change("b", Op::Create, 1)]).await;
    capture.transaction(&[change("a", Op::Create, 2)]).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    let seen = drain(reader.as_mut(), 3).await;
    assert!(source.freshness().watermarks().is_empty());
    reader.commit(&Position::Log(seen.position.clone())).await.unwrap();
    assert_eq!(source.freshness().watermarks()["src"], 2);
    eventually("the lag is 0", async || {
        reader.next().await.unwrap();
        let status = log.log.sink_status("sink", &["src".to_owned()]).await.unwrap();
        status.partitions.len() == 2 && status.lag() == 0 && status.applied.get("src") == Some(&2)
    })
    .await;
    let sources = log.log.source_status().await.unwrap();
    assert_eq!((sources[0].source.as_str(), sources[0].position.as_str()), ("src", "2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_between_are_not_seen_and_stop_nothing() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1)]).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    drain(reader.as_mut(), 1).await;
    for n in 2..5 {
        log.abort(&log.topic("a"), 3).await;
        capture.transaction(&[change("a", Op::Create, n)]).await;
        assert_eq!(drain(reader.as_mut(), 1).await.of("a"), [format!("c{n}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_are_read_by_one_reader() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    let all = |op| (0..60).map(|n| change(&format!("t{n:02}"), op, n)).collect::<Vec<_>>();
    capture.transaction(&all(Op::Create)).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    assert_eq!(drain(reader.as_mut(), 60).await.events.len(), 60);
    capture.transaction(&all(Op::Update)).await;
    capture.transaction(&[change("t07", Op::Delete, 7)]).await;
    let seen = drain(reader.as_mut(), 61).await;
    assert_eq!(seen.of("t07"), ["u7", "d7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_holds_the_record_as_it_came() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1)]).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    let mut batch = loop {
        let batch = reader.next().await.unwrap();
        if !batch.events.is_empty() {
            break batch;
        }
    };
    let raw = Raw { offset: 41, key: None, value: batch.raw[0].value, ..batch.raw[0].clone() };
    batch.undecodable.push(Undecodable { raw, cause: "not JSON".into() });
    let rejected = [Rejected { event: 0, cause: "too long".into() }];
    log.log.dead_letters("sink").put(&batch, &rejected, 3).await.unwrap();
    let letters = log.all(&format!("caudal.{}.dlq.sink", log.prefix)).await;
    let original = log.all(&log.topic("a")).await;
    assert_eq!(letters.len(), 2);
    let letter = &letters[&format!("{}/0/0", log.topic("a"))];
    assert_eq!(letter.value, original.values().next().unwrap().value);
    assert_eq!(letter.headers["caudal.key"], "{\"id\":1}");
    assert_eq!(letter.headers["caudal.cause"], "too long");
    assert_eq!(letter.headers["caudal.attempts"], "3");
    assert_eq!(letters[&format!("{}/0/41", log.topic("a"))].headers["caudal.cause"], "not JSON");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_shows_what_is_committed_and_new_tables_too() {
    let log = log_or_return!();
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[change("a", Op::Create, 1)]).await;
    let mut tap = log.log.tap(&[], TapFrom::Beginning).await.unwrap();
    let next = async |tap: &mut caudal_kafka::Tap| {
        tokio::time::timeout(support::PATIENCE, tap.next()).await.unwrap().unwrap()
    };
    let first = next(&mut tap).await;
    assert_eq!((first.topic, first.offset), (log.topic("a"), 0));
    capture.transaction(&[change("new", Op::Create, 1)]).await;
    assert_eq!(next(&mut tap).await.topic, log.topic("new"));
}
