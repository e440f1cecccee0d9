//! The main scenario, as the command line's manual describes it.

use crate::support::{MIB, Tracker, assert_same};

#[test]
fn a_file_travels_from_member_to_member() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    ann.ok(&["create-group", "g1"]);
    bob.ok(&["join-group", "g1"]);
    let asked = ann.ok(&["list-requests", "g1", "--json"]).json();
    assert_eq!(asked["requests"][0]["user"], "bob");
    ann.ok(&["accept-request", "g1", "bob"]);
    let original = ann.shares("g1", "movie.mp4", 5 * MIB + 77, 1);

    let files = bob.ok(&["list-files", "g1", "--json"]).json();
    assert_eq!(files["files"][0]["name"], "movie.mp4");
    assert_eq!(files["files"][0]["size"], 5 * MIB + 77);
    bob.ok(&["download", "g1", "movie.mp4", "out/"]);
    let copy = bob.path("out/movie.mp4");
    assert_same(&original, &copy);
    assert!(!bob.path("out/.minitorrent").exists(), "unfinished data goes when it is done");

    let again = bob.ok(&["download", "g1", "movie.mp4", "out/"]);
    assert_eq!(again.code, 0, "finished and in place");
    bob.ok(&["verify", "g1", "movie.mp4"]);
    let shown = bob.ok(&["show-downloads"]);
    assert!(shown.stdout.contains("[C] [g1] movie.mp4"), "{shown:?}");
    let seeded = bob.ok(&["list-shares", "--json"]).json();
    assert_eq!(seeded["shares"][0]["name"], "movie.mp4", "from then on bob seeds too");
}

#[test]
fn an_empty_file_and_taken_names() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let empty = ann.shares("g1", "empty", 0, 1);
    bob.ok(&["download", "g1", "empty", "out/"]);
    assert_same(&empty, &bob.path("out/empty"));

    ann.shares("g1", "data", MIB, 2);
    std::fs::write(bob.path("mine"), "precious").expect("written");
    bob.fails(6, &["download", "g1", "data", "mine"]);
    assert_eq!(std::fs::read(bob.path("mine")).expect("still there"), b"precious");

    let other = bob.path("data");
    std::fs::write(&other, "other content").expect("written");
    bob.fails(6, &["upload", "data", "g1"]);
    bob.fails(3, &["download", "g1", "absent", "out/"]);
    bob.fails(3, &["upload", "absent", "g1"]);
    bob.fails(5, &["list-files", "no-such-group"]);
    bob.fails(3, &["join-group", "no-such-group"]);
    bob.fails(2, &["download", "g1"]);
}

#[test]
fn logout_ends_sharing_and_login_brings_it_back() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", 2 * MIB, 3);
    ann.ok(&["logout"]);
    ann.fails(4, &["list-files", "g1"]);

    bob.ok(&["download", "g1", "data", "out/", "-d"]);
    let late = bob.fails(8, &["download", "g1", "data", "out/", "--timeout", "2"]);
    assert!(late.stderr.contains("source"), "{late:?}");
    ann.ok_with_password(&["login", "ann"]);
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_same(&original, &bob.path("out/data"));
}

#[test]
fn verbs_say_what_is_wrong_by_their_exit_code() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    assert_eq!(ann.with_password(&["create-user", "ann"], "another password\n").code, 6);
    assert_eq!(ann.with_password(&["login", "bob"], "another password\n").code, 6, "logged in as ann");
    ann.ok(&["logout"]);
    assert_eq!(ann.with_password(&["login", "ann"], "the wrong password\n").code, 4);
    assert_eq!(ann.with_password(&["login", "nobody"], "the wrong password\n").code, 4);
    ann.fails(4, &["create-group", "g1"]);
    ann.ok(&["daemon", "stop"]);
    ann.fails(10, &["status"]);
    ann.fails(10, &["list-groups", "--no-autostart"]);
    ann.fails(2, &["no-such-verb"]);
}
