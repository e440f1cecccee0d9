//! Faults of networks, trackers and keys in the middle of a transfer. Each peer is reached through a relay of
//! its own, which a test breaks or delays.

use std::{sync::atomic::Ordering, time::Duration};

use peer::engine::{DownloadState, SourceAddr};
use proto::{domain::FileId, reason::Reason};
use tokio::time::timeout;

use testkit::{
    content::{PIECE, file_id, noise},
    node::{Node, until, until_complete, until_final},
    relay::Relay,
    wait::eventually,
    world::World,
};

const FILE: u8 = 1;

fn file() -> FileId {
    file_id(FILE)
}

/// The peer at the end of this relay.
fn over(relay: &Relay, node: &Node) -> SourceAddr {
    SourceAddr { addresses: vec![relay.address()], ..node.source() }
}

fn content(node: &Node) -> Vec<u8> {
    std::fs::read(node.dir.path().join("f")).unwrap()
}

/// While the tracker is away, a transfer goes on until its ticket ends, then waits, and goes on when there
/// are tickets again.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_outlives_its_tickets_and_a_tracker_that_is_away() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(21, 24 * PIECE);
    let manifest = seeder.share(file(), "f", &data).await;
    seeder.engine.set_limits(Some(2 << 20), None);
    // Peers accept a ticket for a minute after its end, because clocks differ.
    leecher.tickets.life.store(3 - 60, Ordering::SeqCst);
    let mut view = leecher.download(file(), &manifest, &[&seeder]).await;
    until(&mut view, |view| view.done_bytes >= PIECE as u64).await;
    leecher.tickets.away.store(true, Ordering::SeqCst);
    let waiting = until(&mut view, |view| view.state == DownloadState::Stalled).await;
    assert!((PIECE..data.len()).contains(&(waiting.done_bytes as usize)), "{waiting:?}");
    assert!(waiting.problem.is_some(), "{waiting:?}");
    leecher.tickets.away.store(false, Ordering::SeqCst);
    let issued = leecher.tickets.issued.load(Ordering::SeqCst);
    // From here on, a new ticket is needed every few seconds.
    until_complete(&mut view).await;
    assert!(leecher.tickets.issued.load(Ordering::SeqCst) > issued);
    assert!(content(&leecher) == data);
    assert_eq!(leecher.engine.stats().pieces_verified, 24, "nothing was fetched twice");
    seeder.end().await;
    leecher.end().await;
}

