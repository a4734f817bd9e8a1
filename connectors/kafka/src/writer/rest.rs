//! A session between two commits whose position is still to be stored: it is stored when it is due, or the session goes on before.

use crate::client::blocking;
use crate::writer::at_least_once;
use crate::writer::session::Session;
use caudal_core::{Error, Result};
use std::sync::mpsc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Has the session. Dropping it gives up what is not stored: it is written again.
pub(super) struct Rest {
    wake: mpsc::Sender<()>,
    task: JoinHandle<Result<Box<Session>>>,
}

impl Rest {
    /// Begins a rest, of `left` at most.
    pub(super) fn begin(mut session: Box<Session>, left: Duration) -> Self {
        let (wake, woken) = mpsc::channel();
        let task = tokio::spawn(blocking(move || {
            if let Err(mpsc::RecvTimeoutError::Timeout) = woken.recv_timeout(left) {
                at_least_once::store(&mut session)?;
            }
            Ok(session)
        }));
        Self { wake, task }
    }

    /// Ends it, and gives the session back.
    ///
    /// # Errors
    /// If the position could not be stored: `Fenced` if another writer has taken over.
    pub(super) async fn end(self) -> Result<Box<Session>> {
        // Nobody listens: it is over by itself.
        let _ = self.wake.send(());
        self.task.await.map_err(|e| Error::bug("a rest between two commits ended early").because(e))?
    }
}
