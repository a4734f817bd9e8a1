//! The snapshot as the reader drives it: which table, which chunk, and what becomes of it.

use crate::binlog::Begin;
use crate::canonical::key_bytes;
use crate::client::Client;
use crate::config::Resolved;
use crate::position::{Place, Resend};
use crate::schema::Timeline;
use crate::snapshot::bounds::Stored;
use crate::snapshot::chunk::{self, Chunk, Job, Read};
use crate::snapshot::plan::Plan;
use crate::snapshot::progress::{Notes, TableNote, schema_note, schema_text, table_note};
use crate::snapshot::whole::{self, Exact, Piece};
use crate::snapshot::window::Window;
use caudal_core::batch::NO_ROW;
use caudal_core::{BatchBuilder, Error, EventHead, Op, Result, SnapshotMark, TableId};
use mysql_async::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Rows of a table's first chunk: small, for nothing is known of the server's speed yet.
const FIRST_ROWS: u32 = 2_000;
/// A chunk never gets smaller than this.
const LEAST_ROWS: u32 = 50;
/// How long to wait before a table is planned again that is being altered.
const AGAIN: Duration = Duration::from_millis(200);
/// How often progress is logged.
const REPORT: Duration = Duration::from_secs(2);

/// A chunk to be handed on.
pub(crate) struct Emission {
    /// Its rows.
    pub(crate) builder: BatchBuilder,
    /// Notes that go with them.
    pub(crate) notes: Vec<(String, Option<String>)>,
}

/// What becomes of an event of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes out.
    Deliver,
    /// The piece that is going to be read, or was read, holds it.
    Drop,
}

/// Where a table that is read in one piece stands.
enum Whole {
    /// Nothing was read yet.
    Pending,
    /// It is being read, or its rows are being handed on: its events wait.
    Reading,
    /// All was handed on: what the log holds up to there was in it.
    After(Exact),
}

/// What a task brings.
enum Brought {
    Chunk(Read),
    Piece(Box<Piece>),
}

/// The table that is being read.
struct Current {
    id: TableId,
    plan: Option<Arc<Plan>>,
    from: Option<Vec<Value>>,
    rows: u32,
    delivered: u64,
    started: Instant,
    delivered_before: u64,
}

/// All that has to be read, and the one chunk in flight.
pub(crate) struct Snapshot {
    config: Arc<Resolved>,
    queue: VecDeque<(TableId, TableNote)>,
    current: Option<Current>,
    window: Option<Window>,
    task: JoinSet<Result<(Client, Brought)>>,
    client: Option<Client>,
    ready: Option<Chunk>,
    wholes: HashMap<TableId, Whole>,
    piece: Option<Piece>,
    not_before: Option<Instant>,
    reported: Instant,
    any_row: bool,
    tables: usize,
}

impl Snapshot {
    /// Reads what `notes` do not call done, large tables first.
    ///
    /// # Errors
    /// `Data` if a stored place cannot be read.
    pub(crate) fn new(config: Arc<Resolved>, timeline: &Timeline, notes: &Notes) -> Result<Self> {
        let mut queue: Vec<(TableId, TableNote, u64)> = timeline
            .tables()
            .map(|(id, known)| {
                let note = notes.tables.get(&id.to_string()).cloned().unwrap_or_default();
                (id.clone(), note, known.table.estimated_rows * known.table.row_bytes.max(1))
            })
            .filter(|(_, note, _)| !note.done)
            .collect();
        queue.sort_by_key(|(_, note, size)| (note.from.is_none(), std::cmp::Reverse(*size)));
        let any_row = notes.tables.values().any(|n| n.rows > 0);
        Ok(Self {
            tables: queue.len(),
            queue: queue.into_iter().map(|(id, note, _)| (id, note)).collect(),
            any_row,
            wholes: wholes(timeline, notes, &config)?,
            ..Self::none(config)
        })
    }

