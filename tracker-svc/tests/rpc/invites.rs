//! Invitations: who is let in, how often, and what a guess learns.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use proto::{domain::invite::InviteSecret, pb::*, reason::Reason};
use testkit::{
    client::{Client, PASSWORD, refused},
    content::manifest,
    tracker::Tracker,
};
use tonic::{Response, Status};
use tracker_core::Origin;
use tracker_svc::store::{Accounts as _, Log as _};

async fn invite(
    owner: &Client,
    group: &str,
    uses: u32,
    lifetime: Option<u64>,
    name: &str,
) -> Result<CreateInviteResponse, Status> {
    let lifetime = lifetime.map(|seconds| Duration::from_secs(seconds).try_into().expect("a duration"));
    let request = CreateInviteRequest { group_id: group.into(), uses, lifetime, name: name.into() };
    owner.groups().create_invite(request).await.map(Response::into_inner)
}

fn key(group: &str, secret: &str) -> InviteKey {
    InviteKey { group_id: group.into(), secret: secret.into() }
}

async fn join(user: &Client, group: &str, secret: &str) -> Result<(), Status> {
    let request = JoinByInviteRequest { invite: Some(key(group, secret)) };
    user.groups().join_by_invite(request).await.map(drop)
}

async fn revoke(owner: &Client, group: &str, id: &str) -> Result<(), Status> {
    let request = RevokeInviteRequest { group_id: group.into(), invite_id: id.into() };
    owner.groups().revoke_invite(request).await.map(drop)
}

async fn sign_up(tracker: &Tracker, name: &str, invite: Option<InviteKey>) -> Result<(), Status> {
    let request = CreateUserRequest { username: name.into(), password: PASSWORD.into(), invite };
    tracker.anonymous().auth().create_user(request).await.map(drop)
}

async fn listed(owner: &Client, group: &str) -> Vec<Invite> {
    let request = ListInvitesRequest { group_id: group.into(), ..Default::default() };
    owner.groups().list_invites(request).await.expect("a list").into_inner().invites
}

/// Starts a tracker with these accounts, at which no more can be made in this way.
async fn restricted(dir: &Path, accounts: &[&str], registration: &str) -> Tracker {
    let open = Tracker::start_in(dir, &[]).await;
    for name in accounts {
        open.user(name).await;
    }
    open.stop().await;
    Tracker::start_in(dir, &[("registration", registration)]).await
}

#[tokio::test]
async fn of_31_joins_at_once_with_30_uses_one_is_refused() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    ann.found("g1", &[]).await;
    let secret = invite(&ann, "g1", 30, None, "").await.expect("an invitation").secret;
    let mut users = Vec::new();
    for number in 0..31 {
        users.push(tracker.user(&format!("user{number}")).await);
    }
    let outcomes = join_all(users.iter().map(|user| join(user, "g1", &secret))).await;
    let (joined, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((joined.len(), refused.len()), (30, 1), "{refused:?}");
    assert_eq!(ann.members("g1").await.expect("members").len(), 31, "the owner and 30 guests");
    let reason = refused[0].as_ref().err().and_then(Reason::of);
    assert_eq!(reason, Some(Reason::InviteInvalid));
    assert_eq!(listed(&ann, "g1").await[0].uses_left, 0);
    // Whose answer was lost asks again, which takes no use.
    join(&users[0], "g1", &secret)
        .await
        .or_else(|error| {
            // This may be the one that came too late.
            (Reason::of(&error) == Some(Reason::InviteInvalid)).then_some(()).ok_or(error)
        })
        .expect("a member, or refused as before");
}

#[tokio::test]
async fn new_accounts_at_once_share_the_uses_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let tracker = restricted(dir.path(), &["ann"], "invite").await;
    let ann = tracker.login("ann").await;
    ann.found("g1", &[]).await;
    let secret = invite(&ann, "g1", 2, None, "").await.expect("an invitation").secret;
    let names = ["bob", "eve", "dan"];
    let outcomes = join_all(names.map(|name| sign_up(&tracker, name, Some(key("g1", &secret))))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    for (name, outcome) in names.into_iter().zip(outcomes) {
        if let Err(error) = outcome {
            assert_eq!(Reason::of(&error), Some(Reason::InviteInvalid));
            // No account was left behind.
            refused(tracker.anonymous().login(name, PASSWORD).await, Reason::BadCredentials);
        } else {
            assert_eq!(tracker.login(name).await.members("g1").await.expect("a member").len(), 3);
        }
    }
}

