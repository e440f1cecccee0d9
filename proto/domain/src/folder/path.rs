//! The path of an entry in a folder, and the target of a symbolic link.

use std::{fmt, str::FromStr};

use crate::{
    limits::{MAX_ENTRY_DEPTH, MAX_ENTRY_PATH},
    names::{NameError, check_file},
};

/// The path of an entry, relative to its folder: file names separated by `/`. It has no `.`, no `..` and no empty
/// component, so it never leads out of the folder. Paths are ordered by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Box<str>);

/// The reason why text is not the path of an entry, or not the target of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Too long, or in too many directories.
    #[error("a path in a folder has at most {MAX_ENTRY_PATH} bytes and {MAX_ENTRY_DEPTH} components")]
    TooLong,
    /// A component is not a valid file name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The target of a link is empty or absolute, or has `..` after a name.
    #[error("a link in a folder is relative, and has '..' only at its start")]
    Target,
}

impl EntryPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of the directories and of the entry itself.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The number of directories that the entry lies in, without the folder itself.
    pub fn depth(&self) -> usize {
        self.0.bytes().filter(|byte| *byte == b'/').count()
    }
}

impl FromStr for EntryPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_ENTRY_PATH || text.split('/').count() > MAX_ENTRY_DEPTH {
            return Err(PathError::TooLong);
        }
        text.split('/').try_for_each(check_file)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The target of a symbolic link, relative to the directory of the link.
///
/// `..` is allowed only at the start. A `..` behind a name could follow another link out of the folder although
/// the text stays inside: with `up -> .`, the target `up/../x` leads above the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTarget(Box<str>);

impl LinkTarget {
    /// The target as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many directories above its own the link goes.
    pub fn steps_up(&self) -> usize {
        self.0.split('/').filter(|component| *component == "..").count()
    }
}

impl FromStr for LinkTarget {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_ENTRY_PATH || text.split('/').count() > MAX_ENTRY_DEPTH {
            return Err(PathError::TooLong);
        }
        let mut after_name = false;
        for component in text.split('/') {
            match component {
                "" => return Err(PathError::Target),
                "." => {}
                ".." if after_name => return Err(PathError::Target),
                ".." => {}
                name => {
                    check_file(name)?;
                    after_name = true;
                }
            }
        }
        Ok(Self(text.into()))
    }
}