    /// Nothing to read.
    pub(crate) fn none(config: Arc<Resolved>) -> Self {
        Self {
            config,
            queue: VecDeque::new(),
            current: None,
            window: None,
            task: JoinSet::new(),
            client: None,
            ready: None,
            wholes: HashMap::new(),
            piece: None,
            not_before: None,
            reported: Instant::now(),
            any_row: false,
            tables: 0,
        }
    }

    /// Whether nothing is left to read.
    pub(crate) fn is_done(&self) -> bool {
        self.current.is_none() && self.queue.is_empty()
    }

    /// How many tables are left.
    pub(crate) fn tables_left(&self) -> usize {
        self.queue.len() + usize::from(self.current.is_some())
    }

    /// The window, if the stream has to record keys of this table.
    pub(crate) fn window(&mut self, id: &TableId) -> Option<&mut Window> {
        self.window.as_mut().filter(|w| w.table() == id)
    }

    /// A statement in the stream changed these tables (none named: it may be any).
    pub(crate) fn changed(&mut self, ids: Option<&[TableId]>) {
        let Some(current) = &mut self.current else { return };
        if ids.is_some_and(|ids| !ids.contains(&current.id)) {
            return;
        }
        current.plan = None;
        if let Some(window) = &mut self.window {
            window.discard("the table was changed");
        }
    }

