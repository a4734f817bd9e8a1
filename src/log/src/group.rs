//! Consumer groups by Kafka's classic group protocol: the server knows members and generations, the members' leader assigns
//! (range, sticky, cooperative: all the same here).
//!
//! A group is *empty*, *preparing* (waits for its members to join again), *completing* (waits for the leader's assignment) or
//! *stable*. A joining, leaving or silent member sends it back to preparing; completing gives it the next generation. Static
//! members (with an instance id) keep their place through a restart within their session time-out.
//!
//! Memory: one entry per member, at most [`MAX_MEMBERS`] per group, with its metadata (at most [`MAX_METADATA_BYTES`]).

mod join;
mod live;
mod member;
mod registry;
mod sync;

pub(crate) use join::{JoinOutcome, JoinRequest, Joined};
pub(crate) use member::Member;
pub(crate) use registry::Groups;
pub(crate) use sync::{SyncOutcome, Synced};

use kafka_protocol::error::ResponseError;
use std::collections::{BTreeMap, HashMap};

/// Most members of one group.
const MAX_MEMBERS: usize = 2_000;
/// Most bytes of subscription metadata of one member.
const MAX_METADATA_BYTES: usize = 1 << 20;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Empty,
    Preparing,
    Completing,
    Stable,
}

impl Stage {
    /// Its name in the protocol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Empty => "Empty",
            Stage::Preparing => "PreparingRebalance",
            Stage::Completing => "CompletingRebalance",
            Stage::Stable => "Stable",
        }
    }
}

/// One group. All times are milliseconds since the epoch.
pub(crate) struct Group {
    pub(crate) stage: Stage,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    leader: String,
    pub(crate) members: BTreeMap<String, Member>,
    /// Member ids that were given out and have not joined yet, with the time they lapse.
    promised: HashMap<String, i64>,
    /// When waiting for members or for the assignment ends.
    deadline: Option<i64>,
}

impl Default for Group {
    fn default() -> Self {
        Group {
            stage: Stage::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            promised: HashMap::new(),
            deadline: None,
        }
    }
}

impl Group {
    /// Whether nothing is lost by forgetting the group.
    pub(crate) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    /// Who a request is from: a member of this generation?
    pub(crate) fn check(
        &mut self,
        member: &str,
        generation: i32,
        instance: Option<&str>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        if let Some(owner) = instance.and_then(|i| self.member_of_instance(i))
            && owner != member
        {
            return Err(ResponseError::FencedInstanceId);
        }
        match self.members.get_mut(member) {
            None => Err(ResponseError::UnknownMemberId),
            Some(_) if generation != self.generation => Err(ResponseError::IllegalGeneration),
            Some(found) => {
                found.seen_ms = now_ms;
                Ok(())
            }
        }
    }

    /// Whether offsets may be committed by the caller: a member of this generation, or nobody while the group is empty.
    pub(crate) fn may_commit(
        &mut self,
        member: &str,
        generation: i32,
        instance: Option<&str>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        if generation >= 0 || !member.is_empty() {
            return self.check(member, generation, instance, now_ms);
        }
        if self.members.is_empty() { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    fn member_of_instance(&self, instance: &str) -> Option<String> {
        let mut members = self.members.iter();
        let found = members.find(|(_, m)| m.instance.as_deref() == Some(instance));
        found.map(|(id, _)| id.clone())
    }

    /// Waits for all members to join again.
    fn prepare(&mut self, now_ms: i64) {
        for member in self.members.values_mut() {
            member.answer_sync(Synced::failed(ResponseError::RebalanceInProgress));
        }
        self.stage = Stage::Preparing;
        self.deadline = Some(now_ms + self.longest_rebalance());
    }

    fn longest_rebalance(&self) -> i64 {
        self.members.values().map(|m| m.rebalance_ms).max().unwrap_or(0)
    }

    fn complete_if_all_joined(&mut self, now_ms: i64) {
        let all = !self.members.is_empty() && self.members.values().all(Member::is_joining);
        if self.stage == Stage::Preparing && all {
            self.complete(now_ms);
        }
    }

    /// Begins the next generation with who has joined; static members stay even when they have not.
    fn complete(&mut self, now_ms: i64) {
        self.members.retain(|_, m| m.is_joining() || m.instance.is_some());
        self.generation = self.generation.wrapping_add(1).max(1);
        let Some(first) = self.members.keys().next().cloned() else {
            return self.become_empty();
        };
        if !self.members.contains_key(&self.leader) {
            self.leader = first;
        }
        self.protocol = self.agreed_protocol();
        self.stage = Stage::Completing;
        self.deadline = Some(now_ms + self.longest_rebalance());
        self.answer_joins(now_ms);
    }

    fn become_empty(&mut self) {
        self.stage = Stage::Empty;
        self.deadline = None;
        self.leader.clear();
    }

    /// The leader's most preferred protocol that all members have.
    fn agreed_protocol(&self) -> String {
        let Some(leader) = self.members.get(&self.leader) else {
            return String::new();
        };
        let mut names = leader.protocols.iter().map(|(name, _)| name);
        let shared = names.find(|name| self.members.values().all(|m| m.has_protocol(name)));
        shared.cloned().unwrap_or_default()
    }

    /// After members went.
    fn shrink(&mut self, now_ms: i64) {
        if self.members.is_empty() {
            self.generation = self.generation.wrapping_add(1).max(1);
            return self.become_empty();
        }
        if self.stage != Stage::Preparing {
            self.prepare(now_ms);
        }
        self.complete_if_all_joined(now_ms);
    }
}

#[cfg(test)]
mod tests;
