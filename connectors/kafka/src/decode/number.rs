//! Decimal numbers: from the unscaled big-endian two's complement of the wire to plain notation.

/// Ten to the ninth: the largest power of ten below 2^32.
const CHUNK: u64 = 1_000_000_000;
/// Longer than any DECIMAL(65) needs (27): bounds the work of a damaged record.
const MAX_BYTES: usize = 64;

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
    }
}
