//! The poll engine over a table in memory whose every answer can be chosen.

#![allow(clippy::unwrap_used, reason = "tests: an error is a failed test, whatever it says")]

use async_trait::async_trait;
use caudal_core::batch::NO_ROW;
use caudal_core::{
    Action, Batch, BatchBuilder, Cell, Column, ColumnType, Error, EventHead, Fault, KeyKind, Op, Phase,
    PollCost, Position, Reader, Result, Signal, SnapshotMark, SourcePosition, TableId, TableSchema, Written,
    WrittenRows,
};
use caudal_poll::{
    Clock, Desk, Job, Look, Mode, Page, PollReader, Polled, Request, Schedule, ScheduleConfig, Scope,
    Session, Start, Window,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// (id, value, changed)
type Row = (i64, &'static str, i64);

#[derive(Default)]
struct World {
    rows: Vec<Row>,
    /// Errors of the next pages, one each; none: the page comes.
    faults: VecDeque<Option<Fault>>,
    pages: u32,
    windows: Vec<String>,
    /// Keys that the system says are gone.
    gone: Vec<i64>,
    /// How often the place of a second page is gone.
    losses: u32,
    /// What each page bills, bytes.
    price: u64,
    /// Whether the key is the id and the value.
    wide: bool,
}

#[derive(Clone, Default)]
struct Table(Arc<Mutex<World>>);

fn schema() -> Arc<TableSchema> {
    let column = |id: u32, name: &str, ty: ColumnType| Column {
        id,
        name: name.to_owned(),
        ty,
        nullable: true,
        native: String::new(),
        charset: None,
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    };
    let int = || ColumnType::Int { bits: 64 };
    Arc::new(TableSchema {
        id: TableId::new("d", "t"),
        version: 1,
        generation: 1,
        columns: vec![
            column(1, "id", int()),
            column(2, "value", ColumnType::Text { max_chars: None }),
            column(3, "changed", int()),
        ],
        key: vec![0],
        key_kind: KeyKind::Primary,
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        charset: None,
        comment: None,
    })
}

fn blank() -> EventHead {
    EventHead {
        table: 0,
        transaction: 0,
        before: NO_ROW,
        after: NO_ROW,
        row: 0,
        op: Op::Read,
        snapshot: SnapshotMark::False,
        pos: 0,
        ts_us: 0,
    }
}

#[async_trait]
impl Polled for Table {
    async fn connect(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Session for Table {
    async fn now_us(&mut self) -> Result<i64> {
        Ok(1_000_000)
    }

    async fn schema(&mut self, _: &Look<'_>) -> Result<Arc<TableSchema>> {
        let mut found = (*schema()).clone();
        if self.0.lock().unwrap().wide {
            found.key.push(1);
        }
        Ok(Arc::new(found))
    }

    async fn page(&mut self, request: &Request<'_>) -> Result<Page> {
        let mut world = self.0.lock().unwrap();
        world.pages += 1;
        world.windows.push(format!("{:?}", request.window));
        if let Some(Some(fault)) = world.faults.pop_front() {
            return Err(Error::new(fault, "the page does not come"));
        }
        if request.after.is_some() && world.losses > 0 {
            world.losses -= 1;
            return Ok(Page { lost: true, ..Page::default() });
        }
        let least = match request.window {
            Window::Since { watermark: Some(w), overlap, .. } => {
                w.parse::<i64>().unwrap() - overlap.as_secs() as i64
            }
            _ => i64::MIN,
        };
        let mut rows: Vec<Row> = world.rows.iter().filter(|r| r.2 >= least).copied().collect();
        rows.sort_by_key(|r| r.2);
        let from = request.after.map_or(0, |a| a.parse::<usize>().unwrap());
        let upto = (from + request.rows as usize).min(rows.len());
        let mut builder = BatchBuilder::default();
        for (id, value, changed) in &rows[from.min(upto)..upto] {
            let after = builder.cells.len() as u32;
            let text = builder.copy(value.as_bytes());
            let key = if *id < 0 { Cell::Null } else { Cell::I64(*id) };
            builder.cells.extend([key, Cell::Text(text), Cell::I64(*changed)]);
            builder.events.push(EventHead {
                table: 0,
                transaction: 0,
                before: NO_ROW,
                after,
                row: 0,
                op: Op::Read,
                snapshot: SnapshotMark::False,
                pos: 0,
                ts_us: 0,
            });
        }
        // Without rows beside them they come page by page.
        let (first, most) = if rows.is_empty() { (from, request.rows as usize) } else { (0, usize::MAX) };
        for id in world.gone.iter().skip(first).take(most) {
            let before = builder.cells.len() as u32;
            builder.cells.extend([Cell::I64(*id), Cell::Unchanged, Cell::Unchanged]);
            let head = EventHead { before, after: NO_ROW, op: Op::Delete, ..blank() };
            builder.events.push(head);
        }
        Ok(Page {
            rows: builder,
            next: match rows.is_empty() {
                true => (first + most < world.gone.len()).then(|| (first + most).to_string()),
                false => (upto < rows.len()).then(|| upto.to_string()),
            },
            watermark: rows[from.min(upto)..upto].last().map(|r| r.2.to_string()),
            cost: (world.price > 0).then(|| PollCost { bytes_billed: world.price, slot_ms: 1, price: 0.5 }),
            ..Page::default()
        })
    }
}

/// What an event did, to which key, with what.
type Told = (Op, i64, Option<String>);

/// A log: the rows that the events leave, the events themselves, the position.
#[derive(Clone, Default)]
struct Log {
    events: Arc<Mutex<Vec<Told>>>,
    position: Arc<Mutex<Option<SourcePosition>>>,
}

impl Log {
    fn apply(&self, batch: &Batch) {
        let mut events = self.events.lock().unwrap();
        for event in &batch.events {
            let id = |cells: &[Cell]| match cells[0] {
                Cell::I64(id) => id,
                _ => panic!("a key"),
            };
            let value = |cells: &[Cell]| match cells[1] {
                Cell::Text(s) => batch.text(s).to_owned(),
                _ => panic!("a text"),
            };
            let cells = batch.after(event).or(batch.before(event)).unwrap();
            events.push((event.op, id(cells), batch.after(event).map(value)));
        }
        let new = batch.position.source().unwrap().clone();
        let mut stored = self.position.lock().unwrap();
        let mut notes = stored.take().map(|p| p.notes).unwrap_or_default();
        notes.extend(new.notes);
        *stored = Some(SourcePosition { token: new.token, notes });
    }

    fn take(&self) -> Vec<(Op, i64, Option<String>)> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn record(&self) -> caudal_poll::Record {
        let stored = self.position.lock().unwrap();
        let text = stored.as_ref().and_then(|p| p.notes.get("poll/d.t").cloned().flatten());
        serde_json::from_str(&text.unwrap()).unwrap()
    }
}

/// What the log holds, as a topic would be read.
struct Topic(Vec<Row>);

#[async_trait]
impl Written for Topic {
    async fn open(&self, _: &TableId) -> Result<Box<dyn WrittenRows>> {
        Ok(Box::new(TopicRows(Some(self.0.clone()))))
    }
}

struct TopicRows(Option<Vec<Row>>);

#[async_trait]
impl WrittenRows for TopicRows {
    async fn next(&mut self) -> Result<Option<Batch>> {
        let Some(rows) = self.0.take() else { return Ok(None) };
        let mut builder = BatchBuilder::default();
        let table = builder.table(&schema());
        for (id, value, changed) in rows {
            let after = builder.cells.len() as u32;
            let text = builder.copy(value.as_bytes());
            builder.cells.extend([Cell::I64(id), Cell::Text(text), Cell::I64(changed)]);
            builder.events.push(EventHead {
                table,
                transaction: 0,
                before: NO_ROW,
                after,
                row: 0,
                op: Op::Create,
                snapshot: SnapshotMark::False,
                pos: 0,
                ts_us: 0,
            });
        }
        Ok(Some(builder.build(Position::Source(SourcePosition::default()), None)))
    }
}

/// Goes with the runtime's clock, which stands still until all wait.
fn clock() -> Clock {
    let began = tokio::time::Instant::now();
    Arc::new(move || Timestamp::from_second(1_000_000).unwrap() + began.elapsed())
}

fn job(mode: Mode) -> Job {
    Job {
        table: TableId::new("d", "t"),
        system: 0,
        scope: None,
        mode,
        schedule: Schedule::Every(Duration::from_secs(60)),
        page_rows: 2,
        page_bytes: 1 << 20,
        timeout: Duration::from_secs(5),
        attempts: 3,
        most_deleted: 0.5,
        partial: false,
    }
}

async fn open(table: &Table, log: &Log, mode: Mode, dir: &Path, topic: Option<Vec<Row>>) -> PollReader {
    let from = log.position.lock().unwrap().clone().map(Position::Source);
    PollReader::open(Start {
        name: "test".to_owned(),
        systems: vec![Arc::new(table.clone())],
        concurrent: 1,
        desk: Arc::default(),
        clock: clock(),
        jobs: vec![job(mode)],
        dir: dir.to_owned(),
        written: topic.map(|rows| Arc::new(Topic(rows)) as Arc<dyn Written>),
        heartbeat: Duration::from_secs(3_600),
        from,
    })
    .await
    .unwrap()
}

/// Reads until the next run's record is there; all is durable at once if `durable`.
async fn run(reader: &mut PollReader, log: &Log, durable: bool) -> Vec<(Op, i64, Option<String>)> {
    loop {
        let batch = reader.next().await.unwrap();
        let ends = batch.position.source().unwrap().notes.contains_key("poll/d.t");
        log.apply(&batch);
        if durable {
            reader.commit(&batch.position).await.unwrap();
        }
        if ends {
            return log.take();
        }
    }
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn incremental() -> Mode {
    Mode::Incremental { column: "changed".to_owned(), overlap: Duration::from_secs(10) }
}

fn set(table: &Table, rows: &[Row]) {
    table.0.lock().unwrap().rows = rows.to_vec();
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_goes_out_and_an_unchanged_poll_writes_nothing() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1), (2, "b", 2), (3, "c", 3)]);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    let first = run(&mut reader, &log, true).await;
    assert_eq!(first, [(Op::Read, 1, text("a")), (Op::Read, 2, text("b")), (Op::Read, 3, text("c"))]);
    assert_eq!(run(&mut reader, &log, true).await, []);
    set(&table, &[(1, "a", 1), (2, "B", 2), (3, "c", 3), (4, "d", 4)]);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Update, 2, text("B")), (Op::Create, 4, text("d"))]);
    let record = log.record();
    assert_eq!((record.run, record.rows, record.changed, record.error), (3, 4, 2, None));
    // What is known survives a restart.
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    assert_eq!(run(&mut reader, &log, true).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_committed_late_is_read_by_the_overlap_and_a_watermark_moves_only_with_its_rows() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 100), (2, "b", 200)]);
    let mut reader = open(&table, &log, incremental(), dir.path(), None).await;
    run(&mut reader, &log, true).await;
    assert_eq!(log.record().watermark.as_deref(), Some("200"));
    set(&table, &[(1, "a", 100), (2, "b", 200), (3, "late", 191), (4, "later still", 189)]);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Create, 3, text("late"))]);
    // Killed after the first page of a run: the next one begins where the last whole one ended.
    set(&table, &[(5, "x", 300), (6, "y", 301), (7, "z", 302)]);
    let batch = reader.next().await.unwrap();
    log.apply(&batch);
    assert_eq!(log.record().watermark.as_deref(), Some("200"));
    log.take();
    let mut reader = open(&table, &log, incremental(), dir.path(), None).await;
    let again = run(&mut reader, &log, true).await;
    assert_eq!(again.iter().map(|e| e.1).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(log.record().watermark.as_deref(), Some("302"));
    // An answer without rows leaves the watermark.
    set(&table, &[]);
    assert_eq!(run(&mut reader, &log, true).await, []);
    assert_eq!(log.record().watermark.as_deref(), Some("302"));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_called_durable_is_not_known() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1), (2, "b", 2)]);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    run(&mut reader, &log, true).await;
    set(&table, &[(1, "A", 1), (2, "b", 2)]);
    let before = log.position.lock().unwrap().clone();
    run(&mut reader, &log, false).await;
    // The log lost the batch: the change must come again.
    *log.position.lock().unwrap() = before;
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Update, 1, text("A"))]);
    // The log kept the batch, but the index does not know: a row that changes back must come out.
    set(&table, &[(1, "AA", 1), (2, "b", 2)]);
    run(&mut reader, &log, false).await;
    set(&table, &[(1, "A", 1), (2, "b", 2)]);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    assert!(run(&mut reader, &log, true).await.contains(&(Op::Read, 1, text("A"))));
    // The same without a restart, where durability is never told.
    set(&table, &[(1, "AA", 1), (2, "b", 2)]);
    run(&mut reader, &log, false).await;
    set(&table, &[(1, "A", 1), (2, "b", 2)]);
    assert!(run(&mut reader, &log, true).await.contains(&(Op::Read, 1, text("A"))));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_deleted_after_two_complete_refreshes_without_it() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    let all: Vec<Row> = vec![(1, "a", 1), (2, "b", 2), (3, "c", 3)];
    set(&table, &all);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), Some(all.clone())).await;
    run(&mut reader, &log, true).await;
    set(&table, &[(1, "a", 1), (3, "c", 3)]);
    assert_eq!(run(&mut reader, &log, true).await, []);
    // One that is there again was only missed.
    set(&table, &[(2, "b", 2), (3, "c", 3)]);
    assert_eq!(run(&mut reader, &log, true).await, []);
    // Absent once is remembered through a restart.
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), Some(all.clone())).await;
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Delete, 1, None)]);
    assert_eq!(log.record().deleted, 1);
    assert_eq!(run(&mut reader, &log, true).await, []);
    set(&table, &all);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Create, 1, text("a"))]);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_or_a_much_smaller_one_deletes_nothing() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    let all: Vec<Row> = vec![(1, "a", 1), (2, "b", 2), (3, "c", 3)];
    set(&table, &all);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), Some(all.clone())).await;
    run(&mut reader, &log, true).await;
    for (rows, says) in [(&all[..0], "the answer is empty"), (&all[..1], "2 of 3 known rows")] {
        set(&table, rows);
        for _ in 0..3 {
            // With one table only, its fault is the source's: the engine shows it, and comes back.
            let error = reader.next().await.unwrap_err();
            assert!(error.to_string().contains(says) && error.fault() == Fault::Data, "{error}");
            reader = open(&table, &log, Mode::FullRefresh, dir.path(), Some(all.clone())).await;
        }
    }
    assert_eq!(log.take(), []);
    set(&table, &all);
    assert_eq!(run(&mut reader, &log, true).await, []);
}

