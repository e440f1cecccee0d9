//! Decides when what appears in a directory is shared: once it has stopped changing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::Moment;

/// How long something must not have changed. A program that copies or writes a file pauses for less.
pub const SETTLED: Duration = Duration::from_secs(3);

/// What is known of the things in a directory. `S` is a stamp that changes with the content, such as length and time.
#[derive(Clone, Debug)]
pub struct Watch<S> {
    known: BTreeMap<String, Known<S>>,
}

#[derive(Clone, Debug)]
struct Known<S> {
    stamp: S,
    /// Since when it has had this stamp.
    since: Moment,
    /// It was there from the start, or was returned with this stamp.
    is_handled: bool,
}

impl<S: PartialEq> Watch<S> {
    /// A watch of a directory where this is already. It is not to be shared unless it changes.
    pub fn new(there: impl IntoIterator<Item = (String, S)>, now: Moment) -> Self {
        let known = |(name, stamp)| (name, Known { stamp, since: now, is_handled: true });
        Self { known: there.into_iter().map(known).collect() }
    }

    /// Takes note of all that is in the directory now. Returns the names to share, each once for each change.
    pub fn look(&mut self, found: impl IntoIterator<Item = (String, S)>, now: Moment) -> Vec<String> {
        let (mut due, mut there) = (Vec::new(), BTreeSet::new());
        for (name, stamp) in found {
            there.insert(name.clone());
            match self.known.get_mut(&name) {
                Some(known) if known.stamp == stamp => {
                    if !known.is_handled && now.saturating_sub(known.since) >= SETTLED {
                        known.is_handled = true;
                        due.push(name);
                    }
                }
                _ => {
                    self.known.insert(name, Known { stamp, since: now, is_handled: false });
                }
            }
        }
        self.known.retain(|name, _| there.contains(name));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(watch: &mut Watch<u64>, seconds: u64, found: &[(&str, u64)]) -> Vec<String> {
        let found = found.iter().map(|(name, stamp)| ((*name).to_owned(), *stamp));
        watch.look(found, Duration::from_secs(seconds))
    }

    #[test]
    fn what_has_stopped_changing_is_shared_once() {
        let mut watch = Watch::new([("old".to_owned(), 1)], Duration::ZERO);
        assert_eq!(look(&mut watch, 1, &[("old", 1), ("new", 1)]), [""; 0]);
        assert_eq!(look(&mut watch, 4, &[("old", 1), ("new", 2)]), [""; 0], "it has grown");
        assert_eq!(look(&mut watch, 6, &[("old", 1), ("new", 2)]), [""; 0]);
        assert_eq!(look(&mut watch, 7, &[("old", 1), ("new", 2)]), ["new"]);
        assert_eq!(look(&mut watch, 60, &[("old", 1), ("new", 2)]), [""; 0]);
    }

    #[test]
    fn what_changes_or_comes_back_is_shared_again() {
        let mut watch = Watch::new([("old".to_owned(), 1)], Duration::ZERO);
        look(&mut watch, 1, &[("old", 2)]);
        assert_eq!(look(&mut watch, 4, &[("old", 2)]), ["old"]);
        look(&mut watch, 5, &[]);
        look(&mut watch, 6, &[("old", 2)]);
        assert_eq!(look(&mut watch, 9, &[("old", 2)]), ["old"]);
    }
}
