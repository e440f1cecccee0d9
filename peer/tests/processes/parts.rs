//! Parts of folders: only what was chosen arrives, and a later call adds to it.

use std::{collections::BTreeMap, fs, path::Path};

use testkit::content::noise;

use crate::{
    folders::{Node, ann_with_tree, tree, write},
    support::{MIB, Peer, wait_for},
};

/// The files and links of a tree whose paths are chosen.
fn part(root: &Path, chosen: impl Fn(&str) -> bool) -> BTreeMap<std::path::PathBuf, Node> {
    let all = tree(root).into_iter();
    all.filter(|(path, node)| *node != Node::Directory && chosen(path.to_str().expect("text"))).collect()
}

fn offered(peer: &Peer) -> u64 {
    peer.json("list-shares")["shares"][0]["done_bytes"].as_u64().expect("a number")
}

#[test]
fn a_part_arrives_and_grows() {
    let (tracker, ann, bob, root) = ann_with_tree();
    write(&root.join("movies/one"), &noise(70, 6 * MIB + 1));
    write(&root.join("movies/two"), &noise(71, 7 * MIB + 3));
    ann.ok(&["upload", "data", "g1"]);
    let all = bob.json("list-files g1 data")["size"].as_u64().expect("a number");
    let is_first = |path: &str| path == "movies/one" || path == "bin/run";
    bob.ok(&["download", "g1", "data", "out/", "--only", "movies/one", "--only", "/bin"]);
    let place = bob.path("out/data");
    let found = || part(&place, |_| true);
    assert_eq!(found(), part(&root, is_first));
    assert!(!bob.path("out/.minitorrent").exists());
    let download = bob.download("g1", "data").expect("it is listed");
    let size = download["size"].as_u64().expect("a number");
    assert!(size < 9 * MIB as u64 && download["done_bytes"] == size, "{download}");
    assert_eq!((&download["files"], &download["done_files"]), (&2.into(), &2.into()), "{download}");
    assert!(!place.join("small").exists() && !place.join("nothing").exists());
    // It has no more of it to offer than it has, also after a restart.
    let had = offered(&bob);
    assert!(had > 5 * MIB as u64 && had < 8 * MIB as u64, "{had}");
    bob.ok(&["verify", "g1", "data"]);
    bob.ok(&["daemon", "stop"]);
    bob.ok(&["whoami"]);
    wait_for("it is offered again", || (offered(&bob) == had).then_some(()));
    assert!(bob.json("list-shares")["shares"][0]["cause"].is_null());
    // The same again is there already. More of it is added, and what is there is not fetched again.
    bob.ok(&["download", "g1", "data", "out/", "--only", "/bin"]);
    // The tree's own path is a directory now. It means the same tree.
    bob.ok(&["download", "g1", "data", "out/data", "--only", "/bin"]);
    let sent = ann.uploaded("g1", "data");
    bob.ok(&["download", "g1", "data", "out/", "--only", "small/*.txt"]);
    assert_eq!(
        found(),
        part(&root, |path| is_first(path) || path.starts_with("small/") && path.ends_with(".txt"))
    );
    assert!(ann.uploaded("g1", "data") - sent < 4 * MIB as u64);
    // A file that was changed here is not lost.
    let mine = place.join("small/000.txt");
    let old = fs::read(&mine).expect("it is there");
    write(&mine, b"my own work");
    assert_eq!(bob.refused(6, "download g1 data out/ --only movies/"), "DESTINATION_EXISTS");
    assert_eq!(fs::read(&mine).expect("it is there"), b"my own work");
    write(&mine, &old);
    assert_eq!(bob.refused(6, "download g1 data elsewhere/ --only movies/"), "DESTINATION_EXISTS");
    // Without patterns, the rest comes. Then it is a whole folder that others can fetch from.
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_eq!(found(), part(&root, |_| true));
    assert!(place.join("nothing/in/here").is_dir());
    wait_for("all is offered", || (offered(&bob) == all).then_some(()));
    ann.ok(&["stop-share", "g1", "data"]);
    let eve = tracker.user("eve");
    eve.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "eve"]);
    eve.ok(&["download", "g1", "data", "."]);
    assert_eq!(part(&eve.path("data"), |_| true), found());
}

#[test]
fn a_part_that_is_under_way_survives_a_kill_and_can_grow() {
    let (_tracker, ann, bob, root) = ann_with_tree();
    write(&root.join("movies/one"), &noise(70, 12 * MIB));
    write(&root.join("movies/two"), &noise(71, 12 * MIB));
    ann.ok(&["upload", "data", "g1"]);
    ann.ok(&["limit", "--up", "4MiB"]);
    bob.ok(&["download", "g1", "data", "out/", "-d", "--only", "movies/one"]);
    bob.waits_until_midway("g1", "data", 3 * MIB as u64);
    bob.kill_daemon();
    bob.ok(&["whoami"]);
    bob.waits_until_midway("g1", "data", 4 * MIB as u64);
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["download", "g1", "data", "out/", "--only", "/bin"]);
    let place = bob.path("out/data");
    let found = part(&place, |_| true);
    assert_eq!(found, part(&root, |path| path == "movies/one" || path == "bin/run"));
}

#[test]
fn patterns_that_choose_nothing_are_refused() {
    let (_tracker, ann, bob, _) = ann_with_tree();
    write(&ann.path("plain"), b"a file");
    ann.ok(&["upload", "data", "plain", "g1"]);
    assert_eq!(bob.refused(3, "download g1 data out/ --only nowhere/"), "FILE_NOT_FOUND");
    assert_eq!(bob.refused(2, "download g1 data out/ --only !x"), "INVALID_REQUEST");
    assert_eq!(bob.refused(2, "download g1 plain out/ --only x"), "INVALID_REQUEST");
    assert!(!bob.path("out/data").exists());
    for line in ["download g1 out/ --match a[", "subscribe g1 in/ --match a["] {
        let refused = bob.line(&format!("{line} --json"));
        assert!(refused.code == 2 && refused.stderr.contains("is not a pattern"), "{line}: {refused:?}");
    }
    assert_eq!(bob.json("list-subscriptions")["subscriptions"], serde_json::json!([]));
}
