//! A bounds-checked cursor over event bytes. All reads of the binlog go through it, so damaged bytes end in [`Damage`],
//! never in a panic.

use caudal_core::Error;
use std::borrow::Cow;

/// What is wrong with bytes. Small, for it travels through the hot path; becomes a fault of kind `Data` at the border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) Cow<'static, str>);

pub(crate) type Read<T> = Result<T, Damage>;

/// Damage with a fixed text.
pub(crate) fn damage<T>(what: &'static str) -> Read<T> {
    Err(Damage(Cow::Borrowed(what)))
}

impl Damage {
    /// Damage with a text made for the case.
    pub(crate) fn of(what: impl Into<String>) -> Self {
        Self(Cow::Owned(what.into()))
    }
}

impl From<Damage> for Error {
    fn from(d: Damage) -> Self {
        Error::data(d.0)
    }
}

/// The bytes not read yet.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        match self.0.split_at_checked(n) {
            Some((head, rest)) => {
                self.0 = rest;
                Ok(head)
            }
            None => damage("an event ends in the middle of a value"),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                Ok(*head)
            }
            None => damage("an event ends in the middle of a value"),
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Little-endian, up to 8 bytes.
    #[inline]
    pub(crate) fn little(&mut self, n: usize) -> Read<u64> {
        match n {
            1 => Ok(u64::from(self.u8()?)),
            2 => Ok(u64::from(self.u16()?)),
            4 => Ok(u64::from(self.u32()?)),
            8 => self.u64(),
            _ => {
                let mut value = [0u8; 8];
                let bytes = self.take(n)?;
                match value.get_mut(..n) {
                    Some(low) => low.copy_from_slice(bytes),
                    None => return damage("an integer is wider than 8 bytes"),
                }
                Ok(u64::from_le_bytes(value))
            }
        }
    }

    /// Big-endian, up to 8 bytes.
    #[inline]
    pub(crate) fn big(&mut self, n: usize) -> Read<u64> {
        Ok(self.take(n)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A length-encoded integer.
    #[inline]
    pub(crate) fn length_encoded(&mut self) -> Read<u64> {
        match self.u8()? {
            0xfb | 0xff => damage("a length is marked as none"),
            0xfc => self.little(2),
            0xfd => self.little(3),
            0xfe => self.little(8),
            small => Ok(u64::from(small)),
        }
    }

    /// A length-encoded integer as a number of things that follow; each takes a byte at least, or it is damage.
    #[inline]
    pub(crate) fn count(&mut self) -> Read<usize> {
        match usize::try_from(self.length_encoded()?) {
            Ok(n) if n <= self.0.len() => Ok(n),
            _ => damage("a length goes beyond the event"),
        }
    }

    /// Bytes with a length-encoded length in front.
    #[inline]
    pub(crate) fn counted(&mut self) -> Read<&'a [u8]> {
        let n = self.count()?;
        self.take(n)
    }
}

/// Bit `i` of a little-endian bit map; false beyond its end.
#[inline]
pub(crate) fn bit(map: &[u8], i: usize) -> bool {
    map.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_end_in_damage_at_the_end() {
        let mut c = Cursor(&[1, 2, 3]);
        assert_eq!(c.u16(), Ok(0x0201));
        assert!(c.u16().is_err());
        assert_eq!(c.u8(), Ok(3));
        assert!(c.u8().is_err() && c.is_empty());
    }

    #[test]
    fn counts_beyond_the_rest_are_damage_before_anything_is_allocated() {
        assert!(Cursor(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 255]).count().is_err());
        assert_eq!(Cursor(&[2, b'a', b'b', b'c']).counted(), Ok(&b"ab"[..]));
        assert_eq!(Cursor(&[0xfc, 1, 2]).length_encoded(), Ok(0x0201));
        assert!(Cursor(&[0; 20]).little(9).is_err());
    }

    #[test]
    fn odd_widths_are_read_in_both_orders() {
        assert_eq!(Cursor(&[1, 2, 3]).little(3), Ok(0x03_02_01));
        assert_eq!(Cursor(&[1, 2, 3]).big(3), Ok(0x01_02_03));
    }
}
