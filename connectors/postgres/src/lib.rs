//! Postgres: applies batches as upserts, exactly once.