#[tokio::test(start_paused = true)]
async fn what_a_run_cost_is_the_sum_of_its_pages_each_counted_once() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1), (2, "b", 2), (3, "c", 3)]);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    run(&mut reader, &log, true).await;
    assert_eq!(log.record().cost, None, "a system that asks for nothing");
    {
        let mut world = table.0.lock().unwrap();
        world.price = 10;
        // A page that is asked for again is billed once.
        world.faults = [None, Some(Fault::Transient)].into();
    }
    for _ in 0..2 {
        run(&mut reader, &log, true).await;
        assert_eq!(log.record().cost, Some(PollCost { bytes_billed: 20, slot_ms: 2, price: 1.0 }));
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_and_what_may_not_is_told() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1), (2, "b", 2), (3, "c", 3)]);
    table.0.lock().unwrap().faults = [Some(Fault::Transient), None, Some(Fault::Transient)].into();
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    let ids: Vec<i64> = run(&mut reader, &log, true).await.iter().map(|e| e.1).collect();
    assert_eq!(ids, [1, 2, 3]);
    // Only the page that failed is asked for again.
    assert_eq!(table.0.lock().unwrap().pages, 4);
    table.0.lock().unwrap().faults = [Some(Fault::Data)].into();
    assert_eq!(reader.next().await.unwrap_err().fault(), Fault::Data);
}

