//! Accounts, passwords and sessions.

use std::time::{Duration, Instant};

use proto::{
    pb,
    reason::{Reason, retry_after},
};
use tonic::{Code, metadata::MetadataValue};

use super::{
    client::{Client, HIDDEN, PASSWORD, refused},
    frames::{Calls, message},
    process::Tracker,
};

const WHO_AM_I: &str = "/minitorrent.v1.AuthService/WhoAmI";
/// Inputs of an attacker that hopes for careless SQL or shell code.
const INJECTIONS: &[&str] =
    &["' OR 1=1--", "ann'; DROP TABLE accounts;--", "\" OR \"\"=\"", "$(reboot)", "%s%n"];

#[tokio::test]
async fn invalid_tokens_open_no_session() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let good = ann.token.clone().unwrap();
    let mut calls = Calls::connect(&tracker).await;
    let headers: &[&[String]] = &[
        &[],
        &[String::new()],
        &["Bearer".into()],
        &["Bearer ".into()],
        &[format!("Basic {good}")],
        std::slice::from_ref(&good),
        &[format!("Bearer {good}"), format!("Bearer {good}")],
        &[format!("Bearer {good}é")],
        &[format!("Bearer {good} ")],
        &[format!("Bearer {}", "a".repeat(8_000))],
    ];
    for values in headers {
        let request = values.iter().fold(Calls::request(WHO_AM_I), |request, value| {
            request.header("authorization", http::HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let answer = calls.send(request, &message(0, 0, &[])).await.unwrap();
        assert_eq!(answer.code, Some(Code::Unauthenticated), "{values:?}");
    }
    let request = Calls::request(WHO_AM_I).header("authorization", format!("Bearer {good}"));
    assert_eq!(calls.send(request, &message(0, 0, &[])).await.unwrap().code, Some(Code::Ok));
    tracker.finish().await;
}

#[tokio::test]
async fn tokens_that_ended_or_were_never_given_are_refused() {
    let (tracker, other) = tokio::join!(Tracker::start(), Tracker::start());
    let ann = Client::user(&tracker, "ann").await;
    let elsewhere = Client::user(&other, "ann").await;
    let (second, third) = (ann.log_in(&tracker, "ann").await, ann.log_in(&tracker, "ann").await);
    assert_eq!(second.who_am_i().await.unwrap(), "ann");

    second.auth().logout(pb::LogoutRequest {}).await.unwrap();
    refused(second.who_am_i().await, Code::Unauthenticated, "logged out");
    refused(second.auth().logout(pb::LogoutRequest {}).await, Code::Unauthenticated, "logged out twice");
    let foreign = ann.with_token(elsewhere.token.as_deref());
    refused(foreign.who_am_i().await, Code::Unauthenticated, "another tracker's");

    let good = ann.token.clone().unwrap();
    for at in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = ann.with_token(Some(&String::from_utf8(changed).unwrap()));
        refused(changed.who_am_i().await, Code::Unauthenticated, at);
    }
    assert_eq!(third.who_am_i().await.unwrap(), "ann");
    let ended = ann.auth().logout_all(pb::LogoutAllRequest {}).await.unwrap().into_inner();
    assert_eq!(ended.sessions_ended, 2);
    refused(third.who_am_i().await, Code::Unauthenticated, "all logged out");
    other.finish().await;
    tracker.finish().await;
}

#[tokio::test]
async fn injections_change_nothing() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    ann.groups().create_group(pb::CreateGroupRequest { group_id: "g1".into() }).await.unwrap();
    for text in INJECTIONS {
        let text = (*text).to_owned();
        refused(ann.create_user(&text, PASSWORD).await, Code::InvalidArgument, &text);
        // A name that is invalid belongs to nobody.
        let status = ann.login(&text, PASSWORD).await.unwrap_err();
        assert!(matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument), "{status:?}");
        refused(ann.login("ann", &text).await, Code::Unauthenticated, &text);
        refused(ann.with_token(Some(&text)).who_am_i().await, Code::Unauthenticated, &text);

        let list = pb::ListFilesRequest { group_id: "g1".into(), page_token: text.clone(), page_size: 1 };
        refused(ann.files().list_files(list).await, Code::InvalidArgument, &text);
        let list = pb::ListGroupsRequest { page_token: text.clone(), ..Default::default() };
        refused(ann.groups().list_groups(list).await, Code::InvalidArgument, &text);
        let manifest = pb::GetManifestRequest { group_id: "g1".into(), name: text.clone() };
        let code = ann.files().get_manifest(manifest).await.unwrap_err().code();
        assert!(matches!(code, Code::NotFound | Code::InvalidArgument), "{text}: {code}");
        let accept = pb::AcceptJoinRequestRequest { group_id: "g1".into(), username: text.clone() };
        refused(ann.groups().accept_join_request(accept).await, Code::InvalidArgument, &text);
    }
    let groups =
        ann.groups().list_groups(pb::ListGroupsRequest::default()).await.unwrap().into_inner().groups;
    assert_eq!(groups.iter().map(|group| group.group_id.as_str()).collect::<Vec<_>>(), ["g1"]);
    assert_eq!(ann.who_am_i().await.unwrap(), "ann");
    tracker.finish().await;
}