    /// Opens the next window, if none is open and its time has come. To be called only between two source transactions:
    /// `delivered` is the place that the stream has reached.
    pub(crate) async fn advance(
        &mut self,
        timeline: &mut Timeline,
        sql: &mut Client,
        delivered: &Place,
    ) -> Result<Option<Emission>> {
        if self.window.is_some() || self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(None);
        }
        self.not_before = None;
        if self.current.is_none() {
            let Some((id, note)) = self.queue.pop_front() else { return Ok(None) };
            self.current = Some(begin(id, &note, self.config.snapshot.chunk_rows)?);
        }
        let Some(plan) = self.plan(timeline, sql).await? else {
            return Ok(self.gone_or_later());
        };
        self.open(plan, delivered).await?;
        Ok(None)
    }

    /// When [`Snapshot::advance`] wants to be called, if it waits for a time.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.not_before
    }

    async fn plan(&mut self, timeline: &mut Timeline, sql: &mut Client) -> Result<Option<Arc<Plan>>> {
        let Some(current) = &mut self.current else { return Ok(None) };
        if let Some(plan) = &current.plan {
            return Ok(Some(Arc::clone(plan)));
        }
        match timeline.refresh(sql, &current.id).await? {
            None => Ok(None),
            // The stream has yet to bring the change: until then rows could not be told in its shape.
            Some((_, false)) => {
                self.not_before = Some(Instant::now() + AGAIN);
                Ok(None)
            }
            Some((known, true)) => {
                let plan = Arc::new(Plan::new(&known, &self.config.selection)?);
                current.plan = Some(Arc::clone(&plan));
                Ok(Some(plan))
            }
        }
    }

    /// A table that does not exist any more is done.
    fn gone_or_later(&mut self) -> Option<Emission> {
        if self.not_before.is_some() {
            return None;
        }
        let current = self.current.take()?;
        tracing::info!(table = %current.id, "snapshot: the table is gone");
        let note = TableNote { v: 1, done: true, rows: current.delivered, ..TableNote::default() };
        let notes = vec![(table_note(&current.id), Some(note.text()))];
        Some(Emission { builder: BatchBuilder::default(), notes })
    }

    /// Steps 1 to 3: recording begins here, then the chunk's connection waits and reads.
    async fn open(&mut self, plan: Arc<Plan>, delivered: &Place) -> Result<()> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.config).await?,
        };
        let Some(current) = &self.current else { return Ok(()) };
        let Some(parts) = plan.parts.clone() else {
            return self.open_whole(client, plan, delivered);
        };
        self.wholes.remove(&current.id);
        self.window = Some(Window::open(current.id.clone()));
        let bytes = self.config.snapshot.chunk_bytes.bytes();
        let job = Job {
            rows: current
                .rows
                .min((bytes / plan.row_bytes).clamp(u64::from(LEAST_ROWS), u64::from(u32::MAX)) as u32),
            plan,
            from: current.from.clone(),
            bytes: bytes as usize,
            delivered: delivered.clone(),
            limit: self.config.snapshot.chunk_time.get() * 10,
        };
        self.task.spawn(async move {
            let read = chunk::read(&mut client, &job, &parts).await?;
            Ok((client, Brought::Chunk(read)))
        });
        Ok(())
    }

    fn open_whole(&mut self, mut client: Client, plan: Arc<Plan>, delivered: &Place) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        tracing::warn!(
            source = self.config.name,
            table = %current.id,
            "snapshot: the table has no key that it could be read by: it is read in one piece, and a restart reads it again from its beginning"
        );
        current.from = None;
        self.wholes.insert(current.id.clone(), Whole::Reading);
        self.window = Some(Window::open(current.id.clone()));
        let (config, delivered) = (Arc::clone(&self.config), delivered.clone());
        self.task.spawn(async move {
            let piece = whole::read(&mut client, &config, plan, &delivered).await?;
            Ok((client, Brought::Piece(Box::new(piece))))
        });
        Ok(())
    }

    /// The table whose events have to wait until its piece is handed on.
    pub(crate) fn holds(&self) -> Option<&TableId> {
        let current = self.current.as_ref()?;
        matches!(self.wholes.get(&current.id), Some(Whole::Reading)).then_some(&current.id)
    }

    /// What becomes of the events of a transaction in a table. Those of a table that [`Snapshot::holds`] must wait.
    pub(crate) fn verdict(&self, id: &TableId, begin: &Begin, file: &str, pos: u64) -> Verdict {
        match self.wholes.get(id) {
            None => Verdict::Deliver,
            Some(Whole::After(exact)) if !exact.holds(begin, file, pos) => Verdict::Deliver,
            Some(_) => Verdict::Drop,
        }
    }

    /// The stream has delivered everything up to this place.
    pub(crate) fn passed(&mut self, place: &Place) {
        if !self.wholes.is_empty() {
            self.wholes.retain(|_, w| !matches!(w, Whole::After(exact) if exact.passed(place)));
        }
    }

    /// Whether rows of a piece are there to be taken.
    pub(crate) fn has_piece(&self) -> bool {
        self.piece.is_some()
    }

    /// The next rows of the piece, about `bytes` of them.
    ///
    /// # Errors
    /// `Transient` if spooled rows cannot be read, or are not of the table's shape.
    pub(crate) async fn take_piece(&mut self, bytes: usize) -> Result<Option<Emission>> {
        let (Some(piece), Some(current)) = (&mut self.piece, &mut self.current) else { return Ok(None) };
        let mut builder = BatchBuilder::default();
        if current.delivered > 0 && self.window.take().is_some() {
            // An earlier attempt was handed on in part.
            current.delivered = 0;
            truncate(&mut builder, &piece.plan);
        }
        self.window = None;
        let before = builder.events.len();
        while builder.size() < bytes
            && let Some(values) = piece.spool.next().await?
        {
            chunk::append(&values, &piece.plan, &mut builder).ok_or_else(|| {
                Error::transient(format!("{}: the table was changed while it was read", current.id))
            })?;
        }
        let rows = (builder.events.len() - before) as u64;
        let end = piece.spool.left() == 0;
        let plan = Arc::clone(&piece.plan);
        let at = end.then(|| piece.at.clone());
        let mut chunk = Chunk { builder, last: None, end, scanned: None, took: Duration::ZERO, plan };
        mark(&mut chunk, before, current.delivered == 0, !self.any_row, self.queue.is_empty());
        self.any_row |= rows > 0;
        current.delivered += rows;
        let upto = at.as_ref().map(Exact::stored);
        let (emission, _) = emission(chunk, current, upto);
        self.report(end);
        if let Some(at) = at {
            self.wholes.insert(current_id(&self.current)?, Whole::After(at));
            self.piece = None;
            self.current = None;
        }
        Ok(Some(emission))
    }

    /// Waits for the chunk in flight; for ever if there is none. Cancel-safe.
    pub(crate) async fn finished(&mut self) -> Result<()> {
        let Some(joined) = self.task.join_next().await else { return std::future::pending().await };
        let (client, brought) = joined.map_err(|e| Error::bug("read a chunk").because(e))??;
        match brought {
            Brought::Chunk(Read::Chunk(chunk)) => self.ready = Some(*chunk),
            Brought::Chunk(Read::TooSlow) => self.smaller(),
            Brought::Chunk(Read::Changed(why)) => self.again(&why),
            Brought::Piece(piece) => self.piece = Some(*piece),
        }
        self.client = Some(client);
        Ok(())
    }

    fn smaller(&mut self) {
        self.window = None;
        if let Some(current) = &mut self.current {
            current.rows = (current.rows / 4).max(LEAST_ROWS);
            tracing::info!(table = %current.id, rows = current.rows, "snapshot: the chunk took too long, asking for fewer rows");
        }
        self.not_before = Some(Instant::now() + AGAIN);
    }

    fn again(&mut self, why: &str) {
        self.window = None;
        if let Some(current) = &mut self.current {
            current.plan = None;
            tracing::info!(table = %current.id, why, "snapshot: the chunk is read again");
        }
        self.not_before = Some(Instant::now() + AGAIN);
    }

    /// Whether a chunk waits to be taken.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Step 4: closes the window and gives the rows that were not touched. To be called only between two source transactions,
    /// when everything that the stream delivered before is handed on.
    pub(crate) fn take(&mut self) -> Option<Emission> {
        let mut chunk = self.ready.take()?;
        let window = self.window.take()?;
        if let Some(why) = window.broken() {
            self.again(why);
            return None;
        }
        let read = chunk.scanned.map_or(chunk.builder.events.len() as u64, u64::from);
        drop_touched(&mut chunk, &window);
        let current = self.current.as_mut()?;
        adapt(current, &chunk, read, &self.config);
        mark(&mut chunk, 0, current.from.is_none(), !self.any_row, self.queue.is_empty());
        self.any_row |= !chunk.builder.events.is_empty();
        current.delivered += chunk.builder.events.len() as u64;
        current.from = chunk.last.take().or_else(|| current.from.take());
        let emission = emission(chunk, current, None);
        self.report(emission.1);
        if emission.1 {
            self.current = None;
        }
        Some(emission.0)
    }

    fn report(&mut self, table_done: bool) {
        let Some(current) = &self.current else { return };
        if !table_done && self.reported.elapsed() < REPORT {
            return;
        }
        self.reported = Instant::now();
        let seconds = current.started.elapsed().as_secs_f64().max(0.001);
        let rate = (current.delivered - current.delivered_before) as f64 / seconds;
        let estimated = current.plan.as_ref().map_or(0, |p| p.estimated_rows).max(current.delivered);
        let percent =
            if table_done { 100 } else { (current.delivered * 99).checked_div(estimated).unwrap_or(0) };
        let left = (estimated - current.delivered) as f64 / rate.max(1.0);
        tracing::info!(
            source = self.config.name,
            table = %current.id,
            rows = current.delivered,
            percent,
            rows_per_second = rate as u64,
            seconds_left = if table_done { 0 } else { left as u64 },
            tables_left = self.queue.len() + usize::from(!table_done),
            tables = self.tables,
            "snapshot{}", if table_done { ": table done" } else { "" }
        );
    }
}

