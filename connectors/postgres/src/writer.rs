//! Accepts batches into an open transaction and commits them with their offsets.
//!
//! Memory: a batch at a time, with its encoded rows; what was accepted lies in the server's transaction, not here. So a source
//! transaction of any size passes through in parts.

use crate::after::After;
use crate::apply::{Applier, Optimism};
use crate::client::{Connection, Doing, Failure};
use crate::config::{Deletes, Resolved};
use crate::freshness::Freshness;
use crate::plan::Plan;
use crate::prepare::{Encoder, Group, Options, Prepared};
use crate::quote::literal;
use crate::shape::{Ensured, Shaper};
use crate::state::{Offsets, State};
use crate::sweep::Sweeps;
use crate::tables::Changes;
use async_trait::async_trait;
use caudal_core::{
    Batch, Error, EventHead, LogPosition, Outcome, Position, Prepare, Rejected, Result, Sweep, SweepPart,
    TableId, TableSchema, Writer,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Rows of one batch that may be refused one by one, each found by about 2 log2(batch) attempts.
const MOST_REJECTED: usize = 1_000;
/// Bits for the numbers of a batch's events: more than a batch has room for.
const BATCH_BITS: u32 = 28;

/// Writes to one database.
pub(crate) struct PgWriter {
    connection: Connection,
    config: Arc<Resolved>,
    state: State,
    options: Options,
    tables: HashMap<Identity, Table>,
    /// Shapes whose rows are set aside, with the reason.
    quarantined: HashMap<Identity, String>,
    /// What comes before the numbers of the batch's events, in histories; asked for when it is needed.
    base: Option<i64>,
    owned: Option<Owned>,
    open: bool,
    /// Whether the open transaction has its savepoint.
    marked: bool,
    sweeps: Sweeps,
    accepted: Accepted,
    freshness: Freshness,
    after: After,
}

/// What taking over gave, and what was committed since.
struct Owned {
    /// None where instances share the sink.
    epoch: Option<i64>,
    stored: Offsets,
}

/// What waits for the commit.
#[derive(Default)]
struct Accepted {
    any: bool,
    moved: Offsets,
}

/// A table in one shape.
struct Table {
    plan: Plan,
    staged: bool,
    optimism: Optimism,
}

/// Why a group could not be written.
enum Trouble {
    /// The rows are refused; where, for people.
    Rows(Failure),
    /// Anything else.
    Other(Error),
}

impl PgWriter {
    pub(crate) fn new(connection: Connection, config: Arc<Resolved>, options: Options) -> Self {
        let state = State::new(&config.state_schema);
        Self {
            connection,
            config,
            state,
            options,
            tables: HashMap::new(),
            quarantined: HashMap::new(),
            base: None,
            owned: None,
            open: false,
            marked: false,
            sweeps: Sweeps::default(),
            accepted: Accepted::default(),
            freshness: Freshness::default(),
            after: After::default(),
        }
    }

    /// Notes, with the rows, what is to run after them.
    pub(crate) fn with(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    /// The statements that begin a transaction, if none is open.
    fn beginning(&self) -> String {
        if self.open {
            return String::new();
        }
        let lock_timeout = self.config.lock_timeout.as_millis();
        // A transaction that hangs (a stopped process) must not hold its locks for ever; deferrable foreign keys wait for the end.
        format!(
            "{}; SET LOCAL lock_timeout = {lock_timeout}; SET LOCAL statement_timeout = 0; \
             SET LOCAL idle_in_transaction_session_timeout = '60s'; SET CONSTRAINTS ALL DEFERRED;",
            crate::client::BEGIN
        )
    }

    /// Begins a transaction if none is open.
    async fn begin(&mut self) -> Result<()> {
        if !self.open {
            self.connection.batch(&self.beginning()).await.doing(&self.config, "begin a transaction")?;
            self.open = true;
        }
        Ok(())
    }

    /// Sets the mark to go back to, in an open transaction: one for all that is attempted, moved each time.
    async fn mark(&mut self) -> Result<()> {
        let release = if self.marked { "RELEASE caudal;" } else { "" };
        let sql = format!("{} {release} SAVEPOINT caudal", self.beginning());
        self.connection.batch(&sql).await.doing(&self.config, "begin a transaction")?;
        self.open = true;
        self.marked = true;
        Ok(())
    }

    /// Undoes everything since the mark.
    async fn back_to_mark(&mut self) -> Result<()> {
        // What was shaped since then is gone with it.
        self.tables.clear();
        self.connection.batch("ROLLBACK TO caudal").await.doing(&self.config, "go back to a savepoint")
    }

    /// Plans the tables of a batch that are not planned yet.
    async fn plan(&mut self, groups: &[Group]) -> Result<()> {
        for group in groups {
            self.plan_shape(&group.schema).await?;
        }
        Ok(())
    }

    /// Plans a table's shape, if that was not done yet.
    async fn plan_shape(&mut self, schema: &TableSchema) -> Result<()> {
        let identity = identity(schema);
        if self.tables.contains_key(&identity) || self.quarantined.contains_key(&identity) {
            return Ok(());
        }
        self.plan_table(schema).await
    }

    async fn plan_table(&mut self, schema: &TableSchema) -> Result<()> {
        // A change of shape commits by itself where it can, so that its lock is short; within a source transaction that is
        // applied in parts it belongs to that.
        let own = !self.open;
        self.begin().await?;
        let shaper = Shaper { connection: &self.connection, state: &self.state, schema };
        let ensured = shaper.ensure().await?;
        if own {
            let doing = format!("shape the table of {}", schema.id);
            self.connection.batch("COMMIT").await.doing(&self.config, doing)?;
            (self.open, self.marked) = (false, false);
        }
        let plan = match ensured {
            Ensured::Planned(plan) => *plan,
            Ensured::Quarantined(cause) => {
                tracing::warn!(sink = self.config.name, table = %schema.id, cause, "rows of another shape are set aside");
                self.quarantined.insert(identity(schema), cause);
                return Ok(());
            }
        };
        // Plans of other shapes may name columns that are called otherwise now.
        self.tables.retain(|(id, _, _), _| *id != schema.id);
        let table = Table { plan, staged: false, optimism: Optimism::default() };
        self.tables.insert(identity(schema), table);
        Ok(())
    }

    /// Writes groups in order; a shape is planned when its first group comes, for groups before it have the older one.
    async fn apply(&mut self, groups: &[Group]) -> Result<(), Trouble> {
        for group in groups {
            self.plan_shape(&group.schema).await.map_err(Trouble::Other)?;
            let identity = identity(&group.schema);
            if self.tables.get(&identity).is_some_and(|table| table.plan.is_history()) && self.base.is_none()
            {
                self.base = Some(self.next_base().await.map_err(Trouble::Other)?);
            }
            if self.quarantined.contains_key(&identity) {
                continue;
            }
            let Some(table) = self.tables.get_mut(&identity) else {
                return Err(Trouble::Other(Error::bug("a table has no plan")));
            };
            table.plan.base = self.base.unwrap_or_default();
            let mut applier = Applier {
                connection: &self.connection,
                state: &self.state,
                plan: &table.plan,
                staged: &mut table.staged,
                optimism: &mut table.optimism,
                collecting: self.sweeps.collecting(&group.schema.id),
            };
            if let Err(failure) = applier.apply(group).await {
                return Err(if failure.is_data() {
                    Trouble::Rows(failure)
                } else {
                    Trouble::Other(failure.into_error(&self.config, format!("write {}", table.plan.name)))
                });
            }
        }
        Ok(())
    }

    /// What comes before the numbers of a batch's events: greater than that of any batch before.
    async fn next_base(&self) -> Result<i64> {
        let sql = format!("SELECT nextval({}::regclass)", literal(&self.state.history_sequence()));
        let rows = self.connection.query(&sql, &[]).await.doing(&self.config, "number a batch")?;
        let number: i64 = rows.first().map_or(0, |row| row.get(0));
        Ok(number << BATCH_BITS)
    }

    /// The events of a range prepared, less those that are set aside.
    fn prepared(&self, batch: &Batch, range: Range<u32>) -> Prepared {
        let mut prepared = Prepared::of(batch, range, &self.options);
        self.drop_quarantined(&mut prepared);
        prepared
    }

    fn drop_quarantined(&self, prepared: &mut Prepared) {
        if !self.quarantined.is_empty() {
            prepared.groups.retain(|group| !self.quarantined.contains_key(&identity(&group.schema)));
        }
    }

    /// Finds out which of the batch's shapes are set aside, and names their events.
    async fn quarantine(&mut self, batch: &Batch) -> Result<Vec<Rejected>> {
        for table in &batch.tables {
            if self.options.projector.rules(&table.id).changes == Changes::Quarantine {
                self.plan_shape(table).await?;
            }
        }
        if self.quarantined.is_empty() {
            return Ok(Vec::new());
        }
        let of = |(number, event): (usize, &EventHead)| {
            let cause = self.quarantined.get(&identity(batch.table(event)))?.clone();
            Some(Rejected { event: number as u32, cause })
        };
        Ok(batch.events.iter().enumerate().filter_map(of).collect())
    }

    /// Writes a range of events as a whole or not at all.
    async fn attempt(&mut self, groups: &[Group]) -> Result<Option<Failure>> {
        self.mark().await?;
        match self.apply(groups).await {
            Ok(()) => Ok(None),
            Err(Trouble::Rows(failure)) => {
                self.back_to_mark().await?;
                Ok(Some(failure))
            }
            Err(Trouble::Other(error)) => Err(error),
        }
    }

    /// Halves a range until each event that the server refuses stands alone. Halves are written one after the other, which is
    /// what writing them together means: so the others are all written, and a key's earlier image where its last is refused.
    async fn bisect(&mut self, batch: &Batch, range: Range<u32>, rejected: &mut Vec<Rejected>) -> Result<()> {
        // Once more as a whole: the table's own constraints may have changed since it was planned.
        let mut ranges = vec![(range.clone(), range.end..range.end)];
        while let Some((first, second)) = ranges.pop() {
            let rest = (!second.is_empty()).then_some(second);
            if let Some(rest) = rest {
                ranges.push((rest.clone(), rest.end..rest.end));
            }
            let prepared = self.prepared(batch, first.clone());
            let Some(failure) = self.attempt(&prepared.groups).await? else {
                rejected.extend(prepared.rejected);
                continue;
            };
            if first.len() == 1 {
                rejected.push(Rejected { event: first.start, cause: failure.data_cause() });
                self.refuse_too_many(batch, rejected)?;
            } else {
                ranges.push(halve(first));
            }
        }
        Ok(())
    }

    /// So many refused rows are no matter of rows.
    fn refuse_too_many(&self, batch: &Batch, rejected: &[Rejected]) -> Result<()> {
        let Some(last) = rejected.last().filter(|_| rejected.len() > MOST_REJECTED) else { return Ok(()) };
        let table = &batch.table(&batch.events[last.event as usize]).id;
        let message = format!(
            "more than {MOST_REJECTED} rows of a batch are refused, the last of {table}: {}",
            last.cause
        );
        Err(Error::data(message).hint("mend the table: a constraint there may not suit the source"))
    }

    async fn write_events(&mut self, batch: &mut Batch) -> Result<Vec<Rejected>> {
        let all = 0..batch.events.len() as u32;
        self.options.projector.apply(batch)?;
        let aside = self.quarantine(batch).await?;
        let mut prepared = match batch.prepared.take().map(|p| p.downcast::<Prepared>()) {
            Some(Ok(prepared)) => *prepared,
            _ => Prepared::of(batch, all.clone(), &self.options),
        };
        self.drop_quarantined(&mut prepared);
        self.plan_first(&prepared.groups).await?;
        let mut rejected = prepared.rejected;
        if self.attempt(&prepared.groups).await?.is_some() {
            // The second look names all of them itself.
            rejected.clear();
            self.bisect(batch, all, &mut rejected).await?;
        }
        // Those set aside come last, and their reason counts.
        rejected.extend(aside);
        rejected.reverse();
        rejected.sort_by_key(|r| r.event);
        rejected.dedup_by_key(|r| r.event);
        Ok(rejected)
    }

    /// Begins and ends the sweeps of a batch; its events lie between.
    async fn sweep(&mut self, sweeps: &[Sweep], part: SweepPart) -> Result<()> {
        for sweep in sweeps.iter().filter(|sweep| sweep.part == part) {
            let schema = self.options.projector.schema(&sweep.schema)?;
            self.plan_shape(&schema).await?;
            self.begin().await?;
            // Of a table that is set aside nothing is known.
            let Some(Table { plan, .. }) = self.tables.get(&identity(&schema)) else { continue };
            let rules = self.options.projector.rules(&schema.id);
            match part {
                SweepPart::Begin
                    if schema.key.is_empty() && (rules.history || rules.deletes == Deletes::Ignore) =>
                {
                    self.refuse_rows(plan).await?;
                }
                // What a history has met stays.
                SweepPart::Begin if rules.deletes == Deletes::Ignore || rules.history => {}
                SweepPart::Begin => self.sweeps.begin(&self.connection, &self.state, plan, sweep).await?,
                SweepPart::End => self.sweeps.end(&self.connection, plan, sweep).await?,
            }
        }
        Ok(())
    }

    /// A table without a key whose rows stay would have all of them twice when it is read anew.
    async fn refuse_rows(&self, plan: &Plan) -> Result<()> {
        let config = self.connection.config();
        let sql = format!("SELECT FROM {} LIMIT 1", plan.target);
        let rows = self.connection.query(&sql, &[]).await;
        match rows.doing(config, format!("look whether {} is empty", plan.name))?.is_empty() {
            true => Ok(()),
            false => Err(Error::data(format!(
                "{} has no key and keeps its rows: read anew from the log, all would be there twice",
                plan.name
            ))
            .hint("move the table away or empty it, and start the sink again")),
        }
    }

    /// Collects the keys of events that the target refused: the log knows them all the same.
    async fn collect_rejected(&mut self, batch: &Batch, rejected: &[Rejected]) -> Result<()> {
        for event in rejected.iter().map(|rejected| rejected.event) {
            let schema = batch.table(&batch.events[event as usize]);
            let Some(collecting) = self.sweeps.collecting(&schema.id) else { continue };
            let prepared = self.prepared(batch, event..event + 1);
            self.plan(&prepared.groups).await?;
            self.begin().await?;
            let (Some(group), Some(table)) =
                (prepared.groups.first(), self.tables.get_mut(&identity(schema)))
            else {
                self.sweeps.doubt_table(&schema.id);
                continue;
            };
            if group.upserts.len() == 0 && group.deletes.len == 0 {
                self.sweeps.doubt_table(&schema.id);
            }
            let mut applier = Applier {
                connection: &self.connection,
                state: &self.state,
                plan: &table.plan,
                staged: &mut table.staged,
                optimism: &mut table.optimism,
                collecting: Some(collecting),
            };
            applier.collect(group).await.doing(&self.config, format!("sweep {}", table.plan.name))?;
        }
        Ok(())
    }

    async fn write_batch(&mut self, batch: &mut Batch) -> Result<Vec<Rejected>> {
        self.base = None;
        let sweeps = std::mem::take(&mut batch.sweeps);
        self.sweep(&sweeps, SweepPart::Begin).await?;
        for undecodable in &batch.undecodable {
            self.sweeps.doubt(&undecodable.raw.topic);
        }
        let mut rejected = Vec::new();
        if !batch.events.is_empty() {
            rejected = self.write_events(batch).await?;
            self.collect_rejected(batch, &rejected).await?;
        }
        self.accept(batch)?;
        self.sweep(&sweeps, SweepPart::End).await?;
        batch.sweeps = sweeps;
        Ok(rejected)
    }

    /// Plans ahead, outside of the batch's transaction, what does not have to wait for other groups of the batch.
    async fn plan_first(&mut self, groups: &[Group]) -> Result<()> {
        let mut seen: Vec<&TableId> = Vec::new();
        let first: Vec<usize> = (0..groups.len())
            .filter(|i| {
                let id = &groups[*i].schema.id;
                let first = !seen.contains(&id);
                seen.push(id);
                first
            })
            .collect();
        for at in first {
            self.plan(&groups[at..=at]).await?;
        }
        Ok(())
    }

    fn accept(&mut self, batch: &Batch) -> Result<()> {
        let position = batch
            .position
            .log()
            .ok_or_else(|| Error::bug("this sink stores positions of the log, and was given another one"))?;
        for offset in &position.offsets {
            let mut stored = offset.clone();
            stored.unswept &= self.sweeps.waits(&offset.topic);
            self.accepted.moved.insert((Arc::clone(&offset.topic), offset.partition), stored);
        }
        self.freshness.accept(batch);
        self.after.accept(batch);
        self.accepted.any = true;
        Ok(())
    }

    fn owned(&self) -> Result<&Owned> {
        self.owned.as_ref().ok_or_else(|| Error::bug("write before resume"))
    }

    /// The last statements of a transaction.
    async fn seal(&mut self) -> Result<()> {
        let owned = self.owned.as_ref().ok_or_else(|| Error::bug("commit before resume"))?;
        let tell = self.freshness.tell(&self.connection, &self.state);
        // Sent together, run by the server in this order; none counts unless all are right.
        let (held, moved, told, noted) = futures::join!(
            self.state.hold_fence(&self.connection, owned.epoch),
            self.state.move_offsets(&self.connection, owned.epoch, &owned.stored, &self.accepted.moved),
            tell,
            self.after.tell(&self.connection),
        );
        held.and(moved).and(told).and(noted)
    }

    /// Leaves nothing behind that the server does not have: only `resume` makes the writer usable again.
    async fn roll_back(&mut self) {
        (self.open, self.marked) = (false, false);
        self.owned = None;
        self.accepted = Accepted::default();
        self.freshness.rolled_back();
        self.after.rolled_back();
        self.tables.clear();
        self.quarantined.clear();
        self.sweeps.clear();
        // Best effort: the connection ends with the writer, and the transaction with the connection.
        if self.connection.batch("ROLLBACK").await.is_err() {
            tracing::debug!(sink = self.config.name, "the rollback did not reach the server");
        }
    }
}

/// A table in one shape: generation and version.
type Identity = (TableId, u32, u32);

fn identity(schema: &TableSchema) -> Identity {
    (schema.id.clone(), schema.generation, schema.version)
}

fn halve(range: Range<u32>) -> (Range<u32>, Range<u32>) {
    let middle = range.start + (range.len() as u32).div_ceil(2);
    (range.start..middle, middle..range.end)
}

fn log_position(offsets: &Offsets) -> Position {
    let mut offsets: Vec<_> = offsets.values().cloned().collect();
    offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Position::Log(LogPosition { offsets })
}

#[async_trait]
impl Writer for PgWriter {
    async fn resume(&mut self) -> Result<Option<Position>> {
        if self.open {
            self.roll_back().await;
        }
        self.accepted = Accepted::default();
        self.freshness.rolled_back();
        self.after.rolled_back();
        self.sweeps.clear();
        let (epoch, stored) = self.state.take_over(&self.connection).await?;
        let position = (!stored.is_empty()).then(|| log_position(&stored));
        self.owned = Some(Owned { epoch, stored });
        Ok(position)
    }

    fn prepare(&self) -> Option<Arc<dyn Prepare>> {
        Some(Arc::new(Encoder(self.options.clone())))
    }

    async fn write(&mut self, batch: &mut Batch) -> Result<Outcome> {
        self.owned()?;
        let written = self.write_batch(batch).await;
        if written.is_err() {
            self.roll_back().await;
        }
        Ok(Outcome { rejected: written? })
    }

    async fn commit(&mut self) -> Result<Position> {
        if !self.accepted.any {
            let stored = &self.owned()?.stored;
            return if stored.is_empty() {
                Err(Error::bug("commit, and nothing was ever accepted"))
            } else {
                Ok(log_position(stored))
            };
        }
        self.begin().await?;
        if let Err(error) = self.seal().await {
            self.roll_back().await;
            return Err(error);
        }
        if let Err(failure) = self.connection.batch("COMMIT").await {
            // Refused (a deferred foreign key), or its outcome is unknown: what is stored tells, to the next `resume`.
            self.roll_back().await;
            return Err(failure.into_error(&self.config, "commit"));
        }
        (self.open, self.marked) = (false, false);
        self.freshness.committed();
        self.after.committed();
        let accepted = std::mem::take(&mut self.accepted);
        let position = log_position(&accepted.moved);
        if let Some(owned) = &mut self.owned {
            owned.stored.extend(accepted.moved);
        }
        Ok(position)
    }
}
