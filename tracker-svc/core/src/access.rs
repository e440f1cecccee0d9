//! Access control: one table of all methods, and the proofs that its group-level requirements were checked.
//!
//! A method that is not in [`TABLE`] is not served. The authentication layer enforces the first two levels,
//! [`Requirement::Anyone`] and [`Requirement::Session`], before a handler runs. The other levels need the
//! caller's place in the group that the request names. Handlers pass it to [`admit`], and only [`admit`] can
//! make an [`Applicant`], a [`Membership`] or an [`Ownership`]. The store's group methods accept only those
//! types. So a handler that forgets the check does not compile. If a handler asks for less than the table,
//! [`admit`] enforces the table.

use std::time::SystemTime;

use domain::{GroupId, Username};

use super::{
    Refusal,
    session::{AccountId, Session, SessionHash},
};

/// The requirement that a method has for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// Nothing.
    Anyone,
    /// A session.
    Session,
    /// At least an open request to join the group.
    Applicant,
    /// Membership of the group.
    Member,
    /// Ownership of the group.
    Owner,
}

use Requirement::{Anyone, Applicant as AskedToJoin, Member, Owner, Session as LoggedIn};

/// All methods that are served, with their requirements.
pub const TABLE: &[(&str, Requirement)] = &[
    ("/grpc.health.v1.Health/Check", Anyone),
    ("/grpc.health.v1.Health/Watch", Anyone),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anyone),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anyone),
    ("/minitorrent.v1.AuthService/CreateUser", Anyone),
    ("/minitorrent.v1.AuthService/Login", Anyone),
    ("/minitorrent.v1.AuthService/GetTrackerKeys", Anyone),
    ("/minitorrent.v1.AuthService/Logout", LoggedIn),
    ("/minitorrent.v1.AuthService/LogoutAll", LoggedIn),
    ("/minitorrent.v1.AuthService/WhoAmI", LoggedIn),
    ("/minitorrent.v1.AuthService/ChangePassword", LoggedIn),
    ("/minitorrent.v1.AuthService/IssuePeerCert", LoggedIn),
    ("/minitorrent.v1.GroupService/CreateGroup", LoggedIn),
    ("/minitorrent.v1.GroupService/ListGroups", LoggedIn),
    ("/minitorrent.v1.GroupService/JoinGroup", LoggedIn),
    ("/minitorrent.v1.GroupService/LeaveGroup", AskedToJoin),
    ("/minitorrent.v1.GroupService/ListMembers", Member),
    ("/minitorrent.v1.GroupService/ListJoinRequests", Owner),
    ("/minitorrent.v1.GroupService/AcceptJoinRequest", Owner),
    ("/minitorrent.v1.GroupService/RejectJoinRequest", Owner),
    ("/minitorrent.v1.GroupService/RemoveMember", Owner),
    ("/minitorrent.v1.GroupService/TransferOwnership", Owner),
    ("/minitorrent.v1.GroupService/DeleteGroup", Owner),
    ("/minitorrent.v1.GroupService/CreateInvite", Owner),
    ("/minitorrent.v1.GroupService/ListInvites", Owner),
    ("/minitorrent.v1.GroupService/RevokeInvite", Owner),
    // The secret of the invitation is the right to the group.
    ("/minitorrent.v1.GroupService/JoinByInvite", LoggedIn),
    // To replace a file, the caller must also be its publisher or the group's owner: see `may_unlist`.
    ("/minitorrent.v1.FileService/PublishFile", Member),
    ("/minitorrent.v1.FileService/ListFiles", Member),
    ("/minitorrent.v1.FileService/GetManifest", Member),
    // The caller must also be the file's publisher or the group's owner: see `may_unlist`.
    ("/minitorrent.v1.FileService/UnpublishFile", Member),
    // In each group that the request names.
    ("/minitorrent.v1.SwarmService/IssueTickets", Member),
    ("/minitorrent.v1.SwarmService/Announce", Member),
    ("/minitorrent.v1.SwarmService/FindPeers", Member),
];

/// The requirement of the method at this path. `None` for a path that must not be served.
pub fn requirement(path: &str) -> Option<Requirement> {
    TABLE.iter().find(|(method, _)| *method == path).map(|&(_, requirement)| requirement)
}

/// A user with a valid session that calls a method. The table allows the call.
#[derive(Clone, Debug)]
pub struct Caller {
    user: Username,
    account: AccountId,
    session: SessionHash,
    ends: SystemTime,
    requirement: Requirement,
}

impl Caller {
    /// The user of the session.
    pub fn user(&self) -> &Username {
        &self.user
    }

    /// The user's key in the store.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The session.
    pub fn session(&self) -> SessionHash {
        self.session
    }

    /// The latest end of the session.
    pub fn session_ends(&self) -> SystemTime {
        self.ends
    }
}

