//! What a position stores: a small token, and for each table the record of its last run with its watermark.

use crate::Job;
use caudal_core::{Error, PollCost, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION: u32 = 1;
const NAME: &str = "poll/";
const TORN: &str = "torn/";

/// The last run of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format.
    pub v: u32,
    /// How many runs there were, failed ones too.
    pub run: u64,
    /// The last run that changed the index: what its stamp must say.
    pub indexed: u64,
    /// The generation of the table's shape, whose key the index knows rows by; 0 with what an earlier release wrote.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub generation: u32,
    /// How many complete refreshes there were in a row, the last run being one.
    #[serde(default)]
    pub complete: u64,
    /// Up to where the table had been read when the run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark_before: Option<String>,
    /// Up to where the table was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// Start of the last run that succeeded, by the system's clock, microseconds.
    pub complete_us: i64,
    /// Start of the run.
    pub started_us: i64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that were new or different.
    pub changed: u64,
    /// Rows that were deleted.
    pub deleted: u64,
    /// Rows that could not be taken: their key is NULL.
    pub rejected: u64,
    /// Bytes of rows that were read.
    pub bytes: u64,
    /// The time that it was scheduled for, microseconds since the epoch; 0 with what an earlier release wrote.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub planned_us: i64,
    /// What to know about its rows, without their values; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// What it cost, where the system asks for something; of a run that failed, its pages until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<PollCost>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

/// The name of a job's note.
pub(crate) fn name(job: &Job) -> String {
    format!("{NAME}{}", job.name())
}

/// The name of a job's note that a run has handed rows on and has not ended: the index does not know them.
pub(crate) fn torn(job: &Job) -> String {
    format!("{TORN}{}", job.name())
}

/// Findings that a record holds at most.
const FINDINGS: usize = 10;

impl Record {
    /// Notes what was found, once.
    pub(crate) fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Adds what a page cost.
    pub(crate) fn pay(&mut self, cost: Option<PollCost>) {
        if let Some(cost) = cost {
            self.cost = Some(self.cost.unwrap_or_default().and(cost));
        }
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(&Self { v: VERSION, ..self.clone() }).unwrap_or_default()
    }
}

/// All records of stored notes, by the notes' names.
///
/// # Errors
/// `Data` for one that cannot be read, `Config` for one of a newer version.
pub(crate) fn records(notes: &BTreeMap<String, Option<String>>) -> Result<BTreeMap<String, Record>> {
    let mut out = BTreeMap::new();
    for (name, text) in notes.iter().filter(|(name, _)| name.starts_with(NAME)) {
        let Some(text) = text else { continue };
        let record: Record = serde_json::from_str(text)
            .map_err(|e| Error::data(format!("read the stored note {name}")).because(e))?;
        if record.v != VERSION {
            return Err(Error::config(format!("the stored note {name} has version {}", record.v))
                .hint("run the version that wrote it, or a newer one"));
        }
        out.insert(name.clone(), record);
    }
    Ok(out)
}

/// The part of a position that moves with every batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    v: u32,
    /// Which system it is of: a capture's token is none of ours.
    kind: Kind,
    /// Counts batches.
    pub(crate) number: u64,
    /// "Complete up to", microseconds since the epoch: never goes back.
    pub(crate) ts_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Poll,
}

impl Token {
    pub(crate) fn new() -> Self {
        Self { v: VERSION, kind: Kind::Poll, number: 0, ts_us: 0 }
    }

    pub(crate) fn encode(self) -> String {
        serde_json::to_string(&self).unwrap_or_default()
    }

    /// # Errors
    /// `Config` if it is not of a poll, or of a newer version.
    pub(crate) fn decode(text: &str) -> Result<Self> {
        let token: Self = serde_json::from_str(text).map_err(|e| {
            Error::config("the stored position is not that of a poll").because(e).hint(
                "a source that was captured cannot go on as a poll, nor the other way round: give it another name to start anew",
            )
        })?;
        if token.v != VERSION {
            return Err(Error::config(format!("the stored position has version {}", token.v))
                .hint("run the version that wrote it, or a newer one"));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_still_loads() {
        let golden = r#"{"v":1,"run":7,"indexed":5,"complete":2,"watermark":"x","complete_us":1,"started_us":2,"took_us":3,"rows":4,"changed":5,"deleted":6,"rejected":7,"bytes":8,"error":"e"}"#;
        let notes = BTreeMap::from([("poll/d.t".to_owned(), Some(golden.to_owned()))]);
        let read = records(&notes).unwrap();
        assert_eq!(read["poll/d.t"].text(), golden);
        let token = r#"{"v":1,"kind":"poll","number":3,"ts_us":4}"#;
        assert_eq!(Token::decode(token).unwrap().encode(), token);
        assert!(Token::decode(r#"{"v":1,"flavor":"mysql","file":"b.1","pos":4}"#).is_err());
    }
}
