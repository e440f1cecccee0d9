//! Several peers at once.

use crate::support::{MIB, Tracker, assert_in, assert_same, wait_for};

#[test]
fn three_seeders_each_give_a_fair_share() {
    let tracker = Tracker::start();
    let limit = [("PEER_UPLOAD_LIMIT", "6MiB")];
    let seeders = ["ann", "bob", "cat"].map(|name| tracker.user_with(name, &limit));
    let leecher = tracker.user("dan");
    tracker.group("g1", &[&seeders[0], &seeders[1], &seeders[2], &leecher]);
    let original = seeders[0].shares("g1", "data", 36 * MIB, 4);
    seeders[1].seeds_copy("g1", &original);
    seeders[2].seeds_copy("g1", &original);

    let copy = leecher.starts("g1", "data");
    let done = leecher.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    let sources = done["sources"].as_array().expect("a list");
    let bytes: Vec<u64> = sources.iter().filter_map(|source| source["bytes"].as_u64()).collect();
    assert_eq!(bytes.len(), 3, "{done}");
    let whole = 36 * MIB as u64;
    assert_eq!(bytes.iter().sum::<u64>(), whole, "{done}");
    for share in bytes {
        assert_in(share, whole / 6..=whole / 2, "a third is fair");
    }
}

#[test]
fn a_leecher_serves_before_it_is_complete() {
    let tracker = Tracker::start();
    let seeder = tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "3MiB")]);
    let (second, third) = (tracker.user("bob"), tracker.user("cat"));
    tracker.group("g1", &[&seeder, &second, &third]);
    let original = seeder.shares("g1", "data", 24 * MIB, 5);
    let copies = [second.starts("g1", "data"), third.starts("g1", "data")];

    // Counts the bytes that the third got from the second while the second is incomplete.
    wait_for("the second gives to the third", || {
        let third = third.download("g1", "data")?;
        let second = second.download("g1", "data")?;
        let sources = third["sources"].as_array()?;
        let given = sources.iter().find(|source| source["user"] == "bob")?["bytes"].as_u64()?;
        assert!(given > 0 || second["state"] != "complete", "it completed before it gave anything");
        (given > 0 && second["state"] != "complete").then_some(())
    });
    second.waits_until_complete("g1", "data");
    third.waits_until_complete("g1", "data");
    for copy in copies {
        assert_same(&original, &copy);
    }
    let sent = seeder.uploaded("g1", "data");
    assert!(sent < 44 * MIB as u64, "the seeder sent {sent} bytes: the leechers spared it nothing");
}

#[test]
fn twenty_files_at_once() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    let names: Vec<String> = (0..20).map(|n| format!("file-{n}")).collect();
    let originals: Vec<_> = names
        .iter()
        .zip(1..)
        .map(|(name, seed)| ann.shares("g1", name, MIB + 1_000 * seed as usize, seed))
        .collect();
    let copies: Vec<_> = names.iter().map(|name| bob.starts("g1", name)).collect();
    for name in &names {
        bob.waits_until_complete("g1", name);
    }
    for (original, copy) in originals.iter().zip(&copies) {
        assert_same(original, copy);
    }
}
