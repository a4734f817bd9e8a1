//! The reader against real servers: `CAUDAL_TEST_MARIADB_URL` and `CAUDAL_TEST_MYSQL_URL` name them, and those that lack something by
//! `CAUDAL_TEST_MYSQL80_URL` (MySQL 8.0) and `CAUDAL_TEST_MYSQL_PLAIN_URL` (no GTIDs, no names of columns); `tests/run` sets all. A server
//! that is named but does not answer fails the tests. Failover is tested on servers that the test starts itself, of the families named.

#![allow(clippy::unwrap_used, reason = "tests: an error is a failed test, whatever it says")]

mod access;
mod capture;
mod cascades;
mod check;
mod conformance;
mod ddl;
mod effects;
mod failover;
mod late;
mod mirror;
mod order;
mod own;
mod reread;
mod resume;
mod resumed;
mod selection;
mod server;
mod snapshot;
mod state;
mod swaps;
mod tables;
mod types;
mod xa;
