//! Invitations: from one link to a group and its file.

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{MIB, PASSWORD, Peer, Tracker, wait_for};

/// Makes an invitation, and returns its link.
fn link(owner: &Peer, line: &str) -> String {
    let made = owner.run(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(made.code, 0, "{made:?}");
    made.stdout.trim_end().to_owned()
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).expect("there") == fs::read(b).expect("there")
}

/// The standing of this peer's user in a group.
fn standing(peer: &Peer, group: &str) -> Option<String> {
    let groups = peer.json("list-groups --mine")["groups"].as_array().expect("a list").clone();
    let found = groups.into_iter().find(|found| found["id"] == group)?;
    found["standing"].as_str().map(str::to_owned)
}

#[test]
fn one_link_leads_from_nothing_to_a_file() {
    let tracker = Tracker::start_with(&[("TRACKER_REGISTRATION", "invite")]);
    tracker.operate("user create ann", PASSWORD);
    let ann = Peer::new(&tracker, "ann", &[]);
    ann.ok_with_password(&["login", "ann"]);
    ann.ok(&["create-group", "our films"]);
    let file = ann.path("über 1.mp4");
    ann.shares("our films", "über 1.mp4", 3 * MIB, 5);
    let made = ann.ok(&["invite", "our films", "--file", "über 1.mp4", "--uses", "2", "--json"]).json();
    let link = made["link"].as_str().expect("a link");
    assert!(link.starts_with(&tracker.url().replace("https://", "minitorrent://")), "{link}");
    assert!(link.contains("/our%20films/%C3%BCber%201.mp4#"), "{link}");

    // This home knows neither tracker nor CA, and has no account.
    let bob = Peer::alone("bob", &[]);
    let done = bob.with_password(&["get", link, "out/", "--user", "bob"], PASSWORD);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(same(&file, &bob.path("out/über 1.mp4")));
    assert_eq!(standing(&bob, "our films").as_deref(), Some("member"));
    // The home keeps the tracker and its CA, and the daemon can be started without them.
    bob.ok(&["daemon", "stop"]);
    assert_eq!(bob.json("whoami")["user"], "bob");
    // Whoever is a member already may follow the link again.
    bob.ok(&["join", link]);
    let left = ann.ok(&["list-invites", "our films", "--json"]).json();
    assert_eq!(
        (&left["invites"][0]["uses_left"], &left["invites"][0]["name"]),
        (&1.into(), &"über 1.mp4".into())
    );
    assert!(!left.to_string().contains(link.rsplit_once('.').expect("a secret").1), "{left}");

    // Without an invitation there is no account.
    let eve = Peer::new(&tracker, "eve", &[]);
    let refused = eve.with_password(&["create-user", "eve", "--json"], PASSWORD);
    assert_eq!((refused.code, refused.reason().as_str()), (5, "REGISTRATION_CLOSED"));
}

#[test]
fn a_known_account_joins_by_a_link() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann]);
    let invitation = link(&ann, "invite g1 --uses 2 --expires 2d");
    // Logged in: no password is asked for.
    bob.ok(&["join", &invitation]);
    assert_eq!(standing(&bob, "g1").as_deref(), Some("member"));

    // Not logged in, in a home that knows nothing, with an account.
    tracker.user("eve").ok(&["logout"]);
    let eve = Peer::alone("eve", &[]);
    let wrong = eve.with_password(&["join", &invitation, "--user", "eve", "--json"], "not her password\n");
    assert_eq!((wrong.code, wrong.reason().as_str()), (4, "BAD_CREDENTIALS"));
    let done = eve.with_password(&["join", &invitation, "--user", "eve", "--json"], PASSWORD);
    assert_eq!(done.code, 0, "{done:?}");
    let Value::Object(told) = done.json() else { panic!("{done:?}") };
    assert_eq!(
        (&told["user"], &told["group"], &told["standing"]),
        (&"eve".into(), &"g1".into(), &"member".into())
    );

    // Both uses are taken.
    let dan = tracker.user("dan");
    let refused = dan.run(&["join", &invitation, "--json"]);
    assert_eq!((refused.code, refused.reason().as_str()), (5, "INVITE_INVALID"));
    let id = ann.json("list-invites g1")["invites"][0]["invite_id"].as_str().expect("an id").to_owned();
    ann.ok(&["revoke-invite", "g1", &id]);
    assert_eq!(ann.refused(3, &format!("revoke-invite g1 {id}")), "INVITE_NOT_FOUND");
    assert_eq!(ann.json("list-invites g1")["invites"], serde_json::json!([]));
    assert_eq!(bob.refused(5, "invite g1"), "NOT_THE_OWNER");
    assert_eq!(ann.refused(3, "invite g1 --file nothing"), "FILE_NOT_FOUND");
    for bad in ["invite g1 --expires soon", "invite g1 --uses 1001", "invite g1 --expires 91d"] {
        ann.refused(2, bad);
    }
}

