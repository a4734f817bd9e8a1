//! The test kit, the integration tests and the benchmarks.
