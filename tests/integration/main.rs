//! The integration tests: one binary, real servers. Each module is a subject, each test a behaviour.

// A test that can't go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod catchup;
mod consistency;
mod crash;
mod input;
mod kit;
mod log;
mod ownership;
mod shape;
mod types;
