//! What is known of one table's rows: the index, and what a run changes in it.
//!
//! All calls wait for the disk, each for one page's lookups or one run's changes.

use crate::Job;
use crate::absent::Absent;
use crate::content::Hasher;
use caudal_core::fault::Classify;
use caudal_core::{Batch, Cell, Fault, Op, Result, TableSchema, Written};
use caudal_index::{Builder, Found, Index, KeyHash, key_hash};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// See the module.
pub(crate) struct Ledger {
    path: PathBuf,
    /// What the last durable run left.
    pub(crate) index: Option<Index>,
    changes: Option<Builder>,
    /// Keys that the last complete refresh did not meet.
    pub(crate) absent: Absent,
}

impl Ledger {
    /// Opens what lies in `dir` of a job, if it has the number that the position says; else there is nothing.
    ///
    /// # Errors
    /// `Config` if the folder cannot be used.
    pub(crate) fn open(dir: &Path, job: &Job, indexed: u64, complete: u64) -> Result<Self> {
        std::fs::create_dir_all(dir).fault(Fault::Config, format!("create {}", dir.display()))?;
        let name = key_hash(job.name().as_bytes());
        let mut file = String::new();
        let _ = write!(file, "{name:032x}.index");
        let path = dir.join(file);
        let found = Index::open(&path)?;
        let index = found.filter(|index| index.stamp() == stamp(indexed));
        let absent = Absent::open(&path.with_extension("absent"), complete)?;
        Ok(Self { path, index, changes: None, absent })
    }

    /// Known keys.
    pub(crate) fn len(&self) -> u64 {
        self.index.as_ref().map_or(0, Index::len)
    }

    /// Looks keys up.
    ///
    /// # Errors
    /// `Transient` if the file cannot be read.
    pub(crate) fn find(&self, keys: &[KeyHash]) -> Result<Vec<Option<Found>>> {
        match &self.index {
            Some(index) => index.find_all(keys),
            None => Ok(keys.iter().map(|_| None).collect()),
        }
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&mut self) {
        (self.index, self.changes) = (None, None);
        self.absent.forget();
    }

    /// Whether a run has changed something that does not hold yet.
    pub(crate) fn is_changing(&self) -> bool {
        self.changes.is_some()
    }

    /// A run begins: what an earlier one wanted to change and was never called durable is forgotten.
    pub(crate) fn begin(&mut self) {
        self.changes = None;
    }

    /// The key has this content from the end of the run on; none: it is gone.
    ///
    /// # Errors
    /// `Config` if the disk is full.
    pub(crate) fn change(&mut self, key: KeyHash, content: Option<u64>) -> Result<()> {
        if self.changes.is_none() {
            // A second handle: the first one is read until the run ends.
            let base = if self.index.is_some() { Index::open(&self.path)? } else { None };
            self.changes = Some(Builder::new(&self.path, base)?);
        }
        match (&mut self.changes, content) {
            (Some(changes), Some(content)) => changes.put(key, content),
            (Some(changes), None) => changes.remove(key),
            (None, _) => Ok(()),
        }
    }

    /// Learns what the log holds of the table, after what lay here was lost or is not what the position says.
    ///
    /// # Errors
    /// As the log says.
    pub(crate) async fn rebuild(&mut self, job: &Job, written: &dyn Written, indexed: u64) -> Result<()> {
        let mut hasher = Hasher::default();
        let mut topic = written.open(&job.table).await?;
        let mut builder = Builder::new(&self.path, None)?;
        while let Some(batch) = topic.next().await? {
            for event in &batch.events {
                if event.op == Op::Truncate {
                    builder.clear()?;
                }
                let schema = batch.table(event);
                for (cells, there) in [(batch.before(event), false), (batch.after(event), true)] {
                    let Some(cells) = cells.filter(|cells| is_within(job, &batch, schema, cells)) else {
                        continue;
                    };
                    let Some(key) = hasher.key(schema, cells, |s| batch.bytes(s)) else { continue };
                    match there {
                        true => builder.put(key, hasher.row(schema, cells, |s| batch.bytes(s)))?,
                        false => builder.remove(key)?,
                    }
                }
            }
        }
        self.index = Some(builder.finish(&stamp(indexed))?);
        Ok(())
    }

    /// The run is durable: what it changed holds.
    ///
    /// # Errors
    /// `Config` if the disk is full.
    pub(crate) fn settle(&mut self, indexed: u64) -> Result<()> {
        if let Some(changes) = self.changes.take() {
            self.index = None;
            self.index = Some(changes.finish(&stamp(indexed))?);
        }
        self.absent.settle()
    }
}

/// Whether a row is one of the job's system, where systems share the table.
fn is_within(job: &Job, batch: &Batch, schema: &TableSchema, cells: &[Cell]) -> bool {
    let Some(scope) = &job.scope else { return true };
    scope.columns.iter().all(|(column, value)| {
        let at = schema.columns.iter().position(|c| c.name == *column);
        let text = at.and_then(|at| cells.get(at)).and_then(|cell| cell.slice());
        text.is_some_and(|text| batch.bytes(text) == value.as_bytes())
    })
}

fn stamp(indexed: u64) -> String {
    format!("run {indexed}")
}
