//! After a start: what was decided is finished, what nobody owns is aborted.

use super::{Coordinator, Unfinished};
use crate::error::Error;
use crate::ledger::{Decision, Event, Phase, TopicPartition};
use std::collections::BTreeMap;
use std::io;

/// A transaction that a partition has open.
struct Orphan {
    at: TopicPartition,
    end: i64,
}

impl Coordinator {
    /// Brings partitions and ledger in agreement; nothing is served before.
    pub(crate) async fn recover(&self) -> Result<(), Error> {
        let recovered = async {
            self.finish_decided().await?;
            self.settle_undecided().await
        };
        recovered.await.map_err(|e: Unfinished| {
            Error::storage("finish transactions that were under way", io::Error::other(e.to_string()))
        })
    }

    async fn finish_decided(&self) -> Result<(), Unfinished> {
        let decided = self.ledger.read(|state| {
            let decided = state.transactions.iter().filter(|(_, t)| matches!(t.phase, Phase::Decided(_)));
            decided.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        });
        for id in decided {
            self.finish(&id).await?;
        }
        Ok(())
    }

    /// Open transactions in partitions: those of an ongoing transaction stay, all others lost their begin and are aborted.
    async fn settle_undecided(&self) -> Result<(), Unfinished> {
        let mut orphans: BTreeMap<i64, Vec<Orphan>> = BTreeMap::new();
        for topic in self.topics.all() {
            for partition in topic.partitions() {
                let at = TopicPartition(topic.id, partition.id.index);
                for (producer_id, _) in partition.undecided() {
                    orphans.entry(producer_id).or_default().push(Orphan { at, end: partition.end() });
                }
            }
        }
        for (producer_id, open) in orphans {
            self.settle(producer_id, open).await?;
        }
        Ok(())
    }

    async fn settle(&self, producer_id: i64, open: Vec<Orphan>) -> Result<(), Unfinished> {
        let owner = self.ledger.read(|state| {
            let found = state.transactions.iter().find(|(_, t)| t.producer_id == producer_id);
            found.map(|(id, t)| (id.clone(), t.epoch, t.phase.clone()))
        });
        let ends: Vec<_> = open.iter().map(|o| (o.at, o.end)).collect();
        match owner {
            Some((id, _, Phase::Ongoing)) => {
                let partitions = open.iter().map(|o| o.at).collect();
                let event = Event::Joined { id, at_ms: self.clock.now_ms(), partitions };
                self.ledger.record(&event)?;
                Ok(())
            }
            Some((id, epoch, _)) => {
                tracing::warn!(id, "aborting a transaction whose begin was lost");
                let decision = Decision { commit: false, epoch, ends };
                let number = self.ledger.record(&Event::Decided { id: id.clone(), decision })?;
                self.ledger.durable(number).await?;
                self.finish(&id).await
            }
            None => {
                tracing::warn!(producer_id, "aborting a transaction that no producer owns");
                let decision = Decision { commit: false, epoch: i16::MAX, ends };
                self.write_markers(producer_id, &decision).await
            }
        }
    }
}
