//! What the tracker keeps for good, behind small traits; what lives in memory (swarms, rates) is not here.
//!
//! Rules of every backend: a call returns `Ok` only after its commit is durable. Each change writes its audit row, and
//! the [`Change`]s that others must hear of, in its own transaction. Uniqueness and races are decided by constraints
//! and compare-and-set, never by check-then-write. Methods of a group take a proof of the caller's standing
//! ([`crate::domain::access`]); where acting on a stale proof would do harm, the transaction checks again.
//!
//! Non-goals: swarm state, and a second backend; PostgreSQL would be another folder beside [`sqlite`].

pub mod sqlite;

use std::time::SystemTime;

use async_trait::async_trait;
use proto::domain::{FileHeader, FileId, FileName, GroupId, PeerId, Username};

use crate::{
    domain::{
        Action, Applicant, Caller, Membership, Origin, Ownership, Refusal, Session, SessionHash, Standing,
        access::Place, session::AccountId,
    },
    events::Change,
};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A rule forbids it; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database is locked or gone; trying again may help.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The disk is full.
    #[error("the disk of the store is full")]
    Full,
    /// Anything else: a fault of ours or of the disk.
    #[error("the store failed: {0}")]
    Fault(String),
}

/// What a store call gives.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Everything the tracker keeps.
pub trait Store: Accounts + Sessions + Peers + Groups + Files + Log {}

impl<T: Accounts + Sessions + Peers + Groups + Files + Log> Store for T {}

/// An account's password as it is stored.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The account.
    pub account: AccountId,
    /// PHC string.
    pub password: String,
    /// The account may not log in.
    pub disabled: bool,
}

/// Accounts and their passwords. Passwords come and go as PHC strings.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Makes an account; [`Refusal::UsernameTaken`].
    async fn create_account(&self, user: &Username, password: &str, origin: &Origin) -> Result<()>;

    /// The account of that name.
    async fn credentials(&self, user: &Username) -> Result<Option<Credentials>>;

    /// Sets a new password if the old one still is `old`, and ends all sessions but the caller's;
    /// [`Refusal::WrongPassword`].
    async fn change_password(&self, caller: &Caller, old: &str, new: &str, origin: &Origin) -> Result<()>;

    /// The operator sets a password; ends all sessions. [`Refusal::UserNotFound`].
    async fn reset_password(&self, user: &Username, new: &str, origin: &Origin) -> Result<()>;

    /// The operator disables or enables an account. Disabling ends all sessions and raises the epoch of each of the
    /// user's groups, so that tickets are void too. [`Refusal::UserNotFound`].
    async fn set_disabled(&self, user: &Username, disabled: bool, origin: &Origin) -> Result<()>;
}

/// Sessions, known by the hash of their tokens.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Opens a session if the account's password still is the one that was verified and it is not disabled;
    /// [`Refusal::BadCredentials`]. `rehashed` replaces the stored hash. Past [`crate::domain::quota::SESSIONS`], the
    /// session that was used least lately ends.
    async fn open_session(
        &self,
        verified: &Credentials,
        rehashed: Option<&str>,
        session: SessionHash,
        origin: &Origin,
    ) -> Result<()>;

    /// The session, alive or not.
    async fn session(&self, hash: SessionHash) -> Result<Option<Session>>;

    /// Notes that the session was used at `now`.
    async fn touch_session(&self, hash: SessionHash, now: SystemTime) -> Result<()>;

    /// How many sessions there are.
    async fn sessions_open(&self) -> Result<u64>;

    /// Ends the caller's session.
    async fn end_session(&self, caller: &Caller, origin: &Origin) -> Result<()>;

    /// Ends all of the caller's sessions and says how many there were.
    async fn end_sessions(&self, caller: &Caller, origin: &Origin) -> Result<u32>;
}

/// Which peer is whose.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Notes that the peer is the caller's until its certificate ends; a key that another user's certificate was for
    /// becomes the caller's. [`crate::domain::quota::Quota::Peers`] of those whose certificates have not run out.
    async fn register_peer(
        &self,
        caller: &Caller,
        peer: PeerId,
        expires: SystemTime,
        origin: &Origin,
    ) -> Result<()>;

    /// Whose peer it is.
    async fn peer_owner(&self, peer: PeerId) -> Result<Option<Username>>;
}

