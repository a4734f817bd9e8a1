//! Figures as people read them.

use std::time::Duration;

/// Cells of a bar.
const BAR: u64 = 24;

/// With a comma every three digits: `203,782`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds: `7.9 ms`.
pub(crate) fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// How much of `all` is there, drawn.
pub(crate) fn bar(part: u64, all: u64) -> String {
    let full = (part.min(all) * BAR).checked_div(all).unwrap_or(BAR);
    "█".repeat(full as usize) + &"░".repeat((BAR - full) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped_by_three_digits() {
        assert_eq!(
            [0, 999, 1_000, 203_782, 1_000_000].map(grouped),
            ["0", "999", "1,000", "203,782", "1,000,000"]
        );
    }

    #[test]
    fn a_bar_is_full_when_all_is_there_even_if_that_is_nothing() {
        assert_eq!(bar(0, 0), "█".repeat(24));
        assert_eq!(bar(7, 7), "█".repeat(24));
        assert_eq!(bar(0, 7), "░".repeat(24));
        assert_eq!(bar(1, 2), "█".repeat(12) + &"░".repeat(12));
    }
}
