//! What brackets transactions: GTID events of both families, XA, the sets at a file's start.

use super::cursor::{Cursor, Damage, Read, damage};
use super::event::{AlterPhase, Begin, Xid};
use crate::gtid::{Gtid, GtidSet, MariaDbGtid, MariaDbGtids, MySqlGtid, MySqlGtids};
use bytes::Bytes;
use std::sync::Arc;

/// The type code of the logical clock in GTID events.
const LOGICAL_CLOCK: u8 = 2;
/// Set in the first commit time if a second one follows.
const HAS_ORIGINAL_TIME: u64 = 1 << 55;

/// MySQL's GTID event and, with GTIDs off, its anonymous one. (`Gtid_event` in MySQL's `control_events.h`.)
pub(super) fn mysql_gtid(body: &[u8], anonymous: bool) -> Read<Begin> {
    let mut c = Cursor(body);
    c.u8()?;
    let source = source_id(c.take(16)?);
    let number = gtid_number(c.u64()?, anonymous)?;
    let gtid = (!anonymous).then_some(Gtid::MySql(MySqlGtid { source, tag: None, number }));
    let mut begin = Begin { gtid, ..Begin::default() };
    // 5.6 ends here; 5.7 after the logical clock; later versions add times, then the length.
    if c.0.first() != Some(&LOGICAL_CLOCK) || c.0.len() < 1 + 16 + 7 {
        return Ok(begin);
    }
    c.take(1 + 16)?;
    let time = c.little(7)?;
    begin.commit_us = time & !HAS_ORIGINAL_TIME;
    begin.original_commit_us = if time & HAS_ORIGINAL_TIME != 0 { c.little(7)? } else { begin.commit_us };
    if !c.is_empty() {
        begin.length = c.length_encoded()?;
    }
    Ok(begin)
}

fn gtid_number(number: u64, anonymous: bool) -> Read<u64> {
    match number {
        1..0x7fff_ffff_ffff_ffff => Ok(number),
        0 if anonymous => Ok(0),
        _ => damage("a GTID has no valid number"),
    }
}

fn source_id(bytes: &[u8]) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(bytes);
    id
}

/// MySQL's tagged GTID event (8.3 and later), in the form of its serialization library: a version, a size, the last field
/// that may not be ignored, then pairs of field number and value. (`mysql/serialization` and `Gtid_event::define_fields`.)
pub(super) fn mysql_tagged_gtid(body: &[u8]) -> Read<Begin> {
    let mut c = Cursor(body);
    variable(&mut c)?;
    let size = variable(&mut c)?;
    let last_needed = variable(&mut c)?;
    let overhead = (body.len() - c.0.len()) as u64;
    let Some(length) = size.checked_sub(overhead).filter(|n| *n <= c.0.len() as u64) else {
        return damage("a tagged GTID has a wrong size");
    };
    let mut fields = Cursor(c.take(length as usize)?);
    let (mut source, mut tag, mut number) = ([0u8; 16], None, 0);
    let mut begin = Begin::default();
    while !fields.is_empty() {
        let f = &mut fields;
        match variable(f)? {
            0 | 9 | 10 | 11 => drop(variable(f)?),
            1 => {
                for byte in &mut source {
                    *byte =
                        u8::try_from(variable(f)?).map_err(|_| Damage::of("a GTID's source is no UUID"))?;
                }
            }
            2 => number = signed(f)?,
            3 => tag = Some(read_tag(f)?),
            4 | 5 => drop(signed(f)?),
            6 => begin.commit_us = variable(f)?,
            7 => begin.original_commit_us = variable(f)?,
            8 => begin.length = variable(f)?,
            // A newer server's field that a reader may ignore; its length is not told, so this is the end for us.
            unknown if unknown > last_needed => break,
            _ => return damage("a tagged GTID has a field that is not known and may not be ignored"),
        }
    }
    if begin.original_commit_us == 0 {
        begin.original_commit_us = begin.commit_us;
    }
    let number = gtid_number(number, false)?;
    begin.gtid = Some(Gtid::MySql(MySqlGtid { source, tag: tag.filter(|t| !t.is_empty()), number }));
    Ok(begin)
}

