//! What a shell sources: it asks this program for candidates by the name that stands in the line.

use std::path::Path;

/// A shell whose completions know groups, users, files and downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// The shell of that name or path.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        match Path::new(path).file_name()?.to_str()? {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }
}

/// The script of a shell.
pub(super) fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("scripts/peer.bash"),
        Shell::Zsh => include_str!("scripts/peer.zsh"),
        Shell::Fish => include_str!("scripts/peer.fish"),
    }
}
