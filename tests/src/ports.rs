//! Free ports on loopback.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// The range lies below the one from which the kernel takes ports for outgoing connections, so that a port found free stays free
/// until the server that it is for binds it.
const FIRST: u16 = 24_000;
const COUNT: u16 = 8_000;

/// A port of 127.0.0.1 on which nobody listens; never the same twice in one process.
///
/// # Errors
/// When the whole range is taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes of one machine start at different places.
    let start = (std::process::id().wrapping_mul(37) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

#[cfg(test)]
mod tests {
    use super::free_port;

    #[test]
    fn two_ports_are_never_the_same() {
        assert_ne!(free_port().unwrap(), free_port().unwrap());
    }
}
