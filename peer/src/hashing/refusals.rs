//! The paths of a folder that can't be shared, as they are told to the user.

use std::{fmt, path::Path};

/// The most paths that are named.
const NAMED: usize = 10;

/// The paths of a folder that can't be shared.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// The first paths, each with the rule that it violates.
    named: Vec<String>,
    count: usize,
}

impl Refusals {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Adds a path, with the rule that it violates.
    pub(super) fn add(&mut self, path: &Path, rule: impl fmt::Display) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{}: {rule}", path.display()));
        }
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join("; "))?;
        if self.count > self.named.len() {
            write!(f, "; and {} more", self.count - self.named.len())?;
        }
        f.write_str(". Rename these, leave them out with --exclude, or add --skip-unsupported")
    }
}
