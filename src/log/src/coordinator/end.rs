//! Ending a transaction: by its producer, by a newer producer, by time-out.

use super::{Claim, Coordinator, Unfinished, claimed};
use crate::ledger::{Decision, Event, Phase, TopicPartition, Transaction};
use crate::storage::{AppendError, Durability, NotDurable};
use kafka_protocol::error::ResponseError;

/// How often a marker is tried again at once when its fsync fails.
const MARKER_ATTEMPTS: usize = 3;

impl Coordinator {
    /// Commits or aborts the producer's transaction; all of it is durable and visible on return.
    ///
    /// # Errors
    /// When the claim is fenced or unknown, or there is nothing to end this way; `CoordinatorNotAvailable` when the disk
    /// refuses, in which case the client asks again.
    pub(crate) async fn end(&self, claim: Claim<'_>, commit: bool) -> Result<(), ResponseError> {
        let _alone = self.gate(claim.id).write_owned().await;
        let phase = self.ledger.read(|state| claimed(state, &claim).map(|t| t.phase.clone()))?;
        let ended = match phase {
            Phase::Ongoing => self.decide_and_finish(claim.id, commit, claim.epoch).await,
            Phase::Decided(decision) if decision.commit == commit => self.finish(claim.id).await,
            Phase::Done { commit: was } if was == commit => return Ok(()),
            Phase::Empty if !commit => return Ok(()),
            _ => return Err(ResponseError::InvalidTxnState),
        };
        ended.map_err(|cause| {
            tracing::error!(id = claim.id, %cause, "end a transaction; the client will ask again");
            ResponseError::CoordinatorNotAvailable
        })
    }

    /// Ends transactions that were open for longer than their producer allows, and those whose ending was interrupted.
    pub(crate) async fn end_overdue(&self) {
        let now_ms = self.clock.now_ms();
        let due = self.ledger.read(|state| {
            let due = state.transactions.iter().filter(|(_, t)| t.overdue(now_ms));
            due.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        });
        for id in due {
            let _alone = self.gate(&id).write_owned().await;
            if let Err(cause) = self.end_if_overdue(&id, now_ms).await {
                tracing::error!(id, %cause, "end an overdue transaction; the next round tries again");
            }
        }
    }

    async fn end_if_overdue(&self, id: &str, now_ms: i64) -> Result<(), Unfinished> {
        let found = self.ledger.read(|state| state.transactions.get(id).cloned());
        match found.filter(|t| t.overdue(now_ms)) {
            Some(Transaction { phase: Phase::Ongoing, epoch, .. }) => {
                tracing::warn!(id, "transaction timed out: aborting");
                self.decide_and_finish(id, false, epoch.saturating_add(1)).await
            }
            Some(_) => self.finish(id).await,
            None => Ok(()),
        }
    }

    /// Steps 1 to 4 of the order above. The gate is held.
    pub(super) async fn decide_and_finish(
        &self,
        id: &str,
        commit: bool,
        epoch: i16,
    ) -> Result<(), Unfinished> {
        let partitions = self.ledger.read(|state| {
            state.transactions.get(id).map(|t| t.partitions.iter().copied().collect::<Vec<_>>())
        });
        let ends = self.make_durable(partitions.unwrap_or_default()).await?;
        let decision = Decision { commit, epoch, ends };
        let number = self.ledger.record(&Event::Decided { id: id.to_owned(), decision })?;
        self.ledger.durable(number).await?;
        self.finish(id).await
    }

    /// Step 1: everything that the transaction appended is fsynced; returns up to where.
    async fn make_durable(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<(TopicPartition, i64)>, Unfinished> {
        let mut ends = Vec::with_capacity(partitions.len());
        let mut pending = Vec::with_capacity(partitions.len());
        for at in partitions {
            if let Some((_, partition)) = self.topics.partition_by_id(at) {
                pending.push(partition.all_written());
                ends.push((at, partition.end()));
            }
        }
        all_reached(pending).await?;
        Ok(ends)
    }

    /// Steps 3 and 4, of a transaction that is decided. The gate is held.
    pub(super) async fn finish(&self, id: &str) -> Result<(), Unfinished> {
        // The decision may have been recorded by an attempt that never saw its fsync.
        self.ledger.all_durable().await?;
        let found = self.ledger.read(|state| match state.transactions.get(id) {
            Some(Transaction { producer_id, phase: Phase::Decided(decision), .. }) => {
                Some((*producer_id, decision.clone()))
            }
            _ => None,
        });
        let Some((producer_id, decision)) = found else {
            return Ok(());
        };
        self.write_markers(producer_id, &decision).await?;
        let event = Event::Finished { id: id.to_owned(), at_ms: self.clock.now_ms() };
        self.ledger.record(&event)?;
        Ok(())
    }

    pub(super) async fn write_markers(
        &self,
        producer_id: i64,
        decision: &Decision,
    ) -> Result<(), Unfinished> {
        let mut attempt = 1;
        loop {
            let pending = self.append_markers(producer_id, decision).await?;
            match all_reached(pending).await {
                Err(NotDurable) if attempt < MARKER_ATTEMPTS => attempt += 1,
                other => return Ok(other?),
            }
        }
    }

    async fn append_markers(
        &self,
        producer_id: i64,
        decision: &Decision,
    ) -> Result<Vec<Durability>, AppendError> {
        let targets: Vec<_> = decision
            .ends
            .iter()
            .filter_map(|(at, end)| self.topics.partition_by_id(*at).map(|(t, p)| (p, t.config(), *end)))
            .collect();
        let (commit, epoch) = (decision.commit, decision.epoch);
        let write = move || {
            let mut pending = Vec::with_capacity(targets.len());
            for (partition, config, end) in targets {
                let marker = partition.end_transaction(producer_id, epoch, commit, end, &config.rules)?;
                // An attempt before this one may have written the marker without seeing its fsync.
                pending.push(marker.unwrap_or_else(|| partition.all_written()));
            }
            Ok(pending)
        };
        tokio::task::spawn_blocking(write).await.unwrap_or_else(|e| Err(std::io::Error::other(e).into()))
    }
}

async fn all_reached(pending: Vec<Durability>) -> Result<(), NotDurable> {
    for durability in pending {
        durability.reached().await?;
    }
    Ok(())
}

impl Transaction {
    fn overdue(&self, now_ms: i64) -> bool {
        match self.phase {
            Phase::Ongoing => self.at_ms.saturating_add(i64::from(self.timeout_ms)) < now_ms,
            Phase::Decided(_) => true,
            Phase::Empty | Phase::Done { .. } => false,
        }
    }
}
