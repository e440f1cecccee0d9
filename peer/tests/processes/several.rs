//! Several files in one call: each is handled, whatever becomes of the others.

use std::fs;

use crate::support::{MIB, Peer, Tracker, assert_same, make_file};

/// Two users in a group, and files of the first.
fn ann_with_files(count: usize) -> (Tracker, Peer, Peer, Vec<String>) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let names: Vec<String> = (0..count).map(|number| format!("f{number}.bin")).collect();
    for (name, seed) in names.iter().zip(0..) {
        make_file(&ann.path(name), MIB / 2 + seed as usize, seed);
    }
    (tracker, ann, bob, names)
}

/// The words of a call: some, then the names, then some.
fn call<'a>(before: &[&'a str], names: &'a [String], after: &[&'a str]) -> Vec<&'a str> {
    let names = names.iter().map(String::as_str);
    before.iter().copied().chain(names).chain(after.iter().copied()).collect()
}

fn assert_arrived(ann: &Peer, bob: &Peer, directory: &str, names: &[String]) {
    for name in names {
        assert_same(&ann.path(name), &bob.path(directory).join(name));
    }
}

#[test]
fn several_paths_and_names_are_one_call_each() {
    let (_tracker, ann, bob, names) = ann_with_files(12);
    ann.ok(&call(&["upload"], &names, &["g1"]));
    let listed = bob.json("list-files g1")["files"].as_array().map(Vec::len);
    assert_eq!(listed, Some(names.len()));
    bob.ok(&call(&["download", "g1"], &names[..3], &["out/"]));
    assert_arrived(&ann, &bob, "out", &names[..3]);
    assert!(!bob.path("out").join(&names[3]).exists());
    // Those that are in place already are done at once.
    let all = bob.json("download g1 --all out");
    assert_eq!(all["downloads"].as_array().map(Vec::len), Some(names.len()), "{all}");
    assert_arrived(&ann, &bob, "out", &names);
    bob.ok(&["download", "g1", "--match", "f1*.bin", "--match", "f2*", "some"]);
    let mut found: Vec<_> =
        fs::read_dir(bob.path("some")).expect("made").map(|one| one.expect("one").file_name()).collect();
    found.sort();
    assert_eq!(found, ["f1.bin", "f10.bin", "f11.bin", "f2.bin"]);
    assert_eq!(bob.refused(3, "download g1 --match *.iso some"), "FILE_NOT_FOUND");
}

#[test]
fn a_bad_one_is_named_and_the_others_are_handled() {
    let (_tracker, ann, bob, names) = ann_with_files(3);
    let [first, second, third] = &names[..] else { unreachable!("there are three") };
    let uploaded = ann.fails(3, &["upload", first, "missing.bin", second, third, "g1"]);
    assert!(uploaded.stderr.contains("missing.bin") && uploaded.stderr.contains("1 of 4"), "{uploaded:?}");
    assert_eq!(ann.json("list-files g1")["files"].as_array().map(Vec::len), Some(3));
    // The first failure decides on the exit code: something in the way before a file that does not exist.
    fs::create_dir(bob.path("out")).expect("made");
    fs::write(bob.path("out").join(first), b"precious").expect("written");
    let downloaded = bob.fails(6, &["download", "g1", second, first, "nothing.bin", third, "out", "--json"]);
    assert!(downloaded.stderr.contains(first.as_str()) && downloaded.stderr.contains("nothing.bin"));
    let done = downloaded.json()["downloads"].as_array().map(Vec::len);
    assert_eq!((done, fs::read(bob.path("out").join(first)).ok()), (Some(2), Some(b"precious".to_vec())));
    assert_arrived(&ann, &bob, "out", &names[1..]);
    assert_eq!(ann.refused(5, "upload f0.bin f1.bin nowhere"), "NOT_A_MEMBER");
}

#[test]
fn a_call_that_makes_no_sense_starts_nothing() {
    let (_tracker, ann, bob, names) = ann_with_files(2);
    ann.fails(2, &call(&["upload"], &names, &["g1", "--name", "one"]));
    ann.fails(2, &["upload", &names[0]]);
    assert_eq!(ann.json("list-files g1")["files"].as_array().map(Vec::len), Some(0));
    assert_eq!(bob.ok(&["download", "g1", "--all", "out"]).code, 0, "a group without files");
    ann.ok(&call(&["upload"], &names, &["g1"]));
    for line in [
        "download g1",
        "download g1 f0.bin f1.bin no-directory",
        "download g1 --all --match f* out",
        "download g1 f0.bin out --all",
        "download g1 --match a[ out",
    ] {
        bob.fails(2, &line.split(' ').collect::<Vec<_>>());
    }
    assert!(!bob.path("no-directory").exists() && !bob.path("out").exists());
    assert_eq!(bob.refused(5, "download nowhere --all out"), "NOT_A_MEMBER");
    // Names and flags may be mixed, as before.
    ann.ok(&["upload", "--name", "renamed", &names[0], "g1"]);
    ann.ok(&["upload", &names[0], "--name", "again", "g1"]);
}

#[test]
fn several_go_on_in_the_daemon_when_their_time_is_over() {
    let (_tracker, ann, bob, names) = ann_with_files(3);
    ann.ok(&call(&["upload"], &names, &["g1"]));
    ann.ok(&["daemon", "stop"]);
    let done = bob.fails(8, &["download", "g1", "--all", "out", "--timeout", "2"]);
    assert!(done.stderr.contains("3 of 3 files are not done"), "{done:?}");
    ann.ok(&["whoami"]);
    bob.ok(&["download", "g1", "--all", "out"]);
    assert_arrived(&ann, &bob, "out", &names);
    // With -d, the call returns when all have started.
    bob.ok(&["download", "g1", "--all", "later", "-d"]);
    for name in &names {
        bob.waits_until_complete("g1", name);
    }
}
