//! What reading a chunk asks of the source, one connection at a time. A trait, so that the order of the steps can be tested against
//! a model of a source, where what is in the log and what a SELECT sees can be told apart at will.

use crate::client::{Client, row_text};
use crate::config::Resolved;
use crate::connection::Family;
use crate::position::Place;
use crate::snapshot::chunk::{self, Cut, Job, Read};
use crate::snapshot::plan::Plan;
use crate::snapshot::throttle::Load;
use crate::snapshot::visible;
use crate::snapshot::whole::{self, Piece};
use crate::value::Value;
use async_trait::async_trait;
use caudal_core::{Fault, Result};
use std::sync::Arc;
use std::time::Duration;

/// Opens connections.
#[async_trait]
pub(crate) trait Connect: Send + Sync {
    /// A connection of its own.
    async fn connect(&self) -> Result<Box<dyn Access>>;
}

/// One connection.
#[async_trait]
pub(crate) trait Access: Send {
    /// Step 2 of a window: waits until this connection sees all that was delivered. Gives why, if the table is being changed.
    async fn wait(&mut self, delivered: &Place, plan: &Plan, limit: Duration) -> Result<Option<String>>;

    /// Step 3: the one SELECT.
    async fn select(&mut self, job: &Job) -> Result<Read>;

    /// Ends what `wait` opened.
    async fn close(&mut self) -> Result<()>;

    /// The key that lies `rows` rows behind another.
    async fn cut(&mut self, plan: &Plan, from: Option<&[Value]>, rows: u64, limit: Duration) -> Result<Cut>;

    /// A whole table at an exact place of the log.
    async fn whole(&mut self, plan: Arc<Plan>, delivered: &Place) -> Result<Piece>;

    /// What the source says of its load; of its lag only if that is asked for.
    async fn load(&mut self, lag: bool) -> Result<Load>;
}

/// Connections to the configured server.
pub(crate) struct Server(pub(crate) Arc<Resolved>);

struct Connection {
    client: Client,
    config: Arc<Resolved>,
}

#[async_trait]
impl Connect for Server {
    async fn connect(&self) -> Result<Box<dyn Access>> {
        let client = Client::connect(&self.0).await?;
        Ok(Box::new(Connection { client, config: Arc::clone(&self.0) }))
    }
}

#[async_trait]
impl Access for Connection {
    async fn wait(&mut self, delivered: &Place, plan: &Plan, limit: Duration) -> Result<Option<String>> {
        chunk::limits(&mut self.client, limit).await?;
        match visible::wait(&mut self.client, delivered, &plan.name()).await {
            Ok(()) => Ok(None),
            Err(e) => chunk::changed_or(e).map(Some),
        }
    }

    async fn select(&mut self, job: &Job) -> Result<Read> {
        chunk::select(&mut self.client, job).await
    }

    async fn close(&mut self) -> Result<()> {
        visible::close(&mut self.client).await
    }

    async fn cut(&mut self, plan: &Plan, from: Option<&[Value]>, rows: u64, limit: Duration) -> Result<Cut> {
        chunk::cut(&mut self.client, plan, from, rows, limit).await
    }

    async fn whole(&mut self, plan: Arc<Plan>, delivered: &Place) -> Result<Piece> {
        whole::read(&mut self.client, &self.config, plan, delivered).await
    }

    async fn load(&mut self, lag: bool) -> Result<Load> {
        let sql = "SHOW GLOBAL STATUS LIKE 'Threads_running'";
        let row = self.client.row("ask for the source's load", sql).await?;
        let threads = row.and_then(|r| row_text(&r, 1)?.parse().ok()).unwrap_or(0);
        let lag = if lag { replica_lag(&mut self.client).await? } else { None };
        Ok(Load { threads, lag })
    }
}

/// How far a replica is behind, less what it is told to stay behind; none for a server that is no replica, or whose replication stands. An
/// account that may not ask (MariaDB: REPLICA MONITOR) learns nothing.
async fn replica_lag(client: &mut Client) -> Result<Option<u64>> {
    let statement = match client.version.family {
        Family::MySql if client.version.number >= (8, 0, 22) => "SHOW REPLICA STATUS",
        Family::MySql => "SHOW SLAVE STATUS",
        Family::MariaDb => "SHOW ALL SLAVES STATUS",
    };
    let rows = match client.rows("ask for the replica's lag", statement).await {
        Ok(rows) => rows,
        Err(error) if error.fault() == Fault::Config => return Ok(None),
        Err(error) => return Err(error),
    };
    let behind = client.column(&["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    let delay = client.column(&["SQL_Delay"]);
    let lags = rows.iter().filter_map(|row| {
        let number = |column: Option<usize>| row_text(row, column?)?.parse::<u64>().ok();
        Some(number(behind)?.saturating_sub(number(delay).unwrap_or(0)))
    });
    Ok(lags.max())
}
