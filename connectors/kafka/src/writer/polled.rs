//! A producer and the thread that takes what it reports.
//!
//! The binding has the like (`ThreadedProducer`), which asks ten times a second. Each of its questions ends in a millisecond of asking without
//! waiting, since the library counts whole ones: one percent of a core for each producer that does nothing. Reports wake the question
//! at once, so it may last longer; only the end of the producer waits for the question that is under way.

use crate::writer::deliveries::Deliveries;
use rdkafka::producer::BaseProducer;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long one question lasts if nothing happens, and the end of a producer at most.
const QUESTION: Duration = Duration::from_millis(500);

/// A producer that is being asked for reports. Dropping it waits for the end of its thread.
pub(crate) struct Polled {
    producer: Arc<BaseProducer<Deliveries>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Polled {
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn new(producer: BaseProducer<Deliveries>) -> std::io::Result<Self> {
        let (producer, stop) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let (asked, stopped) = (Arc::clone(&producer), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("caudal-reports".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                asked.poll(QUESTION);
            }
        })?;
        Ok(Self { producer, stop, thread: Some(thread) })
    }
}

impl Deref for Polled {
    type Target = BaseProducer<Deliveries>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported; what it left unreported is waited for in vain, with a time-out.
            let _ = thread.join();
        }
    }
}
