//! The reader: stream and snapshot, merged into batches.
//!
//! Why a restart neither loses nor repeats an event: a batch's position is a point between two source transactions plus the
//! number of rows delivered behind it. The point moves only when a transaction's end was read, so the GTID set never holds a
//! transaction that is still being delivered. A resumed reader gets that transaction again from its beginning, skips exactly the
//! rows that were delivered, and compares the last one's key.
//!
//! Chunks of the snapshot are emitted between two source transactions, each as a batch of its own together with its progress note
//! (see [`crate::snapshot`]).
//!
//! Memory: the batch being filled (`batch_bytes` and one event of the log), one chunk with its window, undecided XA rows up to
//! `xa_bytes`, and the shapes of the tables.

mod asked;
pub(crate) mod clock;
mod kin;
mod partial;
mod prepared;
pub(crate) mod quarantine;
pub(crate) mod retention;
mod rows;
pub(crate) mod statement;
mod tally;
mod transaction;
mod xa;

use crate::binlog::{BinlogStream, Event, RowDecoder};
use crate::client::Client;
use crate::config::Resolved;
use crate::connection::Family;
use crate::position::{Place, Token, Within, source_position};
use crate::schema::Timeline;
use crate::shape::Shapes;
use crate::snapshot::commands::Inbox;
use crate::snapshot::shapes::Asked;
use crate::snapshot::{Emission, Snapshot};
use async_trait::async_trait;
use caudal_core::{
    Batch, BatchBuilder, Boundary, Incomplete, Position, Reader, Result, Scope, SourcePosition, TableId,
    Taken, Transaction,
};
use clock::Clock;
pub(crate) use kin::Kin;
use partial::Partials;
use prepared::Prepared;
pub(crate) use quarantine::Quarantine;
use retention::Guard;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use transaction::Tx;

/// Most events of a batch, whatever their size.
const MAX_EVENTS: usize = 65_536;

/// After so many steps the clock is looked at, though the stream has more.
const CLOCK_STEPS: u32 = 64;

/// See the module.
pub(crate) struct MySqlReader {
    config: Arc<Resolved>,
    family: Family,
    stream: BinlogStream,
    sql: Client,
    decoder: RowDecoder,
    timeline: Timeline,
    shapes: Shapes,
    snapshot: Snapshot,
    clock: Clock,
    prepared: Prepared,
    quarantine: Quarantine,
    kin: Kin,
    /// Captured tables that were dropped or renamed.
    gone: BTreeSet<TableId>,
    /// Tables that have had a column added since their newest version.
    added: BTreeSet<TableId>,
    /// Captured tables that the statement at hand changed.
    altered: Vec<TableId>,
    /// Everything up to here was delivered, and nothing behind it but `tx`'s rows.
    place: Place,
    /// The transaction that is being delivered.
    tx: Option<Tx>,
    /// Rows of the first transaction that were delivered before the reader was opened.
    skip: Within,
    /// After a resend: transactions up to here were delivered.
    replayed: Option<Place>,
    /// The end of the log when the reader was opened: a chunk must see at least that.
    opened_at: (String, u64),
    ts_us: i64,
    builder: BatchBuilder,
    /// Rows told in part, whose re-read goes with the next batch.
    partials: Partials,
    notes: BTreeMap<String, Option<String>>,
    /// How many of the builder's events lie before the last boundary.
    boundary: Option<usize>,
    /// An event that waits until a table's piece is handed on; the stream stands still meanwhile.
    held: Option<Event>,
    /// The server that is read, as it names itself.
    server: Option<String>,
    guard: Guard,
    /// Steps since the clock was looked at.
    steps: u32,
    out: VecDeque<Batch>,
    inbox: Arc<Inbox>,
    /// The last command taken.
    signal: Taken,
}

/// What a reader starts with.
pub(crate) struct Start {
    pub(crate) config: Arc<Resolved>,
    pub(crate) stream: BinlogStream,
    pub(crate) sql: Client,
    pub(crate) timeline: Timeline,
    pub(crate) snapshot: Snapshot,
    pub(crate) quarantine: Quarantine,
    pub(crate) kin: Kin,
    pub(crate) gone: BTreeSet<TableId>,
    pub(crate) added: BTreeSet<TableId>,
    pub(crate) token: Token,
    /// Notes that the first batch carries.
    pub(crate) notes: BTreeMap<String, Option<String>>,
    /// Commands.
    pub(crate) inbox: Arc<Inbox>,
    /// The last command taken.
    pub(crate) signal: Taken,
    /// The end of the log now.
    pub(crate) log_end: (String, u64),
    /// The stream's first event.
    pub(crate) first: Event,
    /// How long the server keeps its log.
    pub(crate) retention: Option<Duration>,
    /// Where it is shown that its end is near.
    pub(crate) purge: retention::Shown,
}

