//! Numbers and strings as Java's libraries write them: what a byte-for-byte likeness of Debezium needs.
//!
//! Digits are the shortest that read back, as Java writes them since 19; older ones at times write one more.

use crate::encode::text;

/// As `Float.toString`.
pub(crate) fn float(out: &mut Vec<u8>, f: f32) {
    let mut buffer = zmij::Buffer::new();
    notation(out, buffer.format(f), (1e-3..1e7).contains(&f.abs()) || f == 0.0);
}

/// As `Double.toString`.
pub(crate) fn double(out: &mut Vec<u8>, f: f64) {
    let mut buffer = zmij::Buffer::new();
    notation(out, buffer.format(f), (1e-3..1e7).contains(&f.abs()) || f == 0.0);
}

/// Java writes numbers from a thousandth to ten million plainly, others as `d.ddE±x`. `digits`: the shortest ones, in any
/// notation.
fn notation(out: &mut Vec<u8>, digits: &str, plain: bool) {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().unwrap_or(0)),
        None => (digits, 0),
    };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        // Infinities and NaN, which JSON has not.
        return out.extend_from_slice(b"null");
    }
    // The number is 0.<significant> times ten to `point`.
    let all = format!("{whole}{fraction}");
    let leading = all.len() - all.trim_start_matches('0').len();
    let significant = all.trim_matches('0');
    let point = whole.len() as i32 + exponent - leading as i32;
    out.extend_from_slice(sign.as_bytes());
    match significant {
        "" => out.extend_from_slice(b"0.0"),
        _ if plain => plainly(out, significant, point),
        _ => {
            let (first, rest) = significant.split_at(1);
            let rest = if rest.is_empty() { "0" } else { rest };
            out.extend_from_slice(format!("{first}.{rest}E{}", point - 1).as_bytes());
        }
    }
}

fn plainly(out: &mut Vec<u8>, significant: &str, point: i32) {
    let text = match usize::try_from(point) {
        Err(_) | Ok(0) => format!("0.{}{significant}", "0".repeat(point.unsigned_abs() as usize)),
        Ok(point) if point >= significant.len() => {
            format!("{significant}{}.0", "0".repeat(point - significant.len()))
        }
        Ok(point) => format!("{}.{}", &significant[..point], &significant[point..]),
    };
    out.extend_from_slice(text.as_bytes());
}

/// As Jackson writes a string to bytes: characters beyond the first plane are escaped as two surrogates.
pub(crate) fn string(out: &mut Vec<u8>, utf8: &[u8]) {
    let start = out.len();
    text::string(out, utf8);
    if !out[start..].iter().any(|&b| b >= 0xf0) {
        return;
    }
    let plain = String::from_utf8_lossy(&out[start..]).into_owned();
    out.truncate(start);
    for c in plain.chars() {
        if c.len_utf8() < 4 {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.extend_from_slice(format!("\\u{unit:04X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_those_of_javas_to_string() {
        for (f, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (1e-4, "1.0E-4"),
            (100.0, "100.0"),
            (1_234_567.0, "1234567.0"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (1e21, "1.0E21"),
            (-1.797_693_134_862_315_7e308, "-1.7976931348623157E308"),
            (1.234_567_890_123_456_8e17, "1.2345678901234568E17"),
            (f64::NAN, "null"),
        ] {
            let mut out = Vec::new();
            double(&mut out, f);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn floats_are_those_of_javas_to_string() {
        for (f, text) in
            [(0.1_f32, "0.1"), (16_777_216.0, "1.6777216E7"), (-1.5e30, "-1.5E30"), (1e-10, "1.0E-10")]
        {
            let mut out = Vec::new();
            float(&mut out, f);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn characters_beyond_the_first_plane_are_two_escapes() {
        let mut out = Vec::new();
        string(&mut out, "汉\"🦫".as_bytes());
        assert_eq!(out, "\"汉\\\"\\uD83E\\uDDAB\"".as_bytes());
    }
}
