//! Updates: the copy of a peer becomes the current version, and what is equal is not fetched.

use std::{
    fs,
    os::unix::fs::{FileExt as _, symlink},
    time::Instant,
};

use testkit::content::noise;

use crate::{
    folders::{ann_with_tree, tree, write},
    support::{Done, MIB, Peer, Tracker, assert_same, wait_for},
};

/// Two users in a group that the first owns. Both have the same file of 16 MiB.
fn stage() -> (Tracker, Peer, Peer) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    write(&ann.path("data"), &noise(1, 16 * MIB));
    ann.ok(&["upload", "data", "g1"]);
    bob.ok(&["download", "g1", "data", "out/"]);
    (tracker, ann, bob)
}

/// The bytes that a download got from others, and those that it took from a copy.
fn fetched_and_taken(peer: &Peer, name: &str) -> (u64, u64) {
    let download = peer.download("g1", name).expect("it is listed");
    let sources = download["sources"].as_array().expect("a list").iter();
    let fetched = sources.map(|source| source["bytes"].as_u64().expect("a number")).sum();
    (fetched, download["taken_bytes"].as_u64().expect("a number"))
}

#[test]
fn a_file_takes_what_is_equal_from_the_copy() {
    let (_tracker, ann, bob) = stage();
    bob.ok(&["update", "g1", "data"]);
    assert_eq!(bob.json("update g1 data --dry-run")["current"], true);
    // A MiB in the middle changes, and the end grows.
    let old = noise(1, 16 * MIB);
    let new = fs::File::options().write(true).open(ann.path("data")).expect("opened");
    new.write_all_at(&noise(2, MIB), 5 * MIB as u64).expect("written");
    new.write_all_at(&noise(3, 100), 16 * MIB as u64).expect("written");
    ann.ok(&["upload", "data", "g1", "--replace"]);
    let plan = bob.json("update g1 data --dry-run");
    let (fetch, take) = (MIB as u64 + 100, 15 * MIB as u64);
    assert_eq!((&plan["fetch_bytes"], &plan["take_bytes"]), (&fetch.into(), &take.into()), "{plan}");
    assert_eq!(fs::read(bob.path("out/data")).expect("it is there"), old, "a dry run changes nothing");
    let text = bob.ok(&["update", "g1", "data", "--dry-run"]).stdout;
    assert!(text.contains("would fetch 1.0 MiB, and take 15.0 MiB"), "{text}");
    let told = bob.ok(&["update", "g1", "data"]).stdout;
    assert!(told.contains("15.0 MiB of it from a copy here"), "{told}");
    assert_same(&ann.path("data"), &bob.path("out/data"));
    assert_eq!(fetched_and_taken(&bob, "data"), (fetch, take));
    assert!(!bob.path("out/.minitorrent").exists());
    bob.ok(&["verify", "g1", "data"]);
    bob.ok(&["update", "g1", "data"]);
    // The new one is shared.
    wait_for("it is seeded by both", || {
        (bob.json("list-files g1")["files"][0]["seeders"] == 2).then_some(())
    });
}

#[test]
fn a_copy_that_was_changed_is_left_alone() {
    let (tracker, ann, bob) = stage();
    assert_eq!(ann.refused(3, "update g1 none"), "FILE_NOT_FOUND");
    let cyd = tracker.user("cyd");
    assert_eq!(cyd.refused(5, "update g1 data"), "NOT_A_MEMBER");
    cyd.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "cyd"]);
    assert_eq!(cyd.refused(3, "update g1 data"), "NOT_SHARED");
    assert_eq!(cyd.refused(3, "update g1 data --dry-run"), "NOT_SHARED");
    write(&ann.path("data"), &noise(2, 3 * MIB));
    ann.ok(&["upload", "data", "g1", "--replace"]);
    write(&bob.path("out/data"), b"my own work");
    for line in ["update g1 data", "update g1 data --dry-run"] {
        assert_eq!(bob.refused(6, line), "DESTINATION_EXISTS");
    }
    assert_eq!(fs::read(bob.path("out/data")).expect("it is there"), b"my own work");
    // A file that is a folder in the next version does not become one.
    fs::remove_file(ann.path("data")).expect("removed");
    write(&ann.path("data/file"), b"in a folder now");
    ann.ok(&["upload", "data", "g1", "--replace"]);
    assert_eq!(bob.refused(6, "update g1 data"), "DESTINATION_EXISTS");
}

