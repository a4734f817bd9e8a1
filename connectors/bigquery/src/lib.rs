//! BigQuery, polled: each table is a table, a view or a query there, read by the poll engine (`caudal_poll`).
//!
//! A run is a dry run, which costs nothing and tells shape and bytes, and then one query, or one for each slice of its window by date, several at a time; their results are
//! read page by page over REST, or block by block from the Storage Read API.
//!
//! # Why clients of our own
//! The clients that there are bring tonic, prost and a second HTTP client, some a second cryptographic provider, for four requests with JSON answers and two calls of a few
//! fields. The workspace has one HTTP library, which speaks HTTP/2 as well, and one TLS library; a token is one signature, for which `ring` is there already. So memory is bounded
//! by an answer, time-outs, retries and faults are the poll engine's, and no message holds a row.
//!
//! | module | |
//! |---|---|
//! | `client`, `auth` | requests over HTTP; tokens, and what they are had for |
//! | `api`, `refusal` | queries, results, what they cost; what the service says is wrong, as a fault |
//! | `statement`, `param` | queries with places, whose values are bound |
//! | `select` | the SELECTs of a window, and why they miss nothing |
//! | `shape`, `types` | what a table's columns are, exactly |
//! | `storage`, `fields`, `avro` | results as a stream of rows: calls over gRPC, their messages, rows in Avro |
//! | `session`, `answer`, `filling` | pages, fetched ahead |
//! | `prices` | the guard of bytes, and what a run cost |
//!
//! # Bounds
//! For each table that is read at the time: `parallel` + 1 answers (`page_rows` rows each, 20 MB at most as the service says, 64 MiB in any case; of the Storage API blocks of 1 MB or
//! so, 128 MiB in any case, and 4 MiB on their way) and one page (4 MiB, or one row).

mod answer;
mod api;
mod auth;
mod avro;
mod check;
mod client;
mod config;
mod fields;
mod filling;
mod history;
mod names;
mod param;
mod prices;
mod refusal;
mod select;
mod session;
mod shape;
mod source;
mod statement;
mod storage;
mod types;

pub use config::Config;
pub use source::source;
