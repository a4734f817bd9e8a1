//! MySQL: `uuid:1-5:7, uuid:tag:1-3`. A set of intervals per source and tag, with holes.

use caudal_core::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Transaction numbers run from 1 to this, exclusive.
const END: u64 = i64::MAX as u64;

/// A tag (MySQL 8.3 and later), lower case; `None` in the classic, untagged ids. Shared: tags repeat with each transaction.
pub type Tag = Option<Arc<str>>;

/// The id of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MySqlGtid {
    /// The server that committed it first, as the 16 bytes of its UUID.
    pub source: [u8; 16],
    /// Its tag.
    pub tag: Tag,
    /// Its number, from 1.
    pub number: u64,
}

impl fmt::Display for MySqlGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_source(f, &self.source)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        write!(f, ":{}", self.number)
    }
}

impl FromStr for MySqlGtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let set: MySqlGtids = text.parse()?;
        let mut all = set.sources.iter();
        let (Some(((source, tag), intervals)), None) = (all.next(), all.next()) else {
            return Err(bad());
        };
        match intervals.0.as_slice() {
            [(first, end)] if first + 1 == *end => {
                Ok(Self { source: *source, tag: tag.clone(), number: *first })
            }
            _ => Err(bad()),
        }
    }
}

/// A set of transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MySqlGtids {
    sources: BTreeMap<([u8; 16], Tag), Intervals>,
}

impl MySqlGtids {
    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Each source and tag with its intervals `(first, end)`, the end exclusive, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8; 16], Option<&str>, &[(u64, u64)])> {
        self.sources.iter().map(|((source, tag), i)| (source, tag.as_deref(), i.0.as_slice()))
    }

    /// Whether it holds the transaction.
    #[must_use]
    pub fn contains(&self, gtid: &MySqlGtid) -> bool {
        // The key borrows nothing of the id's tag beyond a count.
        self.sources
            .get(&(gtid.source, gtid.tag.clone()))
            .is_some_and(|i| i.covers(gtid.number, gtid.number.saturating_add(1)))
    }

    /// Whether it holds all of `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.sources.iter().all(|(key, theirs)| {
            self.sources.get(key).is_some_and(|ours| theirs.0.iter().all(|&(a, b)| ours.covers(a, b)))
        })
    }

    /// Adds one transaction. Next to the last one of its source this is O(log sources).
    pub fn add(&mut self, gtid: &MySqlGtid) {
        let key = (gtid.source, gtid.tag.clone());
        self.sources.entry(key).or_default().add(gtid.number, gtid.number.saturating_add(1));
    }

    /// Adds the transactions from `first` to `end`, which is exclusive.
    pub(crate) fn add_interval(&mut self, source: [u8; 16], tag: Tag, first: u64, end: u64) {
        self.sources.entry((source, tag)).or_default().add(first, end);
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for (key, theirs) in &other.sources {
            let ours = self.sources.entry(key.clone()).or_default();
            theirs.0.iter().for_each(|&(a, b)| ours.add(a, b));
        }
    }

    /// Takes away all of `other`.
    pub fn subtract(&mut self, other: &Self) {
        for (key, theirs) in &other.sources {
            if let Some(ours) = self.sources.get_mut(key) {
                theirs.0.iter().for_each(|&(a, b)| ours.remove(a, b));
            }
        }
        self.sources.retain(|_, i| !i.0.is_empty());
    }
}

/// Sorted, disjoint, never touching: `(first, end)`, the end exclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    fn covers(&self, first: u64, end: u64) -> bool {
        let after = self.0.partition_point(|&(a, _)| a <= first);
        after > 0 && self.0[after - 1].1 >= end
    }

    fn add(&mut self, first: u64, end: u64) {
        if let Some(last) = self.0.last_mut()
            && first >= last.0
            && first <= last.1
        {
            last.1 = last.1.max(end);
            return;
        }
        // Those that overlap or touch [first, end) melt into it.
        let from = self.0.partition_point(|&(_, b)| b < first);
        let to = self.0.partition_point(|&(a, _)| a <= end);
        let mut merged = (first, end);
        if let Some(touched) = self.0.get(from..to).filter(|t| !t.is_empty()) {
            merged = (first.min(touched[0].0), end.max(touched[touched.len() - 1].1));
        }
        self.0.splice(from..to.max(from), [merged]);
    }

    fn remove(&mut self, first: u64, end: u64) {
        let from = self.0.partition_point(|&(_, b)| b <= first);
        let to = self.0.partition_point(|&(a, _)| a < end);
        if from >= to {
            return;
        }
        let left = (self.0[from].0, first);
        let right = (end, self.0[to - 1].1);
        self.0.splice(from..to, [left, right].into_iter().filter(|(a, b)| a < b));
    }
}

