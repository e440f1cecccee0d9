//! A file of the project, and a fault in it.

/// A file of the project.
pub(super) struct File {
    /// The path relative to the root, with `/` as the separator.
    pub(super) path: String,
    /// The text of the file. Empty if it isn't UTF-8.
    pub(super) text: String,
}

/// A fault to repair.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// `path` or `path:line`.
    pub(super) place: String,
    pub(super) message: String,
}

impl Finding {
    pub(super) fn at(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self { place: format!("{}:{line}", file.path), message: message.into() }
    }

    pub(super) fn of(path: &str, message: impl Into<String>) -> Self {
        Self { place: path.to_owned(), message: message.into() }
    }
}
