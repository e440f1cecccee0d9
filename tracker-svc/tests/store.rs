//! The store: scenarios that each database must pass, and tests of SQLite's own properties.

#[path = "store/listing.rs"]
mod listing;
#[path = "store/rulings.rs"]
mod rulings;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use self::{
    listing::no_more_is_listed_than_the_operator_allows, rulings::one_question_finds_all_that_decides_a_call,
};
use proto::domain::{FileHeader, GroupId, PeerId, PieceLayout, Username, invite::InviteSecret};
use tracker_core::{
    Action, Applicant, Caller, Change, Management, Membership, Origin, Ownership, Refusal, Requirement,
    SessionHash, Standing,
    access::{self, Proof, Role},
    invite::NewInvite,
    operator::{Allowance, ListingQuotas, TooMuch, Whose},
    quota::Quota,
    session,
    token::{Allow, NewToken, TokenScope},
};
use tracker_svc::store::{
    Accounts as _, Asked, FileRow, Files as _, HashRun, IfTaken, InviteKey, ManifestId, PeerOwner,
    Publication, Published, Store, StoreError,
    postgres::{Postgres, PostgresOptions},
    sqlite::{self, OpenError, Sqlite},
};

/// One test for each scenario and database.
macro_rules! conformance {
    ($($scenario:ident => $sqlite:ident, $postgres:ident;)+) => {
        $(
            #[tokio::test]
            async fn $sqlite() {
                let dir = tempfile::tempdir().expect("a directory");
                let store = Arc::new(Sqlite::open(dir.path()).await.expect("a store"));
                $scenario(World::new(store)).await;
            }

            #[tokio::test]
            async fn $postgres() {
                let server = testkit::postgres::Postgres::start();
                let options = PostgresOptions::new(&server.url(), None).expect("an address");
                let store = Arc::new(Postgres::open(&options).await.expect("a store"));
                $scenario(World::new(store)).await;
            }
        )+
    };
}

conformance! {
    epochs_never_decrease => epochs_never_decrease_sqlite, epochs_never_decrease_postgres;
    changes_are_reported_in_order => changes_are_reported_in_order_sqlite, changes_are_reported_in_order_postgres;
    each_change_is_audited_and_a_refusal_changes_nothing => each_change_is_audited_sqlite, each_change_is_audited_postgres;
    a_stale_proof_does_nothing => a_stale_proof_does_nothing_sqlite, a_stale_proof_does_nothing_postgres;
    uses_of_invitations_are_counted_exactly => uses_of_invitations_are_counted_sqlite, uses_of_invitations_are_counted_postgres;
    one_question_finds_all_that_decides_a_call => one_question_finds_all_sqlite, one_question_finds_all_postgres;
    tokens_are_sessions_that_end_with_their_account => tokens_end_with_their_account_sqlite, tokens_end_with_their_account_postgres;
    sessions_open_only_on_the_password_that_was_checked => sessions_open_only_on_the_password_sqlite, sessions_open_only_on_the_password_postgres;
    peers_are_bound_to_their_users => peers_are_bound_to_their_users_sqlite, peers_are_bound_to_their_users_postgres;
    manifests_without_a_file_are_removed => manifests_without_a_file_are_removed_sqlite, manifests_without_a_file_are_removed_postgres;
    expired_sessions_and_old_rows_are_removed => expired_sessions_and_old_rows_are_removed_sqlite, expired_sessions_and_old_rows_are_removed_postgres;
    a_stepping_clock_neither_revives_nor_prolongs_sessions => a_stepping_clock_revives_no_session_sqlite, a_stepping_clock_revives_no_session_postgres;
    roles_are_kept_and_checked_again => roles_are_kept_sqlite, roles_are_kept_postgres;
    no_more_is_listed_than_the_operator_allows => listing_quotas_hold_sqlite, listing_quotas_hold_postgres;
    groups_are_full_at_a_thousand => groups_are_full_at_a_thousand_sqlite, groups_are_full_at_a_thousand_postgres;
}

/// A store, and everything needed to call it.
struct World {
    store: Arc<dyn Store>,
    sessions: AtomicU64,
}

impl World {
    fn new(store: Arc<dyn Store>) -> Self {
        Self { store, sessions: AtomicU64::new(1) }
    }

    async fn account(&self, name: &str) -> Caller {
        self.store.create_account(&user(name), "hash", None, &origin()).await.expect("an account");
        self.login(name).await
    }

