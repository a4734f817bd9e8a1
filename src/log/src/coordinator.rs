//! The transaction coordinator.
//!
//! **The order of a commit.** (1) No batch of the transaction is being appended (the gate is held alone) and all that was
//! appended is fsynced; (2) the decision is journaled and fsynced; (3) a marker is written to every partition and fsynced;
//! (4) the transaction's offsets count, and the client is answered. A crash before (2) is durable leaves an open transaction,
//! which goes on or is aborted, and of which readers saw nothing; after it, [`Coordinator::recover`] repeats (3), which a
//! marker that is there already turns into nothing. So no marker can survive whose siblings are lost for good.
//!
//! **Fencing.** Every initialization gives out a greater epoch and ends what the former one left open; the abort marker carries
//! the greater epoch, so that each partition itself refuses what a zombie still sends.
//!
//! **What power may take.** Joining a partition is journaled without waiting for the fsync. If power takes it, recovery finds the
//! records without a transaction that owns them, and aborts them; the producer's commit is then refused, never granted.
//!
//! Memory: one gate per transactional id; ids unused for seven days are forgotten.

mod begin;
mod end;
mod init;
mod recovery;

use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerFault, LedgerState, Transaction};
use crate::storage::{AppendError, NotDurable};
use crate::topics::Topics;
use kafka_protocol::error::ResponseError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Held shared while a batch of the transaction is appended, alone while the transaction is begun or ended.
type Gate = Arc<RwLock<()>>;

/// Lets transactions of all producers begin and end.
pub(crate) struct Coordinator {
    ledger: Arc<Ledger>,
    topics: Arc<Topics>,
    clock: Clock,
    gates: Mutex<HashMap<String, Gate>>,
}

/// A transactional producer as it presents itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) id: &'a str,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

impl Coordinator {
    /// Over a ledger and the topics it knows.
    pub(crate) fn new(ledger: Arc<Ledger>, topics: Arc<Topics>, clock: Clock) -> Coordinator {
        Coordinator { ledger, topics, clock, gates: Mutex::default() }
    }

    fn gate(&self, id: &str) -> Gate {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry(id.to_owned()).or_default().clone()
    }

    /// Keeps the transaction from ending while the guard is held.
    pub(crate) async fn hold_open(&self, id: &str) -> OwnedRwLockReadGuard<()> {
        self.gate(id).read_owned().await
    }

    /// Forgets transactional ids that were unused for seven days.
    pub(crate) fn expire(&self) {
        const UNUSED_MS: i64 = 7 * 24 * 3_600_000;
        let limit = self.clock.now_ms() - UNUSED_MS;
        let unused = self.ledger.read(|state| {
            let old = state.transactions.iter().filter(|(_, t)| t.idle() && t.at_ms < limit);
            old.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        });
        for id in unused {
            let gate = self.gate(&id);
            let Ok(_alone) = gate.clone().try_write_owned() else {
                continue;
            };
            let still = |state: &LedgerState| {
                state.transactions.get(&id).is_some_and(|t| t.idle() && t.at_ms < limit)
            };
            let event = crate::ledger::Event::ProducerExpired { id: id.clone() };
            let _ = self.ledger.decide(|state| still(state).then_some(event));
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            // The map, this function twice: nobody else waits at this gate.
            if Arc::strong_count(&gate) == 3 {
                gates.remove(&id);
            }
        }
    }
}

impl Transaction {
    /// Whether none is begun or being ended.
    fn idle(&self) -> bool {
        use crate::ledger::Phase;
        matches!(self.phase, Phase::Empty | Phase::Done { .. })
    }
}

/// Finds the claimed producer.
fn claimed<'a>(state: &'a LedgerState, claim: &Claim<'_>) -> Result<&'a Transaction, ResponseError> {
    match state.transactions.get(claim.id) {
        None => Err(ResponseError::InvalidProducerIdMapping),
        Some(t) if t.producer_id != claim.producer_id => Err(ResponseError::InvalidProducerIdMapping),
        Some(t) if t.epoch != claim.epoch => Err(ResponseError::ProducerFenced),
        Some(t) => Ok(t),
    }
}

/// Why an ending did not reach its end. What is decided stays decided: the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Ledger(#[from] LedgerFault),
    #[error("marker: {0}")]
    Marker(#[from] AppendError),
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
}
