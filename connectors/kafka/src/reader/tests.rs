//! What the modes make of the order in which things become visible.

use super::feed::memory::Memory;
use super::partitions::Promise;
use super::runner::{Delivery, Mode, Progress};
use super::shared::Shared;
use super::sides::{Side, SourceSides};
use super::whole::{Limits, Whole};
use crate::topic_ids::TopicIds;
use crate::watermarks::tests::record;
use caudal_core::{
    Cell, Column, ColumnType, Error, Fault, KeyKind, LogOffset, LogPosition, SweepPart, TableId, TableSchema,
};
use caudal_proto::side::{SchemaRecord, VERSION};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// A feed that the test goes on filling while a mode reads it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Memory>>);

mod delegate {
    use super::super::feed::{Feed, Fetched, Lane, Polled, Wanted};
    use super::Log;
    use caudal_core::Result;
    use std::sync::Arc;

    impl Feed for Log {
        fn spans(&mut self, partitions: &[(Arc<str>, i32)]) -> Result<Vec<(i64, i64)>> {
            self.0.lock().unwrap().spans(partitions)
        }

        fn open(&mut self, wanted: &[Wanted]) -> Result<Vec<Lane>> {
            self.0.lock().unwrap().open(wanted)
        }

        fn poll(&mut self, lane: Lane, end: i64, take: &mut dyn FnMut(Fetched<'_>)) -> Result<Polled> {
            self.0.lock().unwrap().poll(lane, end, take)
        }

        fn locate(&mut self) -> Result<()> {
            self.0.lock().unwrap().locate()
        }

        fn position(&self, lane: Lane) -> i64 {
            self.0.lock().unwrap().position(lane)
        }

        fn end(&mut self, lane: Lane) -> Result<i64> {
            self.0.lock().unwrap().end(lane)
        }

        fn committed(&mut self, lanes: &[Lane]) -> Result<Vec<i64>> {
            self.0.lock().unwrap().committed(lanes)
        }
    }
}

impl Log {
    fn show(&self, topic: &str, offset: i64, record: Option<(&str, Option<&[u8]>)>) {
        self.0.lock().unwrap().show(topic, offset, record);
    }

    /// A row of table `topic`.
    fn row(&self, topic: &str, offset: i64, id: i64) {
        let value = format!(
            r#"{{"before":null,"after":{{"id":{id}}},"source":{{"ts_us":1}},"transaction":null,"op":"c","ts_ms":1}}"#
        );
        self.show(topic, offset, Some(("k", Some(value.as_bytes()))));
    }

    /// A row that was written at least once, by a writer.
    fn ordered(&self, topic: &str, (offset, id): (i64, i64), order: &str) {
        self.0.lock().unwrap().head(topic, offset, (crate::encode::ORDER_HEADER, order));
        self.row(topic, offset, id);
    }

    /// An offset that holds no record: a commit marker, an aborted record.
    fn marker(&self, topic: &str, offset: i64) {
        self.show(topic, offset, None);
    }

    fn watermark(&self, offset: i64, number: u64, full: bool, ends: &[(&str, i64)]) {
        self.show("w", offset, Some(("s", Some(&record(number, full, ends)))));
    }

    fn schema(&self, offset: i64, topic: &str, (version, from): (u32, i64), column: &str) {
        let schema = SchemaRecord {
            v: VERSION,
            source: "s".into(),
            topic: topic.into(),
            topic_id: Uuid::from_u128(7),
            partitions: 1,
            from: vec![(0, from)],
            position: String::new(),
            schema: table(topic, version, column),
        };
        self.show("s", offset, Some(("k", Some(&serde_json::to_vec(&schema).unwrap()))));
    }

