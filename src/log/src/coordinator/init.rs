//! Producer ids and epochs.

use super::{Coordinator, Unfinished};
use crate::ledger::{Event, LedgerFault, Phase};
use kafka_protocol::error::ResponseError;

/// Longest time in milliseconds that a producer may keep a transaction open.
const MAX_TIMEOUT_MS: i32 = 900_000;
const LAST_EPOCH: i16 = i16::MAX - 1;

impl Coordinator {
    /// A new id for an idempotent producer; never given out again once this returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) async fn new_producer(&self) -> Result<(i64, i16), ResponseError> {
        let (id, number) = self.take_id().map_err(|_| ResponseError::CoordinatorNotAvailable)?;
        self.ledger.durable(number).await.map_err(|_| ResponseError::CoordinatorNotAvailable)?;
        Ok((id, 0))
    }

    /// Initializes a transactional producer: ends what its predecessor left open, fences it, and is durable on return.
    /// `known` is the id and epoch that the client says it has.
    ///
    /// # Errors
    /// When the time-out is out of range, the client is fenced itself, or the disk refuses.
    pub(crate) async fn initialize(
        &self,
        id: &str,
        timeout_ms: i32,
        known: Option<(i64, i16)>,
    ) -> Result<(i64, i16), ResponseError> {
        if id.is_empty() {
            return Err(ResponseError::InvalidRequest);
        }
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        let _alone = self.gate(id).write_owned().await;
        let current = self.ledger.read(|state| state.transactions.get(id).map(|t| (t.producer_id, t.epoch)));
        if let (Some(known), Some(current)) = (known, current)
            && known != current
        {
            return Err(ResponseError::ProducerFenced);
        }
        let given = self.take_over(id, timeout_ms).await;
        given.map_err(|cause| {
            tracing::error!(id, %cause, "initialize a producer; the client will ask again");
            ResponseError::CoordinatorNotAvailable
        })
    }

    async fn take_over(&self, id: &str, timeout_ms: i32) -> Result<(i64, i16), Unfinished> {
        let former = self.ledger.read(|state| state.transactions.get(id).cloned());
        let given = match former {
            None => (self.take_id()?.0, 0),
            Some(former) => {
                let fencing = former.epoch.saturating_add(1);
                match former.phase {
                    Phase::Ongoing => self.decide_and_finish(id, false, fencing).await?,
                    Phase::Decided(_) => self.finish(id).await?,
                    Phase::Empty | Phase::Done { .. } => {}
                }
                if fencing >= LAST_EPOCH { (self.take_id()?.0, 0) } else { (former.producer_id, fencing) }
            }
        };
        let event = Event::Producer {
            id: id.to_owned(),
            producer_id: given.0,
            epoch: given.1,
            timeout_ms,
            at_ms: self.clock.now_ms(),
        };
        let number = self.ledger.record(&event)?;
        self.ledger.durable(number).await?;
        Ok(given)
    }

    fn take_id(&self) -> Result<(i64, u64), LedgerFault> {
        let mut taken = 0;
        let number = self.ledger.decide(|state| {
            taken = state.next_producer_id;
            Some(Event::ProducerIds { next: taken + 1 })
        })?;
        Ok((taken, number.unwrap_or(0)))
    }
}
