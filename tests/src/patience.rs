//! Waiting for something to become true, with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `probe` every `pause` until it says true; an error of the probe counts as "not yet".
///
/// # Errors
/// When `limit` has passed: names `what`, and the last error of the probe if it had one.
pub async fn until<F, P>(what: &str, limit: Duration, pause: Duration, mut probe: P) -> Result<()>
where
    P: FnMut() -> F,
    F: Future<Output = Result<bool>>,
{
    let start = Instant::now();
    loop {
        let last = match probe().await {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(e) => format!(" (last: {e:#})"),
        };
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}{last}");
        }
        tokio::time::sleep(pause).await;
    }
}
