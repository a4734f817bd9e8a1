//! Decimal numbers of any length, compared exactly.

use std::cmp::Ordering;
use std::str::FromStr;

/// What the server's DECIMAL holds: more digits it would take for a double, and round.
const MOST_DIGITS: usize = 65;
const MOST_FRACTION: usize = 30;

/// A number as its digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    /// Without zeros in front.
    whole: String,
    /// Without zeros behind.
    fraction: String,
}

impl FromStr for Number {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all(whole) || !all(fraction) {
            return Err("no number");
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        if whole.len() + fraction.len() > MOST_DIGITS || fraction.len() > MOST_FRACTION {
            return Err("more digits than a DECIMAL has (65, 30 of them behind the point)");
        }
        let negative = text.starts_with('-') && !(whole.is_empty() && fraction.is_empty());
        Ok(Self { negative, whole: whole.to_owned(), fraction: fraction.to_owned() })
    }
}

impl Number {
    /// In plain digits.
    pub(super) fn text(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let whole = if self.whole.is_empty() { "0" } else { &self.whole };
        match self.fraction.as_str() {
            "" => format!("{sign}{whole}"),
            fraction => format!("{sign}{whole}.{fraction}"),
        }
    }

    /// The nearest double.
    pub(super) fn double(&self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }

    /// 0 or 1, if it is that.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.text().as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// How an integer stands to it.
    pub(super) fn order_of_integer(&self, integer: i128) -> Ordering {
        self.order_of(integer < 0, integer.unsigned_abs().to_string().trim_start_matches('0'), "")
    }

    /// How a decimal in plain ASCII notation stands to it; none if it is no such text.
    pub(super) fn order_of_text(&self, text: &str) -> Option<Ordering> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let plain = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
        let negative = text.starts_with('-') && !(whole.is_empty() && fraction.is_empty());
        plain.then(|| self.order_of(negative, whole, fraction))
    }

    fn order_of(&self, negative: bool, whole: &str, fraction: &str) -> Ordering {
        let size = whole
            .len()
            .cmp(&self.whole.len())
            .then_with(|| whole.cmp(&self.whole))
            // Without zeros behind, the text order of fractions is that of their values.
            .then_with(|| fraction.cmp(&self.fraction));
        match (negative, self.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size,
            (true, true) => size.reverse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value_whatever_their_digits() {
        let ordered =
            ["-100.5", "-100", "-0.01", "0", "0.001", "0.01", "0.1", "1", "9", "10", "18446744073709551616"];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                let number: Number = b.parse().unwrap();
                assert_eq!(number.order_of_text(a), Some(i.cmp(&j)), "{a} {b}");
                assert_eq!(
                    number.order_of_text(&a.replace("100", "0100").replace(".5", ".500")),
                    Some(i.cmp(&j))
                );
                if let Ok(integer) = a.parse::<i128>() {
                    assert_eq!(number.order_of_integer(integer), i.cmp(&j), "{a} {b}");
                }
            }
        }
        assert_eq!("-0.0".parse::<Number>().unwrap(), "0".parse().unwrap());
        assert_eq!("007.50".parse::<Number>().unwrap().text(), "7.5");
        assert!("1".repeat(66).parse::<Number>().is_err());
    }
}
