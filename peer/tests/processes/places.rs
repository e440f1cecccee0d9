//! Destinations of downloads: a second place, disks that are too small, directories without write permission.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::support::{Done, Foreground, MIB, Peer, Tracker, assert_same, make_file, wait_for};

/// Mounts what a container or a virtual machine would have: a small disk, and a read-only one.
const MOUNTS: &str =
    "mount -t tmpfs -o size=24m none small && mount -t tmpfs -o ro none locked && exec \"$@\"";

#[test]
fn a_second_place_gets_a_copy_and_the_first_goes_on_sharing() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", 3 * MIB + 5, 1);
    bob.ok(&["download", "g1", "data", "first/"]);
    // No other peer is needed for the copy.
    ann.ok(&["daemon", "stop"]);
    let second = bob.path("second/data");
    let done = bob.json("download g1 data second/");
    assert_eq!(
        (&done["state"], &done["destination"]),
        (&"complete".into(), &second.display().to_string().into())
    );
    assert_same(&original, &second);
    assert!(!bob.path("second/.minitorrent").exists());
    for place in ["first/", "first", "./first/../first/data", "second/", "second/data"] {
        bob.ok(&["download", "g1", "data", place]);
    }
    let shares = bob.json("list-shares")["shares"].clone();
    assert_eq!(shares.as_array().map(Vec::len), Some(1));
    assert_eq!(shares[0]["path"], bob.path("first/data").display().to_string());

    // A file of the same length is not taken for the shared file, and is left unchanged.
    make_file(&second, 3 * MIB + 5, 2);
    let altered = fs::read(&second).expect("it is there");
    assert_eq!(bob.refused(6, "download g1 data second/"), "DESTINATION_EXISTS");
    assert!(fs::read(&second).expect("it is there") == altered);
    // A copy that has changed since it was shared is not copied further.
    make_file(&bob.path("first/data"), 3 * MIB + 5, 3);
    bob.fails(8, &["download", "g1", "data", "third/", "--timeout", "2"]);
    assert!(!bob.path("third/data").exists());
    ann.ok(&["whoami"]);
    bob.ok(&["download", "g1", "data", "third/"]);
    assert_same(&original, &bob.path("third/data"));
}

#[test]
fn a_file_in_the_place_of_a_directory_is_left_alone() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 1);
    fs::write(bob.path("taken"), "precious").expect("written");
    fs::create_dir_all(bob.path("out/data")).expect("made");
    for place in ["taken/", "taken", "out", "out/"] {
        assert_eq!(bob.refused(6, &format!("download g1 data {place}")), "DESTINATION_EXISTS", "{place}");
    }
    assert_eq!(fs::read(bob.path("taken")).expect("it is there"), b"precious");
    assert_eq!(bob.json("show-downloads")["downloads"], serde_json::json!([]));
}

#[test]
fn an_uploader_can_download_its_own_file() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "g1"]);
    let original = ann.shares("g1", "data", MIB, 1);
    ann.ok(&["download", "g1", "data", "copy"]);
    assert_same(&original, &ann.path("copy"));
    ann.ok(&["download", "g1", "data", "copy"]);
    assert_eq!(ann.json("list-shares")["shares"][0]["path"], original.display().to_string());
}

#[test]
fn a_full_disk_ends_the_verb_and_the_download_resumes_when_there_is_room() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "large", 32 * MIB, 1);
    let original = ann.shares("g1", "data", 12 * MIB, 2);
    let Some((_daemon, root)) = with_disks(&bob) else { return };

    // A file that can't fit is refused, and nothing is created.
    for line in ["download g1 large small/", "download g1 large small/new/ -d", "download g1 large small/x"] {
        assert_eq!(bob.refused(9, line), "DISK_FULL", "{line}");
    }
    assert_eq!(bob.json("show-downloads")["downloads"], serde_json::json!([]));
    assert_eq!(fs::read_dir(root.join("small")).expect("listed").count(), 0);

    // A download that fitted at its start waits for room. Each verb that waits for it reports this.
    ann.ok(&["limit", "--up", "2MiB"]);
    let waiting = bob.spawn(&["download", "g1", "data", "small/", "--json"]);
    bob.waits_until_midway("g1", "data", 2 * MIB as u64);
    let filler = root.join("small/filler");
    let room = "the disk is full";
    wait_for(room, || fs::write(&filler, vec![1; 24 * MIB]).is_err().then_some(()));
    let ended = Done::since(waiting, "", Instant::now());
    assert_eq!((ended.code, ended.reason().as_str()), (9, "DISK_FULL"), "{ended:?}");
    let stalled = bob.download("g1", "data").expect("it stays in the daemon");
    assert_eq!((&stalled["state"], &stalled["rate"]), (&"stalled".into(), &0.into()), "{stalled}");
    assert!(stalled["cause"].as_str().is_some_and(|cause| cause.contains("space")), "{stalled}");
    assert_eq!(bob.refused(9, "download g1 data small/"), "DISK_FULL", "it was looked at again");
    fs::remove_file(&filler).expect("removed");
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["download", "g1", "data", "small/"]);
    assert_same(&original, &root.join("small/data"));
}

