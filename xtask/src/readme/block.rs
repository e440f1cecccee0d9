//! A block of commands on a page, and the environment that it runs in.

use std::{path::Path, process::Command};

/// Time limit of the blocks, in seconds. A page may contain a loop that waits for a condition that never holds.
pub(super) const LIMIT: &str = "600";

/// A block that is run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The path of the page.
    pub(super) page: String,
    /// The name of the machine, where the page has several.
    pub(super) host: Option<String>,
    pub(super) text: String,
}

/// Makes the command run in `home` with an empty environment except for HOME and PATH. The binaries in `bin`
/// come first in PATH.
pub(super) fn run_in_home(command: &mut Command, bin: &Path, home: &Path) {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env_clear().env("PATH", format!("{}:{path}", bin.display())).env("HOME", home).current_dir(home);
}
