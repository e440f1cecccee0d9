//! What groups must look like after the calls that were made.
//!
//! A call whose answer was lost may have had its effect, or may have it later. So the model keeps every standing
//! that a user may have, and an answer that fits none of them is a fault.

use std::{collections::BTreeMap, time::Duration};

use crate::line::Outcome;

/// How long a call may still have its effect after its answer was lost.
const LATE: Duration = Duration::from_secs(60);

/// A user's relation to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    None,
    Asked,
    Member,
}

/// A change of a user's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Join,
    Accept,
    Remove,
    Leave,
}

impl Change {
    /// The standing after the change, or `None` if it is refused.
    fn after(self, before: Standing) -> Option<Standing> {
        use Standing::{Asked, Member};
        match (self, before) {
            (Self::Join, Standing::None) => Some(Asked),
            (Self::Accept, Asked | Member) => Some(Member),
            (Self::Leave, Asked | Member) | (Self::Remove, Member) => Some(Standing::None),
            _ => None,
        }
    }
}

/// What is known of a user in a group.
#[derive(Debug)]
pub(crate) struct Place {
    may_be: Vec<Standing>,
    /// Changes that may still come, and until when.
    late: Vec<(Change, Duration)>,
    /// When the user was last known to have no right any more; `None` while there may be one.
    pub(crate) lost: Option<Duration>,
}

impl Default for Place {
    fn default() -> Self {
        Self { may_be: vec![Standing::None], late: Vec::new(), lost: Some(Duration::ZERO) }
    }
}

impl Place {
    /// Takes in what became of a change.
    pub(crate) fn apply(&mut self, change: Change, outcome: Outcome, now: Duration) -> Result<(), String> {
        self.late.retain(|(_, until)| *until > now);
        let before = self.may_be.clone();
        let after = before.iter().filter_map(|standing| change.after(*standing));
        self.may_be = match outcome {
            Outcome::Done => after.collect(),
            Outcome::Refused(_) => {
                before.iter().copied().filter(|standing| change.after(*standing).is_none()).collect()
            }
            Outcome::Unknown => {
                self.late.push((change, now + LATE));
                before.iter().copied().chain(after).collect()
            }
        };
        if self.may_be.is_empty() {
            return Err(format!("{change:?} of one who is {before:?} was answered by {outcome:?}"));
        }
        self.widen(now);
        Ok(())
    }

    /// Takes in what the tracker says.
    pub(crate) fn observe(&mut self, seen: Standing, now: Duration) -> Result<(), String> {
        self.late.retain(|(_, until)| *until > now);
        if !self.may_be.contains(&seen) {
            return Err(format!("{seen:?} is seen, and {:?} is expected", self.may_be));
        }
        self.may_be = vec![seen];
        self.widen(now);
        Ok(())
    }

    /// The user is known to be a member.
    pub(crate) fn is_member(&self) -> bool {
        self.may_be == [Standing::Member]
    }

    /// The user may be a member.
    pub(crate) fn may_be_member(&self) -> bool {
        self.may_be.contains(&Standing::Member)
    }

    /// The user may become a member from now on.
    pub(crate) fn may_gain(&mut self) {
        self.lost = None;
    }

    fn widen(&mut self, now: Duration) {
        loop {
            let more: Vec<_> = self
                .late
                .iter()
                .flat_map(|(change, _)| self.may_be.iter().filter_map(|standing| change.after(*standing)))
                .collect();
            let known = self.may_be.len();
            self.may_be.extend(more);
            self.may_be.sort();
            self.may_be.dedup();
            if self.may_be.len() == known {
                break;
            }
        }
        if self.may_be.contains(&Standing::Member) {
            self.lost = None;
        } else {
            self.lost.get_or_insert(now);
        }
    }
}

/// All groups: who is what in which.
#[derive(Debug, Default)]
pub(crate) struct Groups(BTreeMap<(String, usize), Place>);

impl Groups {
    pub(crate) fn place(&mut self, group: &str, host: usize) -> &mut Place {
        self.0.entry((group.to_owned(), host)).or_default()
    }
}