/// An integer of 1 to 9 bytes: as many low bits of the first byte are ones as bytes follow.
fn variable(c: &mut Cursor<'_>) -> Read<u64> {
    let Some(first) = c.0.first() else {
        return damage("a tagged GTID ends early");
    };
    let more = first.trailing_ones() as usize;
    if more == 8 {
        c.take(1)?;
        return c.u64();
    }
    Ok(c.little(more + 1)? >> (more + 1))
}

/// The sign is the lowest bit.
fn signed(c: &mut Cursor<'_>) -> Read<u64> {
    let value = variable(c)?;
    if value & 1 == 1 { damage("a tagged GTID has a negative number") } else { Ok(value >> 1) }
}

fn read_tag(c: &mut Cursor<'_>) -> Read<Arc<str>> {
    let length = variable(c)?;
    if length > 32 {
        return damage("a GTID's tag is too long");
    }
    let tag = c.take(length as usize)?;
    if !tag.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_') {
        return damage("a GTID's tag has other characters than letters, digits and _");
    }
    Ok(String::from_utf8_lossy(tag).into())
}

/// MySQL's set at a file's start; also the form that the server takes in a dump request.
pub(super) fn previous_gtids(body: &[u8]) -> Read<GtidSet> {
    let mut c = Cursor(body);
    let head = c.u64()?;
    // The highest byte tells the form: with tags the count stands in between, else in all the lower bytes.
    let tagged = head >> 56 == 1;
    let count = if tagged { head << 8 >> 16 } else { head & 0xff_ffff_ffff_ffff };
    let mut set = MySqlGtids::default();
    for _ in 0..count {
        let source = source_id(c.take(16)?);
        let tag = if tagged { Some(read_tag(&mut c)?).filter(|t| !t.is_empty()) } else { None };
        let intervals = c.u64()?;
        for _ in 0..intervals {
            let (first, end) = (c.u64()?, c.u64()?);
            gtid_number(first, false)?;
            if end <= first {
                return damage("a GTID set has an empty interval");
            }
            set.add_interval(source, tag.clone(), first, end);
        }
    }
    Ok(GtidSet::MySql(set))
}

const STANDALONE: u8 = 1;
const GROUP_COMMIT_ID: u8 = 2;
const XA: u8 = 0x40 | 0x80;
const XA_PREPARED: u8 = 0x40;
const EXTRA_ENGINES: u8 = 1;
const EXTRA_START_ALTER: u8 = 2;
const EXTRA_COMMIT_ALTER: u8 = 4;
const EXTRA_ROLLBACK_ALTER: u8 = 8;
const EXTRA_THREAD: u8 = 16;

/// MariaDB's GTID event, which opens each transaction: no `BEGIN` follows. (`Gtid_log_event` in MariaDB's `log_event.h`.)
pub(super) fn mariadb_gtid(body: &Bytes, server: u32) -> Read<Begin> {
    let mut c = Cursor(body);
    let sequence = c.u64()?;
    let domain = c.u32()?;
    let flags = c.u8()?;
    let gtid = MariaDbGtid { domain, server, sequence };
    let mut begin =
        Begin { gtid: Some(Gtid::MariaDb(gtid)), standalone: flags & STANDALONE != 0, ..Begin::default() };
    if flags & GROUP_COMMIT_ID != 0 {
        c.u64()?;
    }
    if flags & XA != 0 {
        let format = c.u32()?;
        let (global, branch) = (usize::from(c.u8()?), usize::from(c.u8()?));
        let xid =
            Xid { format, global: body.slice_ref(c.take(global)?), branch: body.slice_ref(c.take(branch)?) };
        begin.xa = (flags & XA_PREPARED != 0).then_some(xid);
    }
    let extra = if c.is_empty() { 0 } else { c.u8()? };
    if extra & EXTRA_ENGINES != 0 {
        c.u8()?;
    }
    begin.alter = match extra & (EXTRA_START_ALTER | EXTRA_COMMIT_ALTER | EXTRA_ROLLBACK_ALTER) {
        0 => None,
        EXTRA_START_ALTER => Some(AlterPhase::Start),
        EXTRA_COMMIT_ALTER => Some(AlterPhase::Commit(c.u64()?)),
        EXTRA_ROLLBACK_ALTER => Some(AlterPhase::Rollback(c.u64()?)),
        _ => return damage("a GTID event is of two phases of an ALTER"),
    };
    if extra & EXTRA_THREAD != 0 {
        begin.thread = c.u32()?;
    }
    Ok(begin)
}

