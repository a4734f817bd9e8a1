//! Character sets: from a column's bytes to UTF-8, as the server itself would convert.

use caudal_core::Result;

/// A character set whose bytes can be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charset {
    name: &'static str,
}

impl Charset {
    /// By the server's name for it: `utf8mb4`, `latin1`, …
    ///
    /// # Errors
    /// `Data`, naming it, for a set that is not covered.
    pub fn by_name(name: &str) -> Result<Self> {
        let _ = name;
        Err(caudal_core::Error::bug("character set"))
    }

    /// By the id of a collation.
    ///
    /// # Errors
    /// `Data`, naming the id, for one that is not known.
    pub fn by_collation(id: u32) -> Result<Self> {
        let _ = id;
        Err(caudal_core::Error::bug("character set"))
    }

    /// The server's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Whether it is `binary`: bytes, not text.
    #[must_use]
    pub fn is_binary(self) -> bool {
        self.name == "binary"
    }
}
