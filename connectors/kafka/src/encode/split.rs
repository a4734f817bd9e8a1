//! Records over the limit of their topic, in parts (`oversize: split`).
//!
//! A record too large becomes a *head* under the record's own key, whose value says how many parts and bytes follow, and the parts
//! behind it, each under a key of its own. All of them lie in one partition and in one Kafka transaction, so a `read_committed`
//! reader sees all or none, whenever the writer is killed. The sink's reader joins them ([`crate::reader`]).
//!
//! **Why compaction takes nothing that is needed.** Part `i` of a row has the key `caudal.part/<i>/<row's key>`, the same for each
//! version of the row. Let v1 be a version in parts and v2 any later record under the row's key (in parts or not, or its deletion).
//! * The newest record under each key stays. The newest version's head is the newest under the row's key, and its parts are the
//!   newest under theirs: later versions would be newer versions. So the newest version is always whole.
//! * An older head can lose parts only to parts of a later version, and those lie behind that version's head. A cleaner that has seen
//!   a part of v2 has thus seen v2's head, and takes v1's head away with it. What a reader can still meet, because a cleaner
//!   replaces segments one after the other under it, is an old head whose parts have just gone: then v2's head is in the
//!   log, and follows. The reader therefore passes over a head whose parts are missing if and only if a later record under the row's
//!   key follows in what it reads; if none does, that is a fault, never a row that is skipped.
//! * Parts without a head (v2 is small, v1's parts stay) mean nothing and are passed over. A row's deletion, if it is itself
//!   in parts, is followed by tombstones for its parts; what a smaller version leaves behind stays in the topic until then.
//!
//! Readers that are not ours see the head as a small JSON object with the one member `caudal.split`, and the parts under keys
//! that begin with `caudal.part/`; joined in the order of their numbers they are the value.

use crate::encode::{Encoded, RECORD_OVERHEAD, Record};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How a head's value begins. No envelope, and no row in any other form, begins so.
pub(crate) const HEAD: &[u8] = br#"{"caudal.split":{"#;
/// How a part's key begins. A row's key is a JSON object.
pub(crate) const PART: &[u8] = b"caudal.part/";

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// How many parts follow.
    pub(crate) parts: u32,
    /// Their bytes together.
    pub(crate) bytes: u64,
    /// CRC-32 (IEEE) of them.
    pub(crate) crc32: u32,
}

#[derive(Serialize, Deserialize)]
struct HeadValue {
    #[serde(rename = "caudal.split")]
    head: Head,
}

impl Head {
    /// Of a record's value, if it is a head.
    pub(crate) fn of(value: &[u8]) -> Option<Self> {
        if !value.starts_with(HEAD) {
            return None;
        }
        serde_json::from_slice::<HeadValue>(value).ok().map(|v| v.head)
    }
}

/// A part's number, and the key of its row.
pub(crate) fn part_of(key: &[u8]) -> Option<(u32, &[u8])> {
    let rest = key.strip_prefix(PART)?;
    let end = rest.iter().position(|b| *b == b'/')?;
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((number, &rest[end + 1..]))
}

/// Room that a part's key takes beside the row's key.
const PART_KEY: usize = PART.len() + 11;

/// Puts the records from `first` on that are over `limit` into parts. False if that can't be: a key takes it all.
pub(super) fn split(encoded: &mut Encoded, first: usize, limit: usize) -> bool {
    let mut at = first;
    while at < encoded.records.len() {
        let record = encoded.records[at].clone();
        at += 1;
        if record.len() + RECORD_OVERHEAD <= limit {
            continue;
        }
        let taken = record.len() - record.value.as_ref().map_or(0, ExactSizeIterator::len);
        let Some(room) = limit.checked_sub(taken + PART_KEY + RECORD_OVERHEAD).filter(|r| *r >= limit / 2)
        else {
            return false;
        };
        let Some(value) = record.value.clone() else { return false };
        let spans = parts(&value, room);
        let added = write(encoded, &record, &value, &spans);
        let count = added.len();
        encoded.records.splice(at - 1..at, added);
        at += count - 1;
        // The deletion's tombstone comes next: its parts end with it.
        if encoded.records.get(at).is_some_and(|next| next.value.is_none() && next.key == record.key) {
            let gone: Vec<Record> = encoded.records[at - count + 1..at]
                .iter()
                .map(|r| Record { value: None, ..r.clone() })
                .collect();
            at += 1 + gone.len();
            encoded.records.splice(at - gone.len()..at - gone.len(), gone);
        }
    }
    true
}

fn parts(value: &Range<usize>, room: usize) -> Vec<Range<usize>> {
    value.clone().step_by(room).map(|start| start..(start + room).min(value.end)).collect()
}

/// The head, and the parts behind it.
fn write(
    encoded: &mut Encoded,
    record: &Record,
    value: &Range<usize>,
    spans: &[Range<usize>],
) -> Vec<Record> {
    let head = Head {
        parts: spans.len() as u32,
        bytes: value.len() as u64,
        crc32: crc32fast::hash(&encoded.arena[value.clone()]),
    };
    let start = encoded.arena.len();
    encoded.arena.extend_from_slice(&serde_json::to_vec(&HeadValue { head }).unwrap_or_default());
    let mut all = vec![Record { value: Some(start..encoded.arena.len()), ..record.clone() }];
    for (i, span) in spans.iter().enumerate() {
        let start = encoded.arena.len();
        encoded.arena.extend_from_slice(PART);
        encoded.arena.extend_from_slice(format!("{i}/").as_bytes());
        if let Some(key) = &record.key {
            encoded.arena.extend_from_within(key.clone());
        }
        let key = Some(start..encoded.arena.len());
        let Record { table, partition, .. } = *record;
        all.push(Record { table, partition, key, value: Some(span.clone()), header: None });
    }
    all
}