/// A group as anybody with an account may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// Its name.
    pub group: GroupId,
    /// Its owner.
    pub owner: Username,
    /// Members, the owner included.
    pub members: u32,
    /// What the asking user is to it.
    pub standing: Standing,
}

/// A member, or somebody who asks to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonRow {
    /// Their place in the order of coming: the cursor of the page after them.
    pub cursor: i64,
    /// Who.
    pub user: Username,
    /// What they are to the group.
    pub standing: Standing,
    /// When they came in, or asked.
    pub since: SystemTime,
}

/// Groups, members and requests to join.
#[async_trait]
pub trait Groups: Send + Sync {
    /// The caller's place in a group; `None` when there is no such group.
    async fn place(&self, account: AccountId, group: &GroupId) -> Result<Option<Place>>;

    /// Makes a group that the caller owns; [`Refusal::GroupTaken`], quota.
    async fn create_group(&self, caller: &Caller, group: &GroupId, origin: &Origin) -> Result<()>;

    /// Up to `limit` groups by name, those after `after`; with `mine`, those that the caller is in or asked to join.
    async fn groups(
        &self,
        caller: &Caller,
        mine: bool,
        after: Option<&GroupId>,
        limit: u32,
    ) -> Result<Vec<GroupRow>>;

    /// Asks to be let in; [`Refusal::GroupNotFound`], [`Refusal::AlreadyAMember`], [`Refusal::AlreadyAsked`], quotas.
    async fn ask(&self, caller: &Caller, group: &GroupId, origin: &Origin) -> Result<()>;

    /// Withdraws a request, or leaves. An owner's group passes to the longest-standing member and ends with the last.
    async fn leave(&self, who: &Applicant, origin: &Origin) -> Result<()>;

    /// Up to `limit` open requests, oldest first, those after the cursor.
    async fn requests(&self, owner: &Ownership, after: i64, limit: u32) -> Result<Vec<PersonRow>>;

    /// Lets somebody in; [`Refusal::NoSuchRequest`], quotas.
    async fn accept(&self, owner: &Ownership, user: &Username, origin: &Origin) -> Result<()>;

    /// Turns somebody away; [`Refusal::NoSuchRequest`].
    async fn reject(&self, owner: &Ownership, user: &Username, origin: &Origin) -> Result<()>;

    /// Up to `limit` members, longest-standing first, those after the cursor.
    async fn members(&self, member: &Membership, after: i64, limit: u32) -> Result<Vec<PersonRow>>;

    /// Puts a member out; [`Refusal::MemberNotFound`], [`Refusal::TargetIsOwner`].
    async fn remove_member(&self, owner: &Ownership, user: &Username, origin: &Origin) -> Result<()>;

    /// Makes a member the owner; [`Refusal::TargetNotAMember`], quota.
    async fn transfer(&self, owner: &Ownership, user: &Username, origin: &Origin) -> Result<()>;

    /// Ends the group, its files and requests.
    async fn delete_group(&self, owner: &Ownership, origin: &Origin) -> Result<()>;
}

/// A stored manifest's hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ManifestId(pub i64);

/// A listed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// Its id.
    pub id: FileId,
    /// What it is.
    pub header: FileHeader,
    /// BLAKE3 over all its piece hashes as they came: tells whether two manifests are the same to the last bit.
    pub hashes: [u8; 32],
    /// Where its piece hashes are.
    pub manifest: ManifestId,
    /// Who published it.
    pub publisher: Username,
    /// When.
    pub since: SystemTime,
}

/// A row of piece hashes: up to 4,096 pieces from `first` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashRun {
    /// The first piece.
    pub first: u32,
    /// SHA-1s, 20 bytes a piece.
    pub sha1: Vec<u8>,
    /// BLAKE3 values, 32 bytes a piece.
    pub blake3: Vec<u8>,
}

/// What came of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The file.
    pub file: FileId,
    /// It was there before; the staged manifest was not bound.
    pub already: bool,
}

