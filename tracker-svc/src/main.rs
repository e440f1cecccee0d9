//! The `tracker-svc` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracker_svc::cli::main()
}
