//! The reasons why the rules refuse a call.

use std::{fmt, time::Duration};

use domain::{FileName, GroupId, Username, size};

/// The quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Quota {
    /// Groups that a user owns.
    #[error("you own 100 groups, which is the limit; delete or transfer one first")]
    GroupsOwned,
    /// Groups that a user is a member of.
    #[error("that user is in 500 groups, which is the limit; the user must leave one first")]
    GroupsJoined,
    /// Members of a group.
    #[error("the group has 1,000 members, which is the limit; remove one first")]
    Members,
    /// Files of a group.
    #[error("the group has 10,000 files, which is the limit; unpublish one first")]
    Files,
    /// Open requests of a user.
    #[error("you have 20 open requests to join groups, which is the limit; wait for an answer to one")]
    RequestsOfUser,
    /// Open requests on a group.
    #[error("the group has 500 open requests to join, which is the limit; its owner must answer some first")]
    RequestsOnGroup,
    /// Invitations to a group that have not expired.
    #[error("the group has 200 invitations, which is the limit; revoke one first")]
    Invites,
    /// Tokens of a user.
    #[error("you have 100 tokens, which is the limit; revoke one first")]
    Tokens,
    /// Bytes of piece hashes that a user published.
    #[error("you have published 256 MiB of manifests, which is the limit; unpublish a file first")]
    ManifestBytes,
    /// Peers of a user.
    #[error("you have 16 peers, which is the limit; the certificate of an unused peer expires after 7 days")]
    Peers,
}

/// Whose allowance is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A group's.
    Group(GroupId),
    /// A user's.
    User(Username),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "group {group}"),
            Self::User(user) => write!(f, "user {user}"),
        }
    }
}

/// What would be exceeded, in figures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// A number of bytes.
    #[error(
        "{whose} may list {}; {} are listed and {name} has {}; unpublish something or ask the operator",
        size::show(*.limit), size::show(*.listed), size::show(*.more)
    )]
    Bytes {
        /// Whose.
        whose: Whose,
        /// The limit.
        limit: u64,
        /// What is listed.
        listed: u64,
        /// The file that does not fit.
        name: FileName,
        /// Its length.
        more: u64,
    },
    /// A number of files.
    #[error(
        "{whose} may list {limit} files; {listed} are listed, and {name} is one more; unpublish one or ask the operator"
    )]
    Files {
        /// Whose.
        whose: Whose,
        /// The limit.
        limit: u64,
        /// What is listed.
        listed: u64,
        /// The file that does not fit.
        name: FileName,
    },
}

/// The reason why a rule refuses a call. The store checks some of the rules inside its transactions, because
/// a check outside would be a race.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No session token, or one that is unknown, expired or revoked.
    #[error("log in first: the session token is missing, unknown, expired or revoked")]
    NotLoggedIn,
    /// The caller's token does not allow the call.
    #[error("this token may not do that; a person with the account can, or make another token")]
    OutOfScope,
    /// The account has no token of that name.
    #[error("you have no token of that name")]
    TokenNotFound,
    /// The account has a token of that name.
    #[error("you have a token of that name already; revoke it first, or choose another name")]
    TokenTaken,
    /// Unknown user, wrong password or disabled account. All three get the same answer.
    #[error("unknown user or wrong password")]
    BadCredentials,
    /// The old password is wrong.
    #[error("the old password is wrong")]
    WrongPassword,
    /// The caller is not a member, or the group does not exist.
    #[error("you are not a member of this group")]
    NotAMember,
    /// The caller is a member, but the method requires the owner.
    #[error("only the group's owner may do this")]
    NotTheOwner,
    /// The caller is a member, but the method requires a manager or the owner.
    #[error("only the group's owner and its managers may do this")]
    NotAManager,
    /// The caller is a reader, but the method requires a member that may publish.
    #[error("you are a reader of this group, and readers publish nothing; its owner can change that")]
    ReadsOnly,
    /// Neither the publisher of the file nor the owner of the group.
    #[error("only the file's publisher or the group's owner may unpublish or replace it")]
    NotThePublisher,
    /// The peer belongs to another user, or is unknown.
    #[error("that peer is not one of yours")]
    NotYourPeer,
    /// No such group. Only returned to users that ask to join.
    #[error("the group does not exist")]
    GroupNotFound,
    /// No such file in the group.
    #[error("the file does not exist in this group")]
    FileNotFound,
    /// No such account. Only returned to the operator.
    #[error("the user does not exist")]
    UserNotFound,
    /// The user to be removed is not a member.
    #[error("that user is not a member of this group")]
    MemberNotFound,
    /// The username is taken.
    #[error("that username is taken")]
    UsernameTaken,
    /// The group name is taken.
    #[error("a group with that name exists")]
    GroupTaken,
    /// Other content has that file name, or a name that differs only in case or Unicode form.
    #[error("another file in this group has that name")]
    FileTaken,
    /// The user is already a member.
    #[error("you are a member of this group already")]
    AlreadyAMember,
    /// The user has already asked to join.
    #[error("you asked to join this group already")]
    AlreadyAsked,
    /// The request to join was answered or withdrawn.
    #[error("that user has no open request to join this group")]
    NoSuchRequest,
    /// An invitation that is unknown, expired, revoked or used up, is for another group, or was made by an account that
    /// is disabled. All get the same answer.
    #[error("the invitation is unknown, expired, revoked or used up; ask for a new one")]
    InviteInvalid,
    /// The group has no invitation with this id.
    #[error("the group has no invitation with that id")]
    InviteNotFound,
    /// Only the operator makes accounts.
    #[error("this tracker's operator makes the accounts; ask for one")]
    RegistrationClosed,
    /// An account needs an invitation.
    #[error(
        "this tracker makes accounts by invitation only; ask a group's owner for a link, and use it with `peer join`"
    )]
    RegistrationByInvite,
    /// Only users whom the operator named make groups.
    #[error("only users whom this tracker's operator named make groups; ask the operator for one")]
    GroupCreationClosed,
    /// Ownership can only go to a member.
    #[error("that user is not a member of this group")]
    TargetNotAMember,
    /// The owner cannot be removed.
    #[error("the owner can't be removed: transfer the group first")]
    TargetIsOwner,
    /// A quota is used up.
    #[error("{0}")]
    Quota(Quota),
    /// More than the operator lets a group or a user list.
    #[error(transparent)]
    TooMuch(Box<TooMuch>),
    /// Too many attempts.
    #[error("too many failed attempts; try again in {} seconds", .0.as_secs().max(1))]
    Throttled(Duration),
}
