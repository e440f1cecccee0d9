//! The persistent state of the tracker, behind small traits. State in memory only (swarms, rates) is
//! elsewhere.
//!
//! Rules for every backend:
//!
//! - A call returns `Ok` only after its commit is durable.
//! - Each change writes its audit row in its own transaction, and the [`Change`]s that running streams must
//!   be told about.
//! - Constraints and compare-and-set ensure uniqueness and decide races. Check-then-write is never used.
//! - The methods of a group take a proof of the caller's standing ([`crate::domain::access`]). Where a stale
//!   proof would do harm, the transaction checks it again.
//!
//! Non-goals: swarm state.

pub mod postgres;
mod sql;
pub mod sqlite;
pub mod takeover;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use proto::domain::{FileHeader, FileId, FileName, GroupId, PeerId, TokenName, Username};

use crate::domain::{
    Action, Applicant, Caller, Change, Management, Membership, Origin, Ownership, Refusal, Session,
    SessionHash, Standing,
    access::{Evidence, Place, Role},
    invite::{InviteHash, NewInvite},
    operator::ListingQuotas,
    session::AccountId,
    throttle::{Counts, Login, Step, Wait},
    token::{NewToken, TokenScope},
};

/// The reason why a store call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A rule refuses the call. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database is locked or unavailable. A retry may succeed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The disk is full.
    #[error("the disk of the store is full")]
    Full,
    /// Any other error: a bug, or a disk error.
    #[error("the store failed: {0}")]
    Fault(String),
}

/// The result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// All parts of the store.
#[async_trait]
pub trait Store: Accounts + Sessions + Tokens + Peers + Rulings + Groups + Invites + Files + Log {
    /// What trackers share besides, if other trackers may use the same database.
    fn shared(&self) -> Option<&dyn Shared> {
        None
    }

    /// Closes all connections. Acknowledged changes are durable already.
    async fn close(&self);
}

/// What trackers that use one database share besides the data.
#[async_trait]
pub trait Shared: Send + Sync {
    /// The time by the database's clock, in milliseconds since 1970.
    async fn clock(&self) -> Result<u64>;

    /// Returns a secret as it is stored, which is encrypted, and its version.
    async fn secret(&self, name: &str) -> Result<Option<(i64, Vec<u8>)>>;

    /// Replaces a secret that still has the version `was`. `None` stands for one that is not there yet.
    /// Returns whether it did.
    async fn replace_secret(&self, name: &str, was: Option<i64>, sealed: &[u8]) -> Result<bool>;

    /// Counts a new account from this network for all trackers. Returns how long to wait if there are too many
    /// ([`crate::domain::newcomers::admit`]).
    async fn count_newcomer(&self, network: IpAddr) -> Result<std::result::Result<(), Duration>>;

    /// Takes a step of a login, and counts it for all trackers. Returns the new counts, or why the login must
    /// not start yet ([`Login::step`]).
    async fn count_login(&self, login: &Login, step: Step) -> Result<std::result::Result<Counts, Wait>>;
}

/// An account's stored password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The account.
    pub account: AccountId,
    /// The password's PHC string.
    pub password: String,
    /// Whether the account is disabled. It may then not log in.
    pub disabled: bool,
}

/// Accounts and their passwords. Passwords are passed as PHC strings.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Makes an account. With an invitation, the account is a member of its group at once, which takes one use.
    /// Fails with [`Refusal::UsernameTaken`] or [`Refusal::InviteInvalid`].
    async fn create_account(
        &self,
        user: &Username,
        password: &str,
        invitation: Option<&InviteKey>,
        origin: &Origin,
    ) -> Result<()>;

    /// Returns the account with this name.
    async fn credentials(&self, user: &Username) -> Result<Option<Credentials>>;

    /// Sets a new password if the stored one still is `old`, and ends all sessions except the caller's. Fails
    /// with [`Refusal::WrongPassword`].
    async fn change_password(&self, caller: &Caller, old: &str, new: &str, origin: &Origin) -> Result<()>;

    /// Sets a password on behalf of the operator, and ends all sessions and tokens. Fails with
    /// [`Refusal::UserNotFound`].
    async fn reset_password(&self, user: &Username, new: &str, origin: &Origin) -> Result<()>;

    /// Disables or enables an account on behalf of the operator. Disabling ends all sessions and tokens, and raises the
    /// epoch of each of the user's groups, so that tickets are void too. Fails with
    /// [`Refusal::UserNotFound`].
    async fn set_disabled(&self, user: &Username, disabled: bool, origin: &Origin) -> Result<()>;
}

