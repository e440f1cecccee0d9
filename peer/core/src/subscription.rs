//! Decides which files of a group a subscription downloads: each name once.
//!
//! The tracker names what is published while the announce stream is open. After a break, the peer lists the whole
//! group. Both end in [`Seen::sift`], so a file that is named twice is started once, and one that was missed is
//! started by the list.

use std::collections::{BTreeMap, BTreeSet};

use domain::{FileId, FileName};

/// A file that the group lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: FileName,
    /// Its id. New content under the same name has another one.
    pub file: FileId,
}

/// The files that a subscription has taken care of: by name, the id that the name had then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<FileName, FileId>);

impl Seen {
    /// Notes a file that was started, or that is not to be started.
    pub fn note(&mut self, listed: Listed) {
        self.0.insert(listed.name, listed.file);
    }

    /// Forgets the names that the group no longer lists. `listed` is all of the group. A name that comes back is new.
    pub fn keep_listed(&mut self, listed: &[Listed]) {
        let names: BTreeSet<_> = listed.iter().map(|listed| &listed.name).collect();
        self.0.retain(|name, _| names.contains(name));
    }

    /// Returns the files to start, in the given order: those whose name matches, that this peer does not have, and
    /// whose name was not seen. With `versions`, also those whose name was seen with another id. Notes those that the
    /// peer has.
    pub fn sift(
        &mut self,
        listed: Vec<Listed>,
        versions: bool,
        matches: impl Fn(&FileName) -> bool,
        has: impl Fn(FileId) -> bool,
    ) -> Vec<Listed> {
        let mut wanted = Vec::new();
        for listed in listed {
            let is_new = match self.0.get(&listed.name) {
                None => true,
                Some(seen) => versions && *seen != listed.file,
            };
            if !is_new || !matches(&listed.name) {
                continue;
            }
            if has(listed.file) {
                self.note(listed);
            } else {
                wanted.push(listed);
            }
        }
        wanted
    }

    /// All of them.
    pub fn files(&self) -> impl Iterator<Item = Listed> + '_ {
        self.0.iter().map(|(name, file)| Listed { name: name.clone(), file: *file })
    }
}

impl FromIterator<Listed> for Seen {
    fn from_iter<T: IntoIterator<Item = Listed>>(files: T) -> Self {
        let mut seen = Self::default();
        files.into_iter().for_each(|listed| seen.note(listed));
        seen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(name: &str, id: u8) -> Listed {
        let file = FileId::try_from(&[id; 16][..]).expect("a file id");
        Listed { name: name.parse().expect("a name"), file }
    }

    fn sift(seen: &mut Seen, files: &[Listed]) -> Vec<Listed> {
        seen.sift(files.to_vec(), false, |_| true, |_| false)
    }

    #[test]
    fn each_name_is_started_once() {
        let mut seen: Seen = [listed("old", 1)].into_iter().collect();
        let files = [listed("old", 1), listed("new", 2)];
        assert_eq!(sift(&mut seen, &files), files[1..]);
        assert_eq!(sift(&mut seen, &files), files[1..], "it was not started yet");
        seen.note(files[1].clone());
        assert_eq!(sift(&mut seen, &files), []);
        assert_eq!(sift(&mut seen, &[listed("new", 3)]), [], "a new version is no new file");
    }

    #[test]
    fn each_version_is_started_once_on_request() {
        let mut seen: Seen = [listed("a", 1)].into_iter().collect();
        let versions = |seen: &mut Seen, id| seen.sift(vec![listed("a", id)], true, |_| true, |_| false);
        assert_eq!(versions(&mut seen, 1), []);
        assert_eq!(versions(&mut seen, 2), [listed("a", 2)]);
        seen.note(listed("a", 2));
        assert_eq!(versions(&mut seen, 2), []);
        assert_eq!(versions(&mut seen, 3), [listed("a", 3)]);
    }

    #[test]
    fn a_name_that_comes_back_is_new() {
        let mut seen: Seen = [listed("a", 1), listed("b", 2)].into_iter().collect();
        seen.keep_listed(&[listed("b", 2)]);
        assert_eq!(seen.files().collect::<Vec<_>>(), [listed("b", 2)]);
        assert_eq!(sift(&mut seen, &[listed("a", 3)]), [listed("a", 3)]);
    }

    #[test]
    fn what_does_not_match_or_is_here_is_not_started() {
        let mut seen = Seen::default();
        let files = [listed("a.mp4", 1), listed("b.srt", 2), listed("c.mp4", 3)];
        let is_video = |name: &FileName| name.as_str().ends_with(".mp4");
        let here = files[0].file;
        let wanted = seen.sift(files.to_vec(), false, is_video, |file| file == here);
        assert_eq!(wanted, files[2..]);
        // It is not fetched when it is deleted here.
        assert_eq!(seen.sift(files.to_vec(), false, is_video, |_| false), files[2..]);
    }

    proptest! {
        /// Whatever order news and lists come in, and whichever news is lost: once a list has come, each published file
        /// was started exactly once.
        #[test]
        fn a_list_makes_up_for_lost_news(news in proptest::collection::vec((0_u8..20, any::<bool>()), 0..60)) {
            let (mut seen, mut published, mut started) = (Seen::default(), Vec::new(), Vec::new());
            let mut start = |seen: &mut Seen, named: Vec<Listed>| {
                for listed in seen.sift(named, false, |_| true, |_| false) {
                    seen.note(listed.clone());
                    started.push(listed);
                }
            };
            for (number, arrives) in news {
                let file = listed(&format!("f{number}"), number + 1);
                if !published.contains(&file) {
                    published.push(file.clone());
                }
                if arrives {
                    start(&mut seen, vec![file]);
                }
            }
            seen.keep_listed(&published);
            start(&mut seen, published.clone());
            started.sort_by(|a, b| a.name.cmp(&b.name));
            published.sort_by(|a, b| a.name.cmp(&b.name));
            prop_assert_eq!(started, published);
        }
    }
}
