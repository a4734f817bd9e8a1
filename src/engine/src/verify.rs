//! Comparing one table of a source with its copy in a sink, while both live.
//!
//! **Why an equal range is equal.** Both ends give the digest of all their rows of the range (`caudal_core::compare`): equal digests of
//! different rows would be a collision of sums of 60 bits. The moments need not be the same: what was seen as equal was there.
//!
//! **Why what is reported is no row in flight.** A *look* reads the source's rows, then asks its clock (T), and compares with the sink twice: at
//! once, and when the sink is complete up to T. The second time the sink shows a state not older than the rows read. If the
//! next look finds the source's row unchanged, the sink showed a state between two moments at which the source had that
//! same row, and another value: it is wrong, unless the row changed and changed back in between. So a row counts as different
//! once it differed in [`LOOKS_ALIKE`] looks in a row in both comparisons, while the source's row stayed the same. A row that changes
//! faster than that is *undecided*, which is said and not guessed.
//!
//! Rows that only the sink has are found with the ranges where both ends know their order; else the sink's keys are read in its own
//! order, and the source counts how many of them it has. A key that it lacks is asked for again each time the sink is complete up to the
//! answer before: it counts as surplus if it was there, and not here, [`LOOKS_ALIKE`] times in a row.
//!
//! Memory: one look's rows, [`LOOK_BYTES`] and one row; the differences, [`MOST_TOLD`] of a table; 64 ranges.

use caudal_core::compare::{
    Bound, Difference, DifferenceKind, Range, Rows, SinkSide, SourceSide, has_canonical_text,
    has_shared_order,
};
use caudal_core::{Batch, Error, Result, TableId, TableSchema};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Looks in a row that must find the same.
const LOOKS_ALIKE: u32 = 3;
/// Looks before what remains is undecided.
const LOOKS: u32 = 15;
/// Rows of one look, in bytes.
const LOOK_BYTES: usize = 8 << 20;
/// Ranges that wait for a look.
const MOST_RANGES: usize = 64;
/// Differences of a table that are named; more are counted.
pub const MOST_TOLD: usize = 1_000;
/// Keys of the sink that the source is asked about at once, where their ranges are not known there.
const KEYS: u32 = 500;
/// How often the sink is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rows of a range.
    pub chunk_rows: u64,
    /// Rows per second at most, at each end; none: as fast as they answer.
    pub rate: Option<u64>,
    /// How long the sink may take to come up to a moment of the source.
    pub wait: Duration,
}

/// What was found of one table.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The table, as the source names it.
    #[serde(skip)]
    pub table: TableId,
    /// Rows of the source that were compared.
    pub rows: u64,
    /// Ranges whose digests were equal, so that no row travelled.
    pub equal_by_digest: u64,
    /// Ranges whose rows were read.
    pub read: u64,
    /// Rows that the sink lacks.
    pub missing: u64,
    /// Rows that only the sink has.
    pub surplus: u64,
    /// Rows with other values.
    pub different: u64,
    /// Rows that changed too often to tell.
    pub undecided: u64,
    /// Rows whose values the sink cannot hold.
    pub unstorable: u64,
    /// Whether rows that only the sink has were looked for.
    pub surplus_looked_for: bool,
    /// The differences by key, up to [`MOST_TOLD`].
    pub differences: Vec<Told>,
}

/// One difference. No value of the row but its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The key's columns.
    pub key: Vec<String>,
    /// How it differs.
    pub kind: DifferenceKind,
    /// The columns that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

impl Report {
    /// How many rows differ.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.missing + self.surplus + self.different + self.unstorable
    }

    fn add(&mut self, difference: Difference) {
        *match difference.kind {
            DifferenceKind::Missing => &mut self.missing,
            DifferenceKind::Surplus => &mut self.surplus,
            DifferenceKind::Different => &mut self.different,
        } += 1;
        if self.differences.len() < MOST_TOLD {
            let Difference { key, kind, columns, .. } = difference;
            self.differences.push(Told { key, kind, columns });
        }
    }
}

