//! Subscriptions: what is published arrives by itself, each file once.

use std::fs;

use serde_json::Value;

use crate::support::{MIB, Peer, Tracker, assert_same, wait_for};

/// The subscription as `list-subscriptions --json` shows it.
fn subscription(peer: &Peer) -> Value {
    peer.json("list-subscriptions")["subscriptions"][0].clone()
}

/// Waits until the file has arrived.
fn arrives(peer: &Peer, name: &str) {
    wait_for(name, || peer.path(name).exists().then_some(()));
}

#[test]
fn what_is_published_arrives_once_and_by_itself() {
    let mut tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "old.mp4", 1, 1);
    bob.ok(&["subscribe", "g1", "films/", "--match", "*.mp4", "--match", "*.avi"]);
    ann.shares("g1", "notes.txt", 1, 2);
    let original = ann.shares("g1", "a.mp4", 3 * MIB, 3);
    arrives(&bob, "films/a.mp4");
    assert_same(&original, &bob.path("films/a.mp4"));
    // He shares it, too.
    assert_eq!(bob.json("list-shares")["shares"][0]["name"], "a.mp4");
    let kept = subscription(&bob);
    let expected = (&"g1".into(), &1.into(), &Value::Null, &serde_json::json!(["*.mp4", "*.avi"]));
    assert_eq!((&kept["group"], &kept["started"], &kept["cause"], &kept["match"]), expected);

    // What is deleted stays away, and what is published while the daemon or the tracker is away arrives later.
    bob.ok(&["stop-share", "g1", "a.mp4"]);
    bob.ok(&["clear-downloads"]);
    fs::remove_file(bob.path("films/a.mp4")).expect("removed");
    bob.ok(&["daemon", "stop"]);
    ann.shares("g1", "b.mp4", 2, 4);
    bob.ok(&["whoami"]);
    arrives(&bob, "films/b.mp4");
    tracker.end("TERM");
    wait_for("the tracker is away", || (bob.json("status")["tracker_connected"] == false).then_some(()));
    tracker.start_again();
    ann.shares("g1", "c.mp4", 3, 5);
    arrives(&bob, "films/c.mp4");
    assert_eq!(subscription(&bob)["started"], 3);
    for name in ["old.mp4", "notes.txt", "a.mp4"] {
        assert!(!bob.path("films").join(name).exists(), "{name}");
    }

    bob.ok(&["unsubscribe", "g1"]);
    assert_eq!(bob.json("list-subscriptions")["subscriptions"], serde_json::json!([]));
    assert_eq!(bob.refused(3, "unsubscribe g1"), "NOT_SUBSCRIBED");
}

#[test]
fn what_is_there_already_comes_on_request_and_ones_own_does_not() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "old", MIB, 1);
    bob.shares("g1", "bobs", 1, 2);
    for peer in [&ann, &bob] {
        peer.ok(&["subscribe", "g1", "in", "--existing"]);
    }
    arrives(&bob, "in/old");
    arrives(&ann, "in/bobs");
    ann.shares("g1", "new", MIB, 3);
    arrives(&bob, "in/new");
    // The news of ann's own file has come before that of bob's next one.
    bob.shares("g1", "more", 1, 4);
    arrives(&ann, "in/more");
    for (peer, name) in [(&ann, "old"), (&ann, "new"), (&bob, "bobs"), (&bob, "more")] {
        assert!(!peer.path("in").join(name).exists(), "{} {name}", peer.user);
    }
}

#[test]
fn a_subscription_says_what_is_in_its_way() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    assert_eq!(bob.refused(5, "subscribe g2 in"), "NOT_A_MEMBER");
    assert_eq!(bob.refused(2, "subscribe g1 in --match a["), "INVALID_REQUEST");
    fs::write(bob.path("file"), "").expect("written");
    bob.fails(6, &["subscribe", "g1", "file"]);
    assert_eq!(bob.json("list-subscriptions")["subscriptions"], serde_json::json!([]));

    bob.ok(&["subscribe", "g1", "in"]);
    fs::write(bob.path("in/a"), "his own").expect("written");
    ann.shares("g1", "a", 1, 1);
    let cause = || subscription(&bob)["cause"].as_str().map(str::to_owned);
    let told = wait_for("the file in the way is named", cause);
    assert!(told.starts_with("a: ") && told.contains("already exists"), "{told}");
    assert_eq!(fs::read_to_string(bob.path("in/a")).expect("there"), "his own");
    // The others come all the same.
    ann.shares("g1", "b", 1, 2);
    arrives(&bob, "in/b");

    // A member that was removed hears of nothing, and gets what he missed when he is back.
    ann.ok(&["remove-member", "g1", "bob"]);
    ann.shares("g1", "c", 1, 3);
    bob.ok(&["daemon", "stop"]);
    bob.ok(&["whoami"]);
    let told = wait_for("the lost membership is named", cause);
    assert!(told.contains("not a member"), "{told}");
    assert!(!bob.path("in/c").exists());
    bob.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "bob"]);
    arrives(&bob, "in/c");
}

#[test]
fn new_versions_come_on_request_only() {
    let tracker = Tracker::start();
    let (ann, bob, cem) = (tracker.user("ann"), tracker.user("bob"), tracker.user("cem"));
    tracker.group("g1", &[&ann, &bob, &cem]);
    bob.ok(&["subscribe", "g1", "in", "--update"]);
    cem.ok(&["subscribe", "g1", "in"]);
    let original = ann.shares("g1", "a", MIB, 1);
    arrives(&bob, "in/a");
    arrives(&cem, "in/a");
    bob.waits_until_complete("g1", "a");
    let old = fs::read(&original).expect("there");
    crate::support::make_file(&original, 2 * MIB, 2);
    ann.ok(&["upload", &original.display().to_string(), "g1", "--replace"]);
    let new = fs::read(&original).expect("there");
    wait_for("bob's copy is the new version", || (fs::read(bob.path("in/a")).ok()? == new).then_some(()));
    ann.shares("g1", "b", 1, 3);
    arrives(&cem, "in/b");
    assert!(fs::read(cem.path("in/a")).expect("there") == old, "it was not asked for");
}
