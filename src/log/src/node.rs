//! Everything that a request can reach.

use crate::clock::Clock;
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::disk::Disk;
use crate::error::Error;
use crate::group::Groups;
use crate::ledger::Ledger;
use crate::storage::Flusher;
use crate::topics::Topics;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Number of the one broker that there is.
pub(crate) const NODE_ID: i32 = 1;
/// Threads that fsync partitions. More let transactions over many partitions wait less.
const SYNC_THREADS: usize = 8;
/// Unit of the memory budgets, in bytes.
pub(crate) const BUDGET_UNIT: usize = 1024;

/// The state of a running log.
pub(crate) struct Node {
    pub(crate) config: Config,
    /// Host and port that clients are told.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) cluster_id: String,
    pub(crate) clock: Clock,
    pub(crate) topics: Arc<Topics>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) groups: Groups,
    pub(crate) coordinator: Coordinator,
    /// Memory for request frames, in units of [`BUDGET_UNIT`].
    pub(crate) request_budget: Arc<Semaphore>,
    /// Memory for fetched records, in units of [`BUDGET_UNIT`].
    pub(crate) fetch_budget: Arc<Semaphore>,
    flusher: Arc<Flusher>,
}

impl Node {
    /// Opens the folder (whose lock the caller holds) and recovers.
    pub(crate) async fn open(
        config: Config,
        address: SocketAddr,
        disk: Disk,
        clock: Clock,
    ) -> Result<Arc<Node>, Error> {
        let flusher =
            Flusher::start(SYNC_THREADS).map_err(|e| Error::storage("start the fsync threads", e))?;
        let ledger = Ledger::open(&config.data_dir, &disk)?;
        let topics = Arc::new(Topics::open(&config, &disk, &clock, &flusher, &ledger)?);
        let coordinator = Coordinator::new(ledger.clone(), topics.clone(), clock.clone());
        coordinator.recover().await?;
        let (host, port) = advertised(&config, address);
        let budget = config.buffer_bytes.max(config.max_frame_bytes) / BUDGET_UNIT;
        Ok(Arc::new(Node {
            host,
            port,
            cluster_id: ledger.read(|state| state.cluster_id.simple().to_string()),
            clock,
            topics,
            ledger,
            groups: Groups::default(),
            coordinator,
            request_budget: Arc::new(Semaphore::new(budget)),
            fetch_budget: Arc::new(Semaphore::new(budget)),
            flusher,
            config,
        }))
    }

    /// Makes everything durable and ends the threads. Nothing may be served any more.
    pub(crate) fn close(&self) {
        self.flusher.finish();
        self.ledger.finish();
        for topic in self.topics.all() {
            for partition in topic.partitions() {
                if let Err(cause) = partition.checkpoint() {
                    tracing::warn!(partition = %partition.id, %cause, "checkpoint at the end");
                }
            }
        }
    }
}

fn advertised(config: &Config, address: SocketAddr) -> (String, u16) {
    match &config.advertised {
        Some(text) => match text.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host.to_owned(), port),
            _ => (text.clone(), address.port()),
        },
        None if address.ip().is_unspecified() => ("127.0.0.1".to_owned(), address.port()),
        None => (address.ip().to_string(), address.port()),
    }
}
