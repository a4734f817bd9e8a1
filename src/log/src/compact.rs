//! `compact` of a log that is not running: a pass over every compacted topic, whatever share of it is new.
//!
//! The topics' own delays hold: what is younger than `min.compaction.lag.ms` stays, and so do tombstones for `delete.retention.ms`.

use crate::config::Config;
use crate::disk::Disk;
use crate::error::Error;
use crate::node::Node;
use crate::storage::CompactionRules;
use std::sync::Arc;

/// What a pass over one topic came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactedTopic {
    /// Its name.
    pub name: String,
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
    /// For how long its records are left alone, in milliseconds.
    pub least_age_ms: i64,
}

/// Compacts all topics of `config.data_dir` that are to be; `progress` is called after each.
///
/// # Errors
/// [`Error::FolderLocked`] while a log runs in it, [`Error::NoLog`] where there is none, and what a start would refuse.
pub async fn compact(
    config: Config,
    progress: impl FnMut(&CompactedTopic) + Send + 'static,
) -> Result<Vec<CompactedTopic>, Error> {
    let _lock = crate::inspect::lock(&config.data_dir)?;
    let address = config.listen;
    let node = Node::open(config, address, Disk::default(), crate::clock::Clock::default()).await?;
    let own = Arc::clone(&node);
    let done = tokio::task::spawn_blocking(move || {
        let done = passes(&own, progress);
        own.close();
        done
    });
    done.await.map_err(|e| Error::storage("compact", std::io::Error::other(e)))?
}

fn passes(node: &Node, mut progress: impl FnMut(&CompactedTopic)) -> Result<Vec<CompactedTopic>, Error> {
    let mut all = Vec::new();
    for topic in node.topics.all() {
        let config = topic.config();
        if !config.compacted {
            continue;
        }
        let rules = CompactionRules {
            segment_ms: 0,
            dirty_share: 0.0,
            ..config.compaction(node.config.compaction_buffer_bytes)
        };
        let size = || topic.partitions().iter().map(|partition| partition.size()).sum();
        let before = size();
        for partition in topic.partitions() {
            let failed = |cause| Error::storage(format!("compact {}", partition.id), cause);
            // One pass reaches as far as its table of keys: the next goes on from there.
            while partition.compact(rules).map_err(failed)?.records_before > 0 {}
        }
        let done = CompactedTopic {
            name: topic.name.to_string(),
            before,
            after: size(),
            least_age_ms: rules.min_lag_ms,
        };
        progress(&done);
        all.push(done);
    }
    Ok(all)
}
