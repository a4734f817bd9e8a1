//! The loop over in-memory ends with faults injected at every place where one can happen.

// A test that can't go on says so by panicking.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use caudal_core::{
    Batch, BatchBuilder, Boundary, Check, Column, ColumnType, DeadLetters, Error, EventHead, Fault, KeyKind,
    Op, Outcome, Position, Prepare, Reader, Rejected, Result, Sink, SnapshotMark, Source, SourcePosition,
    TableId, TableSchema, Transaction, Writer, batch::NO_ROW,
};
use caudal_engine::{Limits, OnReject, Pipeline, State, StatusHandle, shutdown, supervise};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What an end does at a call, instead of its work.
#[derive(Clone, Copy, PartialEq)]
enum Mishap {
    Fail(Fault),
    Panic,
}

/// Scripted mishaps, by the number of the call over all sessions.
#[derive(Default)]
struct Script {
    calls: AtomicUsize,
    mishaps: Mutex<VecDeque<(usize, Mishap)>>,
}

impl Script {
    fn of(mishaps: &[(usize, Mishap)]) -> Arc<Self> {
        Arc::new(Self { calls: AtomicUsize::new(0), mishaps: Mutex::new(mishaps.iter().copied().collect()) })
    }

    fn step(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, SeqCst);
        let mut mishaps = self.mishaps.lock().unwrap();
        match mishaps.front().copied() {
            Some((at, mishap)) if at <= call => {
                mishaps.pop_front();
                drop(mishaps);
                match mishap {
                    Mishap::Fail(fault) => Err(Error::new(fault, "injected")),
                    Mishap::Panic => panic!("injected"),
                }
            }
            _ => Ok(()),
        }
    }
}

/// Counts from 1 to `last`, one event a batch; every `per_transaction`th ends a transaction. Then waits for ever.
struct Numbers {
    last: u64,
    per_transaction: u64,
    script: Arc<Script>,
    table: Arc<TableSchema>,
}

impl Numbers {
    fn new(last: u64, per_transaction: u64, script: Arc<Script>) -> Arc<Self> {
        let column = Column {
            id: 1,
            name: "n".into(),
            ty: ColumnType::UInt { bits: 64 },
            nullable: false,
            native: "bigint unsigned".into(),
            charset: None,
            default: None,
            generated: false,
            auto_increment: false,
            comment: None,
        };
        let table = Arc::new(TableSchema {
            id: TableId::new("db", "numbers"),
            version: 1,
            generation: 1,
            columns: vec![column],
            key: vec![0],
            key_kind: KeyKind::Primary,
            unique_keys: vec![],
            foreign_keys: vec![],
            charset: None,
            comment: None,
        });
        Arc::new(Self { last, per_transaction, script, table })
    }
}

fn token(n: u64) -> SourcePosition {
    SourcePosition { token: n.to_string(), ..Default::default() }
}

#[async_trait]
impl Source for Numbers {
    async fn check(&self) -> Vec<Check> {
        vec![]
    }
    async fn discover(&self) -> Result<Vec<TableSchema>> {
        Ok(vec![(*self.table).clone()])
    }
    async fn open(&self, from: Option<Position>) -> Result<Box<dyn Reader>> {
        self.script.step()?;
        let at = from.map_or(0, |p| p.source().unwrap().token.parse().unwrap());
        let (last, per, script) = (self.last, self.per_transaction, Arc::clone(&self.script));
        Ok(Box::new(NumbersReader { at, last, per, script, table: Arc::clone(&self.table) }))
    }
}

struct NumbersReader {
    at: u64,
    last: u64,
    per: u64,
    script: Arc<Script>,
    table: Arc<TableSchema>,
}

