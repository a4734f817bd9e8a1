//! Dates and times. The packed forms since MySQL 5.6 are big-endian bit fields with the fraction behind them; before that
//! (and in MariaDB with `mysql56_temporal_format=OFF`) each type had another one. (`my_time.cc` of MySQL, `sql/field.cc` of MariaDB.)

use super::cursor::{Cursor, Read, damage};
use caudal_core::temporal::{MICROS_PER_DAY, days_from_civil};
use std::io::Write;

/// Microseconds for a unit of the stored fraction, by its bytes.
const FRACTION_UNIT: [i64; 4] = [0, 10_000, 100, 1];
/// Microseconds for a unit of a fraction of n digits.
const DIGIT_UNIT: [i64; 7] = [1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
const MICROS: i64 = 1_000_000;

/// Parts of a date and time as stored, which need not be of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Moment {
    pub(super) year: u32,
    pub(super) month: u32,
    pub(super) day: u32,
    pub(super) hour: u32,
    pub(super) minute: u32,
    pub(super) second: u32,
    pub(super) micros: u32,
}

impl Moment {
    /// Microseconds since 1970-01-01 as if UTC; none if it is no moment of the calendar.
    pub(super) fn micros(self) -> Option<i64> {
        let days = days_from_civil(self.year as i32, self.month, self.day)?;
        if self.hour > 23 || self.minute > 59 || self.second > 59 || self.micros > 999_999 {
            return None;
        }
        let seconds = i64::from((self.hour * 60 + self.minute) * 60 + self.second);
        Some(days * MICROS_PER_DAY + seconds * MICROS + i64::from(self.micros))
    }

    /// As the servers write it, with as many fraction digits as declared.
    pub(super) fn write(self, precision: u8, out: &mut Vec<u8>) {
        self.write_date(out);
        let _ = write!(out, " {:02}:{:02}:{:02}", self.hour, self.minute, self.second);
        write_fraction(self.micros, precision, out);
    }

    /// The date alone.
    pub(super) fn write_date(self, out: &mut Vec<u8>) {
        let _ = write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day);
    }
}

pub(super) fn write_fraction(micros: u32, precision: u8, out: &mut Vec<u8>) {
    if precision > 0 {
        let unit = DIGIT_UNIT[usize::from(precision.min(6))] as u32;
        let _ = write!(out, ".{:0width$}", micros / unit, width = usize::from(precision));
    }
}

/// 3 bytes, little-endian: day in 5 bits, month in 4, year.
#[inline]
pub(super) fn date(c: &mut Cursor<'_>) -> Read<Moment> {
    let v = c.little(3)? as u32;
    Ok(Moment { year: v >> 9, month: v >> 5 & 15, day: v & 31, ..Moment::default() })
}

#[inline]
fn fraction_bytes(precision: u8) -> usize {
    usize::from(precision.min(6)).div_ceil(2)
}

/// Signed microseconds. The whole field is one number in two's complement, offset by half its range, fraction included.
#[inline]
pub(super) fn time(c: &mut Cursor<'_>, precision: u8) -> Read<i64> {
    let n = fraction_bytes(precision);
    let v = c.big(3 + n)? as i64 - (0x80_0000i64 << (8 * n));
    let size = v.unsigned_abs();
    let fraction = (size & ((1 << (8 * n)) - 1)) as i64 * FRACTION_UNIT[n];
    let hms = (size >> (8 * n)) as i64;
    let seconds = ((hms >> 12 & 0x3ff) * 60 + (hms >> 6 & 63)) * 60 + (hms & 63);
    Ok((seconds * MICROS + fraction) * v.signum())
}

/// 5 bytes: sign, year * 13 + month in 17 bits, day in 5, hour in 5, minute in 6, second in 6; then the fraction.
#[inline]
pub(super) fn datetime(c: &mut Cursor<'_>, precision: u8) -> Read<Moment> {
    let n = fraction_bytes(precision);
    let v = c.big(5)? & 0x7f_ffff_ffff;
    let micros = (c.big(n)? as i64 * FRACTION_UNIT[n]) as u32;
    Ok(unpack(v, micros))
}

/// Parts of the packed form without its sign, which JSON has too.
pub(super) fn unpack(v: u64, micros: u32) -> Moment {
    let months = (v >> 22) as u32;
    Moment {
        year: months / 13,
        month: months % 13,
        day: (v >> 17 & 31) as u32,
        hour: (v >> 12 & 31) as u32,
        minute: (v >> 6 & 63) as u32,
        second: (v & 63) as u32,
        micros,
    }
}

/// Microseconds since the epoch; none is the zero value.
#[inline]
pub(super) fn timestamp(c: &mut Cursor<'_>, precision: u8) -> Read<Option<i64>> {
    let n = fraction_bytes(precision);
    let seconds = c.big(4)? as i64;
    let micros = c.big(n)? as i64 * FRACTION_UNIT[n];
    Ok((seconds != 0 || micros != 0).then_some(seconds * MICROS + micros))
}

/// Decimal digits `[-]hhmmss` in 3 bytes; with a fraction a big-endian count of its units, offset so that it is positive.
pub(super) fn old_time(c: &mut Cursor<'_>, precision: u8) -> Read<i64> {
    if precision == 0 {
        let v = c.little(3)? as i64;
        let v = v << 40 >> 40;
        let size = v.abs();
        let seconds = (size / 10_000 * 60 + size / 100 % 100) * 60 + size % 100;
        return Ok(seconds * MICROS * v.signum());
    }
    const BYTES: [usize; 7] = [3, 4, 4, 5, 5, 5, 6];
    const ZERO: i64 = (838 * 3600 + 59 * 60 + 59 + 1) * MICROS;
    let unit = DIGIT_UNIT[usize::from(precision.min(6))];
    let v = c.big(BYTES[usize::from(precision.min(6))])? as i64;
    Ok((v - ZERO / unit) * unit)
}