/// MariaDB's set at a file's start: the last id of each server in each domain.
pub(super) fn mariadb_gtid_list(body: &[u8]) -> Read<GtidSet> {
    let mut c = Cursor(body);
    let count = c.u32()? & 0x0fff_ffff;
    let mut set = MariaDbGtids::default();
    for _ in 0..count {
        let (domain, server, sequence) = (c.u32()?, c.u32()?, c.u64()?);
        set.add(&MariaDbGtid { domain, server, sequence });
    }
    Ok(GtidSet::MariaDb(set))
}

/// The event at the end of a prepared transaction; true if it commits at once (`ONE PHASE`).
pub(super) fn xa_prepare(body: &Bytes) -> Read<(bool, Xid)> {
    let mut c = Cursor(body);
    let one_phase = c.u8()? != 0;
    let format = c.u32()?;
    let (global, branch) = (c.u32()? as usize, c.u32()? as usize);
    let xid =
        Xid { format, global: body.slice_ref(c.take(global)?), branch: body.slice_ref(c.take(branch)?) };
    Ok((one_phase, xid))
}

/// An XA id as servers write it in statements: `X'68',X'',1`. None if it is not of that form.
pub(super) fn parse_xid(text: &str) -> Option<Xid> {
    let mut parts = text.trim().trim_end_matches(';').split(',').map(str::trim);
    let global = hex(parts.next()?)?;
    let branch = parts.next().map_or(Some(Bytes::new()), hex)?;
    let format = parts.next().map_or(Some(1), |f| f.parse().ok())?;
    Some(Xid { format, global, branch })
}

