//! The control plane: configuration, the registry of connectors.

pub mod config;
pub mod registry;