/// alice and bob on one side, carol and dave on the other. Each side has a seeder.
#[tokio::test(flavor = "multi_thread")]
async fn both_halves_of_a_partition_go_on_and_finish_after_it() {
    let world = World::new();
    let (alice, bob) = (world.node("alice").await, world.node("bob").await);
    let (carol, dave) = (world.node("carol").await, world.node("dave").await);
    let data = noise(22, 32 * PIECE);
    let manifest = alice.share(file(), "f", &data).await;
    for node in [&alice, &bob, &carol, &dave] {
        node.engine.set_limits(Some(2 << 20), None);
    }
    let across: Vec<Relay> = [&alice, &bob, &carol, &dave].map(|node| Relay::to(&node.address)).into();
    let mut first = bob.download(file(), &manifest, &[&alice]).await;
    let mut views = Vec::new();
    for (node, sources) in [
        (&carol, [over(&across[0], &alice), over(&across[1], &bob), dave.source()]),
        (&dave, [over(&across[0], &alice), over(&across[1], &bob), carol.source()]),
    ] {
        let view = node.download(file(), &manifest, &[]).await;
        node.engine.sources(file(), sources.into(), vec![]);
        views.push(view);
    }
    // The other half has pieces that only one of the two has.
    for view in &mut views {
        until(view, |view| view.done_bytes >= 4 * PIECE as u64).await;
    }
    across.iter().for_each(Relay::take_down);
    // One half has all, and the other what it had: each goes on to where it can.
    until_complete(&mut first).await;
    let (one, other) = (carol.engine.clone(), dave.engine.clone());
    let done = |engine: &peer::engine::Engine| engine.shares()[0].done_bytes;
    eventually("the cut off half has shared what it has", async || {
        done(&one) == done(&other) && views.iter().all(|view| view.borrow().state == DownloadState::Stalled)
    })
    .await;
    assert!(done(&one) < data.len() as u64, "the partition came too late to prove anything");
    across.iter().for_each(Relay::mend);
    for view in &mut views {
        timeout(Duration::from_secs(45), until_complete(view)).await.expect("soon after the partition");
    }
    for node in [&bob, &carol, &dave] {
        assert!(content(node) == data);
    }
    for node in [alice, bob, carol, dave] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_and_uneven_delays_fetch_next_to_nothing_twice() {
    let world = World::new();
    let leecher = world.node("leecher").await;
    let data = noise(23, 128 * PIECE);
    let (mut seeders, mut sources) = (Vec::new(), Vec::new());
    for user in ["alice", "bob", "carol"] {
        let node = world.node(user).await;
        let manifest = node.share(file(), "f", &data).await;
        let relay = Relay::to(&node.address);
        relay.delay(Duration::from_millis(50));
        sources.push(over(&relay, &node));
        seeders.push((node, relay, manifest));
    }
    let mut view = leecher.download(file(), &seeders[0].2, &[]).await;
    leecher.engine.sources(file(), sources, vec![]);
    // Now and then a line stands still, until the others have gone on.
    for (at, (_, relay, _)) in seeders.iter().enumerate() {
        until(&mut view, |view| view.done_bytes >= (at + 1) as u64 * 24 * PIECE as u64).await;
        relay.hold();
        let then = view.borrow().done_bytes;
        until(&mut view, |view| view.done_bytes >= then + 8 * PIECE as u64).await;
        relay.mend();
    }
    until_complete(&mut view).await;
    assert!(content(&leecher) == data);
    let verified = leecher.engine.stats().pieces_verified;
    // A hundredth of the pieces, rounded up.
    assert!((128..=130).contains(&verified), "{verified} pieces were fetched for 128");
    for (node, _link, _) in seeders {
        node.end().await;
    }
    leecher.end().await;
}

/// Open files and sockets of this process.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_come_and_go_all_the_time_leave_nothing_open() {
    let world = World::new();
    let (seeders, leecher) =
        ([world.node("alice").await, world.node("bob").await], world.node("carol").await);
    let data = noise(24, 48 * PIECE);
    let mut manifests = Vec::new();
    for seeder in &seeders {
        manifests.push(seeder.share(file(), "f", &data).await);
        seeder.engine.set_limits(Some(4 << 20), None);
    }
    let relays = seeders.each_ref().map(|seeder| Relay::to(&seeder.address));
    let sources = || relays.iter().zip(&seeders).map(|(relay, seeder)| over(relay, seeder)).collect();
    let before = open_files();
    let mut view = leecher.download(file(), &manifests[0], &[]).await;
    for flap in 1..=20 {
        relays.iter().for_each(Relay::mend);
        leecher.engine.sources(file(), sources(), vec![]);
        let goal = (flap * 2 * PIECE as u64).min(data.len() as u64);
        until(&mut view, |view| view.done_bytes >= goal || view.state.is_final()).await;
        relays.iter().for_each(Relay::take_down);
    }
    relays.iter().for_each(Relay::mend);
    until_complete(&mut view).await;
    assert!(content(&leecher) == data);
    leecher.engine.unshare(file());
    // Other tests share this process only under `cargo test`, which tells more or less nothing then.
    eventually("what it opened is closed", async || open_files() <= before + 5).await;
    for node in seeders.into_iter().chain([leecher]) {
        node.end().await;
    }
}

/// A byte of the seeder's copy flips, and neither its size nor its times show it.
#[tokio::test(flavor = "multi_thread")]
async fn one_rotten_piece_is_refused_once_and_its_source_stays_in_use() {
    let world = World::new();
    let (rotten, honest, leecher) =
        (world.node("alice").await, world.node("bob").await, world.node("carol").await);
    let data = noise(25, 16 * PIECE);
    let manifest = honest.share(file(), "f", &data).await;
    let mut damaged = data.clone();
    damaged[5 * PIECE + 99] ^= 4;
    rotten.share_damaged(file(), &manifest, &damaged).await;
    let mut view = leecher.download(file(), &manifest, &[&rotten]).await;
    // All others come from it.
    until(&mut view, |view| view.done_bytes == 15 * PIECE as u64).await;
    let source = view.borrow().sources[0].clone();
    assert_eq!((source.bad_pieces, source.bytes), (1, 15 * PIECE as u64), "{source:?}");
    leecher.engine.sources(file(), vec![rotten.source(), honest.source()], vec![]);
    let end = until_complete(&mut view).await;
    assert!(content(&leecher) == data);
    let source = end.sources.iter().find(|source| source.peer == rotten.peer()).unwrap();
    assert_eq!(source.bad_pieces, 1, "{source:?}");
    assert_ne!(source.state, peer::engine::SourceState::Banned);
    for node in [rotten, honest, leecher] {
        node.end().await;
    }
}