/// Sessions, identified by the hash of their tokens.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Opens a session if the account is not disabled and its password still is the verified one. `rehashed`
    /// replaces the stored hash. If the account has [`crate::domain::quota::SESSIONS`] sessions, the one that
    /// has been unused for longest ends. Fails with [`Refusal::BadCredentials`].
    async fn open_session(
        &self,
        verified: &Credentials,
        rehashed: Option<&str>,
        session: SessionHash,
        origin: &Origin,
    ) -> Result<()>;

    /// Returns the session, or the token that takes its place, valid or not.
    async fn session(&self, hash: SessionHash) -> Result<Option<Session>>;

    /// Returns those of these sessions and tokens that exist, valid or not, in any order: a database on another machine is
    /// asked once.
    async fn sessions(&self, hashes: &[SessionHash]) -> Result<Vec<Session>>;

    /// Records that the session was used at `now`.
    async fn touch_session(&self, hash: SessionHash, now: SystemTime) -> Result<()>;

    /// Ends the sessions and tokens that have expired at `now`, permanently: setting the clock back does not revive
    /// them. Sessions that were opened or used later than `now` then count as opened or used now.
    async fn expire_sessions(&self, now: SystemTime) -> Result<()>;

    /// The number of sessions.
    async fn sessions_open(&self) -> Result<u64>;

    /// Ends the caller's session.
    async fn end_session(&self, caller: &Caller, origin: &Origin) -> Result<()>;

    /// Ends all of the caller's sessions, and returns their number.
    async fn end_sessions(&self, caller: &Caller, origin: &Origin) -> Result<u32>;
}

/// A token, as its account may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// What it may do.
    pub scope: TokenScope,
    /// The time when it was made.
    pub since: SystemTime,
    /// The time of last use, to the minute. That of its making if it was not used.
    pub used: SystemTime,
    /// The time when it expires.
    pub expires: SystemTime,
}

/// Tokens for machines. [`Sessions::session`] finds them by their hash, too.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// Makes a token. Fails with [`Refusal::TokenTaken`], or at the quota.
    async fn create_token(&self, caller: &Caller, token: &NewToken, origin: &Origin) -> Result<()>;

    /// Returns the caller's tokens that have not expired at `now`, by name. At most
    /// [`crate::domain::quota::Quota::Tokens`].
    async fn tokens(&self, caller: &Caller, now: SystemTime) -> Result<Vec<TokenRow>>;

    /// Ends a token, with its peers. Fails with [`Refusal::TokenNotFound`].
    async fn revoke_token(&self, caller: &Caller, name: &TokenName, origin: &Origin) -> Result<()>;
}

/// Whose peer one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOwner {
    /// The user.
    pub user: Username,
    /// The token that it was certified for. `None` if that was a session.
    pub token: Option<TokenName>,
}

/// The owners of peers.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Registers the peer as the caller's until its certificate expires. A peer that was registered to
    /// another user becomes the caller's. [`crate::domain::quota::Quota::Peers`] limits the caller's peers
    /// with unexpired certificates.
    async fn register_peer(
        &self,
        caller: &Caller,
        peer: PeerId,
        expires: SystemTime,
        origin: &Origin,
    ) -> Result<()>;

    /// Whom the peer belongs to.
    async fn peer_owner(&self, peer: PeerId) -> Result<Option<PeerOwner>>;
}

/// A group, as every user with an account may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// The group's name.
    pub group: GroupId,
    /// The group's owner.
    pub owner: Username,
    /// The number of members, the owner included.
    pub members: u32,
    /// The requesting user's relation to the group.
    pub standing: Standing,
}

