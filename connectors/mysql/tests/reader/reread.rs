//! Reading again: reconciled with what the log holds, while changes stream.

use crate::server::{Database, Stored, next, servers};
use crate::snapshot::{filled, selected, writers};
use crate::state::State;
use async_trait::async_trait;
use caudal_core::{
    Action, Batch, BatchBuilder, Cell, EventHead, Op, Phase, Position, Progress, Reader, Result, Signal,
    Source, TableId, TableSchema, Written, WrittenRows,
};
use mysql_async::prelude::Queryable;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A cell that owns its bytes.
#[derive(Clone)]
enum Owned {
    Plain(Cell),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Decimal(Vec<u8>),
    Json(Vec<u8>),
}

#[derive(Clone)]
struct Event {
    schema: Arc<TableSchema>,
    op: Op,
    before: Option<Vec<Owned>>,
    after: Option<Vec<Owned>>,
}

/// What a log would hold: all events, in order.
#[derive(Clone, Default)]
struct Topic(Arc<Mutex<Vec<Event>>>);

fn owned(batch: &Batch, cells: &[Cell]) -> Vec<Owned> {
    let own = |&cell: &Cell| match cell {
        Cell::Text(s) => Owned::Text(batch.bytes(s).to_vec()),
        Cell::Bytes(s) => Owned::Bytes(batch.bytes(s).to_vec()),
        Cell::Decimal(s) => Owned::Decimal(batch.bytes(s).to_vec()),
        Cell::Json(s) => Owned::Json(batch.bytes(s).to_vec()),
        plain => Owned::Plain(plain),
    };
    cells.iter().map(own).collect()
}

fn image(cells: Option<&Vec<Owned>>, out: &mut BatchBuilder) -> u32 {
    let Some(cells) = cells else { return caudal_core::batch::NO_ROW };
    let at = out.cells.len() as u32;
    for cell in cells {
        let cell = match cell {
            Owned::Plain(cell) => *cell,
            Owned::Text(b) => Cell::Text(out.copy(b)),
            Owned::Bytes(b) => Cell::Bytes(out.copy(b)),
            Owned::Decimal(b) => Cell::Decimal(out.copy(b)),
            Owned::Json(b) => Cell::Json(out.copy(b)),
        };
        out.cells.push(cell);
    }
    at
}

impl Topic {
    fn take(&self, batch: &Batch) {
        let mut events = self.0.lock().unwrap();
        events.extend(batch.events.iter().map(|e| Event {
            schema: Arc::clone(batch.table(e)),
            op: e.op,
            before: batch.before(e).map(|cells| owned(batch, cells)),
            after: batch.after(e).map(|cells| owned(batch, cells)),
        }));
    }
}

#[async_trait]
impl Written for Topic {
    async fn open(&self, table: &TableId) -> Result<Box<dyn WrittenRows>> {
        let events: Vec<Event> =
            self.0.lock().unwrap().iter().filter(|e| e.schema.id == *table).cloned().collect();
        Ok(Box::new(Rows(events.into_iter().collect())))
    }
}

struct Rows(std::collections::VecDeque<Event>);

#[async_trait]
impl WrittenRows for Rows {
    async fn next(&mut self) -> Result<Option<Batch>> {
        let mut builder = BatchBuilder::default();
        for event in self.0.drain(..self.0.len().min(100)) {
            let table = builder.table(&event.schema);
            let before = image(event.before.as_ref(), &mut builder);
            let after = image(event.after.as_ref(), &mut builder);
            builder.events.push(EventHead {
                table,
                transaction: 0,
                before,
                after,
                row: 0,
                op: event.op,
                snapshot: caudal_core::SnapshotMark::False,
                pos: 0,
                ts_us: 0,
            });
        }
        let empty = builder.events.is_empty();
        Ok((!empty).then(|| builder.build(Position::Log(Default::default()), None)))
    }
}

/// A source with all that is around it.
struct Capture {
    source: Arc<dyn Source>,
    reader: Box<dyn Reader>,
    topic: Topic,
    state: State,
    stored: Stored,
    /// Operations by table since the last look.
    ops: BTreeMap<(String, char), usize>,
    numbers: i64,
}

impl Capture {
    async fn open(database: &Database, extra: &str) -> Self {
        let source = caudal_mysql::source("test", database.config(extra)).unwrap();
        let topic = Topic::default();
        source.bind(Arc::new(topic.clone()));
        let reader = source.open(None).await.unwrap();
        let (state, stored) = (State::default(), Stored::default());
        Self { source, reader, topic, state, stored, ops: BTreeMap::new(), numbers: 0 }
    }

