//! JSON strings.

/// The eight bytes of `b` repeated.
const fn repeat(b: u8) -> u64 {
    u64::from_ne_bytes([b; 8])
}

/// Whether any of eight bytes needs an escape: below 0x20, `"` or `\`. The usual test for a zero byte in a word, applied to
/// the word with the wanted byte cancelled out; it may take a byte for special whose lower neighbour is, never miss one.
fn any_special(word: u64) -> bool {
    const LOW: u64 = repeat(0x01);
    const HIGH: u64 = repeat(0x80);
    let zero = |w: u64| w.wrapping_sub(LOW) & !w;
    let control = word.wrapping_sub(repeat(0x20)) & !word;
    (control | zero(word ^ repeat(b'"')) | zero(word ^ repeat(b'\\'))) & HIGH != 0
}

fn special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes at the start of `text` stand for themselves.
fn plain(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        if any_special(word) {
            break;
        }
        at += 8;
    }
    at + text[at..].iter().position(|&b| special(b)).unwrap_or(text.len() - at)
}

/// Appends `text` (UTF-8) in quotes, escaped as Jackson does.
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    loop {
        let run = plain(rest);
        out.extend_from_slice(&rest[..run]);
        let Some(&byte) = rest.get(run) else { break };
        escape(out, byte);
        rest = &rest[run + 1..];
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_survives_at_every_place_of_a_word() {
        for special in (0u8..0x20).chain([b'"', b'\\', b'a', 0x7f]) {
            for at in 0..24 {
                let mut text = "é-abcdefghijklmnopqrstuvwx".to_owned();
                text.insert(text.char_indices().nth(at).unwrap().0, char::from(special));
                let mut out = Vec::new();
                string(&mut out, text.as_bytes());
                assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            }
        }
    }

    #[test]
    fn escapes_are_jacksons() {
        let mut out = Vec::new();
        string(&mut out, "\u{1f}\n\"\\/é\u{7f}".as_bytes());
        assert_eq!(out, "\"\\u001F\\n\\\"\\\\/é\u{7f}\"".as_bytes());
    }
}
