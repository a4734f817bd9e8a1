//! The integration tests: one binary, real servers. Each module is a subject, each test a behaviour.

// A test that can't go on says so by panicking.
#![allow(clippy::unwrap_used)]

mod after;
mod at_least_once;
mod bigquery;
mod catchup;
mod clients;
mod cluster;
mod consistency;
mod cost;
mod crash;
mod damage;
mod exactly;
mod examples;
mod formats;
mod freshness;
mod input;
mod kit;
mod large;
mod letters;
mod log;
mod monitoring;
mod operator;
mod ownership;
mod parallel;
mod partial;
mod rebuild;
mod registry;
mod reread;
mod rest;
mod rounds;
mod secured;
mod shape;
mod sqlserver;
mod standby;
mod torture;
mod types;
mod verify;
mod why;
