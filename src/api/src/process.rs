//! What the process itself uses, under the names that Prometheus' clients give it. Linux only; elsewhere these are absent.

use std::fmt::Write;

/// Kernel clock ticks per second as shown in `/proc`: 100 on every Linux architecture (proc(5), USER_HZ).
const TICKS: f64 = 100.0;

/// Appends the gauges.
pub(crate) fn expose(out: &mut String, version: &str, started_us: i64) {
    let _ = writeln!(
        out,
        "# HELP caudal_build_info The running version\n# TYPE caudal_build_info gauge\ncaudal_build_info{{version=\"{version}\"}} 1"
    );
    gauge(out, "process_start_time_seconds", "gauge", started_us as f64 / 1e6);
    if let Some(bytes) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes)
    {
        gauge(out, "process_resident_memory_bytes", "gauge", bytes as f64);
    }
    if let Some(seconds) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        gauge(out, "process_cpu_seconds_total", "counter", seconds);
    }
}

fn gauge(out: &mut String, name: &str, kind: &str, value: f64) {
    let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
}

/// The line `VmRSS:   1234 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Fields 14 and 15, counted behind the command's name, which may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2 << 20));
        let stat = "1 (a b) c) S 1 1 1 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }
}
