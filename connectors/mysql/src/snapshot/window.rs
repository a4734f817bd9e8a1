//! The keys that the stream touched since a window opened.

use caudal_core::TableId;
use std::collections::HashSet;

/// Bound on the recorded keys' bytes, with what the set itself takes for each.
pub(crate) const MAX_BYTES: usize = 32 << 20;
/// What one key takes beside its bytes.
const OVERHEAD: usize = 48;

/// An open window on one table.
pub(crate) struct Window {
    table: TableId,
    keys: HashSet<Box<[u8]>>,
    bytes: usize,
    broken: Option<&'static str>,
}

impl Window {
    /// Starts recording.
    pub(crate) fn open(table: TableId) -> Self {
        Self { table, keys: HashSet::new(), bytes: 0, broken: None }
    }

    /// Its table.
    pub(crate) fn table(&self) -> &TableId {
        &self.table
    }

    /// Records a key.
    pub(crate) fn touch(&mut self, key: &[u8]) {
        if self.broken.is_some() || self.keys.contains(key) {
            return;
        }
        self.bytes += key.len() + OVERHEAD;
        if self.bytes > MAX_BYTES {
            self.discard("too many keys changed meanwhile");
        } else {
            self.keys.insert(key.into());
        }
    }

    /// Makes the chunk void: it is read again.
    pub(crate) fn discard(&mut self, why: &'static str) {
        self.broken = Some(why);
        self.keys = HashSet::new();
    }

    /// Why the chunk is void, if it is.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// Whether any key was touched.
    pub(crate) fn is_untouched(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether this key was touched.
    pub(crate) fn touched(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_keys_are_bounded_and_more_make_the_chunk_void() {
        let mut window = Window::open(TableId::new("d", "t"));
        let big = vec![0u8; 1 << 20];
        for i in 0..40u8 {
            let mut key = big.clone();
            key[0] = i;
            window.touch(&key);
        }
        assert!(window.broken().is_some());
        assert!(window.is_untouched());
    }
}
