//! Which entries of a folder were chosen, where only a part of it is wanted.

use std::sync::Arc;

use proto::domain::folder::{EntryKind, Folder};

use crate::patterns::{Exceptions, Patterns};

/// The chosen entries of a folder, by their numbers. `None` for all.
pub(crate) type Chosen = Option<Arc<[bool]>>;

/// Whether an entry is chosen.
pub(crate) fn is_chosen(chosen: &Chosen, entry: usize) -> bool {
    chosen.as_ref().is_none_or(|chosen| chosen.get(entry).copied().unwrap_or(false))
}

/// The entries that match one of the patterns, which are those of a gitignore file: all without patterns.
pub(crate) fn choose(folder: &Folder, patterns: &[String]) -> Chosen {
    if patterns.is_empty() {
        return None;
    }
    // They were checked when the download was accepted. If they can't be read, they choose nothing.
    let patterns = Patterns::new(patterns, Exceptions::Refused).ok();
    let entries = folder.entries().iter().map(|entry| {
        let is_directory = matches!(entry.kind, EntryKind::EmptyDirectory);
        patterns.as_ref().is_some_and(|patterns| patterns.pick(entry.path.as_str(), is_directory))
    });
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::domain::{
        Blake3,
        folder::{Entry, FileEntry},
    };

    use super::*;

    #[test]
    fn patterns_choose_as_a_gitignore_file_does() {
        let file = FileEntry { length: 1, executable: false, modified_ns: 0, blake3: Blake3::from([0; 32]) };
        let paths = ["a.txt", "docs/a.txt", "docs/deep/b.md", "z"];
        let entry = |path: &&str| Entry { path: path.parse().unwrap(), kind: EntryKind::File(file) };
        let folder = Folder::new(paths.iter().map(entry).collect()).unwrap();
        for (patterns, expected) in [
            (&["*.txt"][..], &[true, true, false, false][..]),
            (&["/*.txt"], &[true, false, false, false]),
            (&["docs/"], &[false, true, true, false]),
            (&["docs", "z"], &[false, true, true, true]),
            (&["docs/**/*.md"], &[false, false, true, false]),
            (&["none"], &[false, false, false, false]),
        ] {
            let chosen = choose(&folder, &patterns.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
            let found: Vec<_> = (0..paths.len()).map(|entry| is_chosen(&chosen, entry)).collect();
            assert_eq!(found, expected, "{patterns:?}");
        }
        assert!((0..4).all(|entry| is_chosen(&choose(&folder, &[]), entry)));
    }
}
