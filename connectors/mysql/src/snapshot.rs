//! Reading the rows that exist while changes stream: chunk by chunk, each in a window.
//!
//! # Why nothing is lost and nothing older covers anything newer
//!
//! A window opens between two source transactions, in this order and no other:
//!
//! 1. From the stream's current point on, the keys that its events touch in the table are recorded (images before *and* after, as
//!    canonical bytes). Let S be all that the stream has delivered up to that point.
//! 2. The chunk's connection waits until it *sees* S ([`visible`]).
//! 3. One SELECT reads the chunk, whole, into bounded memory; its transaction ends with it.
//! 4. Rows whose key was touched since 1 are dropped, the others are emitted at once, between two source transactions.
//!
//! Take any event e of the table and the chunk's row r of the same key. If the stream delivered e before 1, then e is in S, and the
//! SELECT, which sees S, read e's effect or a later one: r is not older than e. If the stream delivered e between 1 and 4, e's key is
//! recorded and r is dropped; e itself, or a later event of the key, tells the row. If e comes after 4, it follows r in the
//! output, as it should: whatever r already shows of it ends in the same state once e has passed. A key that the SELECT did not see
//! was deleted, or not yet inserted, in what it saw; in both cases an event for it is either in S or comes later.
//!
//! # Several windows at once
//!
//! The argument is about one key and one window, and needs nothing of the other windows. What has to hold besides is that each key
//! belongs to exactly one range of its table: ranges are cut at keys that the server gave, and are asked for by "behind this key" and "not
//! behind that key", which are each other's complement in the server's order ([`bounds`]). A row whose key changes from one range into
//! another is two keys: the event tells both, both are recorded for every open window of the table, and S and step 2 are each window's own.
//! Windows of different tables share nothing.
//!
//! All windows of a table share one record of touched keys, which says for each key in which window's time it was touched last:
//! [`window`].
//!
//! # What breaks when the order changes
//!
//! With 2 or 3 before 1, an event delivered in between is neither in S nor recorded, and the older row from the SELECT is emitted
//! after it, for good. Without 2, an event may be delivered (the log's end runs ahead of what a SELECT sees) that the SELECT
//! does not see yet and that was delivered before recording began. On real servers the latter shows in about every second run of
//! `a_snapshot_under_concurrent_writers_ends_in_the_sources_state`; `model` runs this very code against a model of a source and shows each of
//! these every time.
//!
//! A statement that changes the table discards its open windows. So does a record of touched keys that exceeds its bound. A chunk is one
//! batch together with the note of what ranges are left, so a restart reads again only what was not delivered.
//!
//! Reading rows again, for whatever reason, is the same with one step more: [`against`]. It goes on after a restart as a first reading does:
//! [`met`].
//!
//! Memory: `readers` chunks (`chunk_bytes` each, or one row if that is larger), at most [`window::MAX_BYTES`] of recorded keys for each table
//! that is being read (of which there are at most `readers`), and what [`against`] names for each re-read.

pub(crate) mod access;
pub(crate) mod against;
pub(crate) mod board;
pub(crate) mod bounds;
pub(crate) mod cells;
#[cfg(test)]
mod checked_tests;
pub(crate) mod chunk;
pub(crate) mod commands;
mod hand_on;
pub(crate) mod lock;
pub(crate) mod met;
#[cfg(test)]
mod model;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod shapes;
pub(crate) mod spool;
pub(crate) mod table;
mod throttle;
pub(crate) mod values;
pub(crate) mod visible;
pub(crate) mod whole;
mod wholes;
pub(crate) mod window;

// What other parts of the reader ask for re-reads with.
#[allow(unused_imports, reason = "a cascade, a statement or a partial image asks")]
pub(crate) use request::{Reason, Request, Rows};
pub(crate) use run::{Emission, Snapshot, Verdict};
