//! What the daemon tells of itself in topics: `caudal.<prefix>.runs`, `.alerts`, `.metrics`, `.freshness`, and Debezium's notifications.
//!
//! Two halves that never wait for each other: one looks at the pipelines' status several times a second and notes what happened
//! ([`outbox`]), the other writes what was noted. Neither is a pipeline, and no pipeline waits for either: brokers that do not answer hold up
//! the telling alone. What happened (runs, alerts, notifications) waits in a bounded queue until it is acknowledged; what is (metrics,
//! freshness) is looked up when it is written.
//!
//! Memory: the queue, the alerts that are open, the runs under way, and one moment for each table of a sink.

mod alerts;
mod figures;
mod notifications;
mod outbox;
mod runs;

use alerts::{Alerts, Limits};
use caudal_core::Result;
use caudal_engine::status::now_us;
use caudal_engine::{Shutdown, StatusHandle};
use caudal_kafka::Log;
use caudal_kafka::monitoring::{Teller, Told, encoded};
use caudal_proto::monitoring::AlertRecord;
use figures::Figures;
use notifications::Notifier;
use outbox::Outbox;
use runs::Runs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// How often the pipelines are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Between two attempts, while the log does not take what is told.
const AGAIN: Duration = Duration::from_secs(5);
/// What is left when the daemon stops may take so long.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Tells until the daemon stops.
pub(crate) async fn run(log: Log, prefix: String, handles: Vec<StatusHandle>, shutdown: Shutdown) {
    let (told, notified) = (log.monitoring().enabled, log.notifications().enabled);
    if !told && !notified {
        return;
    }
    let limits = Limits { lag: log.monitoring().lag.get() };
    let watch = Arc::new(Watch {
        handles,
        outbox: Outbox::default(),
        alerts: Mutex::new(Alerts::new(limits)),
        told,
        notifier: notified.then_some(prefix),
    });
    let figures = Figures::new(log.monitoring().interval.get());
    tokio::join!(look(&watch, &shutdown), tell(log, &watch, figures, &shutdown));
}

struct Watch {
    handles: Vec<StatusHandle>,
    outbox: Outbox,
    alerts: Mutex<Alerts>,
    /// Whether runs, alerts, metrics and freshness are told.
    told: bool,
    /// The name that notifications go by, if they are told.
    notifier: Option<String>,
}

impl Watch {
    // A panic while the lock is held leaves whole records.
    fn alerts(&self) -> MutexGuard<'_, Alerts> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what happens.
async fn look(watch: &Watch, shutdown: &Shutdown) {
    let mut runs: Vec<Runs> = watch.handles.iter().map(|handle| Runs::new(handle.name())).collect();
    let mut notifiers: Vec<Notifier> =
        watch.handles.iter().map(|_| Notifier::new(watch.notifier.as_deref().unwrap_or_default())).collect();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            _ = ticks.tick() => false,
            () = shutdown.wait() => true,
        };
        let now = now_us();
        for ((handle, runs), notifier) in watch.handles.iter().zip(&mut runs).zip(&mut notifiers) {
            let status = handle.snapshot();
            let steps = runs.look(&status, now);
            if watch.notifier.is_some() {
                watch.outbox.extend(notifier.look(&status, stopping, &steps, now));
            }
            if watch.told {
                watch.outbox.extend(runs::tellings(&steps));
                // Each pipeline of a sink knows all of its letters: the first one tells.
                let letters = handle.metrics().dead_letters.load(std::sync::atomic::Ordering::Relaxed);
                let letters = if handle.is_first() { letters } else { 0 };
                let raised = if stopping { Vec::new() } else { watch.alerts().judge(&status, letters, now) };
                watch.outbox.extend(raised.iter().filter_map(alerts::telling));
            }
        }
        if stopping {
            return;
        }
    }
}

/// Writes what was noted, and the figures.
async fn tell(log: Log, watch: &Watch, mut figures: Figures, shutdown: &Shutdown) {
    let mut complained: Option<Instant> = None;
    let mut teller = None;
    loop {
        let ended = tokio::select! {
            ended = tell_while_it_goes(&log, &mut teller, watch, &mut figures) => ended,
            () = shutdown.wait() => return last_words(teller.as_ref(), watch).await,
        };
        match ended {
            Ok(()) => {}
            Err(error) if complained.is_none_or(|at| at.elapsed() > Duration::from_secs(600)) => {
                complained = Some(Instant::now());
                let hint = error.hint_text().unwrap_or_default();
                warn!(hint, "the topics of monitoring are not written now: {error}; pipelines go on");
            }
            Err(error) => debug!(%error, "the topics of monitoring are not written now"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.wait() => return,
        }
    }
}

/// What is left when the daemon stops, if the log takes it at once.
async fn last_words(teller: Option<&Teller>, watch: &Watch) {
    let Some(teller) = teller else { return };
    // The other half looks once more, beside this one.
    tokio::task::yield_now().await;
    if tokio::time::timeout(LAST_WORDS, deliver(teller, &watch.outbox)).await.is_err() {
        debug!("some of what happened last is not told");
    }
}

async fn tell_while_it_goes(
    log: &Log,
    teller: &mut Option<Teller>,
    watch: &Watch,
    figures: &mut Figures,
) -> Result<()> {
    if teller.is_none() {
        *teller = Some(log.teller().await?);
    }
    let Some(teller) = teller.as_ref() else { return Ok(()) };
    loop {
        // What was raised is written before what is open is read: nothing more is raised in between.
        let wants_memory = watch.told && watch.alerts().wants_memory();
        deliver(teller, &watch.outbox).await?;
        if wants_memory {
            let known = teller.told(Told::Alerts).await?;
            let known = known.iter().filter_map(|value| serde_json::from_slice::<AlertRecord>(value).ok());
            let pipelines: Vec<&str> = watch.handles.iter().map(StatusHandle::name).collect();
            let over = watch.alerts().remember(known, &pipelines, now_us());
            watch.outbox.extend(over.iter().filter_map(alerts::telling));
            continue;
        }
        if watch.told && figures.are_due() {
            let (tellings, lags) = figures.take(&watch.handles, &log.telemetry(), now_us());
            watch.alerts().lags(lags);
            for outcome in teller.tell(&tellings).await {
                outcome?;
            }
        }
        tokio::select! {
            () = watch.outbox.filled() => {}
            () = tokio::time::sleep(figures.pause()) => {}
        }
    }
}

/// Writes what waits. What is not acknowledged is written again later, under the same key.
async fn deliver(teller: &Teller, outbox: &Outbox) -> Result<()> {
    loop {
        let (some, end) = outbox.first();
        if some.is_empty() {
            return Ok(());
        }
        for outcome in teller.tell(&some).await {
            outcome?;
        }
        outbox.written(end);
    }
}

/// Encodes a record; one that cannot be encoded is passed over, for it is ours and says so in the log.
fn bytes<T: serde::Serialize>(record: &T) -> Option<Vec<u8>> {
    encoded(record).inspect_err(|error| warn!(%error, "monitoring")).ok()
}
