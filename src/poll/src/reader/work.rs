//! One step, with all that it needs: on a task of its own.

use crate::ledger::Ledger;
use crate::note::Record;
use crate::run::{Run, Step};
use crate::shapes::Shapes;
use crate::{Job, Polled, Session};
use caudal_core::{Error, Result, Written};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// A run of which nothing has come for so long is stale.
const STALE: Duration = Duration::from_secs(30 * 60);

pub(super) struct Work {
    pub(super) at: usize,
    pub(super) job: Arc<Job>,
    pub(super) record: Record,
    pub(super) planned: Timestamp,
    /// Nothing goes out.
    pub(super) dry: bool,
    /// The run before is not known to be durable.
    pub(super) unsettled: bool,
    /// Rows were handed on that the index does not know.
    pub(super) torn: bool,
    pub(super) ledger: Ledger,
    pub(super) run: Option<Run>,
    pub(super) session: Option<Box<dyn Session>>,
    pub(super) system: Option<Arc<dyn Polled>>,
    pub(super) written: Option<Arc<dyn Written>>,
    pub(super) shapes: Arc<Shapes>,
}

impl Work {
    pub(super) async fn step(mut self) -> (Self, Result<Step>) {
        // Each page has its own time; this is for what has none: a step that hangs is given up, and its run with it.
        let step = match tokio::time::timeout(STALE, self.try_step()).await {
            Ok(step) => step,
            Err(_) => {
                let says =
                    format!("{}: nothing has come of it within {STALE:?}: it was given up", self.job.name());
                Err(Error::transient(says))
            }
        };
        (self, step)
    }

    async fn try_step(&mut self) -> Result<Step> {
        if self.run.is_none() {
            // Before anything that can fail: it is told only once.
            self.know().await?;
        }
        let mut session = match (self.session.take(), &self.system) {
            (Some(session), _) => session,
            (None, Some(system)) => connect(&self.job, system.as_ref()).await?,
            (None, None) => return Err(Error::bug("poll a table of no system")),
        };
        if self.run.is_none() {
            let known = (&mut self.ledger, self.shapes.as_ref());
            let how = (self.planned, self.dry);
            let run = Run::begin(&self.job, &self.record, how, session.as_mut(), known).await?;
            self.run = Some(run);
        }
        // It stays here if the step fails: the page is asked for again.
        let Some(run) = &mut self.run else { return Err(Error::bug("a step of no run")) };
        let step = run.step(session.as_mut(), &mut self.ledger, self.written.as_ref()).await?;
        if step.record.is_some() || step.anew.is_some() {
            self.run = None;
        }
        self.session = Some(session);
        Ok(step)
    }

    /// What is known must be what the position says, or nothing.
    async fn know(&mut self) -> Result<()> {
        if self.unsettled || self.torn {
            self.ledger.forget();
        }
        if self.unsettled {
            // What the log will hold is not there yet: all rows go out again, and the run after this one asks the log.
            self.torn = true;
            return Ok(());
        }
        if (self.record.indexed == 0 && !self.torn) || self.ledger.index.is_some() {
            return Ok(());
        }
        self.torn = false;
        let table = self.job.name();
        match &self.written {
            Some(written) => {
                tracing::info!(table, "poll: what is known of the rows is read from the log");
                self.ledger.rebuild(&self.job, written.as_ref(), self.record.indexed).await
            }
            None => {
                tracing::warn!(table, "poll: what was known of the rows is lost: all of them go out again");
                Ok(())
            }
        }
    }
}

async fn connect(job: &Job, system: &dyn Polled) -> Result<Box<dyn Session>> {
    let connected = tokio::time::timeout(job.timeout, system.connect()).await;
    connected
        .map_err(|_| Error::transient(format!("{}: not connected within {:?}", job.name(), job.timeout)))?
}