/// Lets a session call a method with this requirement.
///
/// # Errors
/// [`Refusal::NotLoggedIn`] if the session has ended or its account is disabled.
pub fn authenticate(requirement: Requirement, session: Session, now: SystemTime) -> Result<Caller, Refusal> {
    if !session.is_alive(now) {
        return Err(Refusal::NotLoggedIn);
    }
    let ends = session.ends();
    Ok(Caller { user: session.user, account: session.account, session: session.hash, ends, requirement })
}

/// A user's relation to a group. Each level includes the previous ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not a member, and no open request.
    None,
    /// Has an open request to join.
    Requested,
    /// A member.
    Member,
    /// The owner.
    Owner,
}

/// A group's key in the store. A new group of the same name has another key, so a proof never outlives its
/// group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(pub i64);

/// A user's place in an existing group, as the store returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: GroupKey,
    /// The group's epoch. Tickets of a lower epoch are void.
    pub epoch: u64,
    /// The user's relation to the group.
    pub standing: Standing,
}

/// Proof that a user has at least an open request to join a group.
#[derive(Clone, Debug)]
pub struct Applicant {
    group: GroupId,
    user: Username,
    account: AccountId,
    place: Place,
}

/// Proof that a user is a member of a group.
#[derive(Clone, Debug)]
pub struct Membership(Applicant);

/// Proof that a user is the owner of a group.
#[derive(Clone, Debug)]
pub struct Ownership(Membership);

impl Applicant {
    /// The group.
    pub fn group(&self) -> &GroupId {
        &self.group
    }

    /// The group's key in the store.
    pub fn key(&self) -> GroupKey {
        self.place.group
    }

    /// The user.
    pub fn user(&self) -> &Username {
        &self.user
    }

    /// The user's key in the store.
    pub fn account(&self) -> AccountId {
        self.account
    }
}

impl Membership {
    /// The group's epoch when membership was checked.
    pub fn epoch(&self) -> u64 {
        self.0.place.epoch
    }

    /// Whether the member owns the group.
    pub fn is_owner(&self) -> bool {
        self.0.place.standing >= Standing::Owner
    }
}

impl std::ops::Deref for Membership {
    type Target = Applicant;

    fn deref(&self) -> &Applicant {
        &self.0
    }
}

impl std::ops::Deref for Ownership {
    type Target = Membership;

    fn deref(&self) -> &Membership {
        &self.0
    }
}

/// A proof that [`admit`] can make.
pub trait Proof: Sized {
    /// The minimum standing that it proves.
    const NEEDS: Standing;
    #[doc(hidden)]
    fn prove(applicant: Applicant, _: Seal) -> Self;
}

/// Keeps [`Proof::prove`] within this module.
#[derive(Debug)]
pub struct Seal(());

impl Proof for Applicant {
    const NEEDS: Standing = Standing::Requested;

    fn prove(applicant: Applicant, _: Seal) -> Self {
        applicant
    }
}

impl Proof for Membership {
    const NEEDS: Standing = Standing::Member;

    fn prove(applicant: Applicant, _: Seal) -> Self {
        Self(applicant)
    }
}

impl Proof for Ownership {
    const NEEDS: Standing = Standing::Owner;

    fn prove(applicant: Applicant, _: Seal) -> Self {
        Self(Membership(applicant))
    }
}

/// Admits a caller to a group. The stricter of the table's and the proof's requirement applies.
///
/// If the group does not exist (`place` is `None`), the refusal is the same as for a caller that is not a
/// member.
///
/// # Errors
/// [`Refusal::NotAMember`], or [`Refusal::NotTheOwner`] if a member calls an owner's method.
pub fn admit<P: Proof>(caller: &Caller, group: &GroupId, place: Option<Place>) -> Result<P, Refusal> {
    let by_table = match caller.requirement {
        Requirement::Anyone | Requirement::Session => Standing::None,
        Requirement::Applicant => Standing::Requested,
        Requirement::Member => Standing::Member,
        Requirement::Owner => Standing::Owner,
    };
    let place = place.ok_or(Refusal::NotAMember)?;
    if place.standing < by_table.max(P::NEEDS) {
        let is_member = place.standing >= Standing::Member;
        return Err(if is_member { Refusal::NotTheOwner } else { Refusal::NotAMember });
    }
    let applicant =
        Applicant { group: group.clone(), user: caller.user.clone(), account: caller.account, place };
    Ok(P::prove(applicant, Seal(())))
}

/// Checks that a member may unlist a file, or list other content in its place: only its publisher and the group's
/// owner may.
///
/// # Errors
/// [`Refusal::NotThePublisher`].
pub fn may_unlist(member: &Membership, publisher: &Username) -> Result<(), Refusal> {
    if member.is_owner() || member.user() == publisher { Ok(()) } else { Err(Refusal::NotThePublisher) }
}

#[cfg(test)]
mod tests;
