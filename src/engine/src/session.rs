//! One run of the loop, from opening both ends to the first error or the signal to stop.
//!
//! Three stages work at once, each on a batch of its own, joined by bounded queues that keep the order:
//! *read and transform* ∥ *prepare* (encode, on a blocking thread) ∥ *write and commit*.
//!
//! Why nothing is lost: a position is durable only through `commit`, with the data it stands for; a stage that ends early takes
//! only batches with it that were never committed, and the next session reads them again from the stored position. An error of
//! the reader travels in the queue behind the batches read before it, so those are still committed.

use crate::pipeline::{OnReject, Pipeline, Transform};
use crate::shutdown::Shutdown;
use crate::status::{State, StatusHandle};
use caudal_core::{Batch, Boundary, Error, Outcome, Position, Prepare, Reader, Result, Writer};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

type Item = Result<Batch>;

/// Runs until an error, or until `shutdown` (then `Ok`). Dropping the future cancels it without loss.
pub(crate) async fn run(pipeline: &Pipeline, status: &StatusHandle, shutdown: &Shutdown) -> Result<()> {
    let (reader, writer) = tokio::select! {
        ends = open(pipeline, status) => ends?,
        () = shutdown.wait() => return Ok(()),
    };
    status.enter(State::Running);
    let (read_out, read_in) = mpsc::channel(pipeline.limits.queue);
    let (prepared_out, prepared_in) = mpsc::channel(pipeline.limits.queue);
    let durable = Durable::default();
    let mut stages = JoinSet::new();
    stages.spawn(read(reader, pipeline.transforms.clone(), read_out, durable.clone()));
    stages.spawn(prepare(writer.prepare(), read_in, prepared_out));
    let mut end = WriteEnd {
        pipeline,
        status,
        writer,
        input: prepared_in,
        durable: durable.clone(),
        pending: Pending::default(),
    };
    end.run(shutdown).await
}

async fn open(pipeline: &Pipeline, status: &StatusHandle) -> Result<(Box<dyn Reader>, Box<dyn Writer>)> {
    status.enter(State::Waiting);
    pipeline.source.claim().await?;
    pipeline.sink.claim().await?;
    status.enter(State::Starting);
    let mut writer = pipeline.sink.open().await?;
    let from = writer.resume().await?;
    let reader = pipeline.source.open(from).await?;
    Ok((reader, writer))
}

async fn read(
    mut reader: Box<dyn Reader>,
    transforms: Vec<Arc<dyn Transform>>,
    out: mpsc::Sender<Item>,
    durable: Durable,
) {
    loop {
        let item = next(reader.as_mut(), &transforms, &durable).await;
        let failed = item.is_err();
        if out.send(item).await.is_err() || failed {
            return;
        }
    }
}

async fn next(reader: &mut dyn Reader, transforms: &[Arc<dyn Transform>], durable: &Durable) -> Item {
    if let Some(position) = durable.take() {
        reader.commit(&position).await?;
    }
    let mut batch = reader.next().await?;
    for transform in transforms {
        transform.apply(&mut batch)?;
    }
    Ok(batch)
}

/// What was committed and the reader was not told yet. It is told between two batches, so that several commits may come together: none is
/// passed over, for each tells only what it moved. Bound: one offset a partition.
#[derive(Clone, Default)]
struct Durable(Arc<Mutex<Option<Position>>>);

impl Durable {
    fn put(&self, position: Position) {
        match &mut *self.held() {
            Some(held) => held.advance(position),
            none => *none = Some(position),
        }
    }

    fn take(&self) -> Option<Position> {
        self.held().take()
    }

    // A panic while the lock is held leaves a whole position.
    fn held(&self) -> MutexGuard<'_, Option<Position>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn prepare(
    prepare: Option<Arc<dyn Prepare>>,
    mut input: mpsc::Receiver<Item>,
    out: mpsc::Sender<Item>,
) {
    while let Some(item) = input.recv().await {
        let item = match (item, &prepare) {
            (Ok(batch), Some(prepare)) => prepare_one(Arc::clone(prepare), batch).await,
            (item, _) => item,
        };
        let failed = item.is_err();
        if out.send(item).await.is_err() || failed {
            return;
        }
    }
}

