//! A log that is at hand as bytes: recorded, or made up to try the decoder.

use super::assembler::Assembler;
use super::event::Event;
use super::frame::{HEADER_BYTES, Head};
use crate::connection::Family;
use bytes::Bytes;
use caudal_core::Result;

/// Reads events without a server, through the very code that the stream runs: `push` one, then `pop` until there is none.
///
/// Memory: as of the stream; no event, compressed or not, may be over the limit given.
pub struct Recording {
    assembler: Assembler,
}

impl Recording {
    /// `checksums`: whether events carry them before the first format description says so.
    #[must_use]
    pub fn new(family: Family, checksums: bool, max_event_bytes: usize) -> Self {
        Self { assembler: Assembler::new(family, checksums, max_event_bytes) }
    }

    /// Takes one event, from its header to its checksum.
    ///
    /// # Errors
    /// `Data` where it is damaged or not understood.
    pub fn push(&mut self, event: &Bytes) -> Result<()> {
        Ok(self.assembler.push(event)?)
    }

    /// The next event of what was pushed.
    ///
    /// # Errors
    /// `Data` where a compressed transaction is damaged.
    pub fn pop(&mut self) -> Result<Option<Event>> {
        Ok(self.assembler.pop()?)
    }
}

/// The events of a log file, as far as their lengths lead.
#[must_use]
pub fn file_events(file: &Bytes) -> Vec<Bytes> {
    const MAGIC: &[u8] = b"\xfebin";
    let mut rest = if file.starts_with(MAGIC) { file.slice(MAGIC.len()..) } else { file.clone() };
    let mut events = Vec::new();
    while rest.len() >= HEADER_BYTES {
        let Ok(head) = Head::parse(&rest) else { break };
        events.push(rest.split_to((head.size as usize).min(rest.len())));
    }
    events
}
