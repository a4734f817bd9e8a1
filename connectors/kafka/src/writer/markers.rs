//! Waits until the brokers have marked the last transaction as committed, so that the next one does not run into them.
//!
//! A commit is answered once it is decided; then the coordinator has a marker written into each partition. A transaction that adds its
//! first partition before these are there is refused (`CONCURRENT_TRANSACTIONS`), and librdkafka tries again after 20 ms: more than the
//! whole transaction takes. The coordinator says when it is done: its state of the transaction, DescribeTransactions (KIP-664, version 0), is
//! no longer `PrepareCommit`. It is asked on a connection of its own, only when a transaction is about to begin, and not for long
//! after the last.
//!
//! Nothing depends on the answer but time. Where none is given (brokers before 3.0, a connection that was cut) `kafka.pace` is kept instead.

use crate::config::Resolved;
use crate::topic_ids::connection::Connection;
use kafka_protocol::messages::{
    ApiKey, DescribeTransactionsRequest, DescribeTransactionsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use std::io;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Markers are written long before.
const LONG_AGO: Duration = Duration::from_millis(100);
/// For a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two questions.
const PAUSE: Duration = Duration::from_micros(300);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(30);
/// A coordinator, by what FindCoordinator calls it.
const OF_TRANSACTIONS: i8 = 1;

/// The coordinator of one transactional id.
pub(crate) struct Markers {
    id: String,
    coordinator: Option<Connection>,
    /// When it failed.
    failed: Option<Instant>,
}

impl Markers {
    pub(crate) fn of(id: String) -> Self {
        Self { id, coordinator: None, failed: None }
    }

    /// Waits, on a blocking thread, after a transaction that ended at `end`.
    pub(super) fn wait(&mut self, end: Instant, resolved: &Resolved) {
        let pace = resolved.config.pace.get();
        if pace.is_zero() || end.elapsed() > LONG_AGO {
            return;
        }
        if self.failed.is_none_or(|at| at.elapsed() > AGAIN) {
            match self.written(end, resolved) {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(id = self.id, %error, "ask for the state of a transaction");
                    (self.coordinator, self.failed) = (None, Some(Instant::now()));
                }
            }
        }
        std::thread::sleep(pace.saturating_sub(end.elapsed()));
    }

    fn written(&mut self, end: Instant, resolved: &Resolved) -> io::Result<()> {
        while end.elapsed() < LONG_AGO {
            let state = in_time(self.state(resolved))?;
            if !matches!(&*state, "PrepareCommit" | "PrepareAbort") {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    async fn state(&mut self, resolved: &Resolved) -> io::Result<StrBytes> {
        let coordinator = match &mut self.coordinator {
            Some(open) => open,
            none => none.insert(find(&self.id, resolved).await?),
        };
        let ids = vec![TransactionalId(StrBytes::from_string(self.id.clone()))];
        let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        let answer: DescribeTransactionsResponse =
            coordinator.call(ApiKey::DescribeTransactions, 0, &request).await?;
        match answer.transaction_states.into_iter().next() {
            Some(state) if state.error_code == 0 => Ok(state.transaction_state),
            state => Err(refused(state.map_or(-1, |state| state.error_code))),
        }
    }
}

async fn find(id: &str, resolved: &Resolved) -> io::Result<Connection> {
    let mut last = io::Error::other("there is no broker");
    for broker in &resolved.config.brokers {
        match find_at(broker, id, resolved).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn find_at(broker: &str, id: &str, resolved: &Resolved) -> io::Result<Connection> {
    let mut connection = Connection::open(broker, resolved).await?;
    let request = FindCoordinatorRequest::default()
        .with_key(StrBytes::from_string(id.to_owned()))
        .with_key_type(OF_TRANSACTIONS);
    let found: FindCoordinatorResponse = connection.call(ApiKey::FindCoordinator, 2, &request).await?;
    if found.error_code != 0 {
        return Err(refused(found.error_code));
    }
    let address = format!("{}:{}", found.host, found.port);
    if address == broker { Ok(connection) } else { Connection::open(&address, resolved).await }
}

fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timed = async { tokio::time::timeout(PATIENCE, work).await };
    Handle::current().block_on(timed).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn refused(code: i16) -> io::Error {
    io::Error::other(format!("the broker answers with error {code}"))
}
