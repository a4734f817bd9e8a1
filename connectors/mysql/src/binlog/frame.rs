//! Events as they stand in the log: a header of 19 bytes, the body, and a checksum.
//!
//! Every event's CRC32 is verified. Whether events carry one is told by the format description at each file's start, and
//! for what comes before the first one by what the server said when it was asked to send checksums. (MySQL source,
//! `libbinlogevents`/`mysql::binlog::event`, `log_event.h`.)

use super::cursor::{Cursor, Damage, Read, damage};
use bytes::Bytes;

pub(crate) const HEADER_BYTES: usize = 19;
const CHECKSUM_BYTES: usize = 4;

/// The file was not closed (yet); not part of the checksum.
const FLAG_IN_USE: u8 = 1;
/// Made up by the server for us: not in the file.
const FLAG_ARTIFICIAL: u16 = 0x20;

/// Type codes of both families.
pub(crate) mod code {
    pub(crate) const QUERY: u8 = 2;
    pub(crate) const ROTATE: u8 = 4;
    pub(crate) const FORMAT: u8 = 15;
    pub(crate) const XID: u8 = 16;
    pub(crate) const TABLE_MAP: u8 = 19;
    pub(crate) const WRITE_ROWS_V1: u8 = 23;
    pub(crate) const UPDATE_ROWS_V1: u8 = 24;
    pub(crate) const DELETE_ROWS_V1: u8 = 25;
    pub(crate) const INCIDENT: u8 = 26;
    pub(crate) const HEARTBEAT: u8 = 27;
    pub(crate) const ROWS_QUERY: u8 = 29;
    pub(crate) const WRITE_ROWS: u8 = 30;
    pub(crate) const UPDATE_ROWS: u8 = 31;
    pub(crate) const DELETE_ROWS: u8 = 32;
    pub(crate) const GTID: u8 = 33;
    pub(crate) const ANONYMOUS_GTID: u8 = 34;
    pub(crate) const PREVIOUS_GTIDS: u8 = 35;
    pub(crate) const XA_PREPARE: u8 = 38;
    pub(crate) const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub(crate) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(crate) const HEARTBEAT_V2: u8 = 41;
    pub(crate) const GTID_TAGGED: u8 = 42;
    pub(crate) const MARIADB_ANNOTATE: u8 = 160;
    pub(crate) const MARIADB_GTID: u8 = 162;
    pub(crate) const MARIADB_GTID_LIST: u8 = 163;
    pub(crate) const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub(crate) const MARIADB_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub(crate) const MARIADB_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub(crate) const MARIADB_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub(crate) const MARIADB_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub(crate) const MARIADB_DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// An event's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) timestamp: u32,
    pub(crate) code: u8,
    pub(crate) server_id: u32,
    /// All bytes of the event, header and checksum too.
    pub(crate) size: u32,
    /// The position behind it, modulo 4 GiB; 0 in artificial events.
    pub(crate) next_pos: u32,
    flags: u16,
}

impl Head {
    pub(crate) fn parse(event: &[u8]) -> Read<Self> {
        let mut c = Cursor(event);
        let head = Self {
            timestamp: c.u32()?,
            code: c.u8()?,
            server_id: c.u32()?,
            size: c.u32()?,
            next_pos: c.u32()?,
            flags: c.u16()?,
        };
        if (head.size as usize) < HEADER_BYTES {
            damage("an event is shorter than its header")
        } else {
            Ok(head)
        }
    }

    pub(crate) fn is_artificial(&self) -> bool {
        self.flags & FLAG_ARTIFICIAL != 0 || self.next_pos == 0
    }
}

/// Whether events carry a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksums(pub(crate) bool);

impl Checksums {
    /// Checks an event's framing and gives its header and its body, without the checksum. A format description sets
    /// whether there are checksums from itself on.
    pub(crate) fn open(&mut self, event: &Bytes) -> Read<(Head, Bytes)> {
        let head = Head::parse(event)?;
        if head.size as usize != event.len() {
            return damage("an event's size is not that of its packet");
        }
        let has_checksum = match head.code {
            code::FORMAT => self.switch(event)?,
            // The one in front of the first file has a checksum or not, whatever was agreed: by family and version.
            code::ROTATE if head.is_artificial() && !self.0 => fits(event),
            _ => self.0,
        };
        if has_checksum && !fits(event) {
            return Err(Damage::of(format!("the checksum of an event of type {} does not fit", head.code)));
        }
        let end = match has_checksum || head.code == code::FORMAT {
            true => event.len().saturating_sub(CHECKSUM_BYTES).max(HEADER_BYTES),
            false => event.len(),
        };
        Ok((head, event.slice(HEADER_BYTES..end)))
    }