/// Compares a table. `progress` is told the rows compared so far.
///
/// # Errors
/// As the two ends give them; `Transient` if the sink does not come up to the source within `options.wait`.
pub async fn table(
    source: &mut dyn SourceSide,
    sink: &mut dyn SinkSide,
    schema: &TableSchema,
    options: Options,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report> {
    let shared = has_shared_order(schema);
    let texts = schema.columns.iter().all(|column| has_canonical_text(&column.ty));
    let hashed = shared && texts && sink.has_all_columns(schema);
    let report = Report {
        table: schema.id.clone(),
        rows: 0,
        equal_by_digest: 0,
        read: 0,
        missing: 0,
        surplus: 0,
        different: 0,
        undecided: 0,
        unstorable: 0,
        surplus_looked_for: shared,
        differences: Vec::new(),
    };
    let mut comparison =
        Comparison { source, sink, schema, options, report, suspects: Vec::new(), surplus: HashSet::new() };
    comparison.scan(hashed, progress).await?;
    comparison.settle().await?;
    if !shared {
        comparison.report.surplus_looked_for = comparison.surplus_keys().await?;
    }
    Ok(comparison.report)
}

struct Comparison<'a> {
    source: &'a mut dyn SourceSide,
    sink: &'a mut dyn SinkSide,
    schema: &'a TableSchema,
    options: Options,
    report: Report,
    /// Ranges to look at closely.
    suspects: Vec<Range>,
    /// Keys of rows that only the sink has, as a range has shown them: of a table that is one range, both ends find that.
    surplus: HashSet<Vec<String>>,
}

/// A difference that looks have found, and in how many in a row.
struct Seen {
    difference: Difference,
    alike: u32,
}

/// By key.
type Differing = HashMap<Vec<String>, Seen>;

/// Rows of a look.
struct Piece {
    /// Which of the ranges looked at.
    of: usize,
    range: Range,
    batch: Batch,
}