/// A shared file is appended to, cut short, replaced, renamed or deleted while it is being sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_file_that_changes_in_any_way_is_served_no_more() {
    let changes: [fn(&std::path::Path); 5] = [
        |path| {
            use std::io::Write as _;
            std::fs::File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
        },
        |path| std::fs::File::options().write(true).open(path).unwrap().set_len(PIECE as u64).unwrap(),
        |path| {
            std::fs::write(path.with_extension("new"), vec![7; 64 * PIECE]).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        },
        |path| std::fs::rename(path, path.with_extension("old")).unwrap(),
        |path| std::fs::remove_file(path).unwrap(),
    ];
    for (which, change) in changes.into_iter().enumerate() {
        let world = World::new();
        let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
        let data = noise(26, 64 * PIECE);
        let manifest = seeder.share(file(), "f", &data).await;
        let other = seeder.share(file_id(2), "other", &noise(27, 2 * PIECE)).await;
        seeder.engine.set_limits(Some(1 << 20), None);
        let mut view = leecher.download(file(), &manifest, &[&seeder]).await;
        until(&mut view, |view| view.done_bytes > 0).await;
        change(&seeder.dir.path().join("f"));
        let withdrawn = async || seeder.engine.shares().into_iter().any(|share| share.problem.is_some());
        eventually("the file is not offered", withdrawn).await;
        eventually("nothing is sent", async || seeder.engine.stats().uploads_active == 0).await;
        let reason = seeder.engine.shares().into_iter().find_map(|share| share.problem).unwrap().reason;
        assert!(matches!(reason, Reason::FileChanged | Reason::PathNotFound), "change {which}: {reason:?}");
        let sent = seeder.engine.stats().uploaded_bytes;
        assert!(leecher.engine.stats().pieces_verified < 64 && sent < data.len() as u64, "change {which}");
        assert!(view.borrow().sources.iter().all(|source| source.bad_pieces == 0), "change {which}");
        // It still serves its other file.
        let mut view = leecher.engine.download(leecher.spec(file_id(2), &other)).await.unwrap();
        leecher.engine.sources(file_id(2), vec![seeder.source()], vec![]);
        until_complete(&mut view).await;
        seeder.end().await;
        leecher.end().await;
    }
}

/// The tracker signs with a new key in the middle of a transfer, and the old key ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_outlives_the_key_of_its_ticket() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(28, 24 * PIECE);
    let manifest = seeder.share(file(), "f", &data).await;
    seeder.engine.set_limits(Some(2 << 20), None);
    let mut view = leecher.download(file(), &manifest, &[&seeder]).await;
    until(&mut view, |view| view.done_bytes >= 2 * PIECE as u64).await;
    let (old, new) = (world.signer.verifying_key().clone(), world.next_signer.verifying_key().clone());
    seeder.engine.set_ticket_keys(vec![old, new.clone()]);
    leecher.tickets.uses_next_key.store(true, Ordering::SeqCst);
    let then = view.borrow().done_bytes;
    until(&mut view, |view| view.done_bytes >= then + 2 * PIECE as u64).await;
    assert_eq!(leecher.tickets.issued.load(Ordering::SeqCst), 1, "the old ticket is as good as before");
    // Tickets of the old key are over.
    seeder.engine.set_ticket_keys(vec![new]);
    let end = until_final(&mut view).await;
    assert_eq!(end.state, DownloadState::Complete, "{end:?}");
    assert_eq!(leecher.tickets.issued.load(Ordering::SeqCst), 2);
    assert!(content(&leecher) == data);
    seeder.end().await;
    leecher.end().await;
}

/// A link that is dead without a word: nothing is lost, and the cause says what is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_link_is_named_as_the_cause() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(31, 24 * PIECE);
    let manifest = seeder.share(file(), "f", &data).await;
    seeder.engine.set_limits(Some(2 << 20), None);
    let relay = Relay::to(&seeder.address);
    let mut view = leecher.download(file(), &manifest, &[]).await;
    leecher.engine.sources(file(), vec![over(&relay, &seeder)], vec![]);
    until(&mut view, |view| view.done_bytes >= 2 * PIECE as u64).await;
    relay.hold();
    let stalled = until(&mut view, |view| view.state == DownloadState::Stalled).await;
    let problem = stalled.problem.clone().unwrap();
    assert!(problem.message.starts_with("alice ") && problem.message.contains("link"), "{problem:?}");
    assert_eq!((stalled.rate, stalled.eta), (0, None));
    relay.mend();
    until_complete(&mut view).await;
    assert!(content(&leecher) == data);
    seeder.end().await;
    leecher.end().await;
}

/// A seeder whose clock is off serves nobody, and the downloader is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_at_the_source_is_named_as_the_cause() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(32, 3 * PIECE);
    let manifest = seeder.share(file(), "f", &data).await;
    seeder.engine.set_clock_offset(3_600);
    let mut view = leecher.download(file(), &manifest, &[&seeder]).await;
    let stalled = until(&mut view, |view| view.state == DownloadState::Stalled).await;
    let problem = stalled.problem.clone().unwrap();
    assert!(problem.message.starts_with("alice") && problem.message.contains("clock"), "{problem:?}");
    assert_eq!((stalled.rate, stalled.eta), (0, None));
    seeder.engine.set_clock_offset(0);
    until_complete(&mut view).await;
    assert!(content(&leecher) == data);
    seeder.end().await;
    leecher.end().await;
}
