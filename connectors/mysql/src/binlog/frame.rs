//! Events as they stand in the log: a header of 19 bytes, the body, and a checksum.
//!
//! Every event's CRC32 is verified. Whether events carry one is told by the format description at each file's start, and
//! for what comes before the first one by what the server said when it was asked to send checksums. (MySQL source,
//! `libbinlogevents`/`mysql::binlog::event`, `log_event.h`.)

use super::cursor::{Cursor, Damage, Read, damage};
use bytes::Bytes;

pub(crate) const HEADER_BYTES: usize = 19;
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// The file was not closed (yet); not part of the checksum.
const FLAG_IN_USE: u8 = 1;
/// Made up by the server for us: not in the file.
const FLAG_ARTIFICIAL: u16 = 0x20;
/// Who doesn't know its type may pass over it.
const FLAG_IGNORABLE: u16 = 0x80;

/// Type codes of both families.
pub(crate) mod code {
    pub(crate) const QUERY: u8 = 2;
    pub(crate) const STOP: u8 = 3;
    pub(crate) const ROTATE: u8 = 4;
    pub(crate) const INTVAR: u8 = 5;
    pub(crate) const APPEND_BLOCK: u8 = 9;
    pub(crate) const DELETE_FILE: u8 = 11;
    pub(crate) const RAND: u8 = 13;
    pub(crate) const USER_VAR: u8 = 14;
    pub(crate) const FORMAT: u8 = 15;
    pub(crate) const XID: u8 = 16;
    pub(crate) const BEGIN_LOAD_QUERY: u8 = 17;
    pub(crate) const EXECUTE_LOAD_QUERY: u8 = 18;
    pub(crate) const TABLE_MAP: u8 = 19;
    pub(crate) const WRITE_ROWS_V1: u8 = 23;
    pub(crate) const UPDATE_ROWS_V1: u8 = 24;
    pub(crate) const DELETE_ROWS_V1: u8 = 25;
    pub(crate) const INCIDENT: u8 = 26;
    pub(crate) const HEARTBEAT: u8 = 27;
    pub(crate) const IGNORABLE: u8 = 28;
    pub(crate) const ROWS_QUERY: u8 = 29;
    pub(crate) const WRITE_ROWS: u8 = 30;
    pub(crate) const UPDATE_ROWS: u8 = 31;
    pub(crate) const DELETE_ROWS: u8 = 32;
    pub(crate) const GTID: u8 = 33;
    pub(crate) const ANONYMOUS_GTID: u8 = 34;
    pub(crate) const PREVIOUS_GTIDS: u8 = 35;
    pub(crate) const TRANSACTION_CONTEXT: u8 = 36;
    pub(crate) const VIEW_CHANGE: u8 = 37;
    pub(crate) const XA_PREPARE: u8 = 38;
    pub(crate) const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub(crate) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(crate) const HEARTBEAT_V2: u8 = 41;
    pub(crate) const GTID_TAGGED: u8 = 42;
    pub(crate) const MARIADB_ANNOTATE: u8 = 160;
    pub(crate) const MARIADB_CHECKPOINT: u8 = 161;
    pub(crate) const MARIADB_GTID: u8 = 162;
    pub(crate) const MARIADB_GTID_LIST: u8 = 163;
    pub(crate) const MARIADB_START_ENCRYPTION: u8 = 164;
    pub(crate) const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub(crate) const MARIADB_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub(crate) const MARIADB_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub(crate) const MARIADB_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub(crate) const MARIADB_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub(crate) const MARIADB_DELETE_ROWS_COMPRESSED: u8 = 171;

    /// Known events that say nothing of rows or shapes: what a statement of the log used, pieces of a loaded file, marks between
    /// servers.
    pub(crate) fn says_nothing(code: u8) -> bool {
        matches!(
            code,
            STOP | FORMAT
                | INTVAR
                | APPEND_BLOCK
                | DELETE_FILE
                | RAND
                | USER_VAR
                | BEGIN_LOAD_QUERY
                | IGNORABLE
                | TRANSACTION_CONTEXT
                | VIEW_CHANGE
                | MARIADB_CHECKPOINT
                | MARIADB_START_ENCRYPTION
        )
    }
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

    /// Whether it may be passed over by who doesn't know its type.
    pub(crate) fn is_ignorable(&self) -> bool {
        self.flags & FLAG_IGNORABLE != 0
    }

    /// Whether the server made it up; `pos` is the place behind the event before it. A position of 0 says so too, but where
    /// a real event ends at a multiple of 4 GiB.
    pub(crate) fn is_artificial(&self, pos: u64) -> bool {
        let wraps = pos > u64::from(self.size) && pos.wrapping_add(u64::from(self.size)) as u32 == 0;
        self.flags & FLAG_ARTIFICIAL != 0 || self.next_pos == 0 && !wraps
    }
}

