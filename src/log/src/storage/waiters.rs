//! Readers that wait for more of a partition: only those concerned are woken.
//!
//! Memory: one entry per waiting fetch and partition, gone with the fetch.

use super::partition::Partition;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Called when something becomes visible; one may watch many partitions.
pub(crate) type Wakeup = Arc<Notify>;

#[derive(Default)]
pub(super) struct Waiters {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    next: u64,
    waiting: HashMap<u64, Wakeup>,
}

/// Watches a partition until it is dropped.
pub(crate) struct WatchGuard {
    partition: Arc<Partition>,
    number: u64,
}

impl Waiters {
    pub(super) fn add(&self, partition: Arc<Partition>, wakeup: &Wakeup) -> WatchGuard {
        let mut list = self.lock();
        let number = list.next;
        list.next += 1;
        list.waiting.insert(number, wakeup.clone());
        drop(list);
        WatchGuard { partition, number }
    }

    pub(super) fn wake(&self) {
        for wakeup in self.lock().waiting.values() {
            wakeup.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.partition.waiters().lock().waiting.remove(&self.number);
    }
}