#[async_trait]
impl Reader for NumbersReader {
    async fn next(&mut self) -> Result<Batch> {
        self.script.step()?;
        if self.at == self.last {
            std::future::pending::<()>().await;
        }
        self.at += 1;
        let mut b = BatchBuilder::default();
        b.cells.push(caudal_core::Cell::U64(self.at));
        let (table, transaction) = (b.table(&self.table), b.transaction(Transaction::default()));
        let op = Op::Create;
        let (snapshot, ts_us) = (SnapshotMark::False, self.at as i64);
        b.events.push(EventHead {
            table,
            transaction,
            before: NO_ROW,
            after: 0,
            row: 0,
            op,
            snapshot,
            pos: 0,
            ts_us,
        });
        let boundary = self.at.is_multiple_of(self.per).then(|| Boundary {
            events: 1,
            position: token(self.at),
            ts_us,
            scope: None,
        });
        Ok(b.build(Position::Source(token(self.at)), boundary))
    }
    async fn commit(&mut self, _: &Position) -> Result<()> {
        self.script.step()
    }
}

/// Rows and position, durable together; what the test looks at.
#[derive(Default)]
struct Store {
    rows: Vec<u64>,
    position: Option<u64>,
    commit_ends: Vec<u64>,
    dead: Vec<u64>,
}

struct Memory {
    store: Arc<Mutex<Store>>,
    script: Arc<Script>,
    whole: bool,
    refuse: Option<u64>,
    /// Whether batches come to the writer as they were read, all that is there at once.
    unprepared: bool,
    /// Told after each commit.
    moved: tokio::sync::watch::Sender<u64>,
}

impl Memory {
    fn new(script: Arc<Script>, whole: bool, refuse: Option<u64>) -> Arc<Self> {
        let moved = tokio::sync::watch::channel(0).0;
        Arc::new(Self { store: Arc::default(), script, whole, refuse, unprepared: false, moved })
    }
    fn unprepared(script: Arc<Script>, whole: bool) -> Arc<Self> {
        let moved = tokio::sync::watch::channel(0).0;
        Arc::new(Self { store: Arc::default(), script, whole, refuse: None, unprepared: true, moved })
    }
    async fn reached(&self, n: u64) {
        self.moved.subscribe().wait_for(|at| *at >= n).await.unwrap();
    }
}

#[derive(Clone)]
struct MemorySink(Arc<Memory>);

struct MemoryWriter {
    memory: Arc<Memory>,
    accepted: Vec<u64>,
    last: Option<u64>,
}

/// Puts the event's number in front, so that the writer can tell that it ran.
struct Number(Arc<Script>);

