//! Faults: processes die, files change, the tracker goes away.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use testkit::relay::Relay;

use crate::support::{MIB, Tracker, assert_same, peer::signal_process, wait_for};

const SLOW: [(&str, &str); 1] = [("PEER_UPLOAD_LIMIT", "3MiB")];

#[test]
fn a_leecher_killed_midway_resumes_where_it_was() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let size = 18 * MIB;
    let original = ann.shares("g1", "data", size, 6);
    let copy = bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 6 * MIB as u64);
    bob.kill_daemon();
    assert!(!copy.exists(), "nothing unfinished under the final name");

    bob.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    let sent = ann.uploaded("g1", "data");
    // Data that was on its way when the leecher died is sent again. The 6 MiB that were verified are not.
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
    // The transfer continues without the tracker.
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

#[test]
fn twenty_downloads_outlive_a_tracker_that_is_stopped_and_started() {
    let mut tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let names: Vec<String> = (0..20).map(|n| format!("file-{n}")).collect();
    let files: Vec<_> = names
        .iter()
        .zip(1..)
        .map(|(name, seed)| {
            (ann.shares("g1", name, MIB + 1_000 * seed as usize, seed), bob.starts("g1", name))
        })
        .collect();
    let unfinished = || {
        let shown = bob.json("show-downloads");
        let downloads = shown["downloads"].as_array().expect("a list").clone();
        assert!(downloads.iter().all(|download| download["state"] != "failed"), "{shown}");
        downloads.iter().filter(|download| download["state"] != "complete").count()
    };
    let before = unfinished();
    assert!(before > 10, "{before} were left when the tracker was told to stop");
    let ended = tracker.end("TERM");
    assert!(
        ended.status.success() && ended.took < Duration::from_secs(10),
        "{} {:?}",
        ended.status,
        ended.took
    );
    wait_for("some more arrive without the tracker", || (unfinished() + 2 < before).then_some(()));
    tracker.start_again();
    wait_for("all arrive", || (unfinished() == 0).then_some(()));
    for (original, copy) in &files {
        assert_same(original, copy);
    }
    wait_for("both announce all files to the new one", || {
        let listed = bob.run(&["list-files", "g1", "--json"]);
        let files = (listed.code == 0).then(|| listed.json()["files"].as_array().cloned())??;
        files.iter().all(|file| file["seeders"] == 2).then_some(())
    });
}

#[test]
fn a_call_whose_answer_is_lost_ends_in_time_and_has_one_effect() {
    let tracker = Tracker::start();
    let relay = Relay::to(&tracker.address().to_string());
    let (ann, bob) = (tracker.user("ann"), tracker.user_with("bob", &[("PEER_TRACKER", &relay.url())]));
    ann.ok(&["create-group", "g1"]);
    bob.ok(&["list-groups"]);
    relay.hold_answers();
    let lost = bob.run(&["join-group", "g1"]);
    assert!([7, 124].contains(&lost.code) && lost.took < Duration::from_secs(40), "{lost:?}");
    let asked = || ann.json("list-requests g1")["requests"].as_array().expect("a list").len();
    wait_for("the request got through", || (asked() == 1).then_some(()));
    relay.mend();
    wait_for("the tracker is reached again", || (bob.run(&["list-groups"]).code == 0).then_some(()));
    let again = bob.run(&["join-group", "g1"]);
    assert!([0, 6].contains(&again.code), "{again:?}");
    assert_eq!(asked(), 1, "one request, though it was made twice");
    ann.ok(&["accept-request", "g1", "bob"]);
    bob.ok(&["list-members", "g1"]);
}

#[test]
fn a_seeder_that_is_frozen_is_left_for_another_and_takes_part_again() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user_with("bob", &SLOW));
    let (cat, dan) = (tracker.user("cat"), tracker.user("dan"));
    tracker.group("g1", &[&ann, &bob, &cat, &dan]);
    let original = ann.shares("g1", "data", 12 * MIB, 12);
    bob.seeds_copy("g1", &original);
    let copy = cat.starts("g1", "data");
    cat.waits_until_midway("g1", "data", 3 * MIB as u64);
    let frozen = ann.daemon_pid().expect("a daemon runs");
    signal_process(frozen, Signal::STOP);
    cat.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    signal_process(frozen, Signal::CONT);
    bob.ok(&["stop-share", "g1", "data"]);
    cat.ok(&["stop-share", "g1", "data"]);
    let copy = dan.starts("g1", "data");
    dan.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
}

#[test]
fn a_leecher_that_was_frozen_shows_no_time_that_is_computed_over_the_gap() {
    /// Longer than a pause that counts as one.
    const FROZEN: Duration = Duration::from_secs(4);
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &SLOW), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", 40 * MIB, 13);
    let copy = bob.starts("g1", "data");
    let estimate = || {
        let shown = bob.download("g1", "data")?;
        shown["eta_seconds"].as_u64()
    };
    wait_for("there is an estimate", estimate);
    let frozen = bob.daemon_pid().expect("a daemon runs");
    signal_process(frozen, Signal::STOP);
    let began = Instant::now();
    wait_for("some time passes", || (began.elapsed() > FROZEN).then_some(()));
    signal_process(frozen, Signal::CONT);
    wait_for("the gap is noticed", || {
        let shown = bob.download("g1", "data")?;
        assert!(shown["eta_seconds"].as_u64().is_none_or(|eta| eta < 600), "{shown}");
        shown["eta_seconds"].is_null().then_some(())
    });
    let eta = wait_for("there is an estimate again", estimate);
    assert!(eta < 60, "{eta} s for what takes some seconds");
    ann.ok(&["limit", "--up", "0"]);
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
}
