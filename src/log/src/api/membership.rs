//! Being a member of a consumer group.

use super::{Caller, code, code_of, text};
use crate::group::{JoinOutcome, JoinRequest, Joined, SyncOutcome, Synced};
use crate::node::Node;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use std::sync::Arc;

/// First version in which a new member comes twice, the second time with the id it was given.
const ID_REQUIRED: i16 = 4;
/// First version in which several members leave at once.
const LEAVE_MANY: i16 = 3;

/// Joins, and waits until the group is complete.
pub(super) async fn join(
    node: &Arc<Node>,
    caller: &Caller,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    if request.group_id.is_empty() {
        return joined(Joined::failed(ResponseError::InvalidGroupId, &request.member_id), version);
    }
    let protocol = |p: kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol| {
        (p.name.to_string(), bytes::Bytes::copy_from_slice(&p.metadata))
    };
    let wanted = JoinRequest {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(|i| i.to_string()),
        client: caller.client.clone(),
        host: caller.host.clone(),
        session_ms: request.session_timeout_ms,
        rebalance_ms: request.rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(protocol).collect(),
        needs_id: version >= ID_REQUIRED,
    };
    let outcome = match node.groups.join(&request.group_id, wanted, node.clock.now_ms()) {
        JoinOutcome::Now(outcome) => outcome,
        JoinOutcome::Later(later) => {
            later.await.unwrap_or_else(|_| Joined::failed(ResponseError::UnknownMemberId, &request.member_id))
        }
    };
    joined(outcome, version)
}

fn joined(outcome: Joined, version: i16) -> JoinGroupResponse {
    let member = |(id, instance, metadata): (String, Option<String>, bytes::Bytes)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text))
            .with_metadata(metadata)
    };
    // Before version 7 the protocol's name can't be null.
    let name = if version < 7 { Some(outcome.protocol.unwrap_or_default()) } else { outcome.protocol };
    JoinGroupResponse::default()
        .with_error_code(code_of(outcome.error))
        .with_generation_id(outcome.generation)
        .with_protocol_type(outcome.protocol_type.map(text))
        .with_protocol_name(name.map(text))
        .with_leader(text(outcome.leader))
        .with_member_id(text(outcome.member))
        .with_members(outcome.members.into_iter().map(member).collect())
}

/// Waits for the leader's assignment, or brings it.
pub(super) async fn sync(node: &Arc<Node>, request: SyncGroupRequest) -> SyncGroupResponse {
    let instance = request.group_instance_id.as_ref().map(|i| i.to_string());
    let assignments = request
        .assignments
        .iter()
        .map(|a| (a.member_id.to_string(), bytes::Bytes::copy_from_slice(&a.assignment)))
        .collect();
    let now_ms = node.clock.now_ms();
    let outcome = node.groups.with(&request.group_id, |group| {
        group.sync(&request.member_id, request.generation_id, instance.as_deref(), assignments, now_ms)
    });
    let outcome = match outcome {
        SyncOutcome::Now(outcome) => outcome,
        SyncOutcome::Later(later) => {
            later.await.unwrap_or_else(|_| Synced::failed(ResponseError::UnknownMemberId))
        }
    };
    SyncGroupResponse::default()
        .with_error_code(code_of(outcome.error))
        .with_protocol_type(outcome.protocol_type.map(text))
        .with_protocol_name(outcome.protocol.map(text))
        .with_assignment(outcome.assignment)
}

/// A member lives.
pub(super) fn heartbeat(node: &Node, request: &HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_ref().map(|i| i.as_str());
    let now_ms = node.clock.now_ms();
    let lives = node.groups.with(&request.group_id, |group| {
        group.heartbeat(&request.member_id, request.generation_id, instance, now_ms)
    });
    HeartbeatResponse::default().with_error_code(code(&lives))
}

/// Members leave.
pub(super) fn leave(node: &Node, request: &LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let now_ms = node.clock.now_ms();
    node.groups.with(&request.group_id, |group| {
        if version < LEAVE_MANY {
            let left = group.leave(&request.member_id, None, now_ms);
            return LeaveGroupResponse::default().with_error_code(code(&left));
        }
        let mut members = Vec::with_capacity(request.members.len());
        for member in &request.members {
            let instance = member.group_instance_id.as_ref().map(|i| i.as_str());
            let left = group.leave(&member.member_id, instance, now_ms);
            members.push(
                MemberResponse::default()
                    .with_member_id(member.member_id.clone())
                    .with_group_instance_id(member.group_instance_id.clone())
                    .with_error_code(code(&left)),
            );
        }
        LeaveGroupResponse::default().with_members(members)
    })
}
