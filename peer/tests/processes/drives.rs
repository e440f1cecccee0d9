//! Drives and directories that come and go: shares wait for them, and no download starts from nothing unasked.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{MIB, Peer, Tracker, assert_same, wait_for};

const SIZE: usize = 24 * MIB;

/// Returns a slow seeder and a leecher, and the original.
fn scene() -> (Tracker, Peer, Peer, std::path::PathBuf) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "2MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", SIZE, 1);
    (tracker, ann, bob, original)
}

/// Stops the leecher's daemon when some of the file is there.
fn stops_midway(bob: &Peer) {
    bob.starts("g1", "data");
    // By then the library knows that there is unfinished data.
    bob.waits_until_midway("g1", "data", 6 * MIB as u64);
    bob.ok(&["daemon", "stop"]);
}

/// Asserts that a failed download shows what was there when its data was last seen.
fn shows_what_was_done(bob: &Peer, least: usize) {
    let shown = bob.download("g1", "data").expect("listed");
    let done = shown["done_bytes"].as_u64().expect("a number");
    assert!((least as u64..SIZE as u64).contains(&done), "{shown}");
    let line = bob.ok(&["show-downloads"]).stdout;
    assert!(line.starts_with("[F]") && !line.contains("  0%"), "{line}");
}

fn cause(peer: &Peer) -> String {
    wait_for("the download fails", || {
        let download = peer.download("g1", "data")?;
        (download["state"] == "failed").then(|| download["cause"].as_str().unwrap_or_default().to_owned())
    })
}

/// The open files of the peer's daemon that lie in its own directory, without those of its home.
fn open_files(peer: &Peer) -> Vec<String> {
    let pid = peer.daemon_pid().expect("it runs");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let paths = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let (own, home) = (peer.path(""), peer.path("home"));
    let outside = paths.filter(|path| path.starts_with(&own) && !path.starts_with(&home));
    outside.map(|path| path.display().to_string()).collect()
}

fn listed(directory: &Path) -> usize {
    fs::read_dir(directory).expect("listed").count()
}

#[test]
fn an_idle_share_holds_no_file_open() {
    let (_tracker, ann, bob, original) = scene();
    ann.ok(&["limit", "--up", "0"]);
    assert_eq!(open_files(&ann), Vec::<String>::new());
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_same(&original, &bob.path("out/data"));
    for peer in [&ann, &bob] {
        wait_for("all files are closed", || open_files(peer).is_empty().then_some(()));
    }
}

/// A drive of its own, mounted over `drive` in the peer's directory in a mount namespace where the daemon runs. The
/// script shares a file from there, waits until nothing is asked of it, and detaches the drive.
const DETACHES: &str = r#"
set -e
mount -t tmpfs none drive
cp original drive/data
"$0" daemon > listening & daemon=$!
until grep -q listening listening; do sleep 0.05; done
"$0" upload drive/data g1
"$0" list-shares
"$0" verify g1 data
umount drive
"$0" daemon stop
wait $daemon
"#;

#[test]
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn a_drive_with_an_idle_share_can_be_detached() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "g1"]);
    ann.ok(&["daemon", "stop"]);
    crate::support::make_file(&ann.path("original"), 3 * MIB, 1);
    fs::create_dir(ann.path("drive")).expect("made");
    let may = Command::new("unshare").args(["--mount", "--map-root-user", "true"]).output();
    if may.as_ref().is_ok_and(|done| !done.status.success()) || may.is_err() {
        println!("SKIPPED: this machine permits no mount namespaces: {may:?}");
        return;
    }
    let peer = ann.command(&[]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", DETACHES]).arg(peer.get_program());
    command.current_dir(ann.path("")).stdin(Stdio::null());
    let done = command.envs(peer.get_envs().filter_map(|(name, value)| Some((name, value?)))).output();
    let done = done.expect("it runs");
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && out.contains("is intact"), "{done:?}");
}

#[test]
fn a_share_that_is_absent_at_the_start_is_shared_when_it_is_back() {
    let (_tracker, ann, bob, original) = scene();
    ann.ok(&["limit", "--up", "0"]);
    ann.ok(&["daemon", "stop"]);
    let away = ann.path("away");
    fs::rename(&original, &away).expect("moved");
    let shown = |peer: &Peer| peer.json("list-shares")["shares"][0].clone();
    wait_for("the share is missed", || shown(&ann)["cause"].as_str().map(str::to_owned));
    fs::rename(&away, &original).expect("moved back");
    wait_for("the share is back", || shown(&ann)["cause"].is_null().then_some(()));
    bob.ok(&["download", "g1", "data", "out/"]);
}