#[tokio::test(start_paused = true)]
async fn of_rows_with_one_key_the_last_counts_and_rows_without_a_key_are_counted() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "old", 1), (1, "new", 2), (-1, "no key", 3)]);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    let told = run(&mut reader, &log, true).await;
    assert_eq!(told, [(Op::Read, 1, text("new"))]);
    let record = log.record();
    assert_eq!((record.rows, record.rejected), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_index_is_read_from_the_log() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    let all: Vec<Row> = vec![(1, "a", 1), (2, "b", 2)];
    set(&table, &all);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    run(&mut reader, &log, true).await;
    let other = tempfile::tempdir().unwrap();
    let mut reader = open(&table, &log, Mode::FullRefresh, other.path(), Some(all)).await;
    assert_eq!(run(&mut reader, &log, true).await, []);
    let none = tempfile::tempdir().unwrap();
    let mut reader = open(&table, &log, Mode::FullRefresh, none.path(), None).await;
    assert_eq!(run(&mut reader, &log, true).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_poll_gives_a_batch_each_heartbeat_and_a_captures_position_is_refused() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1)]);
    let mut start = Start {
        name: "test".to_owned(),
        systems: vec![Arc::new(table.clone())],
        concurrent: 1,
        desk: Arc::default(),
        clock: clock(),
        jobs: vec![job(Mode::FullRefresh)],
        dir: dir.path().to_owned(),
        written: None,
        heartbeat: Duration::from_secs(5),
        from: None,
    };
    let mut reader = PollReader::open(Start { from: None, jobs: start.jobs.clone(), ..start }).await.unwrap();
    run(&mut reader, &log, true).await;
    let batch = reader.next().await.unwrap();
    assert!(batch.events.is_empty());
    assert_eq!(batch.boundary.as_ref().map(|b| b.ts_us), Some(1_000_000));
    let token = r#"{"v":1,"flavor":"mysql","file":"binlog.000001","pos":4}"#.to_owned();
    let notes = BTreeMap::new();
    start = Start {
        name: "test".to_owned(),
        systems: vec![Arc::new(table)],
        concurrent: 1,
        desk: Arc::default(),
        clock: clock(),
        jobs: vec![job(Mode::FullRefresh)],
        dir: dir.path().to_owned(),
        written: None,
        heartbeat: Duration::from_secs(5),
        from: Some(Position::Source(SourcePosition { token, notes })),
    };
    let error = PollReader::open(start).await.err().unwrap();
    assert_eq!(error.fault(), Fault::Config, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_run_with_jitter_begins_and_a_run_on_command_does_not_wait_for_its_time() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1)]);
    let config = ScheduleConfig {
        cron: Some("0 3 * * *".into()),
        jitter: caudal_core::DurationText::secs(600),
        ..ScheduleConfig::default()
    };
    let schedule = config.resolve(&jiff::tz::TimeZone::UTC).unwrap();
    let desk = Arc::new(Desk::default());
    let mut reader = PollReader::open(Start {
        jobs: vec![Job { schedule, ..job(Mode::FullRefresh) }],
        desk: Arc::clone(&desk),
        ..start(&table, &log, dir.path())
    })
    .await
    .unwrap();
    assert_eq!(run(&mut reader, &log, true).await.len(), 1);
    let first = log.record().planned_us;
    set(&table, &[(1, "b", 1)]);
    // The tenth of a second that it takes is not three in the morning.
    let reread = Action::Reread { tables: vec!["t".to_owned(), "none".to_owned()], conditions: Vec::new() };
    desk.signal(Signal { number: 7, origin: String::new(), id: "x".to_owned(), action: reread });
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Update, 1, text("b"))]);
    assert!(log.record().planned_us < first + 86_400_000_000 / 4);
    let told: Vec<_> = desk.progress().iter().map(|p| (p.table.clone(), p.phase)).collect();
    assert_eq!(told, [("d.t".to_owned(), Phase::Done), ("none".to_owned(), Phase::Refused)]);
    // The next one is by the clock: three in the morning.
    set(&table, &[(1, "c", 1)]);
    assert_eq!(run(&mut reader, &log, true).await.len(), 1);
    assert_eq!(log.record().planned_us % 86_400_000_000, 3 * 3_600_000_000);
    // No command is taken twice.
    let reread = Action::Reread { tables: vec!["*".to_owned()], conditions: Vec::new() };
    desk.signal(Signal { number: 7, origin: String::new(), id: "x".to_owned(), action: reread });
    let day = log.record().planned_us / 86_400_000_000;
    run(&mut reader, &log, true).await;
    assert_eq!(log.record().planned_us / 86_400_000_000, day + 1);
}