/// Files and their manifests.
///
/// A manifest is staged run by run in small transactions and bound to its file in the last one, so memory and locks
/// stay small whatever its size. What is staged and not bound is swept away.
#[async_trait]
pub trait Files: Send + Sync {
    /// Starts a manifest of so many pieces; quota of manifest bytes, staged ones included.
    async fn stage_manifest(&self, member: &Membership, pieces: u32, now: SystemTime) -> Result<ManifestId>;

    /// Adds a run of hashes.
    async fn stage_run(&self, manifest: ManifestId, run: &HashRun) -> Result<()>;

    /// Gives a staged manifest up: its quota is free, and it is swept away soon. Does nothing to one that is bound.
    async fn give_up_manifest(&self, manifest: ManifestId) -> Result<()>;

    /// As [`Files::give_up_manifest`], soon, where nothing can be waited for.
    fn abandon_manifest(&self, manifest: ManifestId);

    /// Lists a file with its staged manifest. The very same content under that name again is no error;
    /// [`Refusal::FileTaken`], quota of files.
    async fn publish(
        &self,
        member: &Membership,
        header: &FileHeader,
        hashes: [u8; 32],
        manifest: ManifestId,
        origin: &Origin,
    ) -> Result<Published>;

    /// The group's file of that id.
    async fn file_by_id(&self, member: &Membership, file: FileId) -> Result<Option<FileRow>>;

    /// The id of the group's file of exactly that name.
    async fn file_id(&self, member: &Membership, name: &FileName) -> Result<Option<FileId>>;

    /// The group's file of exactly that name.
    async fn file_by_name(&self, member: &Membership, name: &FileName) -> Result<Option<FileRow>>;

    /// The group's file of that name or one that folds alike ([`proto::domain::names::fold`]).
    async fn file_by_folded_name(&self, member: &Membership, name: &FileName) -> Result<Option<FileRow>>;

    /// Up to `limit` of the group's files by name, those after `after`.
    async fn files(&self, member: &Membership, after: Option<&FileName>, limit: u32) -> Result<Vec<FileRow>>;

    /// The run of hashes that starts at `first`.
    async fn manifest_run(&self, manifest: ManifestId, first: u32) -> Result<Option<HashRun>>;

    /// Unlists a file; [`Refusal::FileNotFound`], [`Refusal::NotThePublisher`].
    async fn unpublish(&self, member: &Membership, name: &FileName, origin: &Origin) -> Result<()>;

    /// Resolves when there may be manifests to sweep away.
    async fn sweep_wanted(&self);

    /// Sweeps away the manifests that no file has any more, in small transactions.
    async fn sweep(&self) -> Result<()>;
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place in the log.
    pub id: i64,
    /// When.
    pub at: SystemTime,
    /// Who; none for those who are not logged in and for the operator.
    pub actor: Option<String>,
    /// From where; none for the operator's commands.
    pub ip: Option<String>,
    /// What, as [`Action::as_str`].
    pub action: String,
    /// To what.
    pub object: String,
    /// Names the call.
    pub request: String,
}

/// The audit log, and the changes that the rest of the tracker must hear of.
#[async_trait]
pub trait Log: Send + Sync {
    /// Writes an audit row for something that changes nothing else in the store.
    async fn record(&self, action: Action, object: &str, origin: &Origin) -> Result<()>;

    /// Up to `limit` rows from `since` on, oldest first, those after the row of that id.
    async fn audit(&self, since: SystemTime, after: i64, limit: u32) -> Result<Vec<AuditRow>>;

    /// The number of the last change.
    async fn last_change(&self) -> Result<i64>;

    /// Changes after the one of that number, in order, with their numbers; at most 1,000.
    async fn changes(&self, after: i64) -> Result<Vec<(i64, Change)>>;

    /// Resolves after a commit of this process that wrote changes; may resolve for none.
    async fn changed(&self);

    /// Drops what is over: sessions, changes older than an hour, audit rows older than 90 days.
    async fn prune(&self, now: SystemTime) -> Result<()>;

    /// Whether the store can be written, now.
    async fn probe(&self) -> Result<()>;
}