#[tokio::test]
async fn a_guess_learns_nothing() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.found("g1", &[]).await;
    ann.found("g2", &[]).await;
    let made = invite(&ann, "g1", 1, None, "").await.expect("an invitation");
    let guess = InviteSecret::from([9; 16]).text();
    let revoked = invite(&ann, "g1", 1, None, "").await.expect("an invitation");
    revoke(&ann, "g1", &revoked.invite.expect("one").invite_id).await.expect("revoked");
    let disabled = tracker.user("dan").await;
    disabled.found("g3", &[]).await;
    let of_disabled = invite(&disabled, "g3", 1, None, "").await.expect("an invitation").secret;
    let origin = Origin { actor: None, ip: None, request: "x".into(), at: SystemTime::now() };
    tracker.store.set_disabled(&"dan".parse().unwrap(), true, &origin).await.expect("disabled");
    join(&bob, "g1", &made.secret).await.expect("a member");
    let mut answers = Vec::new();
    for (group, secret) in [
        ("g1", &guess),
        ("nowhere", &guess),
        // Of another group; revoked; used up; of a disabled account.
        ("g2", &made.secret),
        ("g1", &revoked.secret),
        ("g1", &made.secret),
        ("g3", &of_disabled),
    ] {
        let status = refused(join(&eve, group, secret).await, Reason::InviteInvalid);
        answers.push((status.code(), status.message().to_owned(), status.details().to_vec()));
        refused(sign_up(&tracker, "new", Some(key(group, secret))).await, Reason::InviteInvalid);
        // The name is taken, and that is not told.
        refused(sign_up(&tracker, "ann", Some(key(group, secret))).await, Reason::InviteInvalid);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let broken = [None, Some(key("g1", "")), Some(key("g1", &"A".repeat(23))), Some(key("a/b", &guess))];
    for invite in broken {
        let answer = eve.groups().join_by_invite(JoinByInviteRequest { invite: invite.clone() }).await;
        assert_eq!(answer.expect_err("malformed").code(), tonic::Code::InvalidArgument, "{invite:?}");
    }
}

#[tokio::test]
async fn an_account_uses_an_invitation_once() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.found("g1", &[]).await;
    bob.join_group("g1").await.expect("asked");
    let secret = invite(&ann, "g1", 10, None, "").await.expect("an invitation").secret;
    join(&bob, "g1", &secret).await.expect("a member");
    assert!(ann.requests("g1").await.expect("requests").is_empty(), "the request is answered");
    join(&bob, "g1", &secret).await.expect("a member already");
    assert_eq!(listed(&ann, "g1").await[0].uses_left, 9);
    ann.remove("g1", "bob").await.expect("removed");
    refused(join(&bob, "g1", &secret).await, Reason::InviteInvalid);
    assert_eq!(listed(&ann, "g1").await[0].uses_left, 9);
}