    async fn login(&self, name: &str) -> Caller {
        let credentials = self.store.credentials(&user(name)).await.expect("a read").expect("an account");
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.sessions.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let hash = SessionHash::from(hash);
        self.store.open_session(&credentials, None, hash, &origin()).await.expect("a session");
        let session = self.store.session(hash).await.expect("a read").expect("a session");
        access::authenticate(Requirement::Session, session, SystemTime::now()).expect("a living session")
    }

    async fn enter<P: Proof>(&self, caller: &Caller, group: &GroupId) -> Result<P, Refusal> {
        let place = self.store.place(caller.account(), group).await.expect("a read");
        access::admit(caller, group, place)
    }

    async fn owner(&self, caller: &Caller, group: &GroupId) -> Ownership {
        self.enter(caller, group).await.expect("the owner")
    }

    async fn member(&self, caller: &Caller, group: &GroupId) -> Membership {
        self.enter(caller, group).await.expect("a member")
    }

    async fn create(&self, caller: &Caller, group: &GroupId) {
        self.store.create_group(caller, group, &origin()).await.expect("a group");
    }

    /// Asks to join, and is accepted.
    async fn join(&self, caller: &Caller, group: &GroupId, owner: &Caller) {
        self.store.ask(caller, group, &origin()).await.expect("a request");
        let owner = self.owner(owner, group).await;
        self.store.accept(&owner, caller.user(), &origin()).await.expect("a member");
    }

    async fn epoch(&self, caller: &Caller, group: &GroupId) -> u64 {
        self.member(caller, group).await.epoch()
    }

    async fn changes(&self) -> Vec<Change> {
        let changes = self.store.changes(0).await.expect("changes");
        assert!(changes.is_sorted_by_key(|(number, _)| *number));
        changes.into_iter().map(|(_, change)| change).collect()
    }

    async fn actions(&self) -> Vec<String> {
        let rows = self.store.audit(SystemTime::UNIX_EPOCH, 0, 1_000).await.expect("the audit log");
        rows.into_iter().map(|row| row.action).collect()
    }

    /// Stages and publishes a file of two pieces.
    async fn publish(&self, member: &Membership, name: &str) -> ManifestId {
        let manifest = self.stage(member, 2).await;
        let published = self.list(member, name, manifest, &ListingQuotas::default()).await;
        assert!(!published.expect("listed").already);
        manifest
    }

    /// Publishes a file with its staged manifest.
    async fn list(
        &self,
        member: &Membership,
        name: &str,
        manifest: ManifestId,
        quotas: &ListingQuotas,
    ) -> Result<Published, StoreError> {
        let (header, if_taken) = (&header(name), IfTaken::Refuse);
        let file = Publication { header, hashes: [7; 32], manifest, if_taken, quotas };
        self.store.publish(member, file, &origin()).await
    }

    async fn stage(&self, member: &Membership, pieces: u32) -> ManifestId {
        let manifest = self.store.stage_manifest(member, pieces, SystemTime::now()).await.expect("staged");
        let run = HashRun { first: 0, sha1: vec![1; 40], blake3: vec![2; 64] };
        self.store.stage_run(manifest, &run).await.expect("staged");
        manifest
    }

    async fn has_hashes(&self, manifest: ManifestId) -> bool {
        self.store.manifest_run(manifest, 0).await.expect("a read").is_some()
    }
}

fn owned_by(name: &str) -> PeerOwner {
    PeerOwner { user: user(name), token: None }
}

fn user(name: &str) -> Username {
    name.parse().expect("a username")
}

fn group(name: &str) -> GroupId {
    name.parse().expect("a group name")
}

fn header(name: &str) -> FileHeader {
    FileHeader {
        name: name.parse().expect("a file name"),
        layout: PieceLayout::new(600_000).expect("a length"),
        sha1: [3; 20].into(),
        blake3: [4; 32].into(),
        folder: None,
    }
}

fn at(now: SystemTime) -> Origin {
    Origin { actor: None, ip: None, request: "test".into(), at: now }
}

fn origin() -> Origin {
    at(SystemTime::now())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, refusal: Refusal) {
    match result {
        Err(StoreError::Refused(found)) => assert_eq!(found, refusal),
        other => panic!("{other:?} instead of {refusal:?}"),
    }
}

