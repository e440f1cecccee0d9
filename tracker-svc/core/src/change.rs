//! The changes that the store reports to running streams.

use domain::{FileId, GroupId, Username};

use crate::session::SessionHash;

/// A change. [`Change::MemberCame`] and [`Change::FilePublished`] end no right; all others do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session ended: logout, password change, or a disabled account.
    SessionEnded {
        /// The session.
        session: SessionHash,
    },
    /// A user lost all rights in a group: the user left, was removed, or was disabled. Tickets with an epoch
    /// below `epoch` are void.
    MemberGone {
        /// The group.
        group: GroupId,
        /// The user.
        user: Username,
        /// The group's new epoch.
        epoch: u64,
    },
    /// A user became a member of a group. Peers of the user may share the group's files from now on.
    MemberCame {
        /// The group.
        group: GroupId,
        /// The user.
        user: Username,
        /// The group's epoch.
        epoch: u64,
    },
    /// A file was listed.
    FilePublished {
        /// The group that lists it.
        group: GroupId,
        /// The file.
        file: FileId,
    },
    /// A file was unlisted.
    FileGone {
        /// The group that listed it.
        group: GroupId,
        /// The file.
        file: FileId,
    },
    /// A group ended, with all its files. Tickets with an epoch below `epoch` are void. A new group of the
    /// same name starts above that epoch.
    GroupGone {
        /// The group.
        group: GroupId,
        /// An epoch above all epochs that the group had.
        epoch: u64,
    },
    /// An account was disabled. Its sessions and memberships are reported one by one before this.
    UserDisabled {
        /// The user.
        user: Username,
    },
}