    /// As a process that was killed and started again.
    async fn reopen(&mut self, database: &Database, extra: &str) {
        self.source = caudal_mysql::source("test", database.config(extra)).unwrap();
        self.source.bind(Arc::new(self.topic.clone()));
        let from = self.stored.position.clone().map(Position::Source);
        self.reader = self.source.open(from).await.unwrap();
    }

    async fn step(&mut self) {
        let batch = next(&mut self.reader).await;
        self.topic.take(&batch);
        self.state.apply(&batch);
        self.stored.apply(&batch);
        for event in &batch.events {
            let of = (batch.table(event).id.table.clone(), event.op.letter());
            *self.ops.entry(of).or_default() += 1;
        }
        self.reader.commit(&batch.position).await.unwrap();
    }

    async fn snapshot(&mut self, tables: &[&str]) {
        while !self.stored.done(tables) {
            self.step().await;
        }
        self.ops.clear();
    }

    fn signal(&mut self, id: &str, action: Action) {
        self.numbers += 1;
        let (number, origin) = (self.numbers, String::new());
        self.source.signal(Signal { number, origin, id: id.to_owned(), action });
    }

    fn reread(&mut self, id: &str, table: &str, condition: Option<&str>) {
        let conditions = condition.map(|c| (table.to_owned(), c.to_owned())).into_iter().collect();
        self.signal(id, Action::Reread { tables: vec![table.to_owned()], conditions });
    }

    fn ended(&self, id: &str) -> Vec<Progress> {
        let all = self.source.progress();
        let ends = |p: &Progress| matches!(p.phase, Phase::Done | Phase::Stopped | Phase::Refused);
        if all.iter().any(|p| p.id == id && !ends(p)) {
            return Vec::new();
        }
        all.into_iter().filter(|p| p.id == id).collect()
    }

    /// Until the command is done, and nothing of it is left to be stored.
    async fn until(&mut self, id: &str) -> Vec<Progress> {
        while self.ended(id).is_empty() || self.pending() > 0 {
            self.step().await;
        }
        self.ended(id)
    }

    /// Re-reads that are stored as not done.
    fn pending(&self) -> usize {
        let notes = self.stored.position.iter().flat_map(|p| p.notes.keys());
        notes.filter(|name| name.starts_with("reread/")).count()
    }

