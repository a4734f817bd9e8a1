//! Doubles as the server prints them in JSON: the shortest digits that read back as the same number; plain where at
//! most 14 zeros stand in front of them, and the point behind at most 15 of them or between two of them; else with an exponent; `.0` marks a plain whole number.
//! (`my_gcvt` in MySQL's `dtoa.cc`; the limits were read off a server.)

use std::io::Write;

pub(super) fn write_double(value: f64, out: &mut Vec<u8>) {
    let mut buffer = [0u8; 32];
    let Some((digits, exponent)) = shortest(value, &mut buffer) else {
        // JSON has no such number, and the server stores none.
        out.extend_from_slice(b"null");
        return;
    };
    if value.is_sign_negative() {
        out.push(b'-');
    }
    // Where the point is, counted from the first digit.
    let point = exponent + 1;
    if point >= -14 && (point <= 15 || digits.len() as i32 > point) {
        plain(digits, point, out);
    } else {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let _ = write!(out, "e{exponent}");
    }
}

fn plain(digits: &[u8], point: i32, out: &mut Vec<u8>) {
    if point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(digits);
        return;
    }
    let point = point as usize;
    if digits.len() <= point {
        out.extend_from_slice(digits);
        out.resize(out.len() + point - digits.len(), b'0');
        out.extend_from_slice(b".0");
    } else {
        out.extend_from_slice(&digits[..point]);
        out.push(b'.');
        out.extend_from_slice(&digits[point..]);
    }
}

/// The digits without a point, and the exponent of the first one. Of two shortest forms that are equally near the server
/// takes the one with an even last digit: that is what rounding to this many digits gives.
fn shortest(value: f64, buffer: &mut [u8; 32]) -> Option<(&[u8], i32)> {
    if !value.is_finite() {
        return None;
    }
    let value = value.abs();
    let (digits, _) = scientific(format_args!("{value:e}"), buffer)?;
    let behind_point = digits.len() - 1;
    let mut even = [0u8; 32];
    let (even_digits, _) = scientific(format_args!("{value:.behind_point$e}"), &mut even)?;
    if even_digits != digits {
        return scientific(format_args!("{value:.behind_point$e}"), buffer);
    }
    scientific(format_args!("{value:e}"), buffer)
}

/// Takes `d.ddde±x` apart.
fn scientific<'b>(text: std::fmt::Arguments<'_>, buffer: &'b mut [u8; 32]) -> Option<(&'b [u8], i32)> {
    let mut rest = &mut buffer[..];
    rest.write_fmt(text).ok()?;
    let left = rest.len();
    let length = buffer.len() - left;
    let e = buffer[..length].iter().position(|b| *b == b'e')?;
    let exponent = std::str::from_utf8(&buffer[e + 1..length]).ok()?.parse().ok()?;
    if e == 1 {
        return Some((&buffer[..1], exponent));
    }
    // The first digit moves over the point.
    buffer[1] = buffer[0];
    Some((&buffer[1..e], exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::excessive_precision, reason = "exactly between two shorter ones")]
    fn doubles_are_printed_as_the_server_does() {
        for (value, want) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.0, "0.0"),
            (0.1, "0.1"),
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (1.234567890123456e17, "1.234567890123456e17"),
            (1e-15, "0.000000000000001"),
            (1.5e-15, "0.0000000000000015"),
            (1e-16, "1e-16"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (123_456_789.123_456_79, "123456789.12345679"),
            (1.385_520_178_387_855_8e15, "1385520178387855.8"),
            (-12.5, "-12.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (89_244_314_364_882.625, "89244314364882.62"),
        ] {
            let mut out = Vec::new();
            write_double(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