fn start(table: &Table, log: &Log, dir: &Path) -> Start {
    Start {
        name: "test".to_owned(),
        systems: vec![Arc::new(table.clone())],
        concurrent: 1,
        jobs: vec![job(Mode::FullRefresh)],
        dir: dir.to_owned(),
        written: None,
        heartbeat: Duration::from_secs(3_600),
        desk: Arc::default(),
        clock: clock(),
        from: log.position.lock().unwrap().clone().map(Position::Source),
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_cannot_be_taken_hold_the_watermark_and_delete_nothing() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 100)]);
    let mut reader = open(&table, &log, incremental(), dir.path(), None).await;
    run(&mut reader, &log, true).await;
    set(&table, &[(1, "a", 100), (-1, "no key", 150), (2, "b", 200)]);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Create, 2, text("b"))]);
    assert_eq!((log.record().watermark.as_deref(), log.record().rejected), (Some("100"), 1));
    set(&table, &[(1, "a", 100), (3, "mended", 150), (2, "b", 200)]);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Create, 3, text("mended"))]);
    assert_eq!(log.record().watermark.as_deref(), Some("200"));
    // A refresh that met such rows says nothing of those that it did not meet.
    let (log, dir) = (Log::default(), tempfile::tempdir().unwrap());
    let all: Vec<Row> = (1..10).map(|id| (id, "x", id)).collect();
    set(&table, &all);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), Some(all.clone())).await;
    run(&mut reader, &log, true).await;
    let mut wrong = all.clone();
    wrong[4] = (-1, "no key", 5);
    set(&table, &wrong);
    for _ in 0..3 {
        assert_eq!(run(&mut reader, &log, true).await, []);
    }
    set(&table, &[&all[..4], &all[5..]].concat());
    assert_eq!(run(&mut reader, &log, true).await, []);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Delete, 5, None)]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_comes_again_within_a_run_ends_as_it_came_last() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 0), (2, "b", 0)]);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    run(&mut reader, &log, true).await;
    // Two rows a page: the key is on both, and what came last is what was known.
    set(&table, &[(1, "other", 0), (2, "b", 0), (1, "a", 0), (3, "c", 0)]);
    let told = run(&mut reader, &log, true).await;
    assert_eq!(
        told,
        [(Op::Update, 1, text("other")), (Op::Update, 1, text("a")), (Op::Create, 3, text("c"))]
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_that_comes_again_ends_the_run() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 0), (2, "b", 0), (3, "c", 0), (4, "d", 0), (1, "a", 0), (2, "b", 0)]);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    let mut ended = None;
    for _ in 0..5 {
        match reader.next().await {
            Ok(batch) => log.apply(&batch),
            Err(error) => ended = ended.or(Some(error.to_string())),
        }
    }
    assert!(ended.unwrap_or_default().contains("the same page came twice"));
}

