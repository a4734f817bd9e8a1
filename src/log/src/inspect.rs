//! `check` of a log that is not running: every journal line, every batch of every segment against its CRC. Nothing is changed.
//!
//! What is not there: index files. The sparse indexes are made of the batches' headers at each start, and these are what is checked.
//!
//! Three things are told apart. A *damage* lies among bytes that were durable: a start refuses it, or would lose something. What is
//! *unfinished* a crash left behind: it was never acknowledged, and the next start removes it. A *stray* belongs to no topic.
//!
//! Memory: one batch (at most the largest frame that was accepted), and one finding each for [`MOST_FINDINGS`] files.

use crate::batch::BatchHeader;
use crate::disk::Disk;
use crate::error::Error;
use crate::ledger;
use crate::storage;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Findings that are kept; all are counted.
pub const MOST_FINDINGS: usize = 1_000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something durable is not what was written.
    Damage,
    /// A crash left it; the next start removes it.
    Unfinished,
    /// A file that belongs to nothing; the next start removes it.
    Stray,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file or folder.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub position: Option<u64>,
    /// `topic/partition`, where it is of one.
    pub partition: Option<String>,
    /// The first offset concerned.
    pub offset: Option<i64>,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    pub(crate) fn damage(path: &Path, what: impl Into<String>) -> Finding {
        let (partition, offset, position) = (None, None, None);
        Finding {
            severity: Severity::Damage,
            path: path.to_path_buf(),
            position,
            partition,
            offset,
            what: what.into(),
        }
    }

    pub(crate) fn at(self, position: u64) -> Finding {
        Finding { position: Some(position), ..self }
    }
}

/// What a look at a folder came to.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Topics that the journal knows.
    pub topics: u64,
    /// Their partitions.
    pub partitions: u64,
    /// Segment files.
    pub segments: u64,
    /// Batches whose CRC was compared.
    pub batches: u64,
    /// Records in them, markers of transactions included.
    pub records: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// How many findings there are.
    pub found: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

impl Inspection {
    /// Whether something durable is not what was written.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }

    fn find(&mut self, finding: Finding) {
        self.found += 1;
        // Of many, damages are what must not be missed.
        if self.findings.len() < MOST_FINDINGS || (finding.severity == Severity::Damage && !self.is_damaged())
        {
            self.findings.push(finding);
        }
    }
}

/// Looks at all files of a log's folder; `progress` is called after each partition. Blocking.
///
/// # Errors
/// [`Error::FolderLocked`] while a log runs in it, [`Error::NoLog`] where there is none, and when files can't be read.
pub fn inspect(dir: &Path, mut progress: impl FnMut(&Inspection)) -> Result<Inspection, Error> {
    let _lock = lock(dir)?;
    let mut inspection = Inspection::default();
    let (known, findings) = ledger::inspect(dir)?;
    findings.into_iter().for_each(|finding| inspection.find(finding));
    for (id, (name, partitions)) in &known {
        inspection.topics += 1;
        for index in 0..*partitions {
            inspection.partitions += 1;
            let folder = dir.join("topics").join(id.to_string()).join(index.to_string());
            partition(&folder, &format!("{name}/{index}"), &mut inspection)?;
            progress(&inspection);
        }
    }
    strays(dir, &known, &mut inspection)?;
    Ok(inspection)
}

/// Takes the lock of a folder that is there, and makes nothing.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NoLog(dir.into())),
        other => other.map_err(|cause| Error::storage(format!("open {}", path.display()), cause))?,
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::FolderLocked(dir.into())),
        Err(TryLockError::Error(cause)) => Err(Error::storage(format!("lock {}", path.display()), cause)),
    }
}

fn partition(folder: &Path, name: &str, inspection: &mut Inspection) -> Result<(), Error> {
    let of_it = |finding: Finding| Finding { partition: Some(name.to_owned()), ..finding };
    if !folder.is_dir() {
        inspection.find(of_it(Finding::damage(folder, "the partition's folder is missing")));
        return Ok(());
    }
    let synced = match storage::durable_end(folder) {
        Ok(synced) => synced,
        Err(Error::Damaged { path, what }) => {
            inspection.find(of_it(Finding::damage(&path, what)));
            0
        }
        Err(other) => return Err(other),
    };
    let segments = storage::segments(folder)
        .map_err(|cause| Error::storage(format!("list {}", folder.display()), cause))?;
    let mut end = None;
    for (base_offset, path) in segments {
        let gap = end.is_some_and(|end| base_offset != end && base_offset > synced);
        inspection.segments += 1;
        let mut walk = Walk { end: base_offset.max(end.unwrap_or(0)), trouble: None };
        walk.segment(&path, inspection)?;
        if let Some((position, what)) = walk.trouble {
            let severity = if walk.end < synced { Severity::Damage } else { Severity::Unfinished };
            let finding = Finding { severity, offset: Some(walk.end), ..Finding::damage(&path, what) };
            inspection.find(of_it(finding.at(position)));
        } else if gap {
            let what = "it does not follow the segment before it";
            let finding = Finding { severity: Severity::Unfinished, ..Finding::damage(&path, what) };
            inspection.find(of_it(Finding { offset: Some(base_offset), ..finding }));
        }
        end = Some(walk.end);
    }
    if end.unwrap_or(0) < synced && !inspection.findings.iter().any(|f| f.partition.as_deref() == Some(name))
    {
        let what = format!("offsets up to {synced} were durable, and the files end at {}", end.unwrap_or(0));
        inspection.find(of_it(Finding { offset: end, ..Finding::damage(folder, what) }));
    }
    Ok(())
}

/// A walk over one segment.
struct Walk {
    /// The offset behind the last good batch.
    end: i64,
    /// The first bytes that are no whole, intact batch, and why.
    trouble: Option<(u64, String)>,
}

impl Walk {
    fn segment(&mut self, path: &Path, inspection: &mut Inspection) -> Result<(), Error> {
        let failed = |cause| Error::storage(format!("read {}", path.display()), cause);
        let file = Disk::default().open(path, false).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        inspection.bytes += length;
        let (mut position, mut body) = (0, Vec::new());
        let mut walk = storage::HeaderWalk::new(&file, 0, length);
        loop {
            let (at, header) = match walk.next() {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    self.note(position, e.to_string());
                    return Ok(());
                }
                Err(e) => return Err(failed(e)),
            };
            body.resize(header.length, 0);
            file.read_at(&mut body, at).map_err(failed)?;
            inspection.batches += 1;
            inspection.records += header.record_count.max(0) as u64;
            self.batch(&header, &body, at);
            position = at + header.length as u64;
        }
    }

    fn batch(&mut self, header: &BatchHeader, body: &[u8], at: u64) {
        if !header.intact(body) {
            self.note(at, "wrong CRC".to_owned());
        } else if header.base_offset < self.end {
            self.note(at, "offsets go back".to_owned());
        } else if self.trouble.is_none() {
            self.end = header.last_offset() + 1;
        }
    }

    fn note(&mut self, at: u64, what: String) {
        self.trouble.get_or_insert((at, what));
    }
}

fn strays(dir: &Path, known: &ledger::Known, inspection: &mut Inspection) -> Result<(), Error> {
    let entries = match fs::read_dir(dir.join("topics")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|cause| Error::storage("list topics", cause))?,
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| Uuid::parse_str(name).ok());
        if id.is_some_and(|id| !known.contains_key(&id)) {
            let what = "a topic that was deleted, or not yet made";
            let severity = Severity::Stray;
            inspection.find(Finding { severity, ..Finding::damage(&path, what) });
        }
    }
    Ok(())
}
