//! A peer that leaves is forgotten at once, and what is said to be complete is shared.

use std::time::{Duration, Instant};

use crate::support::{MIB, Peer, Tracker, wait_within};

/// Far less than the lease of 30 seconds, after which the tracker forgets a silent peer.
const SOON: Duration = Duration::from_secs(8);

/// Waits until the tracker counts that many seeders.
fn waits_for_seeders(asker: &Peer, name: &str, seeders: u64) {
    wait_within(SOON, &format!("{seeders} seeders of {name}"), &mut || {
        let listed = asker.json("list-files g1");
        let files = listed["files"].as_array().expect("a list");
        let file = files.iter().find(|file| file["name"] == name).expect("it is listed");
        (file["seeders"] == seeders).then_some(())
    });
}

#[test]
fn a_peer_that_leaves_is_no_seeder_any_more() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let original = ann.shares("g1", "data", MIB, 1);
    bob.seeds_copy("g1", &original);
    for (leave, back) in [
        (&["stop-share", "g1", "data"][..], &["upload", "data", "g1"][..]),
        (&["daemon", "stop"], &["whoami"]),
    ] {
        waits_for_seeders(&ann, "data", 2);
        bob.ok(leave);
        waits_for_seeders(&ann, "data", 1);
        bob.ok(back);
    }
    waits_for_seeders(&ann, "data", 2);
    bob.ok(&["logout"]);
    waits_for_seeders(&ann, "data", 1);
}

#[test]
fn a_tracker_that_is_suspended_does_not_hold_up_a_daemon_that_ends() {
    let mut tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["create-group", "g1"]);
    ann.shares("g1", "data", MIB, 1);
    tracker.kill();
    let started = Instant::now();
    ann.ok(&["daemon", "stop"]);
    assert!(started.elapsed() < SOON);
}

#[test]
fn complete_means_shared() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    for round in 0..25 {
        let name = format!("f{round}");
        ann.shares("g1", &name, 1_000, round);
        bob.ok(&["download", "g1", &name, "out/"]);
        bob.ok(&["stop-share", "g1", &name]);
    }
}

#[test]
fn a_file_whose_sharing_was_stopped_is_shared_again_from_the_right_place() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 1);
    let shared_from = |place: &str| {
        let shares = bob.json("list-shares")["shares"].clone();
        assert_eq!(shares.as_array().map(Vec::len), Some(1), "{shares}");
        assert_eq!(shares[0]["path"], bob.path(place).display().to_string());
        assert!(shares[0]["cause"].is_null() || shares[0]["cause"] == "", "{shares}");
        let shown = bob.download("g1", "data").expect("it is shown");
        assert_eq!(shown["destination"], bob.path(place).display().to_string());
        waits_for_seeders(&ann, "data", 2);
    };
    bob.ok(&["download", "g1", "data", "first/"]);
    shared_from("first/data");
    // In the same place, at another one, and at another one where the file is already.
    for place in ["first/", "second/", "first/"] {
        bob.ok(&["stop-share", "g1", "data"]);
        waits_for_seeders(&ann, "data", 1);
        bob.ok(&["download", "g1", "data", place]);
        shared_from(&format!("{place}data"));
    }
}

#[test]
fn the_shares_of_one_who_is_a_member_again_come_back() {
    let tracker = Tracker::start();
    let (ann, bob, eve) = (tracker.user("ann"), tracker.user("bob"), tracker.user("eve"));
    tracker.group("g1", &[&ann, &bob, &eve]);
    let original = ann.shares("g1", "data", MIB, 1);
    bob.seeds_copy("g1", &original);
    bob.shares("g1", "own", MIB, 2);
    let causes = |left: bool| {
        wait_within(SOON, &format!("left: {left}"), &mut || {
            let shares = bob.json("list-shares")["shares"].as_array().expect("a list").clone();
            assert_eq!(shares.len(), 2, "{shares:?}");
            let out = |share: &serde_json::Value| {
                share["cause"].as_str().is_some_and(|cause| cause.contains("not a member"))
            };
            shares.iter().all(|share| out(share) == left).then_some(())
        });
    };
    for leave in [true, false] {
        match leave {
            true => bob.ok(&["leave-group", "g1"]),
            false => ann.ok(&["remove-member", "g1", "bob"]),
        };
        causes(true);
        waits_for_seeders(&ann, "data", 1);
        bob.ok(&["join-group", "g1"]);
        ann.ok(&["accept-request", "g1", "bob"]);
        causes(false);
        waits_for_seeders(&ann, "data", 2);
        waits_for_seeders(&ann, "own", 1);
    }
    // He serves again, and nobody else could.
    eve.ok(&["download", "g1", "own", "out/"]);
}