impl fmt::Display for MySqlGtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous: Option<&[u8; 16]> = None;
        for ((source, tag), intervals) in &self.sources {
            if previous != Some(source) {
                f.write_str(if previous.is_some() { "," } else { "" })?;
                write_source(f, source)?;
                previous = Some(source);
            }
            if let Some(tag) = tag {
                write!(f, ":{tag}")?;
            }
            for &(first, end) in &intervals.0 {
                if first + 1 == end {
                    write!(f, ":{first}")?;
                } else {
                    write!(f, ":{first}-{}", end - 1)?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for MySqlGtids {
    type Err = Error;

    /// As MySQL writes it: after a source, numbers without a tag come first; each tag holds for the numbers behind it.
    fn from_str(text: &str) -> Result<Self> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let source = parse_source(fields.next().unwrap_or_default())?;
            let mut tag: Tag = None;
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    tag = Some(parse_tag(field)?);
                } else {
                    let (first, end) = parse_interval(field)?;
                    set.sources.entry((source, tag.clone())).or_default().add(first, end);
                }
            }
        }
        Ok(set)
    }
}

fn bad() -> Error {
    Error::data("a MySQL GTID set is written uuid:first-last:…, with a tag before the numbers it holds for")
}

fn parse_tag(text: &str) -> Result<Arc<str>> {
    let fits = text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits { Ok(text.to_ascii_lowercase().into()) } else { Err(bad()) }
}

fn parse_interval(text: &str) -> Result<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u64 = first.trim().parse().map_err(|_| bad())?;
    let last: u64 = last.trim().parse().map_err(|_| bad())?;
    if first == 0 || last < first || last >= END {
        return Err(bad());
    }
    Ok((first, last + 1))
}

fn parse_source(text: &str) -> Result<[u8; 16]> {
    let mut source = [0u8; 16];
    let mut digits = text.bytes().filter(|b| *b != b'-');
    for byte in &mut source {
        let mut digit = || digits.next().and_then(|d| (d as char).to_digit(16)).ok_or_else(bad);
        *byte = (digit()? << 4 | digit()?) as u8;
    }
    if digits.next().is_some() { Err(bad()) } else { Ok(source) }
}

fn write_source(f: &mut fmt::Formatter<'_>, source: &[u8; 16]) -> fmt::Result {
    for (i, byte) in source.iter().enumerate() {
        let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(f, "{dash}{byte:02x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> MySqlGtids {
        text.parse().unwrap()
    }

    #[test]
    fn text_goes_round_in_the_servers_form() {
        for (from, to) in [
            (format!("{A}:1-5:7"), format!("{A}:1-5:7")),
            (format!("{}:5:1-4,\n {B}:9", A.to_uppercase()), format!("{A}:1-5,{B}:9")),
            (format!("{A}:1-3:Tag_1:4:6-7:zz:1"), format!("{A}:1-3:tag_1:4:6-7:zz:1")),
            (String::new(), String::new()),
        ] {
            assert_eq!(set(&from).to_string(), to);
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in [
            "x",
            "3e11fa47:1",
            &format!("{A}:0"),
            &format!("{A}:5-4"),
            &format!("{A}:1-"),
            &format!("{A}0:1"),
        ] {
            assert!(bad.parse::<MySqlGtids>().is_err(), "{bad}");
        }
        assert!(format!("{A}:{}", i64::MAX).parse::<MySqlGtids>().is_err());
    }

    #[test]
    fn tags_are_sources_of_their_own() {
        let s = set(&format!("{A}:1-3:blue:1"));
        assert!(s.contains(&format!("{A}:blue:1").parse().unwrap()));
        assert!(!s.contains(&format!("{A}:blue:2").parse().unwrap()));
        assert!(s.contains(&format!("{A}:2").parse().unwrap()));
        assert_eq!(format!("{A}:blue:1").parse::<MySqlGtid>().unwrap().to_string(), format!("{A}:blue:1"));
    }

    #[test]
    fn covers_needs_every_number() {
        assert!(set(&format!("{A}:1-9,{B}:1")).covers(&set(&format!("{A}:2-4:9"))));
        assert!(!set(&format!("{A}:1-4:6-9")).covers(&set(&format!("{A}:4-6"))));
        assert!(!set(&format!("{A}:1-4")).covers(&set(&format!("{B}:1"))));
    }

    /// Intervals against plain sets of numbers, over a small seeded walk.
    #[test]
    fn intervals_are_sets_of_numbers() {
        let mut seed = 7u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..500 {
            let (mut ours, mut model) = (Intervals::default(), BTreeSet::new());
            for _ in 0..20 {
                let first = 1 + random(30);
                let end = first + 1 + random(6);
                if random(3) > 0 {
                    ours.add(first, end);
                    model.extend(first..end);
                } else {
                    ours.remove(first, end);
                    model.retain(|n| !(first..end).contains(n));
                }
                let flat: Vec<u64> = ours.0.iter().flat_map(|&(a, b)| a..b).collect();
                assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
                assert!(ours.0.windows(2).all(|w| w[0].1 < w[1].0), "touching: {ours:?}");
            }
        }
    }
}
