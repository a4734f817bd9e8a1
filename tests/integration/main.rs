//! The integration tests: one binary, real servers. Each module is a subject, each test a behaviour.

// A test that can't go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod after;
mod catchup;
mod clients;
mod consistency;
mod cost;
mod crash;
mod damage;
mod examples;
mod formats;
mod freshness;
mod input;
mod kit;
mod large;
mod letters;
mod log;
mod ownership;
mod partial;
mod rebuild;
mod reread;
mod rest;
mod shape;
mod types;
mod verify;
mod why;