#[test]
fn a_folder_takes_equal_files_from_wherever_they_lie() {
    let (_tracker, ann, bob, root) = ann_with_tree();
    write(&root.join("movie"), &noise(50, 12 * MIB + 77));
    ann.ok(&["upload", "data", "g1"]);
    bob.ok(&["download", "g1", "data", "out/"]);
    // One file added in front of all others, one removed, one renamed and moved, one link changed.
    write(&root.join("000/new"), &noise(60, 5_000));
    fs::remove_file(root.join("small/003.txt")).expect("removed");
    fs::rename(root.join("movie"), root.join("größe/film")).expect("renamed");
    fs::remove_file(root.join("dangling")).expect("removed");
    symlink("large.bin", root.join("dangling")).expect("a link");
    ann.ok(&["upload", "data", "g1", "--replace"]);
    let plan = bob.json("update g1 data --dry-run");
    // The pieces of the new file and of the index.
    assert!(plan["fetch_bytes"].as_u64().expect("a number") <= 4 * 524_288, "{plan}");
    bob.ok(&["update", "g1", "data"]);
    assert_eq!(tree(&bob.path("out/data")), tree(&root));
    assert!(!bob.path("out/.minitorrent").exists());
    let (fetched, taken) = fetched_and_taken(&bob, "data");
    assert!(fetched <= 4 * 524_288 && taken > 12 * MIB as u64, "{fetched} and {taken}");
    assert_eq!(
        fetched + taken,
        bob.download("g1", "data").expect("it is listed")["size"],
        "each byte is counted once"
    );
    bob.ok(&["verify", "g1", "data"]);
    // What somebody added would be lost.
    write(&root.join("000/new"), &noise(61, 5_000));
    ann.ok(&["upload", "data", "g1", "--replace"]);
    write(&bob.path("out/data/deep/mine"), b"my own work");
    let refused = bob.fails(6, &["update", "g1", "data"]);
    assert!(refused.stderr.contains("deep/mine"), "{refused:?}");
    fs::remove_file(bob.path("out/data/deep/mine")).expect("removed");
    bob.ok(&["update", "g1", "data"]);
    assert_eq!(tree(&bob.path("out/data")), tree(&root));
}

#[test]
fn the_old_tree_stays_whole_until_the_new_one_is() {
    let (_tracker, ann, bob, root) = ann_with_tree();
    write(&root.join("movie"), &noise(50, 8 * MIB));
    ann.ok(&["upload", "data", "g1"]);
    bob.ok(&["download", "g1", "data", "out/"]);
    let old = tree(&root);
    write(&root.join("huge"), &noise(51, 24 * MIB));
    ann.ok(&["upload", "data", "g1", "--replace"]);
    ann.ok(&["limit", "--up", "4MiB"]);
    bob.ok(&["update", "g1", "data", "-d"]);
    let waiting = bob.spawn(&["update", "g1", "data"]);
    bob.waits_until_midway("g1", "data", 14 * MIB as u64);
    assert_eq!(tree(&bob.path("out/data")), old);
    bob.kill_daemon();
    let ended = Done::since(waiting, "", Instant::now());
    assert_eq!(ended.code, 10, "{ended:?}");
    assert_eq!(tree(&bob.path("out/data")), old);
    // Given up, the old version is what this peer has.
    bob.ok(&["stop-download", "g1", "data", "--discard"]);
    assert_eq!(tree(&bob.path("out/data")), old);
    assert!(
        bob.json("list-shares")["shares"][0]["cause"].as_str().expect("a cause").contains("older version")
    );
    // Taken up again, it survives a kill, and takes what is equal once more.
    bob.ok(&["update", "g1", "data", "-d"]);
    bob.waits_until_midway("g1", "data", 14 * MIB as u64);
    bob.kill_daemon();
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["update", "g1", "data"]);
    assert_eq!(tree(&bob.path("out/data")), tree(&root));
    assert!(!bob.path("out/.minitorrent").exists());
}

#[test]
fn content_that_is_here_already_is_not_fetched_again() {
    let (tracker, ann, bob, root) = ann_with_tree();
    write(&ann.path("file"), &noise(5, 3 * MIB));
    ann.ok(&["upload", "data", "file", "g1"]);
    bob.ok(&["download", "g1", "data", "file", "out/"]);
    // The same content in another group, under other names. Nobody there is online.
    let eve = tracker.user("eve");
    tracker.group("g2", &[&ann, &eve]);
    ann.ok(&["upload", "data", "g2", "--name", "tree"]);
    ann.ok(&["upload", "file", "g2", "--name", "copy"]);
    assert_eq!(bob.refused(5, "download g2 tree other/"), "NOT_A_MEMBER");
    assert!(!bob.path("other").exists());
    bob.ok(&["join-group", "g2"]);
    ann.ok(&["accept-request", "g2", "bob"]);
    // The copy that bob has in g1 does not count in g2.
    assert_eq!(eve.json("who g2 tree")["peers"].as_array().map(Vec::len), Some(1));
    ann.ok(&["daemon", "stop"]);
    bob.ok(&["download", "g2", "tree", "copy", "other/"]);
    assert_eq!(tree(&bob.path("other/tree")), tree(&root));
    assert_same(&ann.path("file"), &bob.path("other/copy"));
    let copy = bob.download("g2", "copy").expect("it is listed");
    assert_eq!((&copy["taken_bytes"], &copy["sources"]), (&(3 * MIB).into(), &serde_json::json!([])));
    // From now on bob shares it there.
    eve.ok(&["download", "g2", "copy", "."]);
    assert_same(&ann.path("file"), &eve.path("copy"));
}
