//! Seeing commits become visible in the sink.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc::Receiver;
use tokio_postgres::Client;

use super::report::Report;
use super::{Commit, Sign};

/// Between two questions to the sink: the error of the measurement.
const ASK: Duration = Duration::from_millis(2);

pub(super) struct Watcher {
    sink: Client,
    query: String,
    waiting: Vec<Commit>,
    report: Report,
}

impl Watcher {
    pub(super) fn new(sink: Client, schema: &str, start: Instant) -> Self {
        let query = format!(
            "SELECT id::bigint, version::int FROM \"{schema}\".\"orders\" WHERE id = ANY($1::bigint[])"
        );
        Self { sink, query, waiting: Vec::new(), report: Report::new(start) }
    }

    /// Waits for all commits that come through `commits`; false when some are not there at `deadline`.
    pub(super) async fn follow(mut self, mut commits: Receiver<Commit>, deadline: Instant) -> Result<bool> {
        let mut open = true;
        while open || !self.waiting.is_empty() {
            loop {
                match commits.try_recv() {
                    Ok(commit) => self.waiting.push(commit),
                    Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break,
                    Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => {
                        open = false;
                        break;
                    }
                }
            }
            if !self.waiting.is_empty() {
                self.look().await?;
            }
            self.report.tick();
            if Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(ASK).await;
        }
        self.report.finish(self.waiting.len());
        Ok(self.waiting.is_empty())
    }

    async fn look(&mut self) -> Result<()> {
        let ids: Vec<i64> = self.waiting.iter().map(|c| c.order).collect();
        let rows = self.sink.query(&self.query, &[&ids]).await.context("look into the sink")?;
        let now = Instant::now();
        let versions: HashMap<i64, i32> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
        self.waiting.retain(|commit| {
            let found = versions.get(&commit.order);
            let visible = match commit.sign {
                Sign::There => found.is_some(),
                Sign::Version(v) => found.is_some_and(|have| *have >= v),
                Sign::Gone => found.is_none(),
            };
            if visible {
                self.report.visible(commit, now);
            }
            !visible
        });
        Ok(())
    }
}