    fn whole(&self, from: &LogPosition, batch_bytes: usize) -> Result<Whole<Self>, Error> {
        Whole::open(self.clone(), &[sides()], from, limits(batch_bytes), &no_ids)
    }
}

fn limits(batch_bytes: usize) -> Limits {
    Limits { batch_bytes, step_records: 1, promise: Promise { lag_ms: 1_000, now: || 500 } }
}

fn no_ids(_: &[String]) -> TopicIds {
    TopicIds::new()
}

fn sides() -> SourceSides {
    let side = |topic: &str| Side { topic: topic.into(), topic_id: Uuid::from_u128(1), partition: 0 };
    SourceSides { source: "s".into(), watermarks: side("w"), schemas: side("s") }
}

fn table(name: &str, version: u32, column: &str) -> TableSchema {
    let column = Column {
        id: 1,
        name: column.into(),
        ty: ColumnType::Int { bits: 64 },
        nullable: false,
        native: "bigint".into(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    TableSchema {
        id: TableId::new("db", name),
        version,
        generation: 1,
        columns: vec![column],
        key: vec![0],
        key_kind: KeyKind::Primary,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    }
}

/// What comes without anything more becoming visible.
fn deliveries(mode: &mut impl Mode) -> Vec<Delivery> {
    let mut all = Vec::new();
    while let Progress::Delivery(delivery) = mode.advance().unwrap() {
        all.push(*delivery);
    }
    all
}

/// The ids of a delivery's rows.
fn ids(delivery: &Delivery) -> Vec<i64> {
    let batch = &delivery.batch;
    let id = |row: &[Cell]| match row[0] {
        Cell::I64(id) => id,
        other => panic!("{other:?}"),
    };
    batch.events.iter().filter_map(|event| batch.after(event).map(id)).collect()
}

fn offset(delivery: &Delivery, topic: &str) -> Option<i64> {
    let position = delivery.batch.position.log().unwrap();
    position.offsets.iter().find(|o| &*o.topic == topic).map(|o| o.offset)
}

/// A log with tables `a` and `b`, of which a full watermark tells that they are empty.
fn empty_tables() -> Log {
    let log = Log::default();
    log.schema(0, "a", (1, 0), "id");
    log.schema(1, "b", (1, 0), "id");
    log.watermark(0, 1, true, &[("a", 0), ("b", 0)]);
    log
}

#[test]
fn a_watermark_that_is_visible_before_its_data_waits_for_all_of_it() {
    let log = empty_tables();
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    log.watermark(1, 2, false, &[("a", 2), ("b", 1)]);
    log.row("a", 0, 1);
    log.row("b", 0, 2);
    assert!(deliveries(&mut mode).is_empty(), "half of the transaction was shown");
    log.row("a", 1, 3);
    let all = deliveries(&mut mode);
    assert_eq!(all.len(), 1);
    let mut seen = ids(&all[0]);
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3]);
    assert!(all[0].batch.boundary.is_some());
    assert_eq!(
        [offset(&all[0], "a"), offset(&all[0], "b"), offset(&all[0], "w")],
        [Some(2), Some(1), Some(2)]
    );
}

#[test]
fn nothing_at_or_above_an_end_is_taken() {
    let log = empty_tables();
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    for n in 0..4 {
        log.row("a", n, n);
    }
    log.watermark(1, 2, false, &[("a", 2)]);
    assert_eq!(deliveries(&mut mode).iter().flat_map(ids).collect::<Vec<_>>(), [0, 1]);
    log.watermark(2, 3, false, &[("a", 4)]);
    assert_eq!(deliveries(&mut mode).iter().flat_map(ids).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn markers_and_aborted_records_count_as_read_when_the_position_has_passed_them() {
    let log = empty_tables();
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    log.row("a", 0, 1);
    for aborted in 1..4 {
        log.marker("a", aborted);
    }
    log.watermark(1, 2, false, &[("a", 4)]);
    let all = deliveries(&mut mode);
    assert_eq!(all.iter().flat_map(ids).collect::<Vec<_>>(), [1]);
    assert_eq!(offset(&all[0], "a"), Some(4));
    assert!(all[0].batch.boundary.is_some());
}

#[test]
fn a_watermark_without_ends_still_moves_the_boundary() {
    let log = empty_tables();
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    log.watermark(1, 2, false, &[]);
    let all = deliveries(&mut mode);
    let boundary = all[0].batch.boundary.as_ref().unwrap();
    assert_eq!((boundary.position.token.as_str(), boundary.events), ("p2", 0));
    assert_eq!(offset(&all[0], "w"), Some(2));
}

#[test]
fn a_step_that_is_too_large_for_one_batch_has_its_boundary_in_the_last() {
    let log = empty_tables();
    for n in 0..50 {
        log.row("a", n, n);
    }
    log.watermark(1, 2, false, &[("a", 50)]);
    let mut mode = log.whole(&LogPosition::default(), 1_000).unwrap();
    let all = deliveries(&mut mode);
    assert!(all.len() > 4);
    let step = &all;
    let whole: Vec<bool> = step.iter().map(|d| d.batch.boundary.is_some()).collect();
    assert_eq!(whole.iter().filter(|whole| **whole).count(), 1);
    assert_eq!(whole.last(), Some(&true));
    assert_eq!(step.iter().flat_map(ids).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    assert!(step[..step.len() - 1].iter().all(|d| offset(d, "w").is_none()));
}

#[test]
fn rows_wait_for_the_shape_that_was_committed_with_them() {
    let log = empty_tables();
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    log.row("a", 0, 1);
    // Its schema record is in the log (a transaction whose marker is not written there yet), and not visible.
    log.0.lock().unwrap().end_at("s", 3);
    log.watermark(1, 2, false, &[("a", 1)]);
    assert!(deliveries(&mut mode).is_empty(), "a row was decoded by a shape that may be old");
    log.schema(2, "a", (2, 0), "id");
    let all = deliveries(&mut mode);
    assert_eq!(all[0].batch.tables[0].version, 2);
}

#[test]
fn a_record_that_cannot_be_decoded_is_set_aside_and_the_rest_goes_on() {
    let log = empty_tables();
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    log.row("a", 0, 1);
    log.show("a", 1, Some(("k", Some(br#"{"op":"c","after":{"id":"secret"},"source":{}}"#))));
    log.row("a", 3, 4);
    log.watermark(1, 2, false, &[("a", 4)]);
    let all = deliveries(&mut mode);
    let batch = &all[0].batch;
    assert_eq!(ids(&all[0]), [1, 4]);
    assert_eq!(batch.raw.len(), 2);
    assert_eq!(batch.undecodable.len(), 1);
    let bad = &batch.undecodable[0];
    assert_eq!((bad.raw.offset, batch.bytes(bad.raw.key.unwrap())), (1, b"k".as_slice()));
    assert!(bad.cause.starts_with("after: id: ") && !bad.cause.contains("secret"), "{}", bad.cause);
}

#[test]
fn a_restart_from_any_batch_gives_what_follows_and_nothing_twice() {
    let log = empty_tables();
    for n in 0..20 {
        log.row("a", n, n);
        log.watermark(n + 1, n as u64 + 2, false, &[("a", n + 1)]);
    }
    let all = deliveries(&mut log.whole(&LogPosition::default(), 1 << 20).unwrap());
    for upto in 0..all.len() {
        // A memory feed forgets what was taken, so each restart has a log of its own.
        let log = empty_tables();
        for n in 0..20 {
            log.row("a", n, n);
            log.watermark(n + 1, n as u64 + 2, false, &[("a", n + 1)]);
        }
        let mut from = LogPosition::default();
        for delivery in &all[..=upto] {
            for moved in &delivery.batch.position.log().unwrap().offsets {
                from.offsets.retain(|o| o.topic != moved.topic);
                from.offsets.push(moved.clone());
            }
        }
        let before: Vec<i64> = all[..=upto].iter().flat_map(ids).collect();
        let after = deliveries(&mut log.whole(&from, 1 << 20).unwrap());
        let seen: Vec<i64> = before.into_iter().chain(after.iter().flat_map(ids)).collect();
        assert_eq!(seen, (0..20).collect::<Vec<_>>(), "restart after batch {upto}");
    }
}

/// What a sink would have stored of these deliveries.
fn stored(deliveries: &[Delivery]) -> LogPosition {
    let mut from = LogPosition::default();
    for delivery in deliveries {
        for moved in &delivery.batch.position.log().unwrap().offsets {
            from.offsets.retain(|o| o.topic != moved.topic);
            from.offsets.push(moved.clone());
        }
    }
    from
}

/// The parts of sweeps, as `b a`: the begin of the sweep of topic `a`.
fn sweeps(delivery: &Delivery) -> Vec<String> {
    let part = |sweep: &caudal_core::Sweep| match sweep.part {
        SweepPart::Begin => format!("b {}", sweep.topic),
        SweepPart::End => format!("e {}", sweep.topic),
    };
    delivery.batch.sweeps.iter().map(part).collect()
}

fn at<'a>(from: &'a mut LogPosition, topic: &str) -> &'a mut LogOffset {
    from.offsets.iter_mut().find(|o| &*o.topic == topic).unwrap()
}

#[test]
fn another_topic_under_the_same_name_is_read_from_its_first_record_and_swept() {
    let log = empty_tables();
    log.row("a", 0, 1);
    log.watermark(1, 2, false, &[("a", 1)]);
    let mut from = stored(&deliveries(&mut log.whole(&LogPosition::default(), 1 << 20).unwrap()));
    at(&mut from, "a").topic_id = Uuid::from_u128(99);
    let log = empty_tables();
    log.row("a", 0, 5);
    log.watermark(1, 2, false, &[("a", 1)]);
    log.row("a", 1, 6);
    log.watermark(2, 3, false, &[("a", 2)]);
    let ids_now = |_: &[String]| TopicIds::from([("a".to_owned(), Uuid::from_u128(7))]);
    let mut mode = Whole::open(log, &[sides()], &from, limits(1 << 20), &ids_now).unwrap();
    let all = deliveries(&mut mode);
    assert_eq!(all.len(), 1);
    assert_eq!((ids(&all[0]), sweeps(&all[0])), (vec![5, 6], vec!["b a".to_owned(), "e a".to_owned()]));
    let offset = at(&mut from, "a").offset;
    assert_eq!(offset, 1, "the test resumed behind the new topic's first record");
}

#[test]
fn a_topic_that_is_made_again_while_it_is_read_starts_the_reader_again() {
    let log = empty_tables();
    log.row("a", 0, 1);
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    let again = crate::watermarks::tests::record_of(2, false, &[("a", 1)], 8);
    log.show("w", 1, Some(("s", Some(&again))));
    let error = mode.advance().unwrap_err();
    assert_eq!(error.fault(), Fault::Transient);
    assert!(error.to_string().contains("topic a "), "{error}");
}

/// A sink that stands behind the row at offset 0 and has been away: the log has rows up to offset 4 by now, without 2.
fn away() -> (Log, LogPosition) {
    let log = empty_tables();
    log.row("a", 0, 1);
    log.watermark(1, 2, false, &[("a", 1)]);
    let from = stored(&deliveries(&mut log.whole(&LogPosition::default(), 1 << 20).unwrap()));
    let log = empty_tables();
    log.row("a", 0, 1);
    log.watermark(1, 2, false, &[("a", 1)]);
    log.row("a", 3, 3);
    log.row("a", 4, 4);
    log.watermark(2, 3, false, &[("a", 5)]);
    (log, from)
}

#[test]
fn a_sink_that_was_away_for_longer_than_compaction_waits_reads_its_tables_anew() {
    let (log, mut from) = away();
    // All that the sink has not read was written after 2 ms, and now it is 500: nothing can be missing.
    let all = deliveries(&mut log.whole(&from, 1 << 20).unwrap());
    assert_eq!((ids(&all[0]), sweeps(&all[0])), (vec![3, 4], vec![]));
    // The same with a lag of 100 ms: too long ago.
    let (log, _) = away();
    let limits = Limits { promise: Promise { lag_ms: 100, now: || 5_000 }, ..limits(1 << 20) };
    let mut mode = Whole::open(log, &[sides()], &from, limits, &no_ids).unwrap();
    let all = deliveries(&mut mode);
    assert_eq!(all.len(), 1, "one step to the newest watermark");
    assert_eq!((ids(&all[0]), sweeps(&all[0])), (vec![1, 3, 4], vec!["b a".to_owned(), "e a".to_owned()]));
    // What is stored since is of now: the next restart goes on.
    for moved in &all[0].batch.position.log().unwrap().offsets {
        *at(&mut from, &moved.topic) = moved.clone();
    }
    let (log, _) = away();
    log.row("a", 5, 5);
    log.watermark(3, 4, false, &[("a", 6)]);
    let all = deliveries(&mut Whole::open(log, &[sides()], &from, limits, &no_ids).unwrap());
    assert_eq!((ids(&all[0]), sweeps(&all[0])), (vec![5], vec![]));
}

#[test]
fn in_key_mode_offsets_are_unswept_until_the_sweep_is_over_and_who_resumes_begins_again() {
    let owned = BTreeSet::from([("a".to_owned(), 0)]);
    // A row takes more than 100 bytes: a batch each.
    let limits = Limits { promise: Promise { lag_ms: 100, now: || 5_000 }, ..limits(100) };
    let (log, mut from) = away();
    from.offsets.retain(|o| &*o.topic == "a");
    let open = |log: Log, from: &LogPosition| {
        let mut mode = Shared::open(log, &[sides()], (&owned, &owned), from, limits, &no_ids).unwrap();
        deliveries(&mut mode)
    };
    let all = open(log, &from);
    assert_eq!(all.iter().flat_map(ids).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(
        (sweeps(&all[0]), sweeps(all.last().unwrap())),
        (vec!["b a".to_owned()], vec!["e a".to_owned()])
    );
    let unswept: Vec<bool> =
        all.iter().flat_map(|d| &d.batch.position.log().unwrap().offsets).map(|o| o.unswept).collect();
    assert_eq!(unswept, [true, true, false]);
    // A crash before the end, at an offset that is in the log and young.
    let (log, _) = away();
    let again = open(log, &stored(&all[..1]));
    assert_eq!(again.iter().flat_map(ids).collect::<Vec<_>>(), [1, 3, 4]);
    // After the end the reader goes on.
    let (log, _) = away();
    assert!(open(log, &stored(&all)).iter().all(|d| d.batch.events.is_empty() && d.batch.sweeps.is_empty()));
}

#[test]
fn a_reader_that_falls_behind_what_compaction_leaves_alone_starts_again() {
    let owned = BTreeSet::from([("a".to_owned(), 0)]);
    let log = empty_tables();
    log.row("a", 0, 1);
    // Written at 1 ms and read at 50, within a lag of 100; the next row is read when it is long gone, and 1 and 2 are missing.
    static NOW: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(50);
    let now = || NOW.load(std::sync::atomic::Ordering::Relaxed);
    let limits = Limits { promise: Promise { lag_ms: 100, now }, ..limits(1 << 20) };
    let from = LogPosition::default();
    let mut mode = Shared::open(log.clone(), &[sides()], (&owned, &owned), &from, limits, &no_ids).unwrap();
    deliveries(&mut mode);
    NOW.store(500, std::sync::atomic::Ordering::Relaxed);
    log.row("a", 3, 4);
    let error = mode.advance().unwrap_err();
    assert_eq!(error.fault(), Fault::Transient);
    assert!(error.to_string().contains("read anew"), "{error}");
}

#[test]
fn a_tombstone_deletes_its_key_where_the_deletion_before_it_is_gone() {
    let log = empty_tables();
    let mut mode = log.whole(&LogPosition::default(), 1 << 20).unwrap();
    deliveries(&mut mode);
    let deletion = br#"{"before":{"id":8},"after":null,"source":{"ts_us":1},"op":"d","ts_ms":1}"#;
    log.show("a", 0, Some((r#"{"id":7}"#, None)));
    log.show("a", 1, Some((r#"{"id":8}"#, Some(deletion))));
    log.show("a", 2, Some((r#"{"id":8}"#, None)));
    log.show("a", 3, Some((r#"{"nothing":1}"#, None)));
    log.watermark(1, 2, false, &[("a", 4)]);
    let all = deliveries(&mut mode);
    let batch = &all[0].batch;
    let deleted: Vec<Cell> = batch.events.iter().map(|e| batch.before(e).unwrap()[0]).collect();
    assert_eq!(deleted, [Cell::I64(7), Cell::I64(8)], "the tombstone behind a deletion says nothing more");
    assert_eq!(batch.undecodable.len(), 1);
}

#[test]
fn rows_of_a_shared_partition_come_before_their_watermark_and_freshness_after_it() {
    let log = empty_tables();
    let owned = BTreeSet::from([("a".to_owned(), 0)]);
    let all = BTreeSet::from([("a".to_owned(), 0), ("b".to_owned(), 0)]);
    log.row("a", 0, 1);
    let from = LogPosition::default();
    let mut mode =
        Shared::open(log.clone(), &[sides()], (&owned, &all), &from, limits(1 << 20), &no_ids).unwrap();
    let first = deliveries(&mut mode);
    assert_eq!(first.iter().flat_map(ids).collect::<Vec<_>>(), [1]);
    assert!(first.iter().all(|delivery| delivery.complete.is_none()));
    log.watermark(1, 2, false, &[("a", 1), ("b", 7)]);
    let second = deliveries(&mut mode);
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].batch.boundary.as_ref().unwrap().ts_us, 2);
}

#[test]
fn records_of_a_displaced_writer_are_dropped_also_after_a_restart() {
    let owned = BTreeSet::from([("a".to_owned(), 0)]);
    // The second writer repeats what the first had not stored; the first wakes, and is displaced.
    let records =
        [(1, "1/1"), (2, "1/2"), (2, "2/1"), (3, "1/3"), (4, "2/2"), (5, "1/4"), (6, "2/3"), (7, "3/1")];
    let read = |count: usize, from: &LogPosition| {
        let log = empty_tables();
        for (offset, (id, order)) in records.iter().take(count).enumerate() {
            log.ordered("a", (offset as i64, *id), order);
        }
        let limits = limits(1 << 20);
        deliveries(&mut Shared::open(log, &[sides()], (&owned, &owned), from, limits, &no_ids).unwrap())
    };
    let first = read(5, &LogPosition::default());
    assert_eq!(first.iter().flat_map(ids).collect::<Vec<_>>(), [1, 2, 2, 4]);
    let stored = stored(&first);
    let at: Vec<_> = stored.offsets.iter().map(|o| (o.offset, o.writer_epoch)).collect();
    assert_eq!(at, [(5, 2)]);
    let second = read(8, &stored);
    assert_eq!(second.iter().flat_map(ids).collect::<Vec<_>>(), [6, 7]);
    assert_eq!(offset(second.last().unwrap(), "a"), Some(8), "what is dropped is passed");
}

#[test]
fn a_sink_that_was_filled_in_key_mode_goes_on_in_transaction_mode() {
    let log = empty_tables();
    for n in 0..4 {
        log.row("a", n, n);
        log.watermark(n + 1, n as u64 + 2, false, &[("a", n + 1)]);
    }
    let at = |topic: &str, offset| LogOffset {
        topic: topic.into(),
        topic_id: Uuid::from_u128(7),
        partition: 0,
        offset,
        leader_epoch: -1,
        as_of_ms: 0,
        unswept: false,
        writer_epoch: 0,
    };
    let from = LogPosition { offsets: vec![at("a", 2), at("b", 0)] };
    let all = deliveries(&mut log.whole(&from, 1 << 20).unwrap());
    assert_eq!(all.iter().flat_map(ids).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_sink_that_is_ahead_of_a_watermark_waits_for_one_that_holds_all_it_has() {
    let log = empty_tables();
    for n in 0..3 {
        log.row("a", n, n);
    }
    log.row("b", 0, 10);
    log.watermark(1, 2, false, &[("a", 1), ("b", 1)]);
    let at = |topic: &str, offset| LogOffset {
        topic: topic.into(),
        topic_id: Uuid::from_u128(7),
        partition: 0,
        offset,
        leader_epoch: -1,
        as_of_ms: 0,
        unswept: false,
        writer_epoch: 0,
    };
    let from = LogPosition { offsets: vec![at("a", 2), at("b", 0)] };
    let mut mode = log.whole(&from, 1 << 20).unwrap();
    assert!(deliveries(&mut mode).is_empty(), "a state was shown that never was");
    log.watermark(2, 3, false, &[("a", 3)]);
    let all = deliveries(&mut mode);
    assert_eq!(all.len(), 1);
    let mut seen = ids(&all[0]);
    seen.sort_unstable();
    assert_eq!(seen, [2, 10]);
    assert!(all[0].batch.boundary.is_some());
}

#[test]
fn a_truncation_is_set_aside_by_who_cannot_see_all_of_its_partitions() {
    let truncation = br#"{"before":null,"after":null,"source":{"ts_us":1},"op":"t","ts_ms":1}"#;
    for (spread, applied) in [(1, 1), (2, 0)] {
        let record = crate::decode::Record {
            topic: &"p.db.t".into(),
            partition: 0,
            offset: 0,
            spread,
            key: None,
            value: Some(truncation),
            own: None,
            headers: &[],
        };
        let mut batch = caudal_core::BatchBuilder::default();
        crate::decode::decode(&record, Some(&Arc::new(table("t", 1, "id"))), &mut batch);
        assert_eq!((batch.events.len(), batch.undecodable.len()), (applied, 1 - applied));
    }
}

#[test]
fn a_truncation_waits_for_all_partitions_of_its_table_and_is_executed_once() {
    let log = Log::default();
    let schema = SchemaRecord {
        v: VERSION,
        source: "s".into(),
        topic: "a".into(),
        topic_id: Uuid::from_u128(7),
        partitions: 2,
        from: vec![(0, 0), (1, 0)],
        position: String::new(),
        schema: table("a", 1, "id"),
    };
    log.show("s", 0, Some(("k", Some(&serde_json::to_vec(&schema).unwrap()))));
    let row = |partition, offset, id: i64| {
        let value = format!(r#"{{"before":null,"after":{{"id":{id}}},"source":{{"ts_us":1}},"op":"c"}}"#);
        let record = Some(("k", Some(value.as_bytes())));
        log.0.lock().unwrap().show_in(("a", partition), offset, record);
    };
    let truncate = |partition, offset| log.0.lock().unwrap().truncate("a", partition, offset, "t1");
    row(0, 0, 1);
    truncate(0, 1);
    row(0, 2, 3);
    row(1, 0, 2);
    let owned = BTreeSet::from([("a".to_owned(), 0), ("a".to_owned(), 1)]);
    let from = LogPosition::default();
    let mut mode =
        Shared::open(log.clone(), &[sides()], (&owned, &owned), &from, limits(1 << 20), &no_ids).unwrap();
    let events = |all: &[Delivery]| -> String {
        all.iter().flat_map(|d| &d.batch.events).map(|event| event.op.letter()).collect()
    };
    let before = deliveries(&mut mode);
    assert_eq!(events(&before), "cc", "what lies behind the truncation came before it");
    truncate(1, 1);
    row(1, 2, 4);
    let mut after = deliveries(&mut mode);
    after.extend(deliveries(&mut mode));
    assert_eq!(events(&after), "tcc");
    assert!(after.iter().all(|delivery| delivery.batch.undecodable.is_empty()));
}
