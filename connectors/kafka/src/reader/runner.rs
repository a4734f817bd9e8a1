//! The thread that reads: librdkafka's queues on one side, a bounded channel of batches on the other.
//!
//! Memory: one batch waits in the channel while the next one is filled.

use super::wake::Wake;
use caudal_core::{Batch, Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A reader gives a batch at least so often.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Events of the client (errors) are served at least so often, beside those of partitions, which wake the thread.
const SERVE_EVERY: Duration = Duration::from_millis(100);

/// A batch, and what it completes.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) batch: Batch,
    /// The source that its boundary is of, by number in the order given at opening.
    pub(super) complete: Option<usize>,
    /// The dead letter whose event it applies again.
    pub(super) replayed: Option<Replayed>,
}

/// A dead letter that is applied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    /// The letter.
    pub(super) letter: String,
    /// The id that the event's letter gets if it is refused again.
    pub(super) event: String,
    /// What is durable with it: partition and offset under the dead letters' topic.
    pub(super) stored: (i32, i64),
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Progress {
    /// Something to deliver.
    Delivery(Box<Delivery>),
    /// Nothing can be done until something more is visible.
    Waiting,
}

/// A way of reading.
pub(super) trait Mode: Send {
    /// Goes on as far as what is visible allows, to the next batch at most.
    fn advance(&mut self) -> Result<Progress>;

    /// A batch that says: still here.
    fn heartbeat(&mut self) -> Result<Batch>;
}

/// The thread's handle. Dropping it ends the thread at its next step.
pub(super) struct Runner {
    batches: mpsc::Receiver<Result<Delivery>>,
    stop: Arc<AtomicBool>,
    wake: Arc<Wake>,
}

impl Runner {
    /// Starts reading.
    pub(super) fn start(mode: Box<dyn Mode>, wake: Arc<Wake>, name: &str) -> Result<Self> {
        let (out, batches) = mpsc::channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, woken) = (Arc::clone(&stop), Arc::clone(&wake));
        std::thread::Builder::new()
            .name(format!("read-{name}"))
            .spawn(move || run(mode, &out, &stopped, &woken))
            .map_err(|e| Error::transient("start the reading thread").because(e))?;
        Ok(Self { batches, stop, wake })
    }

    /// The next batch. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Delivery> {
        let ended = || Err(Error::bug("the reading thread ended without an error (it panicked)"));
        self.batches.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.set();
    }
}

fn run(mut mode: Box<dyn Mode>, out: &mpsc::Sender<Result<Delivery>>, stop: &AtomicBool, wake: &Wake) {
    let mut delivered = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let item = match mode.advance() {
            Ok(Progress::Delivery(delivery)) => Ok(*delivery),
            Ok(Progress::Waiting) if delivered.elapsed() >= HEARTBEAT => {
                mode.heartbeat().map(|batch| Delivery { batch, complete: None, replayed: None })
            }
            Ok(Progress::Waiting) => {
                wake.wait(SERVE_EVERY);
                continue;
            }
            Err(error) => Err(error),
        };
        let failed = item.is_err();
        if out.blocking_send(item).is_err() || failed {
            return;
        }
        delivered = Instant::now();
    }
}