#[test]
fn a_daemon_that_nobody_uses_gives_way_to_the_links_tracker() {
    let (tracker, other) = (Tracker::start(), Tracker::start());
    let ann = tracker.user("ann");
    tracker.group("g1", &[&ann]);
    let invitation = link(&ann, "invite g1 --uses 2");
    let bob = Peer::alone("bob", &[]);
    // This starts a daemon for a tracker that is not the link's.
    bob.run(&["doctor"]);
    let before = wait_for("a daemon runs", || bob.daemon_pid());
    let done = bob.with_password(&["join", &invitation, "--user", "bob"], PASSWORD);
    assert_eq!(done.code, 0, "{done:?}");
    assert_ne!(bob.daemon_pid(), Some(before));
    assert_eq!(bob.json("status")["tracker"], tracker.url());

    // A user who is logged in at another tracker stays there.
    let eve = other.user("eve");
    let refused = eve.run(&["join", &invitation, "--json"]);
    assert_eq!((refused.code, refused.reason().as_str()), (6, "ANOTHER_TRACKER"));
    assert_eq!(eve.json("whoami")["user"], "eve");
}

#[test]
fn a_link_that_does_not_fit_changes_nothing() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    tracker.group("g1", &[&ann]);
    let invitation = link(&ann, "invite g1");
    let bob = Peer::alone("bob", &[]);
    let (place, rest) = invitation.split_once('#').expect("a fragment");
    let secret = rest.split_once('.').expect("a secret").1;
    // The tracker has another CA than the link says: nothing is sent to it.
    let foreign = format!("{place}#{}.{secret}", "ab".repeat(32));
    for (link, code, reason) in [
        (foreign.as_str(), 7, "TRACKER_UNREACHABLE"),
        ("https://example.org/g1", 2, "USAGE"),
        (place, 2, "USAGE"),
    ] {
        let refused = bob.with_password(&["join", link, "--user", "bob", "--json"], PASSWORD);
        assert_eq!((refused.code, refused.reason().as_str()), (code, reason), "{link}");
        assert!(!refused.stderr.contains(secret), "{refused:?}");
    }
    assert!(!bob.path("home/ca.pem").exists());
    assert_eq!(bob.daemon_pid(), None);
    // A link without a file has nothing to download.
    let refused = bob.with_password(&["get", &invitation, "--user", "bob", "--json"], PASSWORD);
    assert_eq!((refused.code, refused.reason().as_str()), (2, "USAGE"));
    // Nobody can be asked who they are.
    let refused = bob.with_password(&["join", &invitation, "--json"], PASSWORD);
    assert_eq!((refused.code, refused.reason().as_str()), (2, "USAGE"));
    // The use is still there.
    let done = bob.with_password(&["join", &invitation, "--user", "bob"], PASSWORD);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_qr_code_is_printed_below_the_link() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    tracker.group("g1", &[&ann]);
    let printed = link(&ann, "invite g1 --qr");
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].starts_with("minitorrent://") && lines[1].is_empty(), "{printed}");
    assert!(lines.len() > 20 && printed.contains('█'), "{printed}");
    let told = ann.run(&["invite", "g1"]);
    assert!(told.stderr.contains("--tls-name"), "a loopback link says what to do: {told:?}");
    assert_eq!(told.stdout.lines().count(), 1);
}
