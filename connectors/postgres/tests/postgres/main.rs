//! The sink against a real server: `CAUDAL_TEST_POSTGRES_URL` names one whose user may create databases. Without it these
//! tests pass without looking; with it, a server that does not answer fails them.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod after;
mod apply;
mod changes;
mod conformance;
mod crash;
mod database;
mod exchange;
mod fence;
mod input;
mod model;
mod pace;
mod ready;
mod rebuild_versions;
mod rebuild_views;
mod rejects;
mod reshape;
mod rows;
mod shapes;
mod tables;
mod tls;
mod types;
mod unique;
mod whole;
