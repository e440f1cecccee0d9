//! Why a download is as fast as it is: real causes are set up, and the right one has to be named. And who has how
//! much of a file.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::relay::Relay;

use crate::support::{Done, MIB, Peer, Tracker, assert_same, make_file, wait_for};

/// Waits until a peer's download has this verdict. Checks that `show-downloads` says the same.
#[track_caller]
fn is_explained_as(peer: &Peer, verdict: &str, words: &str) -> Value {
    let mut last = Value::Null;
    let found = wait_for(&format!("{} finds {verdict}", peer.user), || {
        last = peer.json("explain g1 data");
        (last["verdict"] == verdict).then(|| last.clone())
    });
    let summary = found["summary"].as_str().expect("text");
    assert!(summary.contains(words), "{words}: {found}");
    assert!(found["evidence"].as_array().is_some_and(|facts| !facts.is_empty()), "{found}");
    found
}

/// ann seeds `data` to bob, with settings of both.
fn scene(size: usize, ann: &[(&str, &str)], bob: &[(&str, &str)]) -> (Tracker, Peer, Peer) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", ann), tracker.user_with("bob", bob));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", size, 1);
    (tracker, ann, bob)
}

#[test]
fn ones_own_limit_and_the_sources_are_told_apart() {
    let (_tracker, ann, bob) =
        scene(96 * MIB, &[("PEER_UPLOAD_LIMIT", "3MiB")], &[("PEER_DOWNLOAD_LIMIT", "1MiB")]);
    bob.fails(3, &["explain", "g1", "data"]);
    bob.starts("g1", "data");
    let own = is_explained_as(&bob, "own_limit", "your own download limit of 1.0 MiB/s");
    assert_eq!((&own["group"], &own["name"]), (&"g1".into(), &"data".into()));
    bob.ok(&["limit", "--down", "0"]);
    is_explained_as(&bob, "source_uplink", "the uplink of ann: all its uploads are limited to 3.0 MiB/s");
    // `show-downloads` carries the same in one line.
    let shown = wait_for("the list says so", || {
        let shown = bob.download("g1", "data")?;
        (shown["verdict"] == "source_uplink").then_some(shown)
    });
    assert!(shown["why"].as_str().is_some_and(|why| why.contains("uplink of ann")), "{shown}");
    assert!(bob.ok(&["show-downloads"]).stdout.contains("the uplink of ann"));
    // For people: the verdict first, then facts.
    let text = bob.ok(&["explain", "g1", "data"]).stdout;
    assert!(text.lines().skip(1).all(|line| line.starts_with("- ")), "{text}");
    assert!(text.contains("ann sends ") && text.contains("its upload limit is 3.0 MiB/s"), "{text}");
    bob.ok(&["stop-download", "g1", "data"]);
    is_explained_as(&bob, "stopped", "the user stopped it");
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["resume-download", "g1", "data"]);
    bob.waits_until_complete("g1", "data");
    is_explained_as(&bob, "complete", "the file is complete");
}

/// An address of this host where nobody listens.
fn nowhere() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("bound").to_string()
}

#[test]
fn a_crowd_at_one_seeder_is_named() {
    // The leechers can't help each other.
    let nowhere = nowhere();
    let alone = [("PEER_ADVERTISE", nowhere.as_str())];
    let (tracker, ann, bob) = scene(64 * MIB, &[("PEER_UPLOAD_LIMIT", "4MiB")], &alone);
    let cat = tracker.user_with("cat", &alone);
    cat.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "cat"]);
    bob.starts("g1", "data");
    cat.starts("g1", "data");
    is_explained_as(&bob, "only_seeder", "ann is the only source, and serves 1 other download too");
    // Who has how much of it: all three, ann first.
    let who = wait_for("all three announce", || {
        let who = bob.json("who g1 data");
        (who["peers"].as_array()?.len() == 3).then_some(who)
    });
    assert_eq!((&who["pieces"], &who["group"], &who["name"]), (&128.into(), &"g1".into(), &"data".into()));
    let first = &who["peers"][0];
    assert_eq!(
        (&first["user"], &first["complete"], &first["pieces"]),
        (&"ann".into(), &true.into(), &128.into())
    );
    let own: Vec<_> =
        who["peers"].as_array().expect("a list").iter().filter(|peer| peer["own"] == true).collect();
    assert!(own.len() == 1 && own[0]["user"] == "bob", "{who}");
    let text = cat.ok(&["who", "g1", "data"]).stdout;
    assert!(text.contains("100%") && text.contains("128 of 128") && text.contains("this peer"), "{text}");
    ann.refused(3, "who g1 nothing");
    tracker.user("eve").refused(5, "who g1 data");
}

