//! Global transaction ids of both families, and the sets that say what a client has seen.

mod mariadb;
mod mysql;

pub use mariadb::{MariaDbGtid, MariaDbGtids};
pub use mysql::{MySqlGtid, MySqlGtids, Tag};

use crate::connection::Family;
use caudal_core::Result;
use std::fmt;

/// The id of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gtid {
    /// `uuid:gno` or `uuid:tag:gno`.
    MySql(MySqlGtid),
    /// `domain-server-sequence`.
    MariaDb(MariaDbGtid),
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(g) => g.fmt(f),
            Self::MariaDb(g) => g.fmt(f),
        }
    }
}

/// What was seen. MySQL's is a set with holes; MariaDB's is one last id per domain, which stands for all before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GtidSet {
    /// As in `gtid_executed`.
    MySql(MySqlGtids),
    /// As in `gtid_binlog_pos`.
    MariaDb(MariaDbGtids),
}

impl GtidSet {
    /// Nothing seen.
    #[must_use]
    pub fn empty(family: Family) -> Self {
        match family {
            Family::MySql => Self::MySql(MySqlGtids::default()),
            Family::MariaDb => Self::MariaDb(MariaDbGtids::default()),
        }
    }

    /// From the server's text; white space and line breaks are allowed, the empty text is the empty set.
    ///
    /// # Errors
    /// `Data` if it is no set of this family.
    pub fn parse(family: Family, text: &str) -> Result<Self> {
        Ok(match family {
            Family::MySql => Self::MySql(text.parse()?),
            Family::MariaDb => Self::MariaDb(text.parse()?),
        })
    }

    /// Whose set it is.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::MySql(_) => Family::MySql,
            Self::MariaDb(_) => Family::MariaDb,
        }
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MySql(s) => s.is_empty(),
            Self::MariaDb(s) => s.is_empty(),
        }
    }

    /// Whether the transaction was seen. An id of the other family never was.
    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(s), Gtid::MySql(g)) => s.contains(g),
            (Self::MariaDb(s), Gtid::MariaDb(g)) => s.contains(g),
            _ => false,
        }
    }

    /// Whether all that `other` saw was seen here. Of sets of two families only the empty one is covered.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(a), Self::MySql(b)) => a.covers(b),
            (Self::MariaDb(a), Self::MariaDb(b)) => a.covers(b),
            _ => other.is_empty(),
        }
    }

    /// Marks a transaction as seen.
    ///
    /// # Errors
    /// `Bug` if the id is of the other family.
    pub fn add(&mut self, gtid: &Gtid) -> Result<()> {
        match (self, gtid) {
            (Self::MySql(s), Gtid::MySql(g)) => s.add(g),
            (Self::MariaDb(s), Gtid::MariaDb(g)) => s.add(g),
            _ => return Err(other_family()),
        }
        Ok(())
    }

    /// Adds all that `other` saw.
    ///
    /// # Errors
    /// `Bug` if `other` is of the other family and not empty.
    pub fn union(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::MySql(a), Self::MySql(b)) => a.union(b),
            (Self::MariaDb(a), Self::MariaDb(b)) => a.union(b),
            (_, b) if b.is_empty() => {}
            _ => return Err(other_family()),
        }
        Ok(())
    }

    /// Takes away all that `other` saw. For MariaDB, a domain in which `other` is at least as far disappears; one in which it
    /// is behind stays as it is, for a set of this kind cannot say "from here on".
    ///
    /// # Errors
    /// `Bug` if `other` is of the other family and not empty.
    pub fn subtract(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::MySql(a), Self::MySql(b)) => a.subtract(b),
            (Self::MariaDb(a), Self::MariaDb(b)) => a.subtract(b),
            (_, b) if b.is_empty() => {}
            _ => return Err(other_family()),
        }
        Ok(())
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(s) => s.fmt(f),
            Self::MariaDb(s) => s.fmt(f),
        }
    }
}

fn other_family() -> caudal_core::Error {
    caudal_core::Error::bug("combine GTIDs of MySQL with those of MariaDB")
}
