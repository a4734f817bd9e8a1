//! Joins records that were written in parts (`encode::split` says how, and why compaction does no harm).
//!
//! A lane's position stays at the head while its parts are read: a restart reads the record from its head again.
//!
//! Memory: one record being joined a partition, and 16 bytes for each head whose parts were gone, at most [`MOST_OWED`].

use super::feed::Fetched;
use crate::encode::split::{Head, part_of};
use bytes::Bytes;
use caudal_core::{Error, Result};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Heads without parts that may wait for a later version of their rows.
const MOST_OWED: usize = 10_000;
/// No record is longer.
const MOST_BYTES: u64 = 3 << 30;

/// One partition's records in parts.
#[derive(Default)]
pub(super) struct Join {
    open: Option<Open>,
    /// Rows whose head had lost its parts, by the hash of the key, with the head's offset: a later version must come.
    owed: HashMap<u64, i64>,
}

struct Open {
    offset: i64,
    key: Option<Vec<u8>>,
    head: Head,
    next: u32,
    value: Vec<u8>,
}

/// What a record is to its reader.
pub(super) enum Joined<'a> {
    /// A record as it stands.
    Plain(Fetched<'a>),
    /// A record that is whole now: the offset of its head, its key and value.
    Whole(i64, Option<Vec<u8>>, Bytes),
    /// A piece; nothing to be decoded yet, or ever.
    Piece,
}

impl Join {
    /// Takes the next record of the partition.
    ///
    /// # Errors
    /// `Data` if too many rows lack their parts.
    pub(super) fn take<'a>(&mut self, record: Fetched<'a>) -> Result<Joined<'a>> {
        if let Some((number, key)) = record.key.and_then(part_of) {
            return self.part(number, key, record.value);
        }
        self.abandon()?;
        if !self.owed.is_empty() {
            self.owed.remove(&hash(record.key));
        }
        match record.value.and_then(Head::of).filter(|head| head.bytes <= MOST_BYTES && head.parts > 0) {
            Some(head) => {
                let key = record.key.map(<[u8]>::to_vec);
                self.open = Some(Open { offset: record.offset, key, head, next: 0, value: Vec::new() });
                Ok(Joined::Piece)
            }
            None => Ok(Joined::Plain(record)),
        }
    }

    fn part<'a>(&mut self, number: u32, key: &[u8], value: Option<&[u8]>) -> Result<Joined<'a>> {
        // A tombstone, or a part whose head is gone: nothing is open then, or another number is due.
        let (Some(open), Some(value)) = (&mut self.open, value) else { return Ok(Joined::Piece) };
        let fits = number == open.next
            && open.key.as_deref().unwrap_or_default() == key
            && (open.value.len() + value.len()) as u64 <= open.head.bytes;
        if !fits {
            self.abandon()?;
            return Ok(Joined::Piece);
        }
        if open.next == 0 {
            open.value.reserve_exact(open.head.bytes as usize);
        }
        open.value.extend_from_slice(value);
        open.next += 1;
        if open.next < open.head.parts {
            return Ok(Joined::Piece);
        }
        if open.value.len() as u64 != open.head.bytes || crc32fast::hash(&open.value) != open.head.crc32 {
            self.abandon()?;
            return Ok(Joined::Piece);
        }
        let whole = self.open.take().map(|open| Joined::Whole(open.offset, open.key, open.value.into()));
        Ok(whole.unwrap_or(Joined::Piece))
    }

    /// The record that is being joined will not come whole.
    fn abandon(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if self.owed.len() >= MOST_OWED {
            return Err(missing(open.offset));
        }
        self.owed.insert(hash(open.key.as_deref()), open.offset);
        Ok(())
    }

    /// Where a restart must begin because of the record that is being joined.
    pub(super) fn from(&self) -> Option<i64> {
        self.open.as_ref().map(|open| open.offset)
    }

    /// At an end, below which all was read: no record may lack parts there.
    ///
    /// # Errors
    /// `Data`, naming the offset.
    pub(super) fn check_end(&mut self) -> Result<()> {
        self.abandon()?;
        match self.owed.values().min() {
            Some(offset) => Err(missing(*offset)),
            None => Ok(()),
        }
    }
}

