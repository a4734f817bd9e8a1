//! Keys that a complete refresh did not meet: absent once. Absent from the next one too, they are deleted.

use caudal_core::Result;
use caudal_index::{Builder, Index, KeyHash};
use std::path::{Path, PathBuf};

/// The keys absent from the last complete refresh, and those of the one that goes on.
pub(crate) struct Absent {
    path: PathBuf,
    before: Option<Index>,
    now: Option<(Builder, u64)>,
}

impl Absent {
    /// What the refresh with the number `complete` left, if it is that one's: a run in between that was not complete makes
    /// its word worth nothing.
    pub(crate) fn open(path: &Path, complete: u64) -> Result<Self> {
        let before = Index::open(path)?.filter(|i| complete > 0 && i.stamp() == complete.to_string());
        Ok(Self { path: path.to_owned(), before, now: None })
    }

    /// A refresh ends; `complete` is its number.
    pub(crate) fn begin(&mut self, complete: u64) -> Result<()> {
        self.now = Some((Builder::new(&self.path, None)?, complete));
        Ok(())
    }

    /// Whether a key was absent from the last complete refresh.
    pub(crate) fn was(&self, key: KeyHash) -> Result<bool> {
        match &self.before {
            Some(index) => Ok(index.find(key)?.is_some()),
            None => Ok(false),
        }
    }

    /// A key is absent now. Whether it was before, too.
    pub(crate) fn add(&mut self, key: KeyHash) -> Result<bool> {
        let before = self.was(key)?;
        if let (Some((builder, _)), false) = (&mut self.now, before) {
            builder.put(key, 1)?;
        }
        Ok(before)
    }

    /// A key that was absent before stays so: it is not deleted yet.
    pub(crate) fn again(&mut self, key: KeyHash) -> Result<()> {
        match &mut self.now {
            Some((builder, _)) => builder.put(key, 1),
            None => Ok(()),
        }
    }

    /// Its word holds no more.
    pub(crate) fn forget(&mut self) {
        self.before = None;
        self.now = None;
    }

    /// The refresh is durable.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if let Some((builder, complete)) = self.now.take() {
            self.before = Some(builder.finish(&complete.to_string())?);
        }
        Ok(())
    }
}
