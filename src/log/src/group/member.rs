//! One member of a group.

use super::{Joined, Synced};
use bytes::Bytes;
use tokio::sync::oneshot;

/// A member.
pub(crate) struct Member {
    /// Id that a static member keeps over restarts.
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    pub(super) session_ms: i64,
    pub(super) rebalance_ms: i64,
    /// Name and metadata, most preferred first.
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    pub(super) seen_ms: i64,
    pub(super) joining: Option<oneshot::Sender<Joined>>,
    pub(super) syncing: Option<oneshot::Sender<Synced>>,
}

impl Member {
    /// Whether it waits for the next generation.
    pub(super) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    pub(super) fn has_protocol(&self, name: &str) -> bool {
        self.protocols.iter().any(|(own, _)| own == name)
    }

    /// Metadata for the protocol, empty when it doesn't have it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn answer_join(&mut self, joined: Joined) {
        if let Some(waiting) = self.joining.take() {
            // A client that is gone doesn't want to know.
            let _ = waiting.send(joined);
        }
    }

    pub(super) fn answer_sync(&mut self, synced: Synced) {
        if let Some(waiting) = self.syncing.take() {
            let _ = waiting.send(synced);
        }
    }
}
