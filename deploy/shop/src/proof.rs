//! The proof that the sink equals the source.

use std::time::{Duration, Instant};

use anyhow::Result;
use caudal_tests::{Comparison, TablePair};

use crate::Ends;
use crate::figures::grouped;
use crate::schema::TABLES;

/// Compares every table row by row, and prints a line for each; true when all are equal. Tables that differ are looked at again until
/// `patience` is over: the last transactions may still be on their way.
///
/// # Errors
/// When a side can't be read.
pub(crate) async fn prove(ends: &Ends, patience: Duration) -> Result<bool> {
    let database = ends.database()?;
    let deadline = Instant::now() + patience;
    let mut equal = true;
    let mut rows = 0;
    for table in TABLES {
        let pair = TablePair { sink_schema: ends.schema.clone(), ..TablePair::by_default(&database, table) };
        let found = settle(&pair, ends, deadline).await?;
        rows += found.source_rows;
        println!(
            "  {table:<12} {:>8} rows  {}",
            grouped(found.source_rows),
            if found.is_equal() { "equal" } else { "DIFFERENT" }
        );
        if !found.is_equal() {
            print!("{found}");
            equal = false;
        }
    }
    println!(
        "{}",
        if equal {
            format!("  source and sink are equal: {} rows, every value", grouped(rows))
        } else {
            "  source and sink differ".to_owned()
        }
    );
    Ok(equal)
}

async fn settle(pair: &TablePair, ends: &Ends, deadline: Instant) -> Result<Comparison> {
    loop {
        let found = pair.compare(&ends.source, &ends.sink).await?;
        if found.is_equal() || Instant::now() > deadline {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
