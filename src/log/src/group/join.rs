//! Joining a group.

use super::{Group, MAX_MEMBERS, MAX_METADATA_BYTES, Member, Stage, Synced};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;
use uuid::Uuid;

const SESSION_MS: std::ops::RangeInclusive<i32> = 100..=1_800_000;
const MAX_PROMISED: usize = 10_000;

/// What a member asks for.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    /// Empty at first.
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    pub(crate) session_ms: i32,
    /// Not positive: the session's.
    pub(crate) rebalance_ms: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether a new member must come again with the id that it is given.
    pub(crate) needs_id: bool,
}

/// Answer to a join.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joined {
    pub(crate) error: Option<ResponseError>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member: String,
    /// Id, instance and metadata of all; for the leader only.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// An answer now, or when the group is complete.
pub(crate) enum JoinOutcome {
    Now(Joined),
    Later(oneshot::Receiver<Joined>),
}

impl Joined {
    /// A refusal.
    pub(crate) fn failed(error: ResponseError, member: &str) -> Joined {
        Joined { error: Some(error), generation: -1, member: member.to_owned(), ..Joined::default() }
    }
}

impl Group {
    /// A member joins, or joins again.
    pub(crate) fn join(&mut self, request: JoinRequest, now_ms: i64) -> JoinOutcome {
        match self.try_join(request, now_ms) {
            Ok(outcome) => outcome,
            Err((error, member)) => JoinOutcome::Now(Joined::failed(error, &member)),
        }
    }

    fn try_join(
        &mut self,
        request: JoinRequest,
        now_ms: i64,
    ) -> Result<JoinOutcome, (ResponseError, String)> {
        self.accepts(&request).map_err(|e| (e, request.member.clone()))?;
        let came_back = request.member.is_empty() && request.instance.is_some();
        let id = self.identify(&request, now_ms)?;
        self.protocol_type.clone_from(&request.protocol_type);
        if self.is_up_to_date(&id, &request, came_back) {
            return Ok(JoinOutcome::Now(self.current(&id)));
        }
        let (waiting, later) = oneshot::channel();
        self.place(id, request, waiting, now_ms);
        if self.stage != Stage::Preparing {
            self.prepare(now_ms);
        }
        self.complete_if_all_joined(now_ms);
        Ok(JoinOutcome::Later(later))
    }

    fn accepts(&self, request: &JoinRequest) -> Result<(), ResponseError> {
        if !SESSION_MS.contains(&request.session_ms) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        let metadata: usize = request.protocols.iter().map(|(name, data)| name.len() + data.len()).sum();
        if metadata > MAX_METADATA_BYTES {
            return Err(ResponseError::InvalidRequest);
        }
        let others = || self.members.iter().filter(|(id, _)| **id != request.member);
        let alone = others().next().is_none();
        let fits = alone || self.protocol_type == request.protocol_type;
        let shared = |(name, _): &(String, Bytes)| others().all(|(_, m)| m.has_protocol(name));
        if !fits || !request.protocols.iter().any(shared) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(&request.member) {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        Ok(())
    }

    /// The id under which the caller is, or will be, a member.
    fn identify(&mut self, request: &JoinRequest, now_ms: i64) -> Result<String, (ResponseError, String)> {
        let id = request.member.clone();
        if let Some(instance) = &request.instance {
            return match self.member_of_instance(instance) {
                Some(former) if id.is_empty() => Ok(self.replace_static(&former, instance)),
                Some(owner) if owner != id => Err((ResponseError::FencedInstanceId, id)),
                Some(owner) => Ok(owner),
                None if id.is_empty() => Ok(format!("{instance}-{}", Uuid::new_v4())),
                None => Err((ResponseError::UnknownMemberId, id)),
            };
        }
        if !id.is_empty() {
            let known = self.members.contains_key(&id) || self.promised.remove(&id).is_some();
            return if known { Ok(id) } else { Err((ResponseError::UnknownMemberId, id)) };
        }
        let id = format!("{}-{}", request.client, Uuid::new_v4());
        if !request.needs_id {
            return Ok(id);
        }
        if self.promised.len() < MAX_PROMISED {
            self.promised.insert(id.clone(), now_ms + i64::from(request.session_ms));
        }
        Err((ResponseError::MemberIdRequired, id))
    }

    /// A static member came back: it takes over the place of its former self, which is fenced.
    fn replace_static(&mut self, former: &str, instance: &str) -> String {
        let id = format!("{instance}-{}", Uuid::new_v4());
        if let Some(mut member) = self.members.remove(former) {
            member.answer_join(Joined::failed(ResponseError::FencedInstanceId, former));
            member.answer_sync(Synced::failed(ResponseError::FencedInstanceId));
            self.members.insert(id.clone(), member);
        }
        if self.leader == former {
            self.leader.clone_from(&id);
        }
        id
    }

    /// Whether the member can have the current generation at once, with nothing to change.
    fn is_up_to_date(&self, id: &str, request: &JoinRequest, came_back: bool) -> bool {
        let same = self.members.get(id).is_some_and(|m| m.protocols == request.protocols);
        match self.stage {
            // A leader that joins again asks for a rebalance, unless it is a static one that restarted.
            Stage::Stable => same && (self.leader != id || came_back),
            Stage::Completing => same,
            Stage::Empty | Stage::Preparing => false,
        }
    }

    /// Answer with the current generation. A static leader that came back is not told that it leads, so that it keeps the
    /// assignment that stands.
    fn current(&self, id: &str) -> Joined {
        let leads = self.leader == id;
        let assigns = leads && self.stage == Stage::Completing;
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: Some(self.protocol_type.clone()),
            protocol: Some(self.protocol.clone()),
            leader: if leads && !assigns { format!("{id} before its restart") } else { self.leader.clone() },
            member: id.to_owned(),
            members: if assigns { self.roll_call() } else { Vec::new() },
        }
    }

    fn place(&mut self, id: String, request: JoinRequest, waiting: oneshot::Sender<Joined>, now_ms: i64) {
        let session_ms = i64::from(request.session_ms);
        let rebalance_ms =
            if request.rebalance_ms > 0 { i64::from(request.rebalance_ms) } else { session_ms };
        let former = self.members.remove(&id);
        let assignment = former.map(|m| m.assignment).unwrap_or_default();
        let member = Member {
            instance: request.instance,
            client: request.client,
            host: request.host,
            session_ms,
            rebalance_ms,
            protocols: request.protocols,
            assignment,
            seen_ms: now_ms,
            joining: Some(waiting),
            syncing: None,
        };
        self.members.insert(id, member);
    }

    pub(super) fn answer_joins(&mut self, now_ms: i64) {
        let roll_call = self.roll_call();
        for (id, member) in &mut self.members {
            member.seen_ms = now_ms;
            member.answer_join(Joined {
                error: None,
                generation: self.generation,
                protocol_type: Some(self.protocol_type.clone()),
                protocol: Some(self.protocol.clone()),
                leader: self.leader.clone(),
                member: id.clone(),
                members: if *id == self.leader { roll_call.clone() } else { Vec::new() },
            });
        }
    }

    fn roll_call(&self) -> Vec<(String, Option<String>, Bytes)> {
        let entry =
            |(id, m): (&String, &Member)| (id.clone(), m.instance.clone(), m.metadata(&self.protocol));
        self.members.iter().map(entry).collect()
    }
}
