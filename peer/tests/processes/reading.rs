//! `peer cat`: the bytes of a file, before all of it is there.

use std::{fs, path::Path};

use crate::support::{MIB, Peer, Tracker};

/// What `peer cat` writes.
#[track_caller]
fn cat(peer: &Peer, line: &str) -> Vec<u8> {
    let args: Vec<&str> = ["cat"].into_iter().chain(line.split(' ')).collect();
    let output = peer.command(&args).output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a file")
}

fn pair(ann: &[(&str, &str)]) -> (Tracker, Peer, Peer) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", ann), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    (tracker, ann, bob)
}

#[test]
fn a_download_is_read_while_it_arrives() {
    let (_tracker, ann, bob) = pair(&[("PEER_UPLOAD_LIMIT", "4MiB")]);
    let original = bytes(&ann.shares("g1", "data", 24 * MIB + 3, 1));
    bob.starts("g1", "data");
    assert!(cat(&bob, "g1 data --offset 20000000 --length 100") == original[20_000_000..20_000_100]);
    let download = bob.download("g1", "data").expect("it runs");
    assert_eq!(download["state"], "downloading", "{download}");
    assert!(cat(&bob, "g1 data") == original);
    bob.waits_until_complete("g1", "data");
    assert!(cat(&bob, "g1 data") == original && cat(&ann, "g1 data") == original);

    let size = original.len();
    for (offset, length, expected) in [
        (0, "0", &original[..0]),
        (0, "1", &original[..1]),
        (524_287, "2", &original[524_287..524_289]),
        (size - 1, "1", &original[size - 1..]),
        (size - 1, "18446744073709551615", &original[size - 1..]),
        (size, "5", &original[..0]),
    ] {
        assert!(
            cat(&bob, &format!("g1 data --offset {offset} --length {length}")) == expected,
            "{offset} {length}"
        );
    }
    assert_eq!(bob.refused(2, &format!("cat g1 data --offset {}", size + 1)), "OUT_OF_RANGE");
    assert_eq!(bob.refused(2, "cat g1 data --offset 18446744073709551615"), "OUT_OF_RANGE");
    bob.fails(2, &["cat", "g1", "data", "--offset", "-1"]);
    assert_eq!(bob.refused(3, "cat g1 data/path"), "FILE_NOT_FOUND");
}

#[test]
fn what_is_not_here_is_not_read() {
    let (tracker, ann, bob) = pair(&[]);
    ann.shares("g1", "data", MIB, 1);
    let done = bob.fails(3, &["cat", "g1", "data"]);
    assert!(
        done.stderr.contains("`peer download g1 data DEST -d`")
            || done.stderr.contains("download g1 data DEST -d")
    );
    assert_eq!(done.stdout, "");
    assert_eq!(bob.refused(3, "cat g1 nothing"), "FILE_NOT_FOUND");
    let eve = tracker.user("eve");
    assert_eq!(eve.refused(5, "cat g1 data"), "NOT_A_MEMBER");
    assert_eq!(eve.refused(5, "cat g9 data"), "NOT_A_MEMBER");
    eve.ok(&["logout"]);
    eve.fails(4, &["cat", "g1", "data"]);
    eve.ok(&["daemon", "stop"]);
    eve.fails(10, &["cat", "g1", "data", "--no-autostart"]);
}

#[test]
fn a_stopped_download_and_a_damaged_copy_have_their_codes() {
    let (_tracker, ann, bob) = pair(&[("PEER_UPLOAD_LIMIT", "1MiB")]);
    let path = ann.shares("g1", "data", 16 * MIB, 1);
    bob.starts("g1", "data");
    let reading = bob.spawn(&["cat", "g1", "data", "--json"]);
    bob.waits_until_midway("g1", "data", 1);
    bob.ok(&["stop-download", "g1", "data"]);
    let done = crate::support::Done::since(reading, "", std::time::Instant::now());
    assert_eq!((done.code, done.reason().as_str()), (12, "STOPPED"), "{}", done.stderr);

    let mut damaged = bytes(&path);
    damaged[9 * MIB] ^= 1;
    fs::write(&path, &damaged).expect("written");
    let output = ann.command(&["cat", "g1", "data"]).output().expect("it ends");
    assert_eq!(output.status.code(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.len() <= 9 * MIB && damaged.starts_with(&output.stdout));
}

#[test]
fn a_file_of_a_folder_is_read() {
    let (_tracker, ann, bob) = pair(&[]);
    let root = ann.path("tree");
    fs::create_dir_all(root.join("deep/er")).expect("made");
    let content = testkit::content::noise(5, 3 * MIB);
    fs::write(root.join("a.txt"), b"first").expect("written");
    fs::write(root.join("empty"), b"").expect("written");
    fs::write(root.join("deep/er/größe.bin"), &content).expect("written");
    ann.ok(&["upload", &root.display().to_string(), "g1"]);
    bob.starts("g1", "tree");
    assert!(
        cat(&bob, "g1 tree/deep/er/größe.bin --offset 1000000 --length 1000000")
            == content[1_000_000..2_000_000]
    );
    assert_eq!(cat(&bob, "g1 tree/a.txt"), b"first");
    assert_eq!(cat(&ann, "g1 tree/empty"), b"");
    bob.waits_until_complete("g1", "tree");
    assert!(cat(&bob, "g1 tree/deep/er/größe.bin") == content);
    assert_eq!(bob.refused(2, "cat g1 tree"), "INVALID_REQUEST");
    for path in ["tree/deep", "tree/../tree/a.txt", "tree/", "tree/nothing"] {
        let code = if path == "tree/" { 2 } else { 3 };
        bob.refused(code, &format!("cat g1 {path}"));
    }
}

#[test]
fn a_closed_pipe_is_enough() {
    let (_tracker, ann, _bob) = pair(&[]);
    ann.shares("g1", "data", 8 * MIB, 1);
    let mut child = ann.spawn(&["cat", "g1", "data"]);
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}