fn hash(key: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

fn missing(offset: i64) -> Error {
    Error::data(format!(
        "the row at offset {offset} was written in parts, and parts of it are missing while no later version of it follows"
    ))
    .hint("the topic was damaged, or compacted sooner than min.compaction.lag.ms allows: read the table again from its source")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::split::{HEAD, PART};

    fn head(parts: &[&str]) -> Vec<u8> {
        let all = parts.concat();
        let crc = crc32fast::hash(all.as_bytes());
        let text =
            format!(r#"{{"caudal.split":{{"parts":{},"bytes":{},"crc32":{crc}}}}}"#, parts.len(), all.len());
        assert!(text.as_bytes().starts_with(HEAD));
        text.into_bytes()
    }

    fn part(number: u32, key: &str) -> Vec<u8> {
        [PART, format!("{number}/{key}").as_bytes()].concat()
    }

    /// Feeds records; gives the whole ones and plain ones as text.
    fn feed(join: &mut Join, records: &[(&[u8], Option<&[u8]>)]) -> Vec<String> {
        let mut seen = Vec::new();
        for (offset, (key, value)) in records.iter().enumerate() {
            let record = Fetched {
                offset: offset as i64,
                ts_ms: 0,
                key: Some(key),
                value: *value,
                own: None,
                headers: &[],
            };
            match join.take(record).unwrap() {
                Joined::Plain(r) => seen.push(format!("plain {}", String::from_utf8_lossy(r.key.unwrap()))),
                Joined::Whole(at, key, value) => seen.push(format!(
                    "{at} {}={}",
                    String::from_utf8_lossy(&key.unwrap()),
                    String::from_utf8_lossy(&value)
                )),
                Joined::Piece => {}
            }
        }
        seen
    }

    #[test]
    fn parts_become_the_record_again_and_the_place_stays_at_its_head() {
        let mut join = Join::default();
        let (h, p0, p1) = (head(&["ab", "c"]), part(0, "k"), part(1, "k"));
        assert!(feed(&mut join, &[(b"k", Some(&h)), (&p0, Some(b"ab"))]).is_empty());
        assert_eq!(join.from(), Some(0));
        assert_eq!(feed(&mut join, &[(&p1, Some(b"c"))]), ["0 k=abc"]);
        assert_eq!(join.from(), None);
        join.check_end().unwrap();
    }

    #[test]
    fn a_head_without_its_parts_is_passed_over_only_for_a_later_version() {
        let h = head(&["ab", "c"]);
        let (p0, p1) = (part(0, "k"), part(1, "k"));
        // Parts, some parts, and parts of another version are missing.
        for lost in [
            vec![(&b"k"[..], Some(&h[..]))],
            vec![(b"k", Some(&h)), (&p0, Some(b"ab"))],
            vec![(b"k", Some(&h)), (&p1, Some(b"c"))],
            vec![(b"k", Some(&h)), (&p0, Some(b"xx")), (&p1, Some(b"c"))],
            vec![(b"k", Some(&h)), (&p0, Some(b"ab")), (b"other", Some(b"{}")), (&p1, Some(b"c"))],
        ] {
            let mut join = Join::default();
            assert!(feed(&mut join, &lost).iter().all(|s| s == "plain other"));
            assert!(join.check_end().is_err());
            let mut join = Join::default();
            feed(&mut join, &lost);
            feed(&mut join, &[(b"k", None)]);
            join.check_end().unwrap();
            let mut join = Join::default();
            feed(&mut join, &lost);
            let again = feed(&mut join, &[(b"k", Some(&h)), (&p0, Some(b"ab")), (&p1, Some(b"c"))]);
            assert_eq!(again, ["0 k=abc"]);
            join.check_end().unwrap();
        }
    }

    #[test]
    fn parts_without_a_head_mean_nothing() {
        let mut join = Join::default();
        let (p0, p1) = (part(0, "k"), part(1, "k"));
        assert_eq!(feed(&mut join, &[(&p0, Some(b"ab")), (&p1, None), (b"k", Some(b"{}"))]), ["plain k"]);
        join.check_end().unwrap();
    }

    /// A record of a log: key and value.
    type Record = (Vec<u8>, Option<Vec<u8>>);

    /// Random versions of a few rows, some in parts; and what each row is at the end.
    fn history(random: &mut u64, length: usize) -> (Vec<Record>, HashMap<String, Option<String>>) {
        let (mut log, mut rows) = (Vec::new(), HashMap::new());
        for version in 0..length {
            let key = format!("{{\"id\":{}}}", next(random) % 3);
            let parts: Vec<String> =
                (0..next(random) % 4).map(|p| format!("{key} v{version} p{p};")).collect();
            let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
            if parts.is_empty() {
                log.push((key.clone().into_bytes(), Some(format!("{{\"v\":{version}}}").into_bytes())));
                rows.insert(key.clone(), Some(format!("{{\"v\":{version}}}")));
            } else {
                log.push((key.clone().into_bytes(), Some(head(&texts))));
                for (i, text) in texts.iter().enumerate() {
                    log.push((part(i as u32, &key), Some(text.as_bytes().to_vec())));
                }
                rows.insert(key.clone(), Some(parts.concat()));
            }
            if next(random).is_multiple_of(4) {
                log.push((key.clone().into_bytes(), None));
                log.extend((0..parts.len()).map(|i| (part(i as u32, &key), None)));
                rows.insert(key, None);
            }
        }
        (log, rows)
    }

    fn next(random: &mut u64) -> u64 {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *random
    }

    /// A cleaner that has seen the first `upto` records keeps of them the newest under each key.
    fn compacted(log: &[Record], upto: usize) -> Vec<Option<Record>> {
        let newest: HashMap<&[u8], usize> =
            log[..upto].iter().enumerate().map(|(i, r)| (&r.0[..], i)).collect();
        log.iter().enumerate().map(|(i, r)| (i >= upto || newest[&r.0[..]] == i).then(|| r.clone())).collect()
    }

    #[test]
    fn whatever_a_cleaner_takes_meanwhile_each_row_ends_as_its_newest_version() {
        let mut random = 0x9e37_79b9_7f4a_7c15;
        let mut lost_parts = 0;
        for _ in 0..3_000 {
            let (log, rows) = history(&mut random, 12);
            let upto = (next(&mut random) % (log.len() as u64 + 1)) as usize;
            let clean = compacted(&log, upto);
            // The reader has passed so much before the cleaner's segments took the place of the old ones.
            let passed = (next(&mut random) % (log.len() as u64 + 1)) as usize;
            let (mut join, mut seen) = (Join::default(), HashMap::new());
            let read = log[..passed].iter().cloned().map(Some).chain(clean[passed..].iter().cloned());
            for (offset, record) in read.enumerate() {
                let Some((key, value)) = record else { continue };
                let fetched = Fetched {
                    offset: offset as i64,
                    ts_ms: 0,
                    key: Some(&key),
                    value: value.as_deref(),
                    own: None,
                    headers: &[],
                };
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                match join.take(fetched).unwrap() {
                    Joined::Plain(r) => drop(seen.insert(text(&key), r.value.map(text))),
                    Joined::Whole(_, k, v) => drop(seen.insert(text(&k.unwrap()), Some(text(&v)))),
                    Joined::Piece => {}
                }
            }
            lost_parts += usize::from(!join.owed.is_empty() || seen.len() < rows.len());
            join.check_end().unwrap();
            for (key, row) in &rows {
                assert_eq!(seen.get(key).cloned().flatten(), *row, "{key}");
            }
        }
        assert_eq!(lost_parts, 0);
    }
}
