//! The last copy: who leaves is warned when others would lose what they are fetching.

use crate::support::{MIB, Peer, Tracker, assert_same, wait_for};

/// Waits until the tracker knows that somebody fetches what this peer alone has. A verb that leaves would not be refused
/// before.
fn waits_until_at_risk(peer: &Peer) {
    wait_for("somebody fetches movie.mp4", || {
        let listed = peer.json("list-files g1 --at-risk");
        listed["files"].as_array()?.iter().any(|file| file["name"] == "movie.mp4").then_some(())
    });
}

#[test]
fn who_has_the_only_copy_does_not_leave_by_accident() {
    let tracker = Tracker::start();
    let slow = [("PEER_UPLOAD_LIMIT", "500K"), ("PEER_YES", "0")];
    let ann = tracker.user_with("ann", &slow);
    let bob = tracker.user_with("bob", &[("PEER_YES", "0")]);
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "movie.mp4", 8 * MIB, 1);
    ann.shares("g1", "other", 1, 2);
    // Nobody fetches anything.
    ann.ok(&["stop-share", "g1", "other"]);

    bob.starts("g1", "movie.mp4");
    bob.waits_until_midway("g1", "movie.mp4", 1);
    waits_until_at_risk(&ann);
    for line in ["stop-share g1 movie.mp4", "logout", "logout-all", "leave-group g1", "daemon stop"] {
        let refused = ann.fails(6, &line.split(' ').collect::<Vec<_>>());
        assert!(refused.stderr.contains("1 other peer fetching movie.mp4 of g1"), "{line}: {refused:?}");
        assert!(
            refused.stderr.contains("--drain") && refused.stderr.contains("--yes"),
            "{line}: {refused:?}"
        );
        assert_eq!(ann.refused(6, line), "LAST_COPY", "{line}");
    }
    assert_eq!(ann.json("list-files g1 --at-risk --copies 2")["files"][0]["name"], "movie.mp4");
    // bob has parts of it, and nobody else fetches it.
    bob.ok(&["stop-download", "g1", "movie.mp4"]);
    let done = || bob.download("g1", "movie.mp4").expect("there")["done_bytes"].as_u64().expect("a number");
    let before = done();
    bob.ok(&["resume-download", "g1", "movie.mp4"]);
    // By then the tracker has forgotten the announce from before.
    wait_for("bob fetches again", || (done() > before).then_some(()));
    waits_until_at_risk(&ann);

    // The time ends before it is handed over. Nothing has stopped.
    ann.fails(124, &["daemon", "stop", "--drain", "--timeout", "1"]);
    ann.ok(&["limit", "--up", "0"]);
    ann.ok(&["daemon", "stop", "--drain"]);
    assert_same(&original, &{
        bob.waits_until_complete("g1", "movie.mp4");
        bob.path("out/movie.mp4")
    });
}

#[test]
fn with_yes_it_leaves_at_once() {
    let tracker = Tracker::start();
    let ann = tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "300K"), ("PEER_YES", "0")]);
    let bob = tracker.user("bob");
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "movie.mp4", 4 * MIB, 1);
    bob.starts("g1", "movie.mp4");
    bob.waits_until_midway("g1", "movie.mp4", 1);
    waits_until_at_risk(&ann);
    ann.fails(6, &["stop-share", "g1", "movie.mp4"]);
    ann.ok(&["stop-share", "g1", "movie.mp4", "--yes"]);
    assert_ne!(bob.download("g1", "movie.mp4").expect("there")["state"], "complete");
}
