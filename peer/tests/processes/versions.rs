//! New versions of files: publishing them, what becomes of the old ones, and updates.

use std::{fs, time::Instant};

use testkit::content::noise;

use crate::support::{Done, MIB, Peer, Tracker, assert_same, wait_for};

/// Two users in a group that the first owns.
fn stage() -> (Tracker, Peer, Peer) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    (tracker, ann, bob)
}

/// A third member.
fn join(tracker: &Tracker, owner: &Peer, name: &str) -> Peer {
    let peer = tracker.user(name);
    peer.ok(&["join-group", "g1"]);
    owner.ok(&["accept-request", "g1", name]);
    peer
}

/// Waits until the peer knows that what it shares is an older version.
fn learns_of_a_new_version(peer: &Peer) {
    wait_for("the peer learns of the new version", || {
        let shares = peer.json("list-shares");
        shares["shares"][0]["cause"].as_str().filter(|cause| cause.contains("older version")).map(drop)
    });
}

#[test]
fn a_new_version_takes_the_name_and_holders_keep_the_old_one() {
    let (tracker, ann, bob) = stage();
    let cyd = join(&tracker, &ann, "cyd");
    let (old, new) = (noise(1, MIB + 5), noise(2, 2 * MIB + 7));
    fs::write(ann.path("data"), &old).expect("written");
    assert_eq!(ann.json("upload data g1 --replace")["replaced"], false, "there was nothing to replace");
    for peer in [&bob, &cyd] {
        peer.ok(&["download", "g1", "data", "out/"]);
    }
    fs::write(cyd.path("mine"), b"not mine to change").expect("written");
    assert_eq!(cyd.refused(5, "upload mine g1 --name data --replace"), "NOT_THE_OWNER");
    fs::write(ann.path("data"), &new).expect("written");
    assert_eq!(ann.refused(6, "upload data g1"), "ALREADY_EXISTS");
    assert_eq!(ann.json("upload data g1 --replace")["replaced"], true);
    assert_eq!(bob.json("list-files g1")["files"][0]["size"], new.len());
    for peer in [&bob, &cyd] {
        learns_of_a_new_version(peer);
        assert_eq!(fs::read(peer.path("out/data")).expect("it is kept"), old);
    }
    // It is not taken for the new one, and still listed after a restart.
    assert_eq!(bob.refused(6, "download g1 data out/"), "NEW_VERSION");
    bob.ok(&["daemon", "stop"]);
    bob.ok(&["whoami"]);
    learns_of_a_new_version(&bob);
    bob.ok(&["download", "g1", "data", "new/"]);
    assert_eq!(fs::read(bob.path("new/data")).expect("it arrived"), new);
    assert_eq!(fs::read(bob.path("out/data")).expect("it is kept"), old);
}

#[test]
fn a_download_of_the_old_version_ends_and_never_mixes_versions() {
    let (_tracker, ann, bob) = stage();
    let (old, new) = (noise(1, 24 * MIB), noise(2, 24 * MIB));
    fs::write(ann.path("old"), &old).expect("written");
    fs::write(ann.path("new"), &new).expect("written");
    ann.ok(&["upload", "old", "g1", "--name", "data"]);
    ann.ok(&["limit", "--up", "4MiB"]);
    let waiting = bob.spawn(&["download", "g1", "data", "out/", "--json"]);
    bob.waits_until_midway("g1", "data", 2 * MIB as u64);
    ann.ok(&["upload", "new", "g1", "--name", "data", "--replace"]);
    let done = Done::since(waiting, "", Instant::now());
    assert_eq!((done.code, done.reason().as_str()), (6, "NEW_VERSION"), "{done:?}");
    assert!(!bob.path("out/data").exists());
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["download", "g1", "data", "out/", "--verify"]);
    assert_same(&ann.path("new"), &bob.path("out/data"));
}

#[test]
fn of_two_new_versions_at_once_one_stays_whole() {
    let (tracker, ann, bob) = stage();
    fs::write(bob.path("data"), noise(1, MIB)).expect("written");
    bob.ok(&["upload", "data", "g1"]);
    let (by_ann, by_bob) = (noise(2, 3 * MIB), noise(3, 3 * MIB));
    fs::write(ann.path("data"), &by_ann).expect("written");
    fs::write(bob.path("data"), &by_bob).expect("written");
    let calls = [&ann, &bob].map(|peer| peer.spawn(&["upload", "data", "g1", "--replace"]));
    let [first, second] = calls.map(|call| Done::since(call, "", Instant::now()));
    assert_eq!(first.code, 0, "the owner may always: {first:?}");
    // If the owner was first, it is no longer bob's file.
    assert!([0, 5].contains(&second.code), "{second:?}");
    let cyd = join(&tracker, &ann, "cyd");
    cyd.ok(&["download", "g1", "data", "out/", "--verify"]);
    let got = fs::read(cyd.path("out/data")).expect("it arrived");
    assert!(got == by_ann || got == by_bob, "it is one of the two");
}