fn begin(id: TableId, note: &TableNote, most: u32) -> Result<Current> {
    let values = |from: &Vec<Stored>| from.iter().map(Stored::to_value).collect::<Option<Vec<_>>>();
    let from =
        match &note.from {
            Some(from) => Some(values(from).ok_or_else(|| {
                Error::data(format!("{id}: the stored progress of the snapshot is damaged"))
            })?),
            None => None,
        };
    Ok(Current {
        id,
        plan: None,
        from,
        rows: FIRST_ROWS.min(most),
        delivered: note.rows,
        delivered_before: note.rows,
        started: Instant::now(),
    })
}

fn drop_touched(chunk: &mut Chunk, window: &Window) {
    if window.is_untouched() {
        return;
    }
    let builder = &mut chunk.builder;
    let mut events = std::mem::take(&mut builder.events);
    let mut key = Vec::new();
    let width = chunk.plan.schema.width();
    events.retain(|e| {
        key.clear();
        let row = &builder.cells[e.after as usize..][..width];
        key_bytes(&mut key, &chunk.plan.schema, row, builder);
        !window.touched(&key)
    });
    builder.events = events;
}

/// Chunks grow towards half of the time they may take, and shrink as fast.
fn adapt(current: &mut Current, chunk: &Chunk, read: u64, config: &Resolved) {
    if read < u64::from(current.rows) / 2 && !chunk.end {
        // Cut short by bytes: the time says little about rows.
        current.rows = (read as u32).max(LEAST_ROWS);
        return;
    }
    let target = config.snapshot.chunk_time.get().as_secs_f64() / 2.0;
    let factor = (target / chunk.took.as_secs_f64().max(0.001)).clamp(0.25, 4.0);
    let rows = (f64::from(current.rows) * factor) as u32;
    current.rows = rows.clamp(LEAST_ROWS, config.snapshot.chunk_rows.max(LEAST_ROWS));
}

