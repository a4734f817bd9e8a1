//! What happens by itself: time-outs often, retention, compaction and expiry now and then.

use crate::node::Node;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often silent members and overdue transactions are looked for.
const TICK: Duration = Duration::from_millis(100);

/// Ends groups' waiting and overdue transactions. Runs until it is dropped.
pub(crate) async fn watch_time(node: Arc<Node>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        node.groups.tick(node.clock.now_ms());
        node.coordinator.end_overdue().await;
    }
}

/// Rounds of retention, compaction and expiry. Runs until it is dropped.
pub(crate) async fn keep_house(node: Arc<Node>) {
    let mut round = interval(node.config.maintenance_interval.max(Duration::from_millis(10)));
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    round.tick().await;
    loop {
        round.tick().await;
        let own = node.clone();
        if let Err(cause) = tokio::task::spawn_blocking(move || one_round(&own)).await {
            tracing::error!(%cause, "maintenance");
        }
    }
}

/// One round over all partitions.
pub(crate) fn one_round(node: &Node) {
    for topic in node.topics.all() {
        let config = topic.config();
        for partition in topic.partitions() {
            if config.deleted
                && let Err(cause) = partition.retain(config.retention)
            {
                tracing::error!(partition = %partition.id, %cause, "apply retention");
            }
            if config.compacted
                && let Err(cause) = partition.compact(config.compaction(node.config.compaction_buffer_bytes))
            {
                tracing::error!(partition = %partition.id, %cause, "compact");
            }
            if let Err(cause) = partition.checkpoint() {
                tracing::error!(partition = %partition.id, %cause, "write checkpoint");
            }
        }
    }
    node.coordinator.expire();
}