#[tokio::test]
async fn invitations_are_listed_expire_and_end() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.found("g1", &[]).await;
    ann.publish("g1", &manifest("movie.mp4", b"bytes")).await.expect("listed");
    let before = SystemTime::now();
    let made = invite(&ann, "g1", 5, Some(3_600), "movie.mp4").await.expect("an invitation");
    let listed_one = listed(&ann, "g1").await;
    let [one] = &listed_one[..] else { panic!("{listed_one:?}") };
    assert_eq!(made.invite.as_ref().map(|made| &made.invite_id), Some(&one.invite_id));
    assert_eq!((one.name.as_str(), one.uses, one.uses_left), ("movie.mp4", 5, 5));
    assert_eq!(one.username, "ann");
    let expires = one.expires_at.and_then(|at| SystemTime::try_from(at).ok()).expect("a time");
    let lasts = expires.duration_since(before).expect("later");
    assert!((3_500..3_700).contains(&lasts.as_secs()), "{lasts:?}");
    assert!(made.tracker_addresses.is_empty(), "it listens on loopback only");

    refused(invite(&ann, "g1", 1, None, "nothing").await, Reason::FileNotFound);
    for (uses, lifetime) in [(1_001, None), (1, Some(59)), (1, Some(91 * 86_400))] {
        refused(invite(&ann, "g1", uses, lifetime, "").await, Reason::InvalidRequest);
    }
    refused(invite(&bob, "g1", 1, None, "").await, Reason::NotAMember);
    refused(revoke(&ann, "g1", "4711").await, Reason::InviteNotFound);
    refused(revoke(&ann, "g1", "x").await, Reason::InviteNotFound);
    // Another group's owner can't revoke it.
    bob.found("g2", &[]).await;
    refused(revoke(&bob, "g2", &one.invite_id).await, Reason::InviteNotFound);
    revoke(&ann, "g1", &one.invite_id).await.expect("revoked");
    assert!(listed(&ann, "g1").await.is_empty());
    refused(join(&bob, "g1", &made.secret).await, Reason::InviteInvalid);
    ann.delete_group("g1").await.expect("deleted");

    let rows = tracker.store.audit(SystemTime::UNIX_EPOCH, 0, 1_000).await.expect("rows");
    let acts: Vec<_> = rows.iter().filter(|row| row.action.contains("invite")).collect();
    assert_eq!(acts.len(), 2, "{acts:?}");
    assert!(acts.iter().all(|row| row.object == format!("g1#{}", one.invite_id)), "{acts:?}");
}

#[tokio::test]
async fn too_many_invitations_are_refused() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    ann.found("g1", &[]).await;
    let mut made = 0;
    let refused_at = loop {
        match invite(&ann, "g1", 1, None, "").await {
            Ok(_) => made += 1,
            Err(error) if Reason::of(&error) == Some(Reason::RateLimited) => {
                let wait = proto::reason::retry_after(&error).expect("a time");
                tokio::time::sleep(wait).await;
            }
            Err(error) => break error,
        }
    };
    assert_eq!((made, Reason::of(&refused_at)), (200, Some(Reason::QuotaExceeded)));
}

#[tokio::test]
async fn who_may_make_an_account_is_the_operators_choice() {
    let dir = tempfile::tempdir().expect("a directory");
    let closed = restricted(dir.path(), &["ann", "bob"], "closed").await;
    refused(sign_up(&closed, "eve", None).await, Reason::RegistrationClosed);
    let ann = closed.login("ann").await;
    ann.found("g1", &[]).await;
    let secret = invite(&ann, "g1", 1, None, "").await.expect("an invitation").secret;
    refused(sign_up(&closed, "eve", Some(key("g1", &secret))).await, Reason::RegistrationClosed);
    join(&closed.login("bob").await, "g1", &secret).await.expect("an account joins all the same");

    let invited = Tracker::start_with(&[("registration", "invite")]).await;
    refused(sign_up(&invited, "bob", None).await, Reason::RegistrationClosed);
}

#[tokio::test]
async fn an_invitation_is_told_where_others_reach_the_tracker() {
    let flags = [("tls_name", "files.example,10.0.0.1,127.0.0.1")];
    let dir = tempfile::tempdir().expect("a directory");
    let local = Tracker::start_in(dir.path(), &flags).await;
    let ann = local.user("ann").await;
    ann.found("g1", &[]).await;
    let told = invite(&ann, "g1", 1, None, "").await.expect("an invitation").tracker_addresses;
    assert!(told.is_empty(), "{told:?}");
    local.stop().await;

    let open = Tracker::start_at(dir.path(), &flags, [0, 0, 0, 0].into()).await;
    let ann = open.login("ann").await;
    let told = invite(&ann, "g1", 1, None, "").await.expect("an invitation").tracker_addresses;
    let port = open.address.port();
    assert_eq!(told, [format!("files.example:{port}"), format!("10.0.0.1:{port}")]);
}
