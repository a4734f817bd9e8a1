//! The key index: for each key that a topic holds, the hash of the key and the hash of its row's content, on disk.
//!
//! What it is for: whoever reads rows anew (a re-read of a table, a poll) asks it which rows differ from what the topic holds, and
//! which keys of the topic did not come. It is a read model of the topic: it can be thrown away and built again, and its stamp
//! says which of the topic's offsets it reflects.
//!
//! # Layout, and why a file of our own
//!
//! A sorted array of 24-byte entries (16 of the key's hash, 8 of the content's), then a trailer (each 170th hash, the stamp, a
//! checksum). It is written once, from front to back, and replaced as a whole by a merge; it is never changed in place. So a crash
//! leaves the old file or the new one, there is nothing to recover, and 10 million keys take 240 MB. A B-tree store that was
//! weighed against it takes about twice as much and writes its pages many times over for keys that arrive in no order, for
//! transactions that nobody here needs: the log is the state of record.
//!
//! Two keys share a hash of 128 bits once in about 10^24 tables of 10 million keys. A row that changed to another of the same
//! 64-bit hash would be taken for unchanged: once in 10^19 changes.
//!
//! Memory: [`Index`] holds 16 bytes per 170 keys (1 MB for 10 million). [`Builder`] holds 1 MiB of buffers and, at the end, a 64th of
//! what was put in (4 MB for 10 million). [`Marks`] is one bit per key.
//!
//! All calls wait for the disk: call them on a thread that may wait.

mod build;
mod file;
mod marks;
#[cfg(test)]
mod tests;

pub use build::Builder;
pub use file::{Entries, Found, Index};
pub use marks::Marks;

use twox_hash::{XxHash3_64, XxHash3_128};

/// The hash of a key.
pub type KeyHash = u128;

/// The hash of a key's canonical bytes. Part of the stored format.
#[must_use]
pub fn key_hash(bytes: &[u8]) -> KeyHash {
    XxHash3_128::oneshot(bytes)
}

/// The hash of a row's canonical bytes. Part of the stored format; never 0, which stands for "removed".
#[must_use]
pub fn content_hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes).max(1)
}
