//! DECIMAL: digits packed by nine into four bytes, big-endian, the sign in the first bit. (`decimal2bin` in MySQL's
//! `strings/decimal.cc`.)

use super::cursor::{Cursor, Read};

/// Bytes for 0 to 9 digits.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// 65 digits take at most 32 bytes.
const MOST_BYTES: usize = 40;

/// Bytes that a DECIMAL(precision, scale) takes; scale is not above precision.
pub(super) fn width(precision: u8, scale: u8) -> usize {
    let half = |digits: u8| usize::from(digits / 9) * 4 + GROUP_BYTES[usize::from(digits % 9)];
    half(precision - scale) + half(scale)
}

/// Appends the number in plain notation, with exactly `scale` fraction digits.
pub(super) fn write(c: &mut Cursor<'_>, precision: u8, scale: u8, out: &mut Vec<u8>) -> Read<()> {
    let raw = c.take(width(precision, scale))?;
    let mut bytes = [0u8; MOST_BYTES];
    bytes[..raw.len()].copy_from_slice(raw);
    let negative = raw.first().is_some_and(|b| b & 0x80 == 0);
    bytes[0] ^= 0x80;
    if negative {
        out.push(b'-');
        bytes[..raw.len()].iter_mut().for_each(|b| *b = !*b);
    }
    let mut digits = Cursor(&bytes[..raw.len()]);
    let start = out.len();
    let whole = usize::from(precision - scale);
    group(&mut digits, whole % 9, out)?;
    for _ in 0..whole / 9 {
        group(&mut digits, 9, out)?;
    }
    trim_zeros(out, start);
    if scale > 0 {
        out.push(b'.');
        for _ in 0..scale / 9 {
            group(&mut digits, 9, out)?;
        }
        group(&mut digits, usize::from(scale % 9), out)?;
    }
    Ok(())
}

/// `count` digits with their leading zeros.
fn group(c: &mut Cursor<'_>, count: usize, out: &mut Vec<u8>) -> Read<()> {
    if count == 0 {
        return Ok(());
    }
    let mut value = c.big(GROUP_BYTES[count])?;
    let start = out.len();
    out.resize(start + count, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    Ok(())
}

/// Leaves one zero in front of the point.
fn trim_zeros(out: &mut Vec<u8>, start: usize) {
    let zeros = out[start..].iter().take_while(|d| **d == b'0').count();
    let digits = out.len() - start;
    out.drain(start..start + zeros.min(digits.saturating_sub(1)));
    if digits == 0 {
        out.push(b'0');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], precision: u8, scale: u8) -> String {
        let mut out = Vec::new();
        let mut c = Cursor(bytes);
        write(&mut c, precision, scale, &mut out).unwrap();
        assert!(c.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_plain_with_their_scale() {
        assert_eq!(text(&[0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2], 14, 4), "1234567890.1234");
        assert_eq!(text(&[0x7e, 0xf2, 0x04, 0xc7, 0x2d, 0xfb, 0x2d], 14, 4), "-1234567890.1234");
        assert_eq!(text(&[0x80, 0x00], 4, 2), "0.00");
        assert_eq!(text(&[0x7f, 0xfe], 4, 2), "-0.01");
        assert_eq!(text(&[0x80], 1, 0), "0");
        assert_eq!(text(&[0x85], 1, 0), "5");
        assert_eq!(text(&[0x80, 0, 0, 5], 9, 0), "5");
        assert_eq!(text(&[0x80 | 5], 1, 1), "0.5");
    }

    #[test]
    fn no_decimal_is_wider_than_the_room_for_it() {
        for precision in 1..=65 {
            for scale in 0..=precision.min(38) {
                assert!(width(precision, scale) <= MOST_BYTES);
            }
        }
    }
}
