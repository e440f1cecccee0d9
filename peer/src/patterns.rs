//! Patterns of names and paths, as in a gitignore file.

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};

/// Whether `!` may take out what earlier patterns picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceptions {
    /// It may.
    Allowed,
    /// Such a pattern is refused.
    Refused,
}

/// Patterns that pick names or paths. A later one counts for more.
#[derive(Clone, Debug)]
pub(crate) struct Patterns(Gitignore);

impl Patterns {
    /// Reads patterns. None at all pick everything.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub(crate) fn new(patterns: &[String], exceptions: Exceptions) -> Result<Self, String> {
        let mut all = builder();
        for pattern in patterns {
            let malformed = |error: ignore::Error| format!("{pattern:?} is not a pattern: {error}");
            if exceptions == Exceptions::Refused && pattern.starts_with('!') {
                return Err(format!("the pattern {pattern:?} starts with '!', which takes out nothing here"));
            }
            // A comment or an empty line would count as no pattern.
            let mut one = builder();
            let read = one.add_line(None, pattern).and_then(|one| one.build()).map_err(malformed)?;
            if read.len() != 1 {
                return Err(format!("{pattern:?} is not a pattern"));
            }
            all.add_line(None, pattern).map_err(malformed)?;
        }
        let all = all
            .build()
            .map_err(|error| format!("{} cannot be used together: {error}", patterns.join(" ")))?;
        Ok(Self(all))
    }

    /// Whether they pick this name, or this path below a folder, or a directory that it is in.
    pub(crate) fn pick(&self, path: &str, is_directory: bool) -> bool {
        self.0.is_empty()
            || matches!(self.0.matched_path_or_any_parents(path, is_directory), Match::Ignore(_))
    }
}

/// Reads patterns as git does, except that an unclosed `[` is a mistake.
fn builder() -> GitignoreBuilder {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(patterns: &[&str], exceptions: Exceptions) -> Result<Patterns, String> {
        Patterns::new(&patterns.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>(), exceptions)
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for exceptions in [Exceptions::Allowed, Exceptions::Refused] {
            for bad in ["", "# a", "[z-a]", "a["] {
                let error = read(&["*.mp4", bad], exceptions).expect_err(bad);
                assert!(error.contains("is not a pattern"), "{error}");
            }
            assert!(read(&["*.mp4"], exceptions).is_ok());
            assert!(read(&[], exceptions).is_ok_and(|all| all.pick("anything", false)));
        }
        assert!(read(&["!a"], Exceptions::Refused).expect_err("an exception").contains("starts with '!'"));
    }

    #[test]
    fn exceptions_take_out_what_came_before_them() {
        let picked = |patterns: &[&str]| {
            let patterns = read(patterns, Exceptions::Allowed).expect("patterns");
            ["a.mp4", "b.mp4", "c.srt"].map(|name| patterns.pick(name, false))
        };
        assert_eq!(picked(&["*.mp4", "!a*"]), [false, true, false]);
        assert_eq!(picked(&["!a*", "*.mp4"]), [true, true, false]);
        assert_eq!(picked(&["!a*"]), [false, false, false]);
    }
}