impl Prepare for Number {
    fn prepare(&self, batch: &mut Batch) -> Result<()> {
        self.0.step()?;
        let caudal_core::Cell::U64(n) = batch.cells[0] else { unreachable!() };
        batch.prepared = Some(Box::new(n));
        Ok(())
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn check(&self) -> Vec<Check> {
        vec![]
    }
    async fn open(&self) -> Result<Box<dyn Writer>> {
        self.0.script.step()?;
        Ok(Box::new(MemoryWriter { memory: Arc::clone(&self.0), accepted: vec![], last: None }))
    }
    fn whole_transactions(&self) -> bool {
        self.0.whole
    }
}

#[async_trait]
impl Writer for MemoryWriter {
    async fn resume(&mut self) -> Result<Option<Position>> {
        self.memory.script.step()?;
        Ok(self.memory.store.lock().unwrap().position.map(|n| Position::Source(token(n))))
    }
    fn prepare(&self) -> Option<Arc<dyn Prepare>> {
        let number = || -> Arc<dyn Prepare> { Arc::new(Number(Arc::clone(&self.memory.script))) };
        (!self.memory.unprepared).then(number)
    }
    async fn write(&mut self, batch: &mut Batch) -> Result<Outcome> {
        self.memory.script.step()?;
        if self.memory.unprepared {
            Number(quiet()).prepare(batch)?;
        }
        let n = *batch.prepared.take().unwrap().downcast::<u64>().unwrap();
        self.last = Some(n);
        if self.memory.refuse == Some(n) {
            return Ok(Outcome { rejected: vec![Rejected { event: 0, cause: "refused".into() }] });
        }
        self.accepted.push(n);
        Ok(Outcome::default())
    }
    async fn commit(&mut self) -> Result<Position> {
        self.memory.script.step()?;
        let last = self.last.unwrap();
        {
            let mut store = self.memory.store.lock().unwrap();
            store.rows.append(&mut self.accepted);
            store.position = Some(last);
            store.commit_ends.push(last);
        }
        // A commit may fail after it took effect: the answer was lost.
        let answer = self.memory.script.step();
        self.memory.moved.send_replace(last);
        answer.map(|()| Position::Source(token(last)))
    }
}

struct DeadStore(Arc<Memory>);

#[async_trait]
impl DeadLetters for DeadStore {
    async fn put(&self, batch: &Batch, rejected: &[Rejected], _: u32) -> Result<()> {
        let mut store = self.0.store.lock().unwrap();
        for r in rejected {
            store.dead.push(batch.events[r.event as usize].ts_us as u64);
        }
        Ok(())
    }
}

fn pipeline(source: Arc<Numbers>, memory: &Arc<Memory>) -> Pipeline {
    Pipeline {
        name: "test".into(),
        source,
        transforms: vec![],
        sink: Arc::new(MemorySink(Arc::clone(memory))),
        dead_letters: Some(Arc::new(DeadStore(Arc::clone(memory)))),
        on_reject: OnReject::Park,
        limits: Limits::default(),
    }
}

fn quiet() -> Arc<Script> {
    Arc::default()
}

#[tokio::test(start_paused = true)]
async fn every_event_arrives_once_and_in_order_whatever_fails_and_whenever() {
    // Every call of either end, up to the 70th over all sessions, fails once in one of the runs, in pairs.
    for at in 0..70 {
        let script =
            Script::of(&[(at, Mishap::Fail(Fault::Transient)), (at + 9, Mishap::Fail(Fault::Transient))]);
        let memory = Memory::new(Arc::clone(&script), false, None);
        let (trigger, stop) = shutdown::channel();
        let status = StatusHandle::new("test");
        let task = tokio::spawn(supervise(
            pipeline(Numbers::new(20, 3, script), &memory),
            status.clone(),
            stop,
            at as u64,
        ));
        memory.reached(20).await;
        trigger.stop();
        task.await.unwrap();
        assert_eq!(memory.store.lock().unwrap().rows, (1..=20).collect::<Vec<_>>(), "failed at call {at}");
        assert_eq!(status.state(), State::Stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn commits_fall_on_boundaries_when_the_sink_wants_whole_transactions() {
    let memory = Memory::new(quiet(), true, None);
    let (trigger, stop) = shutdown::channel();
    let task = tokio::spawn(supervise(
        pipeline(Numbers::new(20, 4, quiet()), &memory),
        StatusHandle::new("t"),
        stop,
        0,
    ));
    memory.reached(20).await;
    trigger.stop();
    task.await.unwrap();
    assert!(memory.store.lock().unwrap().commit_ends.iter().all(|n| n % 4 == 0));
}

#[tokio::test(start_paused = true)]
async fn half_a_transaction_is_not_committed_when_the_daemon_stops() {
    let memory = Memory::new(quiet(), true, None);
    let (trigger, stop) = shutdown::channel();
    let status = StatusHandle::new("t");
    let task =
        tokio::spawn(supervise(pipeline(Numbers::new(6, 4, quiet()), &memory), status.clone(), stop, 0));
    memory.reached(4).await;
    trigger.stop();
    task.await.unwrap();
    assert_eq!(memory.store.lock().unwrap().rows, [1, 2, 3, 4]);
    assert_eq!(status.state(), State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn what_is_whole_is_committed_though_a_part_of_the_next_transaction_is_there_too() {
    let memory = Memory::unprepared(quiet(), true);
    let (trigger, stop) = shutdown::channel();
    let status = StatusHandle::new("t");
    let mut pipeline = pipeline(Numbers::new(6, 4, quiet()), &memory);
    pipeline.limits.queue = 16;
    let task = tokio::spawn(supervise(pipeline, status.clone(), stop, 0));
    let hang = tokio::time::timeout(Duration::from_secs(3600), memory.reached(4));
    hang.await.expect("the first transaction waits for the second one's end");
    trigger.stop();
    task.await.unwrap();
    assert_eq!(memory.store.lock().unwrap().rows, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_stops_its_own_pipeline_and_no_other() {
    let (bad, good) = (Script::of(&[(8, Mishap::Panic)]), quiet());
    let (m1, m2) = (Memory::new(quiet(), false, None), Memory::new(Arc::clone(&good), false, None));
    let (trigger, stop) = shutdown::channel();
    let (s1, s2) = (StatusHandle::new("bad"), StatusHandle::new("good"));
    let t1 = tokio::spawn(supervise(pipeline(Numbers::new(20, 3, bad), &m1), s1.clone(), stop.clone(), 0));
    let t2 = tokio::spawn(supervise(pipeline(Numbers::new(20, 3, good), &m2), s2.clone(), stop, 0));
    t1.await.unwrap();
    m2.reached(20).await;
    trigger.stop();
    t2.await.unwrap();
    assert_eq!((s1.state(), s2.state()), (State::Failed, State::Stopped));
    assert_eq!(s1.snapshot().last_error.unwrap().fault, "bug");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_event_parks_the_pipeline_before_it() {
    let memory = Memory::new(quiet(), false, Some(7));
    let (_trigger, stop) = shutdown::channel();
    let status = StatusHandle::new("t");
    let task =
        tokio::spawn(supervise(pipeline(Numbers::new(20, 1, quiet()), &memory), status.clone(), stop, 0));
    while status.state() != State::Parked {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rows = memory.store.lock().unwrap().rows.clone();
    assert!(rows.iter().all(|n| *n < 7), "{rows:?}");
    let error = status.snapshot().last_error.unwrap();
    assert!(error.message.contains("db.numbers: refused"), "{}", error.message);
    assert!(error.hint.unwrap().contains("on_reject"));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_rejected_event_becomes_a_dead_letter_and_the_rest_goes_on() {
    let memory = Memory::new(quiet(), false, Some(7));
    let (trigger, stop) = shutdown::channel();
    let mut pipeline = pipeline(Numbers::new(20, 1, quiet()), &memory);
    pipeline.on_reject = OnReject::DeadLetter;
    let task = tokio::spawn(supervise(pipeline, StatusHandle::new("t"), stop, 0));
    memory.reached(20).await;
    trigger.stop();
    task.await.unwrap();
    let store = memory.store.lock().unwrap();
    assert_eq!(store.dead, [7]);
    assert_eq!(store.rows, (1..=20).filter(|n| *n != 7).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_config_fault_parks_and_is_looked_at_again() {
    let script = Script::of(&[(0, Mishap::Fail(Fault::Config))]);
    let memory = Memory::new(quiet(), false, None);
    let (trigger, stop) = shutdown::channel();
    let status = StatusHandle::new("t");
    let task =
        tokio::spawn(supervise(pipeline(Numbers::new(5, 1, script), &memory), status.clone(), stop, 0));
    while status.state() != State::Parked {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    memory.reached(5).await;
    assert_eq!(status.state(), State::Running);
    trigger.stop();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_that_fence_each_other_for_ever_come_to_rest() {
    let script = Script::of(&(0..200).map(|n| (n, Mishap::Fail(Fault::Fenced))).collect::<Vec<_>>());
    let memory = Memory::new(quiet(), false, None);
    let (trigger, stop) = shutdown::channel();
    let status = StatusHandle::new("t");
    let task =
        tokio::spawn(supervise(pipeline(Numbers::new(5, 1, script), &memory), status.clone(), stop, 0));
    while status.state() != State::Parked {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    trigger.stop();
    task.await.unwrap();
}
