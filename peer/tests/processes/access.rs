//! Access to files, as seen from outside.

use std::time::{Duration, Instant};

use crate::support::{MIB, Tracker, wait_within};

/// The tracker's promise: the time within which a right ends at a peer that it can reach.
const PROMISE: Duration = Duration::from_secs(15);

#[test]
fn a_removed_member_gets_no_more_bytes() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "2MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 96 * MIB, 12);
    let copy = bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 2 * MIB as u64);
    ann.ok(&["remove-member", "g1", "bob"]);
    let removed = Instant::now();
    let mut last = (ann.uploaded("g1", "data"), Instant::now());
    let still = wait_within(PROMISE, "the bytes stop", &mut || {
        let sent = ann.uploaded("g1", "data");
        if sent != last.0 {
            last = (sent, Instant::now());
        }
        // At 2 MiB a second a piece takes a quarter of a second. So two seconds without a byte mean that the
        // transfer has ended.
        (last.1.elapsed() > Duration::from_secs(2)).then_some(sent)
    });
    println!("bytes flowed for {:?} after the removal", last.1.duration_since(removed));
    assert!(still < 96 * MIB as u64);
    assert!(!copy.exists());
    bob.fails(5, &["list-files", "g1"]);
    bob.ok(&["stop-download", "g1", "data", "--discard"]);
    bob.fails(5, &["download", "g1", "data", "out/"]);
}

#[test]
fn an_outsider_learns_nothing() {
    let tracker = Tracker::start();
    let (ann, eve) = (tracker.user("ann"), tracker.user("eve"));
    ann.ok(&["create-group", "g1"]);
    ann.shares("g1", "data", MIB, 13);
    let there = eve.fails(5, &["download", "g1", "data", "out/"]);
    let not_there = eve.fails(5, &["download", "g1", "nothing", "out/"]);
    let no_group = eve.fails(5, &["download", "g2", "data", "out/"]);
    let words = |text: &str| text.replace("g2", "g1").replace("nothing", "data");
    assert_eq!(words(&there.stderr), words(&not_there.stderr));
    assert_eq!(words(&there.stderr), words(&no_group.stderr));
}
