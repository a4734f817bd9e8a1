//! The windows against a model of a source: what is in its log and what a SELECT sees are two things that move apart at will, as on real
//! servers, where they do so seldom and for microseconds.
//!
//! The snapshot is the real one. Around it everything is one thread with seeded chance: writers commit, commits become visible later, the
//! stream delivers (also what no SELECT sees yet), several windows are open. In the end what was delivered must be what the source
//! holds. With a step of a window left out or at another place, the same seeds must find a difference: each of these is a test.

use crate::canonical;
use crate::config::{Config, Resolved};
use crate::position::Place;
use crate::snapshot::access::{Access, Connect};
use crate::snapshot::board::Board;
use crate::snapshot::chunk::{Chunk, Cut, Job, Read};
use crate::snapshot::plan::Plan;
use crate::snapshot::progress::{Notes, TableNote};
use crate::snapshot::run::Snapshot;
use crate::snapshot::shapes::{Shape, Shapes};
use crate::snapshot::throttle::Load;
use crate::snapshot::whole::Piece;
use crate::value::Value;
use async_trait::async_trait;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    BatchBuilder, Cell, Column, ColumnType, Error, EventHead, KeyKind, Op, Result, SnapshotMark, TableId,
    TableSchema,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is done wrongly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Wrong {
    #[default]
    Nothing,
    /// Step 2 is left out.
    NoWait,
    /// Step 3 comes before step 2.
    SelectFirst,
    /// Step 1 comes after step 3.
    RecordLate,
}

type Rows = BTreeMap<i64, i64>;

/// A transaction: each key with what it holds then.
type Change = Vec<(i64, Option<i64>)>;

#[derive(Default)]
struct Source {
    log: Vec<Change>,
    /// How much of the log a SELECT sees.
    visible: usize,
    /// The rows after the whole log, and those that a SELECT sees.
    now: Rows,
    seen: Rows,
    /// Windows that wait, or have waited and not selected.
    before_select: usize,
    /// Windows open at once, at most.
    most: usize,
}

impl Source {
    fn commit(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.log.push(change);
    }

    fn show(&mut self, more: usize) {
        let upto = (self.visible + more).min(self.log.len());
        self.log[self.visible..upto].iter().for_each(|change| apply(&mut self.seen, change));
        self.visible = upto;
    }
}

fn apply(rows: &mut Rows, change: &Change) {
    for (key, value) in change {
        match value {
            Some(value) => rows.insert(*key, *value),
            None => rows.remove(key),
        };
    }
}

#[derive(Clone, Default)]
pub(super) struct Model {
    source: Arc<Mutex<Source>>,
    wrong: Wrong,
    /// What the SELECT will give, if it came first.
    early: Option<Rows>,
}