async fn prepare_one(prepare: Arc<dyn Prepare>, mut batch: Batch) -> Item {
    let work = move || prepare.prepare(&mut batch).map(|()| batch);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::bug("prepare a batch").because(e)))
}

/// What the writer has accepted since the last commit.
#[derive(Default)]
struct Pending {
    batches: usize,
    bytes: usize,
    events: usize,
    since: Option<Instant>,
    /// Whether the last batch ends where a commit may fall.
    whole: bool,
    watermark_us: Option<i64>,
    /// The last one of each source.
    boundaries: Vec<Boundary>,
}

impl Pending {
    fn accept(&mut self, boundary: &Boundary) {
        self.watermark_us = Some(boundary.ts_us);
        let Some(scope) = boundary.scope.as_ref().filter(|scope| !scope.tables.is_empty()) else { return };
        let same = |b: &Boundary| b.scope.as_ref().is_some_and(|other| other.source == scope.source);
        self.boundaries.retain(|b| !same(b));
        self.boundaries.push(boundary.clone());
    }
}

struct WriteEnd<'a> {
    pipeline: &'a Pipeline,
    status: &'a StatusHandle,
    writer: Box<dyn Writer>,
    input: mpsc::Receiver<Item>,
    durable: Durable,
    pending: Pending,
}

