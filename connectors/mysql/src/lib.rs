//! MySQL and MariaDB: binlog capture and snapshot.
//!
//! The replication protocol and everything that turns its bytes into cells lives in `packet`, `auth`, `tls`, `connection`,
//! `gtid`, `charset` and `binlog`; none of it knows the pipeline. Nothing in there panics on any bytes, and every length that
//! comes from the network is compared with a cap before it is believed.

mod auth;
pub mod binlog;
pub mod charset;
pub mod connection;
pub mod gtid;
mod packet;
pub mod refusal;
pub mod tls;