#[tokio::test(start_paused = true)]
async fn stores_are_read_side_by_side_and_each_deletes_its_own_rows_alone() {
    let (well, down, log) = (Table::default(), Table::default(), Log::default());
    let dir = tempfile::tempdir().unwrap();
    set(&well, &[(1, "a", 1)]);
    set(&down, &[(2, "b", 2)]);
    down.0.lock().unwrap().faults = [Some(Fault::Config)].into();
    let scope = |name: &str| Some(Scope { name: name.into(), columns: vec![("value".into(), name.into())] });
    let mut reader = PollReader::open(Start {
        systems: vec![Arc::new(well.clone()), Arc::new(down.clone())],
        concurrent: 2,
        jobs: vec![
            Job { scope: scope("a"), ..job(Mode::FullRefresh) },
            Job { system: 1, scope: scope("b"), ..job(Mode::FullRefresh) },
        ],
        ..start(&well, &log, dir.path())
    })
    .await
    .unwrap();
    let mut notes = BTreeMap::new();
    while notes.len() < 2 {
        let batch = reader.next().await.unwrap();
        log.apply(&batch);
        let new = batch.position.source().unwrap().notes.clone();
        notes.extend(new.into_iter().filter(|(name, _)| name.starts_with("poll/")));
    }
    let record = |store: &str| -> caudal_poll::Record {
        serde_json::from_str(notes[&format!("poll/d.t@{store}")].as_deref().unwrap()).unwrap()
    };
    assert_eq!((record("a").rows, record("a").error), (1, None));
    assert!(record("b").error.is_some());
    assert_eq!(log.take(), [(Op::Read, 1, text("a"))]);
}

