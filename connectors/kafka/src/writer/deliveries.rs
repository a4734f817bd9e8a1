//! Delivery reports, gathered without a future or an allocation per record.
//!
//! Each record carries the number of its slot (a partition of the running transaction); a report adds its offset to the slot. What
//! the slots prove: `count` records got `first ..= last`; contiguous if `last - first + 1 == count`.

use crate::client::{Quiet, complain, log};
use crate::writer::statistics::Statistics;
use rdkafka::Message;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The slot of records whose offsets do not matter: those of side topics.
pub(crate) const NO_SLOT: usize = usize::MAX;

/// What was reported for one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) count: u64,
}

#[derive(Default)]
struct State {
    slots: Vec<Delivered>,
    reported: u64,
    /// Wake the waiter at this many reports.
    wanted: u64,
    failure: Option<KafkaError>,
}

/// The producer's context.
pub(crate) struct Deliveries {
    state: Mutex<State>,
    changed: Condvar,
    statistics: Arc<Statistics>,
    quiet: Quiet,
}

impl Deliveries {
    pub(crate) fn new(statistics: Arc<Statistics>, quiet: Quiet) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), statistics, quiet }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere while counting leaves counts that a comparison will refuse.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all: a new transaction. No record may be in flight.
    pub(crate) fn reset(&self) {
        *self.state() = State::default();
    }

    /// Waits for `reports` in all. False: not within `patience`.
    ///
    /// # Errors
    /// The first failed delivery.
    pub(crate) fn wait(&self, reports: u64, patience: Duration) -> Result<bool, KafkaError> {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            if state.reported >= reports {
                return Ok(true);
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(false) };
            state.wanted = reports;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reports so far.
    pub(crate) fn reported(&self) -> u64 {
        self.state().reported
    }

    /// What a slot got so far.
    pub(crate) fn slot(&self, slot: usize) -> Delivered {
        self.state().slots.get(slot).copied().unwrap_or_default()
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(
        &self,
        _: Option<&str>,
    ) -> std::result::Result<OAuthToken, Box<dyn std::error::Error>> {
        self.quiet.generate_oauth_token(None)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn stats_raw(&self, report: &[u8]) {
        if let Some(report) = self.quiet.report(report) {
            self.statistics.client(&report);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let mut state = self.state();
        match result {
            Ok(message) if slot != NO_SLOT => state.add(slot, message.offset()),
            Ok(_) => {}
            Err((error, _)) => {
                state.failure.get_or_insert_with(|| error.clone());
            }
        }
        state.reported += 1;
        if state.failure.is_some() || state.reported >= state.wanted {
            self.changed.notify_all();
        }
    }
}

impl State {
    fn add(&mut self, slot: usize, offset: i64) {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Delivered::default());
        }
        let delivered = &mut self.slots[slot];
        if delivered.count == 0 {
            delivered.first = offset;
            delivered.last = offset;
        }
        delivered.first = delivered.first.min(offset);
        delivered.last = delivered.last.max(offset);
        delivered.count += 1;
    }
}
