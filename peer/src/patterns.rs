//! Patterns of names, as in a gitignore file.

use ignore::overrides::{Override, OverrideBuilder};

/// Patterns that pick names: a later one counts for more, and `!` takes out what it matches.
#[derive(Clone, Debug)]
pub(crate) struct Patterns(Override);

impl Patterns {
    /// Reads patterns. None at all match every name.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub(crate) fn new(patterns: &[String]) -> Result<Self, String> {
        let malformed =
            |pattern: &str, error: ignore::Error| format!("{pattern:?} is not a pattern: {error}");
        let mut all = OverrideBuilder::new("/");
        for pattern in patterns {
            all.add(pattern).map_err(|error| malformed(pattern, error))?;
        }
        all.build().map(Self).map_err(|error| malformed(&patterns.join(" "), error))
    }

    /// Whether they pick this name.
    pub(crate) fn pick(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.matched(name, false).is_whitelist()
    }
}