/// Whether events carry a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksums {
    /// They do.
    pub(crate) on: bool,
    /// The last format description has switched them off. If the next event has one all the same, it was damaged.
    doubtful: bool,
}

impl Checksums {
    /// As the server has said before the first event.
    pub(crate) fn new(on: bool) -> Self {
        Self { on, doubtful: false }
    }

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
            code::ROTATE if head.is_artificial(0) && !self.on => fits(event),
            _ => self.on,
        };
        if head.code != code::FORMAT && std::mem::take(&mut self.doubtful) && !has_checksum && fits(event) {
            return damage("an event has a checksum where its file has none: the file's head is damaged");
        }
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
    /// One that says "none" is not covered by a checksum, and what follows would be believed unseen: so it must not be what a
    /// damaged byte has made of one that says "CRC32".
    fn switch(&mut self, event: &[u8]) -> Read<bool> {
        let at = event.len().checked_sub(CHECKSUM_BYTES + 1).filter(|at| *at >= HEADER_BYTES);
        let Some(at) = at else { return damage("a format description is too short") };
        match event[at] {
            0 => {
                let mut with = event.to_vec();
                with[at] = 1;
                if fits(&with) {
                    return damage("a format description is damaged: its checksum is of another kind");
                }
                (self.doubtful, self.on) = (self.on, false);
            }
            1 => (self.doubtful, self.on) = (false, true),
            kind => return Err(Damage::of(format!("checksums of kind {kind} are not known"))),
        }
        Ok(self.on)
    }
}

/// A header as the checksum covers it: only a format description can be marked as of a file in use.
pub(crate) fn summed_head(mut head: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    if head[4] == code::FORMAT {
        head[HEADER_BYTES - 2] &= !FLAG_IN_USE;
    }
    head
}

fn fits(event: &[u8]) -> bool {
    let Some((body, sum)) = event.split_last_chunk::<CHECKSUM_BYTES>() else {
        return false;
    };
    let Some((head, rest)) = body.split_first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&summed_head(*head));
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
        assert_eq!(&Checksums::new(true).open(&whole).unwrap().1[..], &[1, 2, 3, 4, 5, 6, 7, 8]);
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Checksums::new(true).open(&bad.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_format_description_switches_checksums_on_and_off() {
        let mut sums = Checksums::new(false);
        sums.open(&format(true)).unwrap();
        assert!(sums.on);
        assert!(sums.open(&event(code::XID, 500, &[0; 8], false)).is_err());
        sums.open(&format(false)).unwrap();
        assert!(!sums.on);
        assert_eq!(sums.open(&event(code::XID, 500, &[0; 8], false)).unwrap().1.len(), 8);
    }

    #[test]
    fn a_damaged_format_description_does_not_switch_checksums_off() {
        let whole = format(true);
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            if bit != (HEADER_BYTES - 2) * 8 {
                assert!(Checksums::new(true).open(&bad.into()).is_err(), "bit {bit}");
            }
        }
        // Damage in two places: nothing tells, until the next event comes with a checksum.
        let mut bad = whole.to_vec();
        let at = bad.len() - 5;
        (bad[at], bad[25]) = (0, 99);
        let mut sums = Checksums::new(true);
        sums.open(&bad.into()).unwrap();
        assert!(sums.open(&event(code::XID, 500, &[0; 8], true)).is_err());
    }

    #[test]
    fn an_event_that_ends_at_a_multiple_of_four_gigabytes_is_real() {
        let head = Head::parse(&event(code::XID, 0, &[0; 8], true)).unwrap();
        let size = u64::from(head.size);
        assert!(!head.is_artificial((1 << 32) - size) && !head.is_artificial((2 << 32) - size));
        assert!(head.is_artificial(0) && head.is_artificial((1 << 32) - size - 1));
    }

    #[test]
    fn the_first_rotate_may_have_a_checksum_before_it_was_agreed() {
        let body = [&4u64.to_le_bytes()[..], b"binlog.000001"].concat();
        for checksum in [true, false] {
            let (_, opened) = Checksums::new(false).open(&event(code::ROTATE, 0, &body, checksum)).unwrap();
            assert_eq!(&opened[..], &body[..]);
        }
    }

    #[test]
    fn short_and_misfitting_events_are_damage() {
        for n in 0..40 {
            let bytes = Bytes::from(vec![15u8; n]);
            assert!(Checksums::new(true).open(&bytes).is_err());
            assert!(Checksums::new(false).open(&bytes).is_err());
        }
    }
}
