//! Rows larger than a record may be, in parts: whole or not at all, whatever dies.

use crate::support::{Capture, Change, PATIENCE, TestLog, change};
use caudal_core::quantity::SizeText;
use caudal_core::{Batch, Cell, LogPosition, Op, Position, Reader, Source, SweepPart};
use caudal_kafka::Consistency;
use caudal_kafka::config::{Oversize, Topics};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CHILD: &str = "CAUDAL_SPLIT_CHILD";

fn log(prefix: Option<&str>) -> Option<TestLog> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let prefix = prefix.map_or_else(|| format!("s{now}x{}", std::process::id()), str::to_owned);
    let topics =
        Topics { max_message_bytes: SizeText::mib(1), oversize: Oversize::Split, ..Topics::default() };
    TestLog::of(&prefix, topics)
}

/// Text that differs in each row and place, and does not compress to nothing.
fn text(id: i64, bytes: usize) -> String {
    let mut state = id as u64 * 2 + 1;
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    text.truncate(bytes);
    text
}

fn large(op: Op, id: i64, bytes: usize) -> Change {
    Change { text: text(id, bytes), ..change("a", op, id) }
}

/// The events of a batch: operation, id, and bytes of a text that is checked.
fn events(batch: &Batch, seen: &mut Vec<String>) {
    assert!(batch.undecodable.is_empty(), "{:?}", batch.undecodable[0].cause);
    for event in &batch.events {
        let row = batch.after(event).or(batch.before(event)).unwrap();
        let (Cell::I64(id), Cell::Text(slice)) = (row[0], row[1]) else { panic!("an id and a text") };
        let got = batch.text(slice);
        assert!(got == text(id, got.len()) || got == format!("a {id}"), "the text of {id} is another");
        seen.push(format!("{}{id} {}", event.op.letter(), got.len()));
    }
}

async fn read(reader: &mut dyn Reader, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let all = async {
        while seen.len() < count {
            events(&reader.next().await.unwrap(), &mut seen);
        }
    };
    assert!(tokio::time::timeout(PATIENCE * 2, all).await.is_ok(), "only {} of {count} came", seen.len());
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_over_the_limit_come_whole_in_their_place() {
    let Some(log) = log(None) else { return };
    let mut capture = Capture::open(&log, "src").await;
    capture
        .transaction(&[change("a", Op::Create, 1), large(Op::Create, 2, 5 << 20), change("a", Op::Create, 3)])
        .await;
    capture
        .transaction(&[
            large(Op::Update, 2, 3 << 20),
            large(Op::Create, 4, 1 << 20),
            large(Op::Delete, 2, 3 << 20),
        ])
        .await;
    let big = |mib: usize| mib << 20;
    let wanted = [
        "c1 3".to_owned(),
        format!("c2 {}", big(5)),
        "c3 3".into(),
        format!("u2 {}", big(3)),
        format!("c4 {}", big(1)),
        format!("d2 {}", big(3)),
    ];
    for (sink, consistency) in [("whole", Consistency::Transaction), ("each", Consistency::Key)] {
        let source = log.source(sink, &["src"], consistency);
        source.claim().await.unwrap();
        let mut reader = source.open(None).await.unwrap();
        assert_eq!(read(reader.as_mut(), 6).await, wanted);
    }
    // The topic ends with the deletion and that of its parts: nothing of the row is left to a cleaner.
    let left = log.all(&log.topic("a")).await;
    let alive: Vec<&String> = left.iter().filter(|(_, r)| !r.value.is_empty()).map(|(key, _)| key).collect();
    assert!(alive.iter().any(|key| key.starts_with("caudal.part/0/{\"id\":4}")), "{alive:?}");
    assert!(!alive.iter().any(|key| **key == "{\"id\":2}"), "{alive:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_restarts_between_the_parts_gets_the_row_again_and_once() {
    let Some(log) = log(None) else { return };
    let mut capture = Capture::open(&log, "src").await;
    capture.transaction(&[large(Op::Create, 9, 1)]).await;
    let source = log.source("sink", &["src"], Consistency::Key);
    source.claim().await.unwrap();
    let (mut seen, mut position) = (Vec::new(), LogPosition::default());
    // A table that is new to the sink is read from its beginning until it was read once: that is over first.
    let mut reader = source.open(None).await.unwrap();
    loop {
        let batch = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
        reach(&mut position, &batch);
        if batch.sweeps.iter().any(|sweep| sweep.part == SweepPart::End) {
            break;
        }
    }
    drop(reader);
    for id in 0..4 {
        capture.transaction(&[large(Op::Create, id, 4 << 20)]).await;
    }
    let mut turn = 0;
    while seen.len() < 4 {
        turn += 1;
        assert!(turn < 40, "only {} rows came", seen.len());
        let from = (!position.offsets.is_empty()).then(|| Position::Log(position.clone()));
        let mut reader = source.open(from).await.unwrap();
        // Each other reader ends soon, between the parts mostly; the next one begins where its last batch ended.
        let patience = if turn % 2 == 1 { Duration::from_millis(turn * 10) } else { PATIENCE };
        let before = seen.len();
        while seen.len() == before {
            let Ok(batch) = tokio::time::timeout(patience, reader.next()).await else { break };
            let batch = batch.unwrap();
            events(&batch, &mut seen);
            reach(&mut position, &batch);
        }
    }
    let wanted: Vec<String> = (0..4).map(|id| format!("c{id} {}", 4 << 20)).collect();
    assert_eq!(seen, wanted);
}

/// Moves a position to where a batch ends.
fn reach(position: &mut LogPosition, batch: &Batch) {
    for offset in &batch.position.log().expect("a position of the log").offsets {
        position.offsets.retain(|o| (&o.topic, o.partition) != (&offset.topic, offset.partition));
        position.offsets.push(offset.clone());
    }
}

/// Not a test by itself: the process that [`killed_between_the_parts_a_row_is_there_whole_or_not_at_all`] starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_writes_rows_in_parts_until_it_is_killed() {
    let Ok(prefix) = std::env::var(CHILD) else { return };
    let Some(log) = log(Some(&prefix)) else { return };
    let mut capture = Capture::open(&log, "src").await;
    loop {
        let id = capture.number;
        capture.transaction(&[large(Op::Create, id, 6 << 20)]).await;
    }
}

fn start(prefix: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "split::child_writes_rows_in_parts_until_it_is_killed", "--test-threads=1"])
        .env(CHILD, prefix)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_parts_a_row_is_there_whole_or_not_at_all() {
    let Some(log) = log(None) else { return };
    let mut rounds = 0u64;
    let (mut capture, count) = loop {
        let mut child = start(&log.prefix);
        // On a slow machine the child needs longer to write anything at all.
        tokio::time::sleep(Duration::from_millis(1_500 + rounds * 217)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        rounds += 1;
        if rounds < 4 {
            continue;
        }
        // Opening settles what the last child left: a transaction that is not finished, mostly.
        let capture = Capture::open(&log, "src").await;
        if capture.number > 0 {
            let count = capture.number;
            break (capture, count);
        }
        assert!(rounds < 40, "no child wrote anything");
    };
    capture.transaction(&[change("a", Op::Create, count)]).await;
    let source = log.source("sink", &["src"], Consistency::Transaction);
    source.claim().await.unwrap();
    let mut reader = source.open(None).await.unwrap();
    let seen = read(reader.as_mut(), count as usize + 1).await;
    let mut wanted: Vec<String> = (0..count).map(|id| format!("c{id} {}", 6 << 20)).collect();
    wanted.push(format!("c{count} {}", format!("a {count}").len()));
    assert_eq!(seen, wanted);
}