#[test]
fn the_second_of_two_downloads_that_do_not_fit_is_refused_and_the_first_finishes() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "2MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let first = ann.shares("g1", "first", 14 * MIB, 1);
    ann.shares("g1", "second", 14 * MIB, 2);
    let Some((_daemon, root)) = with_disks(&bob) else { return };
    // Each of them fits alone.
    bob.ok(&["download", "g1", "first", "small/", "-d"]);
    bob.waits_until_midway("g1", "first", 1);
    let refused = bob.fails(9, &["download", "g1", "second", "small/"]);
    assert!(refused.stderr.contains("running downloads"), "{refused:?}");
    ann.ok(&["limit", "--up", "0"]);
    bob.waits_until_complete("g1", "first");
    assert_same(&first, &root.join("small/first"));
}

#[test]
fn a_directory_that_may_not_be_written_to_is_refused() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 1);
    let Some((_daemon, _)) = with_disks(&bob) else { return };
    for place in ["locked/", "locked/film", "locked/new/deep/"] {
        assert_eq!(bob.refused(5, &format!("download g1 data {place}")), "NOT_PERMITTED", "{place}");
    }
    assert_eq!(bob.json("show-downloads")["downloads"], serde_json::json!([]));
    bob.ok(&["download", "g1", "data", "out/"]);
}

#[test]
fn a_stopped_download_says_so_and_keeps_its_count() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "2MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 12 * MIB, 1);
    bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", MIB as u64);
    bob.ok(&["stop-download", "g1", "data"]);
    let stopped = bob.download("g1", "data").expect("it is shown");
    assert!(stopped["cause"].as_str().is_some_and(|cause| cause.contains("stopped")), "{stopped}");
    assert!(
        stopped["sources"].as_array().is_some_and(|all| all.iter().all(|one| one["rate"] == 0)),
        "{stopped}"
    );
    bob.ok(&["daemon", "stop"]);
    let kept = bob.download("g1", "data").expect("it is still shown");
    assert_eq!((&kept["state"], &kept["done_bytes"]), (&"stopped".into(), &stopped["done_bytes"]));
    // The file can go elsewhere only after the first download is discarded.
    assert_eq!(bob.refused(6, "download g1 data elsewhere/"), "DESTINATION_EXISTS");
    bob.ok(&["stop-download", "g1", "data", "--discard"]);
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["download", "g1", "data", "elsewhere/"]);
}

/// Starts the peer's daemon where `small` and `locked` in its directory are separate disks. Returns the
/// daemon and the path by which it sees that directory. Returns `None` on a machine where mounting is not
/// allowed.
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn with_disks(peer: &Peer) -> Option<(Foreground, PathBuf)> {
    peer.ok(&["daemon", "stop"]);
    for name in ["small", "locked"] {
        fs::create_dir(peer.path(name)).expect("made");
    }
    match Command::new("unshare").args(["--mount", "--map-root-user", "true"]).output() {
        Ok(made) if made.status.success() => {}
        Ok(made) => {
            let why = String::from_utf8_lossy(&made.stderr);
            assert!(why.contains("not permitted") || why.contains("denied"), "no mount namespace: {why}");
            println!("SKIPPED: mount namespaces are not permitted here");
            return None;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("SKIPPED: `unshare` is not installed");
            return None;
        }
        Err(error) => panic!("`unshare` did not start: {error}"),
    }
    let daemon = peer.command(&["daemon"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", MOUNTS, "sh"]);
    command.arg(daemon.get_program()).args(daemon.get_args());
    command
        .current_dir(peer.path(""))
        .envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (daemon, line) = Foreground::start(command);
    assert!(line.starts_with("listening "), "{line}");
    let root = Path::new("/proc").join(daemon.id().to_string()).join("root");
    Some((daemon, root.join(peer.path("").strip_prefix("/").expect("absolute"))))
}