fn hex(text: &str) -> Option<Bytes> {
    let digits = text.strip_prefix(['X', 'x'])?.strip_prefix('\'')?.strip_suffix('\'')?;
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: [u8; 16] =
        [0x3e, 0x11, 0xfa, 0x47, 0x71, 0xca, 0x11, 0xe1, 0x9e, 0x33, 0xc8, 0x0a, 0xa9, 0x42, 0x95, 0x62];

    fn variable_bytes(value: u64) -> Vec<u8> {
        let bits = 64 - value.leading_zeros() as usize;
        let bytes = bits.div_ceil(7).max(1);
        if bytes > 8 {
            return [&[0xff][..], &value.to_le_bytes()].concat();
        }
        let value = value << bytes | ((1 << (bytes - 1)) - 1);
        value.to_le_bytes()[..bytes].to_vec()
    }

    #[test]
    fn variable_integers_are_read_at_all_widths() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1] {
                let bytes = variable_bytes(value);
                let mut c = Cursor(&bytes);
                assert_eq!((variable(&mut c), c.is_empty()), (Ok(value), true), "{value}");
            }
        }
    }

    #[test]
    fn mysql_gtids_have_commit_times_and_length() {
        let mut body = vec![1];
        body.extend_from_slice(&SOURCE);
        body.extend_from_slice(&7u64.to_le_bytes());
        assert_eq!(
            mysql_gtid(&body, false).unwrap().gtid.unwrap().to_string(),
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:7"
        );
        body.push(2);
        body.extend_from_slice(&[0; 16]);
        body.extend_from_slice(&(1_700_000_000_000_001u64 | HAS_ORIGINAL_TIME).to_le_bytes()[..7]);
        body.extend_from_slice(&1_600_000_000_000_002u64.to_le_bytes()[..7]);
        body.extend_from_slice(&[0xfc, 0, 2]);
        let begin = mysql_gtid(&body, false).unwrap();
        assert_eq!(
            (begin.commit_us, begin.original_commit_us, begin.length),
            (1_700_000_000_000_001, 1_600_000_000_000_002, 512)
        );
        assert!(mysql_gtid(&body, true).unwrap().gtid.is_none());
    }

    #[test]
    fn tagged_gtids_are_read_and_what_may_not_be_ignored_is_damage() {
        let fields = |extra: &[u8], last: u64| {
            let mut f = vec![0, variable_bytes(1)[0], variable_bytes(1)[0]];
            SOURCE.iter().for_each(|b| f.extend(variable_bytes(u64::from(*b))));
            f.extend(
                [variable_bytes(2), variable_bytes(9 << 1), variable_bytes(3), variable_bytes(4)].concat(),
            );
            f.extend_from_slice(b"blue");
            f.extend([variable_bytes(6), variable_bytes(1_700_000_000_000_000)].concat());
            f.extend_from_slice(extra);
            let mut message = variable_bytes(1);
            let last = variable_bytes(last);
            let overhead = message.len() + 1 + last.len();
            let size = variable_bytes((f.len() + overhead) as u64);
            message.extend(size);
            message.extend(last);
            message.extend(f);
            message
        };
        let begin = mysql_tagged_gtid(&fields(&[], 0)).unwrap();
        assert_eq!(begin.gtid.unwrap().to_string(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:blue:9");
        assert_eq!(begin.commit_us, 1_700_000_000_000_000);
        let unknown = variable_bytes(40);
        assert!(mysql_tagged_gtid(&fields(&unknown, 0)).is_ok());
        assert!(mysql_tagged_gtid(&fields(&unknown, 40)).is_err());
    }

    #[test]
    fn mariadb_flags_tell_how_a_transaction_ends() {
        let body = |flags: u8, rest: &[u8]| {
            let mut b = 5u64.to_le_bytes().to_vec();
            b.extend_from_slice(&1u32.to_le_bytes());
            b.push(flags);
            b.extend_from_slice(rest);
            Bytes::from(b)
        };
        let plain = mariadb_gtid(&body(0, &[0; 6]), 10).unwrap();
        assert_eq!((plain.gtid.unwrap().to_string().as_str(), plain.standalone), ("1-10-5", false));
        assert!(mariadb_gtid(&body(STANDALONE, &[0; 6]), 10).unwrap().standalone);
        let prepared = [&1u32.to_le_bytes()[..], &[2, 1], b"abc"].concat();
        let xid = mariadb_gtid(&body(XA_PREPARED, &prepared), 10).unwrap().xa.unwrap();
        assert_eq!((&xid.global[..], &xid.branch[..], xid.format), (&b"ab"[..], &b"c"[..], 1));
        assert!(mariadb_gtid(&body(0x80, &prepared), 10).unwrap().xa.is_none());
        let alter = [&[EXTRA_COMMIT_ALTER][..], &77u64.to_le_bytes()].concat();
        assert_eq!(mariadb_gtid(&body(0, &alter), 10).unwrap().alter, Some(AlterPhase::Commit(77)));
        let group = [&[0; 8][..], &[EXTRA_START_ALTER]].concat();
        assert_eq!(mariadb_gtid(&body(GROUP_COMMIT_ID, &group), 10).unwrap().alter, Some(AlterPhase::Start));
    }

    #[test]
    fn xa_ids_are_read_from_statements() {
        let xid = parse_xid("X'6162',X'63',1").unwrap();
        assert_eq!((&xid.global[..], &xid.branch[..], xid.format), (&b"ab"[..], &b"c"[..], 1));
        assert!(parse_xid("'ab'").is_none());
        assert!(parse_xid("X'zz'").is_none());
    }

    #[test]
    fn sets_at_a_files_start_are_read() {
        let mut body = 1u64.to_le_bytes().to_vec();
        body.extend_from_slice(&SOURCE);
        body.extend_from_slice(&1u64.to_le_bytes());
        body.extend_from_slice(&1u64.to_le_bytes());
        body.extend_from_slice(&8u64.to_le_bytes());
        assert_eq!(previous_gtids(&body).unwrap().to_string(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7");
        let mut list = 2u32.to_le_bytes().to_vec();
        for (domain, server, sequence) in [(0u32, 1u32, 9u64), (0, 2, 8)] {
            list.extend_from_slice(&domain.to_le_bytes());
            list.extend_from_slice(&server.to_le_bytes());
            list.extend_from_slice(&sequence.to_le_bytes());
        }
        assert_eq!(mariadb_gtid_list(&list).unwrap().to_string(), "0-1-9");
    }
}
