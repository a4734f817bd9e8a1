//! Decimal numbers: from the unscaled big-endian two's complement of the wire to plain notation.

/// Ten to the ninth: the largest power of ten below 2^32.
const CHUNK: u64 = 1_000_000_000;
/// Longer than any DECIMAL(65) needs (27): bounds the work of a damaged record.
const MAX_BYTES: usize = 64;

/// Appends the number `unscaled` / 10^`scale` as [`plain`] writes it; false, and nothing appended, if there are no bytes or too many.
pub(super) fn append(out: &mut Vec<u8>, unscaled: &[u8], scale: u8) -> bool {
    // What has 18 digits or less, as money has, needs no arithmetic over several words.
    if (1..=8).contains(&unscaled.len()) && scale <= 18 {
        let fill = if unscaled[0] & 0x80 == 0 { 0 } else { 0xff };
        let mut bytes = [fill; 8];
        bytes[8 - unscaled.len()..].copy_from_slice(unscaled);
        short(out, i64::from_be_bytes(bytes), usize::from(scale));
        return true;
    }
    let text = plain(unscaled, scale);
    out.extend_from_slice(text.as_deref().unwrap_or_default().as_bytes());
    text.is_some()
}

fn short(out: &mut Vec<u8>, number: i64, scale: usize) {
    let mut digits = [b'0'; 20];
    let (mut left, mut at) = (number.unsigned_abs(), digits.len());
    while left > 0 {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    if number < 0 {
        out.push(b'-');
    }
    let point = digits.len() - scale;
    // One digit stands before the point at least.
    let (whole, fraction) = (&digits[at.min(point - 1)..point], &digits[point..]);
    out.extend_from_slice(whole);
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
}

/// The number `unscaled` / 10^`scale` in plain notation, with exactly `scale` fraction digits; none if there are no bytes
/// or too many.
pub(super) fn plain(unscaled: &[u8], scale: u8) -> Option<String> {
    if unscaled.is_empty() || unscaled.len() > MAX_BYTES {
        return None;
    }
    let negative = unscaled[0] & 0x80 != 0;
    let digits = digits(magnitude(unscaled, negative), usize::from(scale));
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if negative { "-" } else { "" };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// The absolute value as 32-bit limbs, the least significant first.
fn magnitude(bytes: &[u8], negative: bool) -> Vec<u32> {
    let fill = if negative { 0xff } else { 0 };
    let mut limbs: Vec<u32> = bytes
        .rchunks(4)
        .map(|chunk| {
            let mut limb = [fill; 4];
            limb[4 - chunk.len()..].copy_from_slice(chunk);
            u32::from_be_bytes(limb)
        })
        .collect();
    if negative {
        negate(&mut limbs);
    }
    limbs
}

fn negate(limbs: &mut [u32]) {
    let mut carry = true;
    for limb in limbs {
        let (value, overflow) = (!*limb).overflowing_add(u32::from(carry));
        *limb = value;
        carry = overflow;
    }
}

/// Decimal digits, with zeros in front so that one stands before `scale` others.
fn digits(mut limbs: Vec<u32>, scale: usize) -> String {
    let mut chunks = Vec::new();
    while limbs.iter().any(|&limb| limb != 0) {
        chunks.push(divide(&mut limbs));
    }
    let mut text = String::with_capacity(chunks.len() * 9);
    for chunk in chunks.iter().rev() {
        text.push_str(&format!("{chunk:09}"));
    }
    let text = text.trim_start_matches('0');
    format!("{text:0>width$}", width = scale + 1)
}

/// Divides in place by 10^9 and gives the remainder.
fn divide(limbs: &mut [u32]) -> u64 {
    let mut remainder = 0;
    for limb in limbs.iter_mut().rev() {
        let value = remainder << 32 | u64::from(*limb);
        *limb = (value / CHUNK) as u32;
        remainder = value % CHUNK;
    }
    remainder
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_numbers_read_as_java_writes_them() {
        assert_eq!(plain(&[0], 2).unwrap(), "0.00");
        assert_eq!(plain(&[0x04, 0xe2], 2).unwrap(), "12.50");
        assert_eq!(plain(&[0xfb, 0x1e], 2).unwrap(), "-12.50");
        assert_eq!(plain(&[0xff], 3).unwrap(), "-0.001");
        assert_eq!(plain(&[0x80], 0).unwrap(), "-128");
        assert_eq!(plain(&[], 0), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_128_bit_integers(n in any::<i128>()) {
            prop_assert_eq!(plain(&n.to_be_bytes(), 0).unwrap(), n.to_string());
        }

        #[test]
        fn the_short_way_gives_what_the_long_way_gives(
            n in prop_oneof![any::<i64>(), -1_000..1_000_i64],
            skipped in 0..8_usize,
            scale in 0..=30_u8,
        ) {
            let mut out = b"x".to_vec();
            let bytes = n.to_be_bytes();
            prop_assert!(append(&mut out, &bytes[skipped..], scale));
            let long = plain(&bytes[skipped..], scale).unwrap();
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("x{long}"));
        }
    }
}
