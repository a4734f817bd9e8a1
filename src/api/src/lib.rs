//! The HTTP API: health, metrics, status.
