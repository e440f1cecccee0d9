//! Folders are shared from where they lie and arrive as the same tree.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use testkit::content::noise;

use crate::support::{MIB, Peer, Tracker, wait_for};

/// What lies at a path of a tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    Link(PathBuf),
    File { bytes: Vec<u8>, executable: bool, modified: (i64, i64) },
}

/// Everything below a directory.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("it is there");
            let node = match metadata.file_type() {
                kind if kind.is_dir() => {
                    directories.push(path.clone());
                    Node::Directory
                }
                kind if kind.is_symlink() => Node::Link(fs::read_link(&path).expect("a link")),
                _ => Node::File {
                    bytes: fs::read(&path).expect("a file"),
                    executable: metadata.mode() & 0o100 != 0,
                    modified: (metadata.mtime(), metadata.mtime_nsec()),
                },
            };
            found.insert(path.strip_prefix(root).expect("below the root").to_owned(), node);
        }
    }
    found
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, bytes).expect("written");
}

/// A tree with everything that a folder may hold: files that share pieces and one that fills several, empty files
/// and directories, links, an executable file, and names of several scripts.
pub(crate) fn make_tree(root: &Path) {
    for number in 0..40 {
        write(&root.join(format!("small/{number:03}.txt")), &noise(number, 3_000 + number as usize * 17));
    }
    write(&root.join("large.bin"), &noise(7, 2 * MIB + 12_345));
    write(&root.join("empty"), b"");
    write(&root.join("größe/данные/文件/ファイル.txt"), b"of every script");
    write(&root.join("bin/run"), b"#!/bin/sh\necho hello\n");
    fs::set_permissions(root.join("bin/run"), fs::Permissions::from_mode(0o755)).expect("set");
    write(&root.join(vec!["deep"; 40].join("/")).join("leaf"), b"far down");
    fs::create_dir_all(root.join("nothing/in/here")).expect("made");
    symlink("large.bin", root.join("link")).expect("a link");
    symlink("../bin/run", root.join("small/up")).expect("a link");
    symlink("no such file", root.join("dangling")).expect("a link");
    let old = fs::File::open(root.join("empty")).expect("it is there");
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789))
        .expect("set");
}

/// Two users in a group, and a tree of the first.
pub(crate) fn ann_with_tree() -> (Tracker, Peer, Peer, PathBuf) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let root = ann.path("data");
    make_tree(&root);
    (tracker, ann, bob, root)
}

#[test]
fn a_folder_arrives_as_the_same_tree_and_is_shared_further() {
    let (tracker, ann, bob, root) = ann_with_tree();
    let uploaded = ann.json("upload data g1");
    assert_eq!(uploaded["files"], 45, "{uploaded}");
    let listed = bob.json("list-files g1")["files"][0].clone();
    assert_eq!((&listed["name"], &listed["files"]), (&"data".into(), &45.into()), "{listed}");
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_eq!(tree(&bob.path("out/data")), tree(&root));
    assert!(!bob.path("out/.minitorrent").exists());
    // Repeating the call finds it in place. A second place gets a copy.
    bob.ok(&["download", "g1", "data", "out/"]);
    ann.ok(&["daemon", "stop"]);
    bob.ok(&["download", "g1", "data", "second/"]);
    assert_eq!(tree(&bob.path("second/data")), tree(&root));
    bob.ok(&["verify", "g1", "data"]);
    // The copy is shared, also after a restart of its daemon.
    bob.ok(&["daemon", "stop"]);
    bob.ok(&["whoami"]);
    let eve = tracker.user("eve");
    eve.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "eve"]);
    ann.ok(&["stop-share", "g1", "data"]);
    eve.ok(&["download", "g1", "data", "."]);
    assert_eq!(tree(&eve.path("data")), tree(&root));
    // The same tree again is one more seeder.
    let again = eve.json("upload data g1");
    assert_eq!(again["already_published"], true, "{again}");
}