impl WriteEnd<'_> {
    async fn run(&mut self, shutdown: &Shutdown) -> Result<()> {
        loop {
            let item = tokio::select! {
                biased;
                () = shutdown.wait() => return Ok(()),
                item = self.input.recv() => item,
            };
            let mut failure = self.take(item).await?;
            while failure.is_none() && !self.is_due() {
                match self.input.try_recv() {
                    Ok(item) => failure = self.take(Some(item)).await?,
                    Err(_) => break,
                }
            }
            if self.may_commit() {
                self.commit().await?;
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
    }

    /// Writes a batch; an error that came down the queue is given back, for what was accepted before it is still good.
    async fn take(&mut self, item: Option<Item>) -> Result<Option<Error>> {
        match item {
            Some(Ok(batch)) => self.write(batch).await.map(|()| None),
            Some(Err(error)) => Ok(Some(error)),
            None => Ok(Some(Error::bug("a stage of the pipeline ended without an error (it panicked)"))),
        }
    }

    async fn write(&mut self, mut batch: Batch) -> Result<()> {
        let (events, bytes) = (batch.events.len(), batch.size());
        let whole = batch.boundary.as_ref().is_some_and(|b| b.events as usize == events);
        // What is whole does not wait for the end of a transaction that may be long.
        if !whole && self.pipeline.sink.whole_transactions() && self.may_commit() {
            self.commit().await?;
        }
        let outcome = self.writer.write(&mut batch).await?;
        reject(self.pipeline, self.status, &batch, outcome).await?;
        let pending = &mut self.pending;
        pending.batches += 1;
        pending.bytes += bytes;
        pending.events += events;
        pending.since.get_or_insert_with(Instant::now);
        pending.whole = whole;
        if let Some(boundary) = &batch.boundary {
            pending.accept(boundary);
        }
        let metrics = self.status.metrics();
        metrics.events.fetch_add(events as u64, Relaxed);
        metrics.bytes.fetch_add(bytes as u64, Relaxed);
        metrics.batches.fetch_add(1, Relaxed);
        Ok(())
    }

    fn is_due(&self) -> bool {
        let (pending, limits) = (&self.pending, &self.pipeline.limits);
        self.may_commit()
            && (pending.bytes >= limits.commit_bytes
                || pending.events >= limits.commit_events
                || pending.since.is_some_and(|since| since.elapsed() >= limits.commit_after))
    }

    fn may_commit(&self) -> bool {
        self.pending.batches > 0 && (self.pending.whole || !self.pipeline.sink.whole_transactions())
    }

    async fn commit(&mut self) -> Result<()> {
        let started = Instant::now();
        let position = self.writer.commit().await?;
        let metrics = self.status.metrics();
        metrics.committed(started.elapsed());
        if let Some(open) = self.pipeline.dead_letters.as_ref().and_then(|letters| letters.open()) {
            metrics.dead_letters.store(open, Relaxed);
        }
        let pending = std::mem::take(&mut self.pending);
        let freshness = self.status.freshness();
        pending.boundaries.iter().for_each(|boundary| freshness.committed(boundary));
        // Of several sources the one that is farthest behind.
        if let Some(watermark) = freshness.complete_to_us() {
            metrics.watermark_us.store(watermark, Relaxed);
        } else if let Some(watermark) = pending.watermark_us {
            metrics.watermark_us.fetch_max(watermark, Relaxed);
        }
        metrics.set_aside.store(self.pipeline.source.set_aside().len() as u64, Relaxed);
        self.status.committed(position.clone());
        self.durable.put(position);
        Ok(())
    }
}

async fn reject(pipeline: &Pipeline, status: &StatusHandle, batch: &Batch, outcome: Outcome) -> Result<()> {
    let count = outcome.rejected.len() + batch.undecodable.len();
    if count == 0 {
        return Ok(());
    }
    status.metrics().rejected.fetch_add(count as u64, Relaxed);
    match (pipeline.on_reject, &pipeline.dead_letters) {
        (OnReject::DeadLetter, Some(dead_letters)) => dead_letters.put(batch, &outcome.rejected, 1).await,
        _ => {
            let message =
                format!("{count} event(s) cannot be taken, the first: {}", first_of(batch, &outcome));
            Err(Error::data(message).hint(
                "mend the target or the row; or set on_reject: dead_letter to set such rows aside and go on",
            ))
        }
    }
}

/// Names the first event that cannot be taken, and why.
fn first_of(batch: &Batch, outcome: &Outcome) -> String {
    if let Some(rejected) = outcome.rejected.first() {
        let table = batch.events.get(rejected.event as usize).map(|e| batch.table(e).id.to_string());
        return format!("a row of {}: {}", table.unwrap_or_default(), rejected.cause);
    }
    let undecodable = batch.undecodable.first();
    undecodable.map_or_else(String::new, |u| {
        format!("{} [{}] offset {}: {}", u.raw.topic, u.raw.partition, u.raw.offset, u.cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_core::{LogOffset, LogPosition, SourcePosition};

    fn log(offsets: &[(&str, i64)]) -> Position {
        let offset = |&(topic, offset): &(&str, i64)| LogOffset {
            topic: Arc::from(topic),
            topic_id: Default::default(),
            partition: 0,
            offset,
            leader_epoch: -1,
            as_of_ms: 0,
            unswept: false,
            writer_epoch: 0,
        };
        Position::Log(LogPosition { offsets: offsets.iter().map(offset).collect() })
    }

    #[test]
    fn of_commits_that_the_reader_was_not_told_of_none_is_passed_over() {
        let durable = Durable::default();
        durable.put(log(&[("letters", 7), ("rows", 1)]));
        durable.put(log(&[("rows", 2)]));
        let Some(Position::Log(told)) = durable.take() else { panic!("nothing is told") };
        let mut told: Vec<_> = told.offsets.iter().map(|o| (&*o.topic, o.offset)).collect();
        told.sort_unstable();
        assert_eq!(told, [("letters", 7), ("rows", 2)]);
        assert_eq!(durable.take(), None);
        durable.put(Position::Source(SourcePosition { token: "a".into(), ..SourcePosition::default() }));
        let last = SourcePosition { token: "b".into(), ..SourcePosition::default() };
        durable.put(Position::Source(last.clone()));
        assert_eq!(durable.take(), Some(Position::Source(last)));
    }
}
