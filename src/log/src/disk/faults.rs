//! What a disk can do to its user: typed faults that tests switch on.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};

/// Faults of one disk. All off at first.
#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// Durable length of every file that was opened through the disk.
    durable: HashMap<PathBuf, u64>,
    /// Bytes that still fit on the disk.
    room: Option<usize>,
    fail_writes_to: Option<String>,
    fail_sync_of: Option<String>,
    hold_sync_of: Option<String>,
    held: usize,
    dead: bool,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the faults")
    }

    /// From now on only this many bytes can be written (`None`: no limit).
    pub(crate) fn room(&self, bytes: Option<usize>) {
        self.lock().room = bytes;
    }

    /// Every write to a path that contains the text fails half way (`None`: none fails).
    pub(crate) fn fail_writes_to(&self, text: Option<&str>) {
        self.lock().fail_writes_to = text.map(str::to_owned);
    }

    /// Every fsync of a path that contains the text fails (`None`: none fails).
    pub(crate) fn fail_sync_of(&self, text: Option<&str>) {
        self.lock().fail_sync_of = text.map(str::to_owned);
    }

    /// Every fsync of a path that contains the text waits (`None`: lets them go on).
    pub(crate) fn hold_sync_of(&self, text: Option<&str>) {
        self.lock().hold_sync_of = text.map(str::to_owned);
        self.released.notify_all();
    }

    /// How many fsyncs wait at this moment.
    pub(crate) fn held(&self) -> usize {
        self.lock().held
    }

    /// The process is dead: nothing reaches the disk any more, held fsyncs fail.
    pub(crate) fn kill(&self) {
        let mut state = self.lock();
        state.dead = true;
        state.hold_sync_of = None;
        drop(state);
        self.released.notify_all();
    }

    /// Power fails: the process is dead, and every file loses what was not fsynced.
    pub(crate) fn cut_power(&self) -> io::Result<()> {
        self.kill();
        for (path, length) in &self.lock().durable {
            if let Ok(file) = OpenOptions::new().write(true).open(path)
                && file.metadata()?.len() > *length
            {
                file.set_len(*length)?;
            }
        }
        Ok(())
    }

    pub(super) fn opened(&self, path: &Path, create: bool) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        let length = if create { 0 } else { fs::metadata(path)?.len() };
        state.durable.entry(path.to_path_buf()).or_insert(length);
        Ok(())
    }

    pub(super) fn renamed(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        if let Some(length) = state.durable.remove(from) {
            state.durable.insert(to.to_path_buf(), length);
        }
        Ok(())
    }

    pub(super) fn writing(&self, path: &Path, bytes: usize) -> Result<(), (usize, io::Error)> {
        let mut state = self.lock();
        state.alive().map_err(|e| (0, e))?;
        let text = path.to_string_lossy();
        if state.fail_writes_to.as_ref().is_some_and(|failing| text.contains(failing.as_str())) {
            return Err((bytes / 2, io::Error::from(io::ErrorKind::StorageFull)));
        }
        match state.room {
            Some(room) if room < bytes => Err((room, io::Error::from(io::ErrorKind::StorageFull))),
            Some(room) => {
                state.room = Some(room - bytes);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn cutting(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.alive()?;
        if let Some(durable) = state.durable.get_mut(path) {
            *durable = (*durable).min(length);
        }
        Ok(())
    }

    pub(super) fn syncing(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let text = path.to_string_lossy().into_owned();
        while state.hold_sync_of.as_ref().is_some_and(|held| text.contains(held.as_str())) {
            state.held += 1;
            state = self.released.wait(state).expect("no test panics while it holds the faults");
            state.held -= 1;
        }
        state.alive()?;
        match &state.fail_sync_of {
            Some(failing) if text.contains(failing.as_str()) => Err(io::Error::other("this fsync fails")),
            _ => Ok(()),
        }
    }

    pub(super) fn synced(&self, path: &Path, length: u64) {
        let mut state = self.lock();
        if !state.dead {
            let durable = state.durable.entry(path.to_path_buf()).or_default();
            *durable = (*durable).max(length);
        }
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }
}