/// A member, or a user with an open request to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonRow {
    /// The row's number in the order of joining or asking: the cursor of the next page.
    pub cursor: i64,
    /// The user.
    pub user: Username,
    /// The user's relation to the group.
    pub standing: Standing,
    /// The time of joining, or of the request.
    pub since: SystemTime,
}

/// What a call asks for in a group, besides the caller's place there.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Nothing.
    Nothing,
    /// The file with exactly this name.
    Named(&'a FileName),
    /// The file with this id.
    File(FileId),
}

/// All that a call in a group is decided by.
#[async_trait]
pub trait Rulings: Send + Sync {
    /// Reads the session, the place of its user in the group, and the file that is asked for, in one statement: a database
    /// on another machine is asked once. [`access::admit_by`](crate::domain::access::admit_by) decides.
    async fn evidence(
        &self,
        session: SessionHash,
        group: &GroupId,
        asked: Asked<'_>,
    ) -> Result<Evidence<FileRow>>;
}

/// Groups, members and requests to join.
#[async_trait]
pub trait Groups: Send + Sync {
    /// Returns the caller's place in a group, or `None` if the group does not exist.
    async fn place(&self, account: AccountId, group: &GroupId) -> Result<Option<Place>>;

    /// Returns all groups that the caller is a member of, with their epochs. At most
    /// [`crate::domain::quota::Quota::GroupsJoined`].
    async fn epochs(&self, caller: &Caller) -> Result<Vec<(GroupId, u64)>>;

    /// Makes a group that the caller owns. Fails with [`Refusal::GroupTaken`], or at a quota.
    async fn create_group(&self, caller: &Caller, group: &GroupId, origin: &Origin) -> Result<()>;

    /// Returns up to `limit` groups after `after`, ordered by name. With `mine`, only groups that the caller
    /// is in or has asked to join.
    async fn groups(
        &self,
        caller: &Caller,
        mine: bool,
        after: Option<&GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupRow>>;

    /// Asks to join. Fails with [`Refusal::GroupNotFound`], [`Refusal::AlreadyAMember`] or
    /// [`Refusal::AlreadyAsked`], or at a quota.
    async fn ask(&self, caller: &Caller, group: &GroupId, origin: &Origin) -> Result<()>;

    /// Withdraws a request, or ends a membership. An owner's group passes to the longest-standing member. It
    /// is deleted with its last member.
    async fn leave(&self, who: &Applicant, origin: &Origin) -> Result<()>;

    /// Returns up to `limit` open requests after the cursor, oldest first.
    async fn requests(&self, owner: &Management, after: i64, limit: u32) -> Result<Vec<PersonRow>>;

    /// Makes the user of a request a member. Succeeds if the user is already a member. Fails with
    /// [`Refusal::NoSuchRequest`], or at a quota.
    async fn accept(&self, owner: &Management, user: &Username, origin: &Origin) -> Result<()>;

    /// Rejects a request. Fails with [`Refusal::NoSuchRequest`].
    async fn reject(&self, owner: &Management, user: &Username, origin: &Origin) -> Result<()>;

    /// Returns up to `limit` members after the cursor, longest-standing first.
    async fn members(&self, member: &Membership, after: i64, limit: u32) -> Result<Vec<PersonRow>>;

    /// Removes a member. Fails with [`Refusal::MemberNotFound`] or [`Refusal::TargetIsOwner`], or with
    /// [`Refusal::NotTheOwner`] if a manager would remove another.
    async fn remove_member(&self, owner: &Management, user: &Username, origin: &Origin) -> Result<()>;

    /// Gives a member another role. Fails with [`Refusal::MemberNotFound`] or [`Refusal::TargetIsOwner`].
    async fn set_role(&self, owner: &Ownership, user: &Username, role: Role, origin: &Origin) -> Result<()>;

    /// Makes a member the owner. Fails with [`Refusal::TargetNotAMember`], or at a quota.
    async fn transfer(&self, owner: &Ownership, user: &Username, origin: &Origin) -> Result<()>;

    /// Deletes the group, its files and its requests.
    async fn delete_group(&self, owner: &Ownership, origin: &Origin) -> Result<()>;
}

/// What a caller shows of an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteKey {
    /// The group that it is for.
    pub group: GroupId,
    /// The hash of its secret.
    pub hash: InviteHash,
}