/// A command that asks for a run with conditions.
fn command(desk: &Desk, number: i64, conditions: &[&str]) {
    let conditions = conditions.iter().map(|text| ("*".to_owned(), (*text).to_owned())).collect();
    let action = Action::Reread { tables: vec!["t".to_owned()], conditions };
    desk.signal(Signal { number, origin: String::new(), id: number.to_string(), action });
}

#[tokio::test(start_paused = true)]
async fn a_forced_run_sends_all_rows_again_and_a_dry_one_nothing() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    let all: Vec<Row> = (1..6).map(|id| (id, "x", id * 100)).collect();
    set(&table, &all);
    let desk = Arc::new(Desk::default());
    let topic = Arc::new(Topic(all.clone())) as Arc<dyn Written>;
    let jobs = vec![job(incremental())];
    let given =
        Start { jobs, desk: Arc::clone(&desk), written: Some(topic), ..start(&table, &log, dir.path()) };
    let mut reader = PollReader::open(given).await.unwrap();
    assert_eq!(run(&mut reader, &log, true).await.len(), 5);
    let told = |id: &str| {
        let of = desk.progress().into_iter().find(|p| p.id == id).unwrap();
        (of.phase, of.rows, of.delivered, of.deleted)
    };
    // One that is dry: what would change is counted, and neither goes out nor is known afterwards.
    set(&table, &[&all[1..], &[(7, "new", 500)]].concat());
    command(&desk, 1, &["force", "dry-run"]);
    command(&desk, 2, &["dry-run"]);
    let before = log.record();
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Create, 7, text("new"))]);
    assert_eq!(told("1"), (Phase::Done, 5, 5, 0));
    assert_eq!(told("2"), (Phase::Done, 2, 1, 0));
    assert_eq!(log.record().run, before.run + 1, "a dry run leaves no record");
    // One that is forced: all go out, whatever is known of them, and what is gone twice is deleted.
    command(&desk, 3, &["force"]);
    let sent = run(&mut reader, &log, true).await;
    assert_eq!(
        sent.iter().map(|(op, id, _)| (*op, *id)).collect::<Vec<_>>(),
        [2, 3, 4, 5, 7].map(|id| (Op::Read, id))
    );
    command(&desk, 4, &["force", "dry-run"]);
    command(&desk, 5, &["force"]);
    let sent = run(&mut reader, &log, true).await;
    assert_eq!(sent.last().map(|(op, id, _)| (*op, *id)), Some((Op::Delete, 1)));
    assert_eq!(told("4").3, 1);
    // The watermark stays; another overlap holds for one run.
    command(&desk, 6, &["lookback 350s"]);
    run(&mut reader, &log, true).await;
    run(&mut reader, &log, true).await;
    let overlaps: Vec<bool> = table.0.lock().unwrap().windows.iter().map(|w| w.contains("350s")).collect();
    assert_eq!(overlaps.iter().filter(|is| **is).count(), 3, "its three pages");
    command(&desk, 7, &["id = 7"]);
    run(&mut reader, &log, true).await;
    assert_eq!(desk.progress().iter().find(|p| p.id == "7").map(|p| p.phase), Some(Phase::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_the_system_says_is_gone_is_deleted_at_once() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 100), (2, "b", 200), (3, "c", 200)]);
    let mut reader = open(&table, &log, incremental(), dir.path(), None).await;
    run(&mut reader, &log, true).await;
    // One that nobody knows is no news.
    set(&table, &[(1, "a", 100), (3, "c", 200)]);
    table.0.lock().unwrap().gone = vec![2, 99];
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Delete, 2, None)]);
    assert_eq!((log.record().changed, log.record().deleted), (0, 1));
    // It is gone from what is known, too.
    assert_eq!(run(&mut reader, &log, true).await, []);
    set(&table, &[(1, "a", 100), (2, "b", 200), (3, "c", 200)]);
    table.0.lock().unwrap().gone = Vec::new();
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Create, 2, text("b"))]);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_place_is_gone_begins_anew_and_fails_if_that_goes_on() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1), (2, "b", 2), (3, "c", 3)]);
    table.0.lock().unwrap().losses = 1;
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    let sent = run(&mut reader, &log, true).await;
    assert_eq!(sent.iter().map(|told| told.1).collect::<Vec<_>>(), [1, 2, 1, 2, 3]);
    assert_eq!((log.record().rows, log.record().error), (3, None));
    // The shape was handed on, though the run that found it began anew.
    assert!(log.position.lock().unwrap().as_ref().unwrap().notes.contains_key("shape/d.t"));
    table.0.lock().unwrap().losses = 3;
    let mut ended = None;
    while ended.is_none() {
        match reader.next().await {
            Ok(batch) => log.apply(&batch),
            Err(error) => ended = Some(error.to_string()),
        }
    }
    assert!(ended.unwrap_or_default().contains("broke 3 times"));
}