    /// A format description ends with the kind of checksum in one byte and room for one, which it fills if there is one.
    fn switch(&mut self, event: &[u8]) -> Read<bool> {
        let at = event.len().checked_sub(CHECKSUM_BYTES + 1).filter(|at| *at >= HEADER_BYTES);
        match at.map(|at| event[at]) {
            Some(0) => self.0 = false,
            Some(1) => self.0 = true,
            Some(kind) => return Err(Damage::of(format!("checksums of kind {kind} are not known"))),
            None => return damage("a format description is too short"),
        }
        Ok(self.0)
    }
}

fn fits(event: &[u8]) -> bool {
    let Some((body, sum)) = event.split_last_chunk::<CHECKSUM_BYTES>() else {
        return false;
    };
    let Some((head, rest)) = body.split_first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let mut crc = crc32fast::Hasher::new();
    let mut head = *head;
    head[HEADER_BYTES - 2] &= !FLAG_IN_USE;
    crc.update(&head);
    crc.update(rest);
    crc.finalize() == u32::from_le_bytes(*sum)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An event with its header, and its checksum if wanted.
    pub(crate) fn event(code: u8, next_pos: u32, body: &[u8], checksum: bool) -> Bytes {
        let size = HEADER_BYTES + body.len() + if checksum { 4 } else { 0 };
        let mut e = 1_700_000_000u32.to_le_bytes().to_vec();
        e.push(code);
        e.extend_from_slice(&10u32.to_le_bytes());
        e.extend_from_slice(&(size as u32).to_le_bytes());
        e.extend_from_slice(&next_pos.to_le_bytes());
        e.extend_from_slice(&[0, 0]);
        e.extend_from_slice(body);
        if checksum {
            let sum = crc32fast::hash(&e);
            e.extend_from_slice(&sum.to_le_bytes());
        }
        e.into()
    }

    fn format(checksum: bool) -> Bytes {
        let mut body = vec![4, 0];
        body.extend_from_slice(&[0; 60]);
        body.push(u8::from(checksum));
        if !checksum {
            body.extend_from_slice(&[0; 4]);
        }
        event(code::FORMAT, 100, &body, checksum)
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let whole = event(code::XID, 500, &[1, 2, 3, 4, 5, 6, 7, 8], true);
        assert_eq!(&Checksums(true).open(&whole).unwrap().1[..], &[1, 2, 3, 4, 5, 6, 7, 8]);
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            // The in-use flag is not part of the sum: the server clears it in place.
            if bit == (HEADER_BYTES - 2) * 8 || bad[4] == code::FORMAT {
                continue;
            }
            assert!(Checksums(true).open(&bad.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_format_description_switches_checksums_on_and_off() {
        let mut sums = Checksums(false);
        sums.open(&format(true)).unwrap();
        assert_eq!(sums, Checksums(true));
        assert!(sums.open(&event(code::XID, 500, &[0; 8], false)).is_err());
        sums.open(&format(false)).unwrap();
        assert_eq!(sums, Checksums(false));
        assert_eq!(sums.open(&event(code::XID, 500, &[0; 8], false)).unwrap().1.len(), 8);
    }

    #[test]
    fn the_first_rotate_may_have_a_checksum_before_it_was_agreed() {
        let body = [&4u64.to_le_bytes()[..], b"binlog.000001"].concat();
        for checksum in [true, false] {
            let (_, opened) = Checksums(false).open(&event(code::ROTATE, 0, &body, checksum)).unwrap();
            assert_eq!(&opened[..], &body[..]);
        }
    }

    #[test]
    fn short_and_misfitting_events_are_damage() {
        for n in 0..40 {
            let bytes = Bytes::from(vec![15u8; n]);
            assert!(Checksums(true).open(&bytes).is_err());
            assert!(Checksums(false).open(&bytes).is_err());
        }
    }
}