/// An invitation, as the group's owner may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteRow {
    /// Its id, which is also the cursor of the next page.
    pub id: i64,
    /// The user that made it.
    pub by: Username,
    /// The file that its link names.
    pub file: Option<FileName>,
    /// How many accounts may use it.
    pub uses: u32,
    /// How many of them still may.
    pub uses_left: u32,
    /// The time when it was made.
    pub since: SystemTime,
    /// The time when it expires.
    pub expires: SystemTime,
}

/// Invitations to groups.
#[async_trait]
pub trait Invites: Send + Sync {
    /// Makes an invitation, and returns its id. Fails with [`Refusal::FileNotFound`], or at the quota.
    async fn create_invite(&self, owner: &Management, invite: &NewInvite, origin: &Origin) -> Result<i64>;

    /// Returns up to `limit` invitations after the id `after` that have not expired at `now`, oldest first.
    async fn invites(
        &self,
        owner: &Management,
        after: i64,
        limit: u32,
        now: SystemTime,
    ) -> Result<Vec<InviteRow>>;

    /// Ends an invitation. Members that used it stay. Fails with [`Refusal::InviteNotFound`].
    async fn revoke_invite(&self, owner: &Management, id: i64, origin: &Origin) -> Result<()>;

    /// Makes the caller a member, and takes one use. Succeeds, and takes none, if the caller is a member. An account
    /// uses an invitation once. Fails with [`Refusal::InviteInvalid`], or at a quota.
    async fn join_by_invite(&self, caller: &Caller, invitation: &InviteKey, origin: &Origin) -> Result<()>;

    /// Whether somebody could use the invitation at `now`.
    async fn is_invited(&self, invitation: &InviteKey, now: SystemTime) -> Result<bool>;
}

/// The key of a stored manifest's hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ManifestId(pub i64);

/// A listed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// The file's id.
    pub id: FileId,
    /// The file's description.
    pub header: FileHeader,
    /// BLAKE3 over all its piece hashes, in order. It identifies a manifest exactly.
    pub hashes: [u8; 32],
    /// The key of its piece hashes.
    pub manifest: ManifestId,
    /// The user that published it.
    pub publisher: Username,
    /// The time of publication.
    pub since: SystemTime,
}

/// A row of piece hashes: up to 4,096 pieces, starting at `first`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashRun {
    /// The first piece.
    pub first: u32,
    /// The SHA-1 values, 20 bytes per piece.
    pub sha1: Vec<u8>,
    /// The BLAKE3 values, 32 bytes per piece.
    pub blake3: Vec<u8>,
}

/// A file that is to be listed.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'p> {
    /// The file's description.
    pub header: &'p FileHeader,
    /// BLAKE3 over all its piece hashes, in order.
    pub hashes: [u8; 32],
    /// The key of its staged piece hashes.
    pub manifest: ManifestId,
    /// What to do if other content has its name.
    pub if_taken: IfTaken,
    /// How much may be listed.
    pub quotas: &'p ListingQuotas,
}

/// The result of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The file.
    pub file: FileId,
    /// Whether the file existed before. The staged manifest was then not bound.
    pub already: bool,
    /// Whether other content had its name, and was replaced.
    pub replaced: bool,
}

/// What to do if other content has the name of a file that is to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfTaken {
    /// Refuse with [`Refusal::FileTaken`].
    Refuse,
    /// Unlist it, if the member may.
    Replace,
}

/// Files and their manifests.
///
/// A manifest is staged run by run in small transactions. The last transaction binds it to its file. So
/// memory use and locks stay small for any size. A staged manifest that is never bound is deleted.
#[async_trait]
pub trait Files: Send + Sync {
    /// Starts a manifest of `pieces` pieces. Fails at the quota of manifest bytes, which includes staged
    /// manifests.
    async fn stage_manifest(&self, member: &Membership, pieces: u32, now: SystemTime) -> Result<ManifestId>;

    /// Adds a run of hashes.
    async fn stage_run(&self, manifest: ManifestId, run: &HashRun) -> Result<()>;

