//! The binlog: a stream of events, and the decoder of their rows.
//!
//! [`BinlogStream`] speaks the replication protocol and gives [`Event`]s: checksums verified, compression undone, transactions
//! bracketed alike for both families. [`RowDecoder`] turns the rows of an event into cells.

mod event;
mod rows;
mod stream;
mod table_map;

pub use event::{AlterPhase, Begin, Event, EventKind, Query, Rows, RowsOp, Xid};
pub use rows::{NO_IMAGE, RowDecoder, RowImages, decode_rows};
pub use stream::{BinlogStream, Start, StreamOptions};
pub use table_map::{MapColumn, TableMap, WireType};
