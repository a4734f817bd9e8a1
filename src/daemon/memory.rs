//! How the C library's allocator deals with the daemon's large, short-lived buffers.
//!
//! Left to itself glibc makes an arena for nearly each thread and keeps what is freed in them: the daemon then holds two or three times
//! what it uses. With two arenas, and with buffers of 128 KiB and more mapped and unmapped one by one, it holds what it uses, at
//! the same speed; `docs/performance.md` has the figures, beside those of other allocators. glibc reads these settings from
//! the environment when a process starts, and only there. So the daemon starts itself once more with them: the same program,
//! arguments and process id. An environment that has any setting of the allocator is left as it is.

use std::ffi::OsString;

/// What glibc is told: its names, in `mallopt(3)`.
const SETTINGS: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Starts this program again with the settings, unless they are there. Must come before anything else is started.
pub(crate) fn settle() {
    if cfg!(all(target_os = "linux", target_env = "gnu"))
        && !is_settled(std::env::vars_os().map(|(name, _)| name))
    {
        again();
    }
}

/// Whether someone has chosen already: we, or the operator.
fn is_settled(mut names: impl Iterator<Item = OsString>) -> bool {
    names.any(|name| {
        name.to_str().is_some_and(|n| n.starts_with("MALLOC_") || n == "GLIBC_TUNABLES" || n == "LD_PRELOAD")
    })
}

/// Comes back only if it can't be done; then all goes on, with more memory.
fn again() {
    use std::os::unix::process::CommandExt;
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
    let error = std::process::Command::new(program).arg0(name).args(arguments).envs(SETTINGS).exec();
    drop(error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_chose_is_left_alone() {
        let settled = |names: &[&str]| is_settled(names.iter().map(OsString::from));
        assert!(!settled(&["PATH", "HOME"]));
        assert!(settled(&["PATH", "MALLOC_ARENA_MAX"]));
        assert!(settled(&["LD_PRELOAD"]));
        assert!(SETTINGS.iter().all(|(name, _)| settled(&[name])), "else it would start itself for ever");
    }
}
