//! The HTTP API: `GET /health`, `/metrics`, `/status`, `/api/v1/freshness`. It reads; nothing here changes anything.
//!
//! Bounds: 256 connections, 64 KiB of request head, no request bodies, 10 s for a head and for an answer; who waits for
//! freshness has up to 300 s, and 127 others beside.

pub mod client;
pub mod freshness;
mod guard;
mod process;
mod rates;
mod reading;
mod routes;
mod server;
pub mod view;

mod board;

pub use board::{Board, Info};
pub use server::{bind, serve};