impl MySqlReader {
    pub(crate) fn new(start: Start) -> Self {
        let Start {
            config,
            stream,
            sql,
            timeline,
            snapshot,
            quarantine,
            kin,
            gone,
            added,
            token,
            notes,
            inbox,
            signal,
            log_end,
            first,
            retention,
            purge,
        } = start;
        let replayed = token.resend.is_some().then(|| token.place.clone());
        Self {
            family: stream.family(),
            clock: Clock::new(Arc::clone(&config)),
            prepared: Prepared::new(config.xa_bytes),
            quarantine,
            kin,
            gone,
            added,
            altered: Vec::new(),
            shapes: Shapes::new(config.selection.clone()),
            config,
            stream,
            sql,
            decoder: RowDecoder::default(),
            timeline,
            snapshot,
            place: token.place,
            tx: None,
            skip: token.within,
            replayed,
            opened_at: log_end,
            ts_us: token.ts_us,
            builder: BatchBuilder::default(),
            partials: Partials::default(),
            notes,
            boundary: None,
            held: Some(first),
            server: token.server,
            guard: Guard::new(retention, purge),
            steps: 0,
            out: VecDeque::new(),
            inbox,
            signal,
        }
    }

    /// One step: an event of the stream, a chunk, or a tick of the clock. The stream goes first, for its events are what
    /// everything else waits for; when it has none, what is there is handed on at once. A stream that always has one more must not keep the
    /// clock from ticking: who is far behind is who has to be warned.
    async fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps >= CLOCK_STEPS {
            self.steps = 0;
            tokio::select! {
                biased;
                period = self.clock.next() => self.clock_step(period?),
                () = std::future::ready(()) => {}
            }
        }
        if self.snapshot.has_piece() && (self.tx.is_none() || self.held.is_some()) {
            return self.piece_step().await;
        }
        if self.held.is_some() {
            return self.held_step().await;
        }
        let between = self.tx.is_none();
        let idle = between && !(self.builder.is_empty() && self.partials.is_empty());
        if between {
            self.take_up().await?;
            self.snapshot_step().await?;
            // A chunk that is ready waits for nothing: not for the next one, and the last one not for the clock.
            if !self.out.is_empty() {
                return Ok(());
            }
        }
        let wake = [self.snapshot.wakes_at(), self.quarantine.wakes_at()].into_iter().flatten().min();
        tokio::select! {
            biased;
            event = self.stream.next() => self.event(event?).await?,
            () = std::future::ready(()), if idle => self.flush(),
            finished = self.snapshot.finished() => finished?,
            period = self.clock.next() => self.clock_step(period?),
            signal = self.inbox.next(&self.signal), if between => {
                self.signal = Taken::of(&signal);
                self.snapshot.command(&signal, &self.timeline);
                // What was asked for is stored at once.
                self.flush();
            }
            () = sleep_until(wake), if between && wake.is_some() => {
                // The engine tells what is durable between two batches: while that is waited for, they must not be far apart.
                if self.snapshot.waits() {
                    self.flush();
                }
            }
        }
        if self.builder.size() >= self.config.batch_bytes || self.builder.events.len() >= MAX_EVENTS {
            self.close_full();
        }
        Ok(())
    }

    /// Between two source transactions: hands on a chunk that is ready, opens the next window.
    async fn snapshot_step(&mut self) -> Result<()> {
        if self.snapshot.is_done() {
            return Ok(());
        }
        if self.snapshot.is_ready() {
            self.flush_rows();
        }
        while self.snapshot.is_ready() {
            for emission in self.snapshot.take() {
                self.emit(emission);
            }
        }
        let mut delivered = self.place.clone();
        if !delivered.reaches(&self.opened_at.0, self.opened_at.1) {
            (delivered.file, delivered.pos) = self.opened_at.clone();
        }
        let mut shapes = Asked(&mut self.timeline, &mut self.sql);
        let emission = self.snapshot.advance(&mut shapes, &delivered).await?;
        self.new_generations();
        if let Some(emission) = emission {
            self.flush_rows();
            self.emit(emission);
        }
        Ok(())
    }

    /// Hands on rows of a table that is read in one piece.
    async fn piece_step(&mut self) -> Result<()> {
        self.flush_rows();
        if let Some(emission) = self.snapshot.take_piece(self.config.batch_bytes).await? {
            self.emit(emission);
        }
        Ok(())
    }

    /// An event waits: for the piece, if that is still being read.
    async fn held_step(&mut self) -> Result<()> {
        if self.snapshot.holds().is_some() {
            tokio::select! {
                finished = self.snapshot.finished() => finished?,
                period = self.clock.next() => if period? { self.flush() },
            }
            return Ok(());
        }
        match self.held.take() {
            Some(event) => self.event(event).await,
            None => Ok(()),
        }
    }

    /// A chunk becomes a batch of its own; the engine may show what is delivered after it.
    fn emit(&mut self, emission: Emission) {
        let Emission { mut builder, notes } = emission;
        self.notes.extend(notes);
        let file = builder.copy(self.place.file.as_bytes());
        let gtid = None;
        builder.transaction(Transaction { gtid, file: Some(file), server_id: 0, thread: 0 });
        for event in &mut builder.events {
            event.ts_us = self.ts_us;
            event.pos = self.place.pos;
        }
        let boundary = self.tx.is_none().then(|| Boundary {
            events: builder.events.len() as u32,
            position: self.token(Within::default()).position(self.family, BTreeMap::new()),
            ts_us: self.ts_us,
            scope: self.scope(),
        });
        let within = self.tx.as_mut().map_or_else(Within::default, Tx::delivered);
        let mut batch = builder.build(Position::Source(SourcePosition::default()), boundary);
        // What the rows make necessary is stored with them.
        self.kin.emitted(&batch);
        if self.tx.is_none() {
            self.kin_end();
        }
        batch.position = self.position(within);
        self.out.push_back(batch);
        if self.snapshot.is_done() {
            tracing::info!(source = self.config.name, "snapshot: all tables done, streaming");
        }
    }

    /// Each period gives a batch, an empty one if need be: also in the middle of a large transaction, which has no boundary.
    fn clock_step(&mut self, period: bool) {
        let between = self.tx.is_none();
        let due = if between { self.clock.due(&self.place) } else { None };
        self.ts_us = self.ts_us.max(due.unwrap_or(self.ts_us));
        if let Some(now) = self.clock.source_time() {
            self.guard.look(&self.config.name, now, self.ts_us);
        }
        if between && (period || due.is_some()) {
            self.boundary = Some(self.builder.events.len());
        }
        if period || due.is_some() {
            self.flush();
        }
    }

    /// Rows that were skipped or dropped fill the builder too, but make no batch.
    fn close_full(&mut self) {
        if !self.builder.is_empty() {
            return self.flush();
        }
        self.builder = BatchBuilder::default();
        if let Some(tx) = &mut self.tx {
            tx.delivered();
        }
    }

    fn flush_rows(&mut self) {
        if !self.builder.is_empty() {
            self.flush();
        }
    }

    /// Closes the batch.
    fn flush(&mut self) {
        let within = self.tx.as_mut().map_or_else(Within::default, Tx::delivered);
        let boundary = self.boundary.take().map(|events| Boundary {
            events: events as u32,
            position: self.token(Within::default()).position(self.family, BTreeMap::new()),
            ts_us: self.ts_us,
            scope: self.scope(),
        });
        let position = self.position(within);
        let builder = std::mem::take(&mut self.builder);
        self.out.push_back(builder.build(position, boundary));
    }

    /// What a boundary does not speak for.
    fn scope(&self) -> Option<Arc<Scope>> {
        let mut tables = self.snapshot.incomplete();
        tables.extend(self.quarantine.held().cloned());
        let incomplete = Incomplete::of(tables.into_iter().collect());
        if incomplete.is_none() {
            return None;
        }
        Some(Arc::new(Scope { source: self.config.name.clone(), tables: Vec::new(), incomplete }))
    }

    fn token(&self, within: Within) -> Token {
        // Until all rows that were delivered before are passed again, they still count.
        let within = if self.skip.rows > 0 { self.skip.clone() } else { within };
        Token {
            place: self.place.clone(),
            within,
            ts_us: self.ts_us,
            resend: self.prepared.resend(),
            server: self.server.clone(),
            mark: self.snapshot.mark(),
        }
    }

    fn position(&mut self, within: Within) -> Position {
        for request in self.partials.take() {
            self.snapshot.request(request);
        }
        self.notes.extend(self.snapshot.take_notes());
        let notes = std::mem::take(&mut self.notes);
        Position::Source(self.token(within).position(self.family, notes))
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}

#[async_trait]
impl Reader for MySqlReader {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.out.pop_front() {
                return Ok(batch);
            }
            self.step().await.map_err(|e| e.context(format!("read source {}", self.config.name)))?;
        }
    }

    async fn commit(&mut self, position: &Position) -> Result<()> {
        if self.snapshot.waits() {
            let stored = source_position(position)?;
            self.snapshot.durable(Token::decode(&stored.token, self.family)?.mark);
        }
        Ok(())
    }
}