#[test]
fn a_download_whose_data_is_gone_waits_for_the_user() {
    let (_tracker, ann, bob, original) = scene();
    stops_midway(&bob);
    // What is left of a drive that is not attached is an empty directory.
    let (out, away) = (bob.path("out"), bob.path("away"));
    fs::rename(&out, &away).expect("moved");
    fs::create_dir(&out).expect("made");
    let why = cause(&bob);
    for words in
        ["not there any more", "peer resume-download g1 data", "peer stop-download g1 data --discard"]
    {
        assert!(why.contains(words), "{words}: {why}");
    }
    shows_what_was_done(&bob, 6 * MIB);
    // Asking again for it is not asking to fetch it all again.
    bob.fails(3, &["download", "g1", "data", "out/"]);
    assert_eq!(listed(&out), 0, "nothing was begun");
    bob.ok(&["daemon", "stop"]);
    assert!(cause(&bob).contains("not there any more"));
    shows_what_was_done(&bob, 6 * MIB);
    fs::remove_dir(&out).expect("empty");
    fs::rename(&away, &out).expect("moved back");
    let before = ann.uploaded("g1", "data");
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["resume-download", "g1", "data"]);
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &out.join("data"));
    assert!(ann.uploaded("g1", "data") - before < SIZE as u64, "what was there was used");
}

#[test]
fn a_download_whose_data_is_gone_after_a_crash_shows_what_was_noted() {
    let (_tracker, _ann, bob, _) = scene();
    bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 10 * MIB as u64);
    bob.kill_daemon();
    fs::remove_dir_all(bob.path("out")).expect("removed");
    assert!(cause(&bob).contains("peer stop-download g1 data --discard"));
    shows_what_was_done(&bob, MIB);
}

#[test]
fn a_download_whose_data_is_gone_can_be_given_up() {
    let (_tracker, ann, bob, original) = scene();
    stops_midway(&bob);
    fs::remove_dir_all(bob.path("out")).expect("removed");
    assert!(cause(&bob).contains("peer stop-download g1 data --discard"));
    bob.ok(&["stop-download", "g1", "data", "--discard"]);
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_same(&original, &bob.path("out/data"));
}

#[test]
fn a_directory_in_the_place_of_unfinished_data_is_set_aside() {
    for ending in [".part", ".state"] {
        let (_tracker, ann, bob, original) = scene();
        stops_midway(&bob);
        let parts = bob.path("out/.minitorrent");
        let found = fs::read_dir(&parts).expect("listed").flatten().map(|entry| entry.path());
        let place =
            found.into_iter().find(|path| path.to_string_lossy().ends_with(ending)).expect("it is there");
        fs::remove_file(&place).expect("removed");
        fs::create_dir(&place).expect("made");
        fs::write(place.join("precious"), "kept").expect("written");
        let why = cause(&bob);
        assert!(why.contains("peer stop-download g1 data --discard"), "{ending}: {why}");
        bob.ok(&["stop-download", "g1", "data", "--discard"]);
        ann.ok(&["limit", "--up", "0"]);
        bob.ok(&["download", "g1", "data", "out/"]);
        assert_same(&original, &bob.path("out/data"));
        let aside = format!("{}.aside-1/precious", place.display());
        assert_eq!(fs::read(aside).expect("it is there"), b"kept");
    }
}

#[test]
fn a_destination_that_is_renamed_midway_is_named_with_a_way_out() {
    let (_tracker, ann, bob, original) = scene();
    bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 4 * MIB as u64);
    let (out, away) = (bob.path("out"), bob.path("away"));
    fs::rename(&out, &away).expect("moved");
    ann.ok(&["limit", "--up", "0"]);
    let why = cause(&bob);
    assert!(why.contains("moved") && why.contains("peer resume-download g1 data"), "{why}");
    fs::rename(&away, &out).expect("moved back");
    bob.ok(&["resume-download", "g1", "data"]);
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &out.join("data"));
}

#[test]
fn a_copy_is_verified_whether_it_is_shared_or_not() {
    let (_tracker, ann, bob, _) = scene();
    bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 1);
    assert!(bob.fails(3, &["verify", "g1", "data"]).stderr.contains("not complete"));
    ann.ok(&["limit", "--up", "0"]);
    bob.waits_until_complete("g1", "data");
    bob.ok(&["stop-share", "g1", "data"]);
    bob.ok(&["verify", "g1", "data"]);
    let copy = bob.path("out/data");
    let mut bytes = fs::read(&copy).expect("it is there");
    bytes[MIB] ^= 1;
    fs::write(&copy, bytes).expect("written");
    assert_eq!(bob.fails(11, &["verify", "g1", "data", "--json"]).reason(), "FILE_CHANGED");
    fs::remove_file(&copy).expect("removed");
    let gone = bob.fails(3, &["verify", "g1", "data"]);
    assert!(gone.stderr.contains(&copy.display().to_string()), "{gone:?}");
}