async fn epochs_never_decrease(world: World) {
    let (ann, bob, g1) = (world.account("ann").await, world.account("bob").await, group("g1"));
    world.create(&ann, &g1).await;
    let mut epochs = vec![world.epoch(&ann, &g1).await];
    world.join(&bob, &g1, &ann).await;
    assert_eq!(world.epoch(&ann, &g1).await, epochs[0], "coming in voids nothing");
    let owner = world.owner(&ann, &g1).await;
    world.store.remove_member(&owner, bob.user(), &origin()).await.expect("removed");
    epochs.push(world.epoch(&ann, &g1).await);
    world.join(&bob, &g1, &ann).await;
    let leaving: Applicant = world.enter(&bob, &g1).await.expect("a member");
    world.store.leave(&leaving, &origin()).await.expect("left");
    epochs.push(world.epoch(&ann, &g1).await);
    world.store.delete_group(&owner, &origin()).await.expect("deleted");
    for change in world.changes().await {
        if let Change::GroupGone { epoch, .. } = change {
            epochs.push(epoch);
        }
    }
    world.create(&ann, &g1).await;
    epochs.push(world.epoch(&ann, &g1).await);
    assert_eq!(epochs.len(), 5);
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

async fn changes_are_reported_in_order(world: World) {
    let (ann, bob, g1) = (world.account("ann").await, world.account("bob").await, group("g1"));
    world.create(&ann, &g1).await;
    world.join(&bob, &g1, &ann).await;
    let file = {
        let member = world.member(&bob, &g1).await;
        world.publish(&member, "f").await;
        world.admit(&bob, &g1, Asked::Named(&header("f").name)).await.expect("a member").expect("a file").id
    };
    let epoch = world.epoch(&ann, &g1).await;
    let came = Change::MemberCame { group: g1.clone(), user: user("bob"), epoch };
    let listed = Change::FilePublished { group: g1.clone(), file };
    assert_eq!(world.changes().await, [came.clone(), listed.clone()]);
    world.store.set_disabled(bob.user(), true, &origin()).await.expect("disabled");
    let epoch = world.epoch(&ann, &g1).await;
    let member = world.member(&ann, &g1).await;
    world.store.unpublish(&member, &header("f").name, &origin()).await.expect("unlisted");
    world.store.end_session(&ann, &origin()).await.expect("ended");
    let told = [
        came,
        listed,
        Change::SessionEnded { session: bob.session() },
        Change::MemberGone { group: g1.clone(), user: user("bob"), epoch },
        Change::UserDisabled { user: user("bob") },
        Change::FileGone { group: g1, file },
        Change::SessionEnded { session: ann.session() },
    ];
    assert_eq!(world.changes().await, told);
    assert_eq!(world.store.last_change().await.expect("a number"), 7);
    let later = world.store.changes(6).await.expect("changes");
    assert_eq!(later, [(7, told[6].clone())]);
    // A commit that wrote changes wakes the tasks that wait for them.
    world.store.changed().await;
}

async fn each_change_is_audited_and_a_refusal_changes_nothing(world: World) {
    let (ann, bob, g1) = (world.account("ann").await, world.account("bob").await, group("g1"));
    world.create(&ann, &g1).await;
    world.join(&bob, &g1, &ann).await;
    let owner = world.owner(&ann, &g1).await;
    refused(world.store.create_account(&user("ann"), "x", None, &origin()).await, Refusal::UsernameTaken);
    refused(world.store.create_group(&bob, &g1, &origin()).await, Refusal::GroupTaken);
    refused(world.store.ask(&bob, &g1, &origin()).await, Refusal::AlreadyAMember);
    refused(world.store.reject(&owner, bob.user(), &origin()).await, Refusal::NoSuchRequest);
    refused(world.store.remove_member(&owner, ann.user(), &origin()).await, Refusal::TargetIsOwner);
    refused(world.store.transfer(&owner, &user("eve"), &origin()).await, Refusal::TargetNotAMember);
    refused(world.store.set_disabled(&user("eve"), true, &origin()).await, Refusal::UserNotFound);
    refused(world.store.change_password(&ann, "not it", "new", &origin()).await, Refusal::WrongPassword);
    world.publish(&world.member(&bob, &g1).await, "f").await;
    world.store.record(Action::LoginFailed, "ann", &origin()).await.expect("recorded");
    world.store.change_password(&ann, "hash", "new", &origin()).await.expect("changed");
    world.store.transfer(&owner, bob.user(), &origin()).await.expect("handed over");
    let expected = [
        "create_user",
        "login",
        "create_user",
        "login",
        "create_group",
        "join_group",
        "accept_request",
        "publish_file",
        "login_failed",
        "change_password",
        "transfer_ownership",
    ];
    assert_eq!(world.actions().await, expected);
}

async fn tokens_are_sessions_that_end_with_their_account(world: World) {
    let (ann, bob, now) = (world.account("ann").await, world.account("bob").await, SystemTime::now());
    let groups = Some(["g1", "our films"].map(group).into());
    let new = |number: u8, name: &str, minutes| {
        let scope =
            TokenScope { name: name.parse().expect("a name"), allow: Allow::Share, groups: groups.clone() };
        NewToken::new([200 + number; 32].into(), scope, Some(Duration::from_mins(minutes)), now)
            .expect("a token")
    };
    let (ci, spare) = (new(0, "ci", 10), new(1, "spare", 5));
    world.store.create_token(&ann, &ci, &origin()).await.expect("made");
    world.store.create_token(&ann, &spare, &origin()).await.expect("made");
    refused(world.store.create_token(&ann, &new(2, "ci", 5), &origin()).await, Refusal::TokenTaken);
    world.store.create_token(&bob, &new(3, "ci", 5), &origin()).await.expect("another account's");
    let rows = world.store.tokens(&ann, now).await.expect("rows");
    assert_eq!(rows.iter().map(|row| &row.scope).collect::<Vec<_>>(), [&ci.scope, &spare.scope]);

    // It is found as a session, and its peers are bound to it.
    let found = world.store.session(ci.hash).await.expect("a read").expect("a session");
    assert_eq!((&found.user, found.ends()), (ann.user(), rows[0].expires));

    // Many are read at once, each as it is read alone, and those that do not exist are left out.
    let hashes = [spare.hash, ann.session(), SessionHash::from([199; 32]), ci.hash];
    let mut all = world.store.sessions(&hashes).await.expect("a read");
    all.sort_by_key(|session| hashes.iter().position(|hash| *hash == session.hash));
    let mut alone = Vec::new();
    for hash in hashes {
        alone.extend(world.store.session(hash).await.expect("a read"));
    }
    assert_eq!((all.len(), all), (3, alone));
    let rule = access::rule("/minitorrent.v1.SwarmService/Announce").expect("a rule");
    let machine = access::authenticate(rule, found, now).expect("allowed");
    let peer = PeerId::from([5; 32]);
    world
        .store
        .register_peer(&machine, peer, now + Duration::from_hours(1), &origin())
        .await
        .expect("a peer");
    let owner = PeerOwner { token: Some(ci.scope.name.clone()), ..owned_by("ann") };
    assert_eq!(world.store.peer_owner(peer).await.expect("a read"), Some(owner));
    let used = now + Duration::from_mins(2);
    world.store.touch_session(ci.hash, used).await.expect("touched");
    let rows = world.store.tokens(&ann, now).await.expect("rows");
    assert!(rows[0].used > rows[0].since && rows[1].used == rows[1].since, "{rows:?}");

    // Each end is told to the running streams: of age, by its user, with the account.
    world.store.expire_sessions(now + Duration::from_mins(5)).await.expect("expired");
    assert!(world.store.session(spare.hash).await.expect("a read").is_none());
    refused(world.store.revoke_token(&ann, &spare.scope.name, &origin()).await, Refusal::TokenNotFound);
    world.store.create_token(&ann, &spare, &origin()).await.expect("the name is free again");
    world.store.revoke_token(&ann, &ci.scope.name, &origin()).await.expect("revoked");
    assert!(world.store.session(ci.hash).await.expect("a read").is_none());
    assert_eq!(world.store.peer_owner(peer).await.expect("a read"), None);
    world.store.set_disabled(ann.user(), true, &origin()).await.expect("disabled");
    world.store.set_disabled(ann.user(), false, &origin()).await.expect("enabled");
    assert!(world.store.session(spare.hash).await.expect("a read").is_none(), "it does not come back");
    let ended: Vec<_> = world
        .changes()
        .await
        .into_iter()
        .filter(|change| matches!(change, Change::SessionEnded { session } if session.as_bytes()[0] >= 200))
        .collect();
    let told = |hash| Change::SessionEnded { session: hash };
    let bobs = told([203; 32].into());
    let ends = |change: &Change| ended.iter().filter(|ended| *ended == change).count();
    assert_eq!((ends(&told(ci.hash)), ends(&told(spare.hash)), ends(&bobs), ended.len()), (1, 2, 1, 4));
}

async fn roles_are_kept_and_checked_again(world: World) {
    let (ann, bob, eve, g1) =
        (world.account("ann").await, world.account("bob").await, world.account("eve").await, group("g1"));
    world.create(&ann, &g1).await;
    world.join(&bob, &g1, &ann).await;
    world.join(&eve, &g1, &ann).await;
    let owner = world.owner(&ann, &g1).await;
    let set = async |user: &Caller, role| world.store.set_role(&owner, user.user(), role, &origin()).await;
    refused(set(&ann, Role::Reader).await, Refusal::TargetIsOwner);
    set(&bob, Role::Manager).await.expect("set");
    let manager: Management = world.enter(&bob, &g1).await.expect("a manager");
    let writer = world.member(&eve, &g1).await;
    let manifest = world.stage(&writer, 2).await;
    set(&eve, Role::Manager).await.expect("set");
    refused(world.store.remove_member(&manager, eve.user(), &origin()).await, Refusal::NotTheOwner);
    refused(world.store.remove_member(&manager, ann.user(), &origin()).await, Refusal::TargetIsOwner);
    // A stale proof does nothing.
    set(&eve, Role::Reader).await.expect("set");
    let publish = async || world.list(&writer, "f", manifest, &ListingQuotas::default()).await;
    refused(publish().await, Refusal::ReadsOnly);
    let listed = world.store.members(&writer, 0, 10).await.expect("rows");
    let standings: Vec<_> = listed.iter().map(|row| row.standing).collect();
    assert_eq!(standings, [Standing::Owner, Standing::Manager, Standing::Reader]);
    set(&bob, Role::Member).await.expect("set");
    refused(world.store.remove_member(&manager, eve.user(), &origin()).await, Refusal::NotAManager);
    set(&eve, Role::Member).await.expect("set");
    publish().await.expect("published");
    // A role ends with the membership.
    set(&eve, Role::Manager).await.expect("set");
    world.store.remove_member(&owner, eve.user(), &origin()).await.expect("removed");
    world.join(&eve, &g1, &ann).await;
    assert_eq!(world.enter::<Management>(&eve, &g1).await.err(), Some(Refusal::NotAManager));
}

async fn uses_of_invitations_are_counted_exactly(world: World) {
    let (ann, g1, now) = (world.account("ann").await, group("g1"), SystemTime::now());
    world.create(&ann, &g1).await;
    let owner = world.owner(&ann, &g1).await;
    let secret = InviteSecret::from([7; 16]);
    let hour = Some(Duration::from_hours(1));
    let new = NewInvite::new(&secret, 2, hour, None, now).expect("an invitation");
    let id = world.store.create_invite(&owner, &new, &origin()).await.expect("made");
    let key = InviteKey { group: g1.clone(), hash: new.hash };
    let mut guests = Vec::new();
    for name in ["bob", "dan", "eve"] {
        guests.push(world.account(name).await);
    }
    let origin = origin();
    let joins = guests.iter().map(|guest| world.store.join_by_invite(guest, &key, &origin));
    let outcomes = futures_util::future::join_all(joins).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2, "{outcomes:?}");
    for (guest, outcome) in guests.iter().zip(outcomes) {
        match outcome {
            Ok(()) => drop(world.member(guest, &g1).await),
            outcome => refused(outcome, Refusal::InviteInvalid),
        }
    }
    assert!(!world.store.is_invited(&key, now).await.expect("a read"));
    let rows = world.store.invites(&owner, 0, 10, now).await.expect("rows");
    assert_eq!(rows.iter().map(|row| (row.id, row.uses, row.uses_left)).collect::<Vec<_>>(), [(id, 2, 0)]);
    assert!(world.store.invites(&owner, id, 10, now).await.expect("rows").is_empty(), "the next page");
    let later = now + Duration::from_hours(2);
    assert!(world.store.invites(&owner, 0, 10, later).await.expect("rows").is_empty(), "it has expired");
    world.store.prune(later).await.expect("pruned");
    refused(world.store.revoke_invite(&owner, id, &origin).await, Refusal::InviteNotFound);
    // An account that is made by an invitation that is used up is not made.
    let made = world.store.create_account(&user("fay"), "hash", Some(&key), &origin).await;
    refused(made, Refusal::InviteInvalid);
    assert!(world.store.credentials(&user("fay")).await.expect("a read").is_none());
}