/// Three rows that are known, of which the first is told anew by a run that reads two pages.
async fn known(table: &Table, log: &Log, dir: &Path) -> PollReader {
    set(table, &[(1, "a", 1), (2, "b", 2), (3, "c", 3)]);
    let mut reader =
        open(table, log, Mode::FullRefresh, dir, Some(vec![(1, "A", 1), (2, "b", 2), (3, "c", 3)])).await;
    assert_eq!(run(&mut reader, log, true).await.len(), 3);
    set(table, &[(1, "A", 1), (2, "b", 2), (3, "c", 3)]);
    reader
}

async fn first_page(reader: &mut PollReader, log: &Log) {
    let batch = reader.next().await.unwrap();
    log.apply(&batch);
    reader.commit(&batch.position).await.unwrap();
    assert_eq!(log.take(), [(Op::Update, 1, text("A"))]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_back_after_a_run_that_did_not_end_is_told() {
    for killed in [false, true] {
        let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
        let mut reader = known(&table, &log, dir.path()).await;
        table.0.lock().unwrap().faults = [None, Some(Fault::Data)].into();
        first_page(&mut reader, &log).await;
        if !killed {
            assert!(reader.next().await.is_err());
        }
        drop(reader);
        table.0.lock().unwrap().faults.clear();
        set(&table, &[(1, "a", 1), (2, "b", 2), (3, "c", 3)]);
        let topic = Some(vec![(1, "A", 1), (2, "b", 2), (3, "c", 3)]);
        let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), topic).await;
        assert_eq!(run(&mut reader, &log, true).await, [(Op::Update, 1, text("a"))], "killed: {killed}");
        assert_eq!(run(&mut reader, &log, true).await, [], "the index is whole again");
        let stored = log.position.lock().unwrap().clone().unwrap();
        assert_eq!(stored.notes.get("torn/d.t"), Some(&None), "and the position says so");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_back_before_its_run_begins_anew_is_told() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    let mut reader = known(&table, &log, dir.path()).await;
    table.0.lock().unwrap().losses = 1;
    first_page(&mut reader, &log).await;
    set(&table, &[(1, "a", 1), (2, "b", 2), (3, "c", 3)]);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Update, 1, text("a"))]);
    assert_eq!(log.record().error, None);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_only_a_run_without_an_end_has_met_is_deleted_when_it_is_gone() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    let all: Vec<Row> = vec![(1, "a", 1), (2, "b", 2), (3, "c", 3)];
    set(&table, &all);
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), None).await;
    run(&mut reader, &log, true).await;
    set(&table, &[&[(4, "d", 0)], &all[..]].concat());
    let batch = reader.next().await.unwrap();
    log.apply(&batch);
    assert_eq!(log.take(), [(Op::Create, 4, text("d"))]);
    drop(reader);
    set(&table, &all);
    let topic = Some([&all[..], &[(4, "d", 0)]].concat());
    let mut reader = open(&table, &log, Mode::FullRefresh, dir.path(), topic).await;
    assert_eq!(run(&mut reader, &log, true).await, []);
    assert_eq!(run(&mut reader, &log, true).await, [(Op::Delete, 4, None)]);
}

