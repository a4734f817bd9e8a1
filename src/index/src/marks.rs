//! One bit for each entry of an index.

/// Which entries were met. Memory: one bit per entry.
#[derive(Clone, Debug)]
pub struct Marks {
    bits: Vec<u64>,
    len: u64,
    set: u64,
}

impl Marks {
    /// For an index of `len` entries, none met.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self { bits: vec![0; len.div_ceil(64) as usize], len, set: 0 }
    }

    /// Marks the entry at `at`; one beyond the end is none.
    pub fn set(&mut self, at: u64) {
        if at < self.len && !self.get(at) {
            self.bits[(at / 64) as usize] |= 1 << (at % 64);
            self.set += 1;
        }
    }

    /// Whether the entry at `at` is marked.
    #[must_use]
    pub fn get(&self, at: u64) -> bool {
        at < self.len && self.bits[(at / 64) as usize] & (1 << (at % 64)) != 0
    }

    /// How many entries are not.
    #[must_use]
    pub fn unset(&self) -> u64 {
        self.len - self.set
    }
}