async fn a_stale_proof_does_nothing(world: World) {
    let (ann, bob, g1) = (world.account("ann").await, world.account("bob").await, group("g1"));
    world.create(&ann, &g1).await;
    world.join(&bob, &g1, &ann).await;
    let (owner, member) = (world.owner(&ann, &g1).await, world.member(&bob, &g1).await);
    world.store.transfer(&owner, bob.user(), &origin()).await.expect("handed over");
    refused(world.store.remove_member(&owner, bob.user(), &origin()).await, Refusal::NotAManager);
    refused(world.store.delete_group(&owner, &origin()).await, Refusal::NotTheOwner);
    let heir = world.owner(&bob, &g1).await;
    world.store.delete_group(&heir, &origin()).await.expect("deleted");
    world.create(&ann, &g1).await;
    // The group with that name is now a different group.
    let manifest = world.stage(&member, 2).await;
    let published = world.list(&member, "f", manifest, &ListingQuotas::default()).await;
    refused(published, Refusal::NotAMember);
    refused(world.store.delete_group(&heir, &origin()).await, Refusal::NotAMember);
    assert_eq!(world.store.members(&member, 0, 10).await.expect("a list"), []);
    let place = world.store.place(ann.account(), &g1).await.expect("a read").expect("a group");
    assert_eq!(place.standing, Standing::Owner);
}