#[tokio::test(start_paused = true)]
async fn pages_of_nothing_but_deletes_are_not_taken_for_one_page() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    set(&table, &[(1, "a", 1), (2, "b", 1), (3, "c", 1), (4, "d", 1)]);
    let mut reader = open(&table, &log, incremental(), dir.path(), None).await;
    run(&mut reader, &log, true).await;
    set(&table, &[]);
    table.0.lock().unwrap().gone = vec![1, 2, 3, 4];
    let told = run(&mut reader, &log, true).await;
    assert_eq!(told, [1, 2, 3, 4].map(|id| (Op::Delete, id, None)));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_fails_does_not_keep_another_one_from_its_turn() {
    let (bad, good, log) = (Table::default(), Table::default(), Log::default());
    let dir = tempfile::tempdir().unwrap();
    set(&good, &[(2, "b", 2)]);
    let scope = |name: &str| Some(Scope { name: name.into(), columns: vec![("value".into(), name.into())] });
    // As another reader left them: both had failed.
    let failed = r#"{"v":1,"run":1,"indexed":0,"complete_us":0,"started_us":0,"took_us":0,"rows":0,"changed":0,"deleted":0,"rejected":0,"bytes":0,"error":"network"}"#;
    let note = |name: &str| (format!("poll/d.t@{name}"), Some(failed.to_owned()));
    let notes = BTreeMap::from([note("a"), note("b")]);
    let token = r#"{"v":1,"kind":"poll","number":3,"ts_us":4}"#.to_owned();
    *log.position.lock().unwrap() = Some(SourcePosition { token, notes });
    bad.0.lock().unwrap().faults = (0..9).map(|_| Some(Fault::Config)).collect();
    let mut reader = PollReader::open(Start {
        systems: vec![Arc::new(bad), Arc::new(good)],
        jobs: vec![
            Job { scope: scope("a"), ..job(Mode::FullRefresh) },
            Job { system: 1, scope: scope("b"), ..job(Mode::FullRefresh) },
        ],
        ..start(&Table::default(), &log, dir.path())
    })
    .await
    .unwrap();
    for _ in 0..2 {
        log.apply(&reader.next().await.unwrap());
    }
    assert_eq!(log.take(), [(Op::Read, 2, text("b"))]);
}

#[tokio::test(start_paused = true)]
async fn a_forced_run_that_asks_for_a_part_of_the_rows_deletes_none() {
    for partial in [false, true] {
        let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
        let all: Vec<Row> = (1..6).map(|id| (id, "x", id * 100)).collect();
        set(&table, &all);
        let desk = Arc::new(Desk::default());
        let topic = Arc::new(Topic(all.clone())) as Arc<dyn Written>;
        let jobs = vec![Job { partial, ..job(incremental()) }];
        let given =
            Start { jobs, desk: Arc::clone(&desk), written: Some(topic), ..start(&table, &log, dir.path()) };
        let mut reader = PollReader::open(given).await.unwrap();
        run(&mut reader, &log, true).await;
        set(&table, &all[1..]);
        let mut deleted = 0;
        for number in 1..4 {
            command(&desk, number, &["force"]);
            let sent = run(&mut reader, &log, true).await;
            deleted += sent.iter().filter(|(op, ..)| *op == Op::Delete).count();
        }
        assert_eq!(deleted, usize::from(!partial));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_deletes_so_many_rows_at_most_and_the_next_one_more() {
    let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
    let all: Vec<Row> = (1..7).map(|id| (id, "x", id)).collect();
    set(&table, &all);
    let topic = Arc::new(Topic(all.clone())) as Arc<dyn Written>;
    // Two rows, a page's.
    let jobs = vec![Job { page_bytes: 0, ..job(Mode::FullRefresh) }];
    let given = Start { jobs, written: Some(topic), ..start(&table, &log, dir.path()) };
    let mut reader = PollReader::open(given).await.unwrap();
    run(&mut reader, &log, true).await;
    set(&table, &all[3..]);
    let mut deleted = Vec::new();
    let mut found = Vec::new();
    for _ in 0..4 {
        deleted.push(run(&mut reader, &log, true).await.len());
        found.push(log.record().findings.len());
    }
    assert_eq!((deleted, found), (vec![0, 2, 1, 0], vec![0, 1, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_table_with_another_key_is_read_under_it_from_the_beginning() {
    for mode in [incremental(), Mode::FullRefresh] {
        let (table, log, dir) = (Table::default(), Log::default(), tempfile::tempdir().unwrap());
        let rows = [(1, "a", 1), (2, "b", 100)];
        set(&table, &rows);
        let mut reader = open(&table, &log, mode.clone(), dir.path(), None).await;
        assert_eq!(run(&mut reader, &log, true).await.len(), 2);
        table.0.lock().unwrap().wide = true;
        let written = Some(rows.to_vec());
        let mut reader = open(&table, &log, mode.clone(), dir.path(), written.clone()).await;
        // One that fails leaves it to be done.
        table.0.lock().unwrap().faults = [Some(Fault::Data)].into();
        while reader.next().await.is_ok() {}
        let mut reader = open(&table, &log, mode.clone(), dir.path(), written.clone()).await;
        let all = run(&mut reader, &log, true).await;
        assert_eq!(all, [(Op::Read, 1, text("a")), (Op::Read, 2, text("b"))]);
        for _ in 0..3 {
            assert_eq!(run(&mut reader, &log, true).await, [], "nothing is deleted under a key of before");
        }
        let mut reader = open(&table, &log, mode, dir.path(), written).await;
        assert_eq!(run(&mut reader, &log, true).await, []);
    }
}
