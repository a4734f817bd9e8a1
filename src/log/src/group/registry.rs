//! All groups with members. Their offsets are the ledger's.
//!
//! Memory: a group without members is forgotten at the next tick; there are at most [`MAX_GROUPS`] others.

use super::{Group, JoinOutcome, JoinRequest, Joined};
use kafka_protocol::error::ResponseError;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAX_GROUPS: usize = 10_000;

/// Groups by id.
#[derive(Default)]
pub(crate) struct Groups {
    by_id: Mutex<HashMap<String, Group>>,
}

impl Groups {
    /// Works on a group; one that is not there is an empty one for the time of the call.
    pub(crate) fn with<R>(&self, id: &str, work: impl FnOnce(&mut Group) -> R) -> R {
        match self.lock().get_mut(id) {
            Some(group) => work(group),
            None => work(&mut Group::default()),
        }
    }

    /// A member joins; its group is made when it is not there.
    pub(crate) fn join(&self, id: &str, request: JoinRequest, now_ms: i64) -> JoinOutcome {
        let mut groups = self.lock();
        if groups.len() >= MAX_GROUPS && !groups.contains_key(id) {
            let full = Joined::failed(ResponseError::GroupMaxSizeReached, &request.member);
            return JoinOutcome::Now(full);
        }
        groups.entry(id.to_owned()).or_default().join(request, now_ms)
    }

    /// Looks at every group.
    pub(crate) fn each(&self, mut look: impl FnMut(&str, &Group)) {
        for (id, group) in self.lock().iter() {
            look(id, group);
        }
    }

    /// Lets time pass in all groups.
    pub(crate) fn tick(&self, now_ms: i64) {
        self.lock().retain(|_, group| {
            group.tick(now_ms);
            !group.is_unused()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
