//! `watch`: what appears in a directory is shared.

use std::{
    fs,
    io::{BufRead as _, BufReader},
};

use crate::support::{Tracker, wait_for};

#[test]
fn what_appears_is_shared_once_it_has_stopped_changing() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    tracker.group("g1", &[&ann]);
    let directory = ann.path("builds");
    fs::create_dir(&directory).expect("made");
    fs::write(directory.join("old"), "old").expect("written");
    assert_eq!(ann.refused(5, "watch builds g2"), "NOT_A_MEMBER");
    assert_eq!(ann.refused(3, "watch nothing g1"), "PATH_NOT_FOUND");
    let mut watching = ann.spawn(&["watch", "builds", "g1", "--replace"]);
    let size = |name: &str| {
        let files = ann.json("list-files g1")["files"].as_array().expect("a list").clone();
        files.into_iter().find(|file| file["name"] == name)?["size"].as_u64()
    };
    let mut said = BufReader::new(watching.stderr.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says that it has begun");
    assert!(line.contains("is shared with g1"), "{line}");
    fs::write(directory.join("new0"), "new").expect("written");
    wait_for("a file is shared", || size("new0"));
    fs::write(directory.join("new0"), "another").expect("written");
    wait_for("its new version is shared", || (size("new0") == Some(7)).then_some(()));
    fs::write(directory.join(".hidden"), "x").expect("written");
    fs::write(directory.join("last"), "last").expect("written");
    wait_for("the last is shared", || size("last"));
    assert_eq!((size("old"), size(".hidden")), (None, None));
    assert!(watching.try_wait().expect("a child").is_none(), "it goes on");
    watching.kill().expect("ended");
    watching.wait().expect("ended");
}