#[test]
fn what_is_in_a_folder_is_listed_without_downloading_it() {
    let (_tracker, ann, bob, root) = ann_with_tree();
    write(&ann.path("plain"), &noise(3, 5_000));
    ann.ok(&["upload", "data", "plain", "g1"]);
    let listed = bob.json("list-files g1 data");
    let entries = listed["entries"].as_array().expect("a list");
    let of = |path: &str| entries.iter().find(|entry| entry["path"] == path).expect("it is listed");
    assert_eq!(listed["files"], 45, "{listed}");
    assert_eq!((&of("bin/run")["executable"], &of("bin/run")["size"]), (&true.into(), &21.into()));
    assert_eq!(of("größe/данные/文件/ファイル.txt")["executable"], false);
    assert_eq!((&of("small/up")["kind"], &of("small/up")["target"]), (&"link".into(), &"../bin/run".into()));
    assert_eq!(of("nothing/in/here")["kind"], "directory");
    // The same as the tree, which has all directories.
    let expected = tree(&root).into_iter().filter(|(_, node)| *node != Node::Directory).count();
    assert_eq!(entries.iter().filter(|entry| entry["kind"] != "directory").count(), expected);
    let text = bob.ok(&["list-files", "g1", "data"]).stdout;
    assert!(text.contains("small/up -> ../bin/run") && text.contains("nothing/in/here/"), "{text}");
    // A file is its own entry, and nothing was downloaded or announced.
    assert_eq!(bob.json("list-files g1 plain")["entries"][0]["size"], 5_000);
    assert_eq!(bob.json("show-downloads")["downloads"], serde_json::json!([]));
    assert_eq!(bob.json("who g1 data")["peers"].as_array().map(Vec::len), Some(1));
    // Who has the folder lists it alone. Nobody else can then.
    bob.ok(&["download", "g1", "data", "out/"]);
    let done = bob.json("show-downloads")["downloads"][0].clone();
    assert_eq!((&done["done_files"], &done["files"]), (&45.into(), &45.into()), "{done}");
    ann.ok(&["daemon", "stop"]);
    assert_eq!(bob.json("list-files g1 data")["entries"], listed["entries"]);
    ann.ok(&["stop-share", "g1", "data"]);
    bob.ok(&["stop-share", "g1", "data"]);
    assert_eq!(ann.refused(8, "list-files g1 data"), "NO_SOURCE");
    assert_eq!(ann.refused(3, "list-files g1 none"), "FILE_NOT_FOUND");
}

#[test]
fn a_folder_goes_on_after_its_daemon_was_killed() {
    let (_tracker, ann, bob, root) = ann_with_tree();
    write(&root.join("huge"), &noise(9, 24 * MIB));
    ann.ok(&["upload", "data", "g1"]);
    ann.ok(&["limit", "--up", "8MiB"]);
    bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 4 * MIB as u64);
    bob.kill_daemon();
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["whoami"]);
    let done = bob.waits_until_complete("g1", "data");
    let place = done["path"].as_str().or(done["destination"].as_str()).expect("a path");
    assert_eq!(tree(Path::new(place)), tree(&root));
}

/// The bytes that the first share of a peer offers, and the files that changed.
fn offered(peer: &Peer) -> (u64, Vec<String>) {
    let share = peer.json("list-shares")["shares"][0].clone();
    let changed = share["changed_files"].as_array().expect("a list").iter();
    let changed: Vec<_> = changed.map(|path| path.as_str().expect("a path").to_owned()).collect();
    assert_eq!(share["cause"].is_null(), changed.is_empty(), "{share}");
    (share["done_bytes"].as_u64().expect("a number"), changed)
}

