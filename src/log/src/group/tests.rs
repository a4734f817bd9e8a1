use super::*;
use bytes::Bytes;
use tokio::sync::oneshot::Receiver;

fn request(member: &str, instance: Option<&str>) -> JoinRequest {
    JoinRequest {
        member: member.into(),
        instance: instance.map(Into::into),
        client: "c".into(),
        host: "h".into(),
        session_ms: 1_000,
        rebalance_ms: 5_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"topics"))],
        needs_id: false,
    }
}

fn later(outcome: JoinOutcome) -> Receiver<Joined> {
    match outcome {
        JoinOutcome::Later(receiver) => receiver,
        JoinOutcome::Now(joined) => panic!("answered at once: {joined:?}"),
    }
}

fn now(outcome: JoinOutcome) -> Joined {
    match outcome {
        JoinOutcome::Now(joined) => joined,
        JoinOutcome::Later(_) => panic!("waits"),
    }
}

fn synced(outcome: SyncOutcome) -> Synced {
    match outcome {
        SyncOutcome::Now(synced) => synced,
        SyncOutcome::Later(mut receiver) => receiver.try_recv().expect("answered"),
    }
}

/// A stable group of the given instances; returns member ids.
fn stable(group: &mut Group, instances: &[Option<&str>]) -> Vec<String> {
    let mut waiting: Vec<_> = Vec::new();
    for instance in instances {
        waiting.push(later(group.join(request("", *instance), 0)));
        // Those who joined before must join again.
        if group.stage != Stage::Preparing {
            continue;
        }
        let again: Vec<_> =
            group.members.iter().filter(|(_, m)| !m.is_joining()).map(|(id, _)| id.clone()).collect();
        for id in again {
            let instance = group.members[&id].instance.clone();
            waiting.push(later(group.join(request(&id, instance.as_deref()), 0)));
        }
    }
    let joined: Vec<Joined> = waiting.into_iter().filter_map(|mut w| w.try_recv().ok()).collect();
    let generation = group.generation;
    let current: Vec<Joined> = joined.into_iter().filter(|j| j.generation == generation).collect();
    let leader = current[0].leader.clone();
    let ids: Vec<String> = group.members.keys().cloned().collect();
    let assignments = ids.iter().map(|id| (id.clone(), Bytes::from(id.clone()))).collect();
    let instance = group.members[&leader].instance.clone();
    synced(group.sync(&leader, generation, instance.as_deref(), assignments, 0));
    assert_eq!(group.stage, Stage::Stable);
    ids
}

#[test]
fn the_leader_assigns_and_everyone_gets_their_part() {
    let mut group = Group::default();
    let ids = stable(&mut group, &[None, None, None]);
    assert_eq!(ids.len(), 3);
    for id in &ids {
        let generation = group.generation;
        assert_eq!(synced(group.sync(id, generation, None, vec![], 0)).assignment, id.as_bytes());
    }
}

#[test]
fn a_new_member_is_given_an_id_to_come_again_with() {
    let mut group = Group::default();
    let first = now(group.join(JoinRequest { needs_id: true, ..request("", None) }, 0));
    assert_eq!(first.error, Some(ResponseError::MemberIdRequired));
    let joined =
        later(group.join(JoinRequest { needs_id: true, ..request(&first.member, None) }, 0)).try_recv();
    assert_eq!(joined.unwrap().leader, first.member);
}

#[test]
fn a_silent_member_is_removed_and_the_others_join_again() {
    let mut group = Group::default();
    let ids = stable(&mut group, &[None, None]);
    let generation = group.generation;
    group.heartbeat(&ids[0], generation, None, 900).unwrap();
    group.tick(1_001);
    assert_eq!(group.members.len(), 1);
    assert_eq!(group.heartbeat(&ids[0], generation, None, 1_002), Err(ResponseError::RebalanceInProgress));
    assert_eq!(group.heartbeat(&ids[1], generation, None, 1_002), Err(ResponseError::UnknownMemberId));
}

#[test]
fn members_that_do_not_join_again_in_time_are_left_out() {
    let mut group = Group::default();
    let mut ids = stable(&mut group, &[None, None]);
    // The leader asks for a round in which the other one never appears.
    ids.sort_by_key(|id| *id != group.leader);
    let mut rejoined = later(group.join(request(&ids[0], None), 100));
    group.members.get_mut(&ids[1]).unwrap().session_ms = 100_000;
    group.tick(5_101);
    let joined = rejoined.try_recv();
    assert_eq!(joined.unwrap().error, None);
    assert_eq!(group.members.len(), 1);
}

#[test]
fn a_static_member_that_restarts_keeps_its_part_without_a_rebalance_and_fences_its_former_self() {
    let mut group = Group::default();
    let ids = stable(&mut group, &[Some("a"), Some("b")]);
    let (generation, was) = (group.generation, ids[0].clone());
    let back = now(group.join(request("", Some("a")), 10));
    assert_eq!((back.error, back.generation), (None, generation));
    assert_ne!(back.leader, back.member, "it must not assign anew");
    let kept = synced(group.sync(&back.member, generation, Some("a"), vec![], 10));
    assert_eq!(kept.assignment, was.as_bytes());
    assert_eq!(group.heartbeat(&was, generation, Some("a"), 11), Err(ResponseError::FencedInstanceId));
}

#[test]
fn a_member_of_an_older_generation_may_not_commit() {
    let mut group = Group::default();
    let ids = stable(&mut group, &[None]);
    let generation = group.generation;
    assert_eq!(group.may_commit(&ids[0], generation, None, 1), Ok(()));
    assert_eq!(group.may_commit(&ids[0], generation - 1, None, 1), Err(ResponseError::IllegalGeneration));
    assert_eq!(group.may_commit("", -1, None, 1), Err(ResponseError::UnknownMemberId));
    group.leave(&ids[0], None, 2).unwrap();
    assert_eq!(group.may_commit("", -1, None, 3), Ok(()));
}

#[test]
fn members_without_a_shared_protocol_are_refused() {
    let mut group = Group::default();
    stable(&mut group, &[None]);
    let other = JoinRequest { protocols: vec![("sticky".into(), Bytes::new())], ..request("", None) };
    assert_eq!(now(group.join(other, 1)).error, Some(ResponseError::InconsistentGroupProtocol));
}

#[test]
fn a_leader_that_never_assigns_is_dropped() {
    let mut group = Group::default();
    let mut joined = later(group.join(request("", None), 0));
    assert!(joined.try_recv().is_ok());
    group.members.values_mut().for_each(|m| m.session_ms = 100_000);
    group.tick(5_001);
    assert_eq!(group.stage, Stage::Empty);
}
