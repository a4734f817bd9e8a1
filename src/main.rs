//! The entry point of the `caudal` binary. Everything else is in [`daemon`].

mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main()
}
