//! The table of all methods: who may call each of them.

use crate::token::Allow;

/// The requirement that a method has for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// Nothing.
    Anyone,
    /// A session.
    Session,
    /// At least an open request to join the group.
    Applicant,
    /// Membership of the group, in any role.
    Reader,
    /// The right to publish in the group.
    Member,
    /// The right to manage the group's members.
    Manager,
    /// Ownership of the group.
    Owner,
}

use Requirement::{Anyone, Applicant as AskedToJoin, Manager, Member, Owner, Reader, Session as LoggedIn};

/// Only people may call the method, or whoever needs no session.
const PEOPLE: Option<Allow> = None;
const READ: Option<Allow> = Some(Allow::Read);
const SHARE: Option<Allow> = Some(Allow::Share);
const MANAGE: Option<Allow> = Some(Allow::Manage);

/// All methods that are served, with their requirements, and what a token must allow to call them. `None`: no token may.
pub const TABLE: &[(&str, Requirement, Option<Allow>)] = &[
    ("/grpc.health.v1.Health/Check", Anyone, PEOPLE),
    ("/grpc.health.v1.Health/Watch", Anyone, PEOPLE),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anyone, PEOPLE),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anyone, PEOPLE),
    ("/minitorrent.v1.AuthService/CreateUser", Anyone, PEOPLE),
    ("/minitorrent.v1.AuthService/Login", Anyone, PEOPLE),
    ("/minitorrent.v1.AuthService/GetTrackerKeys", Anyone, PEOPLE),
    ("/minitorrent.v1.AuthService/Logout", LoggedIn, PEOPLE),
    ("/minitorrent.v1.AuthService/LogoutAll", LoggedIn, PEOPLE),
    ("/minitorrent.v1.AuthService/WhoAmI", LoggedIn, READ),
    ("/minitorrent.v1.AuthService/ChangePassword", LoggedIn, PEOPLE),
    ("/minitorrent.v1.AuthService/IssuePeerCert", LoggedIn, READ),
    ("/minitorrent.v1.AuthService/CreateToken", LoggedIn, PEOPLE),
    ("/minitorrent.v1.AuthService/ListTokens", LoggedIn, PEOPLE),
    ("/minitorrent.v1.AuthService/RevokeToken", LoggedIn, PEOPLE),
    ("/minitorrent.v1.GroupService/CreateGroup", LoggedIn, PEOPLE),
    ("/minitorrent.v1.GroupService/ListGroups", LoggedIn, READ),
    ("/minitorrent.v1.GroupService/JoinGroup", LoggedIn, PEOPLE),
    ("/minitorrent.v1.GroupService/LeaveGroup", AskedToJoin, PEOPLE),
    ("/minitorrent.v1.GroupService/ListMembers", Reader, READ),
    ("/minitorrent.v1.GroupService/ListJoinRequests", Manager, MANAGE),
    ("/minitorrent.v1.GroupService/AcceptJoinRequest", Manager, MANAGE),
    ("/minitorrent.v1.GroupService/RejectJoinRequest", Manager, MANAGE),
    ("/minitorrent.v1.GroupService/RemoveMember", Manager, MANAGE),
    ("/minitorrent.v1.GroupService/TransferOwnership", Owner, PEOPLE),
    ("/minitorrent.v1.GroupService/SetRole", Owner, PEOPLE),
    ("/minitorrent.v1.GroupService/DeleteGroup", Owner, PEOPLE),
    ("/minitorrent.v1.GroupService/CreateInvite", Manager, MANAGE),
    ("/minitorrent.v1.GroupService/ListInvites", Manager, MANAGE),
    ("/minitorrent.v1.GroupService/RevokeInvite", Manager, MANAGE),
    // The secret of the invitation is the right to the group.
    ("/minitorrent.v1.GroupService/JoinByInvite", LoggedIn, PEOPLE),
    // To replace a file, the caller must also be its publisher or the group's owner: see `may_unlist`.
    ("/minitorrent.v1.FileService/PublishFile", Member, SHARE),
    ("/minitorrent.v1.FileService/ListFiles", Reader, READ),
    ("/minitorrent.v1.FileService/GetManifest", Reader, READ),
    // The caller must also be the file's publisher or the group's owner: see `may_unlist`.
    ("/minitorrent.v1.FileService/UnpublishFile", Member, SHARE),
    // In each group that the request names.
    ("/minitorrent.v1.SwarmService/IssueTickets", Reader, READ),
    ("/minitorrent.v1.SwarmService/Announce", Reader, READ),
    ("/minitorrent.v1.SwarmService/FindPeers", Reader, READ),
];

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of the user.
    pub requirement: Requirement,
    /// Of the token, if the caller has one instead of a session. `None`: no token may.
    pub machines: Option<Allow>,
}

impl From<Requirement> for Rule {
    /// The rule for people alone.
    fn from(requirement: Requirement) -> Self {
        Self { requirement, machines: None }
    }
}

/// The rule of the method at this path. `None` for a path that must not be served.
pub fn rule(path: &str) -> Option<Rule> {
    let line = TABLE.iter().find(|(method, ..)| *method == path)?;
    Some(Rule { requirement: line.1, machines: line.2 })
}

/// The requirement of the method at this path. `None` for a path that must not be served.
pub fn requirement(path: &str) -> Option<Requirement> {
    rule(path).map(|rule| rule.requirement)
}
