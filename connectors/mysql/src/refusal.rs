//! What the server refuses, as faults with hints.

/// Why a dump was refused (error 1236), named apart because what helps differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpRefusal {
    /// The log that holds the next transactions is gone.
    Purged,
    /// We have seen transactions that this server never had: another history, or the wrong server.
    Diverged,
    /// The start is no event's first byte, or beyond the end of its file.
    WrongPosition,
    /// Another client uses our server id.
    ServerIdTaken,
    /// Something else.
    Other,
}
