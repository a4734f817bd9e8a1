//! The keys that the stream touched since windows opened.
//!
//! Several windows may be open on one table. There is one record for all of them: each key with the number of the newest window
//! that was open when it was last touched. A window looks at keys touched since it opened; what no open window can ask for
//! any more is forgotten when one closes.

use std::collections::HashMap;

/// Bound on the recorded keys' bytes of one table, with what the map itself takes for each.
pub(crate) const MAX_BYTES: usize = 16 << 20;
/// What one key takes beside its bytes.
const OVERHEAD: usize = 56;

/// What was touched in one table while windows are open.
#[derive(Default)]
pub(crate) struct Recording {
    keys: HashMap<Box<[u8]>, u64>,
    bytes: usize,
    /// The newest window's number.
    newest: u64,
    open: Vec<u64>,
    /// Windows up to this number are void, and why.
    broken: Option<(u64, &'static str)>,
}

impl Recording {
    /// Opens a window: from now on touched keys are recorded for it. Gives its number.
    pub(crate) fn open(&mut self) -> u64 {
        self.newest += 1;
        self.open.push(self.newest);
        self.newest
    }

    /// Records a key.
    pub(crate) fn touch(&mut self, key: &[u8]) {
        if self.open.is_empty() {
            return;
        }
        if let Some(at) = self.keys.get_mut(key) {
            *at = self.newest;
            return;
        }
        self.bytes += key.len() + OVERHEAD;
        if self.bytes > MAX_BYTES {
            self.discard("too many keys changed meanwhile");
        } else {
            self.keys.insert(key.into(), self.newest);
        }
    }

    /// Makes all open windows void: their chunks are read again.
    pub(crate) fn discard(&mut self, why: &'static str) {
        self.broken = Some((self.newest, why));
        (self.keys, self.bytes) = (HashMap::new(), 0);
    }

    /// Why a window is void, if it is.
    pub(crate) fn broken(&self, window: u64) -> Option<&'static str> {
        self.broken.filter(|(upto, _)| window <= *upto).map(|(_, why)| why)
    }

    /// Whether any key was touched since windows opened.
    pub(crate) fn is_untouched(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether this key was touched since a window opened.
    pub(crate) fn touched(&self, window: u64, key: &[u8]) -> bool {
        self.keys.get(key).is_some_and(|at| *at >= window)
    }

    /// Closes a window; true if none is left.
    pub(crate) fn close(&mut self, window: u64) -> bool {
        self.open.retain(|w| *w != window);
        match self.open.first() {
            None => {
                (self.keys, self.bytes) = (HashMap::new(), 0);
                true
            }
            Some(&oldest) => {
                self.keys.retain(|_, at| *at >= oldest);
                self.bytes = self.keys.keys().map(|k| k.len() + OVERHEAD).sum();
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_keys_are_bounded_and_more_make_the_chunks_void() {
        let mut recording = Recording::default();
        let window = recording.open();
        let big = vec![0u8; 1 << 20];
        for i in 0..40u8 {
            let mut key = big.clone();
            key[0] = i;
            recording.touch(&key);
        }
        assert!(recording.broken(window).is_some());
        let later = recording.open();
        assert!(recording.broken(later).is_none());
    }

    #[test]
    fn each_window_sees_what_was_touched_since_it_opened_and_no_more() {
        let mut recording = Recording::default();
        let first = recording.open();
        recording.touch(b"a");
        recording.touch(b"b");
        let second = recording.open();
        recording.touch(b"b");
        assert!(recording.touched(first, b"a") && recording.touched(first, b"b"));
        assert!(!recording.touched(second, b"a") && recording.touched(second, b"b"));
        assert!(!recording.close(first));
        assert_eq!(recording.keys.len(), 1);
        assert!(recording.close(second) && recording.is_untouched());
    }
}
