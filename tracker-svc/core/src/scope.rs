//! The scope of a token: how much it may do, and in which groups.

use std::collections::BTreeSet;

use domain::{GroupId, TokenName};

/// How much a token may do. Each level includes the previous ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allow {
    /// Read lists, download, and serve pieces.
    Read,
    /// Publish files, and unpublish those of its account.
    Share,
    /// What a group's owner may: accept, remove and invite members.
    Manage,
}

impl Allow {
    /// All levels.
    pub const ALL: [Self; 3] = [Self::Read, Self::Share, Self::Manage];

    /// The level's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Share => "share",
            Self::Manage => "manage",
        }
    }

    /// The level of this name.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|allow| allow.as_str() == text)
    }
}

/// What a token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenScope {
    /// Its name among the tokens of its account.
    pub name: TokenName,
    /// How much.
    pub allow: Allow,
    /// In which groups. `None`: in all groups of its account.
    pub groups: Option<BTreeSet<GroupId>>,
}

impl TokenScope {
    /// Whether it may do anything in the group.
    pub fn covers(&self, group: &GroupId) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.contains(group))
    }
}