#[tokio::test]
async fn bad_usernames_make_no_account() {
    let tracker = Tracker::start().await;
    let nobody = Client::anonymous(&tracker).await;
    let long = "a".repeat(33);
    for name in HIDDEN.iter().copied().chain([
        "",
        "ab",
        &long,
        "User",
        "a b c",
        " abc",
        "abc\n",
        "ab😀",
        "\u{430}bc",
        "ab\0",
        "../x",
        "-abc",
        ".abc",
    ]) {
        refused(nobody.create_user(name, PASSWORD).await, Code::InvalidArgument, name);
    }
    tracker.finish().await;
}

#[tokio::test]
async fn bad_passwords_are_refused_before_they_cost_anything() {
    let tracker = Tracker::start().await;
    let nobody = Client::anonymous(&tracker).await;
    let (long, huge) = ("x".repeat(1_025), "x".repeat(10 << 20));
    for (password, codes) in [
        ("", [Code::InvalidArgument; 2]),
        ("seven77", [Code::InvalidArgument; 2]),
        (&long, [Code::InvalidArgument; 2]),
        ("password123", [Code::InvalidArgument; 2]),
        ("PassWord123", [Code::InvalidArgument; 2]),
        // Larger than any request may be.
        (&huge, [Code::OutOfRange, Code::ResourceExhausted]),
    ] {
        // The fastest of three: other tests share the machine.
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            let status = nobody.create_user("ann", password).await.unwrap_err();
            fastest = fastest.min(start.elapsed());
            assert!(codes.contains(&status.code()), "{password:.20}: {status:?}");
        }
        assert!(fastest < Duration::from_millis(50) || password.len() > 2_000, "{password:.20}: {fastest:?}");
    }
    refused(nobody.login("ann", PASSWORD).await, Code::Unauthenticated, "no account was made");
    tracker.finish().await;
}

#[tokio::test]
async fn passwords_may_hold_anything_and_both_forms_of_a_letter_are_one() {
    let tracker = Tracker::start().await;
    let nobody = Client::anonymous(&tracker).await;
    nobody.create_user("ann", "caf\u{e9}\0au\u{1f375}lait").await.unwrap();
    nobody.login("ann", "cafe\u{301}\0au\u{1f375}lait").await.unwrap();
    refused(nobody.login("ann", "cafe\0au\u{1f375}lait").await, Code::Unauthenticated, "another letter");
    refused(nobody.login("ann", "caf\u{e9}").await, Code::Unauthenticated, "cut at the NUL");
    tracker.finish().await;
}

