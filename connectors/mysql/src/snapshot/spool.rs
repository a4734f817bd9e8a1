//! Rows of a table that is read in one piece, until they are handed on: in memory while they are few, then in a file without a name.
//!
//! Memory: the bound given, or one row if that is larger. The file is unlinked as soon as it is open: it is gone with the process.

use crate::connection::results::PackedRow;
use crate::value::Form;
use bytes::Bytes;
use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader};

/// Being written.
pub(crate) struct Writer {
    dir: PathBuf,
    bound: usize,
    memory: Vec<u8>,
    file: Option<File>,
    rows: u64,
    forms: Arc<[Form]>,
}

/// Being read back.
pub(crate) struct Spool {
    file: Option<BufReader<File>>,
    memory: Vec<u8>,
    at: usize,
    left: u64,
    forms: Arc<[Form]>,
}

impl Writer {
    /// Keeps up to `bound` bytes in memory; more goes into a file in `dir`.
    pub(crate) fn new(dir: &Path, bound: usize) -> Self {
        Self { dir: dir.to_owned(), bound, memory: Vec::new(), file: None, rows: 0, forms: Arc::default() }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `Config` if the file cannot be written.
    pub(crate) async fn push(&mut self, row: &PackedRow) -> Result<()> {
        if self.rows == 0 {
            self.forms = Arc::clone(&row.forms);
        }
        // A row is at most 1 GiB.
        self.memory.extend_from_slice(&(row.bytes.len() as u32).to_le_bytes());
        self.memory.extend_from_slice(&row.bytes);
        self.rows += 1;
        if self.memory.len() >= self.bound { self.spill().await } else { Ok(()) }
    }

    async fn spill(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(unnamed(&self.dir).await?),
        };
        file.write_all(&self.memory).await.fault(Fault::Config, "write spooled rows").map_err(full)?;
        self.memory.clear();
        Ok(())
    }

    /// Ends writing.
    ///
    /// # Errors
    /// As for [`Writer::push`].
    pub(crate) async fn finish(mut self) -> Result<Spool> {
        let mut file = None;
        if self.file.is_some() {
            self.spill().await?;
        }
        if let Some(mut f) = self.file {
            f.flush().await.fault(Fault::Config, "write spooled rows").map_err(full)?;
            f.rewind().await.fault(Fault::Transient, "read spooled rows")?;
            file = Some(BufReader::with_capacity(1 << 18, f));
        }
        Ok(Spool { file, memory: self.memory, at: 0, left: self.rows, forms: self.forms })
    }
}

fn full(error: Error) -> Error {
    error.hint(
        "make room there, or set snapshot.spool_dir to a place with room for the largest table without a key",
    )
}

async fn unnamed(dir: &Path) -> Result<File> {
    let path = dir.join(format!("caudal-spool-{:016x}", rand::random::<u64>()));
    let what = format!("create a file for spooled rows in {}", dir.display());
    let mut options = tokio::fs::OpenOptions::new();
    #[cfg(unix)]
    options.mode(0o600);
    let file = options.read(true).write(true).create_new(true).open(&path).await;
    let file = file.fault(Fault::Config, what.clone()).map_err(full)?;
    tokio::fs::remove_file(&path).await.fault(Fault::Config, what)?;
    Ok(file)
}

impl Spool {
    /// Rows that are left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The next row.
    ///
    /// # Errors
    /// `Transient` if the file cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Option<PackedRow>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let body = match &mut self.file {
            Some(file) => {
                let length = file.read_u32_le().await.fault(Fault::Transient, "read spooled rows")?;
                let mut body = vec![0; length as usize];
                file.read_exact(&mut body).await.fault(Fault::Transient, "read spooled rows")?;
                body
            }
            None => self.remembered().ok_or_else(|| Error::bug("read a spooled row"))?,
        };
        Ok(Some(PackedRow { bytes: Bytes::from(body), forms: Arc::clone(&self.forms) }))
    }

    fn remembered(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.memory.get(self.at..)?.split_first_chunk::<4>()?;
        let body = rest.get(..u32::from_le_bytes(*length) as usize)?.to_vec();
        self.at += 4 + body.len();
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spooled_rows_come_back_as_they_were_from_memory_and_from_the_file() {
        let forms: Arc<[Form]> = [Form::new(253, 0)].into();
        let rows: Vec<PackedRow> = [&b"\0\0\x03abc"[..], b"\0\x04", b"\0\0\x02yz"]
            .map(|bytes| PackedRow { bytes: Bytes::from_static(bytes), forms: Arc::clone(&forms) })
            .into();
        for bound in [1, 1 << 20] {
            let mut writer = Writer::new(&std::env::temp_dir(), bound);
            for row in &rows {
                writer.push(row).await.unwrap();
            }
            let mut spool = writer.finish().await.unwrap();
            assert_eq!(spool.left(), 3);
            for row in &rows {
                let back = spool.next().await.unwrap().unwrap();
                assert!(back.bytes == row.bytes && back.values() == row.values());
            }
            assert!(spool.next().await.unwrap().is_none());
        }
    }
}