#[async_trait]
impl Connect for Model {
    async fn connect(&self) -> Result<Box<dyn Access>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Access for Model {
    async fn wait(&mut self, delivered: &Place, _: &Plan, _: Duration) -> Result<Option<String>> {
        {
            let mut source = self.source.lock().unwrap();
            source.before_select += 1;
            source.most = source.most.max(source.before_select);
            self.early = (self.wrong == Wrong::SelectFirst).then(|| source.seen.clone());
        }
        while self.wrong != Wrong::NoWait && (self.source.lock().unwrap().visible as u64) < delivered.pos {
            tokio::task::yield_now().await;
        }
        Ok(None)
    }

    async fn select(&mut self, job: &Job) -> Result<Read> {
        let rows = {
            let mut source = self.source.lock().unwrap();
            source.before_select -= 1;
            self.early.take().unwrap_or_else(|| source.seen.clone())
        };
        let bound = |key: &Option<Vec<Value>>| key.as_ref().and_then(|k| number(&k[0]));
        let (from, to) = (bound(&job.from), bound(&job.to));
        let mut within =
            rows.into_iter().filter(|(k, _)| from.is_none_or(|f| *k > f) && to.is_none_or(|t| *k <= t));
        let mut builder = BatchBuilder::default();
        let mut last = None;
        for (key, value) in within.by_ref().take(job.rows as usize) {
            let after = builder.cells.len() as u32;
            builder.cells.extend([Cell::I64(key), Cell::I64(value)]);
            let table = builder.table(&job.plan.schema);
            builder.events.push(EventHead {
                table,
                transaction: 0,
                before: NO_ROW,
                after,
                row: 0,
                op: Op::Read,
                snapshot: SnapshotMark::True,
                pos: 0,
                ts_us: 0,
            });
            last = Some(vec![Value::Int(key)]);
        }
        let end = within.next().is_none();
        // The rows are on their way for a while.
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let chunk = Chunk::new(builder, Arc::clone(&job.plan));
        Ok(Read::Chunk(Box::new(Chunk { last, end, took: Duration::from_secs(1), ..chunk })))
    }

    async fn close(&mut self) -> Result<()> {
        Ok(())
    }

    async fn cut(&mut self, _: &Plan, from: Option<&[Value]>, rows: u64, _: Duration) -> Result<Cut> {
        let source = self.source.lock().unwrap();
        let from = from.and_then(|k| number(&k[0]));
        let key = source.seen.keys().filter(|k| from.is_none_or(|f| **k > f)).nth(rows as usize);
        Ok(key.map_or(Cut::Nowhere, |key| Cut::At(vec![Value::Int(*key)])))
    }

    async fn whole(&mut self, _: Arc<Plan>, _: &Place) -> Result<Piece> {
        Err(Error::bug("the model's table has a key"))
    }

    async fn load(&mut self, _: bool) -> Result<Load> {
        Ok(Load::default())
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        _ => None,
    }
}

struct Fixed(Arc<Plan>);

#[async_trait]
impl Shapes for Fixed {
    async fn shape(&mut self, _: &TableId) -> Result<Shape> {
        Ok(Shape::Known(Arc::clone(&self.0)))
    }
}

pub(super) fn plan() -> Arc<Plan> {
    let column = |id: u32, name: &str| Column {
        id,
        name: name.to_owned(),
        ty: ColumnType::Int { bits: 64 },
        nullable: false,
        native: "bigint".to_owned(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    let schema = TableSchema {
        id: TableId::new("d", "t"),
        version: 1,
        generation: 1,
        columns: vec![column(1, "id"), column(2, "v")],
        key: vec![0],
        key_kind: KeyKind::Primary,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    };
    Arc::new(Plan::of_model(Arc::new(schema), 100_000))
}

pub(super) fn config(readers: u32, rows: u32) -> Arc<Resolved> {
    let text = format!(r#"{{"url":"mysql://u@h/d","snapshot":{{"readers":{readers},"chunk_rows":{rows}}}}}"#);
    let config: Config = serde_json::from_str(&text).unwrap();
    Arc::new(config.resolve("model").unwrap())
}

struct World {
    random: SmallRng,
    source: Arc<Mutex<Source>>,
    wrong: Wrong,
    snapshot: Snapshot,
    shapes: Fixed,
    /// How much of the log was delivered.
    delivered: usize,
    /// What a sink holds.
    sink: Rows,
    keys: i64,
}

impl World {
    fn new(seed: u64, wrong: Wrong) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let keys = random.random_range(20..700);
        let at_first: Rows = (0..keys).filter(|_| random.random_ratio(3, 4)).map(|k| (k, 0)).collect();
        let source =
            Arc::new(Mutex::new(Source { now: at_first.clone(), seen: at_first, ..Source::default() }));
        let model = Model { source: Arc::clone(&source), wrong, early: None };
        let config = config(random.random_range(1..5), random.random_range(2..20));
        let mut snapshot =
            Snapshot::none(config, Arc::new(model), &Notes::default(), None, Arc::<Board>::default());
        snapshot.read_first(TableId::new("d", "t"), TableNote::default());
        Self { random, source, wrong, snapshot, shapes: Fixed(plan()), delivered: 0, sink: Rows::new(), keys }
    }

    fn commit(&mut self) {
        let (a, b) = (self.random.random_range(0..self.keys), self.random.random_range(0..self.keys));
        let mut source = self.source.lock().unwrap();
        let value = source.log.len() as i64 + 1;
        let moves = source.now.get(&a).copied().filter(|_| !source.now.contains_key(&b));
        let change = match (self.random.random_range(0..10), moves) {
            (0..2, _) => vec![(a, None)],
            // The key moves, perhaps into another range.
            (2..4, Some(row)) => vec![(a, None), (b, Some(row))],
            _ => vec![(a, Some(value))],
        };
        source.commit(change);
    }

    fn deliver(&mut self) {
        let (change, late) = {
            let source = self.source.lock().unwrap();
            let Some(change) = source.log.get(self.delivered) else { return };
            (change.clone(), self.wrong == Wrong::RecordLate && source.before_select > 0)
        };
        self.delivered += 1;
        for (key, _) in &change {
            if let (false, Some(table)) = (late, self.snapshot.recorder(&TableId::new("d", "t"))) {
                let mut bytes = Vec::new();
                canonical::append(&mut bytes, Cell::I64(*key), |_| &[]);
                table.touch(&bytes);
            }
        }
        apply(&mut self.sink, &change);
    }

    async fn step(&mut self) {
        match self.random.random_range(0..20) {
            0..5 => self.commit(),
            5..10 => self.deliver(),
            10..13 => {
                // On the whole faster than commits come, or no window would ever end.
                let more = self.random.random_range(0..6);
                self.source.lock().unwrap().show(more);
            }
            13..16 => {
                tokio::select! {
                    biased;
                    finished = self.snapshot.finished() => finished.unwrap(),
                    () = tokio::task::yield_now() => {}
                }
            }
            16..18 => {
                let place = Place { gtid: None, file: String::new(), pos: self.delivered as u64 };
                self.snapshot.advance(&mut self.shapes, &place).await.unwrap();
            }
            _ => self.take(),
        }
    }

    fn take(&mut self) {
        for emission in self.snapshot.take() {
            for event in &emission.builder.events {
                let cells = &emission.builder.cells[event.after as usize..][..2];
                let [Cell::I64(key), Cell::I64(value)] = cells else { panic!("two numbers") };
                self.sink.insert(*key, *value);
            }
        }
    }

    /// Runs to the end. Gives whether the sink is right, and how many windows were open at once.
    async fn run(mut self) -> (bool, usize) {
        while !self.snapshot.is_done() {
            self.step().await;
        }
        let end = self.source.lock().unwrap().log.len();
        while self.delivered < end {
            self.deliver();
        }
        let source = self.source.lock().unwrap();
        (self.sink == source.now, source.most)
    }
}

/// CAUDAL_MODEL_ROUNDS raises it.
fn rounds() -> u64 {
    std::env::var("CAUDAL_MODEL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

async fn wrong_ends(wrong: Wrong) -> (usize, usize) {
    let (mut bad, mut most) = (0, 0);
    for seed in 0..rounds() {
        let (right, open) = World::new(seed, wrong).run().await;
        assert!(right || wrong != Wrong::Nothing, "seed {seed}");
        bad += usize::from(!right);
        most = most.max(open);
    }
    (bad, most)
}

#[tokio::test]
async fn windows_end_in_the_sources_state_whatever_the_order_of_events() {
    let (bad, most) = wrong_ends(Wrong::Nothing).await;
    assert_eq!(bad, 0);
    assert!(most > 1, "no two windows were ever open at once");
}

#[tokio::test]
async fn without_the_wait_for_visibility_the_model_finds_wrong_rows() {
    assert!(wrong_ends(Wrong::NoWait).await.0 > 0);
}

#[tokio::test]
async fn with_the_select_before_the_wait_the_model_finds_wrong_rows() {
    assert!(wrong_ends(Wrong::SelectFirst).await.0 > 0);
}

#[tokio::test]
async fn with_recording_begun_late_the_model_finds_wrong_rows() {
    assert!(wrong_ends(Wrong::RecordLate).await.0 > 0);
}

#[tokio::test]
async fn a_chunk_is_read_again_if_its_table_is_changed_while_its_window_is_open() {
    let rows: Rows = (0..30).map(|key| (key, 0)).collect();
    let source = Source { now: rows.clone(), seen: rows.clone(), ..Source::default() };
    let model = Model { source: Arc::new(Mutex::new(source)), ..Model::default() };
    let (notes, board) = (Notes::default(), Arc::<Board>::default());
    let mut snapshot = Snapshot::none(config(1, 50), Arc::new(model), &notes, None, board);
    let (id, mut shapes) = (TableId::new("d", "t"), Fixed(plan()));
    snapshot.read_first(id.clone(), TableNote::default());
    let place = Place { gtid: None, file: String::new(), pos: 0 };
    // Other work may end before the chunk is there.
    while !snapshot.is_ready() {
        snapshot.advance(&mut shapes, &place).await.unwrap();
        tokio::select! {
            finished = snapshot.finished() => finished.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    snapshot.changed(Some(&[id]));
    assert!(snapshot.take().is_empty(), "a chunk in the shape before the change");
    // After a while it is read again.
    let mut read = 0;
    while !snapshot.is_done() {
        snapshot.advance(&mut shapes, &place).await.unwrap();
        tokio::select! {
            finished = snapshot.finished() => finished.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        read += snapshot.take().iter().map(|emission| emission.builder.events.len()).sum::<usize>();
    }
    assert_eq!(read, rows.len());
}
