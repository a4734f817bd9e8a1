//! "Did you mean": the nearest of the known words.

/// The known word nearest to `word`, if one is near enough to be a slip of the finger: a third of its letters, at least one.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let bound = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["url", "tables", "type", "consistency"];
        for (word, expected) in [
            ("urll", Some("url")),
            ("ulr", Some("url")),
            ("table", Some("tables")),
            ("Consistancy", Some("consistency")),
            ("password", None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
    }
}
