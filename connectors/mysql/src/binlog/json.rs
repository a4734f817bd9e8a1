//! MySQL's binary JSON, written as text exactly as the server prints it.

use super::cursor::{Read, damage};

/// What a document's text is longer than its bytes, at most: an escaped control character takes six for one.
pub(super) const GROWTH: usize = 8;

/// Appends a document's text.
pub(super) fn write(value: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let _ = (value, out);
    damage("JSON")
}