/// First and last rows, as far as they are in a chunk's edges: rows that the stream touched carry no mark.
fn mark(chunk: &mut Chunk, from: usize, first: bool, first_of_all: bool, last_table: bool) {
    let events = &mut chunk.builder.events[from..];
    if first && let Some(event) = events.first_mut() {
        event.snapshot = if first_of_all { SnapshotMark::First } else { SnapshotMark::FirstInDataCollection };
    }
    if chunk.end
        && let Some(event) = events.last_mut()
    {
        event.snapshot = if last_table { SnapshotMark::Last } else { SnapshotMark::LastInDataCollection };
    }
}

fn truncate(builder: &mut BatchBuilder, plan: &Plan) {
    let table = builder.table(&plan.schema);
    builder.events.push(EventHead {
        table,
        transaction: 0,
        before: NO_ROW,
        after: NO_ROW,
        row: 0,
        op: Op::Truncate,
        snapshot: SnapshotMark::True,
        pos: 0,
        ts_us: 0,
    });
}

fn current_id(current: &Option<Current>) -> Result<TableId> {
    current.as_ref().map(|c| c.id.clone()).ok_or_else(|| Error::bug("hand on a piece of no table"))
}

/// Tables whose events are held back: those that are going to be read in one piece, and those that were, up to the piece's place.
fn wholes(timeline: &Timeline, notes: &Notes, config: &Resolved) -> Result<HashMap<TableId, Whole>> {
    let mut out = HashMap::new();
    for (id, known) in timeline.tables() {
        let note = notes.tables.get(&id.to_string()).cloned().unwrap_or_default();
        if let Some(upto) = &note.upto {
            out.insert(id.clone(), Whole::After(Exact::from_stored(upto)?));
        } else if !note.done && Plan::new(known, &config.selection)?.parts.is_none() {
            out.insert(id.clone(), Whole::Pending);
        }
    }
    Ok(out)
}

/// The batch's rows with their notes, and whether the table is done.
fn emission(chunk: Chunk, current: &Current, upto: Option<Resend>) -> (Emission, bool) {
    let note = TableNote {
        v: 1,
        done: chunk.end,
        rows: current.delivered,
        from: if chunk.end {
            None
        } else {
            current.from.as_ref().map(|k| k.iter().map(Stored::from_value).collect())
        },
        upto,
    };
    let mut notes = vec![(table_note(&current.id), Some(note.text()))];
    if current.delivered == chunk.builder.events.len() as u64 {
        let shape = &chunk.plan.shape;
        let schema = schema_text(shape.full(), &shape.excluded());
        notes.push((schema_note(&current.id), Some(schema)));
    }
    (Emission { builder: chunk.builder, notes }, chunk.end)
}
