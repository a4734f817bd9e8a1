//! What the log holds of a source's tables: read back for a re-read that is reconciled with it.
//!
//! Memory: two batches of about 1 MiB, and the client's queue of 4 MiB.

use crate::client::blocking;
use crate::decode::{Record, decode};
use crate::log::Log;
use crate::replay::{Partition, Replayer};
use crate::schemas::{Shapes, at};
use crate::sources;
use async_trait::async_trait;
use caudal_core::{Batch, BatchBuilder, Error, LogPosition, Position, Result, TableId, Written, WrittenRows};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes at which a batch is handed on.
const BATCH_BYTES: usize = 1 << 20;
/// Bound on reading one table's topic.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

struct WrittenTables {
    log: Log,
    source: String,
}

impl Log {
    /// The tables of a source as this log holds them.
    #[must_use]
    pub fn written(&self, source: &str) -> Arc<dyn Written> {
        Arc::new(WrittenTables { log: self.clone(), source: source.to_owned() })
    }
}

struct Table {
    topic: Arc<str>,
    partitions: Vec<(Partition, Shapes)>,
}

impl WrittenTables {
    /// The table's newest topic; none if nothing was ever written.
    async fn table(&self, id: &TableId) -> Result<Option<Table>> {
        let role = format!("{}-written", self.source);
        let mut numbers = sources::numbers(&self.log.clients, &self.log.names, &role).await?;
        numbers.retain(|source, _| *source == self.source);
        let schemas = sources::schemas(&self.log.clients, &self.log.names, &role, &numbers).await?;
        let generation = schemas.tables(&self.source).filter(|s| s.id == *id).map(|s| s.generation).max();
        let Some(generation) = generation else { return Ok(None) };
        let topic = self.log.names.data(&id.database, &id.table, generation);
        let partitions = (0..schemas.spread(&topic) as i32)
            .map(|p| ((topic.clone(), p), schemas.shapes(&topic, p)))
            .collect();
        Ok(Some(Table { topic: topic.into(), partitions }))
    }
}

#[async_trait]
impl Written for WrittenTables {
    async fn open(&self, id: &TableId) -> Result<Box<dyn WrittenRows>> {
        let (send, receive) = mpsc::channel(1);
        if let Some(table) = self.table(id).await? {
            let mut replayer = Replayer::new(&self.log.clients, &format!("{}-written", self.source));
            tokio::spawn(blocking(move || {
                if let Err(error) = read(&mut replayer, &table, &send) {
                    // Nobody listens any more: then it is the end that was wanted.
                    let _ = send.blocking_send(Err(error));
                }
                Ok(())
            }));
        }
        Ok(Box::new(Rows(receive)))
    }
}

fn read(replayer: &mut Replayer, table: &Table, out: &mpsc::Sender<Result<Batch>>) -> Result<()> {
    let mut builder = BatchBuilder::default();
    let partitions: Vec<Partition> = table.partitions.iter().map(|(p, _)| p.clone()).collect();
    replayer.replay(&partitions, PATIENCE, |i, (key, value, offset)| {
        let ((_, partition), shapes) = &table.partitions[i];
        let record = Record {
            topic: &table.topic,
            partition: *partition,
            offset,
            // A truncation is told in each partition, and each is read here as what it is.
            spread: 1,
            key: Some(key),
            value,
            own: None,
            headers: &[],
        };
        decode(&record, at(shapes, offset), &mut builder);
        if builder.size() >= BATCH_BYTES {
            hand_on(&mut builder, out)?;
        }
        Ok(())
    })?;
    hand_on(&mut builder, out)
}

fn hand_on(builder: &mut BatchBuilder, out: &mpsc::Sender<Result<Batch>>) -> Result<()> {
    let batch = std::mem::take(builder).build(Position::Log(LogPosition::default()), None);
    out.blocking_send(Ok(batch)).map_err(|_| Error::transient("nobody reads the table any more"))
}

struct Rows(mpsc::Receiver<Result<Batch>>);

#[async_trait]
impl WrittenRows for Rows {
    async fn next(&mut self) -> Result<Option<Batch>> {
        self.0.recv().await.transpose()
    }
}
