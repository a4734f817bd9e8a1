//! The token of a position: where the stream resumes.
//!
//! A token names a point between two source transactions (GTID set, file and byte position) and, if a batch ended within
//! the transaction behind it, how many of that transaction's rows were delivered, with the hash of the last one's key. The
//! GTID set never holds the transaction that is being delivered: the server sends it again, the reader skips exactly those rows
//! and compares the hash, so that another server or another selection is found out, not passed over.
//!
//! | version | since |
//! |---|---|
//! | 1 | 0.1.0 |

use crate::connection::Family;
use crate::gtid::GtidSet;
use caudal_core::{Error, Position, Result, SourcePosition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The token's version that this code writes.
const VERSION: u32 = 1;

/// What a token says, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    v: u32,
    flavor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gtid: Option<String>,
    file: String,
    pos: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    row: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero_time")]
    ts: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resend: Option<Resend>,
    #[serde(default, skip_serializing_if = "is_zero")]
    mark: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_zero_time(n: &i64) -> bool {
    *n == 0
}

/// Where the dump must begin when that is before the position: prepared XA transactions are undecided, and their rows come
/// only from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resend {
    /// GTID set before the oldest of them, where there are GTIDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gtid: Option<String>,
    /// Log file.
    pub(crate) file: String,
    /// Position in it.
    pub(crate) pos: u64,
}

/// A point between two source transactions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// All transactions delivered; none where the server has no GTIDs.
    pub(crate) gtid: Option<GtidSet>,
    /// Log file.
    pub(crate) file: String,
    /// Byte position in it.
    pub(crate) pos: u64,
}

impl Place {
    /// Whether the log's end `other` is passed by this place. Compares file and position, which are in the total order of one
    /// server's log.
    #[must_use]
    pub(crate) fn reaches(&self, file: &str, pos: u64) -> bool {
        (file_number(&self.file), self.pos) >= (file_number(file), pos)
    }
}

/// The number at a log file's end: `binlog.000012` is 12. The server counts it up, also past six digits.
#[must_use]
pub(crate) fn file_number(file: &str) -> u64 {
    file.rsplit_once('.').and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
}

/// How far the transaction behind a place was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Within {
    /// Rows of captured tables, before any row filter.
    pub(crate) rows: u64,
    /// Hash of the last one's key; 0 at a boundary.
    pub(crate) key: u64,
}

/// A token, read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    /// The point between two transactions.
    pub(crate) place: Place,
    /// Rows delivered behind it.
    pub(crate) within: Within,
    /// "Complete up to", microseconds since the epoch: never goes back, also through restarts.
    pub(crate) ts_us: i64,
    /// Where the dump must begin, if before `place`.
    pub(crate) resend: Option<Resend>,
    /// How many re-reads had begun in the session that wrote it: of no meaning in another.
    pub(crate) mark: u64,
}

impl Token {
    /// As text.
    #[must_use]
    pub(crate) fn encode(&self, family: Family) -> String {
        let inside = self.within.rows > 0;
        let stored = Stored {
            v: VERSION,
            flavor: flavor(family).to_owned(),
            gtid: self.place.gtid.as_ref().map(ToString::to_string),
            file: self.place.file.clone(),
            pos: self.place.pos,
            row: self.within.rows,
            key: inside.then(|| format!("{:016x}", self.within.key)),
            ts: self.ts_us,
            resend: self.resend.clone(),
            mark: self.mark,
        };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// From text.
    ///
    /// # Errors
    /// `Config` if it is of another server family or a newer version; `Data` if it is no token.
    pub(crate) fn decode(text: &str, family: Family) -> Result<Self> {
        let stored: Stored = serde_json::from_str(text).map_err(|e| {
            Error::data("read the stored position")
                .because(e)
                .hint("it was not written by this version or this connector")
        })?;
        if stored.v != VERSION {
            return Err(Error::config(format!(
                "the stored position has version {}, this binary reads {VERSION}",
                stored.v
            ))
            .hint("run the version that wrote it, or a newer one"));
        }
        if stored.flavor != flavor(family) {
            return Err(Error::config(format!(
                "the stored position is of a {} server, this one is {}",
                stored.flavor,
                flavor(family)
            ))
            .hint("point the url at the server that was captured, or give the source another name to start anew"));
        }
        let gtid = stored.gtid.map(|set| GtidSet::parse(family, &set)).transpose()?;
        let key = stored.key.map(|k| u64::from_str_radix(&k, 16)).transpose();
        let key = key.map_err(|e| Error::data("read the stored position's key hash").because(e))?;
        Ok(Self {
            place: Place { gtid, file: stored.file, pos: stored.pos },
            within: Within { rows: stored.row, key: key.unwrap_or(0) },
            ts_us: stored.ts,
            resend: stored.resend,
            mark: stored.mark,
        })
    }

    /// As a position with notes.
    #[must_use]
    pub(crate) fn position(&self, family: Family, notes: BTreeMap<String, Option<String>>) -> SourcePosition {
        SourcePosition { token: self.encode(family), notes }
    }
}

/// The source position of a stored one.
///
/// # Errors
/// `Bug` if it is a position of the log.
pub(crate) fn source_position(position: &Position) -> Result<&SourcePosition> {
    position.source().ok_or_else(|| Error::bug("open a mysql source at a position of the log"))
}

fn flavor(family: Family) -> &'static str {
    match family {
        Family::MySql => "mysql",
        Family::MariaDb => "mariadb",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            place: Place {
                gtid: Some(GtidSet::parse(Family::MariaDb, "0-10-42").unwrap()),
                file: "binlog.000003".to_owned(),
                pos: 5_000_000_000,
            },
            within: Within { rows: 7, key: u64::MAX },
            ts_us: 1,
            resend: None,
            mark: 0,
        }
    }

    #[test]
    fn a_token_reads_back_as_written() {
        let text = token().encode(Family::MariaDb);
        assert_eq!(Token::decode(&text, Family::MariaDb).unwrap(), token());
    }

    #[test]
    fn the_first_version_still_loads() {
        let golden = r#"{"v":1,"flavor":"mariadb","gtid":"0-10-42","file":"binlog.000003","pos":5000000000,"row":7,"key":"ffffffffffffffff","ts":1}"#;
        assert_eq!(Token::decode(golden, Family::MariaDb).unwrap(), token());
    }

    #[test]
    fn a_token_of_the_other_family_is_the_operators_mistake() {
        let e = Token::decode(&token().encode(Family::MariaDb), Family::MySql).unwrap_err();
        assert_eq!(e.fault(), caudal_core::Fault::Config);
    }

    #[test]
    fn files_are_compared_by_number_not_by_text() {
        let place = Place { gtid: None, file: "b.1000000".to_owned(), pos: 4 };
        assert!(place.reaches("b.999999", 900));
        assert!(!place.reaches("b.1000000", 5));
    }
}