    /// Gives up a staged manifest. Its quota is free at once, and its rows are deleted soon. Does nothing to
    /// a bound manifest.
    async fn give_up_manifest(&self, manifest: ManifestId) -> Result<()>;

    /// Same as [`Files::give_up_manifest`], but asynchronous, for callers that cannot wait.
    fn abandon_manifest(&self, manifest: ManifestId);

    /// Lists a file with its staged manifest. Succeeds if the same content is already listed under that name.
    /// Other content of that very name is handled as `if_taken` says, in the same transaction. Fails with
    /// [`Refusal::FileTaken`], with [`Refusal::NotThePublisher`], or at a quota. What is listed is counted in the
    /// same transaction, so that concurrent publications cannot exceed a quota together.
    async fn publish(
        &self,
        member: &Membership,
        publication: Publication<'_>,
        origin: &Origin,
    ) -> Result<Published>;

    /// Returns the group's file with this id.
    async fn file_by_id(&self, member: &Membership, file: FileId) -> Result<Option<FileRow>>;

    /// Returns the group's file with this name, or with a name that has the same folded form
    /// ([`proto::domain::names::fold`]).
    async fn file_by_folded_name(&self, member: &Membership, name: &FileName) -> Result<Option<FileRow>>;

    /// Returns up to `limit` of the group's files after `after`, ordered by name.
    async fn files(&self, member: &Membership, after: Option<&FileName>, limit: u32) -> Result<Vec<FileRow>>;

    /// Returns the run of hashes that starts at `first`.
    async fn manifest_run(&self, manifest: ManifestId, first: u32) -> Result<Option<HashRun>>;

    /// Unlists a file. Fails with [`Refusal::FileNotFound`] or [`Refusal::NotThePublisher`].
    async fn unpublish(&self, member: &Membership, name: &FileName, origin: &Origin) -> Result<()>;

    /// Resolves when there may be manifests to delete.
    async fn sweep_wanted(&self);

    /// Deletes the manifests that belong to no file, in small transactions.
    async fn sweep(&self) -> Result<()>;
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// The row's number in the log.
    pub id: i64,
    /// The time of the action.
    pub at: SystemTime,
    /// The user, as `USER` or, for a token, `USER/NAME`. `None` for callers that are not logged in, and for the operator.
    pub actor: Option<String>,
    /// The address of the caller. `None` for the operator's commands.
    pub ip: Option<String>,
    /// The action, as in [`Action::as_str`].
    pub action: String,
    /// The object of the action.
    pub object: String,
    /// The id of the call.
    pub request: String,
}

/// The most changes that are read at once.
pub const MOST_CHANGES: usize = 1_000;

/// The audit log, and the changes that the rest of the tracker must be told about.
#[async_trait]
pub trait Log: Send + Sync {
    /// Writes an audit row for an action that changes nothing else in the store.
    async fn record(&self, action: Action, object: &str, origin: &Origin) -> Result<()>;

    /// Whether the audit log has a row since `since` with one of these actions on this object, by the same
    /// user and with the same request id. If so, the call repeats one that succeeded.
    async fn was_done(
        &self,
        actions: &[Action],
        object: &str,
        origin: &Origin,
        since: SystemTime,
    ) -> Result<bool>;

    /// Returns up to `limit` rows after the row `after` and not older than `since`, oldest first.
    async fn audit(&self, since: SystemTime, after: i64, limit: u32) -> Result<Vec<AuditRow>>;

    /// The number of the last change.
    async fn last_change(&self) -> Result<i64>;

    /// Returns the changes after number `after`, in order, with their numbers. At most [`MOST_CHANGES`].
    async fn changes(&self, after: i64) -> Result<Vec<(i64, Change)>>;

    /// Resolves after a commit of this process that wrote changes. It may also resolve without changes.
    async fn changed(&self);

    /// Deletes old rows: changes older than one hour, audit rows older than 90 days, expired invitations.
    async fn prune(&self, now: SystemTime) -> Result<()>;

    /// Fails if the store cannot be written and read now.
    async fn probe(&self) -> Result<()>;
}