async fn sessions_open_only_on_the_password_that_was_checked(world: World) {
    world.account("ann").await;
    let checked = world.store.credentials(&user("ann")).await.expect("a read").expect("an account");
    world.store.reset_password(&user("ann"), "another", &origin()).await.expect("reset");
    let open = |credentials| {
        let store = Arc::clone(&world.store);
        async move { store.open_session(&credentials, None, [9; 32].into(), &origin()).await }
    };
    refused(open(checked).await, Refusal::BadCredentials);
    let checked = world.store.credentials(&user("ann")).await.expect("a read").expect("an account");
    world.store.set_disabled(&user("ann"), true, &origin()).await.expect("disabled");
    refused(open(checked.clone()).await, Refusal::BadCredentials);
    world.store.set_disabled(&user("ann"), false, &origin()).await.expect("enabled");
    world.store.open_session(&checked, Some("stronger"), [9; 32].into(), &origin()).await.expect("a session");
    let now = world.store.credentials(&user("ann")).await.expect("a read").expect("an account");
    assert_eq!(now.password, "stronger");
}

async fn peers_are_bound_to_their_users(world: World) {
    let (ann, bob) = (world.account("ann").await, world.account("bob").await);
    let (now, week) = (SystemTime::now(), Duration::from_hours(7 * 24));
    let peer = |n: u8| PeerId::from([n; 32]);
    let register = async |caller: &Caller, n: u8, at_time: SystemTime| {
        world.store.register_peer(caller, peer(n), at_time + week, &at(at_time)).await
    };
    for n in 0..16 {
        register(&ann, n, now).await.expect("registered");
    }
    refused(register(&ann, 16, now).await, Refusal::Quota(Quota::Peers));
    register(&ann, 3, now).await.expect("a renewal is not one more");
    assert_eq!(world.store.peer_owner(peer(3)).await.expect("a read"), Some(owned_by("ann")));
    assert_eq!(world.store.peer_owner(peer(99)).await.expect("a read"), None);
    // The machine changes hands: the peer belongs to the last user that proved to have its key.
    register(&bob, 3, now).await.expect("registered");
    assert_eq!(world.store.peer_owner(peer(3)).await.expect("a read"), Some(owned_by("bob")));
    // Peers with expired certificates do not count.
    register(&ann, 16, now + week + week).await.expect("registered");
}

