//! What a process costs, read from `/proc`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The kernel's clock ticks per second on every Linux of today (`USER_HZ`).
const TICKS: f64 = 100.0;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time since its start, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most resident memory it ever had, in bytes.
    pub peak: u64,
}

/// The usage of a running process.
///
/// # Errors
/// When it doesn't run.
pub fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name in parentheses may hold blanks; the fields after it are numbered from 3 in proc(5).
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Ok(Usage { cpu_seconds: (ticks(14) + ticks(15)) / TICKS, resident: kib("VmRSS:"), peak: kib("VmHWM:") })
}

/// Sends a signal by name (`TERM`, `STOP`, `CONT`, `KILL`).
///
/// # Errors
/// When the process doesn't run.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    if !status.success() {
        bail!("signal {name} to process {pid}: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::usage;

    #[test]
    fn this_process_has_used_memory() {
        let u = usage(std::process::id()).unwrap();
        assert!(u.resident > 100_000 && u.peak >= u.resident, "{u:?}");
    }
}
