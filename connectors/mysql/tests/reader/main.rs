//! The reader against real servers: `CAUDAL_TEST_MARIADB_URL` and `CAUDAL_TEST_MYSQL_URL` name them (`tests/run` sets both). A server that
//! is named but does not answer fails the tests.

#![allow(clippy::unwrap_used, reason = "tests: an error is a failed test, whatever it says")]

mod check;
mod conformance;
mod ddl;
mod resume;
mod selection;
mod server;
mod snapshot;
mod state;
mod types;