async fn manifests_without_a_file_are_removed(world: World) {
    let (ann, g1) = (world.account("ann").await, group("g1"));
    world.create(&ann, &g1).await;
    let member = world.member(&ann, &g1).await;
    let kept = world.publish(&member, "kept").await;
    let unlisted = world.publish(&member, "unlisted").await;
    let given_up = world.stage(&member, 2).await;
    world.store.unpublish(&member, &header("unlisted").name, &origin()).await.expect("unlisted");
    world.store.abandon_manifest(given_up);
    world.store.abandon_manifest(kept);
    world.store.sweep_wanted().await;
    world.store.sweep().await.expect("swept");
    assert!(world.has_hashes(kept).await, "a bound manifest is not given up");
    assert!(!world.has_hashes(unlisted).await && !world.has_hashes(given_up).await);
    // The whole quota is free again, except for the manifest that is kept.
    let pieces = u32::try_from(Quota::ManifestBytes.limit() / 52).expect("fits");
    refused(
        world.store.stage_manifest(&member, pieces, SystemTime::now()).await,
        Refusal::Quota(Quota::ManifestBytes),
    );
    let most = world.store.stage_manifest(&member, pieces - 2, SystemTime::now()).await.expect("staged");
    world.store.abandon_manifest(most);
    world.store.delete_group(&world.owner(&ann, &g1).await, &origin()).await.expect("deleted");
    world.store.sweep().await.expect("swept");
    assert!(!world.has_hashes(kept).await);
}