#[tokio::test]
async fn concurrent_requests_create_one_account() {
    let tracker = Tracker::start().await;
    let nobody = Client::anonymous(&tracker).await;
    let racers: Vec<_> = (0..50)
        .map(|n| {
            let client = nobody.clone();
            tokio::spawn(async move {
                loop {
                    match client.create_user("ann", &format!("password-of-racer-{n}")).await {
                        // More concurrent calls than the tracker hashes: it says when to retry.
                        Err(status) if Reason::of(&status) == Some(Reason::Busy) => {
                            tokio::time::sleep(retry_after(&status).unwrap()).await;
                        }
                        outcome => return outcome,
                    }
                }
            })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(()) => won += 1,
            lost => drop(refused(lost, Code::AlreadyExists, "a racer")),
        }
    }
    assert_eq!(won, 1);
    refused(nobody.create_user("ann", PASSWORD).await, Code::AlreadyExists, "again");
    tracker.finish().await;
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_look_the_same() {
    let tracker = Tracker::start().await;
    let nobody = Client::anonymous(&tracker).await;
    const USERS: usize = 8;
    for n in 0..USERS {
        nobody.create_user(&format!("user{n}"), PASSWORD).await.unwrap();
    }
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut answers = Vec::new();
    // Five tries per name are not throttled. The two kinds alternate, so that other load on the machine slows
    // both equally.
    for n in 0..USERS * 5 {
        for (name, times) in [(format!("user{}", n % USERS), &mut known), (format!("none{n}"), &mut unknown)]
        {
            let start = Instant::now();
            let status = refused(nobody.login(&name, "not-the-password").await, Code::Unauthenticated, &name);
            times.push(start.elapsed());
            answers.push((status.message().to_owned(), status.details().to_vec()));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let (known, unknown) = (median(&mut known), median(&mut unknown));
    // 5 % on a quiet machine. This machine is shared with the other tests. A missing hash would be a factor
    // of ten.
    assert!((known / unknown - 1.0).abs() < 0.3, "known {known} s, unknown {unknown} s");
    tracker.finish().await;
}

#[tokio::test]
async fn guessing_is_throttled_and_does_not_lock_the_owner_out() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let base = tracker.peak_rss();
    let guesser = Client::from(&tracker, Some([127, 0, 9, 1].into())).await;
    let (mut wrong, mut throttled) = (0, 0);
    for n in 0..1_000 {
        let status = guesser.login("ann", &format!("guess-number-{n}")).await.unwrap_err();
        match status.code() {
            Code::Unauthenticated => wrong += 1,
            Code::ResourceExhausted => {
                assert!(retry_after(&status).is_some_and(|wait| wait > Duration::ZERO), "{status:?}");
                throttled += 1;
            }
            _ => panic!("{status:?}"),
        }
    }
    assert!(wrong <= 20 && throttled >= 980, "{wrong} guesses were checked");
    refused(
        guesser.login("ann", PASSWORD).await,
        Code::ResourceExhausted,
        "right, from the guesser's network",
    );
    // From a network of an earlier login, and from a new network.
    for ip in [[127, 0, 0, 1], [127, 5, 0, 1]] {
        let owner = Client::from(&tracker, Some(ip.into())).await;
        let start = Instant::now();
        owner.login("ann", PASSWORD).await.expect("the owner gets in");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(ann.who_am_i().await.unwrap(), "ann");
    // Much less than the 19 MiB of one hash: all hashes were computed in existing memory, and the counters of
    // a guesser take almost none.
    let grown = tracker.peak_rss().saturating_sub(base);
    assert!(grown < 4 << 20, "{grown} bytes");
    tracker.finish().await;
}

/// Starts as many concurrent hashes as may wait, and some more that are refused. The number of cores bounds
/// the memory, not the number of callers. [`Tracker::finish`] checks that.
#[tokio::test]
async fn many_logins_at_once_take_no_more_memory_than_the_cores_that_hash() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let mut guesses = tokio::task::JoinSet::new();
    for n in 0..80 {
        let client = ann.clone();
        // Different names, so that none is throttled because of another.
        guesses.spawn(async move { client.login(&format!("nobody{n}"), PASSWORD).await });
    }
    for guess in guesses.join_all().await {
        let status = guess.unwrap_err();
        match Reason::of(&status) {
            Some(Reason::BadCredentials) => {}
            Some(Reason::Busy) => assert!(retry_after(&status).is_some(), "{status:?}"),
            _ => panic!("{status:?}"),
        }
    }
    assert_eq!(ann.who_am_i().await.unwrap(), "ann");
    tracker.finish().await;
}

#[tokio::test]
async fn a_wrong_old_password_changes_nothing_and_a_new_one_ends_other_sessions() {
    const NEW: &str = "an-even-odder-password";
    let tracker = Tracker::start().await;
    tracker.keep_secret(NEW);
    let ann = Client::user(&tracker, "ann").await;
    let other = ann.log_in(&tracker, "ann").await;
    let change = |old: &str, new: &str| {
        let request = pb::ChangePasswordRequest { old_password: old.into(), new_password: new.into() };
        let mut auth = ann.auth();
        async move { auth.change_password(request).await }
    };
    refused(change("not-the-password", NEW).await, Code::PermissionDenied, "a wrong old one");
    refused(change(PASSWORD, "short").await, Code::InvalidArgument, "a weak new one");
    assert_eq!(other.who_am_i().await.unwrap(), "ann");
    change(PASSWORD, NEW).await.unwrap();
    refused(other.who_am_i().await, Code::Unauthenticated, "a session of the old password");
    assert_eq!(ann.who_am_i().await.unwrap(), "ann");
    refused(ann.login("ann", PASSWORD).await, Code::Unauthenticated, "the old password");
    ann.login("ann", NEW).await.unwrap();
    tracker.finish().await;
}

#[tokio::test]
async fn log_lines_can_not_be_forged() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let forged = "x\n2026-01-01 INFO forged {} %s \u{1b}[31mred";
    for text in [forged, "{\"action\":\"login\"}\r\n"] {
        refused(ann.create_user(text, PASSWORD).await, Code::InvalidArgument, text);
        let _ = ann.login(text, PASSWORD).await;
        let group = pb::CreateGroupRequest { group_id: text.into() };
        refused(ann.groups().create_group(group).await, Code::InvalidArgument, text);
    }
    let mut request = tonic::Request::new(pb::WhoAmIRequest {});
    let value = MetadataValue::try_from("id{}%s\"quoted\"").unwrap();
    request.metadata_mut().insert("x-request-id", value);
    ann.auth().who_am_i(request).await.unwrap();
    // A name may contain text that a careless log would interpret as its own format.
    let group = "g {} %s %n \"quoted\"";
    ann.groups().create_group(pb::CreateGroupRequest { group_id: group.into() }).await.unwrap();

    for line in tracker.audit().lines() {
        let row: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("not one row: {line}"));
        assert!(row.is_object());
        assert!(!line.contains('\u{1b}'));
    }
    let log = tracker.log();
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01 INFO forged")), "{log}");
    assert!(!log.contains('\u{1b}'), "an escape in the log");
    tracker.finish().await;
}
