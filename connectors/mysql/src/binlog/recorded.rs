//! A recorded log file, read as the stream would give it: for measuring, and for looking at a file without a server.

use super::assembler::Assembler;
use super::event::Event;
use super::frame::Head;
use crate::connection::Family;
use bytes::Bytes;
use caudal_core::{Error, Result};

const MAGIC: &[u8] = b"\xfebin";
const MOST_EVENT_BYTES: usize = (1 << 30) + (1 << 20);

/// The events of one log file that is held in memory. Checksums are expected and verified.
pub struct RecordedLog {
    rest: Bytes,
    assembler: Assembler,
}

impl RecordedLog {
    /// Begins to read a whole file.
    ///
    /// # Errors
    /// `Data` for what is no log file.
    pub fn open(family: Family, file: &Bytes) -> Result<Self> {
        if !file.starts_with(MAGIC) {
            return Err(Error::data("the file is no binlog"));
        }
        let assembler = Assembler::new(family, true, MOST_EVENT_BYTES);
        Ok(Self { rest: file.slice(MAGIC.len()..), assembler })
    }

    /// The next event; none at the file's end.
    ///
    /// # Errors
    /// `Data` where bytes are damaged or not understood.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.assembler.pop()? {
                return Ok(Some(event));
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let size = Head::parse(&self.rest)?.size as usize;
            if size > self.rest.len() {
                return Err(Error::data("the file ends within an event"));
            }
            self.assembler.push(&self.rest.split_to(size))?;
        }
    }
}
