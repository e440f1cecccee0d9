//! The subscriptions of a user, in a file that outlives restarts and logouts.

use std::{
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use program::durable::{self, Readers};
use proto::domain::{FileId, FileName, GroupId};
use serde::{Deserialize, Serialize};

use crate::{
    domain::subscription::{Listed, Seen},
    library, paths, text,
};

/// The version of the file format that this program writes and reads.
const VERSION: u32 = 1;

/// What is published in a group is downloaded into a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscription {
    /// The group.
    #[serde(with = "text::stored")]
    pub group: GroupId,
    /// The absolute path of the directory.
    #[serde(with = "paths::stored")]
    pub directory: PathBuf,
    /// Which files, by name. None for all.
    pub patterns: Vec<String>,
    /// New versions of the files, too.
    #[serde(default)]
    pub update: bool,
    /// The umask of the caller: the permissions that the files do not get.
    pub umask: u32,
    /// The program that runs when a download is complete or has failed, with its arguments. Empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<String>,
    /// The number of downloads that it has started.
    pub started: u64,
    /// The files that it has taken care of.
    #[serde(with = "stored_seen")]
    pub seen: Seen,
    /// Why it does not get what it should. Found out again after a restart.
    #[serde(skip)]
    pub problem: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    subscriptions: Vec<Subscription>,
}

/// One user's subscriptions, at most one for each group. The lock is held during short file writes, never across an
/// await.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    path: PathBuf,
    kept: Mutex<Vec<Subscription>>,
}

impl Subscriptions {
    /// Opens the subscriptions in a user's directory. There are none at first.
    ///
    /// # Errors
    /// Fails when they can't be read, or were written by a newer version.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("subscriptions.json");
        let bad =
            |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let kept = match durable::read_if_there(&path)? {
            None => Vec::new(),
            Some(bytes) => {
                let stored: Stored =
                    serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
                if stored.version != VERSION {
                    let version = stored.version;
                    return Err(bad(format!(
                        "the file has version {version}, which this program does not support"
                    )));
                }
                stored.subscriptions
            }
        };
        Ok(Self { path, kept: Mutex::new(kept) })
    }

    /// All subscriptions, by group.
    pub(crate) fn all(&self) -> Vec<Subscription> {
        self.kept.lock().clone()
    }

    /// The subscription of a group.
    pub(crate) fn find(&self, group: &GroupId) -> Option<Subscription> {
        self.kept.lock().iter().find(|kept| kept.group == *group).cloned()
    }

    /// Adds a subscription, in place of an earlier one of the same group.
    ///
    /// # Errors
    /// Fails when the file system does. Nothing has changed then.
    pub(crate) fn put(&self, subscription: Subscription) -> io::Result<()> {
        self.change(|kept| {
            kept.retain(|old| old.group != subscription.group);
            kept.push(subscription);
            kept.sort_by(|a, b| a.group.cmp(&b.group));
        })
    }

    /// Ends the subscription of a group. Returns whether there was one.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) fn remove(&self, group: &GroupId) -> io::Result<bool> {
        self.change(|kept| {
            let before = kept.len();
            kept.retain(|old| old.group != *group);
            kept.len() != before
        })
    }

    /// Changes the subscription of a group, if there is one.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) fn update<T>(
        &self,
        group: &GroupId,
        change: impl FnOnce(&mut Subscription) -> T,
    ) -> io::Result<Option<T>> {
        self.change(|kept| kept.iter_mut().find(|kept| kept.group == *group).map(change))
    }

    /// Applies a change on disk first, then in memory.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Subscription>) -> T) -> io::Result<T> {
        let mut kept = self.kept.lock();
        let mut changed = kept.clone();
        let result = change(&mut changed);
        if changed != *kept {
            let stored = Stored { version: VERSION, subscriptions: changed };
            durable::write(&self.path, &serde_json::to_vec(&stored)?, Readers::Owner)?;
            *kept = stored.subscriptions;
        }
        Ok(result)
    }
}

/// `#[serde(with = "stored_seen")]`: a list of names and ids.
mod stored_seen {
    use serde::{Deserializer, Serializer};

    use super::{Deserialize, FileId, FileName, Listed, Seen, Serialize, library, text};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Stored {
        #[serde(with = "text::stored")]
        name: FileName,
        #[serde(with = "library::hex")]
        file: FileId,
    }

    pub(super) fn serialize<S: Serializer>(seen: &Seen, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(seen.files().map(|Listed { name, file }| Stored { name, file }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seen, D::Error> {
        let files = Vec::<Stored>::deserialize(deserializer)?;
        Ok(files.into_iter().map(|Stored { name, file }| Listed { name, file }).collect())
    }
}

#[cfg(test)]
mod tests {
    use testkit::content::file_id;

    use super::*;

    fn subscription(group: &str, directory: &str) -> Subscription {
        let name = "film 1.mp4".parse().expect("a name");
        Subscription {
            group: group.parse().expect("a group"),
            directory: directory.into(),
            patterns: vec!["*.mp4".into()],
            update: true,
            umask: 0o027,
            exec: vec!["/bin/tell".into(), "him".into()],
            started: 3,
            seen: [Listed { name, file: file_id(7) }].into_iter().collect(),
            problem: None,
        }
    }

    #[test]
    fn subscriptions_survive_and_a_group_has_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Subscriptions::open(directory.path()).expect("opened");
        let kept = open();
        assert_eq!(kept.all(), []);
        kept.put(subscription("g2", "/data/2")).expect("put");
        kept.put(subscription("g1", "/data/1")).expect("put");
        kept.put(subscription("g2", "/data/3")).expect("put");
        let expected = [subscription("g1", "/data/1"), subscription("g2", "/data/3")];
        assert_eq!(kept.all(), expected);
        assert_eq!(open().all(), expected);
        let group = &expected[1].group;
        let note = |kept: &mut Subscription| {
            kept.problem = Some("away".into());
            kept.started += 1;
        };
        assert_eq!(kept.update(group, note).expect("updated"), Some(()));
        assert_eq!(kept.find(group).and_then(|kept| kept.problem).as_deref(), Some("away"));
        assert_eq!(open().find(group), Some(Subscription { started: 4, ..expected[1].clone() }));
        assert!(kept.remove(group).expect("removed") && !kept.remove(group).expect("nothing"));
        assert_eq!(kept.update(group, note).expect("nothing"), None);
        assert_eq!(open().all(), expected[..1]);
    }

    #[test]
    fn a_file_that_is_none_is_an_error_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("subscriptions.json");
        for text in ["{}", r#"{"version": 2, "subscriptions": []}"#] {
            std::fs::write(&path, text).expect("written");
            let error = Subscriptions::open(directory.path()).expect_err(text);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
        }
    }
}
