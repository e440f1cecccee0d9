//! Who may do what: one table of every method, and the proofs that its group-level lines were kept.
//!
//! A method that is not in [`TABLE`] is not served. The first two levels, [`Requirement::Anyone`] and
//! [`Requirement::Session`], are kept by the authentication layer before a handler runs. The others need the caller's
//! place in the group that the request names: handlers pass it through [`admit`], which alone makes an [`Applicant`],
//! a [`Membership`] or an [`Ownership`]. The store's group methods take those and nothing else, so a handler that
//! forgets the check does not compile, and one that checks for less than the table says is held to the table.

use std::time::SystemTime;

use proto::domain::{GroupId, Username};

use super::{
    Refusal,
    session::{AccountId, Session, SessionHash},
};

/// What a method asks of its caller.
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

/// Every method that is served, with what it asks of its caller.
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
    ("/minitorrent.v1.FileService/PublishFile", Member),
    ("/minitorrent.v1.FileService/ListFiles", Member),
    ("/minitorrent.v1.FileService/GetManifest", Member),
    // And there the file's publisher or the group's owner: see `may_unpublish`.
    ("/minitorrent.v1.FileService/UnpublishFile", Member),
    // Of each group that is named.
    ("/minitorrent.v1.SwarmService/IssueTickets", Member),
    ("/minitorrent.v1.SwarmService/Announce", Member),
    ("/minitorrent.v1.SwarmService/FindPeers", Member),
];

/// What the method at this path asks of its caller; `None` for a path that must not be served.
pub fn requirement(path: &str) -> Option<Requirement> {
    TABLE.iter().find(|(method, _)| *method == path).map(|&(_, requirement)| requirement)
}

/// Somebody with a living session, calling a method that the table lets them call.
#[derive(Clone, Debug)]
pub struct Caller {
    user: Username,
    account: AccountId,
    session: SessionHash,
    ends: SystemTime,
    requirement: Requirement,
}

impl Caller {
    /// Whose session it is.
    pub fn user(&self) -> &Username {
        &self.user
    }

    /// Whose session it is, for the store.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The session.
    pub fn session(&self) -> SessionHash {
        self.session
    }

    /// When the session ends at the latest.
    pub fn session_ends(&self) -> SystemTime {
        self.ends
    }
}

/// Lets a session call a method that asks for `requirement`.
///
/// # Errors
/// [`Refusal::NotLoggedIn`] when the session is over or its account disabled.
pub fn authenticate(requirement: Requirement, session: Session, now: SystemTime) -> Result<Caller, Refusal> {
    if !session.is_alive(now) {
        return Err(Refusal::NotLoggedIn);
    }
    let ends = session.ends();
    Ok(Caller { user: session.user, account: session.account, session: session.hash, ends, requirement })
}

/// What a user is to a group. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Neither member nor asking.
    None,
    /// Asked to be let in, not answered yet.
    Requested,
    /// A member.
    Member,
    /// The owner.
    Owner,
}

/// A group's key in the store. A group of the same name made anew has another one, so a proof never outlives its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(pub i64);

/// A user's place in a group that exists, as the store tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: GroupKey,
    /// Its epoch: tickets of a lower one are void.
    pub epoch: u64,
    /// What the user is to it.
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

    /// The group, for the store.
    pub fn key(&self) -> GroupKey {
        self.place.group
    }

    /// The user.
    pub fn user(&self) -> &Username {
        &self.user
    }

    /// The user, for the store.
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
    /// The least standing that it proves.
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

/// Lets a caller into a group: the stricter of what the table asks for and what the proof says.
///
/// A group that does not exist (`place` is `None`) is refused in the same words as one that the caller is not in.
///
/// # Errors
/// [`Refusal::NotAMember`], or [`Refusal::NotTheOwner`] for a member of an owner's method.
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

/// Whether a member may unlist a file: its publisher or the group's owner.
///
/// # Errors
/// [`Refusal::NotThePublisher`].
pub fn may_unpublish(member: &Membership, publisher: &Username) -> Result<(), Refusal> {
    if member.is_owner() || member.user() == publisher { Ok(()) } else { Err(Refusal::NotThePublisher) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn caller(path: &str) -> Caller {
        let now = SystemTime::UNIX_EPOCH;
        let session = Session {
            hash: [1; 32].into(),
            user: "ann".parse().expect("a username"),
            account: AccountId(1),
            disabled: false,
            opened: now,
            used: now,
        };
        authenticate(requirement(path).expect("in the table"), session, now).expect("a living session")
    }

    fn place(standing: Standing) -> Option<Place> {
        Some(Place { group: GroupKey(1), epoch: 1, standing })
    }

    #[test]
    fn each_method_has_one_line_and_others_none() {
        let paths: HashSet<_> = TABLE.iter().map(|(path, _)| path).collect();
        assert_eq!(paths.len(), TABLE.len());
        for path in ["", "/", "/minitorrent.v1.AuthService/", "/minitorrent.v1.AuthService/DropTables"] {
            assert_eq!(requirement(path), None);
        }
    }

    #[test]
    fn the_stricter_of_table_and_proof_holds() {
        let group: GroupId = "g1".parse().expect("a group name");
        let member_method = caller("/minitorrent.v1.FileService/ListFiles");
        let owner_method = caller("/minitorrent.v1.GroupService/DeleteGroup");
        let leave = caller("/minitorrent.v1.GroupService/LeaveGroup");
        for standing in [Standing::None, Standing::Requested] {
            let refused = admit::<Membership>(&member_method, &group, place(standing));
            assert_eq!(refused.err(), Some(Refusal::NotAMember));
        }
        assert_eq!(admit::<Membership>(&member_method, &group, None).err(), Some(Refusal::NotAMember));
        assert!(admit::<Membership>(&member_method, &group, place(Standing::Member)).is_ok());
        // A handler that asks for too little is held to the table, one that asks for more gets it.
        let slack = admit::<Membership>(&owner_method, &group, place(Standing::Member));
        assert_eq!(slack.err(), Some(Refusal::NotTheOwner));
        let strict = admit::<Ownership>(&member_method, &group, place(Standing::Member));
        assert_eq!(strict.err(), Some(Refusal::NotTheOwner));
        assert!(admit::<Ownership>(&owner_method, &group, place(Standing::Owner)).is_ok());
        assert!(admit::<Applicant>(&leave, &group, place(Standing::Requested)).is_ok());
        assert_eq!(
            admit::<Applicant>(&leave, &group, place(Standing::None)).err(),
            Some(Refusal::NotAMember)
        );
    }

    #[test]
    fn files_are_unlisted_by_publisher_or_owner() {
        let group: GroupId = "g1".parse().expect("a group name");
        let path = caller("/minitorrent.v1.FileService/UnpublishFile");
        let (ann, bob) = ("ann".parse().expect("a name"), "bob".parse().expect("a name"));
        let member: Membership = admit(&path, &group, place(Standing::Member)).expect("a member");
        assert_eq!(may_unpublish(&member, &ann), Ok(()));
        assert_eq!(may_unpublish(&member, &bob), Err(Refusal::NotThePublisher));
        let owner: Membership = admit(&path, &group, place(Standing::Owner)).expect("the owner");
        assert_eq!(may_unpublish(&owner, &bob), Ok(()));
    }
}
