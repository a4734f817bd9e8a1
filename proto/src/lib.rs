//! Wire types: the records of the side topics and the envelope.
//!
//! Each record carries `v`, its format's version; older versions stay readable (golden files in `proto/tests/golden`).

pub mod envelope;
pub mod monitoring;
pub mod side;