#[test]
fn sources_that_are_not_there_are_named() {
    let (mut tracker, ann, bob) = scene(16 * MIB, &[("PEER_UPLOAD_LIMIT", "2MiB")], &[]);
    bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 2 * MIB as u64);
    // The only source leaves: nobody has what is missing.
    ann.ok(&["stop-share", "g1", "data"]);
    let gone = wait_for("the source is missed", || {
        let found = bob.json("explain g1 data");
        let verdict = found["verdict"].as_str()?.to_owned();
        ["no_source", "unreachable", "pieces_away"].contains(&&*verdict).then_some(verdict)
    });
    assert!(!gone.is_empty());
    // Nor can the tracker be asked.
    tracker.kill();
    is_explained_as(&bob, "tracker_away", "the tracker is away");
}

#[test]
fn a_source_that_can_not_be_reached_is_named_with_its_address() {
    let nowhere = nowhere();
    let (_tracker, _ann, bob) = scene(MIB, &[("PEER_ADVERTISE", &nowhere)], &[]);
    bob.starts("g1", "data");
    is_explained_as(&bob, "unreachable", &format!("ann at {nowhere}: connection refused"));
}

#[test]
fn a_membership_and_a_file_that_ended_are_named() {
    // So slow that it is not over before the causes are there, however busy this machine is.
    let (tracker, ann, bob) = scene(64 * MIB, &[("PEER_UPLOAD_LIMIT", "256KiB")], &[]);
    let cat = tracker.user("cat");
    cat.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "cat"]);
    for peer in [&bob, &cat] {
        peer.starts("g1", "data");
        peer.waits_until_midway("g1", "data", 1);
    }
    ann.ok(&["remove-member", "g1", "bob"]);
    is_explained_as(&bob, "membership_ended", "not a member");
    ann.ok(&["unpublish", "g1", "data"]);
    is_explained_as(&cat, "file_gone", "taken out of the group");
}

#[test]
fn a_dead_link_and_a_full_one_are_told_apart() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let listen = ann.json("status")["listen"].as_str().expect("an address").to_owned();
    ann.ok(&["daemon", "stop"]);
    let relay = Relay::to(&listen);
    let mut ann = ann;
    ann.set("PEER_LISTEN", &listen);
    ann.set("PEER_ADVERTISE", &relay.address());
    let bob = tracker.user("bob");
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.path("data");
    make_file(&original, 128 * MIB, 1);
    ann.ok(&["upload", "data", "g1"]);
    // A long way: neither side is busy, and no limit is set.
    relay.delay(Duration::from_millis(250));
    bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", MIB as u64);
    is_explained_as(&bob, "link_full", "the link is full, nothing is wrong");
    relay.hold();
    is_explained_as(&bob, "dead_link", "is the link down?");
    relay.delay(Duration::ZERO);
    relay.mend();
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &bob.path("out/data"));
}

#[test]
fn who_follows_until_it_is_interrupted() {
    let (_tracker, _ann, bob) = scene(MIB, &[], &[]);
    let started = Instant::now();
    let following = bob.spawn(&["who", "g1", "data", "--follow", "--json"]);
    let id = u64::from(following.id());
    bob.ok(&["download", "g1", "data", "out/"]);
    wait_for("bob is listed", || {
        let who = bob.json("who g1 data");
        (who["peers"].as_array()?.iter().filter(|peer| peer["complete"] == true).count() == 2).then_some(())
    });
    // One more look of the follower.
    let seen = Instant::now();
    wait_for("the follower looks", || (seen.elapsed().as_secs() >= 3).then_some(()));
    crate::support::peer::signal_process(id, rustix::process::Signal::INT);
    let done = Done::since(following, "", started);
    let lines: Vec<Value> =
        done.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(done.code, 130, "{done:?}");
    assert!(lines.len() >= 2, "a line for each change: {done:?}");
    assert_eq!(lines.last().expect("one")["peers"].as_array().map(Vec::len), Some(2), "{done:?}");
}