async fn expired_sessions_and_old_rows_are_removed(world: World) {
    let ann = world.account("ann").await;
    let now = SystemTime::now();
    world.store.expire_sessions(now + session::IDLE / 2).await.expect("expired");
    assert!(world.store.session(ann.session()).await.expect("a read").is_some());
    world.store.touch_session(ann.session(), now + session::IDLE / 2).await.expect("touched");
    world.store.expire_sessions(now + session::IDLE + Duration::from_secs(9)).await.expect("expired");
    assert!(world.store.session(ann.session()).await.expect("a read").is_some(), "it was used");
    world.store.expire_sessions(now + session::IDLE * 2).await.expect("expired");
    assert!(world.store.session(ann.session()).await.expect("a read").is_none());
    assert_eq!(world.changes().await, [Change::SessionEnded { session: ann.session() }]);
    assert_eq!(world.actions().await, ["create_user", "login"]);
    world.store.prune(now + Duration::from_hours(91 * 24)).await.expect("pruned");
    assert_eq!(world.actions().await, Vec::<String>::new());
    assert_eq!(world.changes().await, []);
}

async fn a_stepping_clock_neither_revives_nor_prolongs_sessions(world: World) {
    let now = SystemTime::now();
    let ann = world.account("ann").await;
    let session = async || world.store.session(ann.session()).await.expect("a read");
    // The clock goes ahead and back. A session that was used meanwhile does not live longer because of it.
    let ahead = now + session::IDLE / 2;
    world.store.touch_session(ann.session(), ahead).await.expect("touched");
    world.store.expire_sessions(ahead).await.expect("expired");
    world.store.expire_sessions(now).await.expect("expired");
    let kept = session().await.expect("it lives");
    assert!(kept.is_alive(now));
    assert!(!kept.is_alive(now + session::IDLE), "it was last used now, by the clock that counts");
    // The clock goes far ahead and back. Expired sessions stay expired.
    world.store.expire_sessions(now + session::IDLE).await.expect("expired");
    world.store.expire_sessions(now).await.expect("expired");
    assert_eq!(session().await, None);
}

async fn groups_are_full_at_a_thousand(world: World) {
    let (ann, g1) = (world.account("ann").await, group("g1"));
    world.create(&ann, &g1).await;
    let owner = world.owner(&ann, &g1).await;
    for n in 0..999 {
        let member = world.account(&format!("user{n}")).await;
        world.store.ask(&member, &g1, &origin()).await.expect("a request");
        world.store.accept(&owner, member.user(), &origin()).await.expect("a member");
    }
    let last = world.account("last").await;
    world.store.ask(&last, &g1, &origin()).await.expect("a request");
    refused(world.store.accept(&owner, last.user(), &origin()).await, Refusal::Quota(Quota::Members));
    let requests = world.store.requests(&owner, 0, 10).await.expect("a list");
    assert_eq!(requests.len(), 1, "a refused request stays open");
    let groups = world.store.groups(&ann, true, None, 10).await.expect("a list");
    assert_eq!(groups[0].members, 1_000);
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn the_data_dir_is_private_and_has_one_tracker() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("a/b");
    let store = Sqlite::open(&data_dir).await.expect("a store");
    assert_eq!(mode(&data_dir), 0o700);
    for entry in std::fs::read_dir(&data_dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert!(matches!(Sqlite::open(&data_dir).await, Err(OpenError::Locked(_))));
    assert!(matches!(sqlite::restore(&data_dir, Path::new("x")).await, Err(OpenError::Locked(_))));
    store.close().await;
    drop(store);
    Sqlite::open(&data_dir).await.expect("a store again");
}

#[tokio::test]
async fn operator_commands_work_beside_a_running_tracker() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(Sqlite::open_beside(dir.path()).await, Err(OpenError::Missing(_))));
    let world = World::new(Arc::new(Sqlite::open(dir.path()).await.expect("a store")));
    let ann = world.account("ann").await;
    let operator = Sqlite::open_beside(dir.path()).await.expect("a store");
    operator.set_disabled(&user("ann"), true, &origin()).await.expect("disabled");
    assert_eq!(
        world.changes().await,
        [Change::SessionEnded { session: ann.session() }, Change::UserDisabled { user: user("ann") }]
    );
}

