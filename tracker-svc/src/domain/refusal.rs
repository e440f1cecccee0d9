//! What the rules say no to.

use std::time::Duration;

use super::quota::Quota;

/// Why a rule forbids a call. The store finds some of these inside its transactions, where a race would lie otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No session token, or one that is unknown, expired or revoked.
    #[error("log in first: the session token is missing, unknown, expired or revoked")]
    NotLoggedIn,
    /// Unknown user, wrong password or disabled account: one answer for all three.
    #[error("unknown user or wrong password")]
    BadCredentials,
    /// The old password is wrong.
    #[error("the old password is wrong")]
    WrongPassword,
    /// The caller is not a member, or the group does not exist.
    #[error("you are not a member of this group")]
    NotAMember,
    /// The caller is a member but not the owner, or not the publisher either.
    #[error("only the group's owner may do this")]
    NotTheOwner,
    /// Neither the publisher of the file nor the owner of the group.
    #[error("only the file's publisher or the group's owner may unpublish it")]
    NotThePublisher,
    /// The peer is another user's, or nobody's.
    #[error("that peer is not one of yours")]
    NotYourPeer,
    /// No such group. Said to those who ask to join, and to nobody else.
    #[error("no such group")]
    GroupNotFound,
    /// No such file in the group.
    #[error("no such file in this group")]
    FileNotFound,
    /// No such account. Said to the operator alone.
    #[error("no such user")]
    UserNotFound,
    /// The user to be removed is not a member.
    #[error("that user is not a member of this group")]
    MemberNotFound,
    /// The username is taken.
    #[error("that username is taken")]
    UsernameTaken,
    /// The group name is taken.
    #[error("a group of that name exists")]
    GroupTaken,
    /// Other content has that file name, or one that differs by case or form alone.
    #[error("another file has that name in this group")]
    FileTaken,
    /// A member already.
    #[error("you are a member of this group already")]
    AlreadyAMember,
    /// Asked to be let in already.
    #[error("you asked to join this group already")]
    AlreadyAsked,
    /// The request to join was answered or withdrawn.
    #[error("that user has no open request to join this group")]
    NoSuchRequest,
    /// Ownership can only go to a member.
    #[error("that user is not a member of this group")]
    TargetNotAMember,
    /// The owner can't be removed.
    #[error("the owner can't be removed: transfer the group first")]
    TargetIsOwner,
    /// A quota is used up.
    #[error("{0}")]
    Quota(Quota),
    /// Too many tries.
    #[error("too many tries: wait {} seconds", .0.as_secs().max(1))]
    Throttled(Duration),
}
