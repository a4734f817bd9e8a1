//! One supervised task per pipeline: sessions, one after another, spaced by the fault policy. One pipeline's fault, even a
//! panic, never reaches another.

use crate::pipeline::Pipeline;
use crate::policy::{Next, Policy};
use crate::session;
use crate::shutdown::Shutdown;
use crate::status::{State, StatusHandle};
use caudal_core::{Error, Result};
use rand::{SeedableRng, rngs::SmallRng};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{error, info, warn};

/// Runs `pipeline` until `shutdown`, or until it stops for good. `seed` is for the jitter.
pub async fn supervise(pipeline: Pipeline, status: StatusHandle, shutdown: Shutdown, seed: u64) {
    let mut policy = Policy::default();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut shown = None;
    loop {
        let commits = status.metrics().commits();
        let outcome = one_session(&pipeline, &status, &shutdown).await;
        let Err(error) = outcome else { break status.enter(State::Stopped) };
        if shutdown.is_stopping() {
            // What was in flight is read again at the next start; the error is no news by then.
            info!(pipeline = %pipeline.name, error = %error, "stopped while a batch was in flight");
            break status.enter(State::Stopped);
        }
        if status.metrics().commits() > commits {
            policy.succeeded();
        }
        status.failed(&error);
        let next = policy.decide(error.fault(), Instant::now(), &mut rng);
        tell(&pipeline.name, &error, next, &mut shown);
        let (state, delay) = match next {
            Next::Retry(delay) => (State::Retrying, delay),
            Next::Park(delay) => (State::Parked, delay),
            Next::Rejoin(delay) => (State::Waiting, delay),
            Next::Stop => break status.enter(State::Failed),
        };
        status.enter(state);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = shutdown.wait() => break status.enter(State::Stopped),
        }
    }
}

/// A session in a task of its own: a panic is an error like any other. When the daemon stops, the session may end its batch
/// within the drain limit; after that it is cancelled.
async fn one_session(pipeline: &Pipeline, status: &StatusHandle, shutdown: &Shutdown) -> Result<()> {
    let (p, s, stop) = (pipeline.clone(), status.clone(), shutdown.clone());
    let mut task = tokio::spawn(async move { session::run(&p, &s, &stop).await });
    let joined = tokio::select! {
        joined = &mut task => joined,
        () = drained(shutdown, pipeline.limits.drain) => {
            task.abort();
            return Err(Error::transient("the batch in flight did not end in time"));
        }
    };
    joined.unwrap_or_else(|e| Err(Error::bug("the pipeline's task ended").because(e)))
}

async fn drained(shutdown: &Shutdown, limit: Duration) {
    shutdown.wait().await;
    tokio::time::sleep(limit).await;
}

/// Whether an error must be said: one that parks or waits again and again is said once, what is tried again (with growing
/// pauses) and the end always.
fn is_news(message: &str, next: Next, shown: Option<&str>) -> bool {
    matches!(next, Next::Retry(_) | Next::Stop) || shown != Some(message)
}

/// Says an error where it is handled.
fn tell(pipeline: &str, error: &Error, next: Next, shown: &mut Option<String>) {
    let message = error.to_string();
    if !is_news(&message, next, shown.as_deref()) {
        return;
    }
    let hint = error.hint_text().unwrap_or_default();
    match next {
        Next::Retry(delay) => {
            warn!(pipeline, fault = %error.fault(), ?delay, hint, "{message}; trying again")
        }
        Next::Rejoin(_) => {
            warn!(pipeline, fault = %error.fault(), hint, "{message}; waiting to own it again")
        }
        Next::Park(_) => {
            error!(pipeline, fault = %error.fault(), hint, "{message}; parked until that is mended")
        }
        Next::Stop => error!(pipeline, fault = %error.fault(), hint, "{message}; stopped"),
    }
    *shown = Some(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_that_stops_for_good_says_so_even_if_the_error_was_said_before() {
        let pause = Duration::from_secs(1);
        assert!(is_news("fenced", Next::Rejoin(pause), None));
        assert!(!is_news("fenced", Next::Rejoin(pause), Some("fenced")));
        assert!(is_news("fenced", Next::Stop, Some("fenced")));
        assert!(!is_news("no", Next::Park(pause), Some("no")));
        assert!(is_news("away", Next::Retry(pause), Some("away")));
    }
}
