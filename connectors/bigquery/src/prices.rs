//! What queries may bill, and what they cost.

use crate::api::Bill;
use crate::config::Table;
use caudal_core::{Error, Result};

const TIB: f64 = (1_u64 << 40) as f64;
const HOUR_MS: f64 = 3_600_000.0;
/// On demand, each table of a query is billed 10 MB at least.
pub(crate) const LEAST: u64 = 10_000_000;

/// What the service asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Prices {
    /// For bytes, per TiB.
    Bytes(f64),
    /// For slots, per hour of one.
    Slots(f64),
}

impl Prices {
    /// In the currency of the price.
    pub(crate) fn of(self, bill: Bill) -> f64 {
        match self {
            Self::Bytes(per_tib) => bill.bytes as f64 / TIB * per_tib,
            Self::Slots(per_hour) => bill.slot_ms as f64 / HOUR_MS * per_hour,
        }
    }

    /// The same of an estimate; none where bytes do not tell the price.
    pub(crate) fn estimated(self, bytes: u64) -> Option<f64> {
        match self {
            Self::Bytes(_) => Some(self.of(Bill { bytes: billed(bytes), slot_ms: 0 })),
            Self::Slots(_) => None,
        }
    }

    /// Refuses what is over the table's limit.
    ///
    /// # Errors
    /// `Config`.
    pub(crate) fn allow(self, table: &Table, bytes: u64) -> Result<()> {
        let Some(most) = table.most_billed.filter(|most| billed(bytes) > *most) else { return Ok(()) };
        let price = self.estimated(bytes).map_or_else(String::new, |price| format!(", about {price:.4}"));
        Err(Error::config(format!(
            "{}: a run would read {} bytes{price}, and `maximum_bytes_billed` is {most}: it was not run, nothing is billed",
            table.id,
            billed(bytes)
        ))
        .hint("filter by the column the table is partitioned by, name fewer `columns`, or raise `maximum_bytes_billed`"))
    }
}

fn billed(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { bytes.max(LEAST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_follows_from_what_is_billed() {
        let bill = Bill { bytes: 1 << 39, slot_ms: 1_800_000 };
        assert_eq!(Prices::Bytes(6.25).of(bill), 3.125);
        assert_eq!(Prices::Slots(0.04).of(bill), 0.02);
        assert_eq!(Prices::Bytes(6.25).estimated(0), Some(0.0));
        assert!(Prices::Bytes(6.25).estimated(1) > Some(0.000_05));
        assert_eq!(Prices::Slots(0.04).estimated(1), None);
    }
}
