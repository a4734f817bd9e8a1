//! The multi-byte sets of East Asia, by the servers' own tables.
//!
//! The web's encodings of the same names differ from the servers' in hundreds of characters (`gbk`'s and `big5`'s additions,
//! `sjis`' backslash, private-use areas), so each set has a table that was read out of MariaDB 10.11 and MySQL 9.7, which
//! agree: for each pair of a first and a second byte the character in UTF-16, little-endian; 0 where no such pair is in the
//! set, `?` where it is but the servers know no character for it, and send that. The integration test of character sets
//! compares each entry with a running server.

use super::{NotOfCharset, push};

/// The sets' tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Multi {
    Big5,
    Gb2312,
    Gbk,
    Gb18030,
    Sjis,
    Cp932,
    Ujis,
    EucJpMs,
    EucKr,
}

/// Characters by first and second byte.
struct Table {
    first: (u8, u8),
    second: (u8, u8),
    units: &'static [u8],
}

impl Table {
    /// The character of a pair, if it is in the set.
    fn character(&self, first: u8, second: u8) -> Option<char> {
        let row = first.checked_sub(self.first.0).filter(|_| first <= self.first.1)?;
        let column = second.checked_sub(self.second.0).filter(|_| second <= self.second.1)?;
        let width = usize::from(self.second.1 - self.second.0) + 1;
        let at = (usize::from(row) * width + usize::from(column)) * 2;
        let unit = u16::from_le_bytes([*self.units.get(at)?, *self.units.get(at + 1)?]);
        char::from_u32(u32::from(unit)).filter(|c| *c != '\0')
    }
}

const fn table(first: (u8, u8), second: (u8, u8), units: &'static [u8]) -> Table {
    Table { first, second, units }
}

static BIG5: Table = table((0xa1, 0xf9), (0x40, 0xfe), include_bytes!("tables/big5.bin"));
static GB2312: Table = table((0xa1, 0xf7), (0xa1, 0xfe), include_bytes!("tables/gb2312.bin"));
static GBK: Table = table((0x81, 0xfe), (0x40, 0xfe), include_bytes!("tables/gbk.bin"));
static GB18030: Table = table((0x81, 0xfe), (0x40, 0xfe), include_bytes!("tables/gb18030.bin"));
static SJIS: Table = table((0x81, 0xfc), (0x40, 0xfc), include_bytes!("tables/sjis.bin"));
static CP932: Table = table((0x81, 0xfc), (0x40, 0xfc), include_bytes!("tables/cp932.bin"));
static EUCKR: Table = table((0x81, 0xfe), (0x41, 0xfe), include_bytes!("tables/euckr.bin"));
static UJIS: Table = table((0xa1, 0xfe), (0xa1, 0xfe), include_bytes!("tables/ujis.bin"));
static EUCJPMS: Table = table((0xa1, 0xfe), (0xa1, 0xfe), include_bytes!("tables/eucjpms.bin"));
/// Behind a byte 0x8f.
static UJIS_3: Table = table((0xa1, 0xfe), (0xa1, 0xfe), include_bytes!("tables/ujis3.bin"));
static EUCJPMS_3: Table = table((0xa1, 0xfe), (0xa1, 0xfe), include_bytes!("tables/eucjpms3.bin"));

/// Half-width katakana stand in one byte in Shift-JIS, behind 0x8e in EUC.
const KATAKANA: std::ops::RangeInclusive<u8> = 0xa1..=0xdf;
const FIRST_KATAKANA: u32 = 0xff61;

impl Multi {
    fn table(self) -> &'static Table {
        match self {
            Self::Big5 => &BIG5,
            Self::Gb2312 => &GB2312,
            Self::Gbk => &GBK,
            Self::Gb18030 => &GB18030,
            Self::Sjis => &SJIS,
            Self::Cp932 => &CP932,
            Self::Ujis => &UJIS,
            Self::EucJpMs => &EUCJPMS,
            Self::EucKr => &EUCKR,
        }
    }

    pub(super) fn decode(self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), NotOfCharset> {
        while let [first, rest @ ..] = bytes {
            if first.is_ascii() {
                out.push(*first);
                bytes = rest;
                continue;
            }
            let (c, length) = self.character(bytes).ok_or(NotOfCharset)?;
            push(c, out);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// The character that the bytes begin with, and how many it takes.
    fn character(self, bytes: &[u8]) -> Option<(char, usize)> {
        match (self, bytes) {
            (Self::Sjis | Self::Cp932, [byte, ..]) if KATAKANA.contains(byte) => Some((katakana(*byte)?, 1)),
            (Self::Ujis | Self::EucJpMs, [0x8e, byte, ..]) if KATAKANA.contains(byte) => {
                Some((katakana(*byte)?, 2))
            }
            (Self::Ujis, [0x8f, a, b, ..]) => Some((UJIS_3.character(*a, *b)?, 3)),
            (Self::EucJpMs, [0x8f, a, b, ..]) => Some((EUCJPMS_3.character(*a, *b)?, 3)),
            // MySQL lets the other control bytes stand in eucjpms, and knows no character for them.
            (Self::EucJpMs, [0x80..=0x8d | 0x90..=0x9f | 0xa0 | 0xff, ..]) => Some(('?', 1)),
            (Self::Gb18030, [_, 0x30..=0x39, _, _, ..]) => Some((gb18030(&bytes[..4])?, 4)),
            (_, [a, b, ..]) => Some((self.table().character(*a, *b)?, 2)),
            _ => None,
        }
    }
}

fn katakana(byte: u8) -> Option<char> {
    char::from_u32(FIRST_KATAKANA + u32::from(byte - KATAKANA.start()))
}

/// The four-byte characters follow one rule for all of Unicode, the same everywhere.
fn gb18030(bytes: &[u8]) -> Option<char> {
    let text = encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(bytes)?;
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}
