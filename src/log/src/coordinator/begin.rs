//! What a transaction takes in: partitions, consumed offsets, batches.

use super::{Claim, Coordinator, claimed};
use crate::ledger::{Event, GroupOffset, Phase, TopicPartition};
use kafka_protocol::error::ResponseError;

impl Coordinator {
    /// Takes partitions into the producer's transaction, and begins it if need be.
    ///
    /// # Errors
    /// When the claim is fenced or unknown, when the former transaction is still being ended, when the disk refuses.
    pub(crate) async fn join(
        &self,
        claim: Claim<'_>,
        partitions: Vec<TopicPartition>,
    ) -> Result<(), ResponseError> {
        let _alone = self.gate(claim.id).write_owned().await;
        let at_ms = self.clock.now_ms();
        let mut outcome = Ok(());
        let recorded = self.ledger.decide(|state| {
            let transaction = match joinable(claimed(state, &claim)) {
                Ok(transaction) => transaction,
                Err(e) => {
                    outcome = Err(e);
                    return None;
                }
            };
            let known = transaction.phase == Phase::Ongoing
                && partitions.iter().all(|p| transaction.partitions.contains(p));
            (!known).then(|| Event::Joined { id: claim.id.to_owned(), at_ms, partitions })
        });
        recorded.map_err(|_| ResponseError::CoordinatorNotAvailable)?;
        outcome
    }

    /// Takes a group's consumed offsets into the producer's transaction; durable on return.
    ///
    /// # Errors
    /// As for [`Coordinator::join`].
    pub(crate) async fn join_offsets(
        &self,
        claim: Claim<'_>,
        group: &str,
        offsets: Vec<GroupOffset>,
    ) -> Result<(), ResponseError> {
        let _alone = self.gate(claim.id).write_owned().await;
        let at_ms = self.clock.now_ms();
        let mut outcome = Ok(());
        let recorded = self.ledger.decide(|state| match joinable(claimed(state, &claim)) {
            Ok(_) => {
                let (id, group) = (claim.id.to_owned(), group.to_owned());
                Some(Event::OffsetsJoined { id, at_ms, group, offsets })
            }
            Err(e) => {
                outcome = Err(e);
                None
            }
        });
        let unavailable = |_| ResponseError::CoordinatorNotAvailable;
        if let Some(number) = recorded.map_err(unavailable)? {
            self.ledger.durable(number).await.map_err(unavailable)?;
        }
        outcome
    }

    /// Whether a batch of the claimed producer may be appended to the partition. Hold the transaction open meanwhile.
    ///
    /// # Errors
    /// The protocol's error when not.
    pub(crate) fn admit(&self, claim: Claim<'_>, partition: TopicPartition) -> Result<(), ResponseError> {
        self.ledger.read(|state| {
            let transaction = claimed(state, &claim).map_err(|e| match e {
                ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
                other => other,
            })?;
            let open = transaction.phase == Phase::Ongoing && transaction.partitions.contains(&partition);
            if open { Ok(()) } else { Err(ResponseError::InvalidTxnState) }
        })
    }
}

fn joinable(
    found: Result<&crate::ledger::Transaction, ResponseError>,
) -> Result<&crate::ledger::Transaction, ResponseError> {
    match found {
        Ok(t) if matches!(t.phase, Phase::Decided(_)) => Err(ResponseError::ConcurrentTransactions),
        other => other,
    }
}