#[test]
fn of_a_folder_only_the_pieces_with_a_changed_file_are_not_served() {
    let (_tracker, ann, bob, root) = ann_with_tree();
    for name in ["0", "1", "2"] {
        write(&root.join(name), &noise(90, 3 * MIB));
    }
    ann.ok(&["upload", "data", "g1"]);
    let (all, _) = offered(&ann);
    let (old, modified) = (fs::read(root.join("1")).expect("read"), root.join("1"));
    fs::write(&modified, noise(91, 3 * MIB)).expect("written");
    wait_for("the change is noticed", || (offered(&ann).1 == ["1"]).then_some(()));
    let (left, _) = offered(&ann);
    assert!(all - left >= 3 * MIB as u64 && all - left <= 4 * MIB as u64, "{left} of {all}");
    let text = ann.ok(&["list-shares"]).stdout;
    assert!(text.contains("1 file changed on disk: 1;"), "{text}");
    // The others are served, and no wrong byte is.
    bob.starts("g1", "data");
    let bytes = || bob.download("g1", "data").and_then(|download| download["done_bytes"].as_u64());
    wait_for("all else arrives", || bytes().filter(|done| *done == left));
    // verify names it, also for programs. So does a daemon that starts with it.
    let verified = ann.fails(11, &["verify", "g1", "data", "--json"]);
    assert_eq!(verified.json()["bad_files"], serde_json::json!(["1"]), "{verified:?}");
    ann.ok(&["daemon", "stop"]);
    ann.ok(&["whoami"]);
    wait_for("the rest is offered after a restart", || {
        (offered(&ann) == (left, vec!["1".into()])).then_some(())
    });
    // With the old content back, all is served.
    fs::write(&modified, &old).expect("written");
    wait_for("all is offered", || (offered(&ann) == (all, Vec::new())).then_some(()));
    bob.waits_until_complete("g1", "data");
    // A deleted file is a changed one.
    fs::remove_file(root.join("2")).expect("removed");
    wait_for("the loss is noticed", || (offered(&ann).1 == ["2"]).then_some(()));
    let verified = ann.fails(11, &["verify", "g1", "data"]);
    assert!(verified.stderr.contains("1 file of the folder is bad: 2"), "{verified:?}");
}

#[test]
fn what_cannot_be_shared_is_named_before_anything_is_hashed() {
    let (_tracker, ann, _bob, root) = ann_with_tree();
    symlink("/etc/passwd", root.join("absolute")).expect("a link");
    symlink("../../outside", root.join("small/outside")).expect("a link");
    fs::write(root.join("Empty"), b"").expect("written");
    fs::create_dir(root.join("con")).expect("made");
    fs::write(root.join("con/a"), b"").expect("written");
    let refused = ann.fails(2, &["upload", "data", "g1"]);
    for path in ["absolute", "small/outside", "empty", "con"] {
        assert!(refused.stderr.contains(path), "{path}: {refused:?}");
    }
    assert!(refused.stderr.contains("--skip-unsupported"), "{refused:?}");
    let uploaded = ann.json("upload data g1 --skip-unsupported");
    assert_eq!(uploaded["skipped"], 4, "{uploaded}");
}

#[test]
fn patterns_leave_files_out() {
    let (_tracker, ann, bob, root) = ann_with_tree();
    write(&root.join(".minitorrentignore"), b"*.log\n/build/\n");
    write(&root.join("a.log"), b"log");
    write(&root.join("build/output"), b"output");
    write(&root.join("small/build/kept"), b"kept");
    ann.ok(&["upload", "data", "g1", "--exclude", "large.*", "--exclude", "deep"]);
    bob.ok(&["download", "g1", "data", "out/"]);
    let arrived = tree(&bob.path("out/data"));
    for path in [".minitorrentignore", "a.log", "build", "large.bin", "deep"] {
        assert!(!arrived.contains_key(Path::new(path)), "{path} was left out");
    }
    assert!(arrived.contains_key(Path::new("small/build/kept")));
}

#[test]
fn an_empty_folder_and_one_of_empty_files_are_folders() {
    let (_tracker, ann, bob, _) = ann_with_tree();
    fs::create_dir(ann.path("void")).expect("made");
    write(&ann.path("hollow/a"), b"");
    for name in ["void", "hollow"] {
        ann.ok(&["upload", name, "g1"]);
        bob.ok(&["download", "g1", name, "out/"]);
        assert_eq!(tree(&bob.path("out").join(name)), tree(&ann.path(name)));
    }
}

#[test]
fn nothing_at_the_destination_of_a_folder_is_overwritten() {
    let (_tracker, ann, bob, _) = ann_with_tree();
    ann.ok(&["upload", "data", "g1"]);
    write(&bob.path("out/data/mine"), b"precious");
    assert_eq!(bob.refused(6, "download g1 data out/"), "DESTINATION_EXISTS");
    assert_eq!(tree(&bob.path("out/data")).len(), 1);
    write(&bob.path("file/data"), b"precious");
    assert_eq!(bob.refused(6, "download g1 data file/"), "DESTINATION_EXISTS");
}
