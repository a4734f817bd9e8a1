//! MySQL and MariaDB: binlog capture and snapshot.
//!
//! The replication protocol and everything that turns its bytes into cells lives in `packet`, `auth`, `tls`, `connection`,
//! `gtid`, `charset`, `value` and `binlog`; none of it knows the pipeline. Nothing in there panics on any bytes, and every length that
//! comes from the network is compared with a cap before it is believed.

//!
//! What runs in the pipeline is in `config`, `check`, `discover`, `schema`, `snapshot`, `position` and `reader`: SQL, the windows
//! of the snapshot, and the reader that merges both into batches.

mod auth;
pub mod binlog;
mod canonical;
pub mod charset;
mod check;
mod client;
mod compare;
pub mod config;
pub mod connection;
mod ddl;
mod discover;
mod filter;
pub mod gtid;
mod heartbeat;
mod native;
mod packet;
pub mod poll;
mod position;
mod reader;
pub mod refusal;
mod schema;
pub mod selection;
mod shape;
mod snapshot;
mod source;
mod spooled;
pub mod tls;
mod value;

pub use config::Config;
pub use source::source;
