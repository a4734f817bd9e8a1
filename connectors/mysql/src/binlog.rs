//! The binlog: a stream of events, and the decoder of their rows.
//!
//! [`BinlogStream`] speaks the replication protocol and gives [`Event`]s: checksums verified, compression undone, transactions
//! bracketed alike for both families. [`RowDecoder`] turns the rows of an event into cells.

mod assembler;
mod compression;
mod cursor;
mod decimal;
mod dump;
mod event;
pub(crate) mod frame;
mod json;
mod plan;
mod query;
mod recording;
mod rows;
mod stream;
mod table_map;
mod temporal;
mod transaction;
mod value;

pub use event::{AlterPhase, Begin, Event, EventKind, Query, Rows, RowsOp, Xid};
pub use recording::{Recording, file_events};
pub use rows::{NO_IMAGE, RowDecoder, RowImages, decode_rows};
pub use stream::{BinlogStream, Start, StreamOptions};
pub use table_map::{MapColumn, TableMap, WireType};
