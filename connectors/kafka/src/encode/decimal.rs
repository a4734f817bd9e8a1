//! Decimals as Connect's `precise` mode has them: the unscaled number, big-endian two's complement, in as few bytes as hold
//! it (Java's `BigInteger.toByteArray`).

/// Bytes that hold 65 digits and a sign: 216 bits and one.
const WIDTH: usize = 28;

/// The bytes of a decimal in plain notation (`-12.50`), right-aligned in `buffer`; gives where they start, or `None` if
/// the text is no decimal of at most 65 digits.
pub(crate) fn unscaled(text: &[u8], buffer: &mut [u8; WIDTH]) -> Option<usize> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        _ => (false, text),
    };
    if digits.len() <= 38 {
        small(digits, negative, buffer)?
    } else {
        large(digits, negative, buffer)?
    }
    Some(minimal(buffer))
}

/// A buffer for [`unscaled`].
pub(crate) fn buffer() -> [u8; WIDTH] {
    [0; WIDTH]
}

fn small(digits: &[u8], negative: bool, buffer: &mut [u8; WIDTH]) -> Option<()> {
    let mut number: i128 = 0;
    let mut seen = false;
    for &c in digits {
        if c == b'.' {
            continue;
        }
        number = number * 10 + i128::from(digit(c)?);
        seen = true;
    }
    let number = if negative { -number } else { number };
    buffer.fill(if number < 0 { 0xff } else { 0 });
    buffer[WIDTH - 16..].copy_from_slice(&number.to_be_bytes());
    seen.then_some(())
}

fn large(digits: &[u8], negative: bool, buffer: &mut [u8; WIDTH]) -> Option<()> {
    if digits.len() > 66 {
        return None;
    }
    buffer.fill(0);
    for &c in digits.iter().filter(|&&c| c != b'.') {
        let mut carry = u16::from(digit(c)?);
        for byte in buffer.iter_mut().rev() {
            carry += u16::from(*byte) * 10;
            *byte = carry as u8;
            carry >>= 8;
        }
    }
    if negative {
        negate(buffer);
    }
    Some(())
}

fn digit(c: u8) -> Option<u8> {
    c.is_ascii_digit().then(|| c - b'0')
}

fn negate(buffer: &mut [u8; WIDTH]) {
    let mut carry = true;
    for byte in buffer.iter_mut().rev() {
        let (value, over) = (!*byte).overflowing_add(u8::from(carry));
        *byte = value;
        carry = over;
    }
}

/// Where the shortest form starts: sign bytes go as long as the next byte's top bit still tells the sign.
fn minimal(buffer: &[u8; WIDTH]) -> usize {
    let sign = if buffer[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut start = 0;
    while start < WIDTH - 1 && buffer[start] == sign && (buffer[start + 1] ^ sign) & 0x80 == 0 {
        start += 1;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        let mut buffer = buffer();
        let start = unscaled(text.as_bytes(), &mut buffer).unwrap();
        buffer[start..].iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn bytes_are_those_of_javas_big_integer() {
        for (text, bytes) in [
            ("0", "00"),
            ("0.00", "00"),
            ("-0.01", "ff"),
            ("1.27", "7f"),
            ("1.28", "0080"),
            ("-1.28", "80"),
            ("-1.29", "ff7f"),
            ("123456789.01", "02dfdc1c35"),
            ("99999999999999999999999999999999999999", "4b3b4ca85a86c47a098a223fffffffff"),
        ] {
            assert_eq!(hex(text), bytes, "{text}");
        }
    }

    #[test]
    fn sixty_five_digits_fit() {
        let nines = "9".repeat(65);
        assert_eq!(hex(&nines), "00f316271c7fc3908a8bef464e3945ef7a253609ffffffffffffffff");
        assert_eq!(hex(&format!("-{nines}")), "ff0ce9d8e3803c6f757410b9b1c6ba1085dac9f60000000000000001");
    }

    #[test]
    fn both_ways_agree_where_both_apply() {
        for text in ["0", "-1", "12345678901234567890.12345", "-99999999999999999999999999999999999999"] {
            let (negative, digits) = text.strip_prefix('-').map_or((false, text), |d| (true, d));
            let (mut a, mut b) = (buffer(), buffer());
            small(digits.as_bytes(), negative, &mut a).unwrap();
            large(digits.as_bytes(), negative, &mut b).unwrap();
            assert_eq!(a, b, "{text}");
        }
    }
}
