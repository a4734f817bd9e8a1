//! A shadow being filled from its topic, up to where the sink stands.

use super::super::output::{count, duration};
use super::Work;
use caudal_core::{Batch, Error, LogOffset, LogPosition, Position, Prepare, Result, TableId, Writer};
use caudal_kafka::{HeldTable, TableReader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What one transaction of the shadow holds at most.
const COMMIT_BYTES: usize = 16 << 20;
/// Behind the sink by fewer events than this, a shadow is near.
const NEAR: u64 = 5_000;
/// How often progress is told.
const SHOW: Duration = Duration::from_secs(2);
/// How long the sink may take to come by where the shadow stands already, or to end a reading anew.
const BEHIND: Duration = Duration::from_secs(300);
const ASK_EVERY: Duration = Duration::from_millis(300);
/// Refused rows that are remembered: more are no matter of rows.
const MOST_REFUSED: usize = 100_000;

/// A shadow and its reader.
pub(super) struct Shadow {
    pub(super) table: HeldTable,
    reader: TableReader,
    writer: Box<dyn Writer>,
    prepare: Option<Arc<dyn Prepare>>,
    /// Where it stands.
    at: BTreeMap<i32, LogOffset>,
    /// Events written by this call.
    pub(super) events: u64,
    /// Rows of the table that its topic no longer holds, and that were kept.
    pub(super) kept: u64,
    /// Records whose rows the table refused, as it does for the sink: (partition, offset).
    pub(super) refused: BTreeSet<(i32, i64)>,
    uncommitted: bool,
    shown: Instant,
    begun: Instant,
}

impl Shadow {
    /// Goes on where the shadow stands; `start`: where it begins if it has read nothing yet.
    pub(super) async fn open(
        work: &mut Work<'_>,
        table: &HeldTable,
        start: Option<LogPosition>,
    ) -> Result<Self> {
        let mut writer = work.rebuild.writer(&table.schema.id).await?;
        let stored = match writer.resume().await? {
            Some(Position::Log(position)) => Some(position),
            _ => start,
        };
        let from = stored.unwrap_or_default();
        let at = from.offsets.iter().map(|offset| (offset.partition, offset.clone())).collect();
        let reader = work.log.read_table("rebuild", table, from).await?;
        let (prepare, now) = (writer.prepare(), Instant::now());
        Ok(Self {
            table: table.clone(),
            reader,
            writer,
            prepare,
            at,
            events: 0,
            kept: 0,
            refused: BTreeSet::new(),
            uncommitted: false,
            shown: now,
            begun: now,
        })
    }

    pub(super) fn id(&self) -> &TableId {
        &self.table.schema.id
    }

    /// Where it stands.
    pub(super) fn position(&self) -> LogPosition {
        LogPosition { offsets: self.at.values().cloned().collect() }
    }

    /// Follows the sink until it is near.
    pub(super) async fn fill(&mut self, work: &mut Work<'_>) -> Result<()> {
        loop {
            let before = self.events;
            self.catch_up(work, None).await?;
            if self.events - before < NEAR {
                return Ok(());
            }
        }
    }

    /// Reads up to where the sink stands now; false if that takes longer than until `until`.
    pub(super) async fn catch_up(&mut self, work: &mut Work<'_>, until: Option<Instant>) -> Result<bool> {
        let Some(ends) = self.ends(work, until).await? else { return Ok(false) };
        self.reader.aim(&ends)?;
        let mut bytes = 0;
        while let Some(batch) = self.reader.next().await? {
            bytes += batch.size();
            self.write(work, batch).await?;
            if bytes >= COMMIT_BYTES {
                self.commit().await?;
                bytes = 0;
            }
            self.show(work, &ends);
            if until.is_some_and(|until| Instant::now() > until) {
                self.commit().await?;
                return Ok(false);
            }
        }
        self.commit().await.map(|()| true)
    }

    /// Where the sink stands. It may be behind its shadow (it is reading the table anew, or was set back): then it is waited for.
    async fn ends(&self, work: &mut Work<'_>, until: Option<Instant>) -> Result<Option<LogPosition>> {
        let until_when = until.unwrap_or_else(|| Instant::now() + BEHIND);
        loop {
            let ends = work.rebuild.live(&self.table.topic).await?;
            let behind = ends.offsets.iter().any(|end| {
                end.unswept || self.at.get(&end.partition).is_some_and(|at| at.offset > end.offset)
            });
            if !behind {
                return Ok(Some(ends));
            }
            if Instant::now() > until_when {
                return match until {
                    Some(_) => Ok(None),
                    None => Err(Error::transient(format!("the sink itself is reading {} anew", self.id()))
                        .hint("wait until it is through (caudal status), then call it again: it goes on")),
                };
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn write(&mut self, work: &Work<'_>, mut batch: Batch) -> Result<()> {
        if let Some(prepare) = &self.prepare {
            let prepare = Arc::clone(prepare);
            let prepared =
                tokio::task::spawn_blocking(move || prepare.prepare(&mut batch).map(|()| batch)).await;
            batch = prepared.map_err(|e| Error::bug("prepare a batch").because(e))??;
        }
        let outcome = self.writer.write(&mut batch).await?;
        let undecodable = batch.undecodable.iter().map(|u| (u.raw.partition, u.raw.offset, u.cause.clone()));
        let rejected = outcome.rejected.iter().filter_map(|r| {
            let raw = batch.raw.get(r.event as usize)?;
            Some((raw.partition, raw.offset, r.cause.clone()))
        });
        for (partition, offset, cause) in undecodable.chain(rejected) {
            if !work.leave_out || self.refused.len() >= MOST_REFUSED {
                return Err(Error::data(format!(
                    "{} [{partition}] offset {offset} cannot be taken: {cause}",
                    self.table.topic
                ))
                .hint(
                    "mend the table's constraint; or set on_reject: dead_letter, then such rows are left out",
                ));
            }
            self.refused.insert((partition, offset));
        }
        if let Position::Log(position) = &batch.position {
            for offset in &position.offsets {
                self.at.insert(offset.partition, offset.clone());
            }
        }
        self.events += batch.events.len() as u64;
        self.uncommitted = true;
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        if std::mem::take(&mut self.uncommitted) {
            self.writer.commit().await?;
        }
        Ok(())
    }

    fn show(&mut self, work: &Work<'_>, ends: &LogPosition) {
        if self.shown.elapsed() < SHOW {
            return;
        }
        self.shown = Instant::now();
        let left: i64 = ends
            .offsets
            .iter()
            .map(|end| (end.offset - self.at.get(&end.partition).map_or(0, |at| at.offset)).max(0))
            .sum();
        let rate = self.events as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let eta = Duration::from_secs_f64((left as f64 / rate.max(1.0)).min(1e9));
        work.tell(&format!(
            "{}: {} events, {} offsets left, {} events/s, {} left",
            self.id(),
            count(self.events),
            count(left as u64),
            count(rate as u64),
            duration(eta)
        ));
    }
}
