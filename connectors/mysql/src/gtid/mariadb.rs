//! MariaDB: `domain-server-sequence`. Within a domain the sequence is the order of the binlog, so the last id stands for all
//! before it (`gtid_strict_mode` makes the server hold to that).

use caudal_core::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The id of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MariaDbGtid {
    /// Replication domain: an independent stream.
    pub domain: u32,
    /// The server that wrote it first.
    pub server: u32,
    /// Counts up within the domain.
    pub sequence: u64,
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for MariaDbGtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::data("a MariaDB GTID is written domain-server-sequence");
        let mut parts = text.trim().splitn(3, '-');
        let mut next = || parts.next().ok_or_else(bad);
        let domain = next()?.parse().map_err(|_| bad())?;
        let server = next()?.parse().map_err(|_| bad())?;
        let sequence = next()?.parse().map_err(|_| bad())?;
        Ok(Self { domain, server, sequence })
    }
}

/// One last id per domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaDbGtids {
    domains: BTreeMap<u32, MariaDbGtid>,
}

impl MariaDbGtids {
    /// Whether no domain was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The last id of a domain.
    #[must_use]
    pub fn last(&self, domain: u32) -> Option<MariaDbGtid> {
        self.domains.get(&domain).copied()
    }

    /// The last id of each domain, by domain.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> + '_ {
        self.domains.values().copied()
    }

    /// Whether the domain went at least as far.
    #[must_use]
    pub fn contains(&self, gtid: &MariaDbGtid) -> bool {
        self.domains.get(&gtid.domain).is_some_and(|last| last.sequence >= gtid.sequence)
    }

    /// Whether each domain of `other` went at least as far here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|g| self.contains(&g))
    }

    /// Moves a domain on; never back.
    pub fn add(&mut self, gtid: &MariaDbGtid) {
        if !self.contains(gtid) {
            self.domains.insert(gtid.domain, *gtid);
        }
    }

    /// The further one of each domain.
    pub fn union(&mut self, other: &Self) {
        other.iter().for_each(|g| self.add(&g));
    }

    /// Drops the domains in which `other` went at least as far.
    pub fn subtract(&mut self, other: &Self) {
        self.domains.retain(|_, g| !other.contains(g));
    }
}

impl fmt::Display for MariaDbGtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, gtid) in self.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{gtid}")?;
        }
        Ok(())
    }
}

impl FromStr for MariaDbGtids {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            set.add(&part.parse()?);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> MariaDbGtids {
        text.parse().unwrap()
    }

    #[test]
    fn text_goes_round_by_domain() {
        assert_eq!(set(" 1-2-5,\n0-1-100").to_string(), "0-1-100,1-2-5");
        assert_eq!(set("").to_string(), "");
        for bad in ["0-1", "0-1-x", "a-1-1", "0-1-1-1", "0-1-99999999999999999999"] {
            assert!(bad.parse::<MariaDbGtids>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_domain_moves_on_and_never_back() {
        let mut s = set("0-1-100");
        s.add(&"0-2-101".parse().unwrap());
        s.add(&"0-1-50".parse().unwrap());
        assert_eq!(s.to_string(), "0-2-101");
        assert!(s.contains(&"0-1-101".parse().unwrap()));
        assert!(!s.contains(&"1-1-1".parse().unwrap()));
    }

    #[test]
    fn sets_combine_by_domain() {
        let mut a = set("0-1-10,1-1-5");
        assert!(a.covers(&set("1-1-5")));
        assert!(!a.covers(&set("1-1-6")));
        a.union(&set("1-3-9,2-1-1"));
        assert_eq!(a.to_string(), "0-1-10,1-3-9,2-1-1");
        a.subtract(&set("0-1-10,1-1-8"));
        assert_eq!(a.to_string(), "1-3-9,2-1-1");
    }
}