    /// Until the stream has brought what was committed before.
    async fn catch_up(&mut self, database: &Database) {
        database.run(&["CREATE TABLE IF NOT EXISTS marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
        database.run(&["INSERT INTO marker VALUES (NULL)"]).await;
        let mut conn = database.connect().await;
        let last: i64 = conn.query_first("SELECT MAX(id) FROM marker").await.unwrap().unwrap();
        let key = vec![last.to_string()];
        while !self.state.tables.get("marker").is_some_and(|m| m.contains_key(&key)) {
            self.step().await;
        }
    }

    fn count(&self, table: &str, op: char) -> usize {
        self.ops.get(&(table.to_owned(), op)).copied().unwrap_or(0)
    }
}

/// Changes that no log shows.
async fn unlogged(database: &Database, statements: &[&str]) {
    let mut conn = database.connect().await;
    conn.query_drop("SET SESSION sql_log_bin = 0").await.unwrap();
    for statement in statements {
        conn.query_drop(*statement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_delivers_what_the_log_does_not_show_and_nothing_else() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 3_000).await;
        let mut capture = Capture::open(&database, r#""tables":["t"],"snapshot":{"chunk_rows":100}"#).await;
        capture.snapshot(&["t"]).await;
        unlogged(
            &database,
            &[
                "DELETE FROM t WHERE id < 10 OR id BETWEEN 1000 AND 1099",
                "UPDATE t SET s = 'x' WHERE id BETWEEN 20 AND 29",
                "INSERT INTO t SELECT id + 10000, n, s FROM t WHERE id BETWEEN 40 AND 46",
            ],
        )
        .await;
        capture.reread("one", "t", None);
        let ended = capture.until("one").await;
        assert_eq!((ended.len(), ended[0].phase, ended[0].deleted), (1, Phase::Done, 110));
        assert_eq!((capture.count("t", 'r'), capture.count("t", 'd')), (17, 110));
        assert!(capture.state == selected(&database).await, "mariadb: {}", server.mariadb);
        // Once more: nothing is left to tell.
        capture.ops.clear();
        capture.reread("two", "t", None);
        capture.until("two").await;
        assert!(capture.ops.is_empty(), "{:?}", capture.ops);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_under_concurrent_writers_ends_in_the_sources_state() {
    for server in servers() {
        let database = Arc::new(Database::create(&server).await);
        filled(&database, 2_000).await;
        database.run(&["CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
        let mut capture = Capture::open(&database, r#""snapshot":{"chunk_rows":50,"readers":3}"#).await;
        capture.snapshot(&["t", "marker"]).await;
        for round in 0..3 {
            unlogged(
                &database,
                &[
                    &format!("DELETE FROM t WHERE id % 7 = {round}"),
                    &format!("UPDATE t SET s = 'unlogged' WHERE id % 7 = {}", round + 3),
                ],
            )
            .await;
            let stop = Arc::new(AtomicBool::new(false));
            let writing = writers(&database, 4, 2_000, &stop);
            let id = format!("round {round}");
            capture.reread(&id, "t", None);
            let ended = capture.until(&id).await;
            stop.store(true, Ordering::Relaxed);
            for writer in writing {
                writer.await.unwrap();
            }
            assert!(ended[0].deleted > 0);
            capture.catch_up(&database).await;
            let expected = selected(&database).await;
            let (got, want) = (&capture.state.tables["t"], &expected.tables["t"]);
            let wrong: Vec<_> = want.iter().filter(|(k, v)| got.get(*k) != Some(*v)).take(5).collect();
            let more: Vec<_> = got.keys().filter(|k| !want.contains_key(*k)).take(5).collect();
            assert!(
                wrong.is_empty() && more.is_empty(),
                "mariadb: {}, {id}: {wrong:?} {more:?}",
                server.mariadb
            );
        }
        drop(capture);
        Arc::into_inner(database).unwrap().drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_on_a_parent_reads_its_children_too() {
    for server in servers() {
        let database = Database::create(&server).await;
        database
            .run(&[
                "CREATE TABLE p (id INT PRIMARY KEY, kind VARCHAR(9))",
                "CREATE TABLE c (id INT PRIMARY KEY, p INT, s VARCHAR(9), FOREIGN KEY (p) REFERENCES p (id))",
                "CREATE TABLE g (id INT PRIMARY KEY, c INT, s VARCHAR(9), FOREIGN KEY (c) REFERENCES c (id))",
                "INSERT INTO p VALUES (1,'a'),(2,'b'),(3,'a')",
                "INSERT INTO c VALUES (10,1,''),(11,1,''),(20,2,''),(30,3,'')",
                "INSERT INTO g VALUES (100,10,''),(200,20,'')",
            ])
            .await;
        let mut capture = Capture::open(&database, "").await;
        capture.snapshot(&["p", "c", "g"]).await;
        unlogged(&database, &["UPDATE c SET s = 'x'", "UPDATE g SET s = 'x'", "DELETE FROM c WHERE id = 11"])
            .await;
        capture.reread("w", "p", Some("kind = 'a' -- those"));
        let ended = capture.until("w").await;
        assert_eq!(ended.len(), 3, "{ended:?}");
        // Of the children of `b` nothing was read; the row that is gone is gone whatever it was.
        assert_eq!((capture.count("p", 'r'), capture.count("c", 'r'), capture.count("g", 'r')), (0, 2, 1));
        assert_eq!(capture.count("c", 'd'), 1);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_pauses_goes_on_and_is_given_up() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 1_000).await;
        let options = r#""tables":["t"],"snapshot":{"chunk_rows":50}"#;
        let mut capture = Capture::open(&database, options).await;
        capture.snapshot(&["t"]).await;
        unlogged(&database, &["UPDATE t SET s = 'x'"]).await;
        capture.signal("p", Action::Pause);
        capture.reread("r", "t", None);
        capture.reread("none", "nowhere", None);
        while capture.pending() == 0 || capture.ended("none").is_empty() {
            capture.step().await;
        }
        assert_eq!(capture.ended("none")[0].phase, Phase::Refused);
        for _ in 0..5 {
            capture.step().await;
        }
        assert_eq!(capture.count("t", 'r'), 0, "paused");
        // Paused over a restart, and the command is not lost; given again, it is not taken twice.
        capture.reopen(&database, options).await;
        for _ in 0..5 {
            capture.step().await;
        }
        assert_eq!((capture.count("t", 'r'), capture.pending()), (0, 1));
        capture.signal("go", Action::Resume);
        capture.until("r").await;
        assert_eq!(capture.count("t", 'r'), 1_000);
        capture.signal("p", Action::Pause);
        capture.reread("s", "t", None);
        capture.signal("stop", Action::Stop { tables: Vec::new() });
        assert_eq!(capture.until("s").await[0].phase, Phase::Stopped);
        assert_eq!(capture.pending(), 0);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_table_is_read_by_several_readers_and_goes_on_where_each_of_them_was() {
    for server in servers() {
        let database = Database::create(&server).await;
        database.run(&["CREATE TABLE t (id VARCHAR(20) COLLATE utf8mb4_general_ci, n INT, s VARCHAR(40), PRIMARY KEY (id, n))"]).await;
        let mut conn = database.connect().await;
        for start in (0..20_000).step_by(1_000) {
            let values: Vec<String> =
                (start..start + 1_000).map(|i| format!("('k{}',{i},'old')", i * 7_919 % 10_007)).collect();
            conn.query_drop(format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        }
        database.run(&["ANALYZE TABLE t"]).await;
        let options = r#""snapshot":{"chunk_rows":100,"readers":4}"#;
        let mut capture = Capture::open(&database, options).await;
        let (mut steps, mut ranges) = (0, 0);
        while !capture.stored.done(&["t"]) {
            capture.step().await;
            steps += 1;
            let notes = capture.stored.position.iter().flat_map(|p| &p.notes);
            let tables = notes.filter(|(name, _)| name.starts_with("table/"));
            ranges = tables
                .filter_map(|(_, t)| Some(t.as_ref()?.matches("\"to\"").count()))
                .max()
                .unwrap_or(0)
                .max(ranges);
            if steps % 30 == 29 {
                capture.reopen(&database, options).await;
            }
        }
        assert!(ranges > 1, "one range at a time");
        assert_eq!(
            capture.count("t", 'r'),
            20_000,
            "each row once, over restarts (mariadb: {})",
            server.mariadb
        );
        assert_eq!(capture.state.tables["t"].len(), 20_000);
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_re_read_that_is_asked_for_again_while_it_goes_on_stays_stored() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 5_000).await;
        let options = r#""tables":["t"],"snapshot":{"chunk_rows":50,"readers":1}"#;
        let mut capture = Capture::open(&database, options).await;
        capture.snapshot(&["t"]).await;
        capture.reread("one", "t", None);
        let read = |capture: &Capture| capture.source.progress().iter().any(|p| p.id == "one" && p.rows > 0);
        while !read(&capture) {
            capture.step().await;
        }
        capture.reread("two", "t", None);
        let known = |capture: &Capture| capture.source.progress().iter().any(|p| p.id == "two");
        while !known(&capture) || capture.pending() == 0 {
            capture.step().await;
        }
        // The first one's end must not take the second one's note away.
        while capture.ended("two").is_empty() {
            assert!(capture.pending() == 1, "a death now would lose the second one");
            capture.step().await;
        }
        capture.until("two").await;
        drop(capture);
        database.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_left_out_for_a_while_is_read_again_when_it_is_back() {
    for server in servers() {
        let database = Database::create(&server).await;
        filled(&database, 500).await;
        database.run(&["CREATE TABLE marker (id INT PRIMARY KEY AUTO_INCREMENT)"]).await;
        let (both, one) = (r#""tables":["t","marker"]"#, r#""tables":["marker"]"#);
        let mut capture = Capture::open(&database, both).await;
        capture.snapshot(&["t", "marker"]).await;
        capture.reopen(&database, one).await;
        database
            .run(&[
                "DELETE FROM t WHERE id < 10",
                "UPDATE t SET s = 'x' WHERE id BETWEEN 20 AND 29",
                "INSERT INTO t SELECT id + 10000, n, s FROM t WHERE id BETWEEN 40 AND 46",
            ])
            .await;
        capture.catch_up(&database).await;
        // A start without the table in between changes nothing.
        capture.reopen(&database, one).await;
        capture.catch_up(&database).await;
        capture.ops.clear();
        capture.reopen(&database, both).await;
        capture.catch_up(&database).await;
        while capture.pending() > 0 {
            capture.step().await;
        }
        assert_eq!((capture.count("t", 'r'), capture.count("t", 'd')), (17, 10));
        assert!(
            capture.state.tables["t"] == selected(&database).await.tables["t"],
            "mariadb: {}",
            server.mariadb
        );
        // And once only.
        capture.ops.clear();
        capture.reopen(&database, both).await;
        capture.catch_up(&database).await;
        assert_eq!(capture.pending(), 0);
        assert_eq!((capture.count("t", 'r'), capture.count("t", 'd')), (0, 0));
        drop(capture);
        database.drop().await;
    }
}
