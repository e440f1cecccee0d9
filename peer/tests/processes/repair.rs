//! Copies that are damaged, gone or in the way: what is said about them, and the way back.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use serde_json::json;

use crate::support::{MIB, Peer, Tracker, assert_same, wait_for};

const PIECE: u64 = 524_288;

/// Ann shares `data` of 16 pieces, and bob has a complete copy in `out/`.
fn world() -> (Tracker, Peer, Peer) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 8 * MIB, 1);
    bob.ok(&["download", "g1", "data", "out/"]);
    bob.waits_until_complete("g1", "data");
    (tracker, ann, bob)
}

/// Overwrites a byte of each of these pieces.
fn damage(path: &Path, pieces: &[u64]) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("there");
    for piece in pieces {
        let mut byte = [0];
        file.read_exact_at(&mut byte, piece * PIECE + 5).expect("read");
        file.write_all_at(&[!byte[0]], piece * PIECE + 5).expect("written");
    }
}

#[test]
fn verify_names_the_bad_pieces_and_repair_fetches_only_those() {
    let (_tracker, ann, bob) = world();
    let copy = bob.path("out/data");
    let inode = fs::metadata(&copy).expect("there").ino();
    let sent = ann.uploaded("g1", "data");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).expect("ours");
    bob.ok(&["verify", "g1", "data"]);
    assert_eq!(bob.download("g1", "data").expect("listed")["state"], "complete", "its bytes are the same");
    damage(&copy, &[3, 4, 9]);

    let checked = bob.fails(11, &["verify", "g1", "data", "--json"]);
    let found = checked.json();
    assert_eq!((&found["bad_pieces"], &found["bad_ranges"]), (&json!(3), &json!([[3, 4], [9, 9]])));
    let told = bob.fails(11, &["verify", "g1", "data"]);
    let remedy = format!("`peer download g1 data {} --repair`", copy.display());
    assert!(
        told.stderr.contains("3 of 16 pieces are bad (3-4, 9)") && told.stderr.contains(&remedy),
        "{told:?}"
    );

    let shown = bob.download("g1", "data").expect("listed");
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("failed"), &json!("FILE_CHANGED")), "{shown}");
    assert!(shown["cause"].as_str().is_some_and(|cause| cause.contains(&remedy)), "{shown}");
    assert!(!bob.ok(&["show-downloads"]).stdout.contains("[C]"));
    assert_ne!(bob.json("list-shares")["shares"][0]["cause"], json!(null), "it is not offered");

    bob.ok(&["download", "g1", "data", "out/", "--repair"]);
    assert_same(&ann.path("data"), &copy);
    assert_eq!(fs::metadata(&copy).expect("there").ino(), inode, "it was mended in place");
    assert_eq!(ann.uploaded("g1", "data") - sent, 3 * PIECE, "only the bad pieces were fetched");
    assert!(!bob.path("out/.minitorrent").exists());
    assert_eq!(bob.waits_until_complete("g1", "data")["cause"], json!(null));
    bob.ok(&["verify", "g1", "data"]);

    // A copy of another length is mended too, and so is the file of the user who shared it first.
    for length in [3 * PIECE + 1, 16 * PIECE + 100] {
        fs::OpenOptions::new()
            .write(true)
            .open(&copy)
            .and_then(|file| file.set_len(length))
            .expect("resized");
        bob.fails(11, &["verify", "g1", "data"]);
        bob.ok(&["download", "g1", "data", "out/", "--repair"]);
        assert_same(&ann.path("data"), &copy);
    }
    damage(&ann.path("data"), &[0]);
    ann.fails(11, &["verify", "g1", "data"]);
    ann.ok(&["download", "g1", "data", "--repair"]);
    assert_same(&ann.path("data"), &copy);
}

#[test]
fn a_copy_with_a_second_name_is_not_mended_in_place() {
    let (_tracker, _ann, bob) = world();
    let copy = bob.path("out/data");
    damage(&copy, &[3]);
    let damaged = fs::read(&copy).expect("there");
    fs::hard_link(&copy, bob.path("second")).expect("linked");
    let refused = bob.fails(6, &["download", "g1", "data", "out/", "--repair"]);
    assert!(refused.stderr.contains("second name") && refused.stderr.contains("move it away"), "{refused:?}");
    assert!(fs::read(&copy).expect("there") == damaged, "it was left as it is");
    // Without the flag, nothing is overwritten either.
    bob.fails(6, &["download", "g1", "data", "out/"]);
    fs::remove_file(bob.path("second")).expect("removed");
    bob.ok(&["download", "g1", "data", "out/", "--repair"]);
}

#[test]
fn a_file_that_is_gone_is_not_shown_as_complete() {
    let (_tracker, ann, bob) = world();
    fs::remove_file(bob.path("out/data")).expect("removed");
    let shown = bob.download("g1", "data").expect("listed");
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("failed"), &json!("PATH_NOT_FOUND")), "{shown}");
    let again = format!("`peer download g1 data {}`", bob.path("out/data").display());
    assert!(shown["cause"].as_str().is_some_and(|cause| cause.contains(&again)), "{shown}");
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_same(&ann.path("data"), &bob.path("out/data"));
    bob.waits_until_complete("g1", "data");

    assert_eq!(bob.json("clear-downloads")["cleared"], 1);
    assert_eq!(bob.json("show-downloads")["downloads"], json!([]));
    assert_eq!(bob.json("list-shares")["shares"][0]["cause"], json!(null), "it is shared all the same");
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_eq!(bob.json("clear_downloads")["cleared"], 0);
}

#[test]
fn what_is_in_the_way_is_named_with_the_way_on() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "2MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "my data", 16 * MIB, 1);
    let file = bob.starts("g1", "my data");
    bob.waits_until_midway("g1", "my data", 1);
    bob.ok(&["stop-download", "g1", "my data"]);
    fs::write(&file, "in the way").expect("written");
    let refused = bob.fails(6, &["resume-download", "g1", "my data"]);
    let path = file.display().to_string();
    for part in [path.as_str(), "move it away", "`peer resume-download g1 'my data'`"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    fs::rename(&file, bob.path("moved")).expect("moved");
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["resume-download", "g1", "my data"]);
    wait_for("the download completes", || file.exists().then_some(()));
    bob.waits_until_complete("g1", "my data");
    assert_same(&ann.path("my data"), &file);
}
