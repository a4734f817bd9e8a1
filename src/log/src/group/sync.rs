//! Handing out the leader's assignment.

use super::{Group, Stage};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use std::collections::HashMap;
use tokio::sync::oneshot;

/// Answer to a sync.
#[derive(Clone, Debug, Default)]
pub(crate) struct Synced {
    pub(crate) error: Option<ResponseError>,
    pub(crate) assignment: Bytes,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
}

/// An answer now, or when the leader has assigned.
pub(crate) enum SyncOutcome {
    Now(Synced),
    Later(oneshot::Receiver<Synced>),
}

impl Synced {
    /// A refusal.
    pub(crate) fn failed(error: ResponseError) -> Synced {
        Synced { error: Some(error), ..Synced::default() }
    }
}

impl Group {
    /// A member asks for its assignment; the leader brings everyone's.
    pub(crate) fn sync(
        &mut self,
        id: &str,
        generation: i32,
        instance: Option<&str>,
        assignments: Vec<(String, Bytes)>,
        now_ms: i64,
    ) -> SyncOutcome {
        if let Err(error) = self.check(id, generation, instance, now_ms) {
            return SyncOutcome::Now(Synced::failed(error));
        }
        match self.stage {
            Stage::Empty => SyncOutcome::Now(Synced::failed(ResponseError::UnknownMemberId)),
            Stage::Preparing => SyncOutcome::Now(Synced::failed(ResponseError::RebalanceInProgress)),
            Stage::Stable => SyncOutcome::Now(self.assigned(id)),
            Stage::Completing => {
                let (waiting, later) = oneshot::channel();
                if let Some(member) = self.members.get_mut(id) {
                    member.syncing = Some(waiting);
                }
                if self.leader == id {
                    self.assign(assignments, now_ms);
                }
                SyncOutcome::Later(later)
            }
        }
    }

    fn assigned(&self, id: &str) -> Synced {
        Synced {
            error: None,
            assignment: self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default(),
            protocol_type: Some(self.protocol_type.clone()),
            protocol: Some(self.protocol.clone()),
        }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now_ms: i64) {
        let mut assignments: HashMap<_, _> = assignments.into_iter().collect();
        self.stage = Stage::Stable;
        self.deadline = None;
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            member.seen_ms = now_ms;
            let synced = Synced {
                error: None,
                assignment: member.assignment.clone(),
                protocol_type: Some(self.protocol_type.clone()),
                protocol: Some(self.protocol.clone()),
            };
            member.answer_sync(synced);
        }
    }
}
