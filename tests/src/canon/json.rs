//! JSON text with sorted keys, no blanks and plain decimal numbers, without passing numbers through floating point.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::value::RawValue;

/// The canonical form of a JSON text.
pub(super) fn canonical(text: &str) -> Result<String> {
    let raw: &RawValue = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
    let mut out = String::with_capacity(text.len());
    write(raw.get(), &mut out)?;
    Ok(out)
}

fn write(raw: &str, out: &mut String) -> Result<()> {
    match raw.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw)?;
            out.push('{');
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(key)?);
                out.push(':');
                write(value.get(), out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw)?;
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item.get(), out)?;
            }
            out.push(']');
        }
        Some(b'"') => out.push_str(&serde_json::to_string(&serde_json::from_str::<String>(raw)?)?),
        Some(b'-' | b'0'..=b'9') => out.push_str(&number(raw)?),
        _ => out.push_str(raw),
    }
    Ok(())
}

/// Digits, point moved to where the exponent says, no zeros at either end that say nothing.
fn number(raw: &str) -> Result<String> {
    let (sign, raw) = raw.strip_prefix('-').map_or(("", raw), |r| ("-", r));
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let exponent: i32 = exponent.trim_start_matches('+').parse().with_context(|| format!("number {raw}"))?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    let (whole, fraction) = if point <= 0 {
        (String::new(), format!("{}{digits}", "0".repeat(point.unsigned_abs() as usize)))
    } else if point as usize >= digits.len() {
        (format!("{digits}{}", "0".repeat(point as usize - digits.len())), String::new())
    } else {
        let (w, f) = digits.split_at(point as usize);
        (w.to_owned(), f.to_owned())
    };
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    Ok(match (whole, fraction) {
        ("", "") => "0".to_owned(),
        (w, "") => format!("{sign}{w}"),
        (w, f) => format!("{sign}{}.{f}", if w.is_empty() { "0" } else { w }),
    })
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn numbers_are_exact_and_plain() {
        let c = |s| canonical(s).unwrap();
        assert_eq!(c("1.50e3"), "1500");
        assert_eq!(c("-0.00120"), "-0.0012");
        assert_eq!(c("12345678901234567890.10"), "12345678901234567890.1");
        assert_eq!(c("1e-3"), "0.001");
        assert_eq!(c("-0.0"), "0");
    }

    #[test]
    fn keys_are_sorted_and_escapes_resolved() {
        assert_eq!(canonical(r#" { "b" : [ ], "\u0061" : null } "#).unwrap(), r#"{"a":null,"b":[]}"#);
    }
}