impl Comparison<'_> {
    async fn scan(&mut self, hashed: bool, progress: &mut (dyn FnMut(u64) + Send)) -> Result<()> {
        let began = Instant::now();
        let mut from: Option<Bound> = None;
        loop {
            let rows = self.options.chunk_rows.max(1);
            let to = self.source.cut(&self.schema.id, from.as_ref(), rows - 1).await?;
            let range = Range { from, to: to.clone() };
            let equal = if hashed { self.same_digest(&range).await? } else { self.same_rows(&range).await? };
            if !equal {
                self.suspects.push(range);
            }
            if self.suspects.len() >= MOST_RANGES {
                self.settle().await?;
            }
            progress(self.report.rows);
            if let Some(rate) = self.options.rate {
                let due = Duration::from_secs_f64(self.report.rows as f64 / rate.max(1) as f64);
                sleep(due.saturating_sub(began.elapsed())).await;
            }
            if to.is_none() {
                return Ok(());
            }
            from = to;
        }
    }

    async fn same_digest(&mut self, range: &Range) -> Result<bool> {
        let there = self.source.digest(&self.schema.id, range).await?;
        let here = self.sink.digest(self.schema, range).await?;
        self.report.rows += there.rows;
        self.report.equal_by_digest += u64::from(there == here);
        Ok(there == here)
    }

    /// Compares as things are now, piece by piece.
    async fn same_rows(&mut self, range: &Range) -> Result<bool> {
        let (mut rest, mut equal) = (Some(range.clone()), true);
        self.report.read += 1;
        while let Some(range) = rest {
            let (range, mut batch, behind) = self.piece(range).await?;
            self.report.rows += batch.events.len() as u64;
            let found = self.sink.compare(&mut batch, self.schema, &range).await?;
            equal &= found.differences.is_empty() && found.unstorable == 0;
            rest = behind;
        }
        Ok(equal)
    }

    /// The first rows of a range: which range they are, and what is left.
    async fn piece(&mut self, range: Range) -> Result<(Range, Batch, Option<Range>)> {
        let Rows { batch, more } = self.source.rows(&self.schema.id, &range, LOOK_BYTES).await?;
        Ok(match more {
            Some(at) => {
                let behind = Range { from: Some(at.clone()), to: range.to };
                (Range { from: range.from, to: Some(at) }, batch, Some(behind))
            }
            None => (range, batch, None),
        })
    }

    /// Looks at the suspects until each difference is certain, or is none.
    async fn settle(&mut self) -> Result<()> {
        let mut open: Vec<(Range, Differing)> =
            std::mem::take(&mut self.suspects).into_iter().map(|range| (range, Differing::new())).collect();
        self.report.read += open.len() as u64;
        for look in 1..=LOOKS {
            if open.is_empty() {
                return Ok(());
            }
            let ranges: Vec<Range> = open.iter().map(|(range, _)| range.clone()).collect();
            let (found, unstorable) = self.look(&ranges).await?;
            let mut left = Vec::new();
            for ((range, before), now) in open.into_iter().zip(found) {
                let now = follow(before, now);
                if now.is_empty() {
                    continue;
                }
                let certain = now.values().all(|seen| seen.alike >= LOOKS_ALIKE);
                if certain || look == LOOKS {
                    self.decide(now);
                } else {
                    left.push((range, now));
                }
            }
            open = left;
            if look == 1 {
                self.report.unstorable += unstorable;
            }
        }
        Ok(())
    }

    /// Looks for rows that only the sink has, by their keys; false if they cannot be told.
    async fn surplus_keys(&mut self) -> Result<bool> {
        let (began, mut asked) = (Instant::now(), 0u64);
        let mut after: Option<Vec<String>> = None;
        loop {
            let Some(keys) = self.sink.keys(self.schema, after.as_deref(), KEYS).await? else {
                return Ok(false);
            };
            let Some(last) = keys.last().cloned() else { return Ok(true) };
            asked += keys.len() as u64;
            let Some(mut absent) = self.absent(keys).await? else { return Ok(false) };
            for _ in 0..LOOKS_ALIKE {
                if absent.is_empty() {
                    break;
                }
                let now = self.source.now_us().await?;
                self.wait(now).await?;
                let mut still = Vec::new();
                for key in absent {
                    if self.sink.trace(self.schema, &key).await?.is_some() {
                        still.push(key);
                    }
                }
                absent = self.absent(still).await?.unwrap_or_default();
            }
            for key in absent.into_iter().filter(|key| !self.surplus.contains(key)) {
                let kind = DifferenceKind::Surplus;
                self.report.add(Difference { key, kind, columns: Vec::new(), stamp: String::new() });
            }
            if let Some(rate) = self.options.rate {
                let due = Duration::from_secs_f64(asked as f64 / rate.max(1) as f64);
                sleep(due.saturating_sub(began.elapsed())).await;
            }
            after = Some(last);
        }
    }

    /// Those of the keys that the source does not have; none if it cannot be asked. A count of all spares asking for each.
    async fn absent(&mut self, keys: Vec<Vec<String>>) -> Result<Option<Vec<Vec<String>>>> {
        let mut absent = Vec::new();
        let mut open = vec![keys];
        while let Some(mut keys) = open.pop() {
            if keys.is_empty() {
                continue;
            }
            let Some(condition) = self.source.condition(self.schema, &keys) else { return Ok(None) };
            let Some(there) = self.source.count(&self.schema.id, &condition).await? else { return Ok(None) };
            match there {
                n if n >= keys.len() as u64 => {}
                0 => absent.append(&mut keys),
                _ => {
                    let rest = keys.split_off(keys.len() / 2);
                    open.extend([rest, keys]);
                }
            }
        }
        absent.sort_unstable();
        Ok(Some(absent))
    }

    fn decide(&mut self, differing: Differing) {
        let mut all: Vec<Seen> = differing.into_values().collect();
        all.sort_by(|a, b| a.difference.key.cmp(&b.difference.key));
        for seen in all {
            if seen.alike >= LOOKS_ALIKE {
                if seen.difference.kind == DifferenceKind::Surplus && !has_shared_order(self.schema) {
                    self.surplus.insert(seen.difference.key.clone());
                }
                self.report.add(seen.difference);
            } else {
                self.report.undecided += 1;
            }
        }
    }

    /// What differs in each of the ranges, both at once and when the sink is complete up to the reading.
    async fn look(&mut self, ranges: &[Range]) -> Result<(Vec<Vec<Difference>>, u64)> {
        let mut found: Vec<Vec<Difference>> = ranges.iter().map(|_| Vec::new()).collect();
        let (mut pieces, mut bytes, mut unstorable) = (Vec::new(), 0, 0);
        for (of, range) in ranges.iter().enumerate() {
            let mut rest = Some(range.clone());
            while let Some(range) = rest {
                let (range, mut batch, behind) = self.piece(range).await?;
                let now = self.sink.compare(&mut batch, self.schema, &range).await?;
                unstorable += now.unstorable;
                if !now.differences.is_empty() {
                    bytes += batch.size();
                    pieces.push((Piece { of, range, batch }, now.differences));
                }
                if bytes >= LOOK_BYTES {
                    self.look_again(std::mem::take(&mut pieces), &mut found).await?;
                    bytes = 0;
                }
                rest = behind;
            }
        }
        self.look_again(pieces, &mut found).await?;
        Ok((found, unstorable))
    }

    async fn look_again(
        &mut self,
        pieces: Vec<(Piece, Vec<Difference>)>,
        found: &mut [Vec<Difference>],
    ) -> Result<()> {
        if pieces.is_empty() {
            return Ok(());
        }
        let now = self.source.now_us().await?;
        self.wait(now).await?;
        for (Piece { of, range, mut batch }, before) in pieces {
            let after = self.sink.compare(&mut batch, self.schema, &range).await?;
            let both = after.differences.into_iter().filter(|d| before.iter().any(|b| b.key == d.key));
            found[of].extend(both);
        }
        Ok(())
    }

    /// Waits until the sink is complete up to a moment of the source.
    async fn wait(&mut self, us: i64) -> Result<()> {
        let until = Instant::now() + self.options.wait;
        loop {
            let complete = self.sink.complete_to_us(&self.schema.id).await?;
            if complete.is_some_and(|complete| complete >= us) {
                return Ok(());
            }
            if Instant::now() >= until {
                let behind = match complete {
                    Some(complete) => format!("is {} s behind its source", (us - complete) / 1_000_000),
                    None => "was not read to its end yet".to_owned(),
                };
                let hint = "see `caudal status`: the capture and the sink must run; or wait longer (--wait)";
                return Err(Error::transient(format!("{} {behind}", self.schema.id)).hint(hint));
            }
            sleep(ASK_EVERY).await;
        }
    }
}

/// Counts for how many looks each difference is the same.
fn follow(before: Differing, now: Vec<Difference>) -> Differing {
    let count = |difference: Difference| {
        let same = before.get(&difference.key).filter(|seen| {
            seen.difference.stamp == difference.stamp && seen.difference.kind == difference.kind
        });
        let alike = same.map_or(1, |seen| seen.alike + 1);
        (difference.key.clone(), Seen { difference, alike })
    };
    now.into_iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(stamp: &str) -> Difference {
        let key = vec!["1".to_owned()];
        Difference { key, kind: DifferenceKind::Different, columns: Vec::new(), stamp: stamp.to_owned() }
    }

    #[test]
    fn a_difference_counts_for_as_long_as_the_sources_row_stays_the_same() {
        let mut seen = Differing::new();
        for (stamp, alike) in [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3)] {
            seen = follow(seen, vec![difference(stamp)]);
            assert_eq!(seen.values().map(|s| s.alike).collect::<Vec<_>>(), [alike], "{stamp}");
        }
        assert!(follow(seen, Vec::new()).is_empty(), "what was equal once is not different");
    }
}
