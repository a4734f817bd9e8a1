//! Groups as tools see them.

use super::{code_of, text};
use crate::group::{Group, Member};
use crate::ledger::Event;
use crate::node::Node;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    ListGroupsRequest, ListGroupsResponse,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const CONSUMER: &str = "consumer";
const EMPTY: &str = "Empty";
/// First version that tells the groups' states.
const WITH_STATES: i16 = 4;

/// Answers members, assignments and states of groups.
pub(super) fn describe(node: &Node, request: &DescribeGroupsRequest) -> DescribeGroupsResponse {
    let one = |id: &GroupId| {
        let has_offsets = node.ledger.read(|state| state.groups.contains_key(id.as_str()));
        node.groups.with(id, |group| describe_one(id, group, has_offsets))
    };
    DescribeGroupsResponse::default().with_groups(request.groups.iter().map(one).collect())
}

fn describe_one(id: &GroupId, group: &Group, has_offsets: bool) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_id(id.clone()).with_authorized_operations(i32::MIN);
    if group.members.is_empty() && !has_offsets {
        return described.with_group_state(text("Dead"));
    }
    let member = |(id, member): (&String, &Member)| {
        DescribedGroupMember::default()
            .with_member_id(text(id.clone()))
            .with_group_instance_id(member.instance.clone().map(text))
            .with_client_id(text(member.client.clone()))
            .with_client_host(text(format!("/{}", member.host)))
            .with_member_metadata(member.metadata(&group.protocol))
            .with_member_assignment(member.assignment.clone())
    };
    described
        .with_group_state(text(group.stage.name()))
        .with_protocol_type(text(kind(group)))
        .with_protocol_data(text(group.protocol.clone()))
        .with_members(group.members.iter().map(member).collect())
}

fn kind(group: &Group) -> &str {
    if group.protocol_type.is_empty() { CONSUMER } else { &group.protocol_type }
}

/// Answers which groups have members or offsets.
pub(super) fn list(node: &Node, request: &ListGroupsRequest, version: i16) -> ListGroupsResponse {
    let mut found: BTreeMap<String, (String, &'static str)> = node
        .ledger
        .read(|state| state.groups.keys().map(|id| (id.clone(), (CONSUMER.to_owned(), EMPTY))).collect());
    node.groups.each(|id, group| {
        if !group.members.is_empty() {
            found.insert(id.to_owned(), (kind(group).to_owned(), group.stage.name()));
        }
    });
    let wanted = |state: &str| {
        let filter = &request.states_filter;
        filter.is_empty() || filter.iter().any(|s| s.eq_ignore_ascii_case(state))
    };
    let entry = |(id, (kind, state)): (String, (String, &str))| {
        let listed = ListedGroup::default().with_group_id(GroupId(text(id))).with_protocol_type(text(kind));
        if version >= WITH_STATES { listed.with_group_state(text(state)) } else { listed }
    };
    let groups = found.into_iter().filter(|(_, (_, state))| wanted(state)).map(entry).collect();
    ListGroupsResponse::default().with_groups(groups)
}

/// Deletes groups without members, with their offsets; durable before it is answered.
pub(super) async fn delete(node: &Arc<Node>, request: &DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for id in &request.groups_names {
        let result = DeletableGroupResult::default().with_group_id(id.clone());
        results.push(result.with_error_code(code_of(delete_one(node, id).await.err())));
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete_one(node: &Node, id: &str) -> Result<(), ResponseError> {
    if node.groups.with(id, |group| !group.members.is_empty()) {
        return Err(ResponseError::NonEmptyGroup);
    }
    let event = Event::GroupDeleted { group: id.to_owned() };
    let recorded = node.ledger.decide(|state| state.groups.contains_key(id).then_some(event));
    let unavailable = |_| ResponseError::CoordinatorNotAvailable;
    match recorded.map_err(unavailable)? {
        Some(number) => node.ledger.durable(number).await.map_err(unavailable),
        None => Err(ResponseError::GroupIdNotFound),
    }
}
