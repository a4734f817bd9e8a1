//! Rows of a table that is read in one piece, until they are handed on: in memory while they are few, then in a file without a name.
//!
//! Memory: the bound given, or one row if that is larger. The file is unlinked as soon as it is open: it is gone with the process.

use caudal_core::fault::Classify;
use caudal_core::{Error, Fault, Result};
use mysql_async::{Row, Value};
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufReader};

/// Being written.
pub(crate) struct Writer {
    dir: PathBuf,
    bound: usize,
    memory: Vec<u8>,
    file: Option<File>,
    rows: u64,
}

/// Being read back.
pub(crate) struct Spool {
    file: Option<BufReader<File>>,
    memory: Vec<u8>,
    at: usize,
    left: u64,
}

impl Writer {
    /// Keeps up to `bound` bytes in memory; more goes into a file in `dir`.
    pub(crate) fn new(dir: &Path, bound: usize) -> Self {
        Self { dir: dir.to_owned(), bound, memory: Vec::new(), file: None, rows: 0 }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `Config` if the file cannot be written.
    pub(crate) async fn push(&mut self, row: &Row) -> Result<()> {
        let start = self.memory.len();
        self.memory.extend_from_slice(&[0; 4]);
        (0..row.len()).for_each(|i| encode(row.as_ref(i).unwrap_or(&Value::NULL), &mut self.memory));
        let length = (self.memory.len() - start - 4) as u32;
        self.memory[start..start + 4].copy_from_slice(&length.to_le_bytes());
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
        Ok(Spool { file, memory: self.memory, at: 0, left: self.rows })
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

    /// The next row's values.
    ///
    /// # Errors
    /// `Transient` if the file cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>> {
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
            None => {
                let mut rest = &self.memory[self.at..];
                let length = take(&mut rest, 4).map_or(0, |b| number(b) as usize);
                let body = take(&mut rest, length).unwrap_or_default().to_vec();
                self.at += 4 + length;
                body
            }
        };
        decode(&body).map(Some).ok_or_else(|| Error::bug("read a spooled row"))
    }
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::NULL => out.push(0),
        Value::Int(n) => tagged(out, 1, &n.to_le_bytes()),
        Value::UInt(n) => tagged(out, 2, &n.to_le_bytes()),
        Value::Float(n) => tagged(out, 3, &n.to_bits().to_le_bytes()),
        Value::Double(n) => tagged(out, 4, &n.to_bits().to_le_bytes()),
        Value::Bytes(b) => {
            tagged(out, 5, &(b.len() as u32).to_le_bytes());
            out.extend_from_slice(b);
        }
        &Value::Date(y, mo, d, h, mi, s, us) => {
            tagged(out, 6, &y.to_le_bytes());
            out.extend_from_slice(&[mo, d, h, mi, s]);
            out.extend_from_slice(&us.to_le_bytes());
        }
        &Value::Time(negative, d, h, m, s, us) => {
            tagged(out, 7, &[u8::from(negative)]);
            out.extend_from_slice(&d.to_le_bytes());
            out.extend_from_slice(&[h, m, s]);
            out.extend_from_slice(&us.to_le_bytes());
        }
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn decode(mut body: &[u8]) -> Option<Vec<Value>> {
    let b = &mut body;
    let mut values = Vec::new();
    while let Some(tag) = take(b, 1) {
        values.push(match tag[0] {
            0 => Value::NULL,
            1 => Value::Int(number(take(b, 8)?) as i64),
            2 => Value::UInt(number(take(b, 8)?)),
            3 => Value::Float(f32::from_bits(number(take(b, 4)?) as u32)),
            4 => Value::Double(f64::from_bits(number(take(b, 8)?))),
            5 => {
                let length = number(take(b, 4)?) as usize;
                Value::Bytes(take(b, length)?.to_vec())
            }
            6 => {
                let year = number(take(b, 2)?) as u16;
                let &[mo, d, h, mi, s] = take(b, 5)? else { return None };
                Value::Date(year, mo, d, h, mi, s, number(take(b, 4)?) as u32)
            }
            7 => {
                let negative = take(b, 1)?[0] != 0;
                let days = number(take(b, 4)?) as u32;
                let &[h, m, s] = take(b, 3)? else { return None };
                Value::Time(negative, days, h, m, s, number(take(b, 4)?) as u32)
            }
            _ => return None,
        });
    }
    Some(values)
}

fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(taken)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spooled_values_come_back_as_they_were() {
        let values = vec![
            Value::NULL,
            Value::Int(-5),
            Value::UInt(u64::MAX),
            Value::Float(1.5),
            Value::Double(-0.1),
            Value::Bytes(vec![0, 1, 255]),
            Value::Date(2024, 2, 29, 23, 59, 58, 999_999),
            Value::Time(true, 34, 22, 59, 59, 1),
        ];
        let mut body = Vec::new();
        values.iter().for_each(|v| encode(v, &mut body));
        assert_eq!(decode(&body).unwrap(), values);
        assert!(decode(&body[..body.len() - 1]).is_none());
    }
}
