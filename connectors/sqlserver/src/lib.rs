//! Microsoft SQL Server, polled: each table is a table or a query there, read by the poll engine (`caudal_poll`).
//!
//! A run is one SELECT whose rows are read as they come: of one moment of the server, as its isolation has it, and without an order that would have to be made.
//! A run whose connection breaks begins anew.
//!
//! | module | |
//! |---|---|
//! | `transport`, `tls` | the socket, its keep-alive, encryption within TDS |
//! | `client`, `refusal` | one connection; what the server says is wrong, as a fault |
//! | `statement`, `param` | queries with places, whose values are bound |
//! | `shape`, `types` | what a table's columns are, exactly |
//! | `select` | the SELECT of a window, and why it misses nothing: rowversion, time, Change Tracking, Change Data Capture |
//! | `reading`, `session` | rows as they come, as pages |
//!
//! # Bounds
//! Three pages (4 MiB each, or one row) for each store that is read at the time.

mod check;
mod client;
mod config;
mod names;
mod param;
mod place;
mod reading;
mod refusal;
mod select;
mod session;
mod shape;
mod source;
mod statement;
mod tls;
mod transport;
mod types;

pub use config::Config;
pub use source::source;