/// Decimal digits `yyyymmddhhmmss` in 8 bytes; with a fraction a big-endian count of its units in mixed radix.
pub(super) fn old_datetime(c: &mut Cursor<'_>, precision: u8) -> Read<Moment> {
    if precision == 0 {
        let v = c.u64()?;
        let (d, t) = (v / 1_000_000, v % 1_000_000);
        if d > 99_991_231 {
            return damage("a DATETIME is beyond the year 9999");
        }
        let (d, t) = (d as u32, t as u32);
        return Ok(Moment {
            year: d / 10_000,
            month: d / 100 % 100,
            day: d % 100,
            hour: t / 10_000,
            minute: t / 100 % 100,
            second: t % 100,
            micros: 0,
        });
    }
    const BYTES: [usize; 7] = [5, 6, 6, 7, 7, 7, 8];
    let unit = DIGIT_UNIT[usize::from(precision.min(6))] as u64;
    let per_second = MICROS as u64 / unit;
    let v = c.big(BYTES[usize::from(precision.min(6))])?;
    let micros = (v % per_second * unit) as u32;
    let mut rest = v / per_second;
    let mut digit = |radix: u64| {
        let d = rest % radix;
        rest /= radix;
        d as u32
    };
    let (second, minute, hour, day) = (digit(60), digit(60), digit(24), digit(32));
    let month = digit(13);
    let year = u32::try_from(rest).unwrap_or(u32::MAX);
    if year > 9999 {
        return damage("a DATETIME is beyond the year 9999");
    }
    Ok(Moment { year, month, day, hour, minute, second, micros })
}

/// Seconds in 4 bytes, little-endian; with a fraction big-endian, and the fraction in its own units.
pub(super) fn old_timestamp(c: &mut Cursor<'_>, precision: u8) -> Read<Option<i64>> {
    let (seconds, micros) = if precision == 0 {
        (i64::from(c.u32()?), 0)
    } else {
        let seconds = c.big(4)? as i64;
        (seconds, c.big(fraction_bytes(precision))? as i64 * DIGIT_UNIT[usize::from(precision.min(6))])
    };
    Ok((seconds != 0 || micros != 0).then_some(seconds * MICROS + micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_times_carry_their_fraction_in_twos_complement() {
        assert_eq!(time(&mut Cursor(&[0x80, 0, 0]), 0), Ok(0));
        assert_eq!(time(&mut Cursor(&[0x7f, 0xff, 0xff]), 0), Ok(-MICROS));
        // -00:00:01.50 and -00:00:00.10
        assert_eq!(time(&mut Cursor(&[0x7f, 0xff, 0xfe, 0xce]), 2), Ok(-1_500_000));
        assert_eq!(time(&mut Cursor(&[0x7f, 0xff, 0xff, 0xf6]), 1), Ok(-100_000));
        // 838:59:59 and its negative
        let most = 838u32 << 12 | 59 << 6 | 59;
        let bytes = |v: u32| v.to_be_bytes()[1..].to_vec();
        assert_eq!(time(&mut Cursor(&bytes(0x80_0000 + most)), 0), Ok(3_020_399 * MICROS));
        assert_eq!(time(&mut Cursor(&bytes(0x80_0000 - most)), 0), Ok(-3_020_399 * MICROS));
    }

    #[test]
    fn datetimes_unpack_and_zero_is_no_moment() {
        let v = ((2024u64 * 13 + 2) << 22 | 29 << 17 | 23 << 12 | 59 << 6 | 58) | 1 << 39;
        let bytes = [&v.to_be_bytes()[3..], &[0x0f, 0x42, 0x3f]].concat();
        let moment = datetime(&mut Cursor(&bytes), 6).unwrap();
        assert_eq!(moment.micros(), Some(1_709_251_198_999_999));
        let mut text = Vec::new();
        moment.write(3, &mut text);
        assert_eq!(text, b"2024-02-29 23:59:58.999");
        let zero = datetime(&mut Cursor(&[0x80, 0, 0, 0, 0]), 0).unwrap();
        assert_eq!(zero.micros(), None);
        text.clear();
        zero.write(0, &mut text);
        assert_eq!(text, b"0000-00-00 00:00:00");
    }

    #[test]
    fn old_forms_are_digits_in_decimal() {
        assert_eq!(old_time(&mut Cursor(&(-12_34_56i32).to_le_bytes()[..3]), 0), Ok(-45_296 * MICROS));
        let v = 20_240_229_123_456u64;
        let moment = old_datetime(&mut Cursor(&v.to_le_bytes()), 0).unwrap();
        assert_eq!((moment.year, moment.day, moment.second), (2024, 29, 56));
        assert_eq!(old_timestamp(&mut Cursor(&[1, 0, 0, 0]), 0), Ok(Some(MICROS)));
        assert_eq!(old_timestamp(&mut Cursor(&[0, 0, 0, 1, 5]), 1), Ok(Some(MICROS + 500_000)));
        assert_eq!(old_timestamp(&mut Cursor(&[0, 0, 0, 0]), 0), Ok(None));
        assert!(old_datetime(&mut Cursor(&[255; 8]), 0).is_err());
        assert!(old_datetime(&mut Cursor(&[255; 8]), 6).is_err());
    }
}
