//! The `peer` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    peer::cli::main()
}
