//! Staying in a group, leaving it, and being found silent.

use super::{Group, Joined, Stage, Synced};
use kafka_protocol::error::ResponseError;

/// Answer to a heartbeat.
pub(crate) type Liveness = Result<(), ResponseError>;

impl Group {
    /// A member says that it lives, and learns whether to join again.
    pub(crate) fn heartbeat(
        &mut self,
        id: &str,
        generation: i32,
        instance: Option<&str>,
        now_ms: i64,
    ) -> Liveness {
        self.check(id, generation, instance, now_ms)?;
        if self.stage == Stage::Preparing { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    /// A member leaves, by its id or by its instance.
    pub(crate) fn leave(&mut self, id: &str, instance: Option<&str>, now_ms: i64) -> Liveness {
        let id = match instance {
            Some(instance) => match self.member_of_instance(instance) {
                Some(owner) if id.is_empty() || owner == id => owner,
                Some(_) => return Err(ResponseError::FencedInstanceId),
                None => return Err(ResponseError::UnknownMemberId),
            },
            None => id.to_owned(),
        };
        if self.promised.remove(&id).is_some() {
            return Ok(());
        }
        let Some(mut member) = self.members.remove(&id) else {
            return Err(ResponseError::UnknownMemberId);
        };
        member.answer_join(Joined::failed(ResponseError::UnknownMemberId, &id));
        member.answer_sync(Synced::failed(ResponseError::UnknownMemberId));
        self.shrink(now_ms);
        Ok(())
    }

    /// Removes who was silent for longer than its session, and ends waiting that took too long.
    pub(crate) fn tick(&mut self, now_ms: i64) {
        self.promised.retain(|_, lapse| *lapse > now_ms);
        self.drop_members(now_ms, |m| {
            m.joining.is_none() && m.syncing.is_none() && m.seen_ms + m.session_ms < now_ms
        });
        if self.deadline.is_none_or(|deadline| deadline > now_ms) {
            return;
        }
        match self.stage {
            Stage::Preparing => self.complete(now_ms),
            // Who has not asked for its assignment by now won't, the leader first of all.
            Stage::Completing => self.drop_members(now_ms, |m| m.syncing.is_none()),
            Stage::Empty | Stage::Stable => self.deadline = None,
        }
    }

    fn drop_members(&mut self, now_ms: i64, silent: impl Fn(&super::Member) -> bool) {
        let before = self.members.len();
        self.members.retain(|_, member| !silent(member));
        if self.members.len() < before {
            self.shrink(now_ms);
        }
    }
}
