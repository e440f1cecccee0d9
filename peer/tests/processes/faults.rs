//! Bad luck: processes die, files change, the tracker goes away.

use crate::support::{MIB, Tracker, assert_same, wait_for};

const SLOW: [(&str, &str); 1] = [("PEER_UPLOAD_LIMIT", "3MiB")];

#[test]
fn a_leecher_killed_midway_goes_on_where_it_was() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let size = 18 * MIB;
    let original = ann.shares("g1", "data", size, 6);
    let copy = bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 6 * MIB as u64);
    bob.kill_daemon();
    assert!(!copy.exists(), "nothing unfinished under the final name");

    let resumed = wait_for("the download is taken up again", || {
        let download = bob.download("g1", "data")?;
        Some(download["done_bytes"].as_u64()?).filter(|bytes| *bytes > 0)
    });
    assert!(resumed >= 6 * MIB as u64, "only {resumed} bytes were kept");
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    let sent = ann.uploaded("g1", "data");
    // What was on its way when the leecher died comes again; what was verified does not.
    let most = (size + 5 * MIB) as u64;
    assert!(sent <= most, "{sent} bytes were sent for a file of {size}");
}

#[test]
fn a_seeder_killed_midway_is_replaced() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user_with("bob", &SLOW));
    let cat = tracker.user("cat");
    tracker.group("g1", &[&ann, &bob, &cat]);
    let original = ann.shares("g1", "data", 18 * MIB, 7);
    bob.seeds_copy("g1", &original);
    let copy = cat.starts("g1", "data");
    cat.waits_until_midway("g1", "data", 4 * MIB as u64);
    ann.kill_daemon();
    cat.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
}

#[test]
fn a_tracker_restarted_midway_fails_no_download() {
    let mut tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", 18 * MIB, 8);
    let copy = bob.starts("g1", "data");
    let before = bob.waits_until_midway("g1", "data", 3 * MIB as u64);
    tracker.kill();
    // The bytes go on without it.
    bob.waits_until_midway("g1", "data", before + 4 * MIB as u64);
    bob.fails(7, &["list-files", "g1", "--timeout", "5"]);
    tracker.start_again();
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    wait_for("both announce to the new one", || {
        let files = bob.run(&["list-files", "g1", "--json"]);
        (files.code == 0 && files.json()["files"][0]["seeders"] == 2).then_some(())
    });
}

#[test]
fn a_file_altered_under_its_seeder_is_not_offered() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user_with("bob", &SLOW));
    let cat = tracker.user("cat");
    tracker.group("g1", &[&ann, &bob, &cat]);
    let original = ann.shares("g1", "data", 12 * MIB, 9);
    let altered = bob.seeds_copy("g1", &original);
    crate::support::make_file(&altered, 12 * MIB, 10);
    let copy = cat.starts("g1", "data");
    cat.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    wait_for("its seeder says why", || {
        let shares = bob.ok(&["list-shares", "--json"]).json();
        shares["shares"][0]["cause"].as_str().is_some_and(|cause| !cause.is_empty()).then_some(())
    });
}

#[test]
fn stop_keeps_and_discard_deletes() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", 12 * MIB, 11);
    let copy = bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 2 * MIB as u64);
    bob.ok(&["stop-download", "g1", "data"]);
    let stopped = bob.download("g1", "data").expect("it is shown");
    assert_eq!(stopped["state"], "stopped");
    let kept = stopped["done_bytes"].as_u64().expect("a number");
    assert!(kept >= 2 * MIB as u64);
    bob.ok(&["resume-download", "g1", "data"]);
    bob.waits_until_midway("g1", "data", kept);
    bob.ok(&["stop-download", "g1", "data", "--discard"]);
    assert!(!bob.path("out/.minitorrent").exists(), "discarded");
    assert!(bob.download("g1", "data").is_none());
    bob.ok(&["download", "g1", "data", "out/"]);
    assert_same(&original, &copy);
}

#[test]
fn two_daemons_do_not_share_a_home() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let second = ann.run(&["daemon"]);
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("daemon"), "{second:?}");
    ann.ok(&["whoami"]);
}