#[tokio::test]
async fn damage_is_found_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(sqlite::DATABASE);
    std::fs::write(&path, b"not a database at all, and long enough to be taken for a header of one")
        .expect("written");
    assert!(Sqlite::open(dir.path()).await.is_err());
    assert!(
        std::fs::read(&path).expect("it is there").starts_with(b"not a database"),
        "nothing was made anew"
    );
}

#[tokio::test]
async fn staged_manifests_are_removed_after_a_crash() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Sqlite::open(dir.path()).await.expect("a store"));
    let world = World::new(store.clone());
    let (ann, g1) = (world.account("ann").await, group("g1"));
    world.create(&ann, &g1).await;
    let member = world.member(&ann, &g1).await;
    world.publish(&member, "kept").await;
    world.stage(&member, 2).await;
    store.close().await;
    drop((world, store));
    let store = Sqlite::open(dir.path()).await.expect("a store");
    store.sweep_wanted().await;
    store.sweep().await.expect("swept");
    assert_eq!(store.manifests_stored().await.expect("a number"), 1);
}

#[tokio::test]
async fn a_backup_during_writes_is_complete_and_restores_no_sessions() {
    let (dir, elsewhere) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let store = Arc::new(Sqlite::open(dir.path()).await.expect("a store"));
    let world = World::new(store.clone());
    let (ann, g1) = (world.account("ann").await, group("g1"));
    world.create(&ann, &g1).await;
    let epoch = world.epoch(&ann, &g1).await;
    std::fs::write(dir.path().join("ca.pem"), "the CA").expect("written");
    let copy = elsewhere.path().join("copy.db");
    let writing = async {
        for n in 0..50 {
            store
                .create_account(&user(&format!("user{n}")), "hash", None, &origin())
                .await
                .expect("an account");
        }
    };
    let (taken, ()) = tokio::join!(sqlite::backup(dir.path(), &copy), writing);
    taken.expect("a backup");
    assert_eq!(mode(&copy), 0o600);
    assert!(sqlite::backup(dir.path(), &copy).await.is_err(), "nothing is overwritten");
    let open = elsewhere.path().join("open");
    std::fs::create_dir(&open).expect("made");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("ours");
    let refused = sqlite::backup(dir.path(), &open.join("copy.db")).await;
    assert!(refused.is_err() && !open.join("copy.db").exists(), "others could take its place");
    let place = elsewhere.path().join("data");
    assert_eq!(sqlite::restore(&place, &copy).await.expect("restored"), None);
    assert_eq!(std::fs::read_to_string(place.join("ca.pem")).expect("kept"), "the CA");
    let restored = World::new(Arc::new(Sqlite::open(&place).await.expect("a store")));
    assert!(restored.store.credentials(&user("ann")).await.expect("a read").is_some());
    assert!(
        restored.store.session(ann.session()).await.expect("a read").is_none(),
        "sessions don't come back"
    );
    let again = restored.login("ann").await;
    assert!(restored.epoch(&again, &g1).await > epoch + 1_000, "tickets of the time since stay void");
    drop(restored);
    let before = sqlite::restore(&place, &copy).await.expect("restored over the old one");
    assert!(before.is_some_and(|before| before.exists()), "what was there is kept");
    assert!(sqlite::restore(&place, &dir.path().join("ca.pem")).await.is_err(), "not a copy");
    Sqlite::open(&place).await.expect("a refused copy leaves what was there");
}
