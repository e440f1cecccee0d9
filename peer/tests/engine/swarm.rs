//! Several sources, several leechers.

use peer::engine::SourceState;
use peer_core::announce::Held;
use testkit::{
    content::{PIECE, file_id, noise},
    node::{until, until_complete, until_final},
    wait::eventually,
    world::World,
};

#[tokio::test(flavor = "multi_thread")]
async fn three_seeders_each_give_a_fair_share() {
    let world = World::new();
    let (a, b, c) = (world.node("a-user").await, world.node("b-user").await, world.node("c-user").await);
    let leecher = world.node("leecher").await;
    let data = noise(3, 96 * PIECE + 17);
    let manifest = a.share(file_id(1), "f", &data).await;
    for other in [&b, &c] {
        other.share(file_id(1), "f", &data).await;
    }
    // The uplinks are equal, so equal shares are fair.
    for seeder in [&a, &b, &c] {
        seeder.engine.set_limits(Some(6 << 20), None);
    }
    let mut view = leecher.download(file_id(1), &manifest, &[&a, &b, &c]).await;
    let end = until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    assert_eq!(end.sources.len(), 3);
    let total: u64 = end.sources.iter().map(|source| source.bytes).sum();
    assert_eq!(total, data.len() as u64);
    for source in &end.sources {
        let share = source.bytes as f64 / total as f64;
        assert!((0.15..0.55).contains(&share), "a source gave {share:.2} of the file: {:?}", end.sources);
    }
    // The data that was sent twice is bounded, because nothing is sent twice outside the endgame.
    let sent: u64 = [&a, &b, &c].iter().map(|seeder| seeder.engine.stats().uploaded_bytes).sum();
    assert!(sent as f64 <= total as f64 * 1.15, "{sent} bytes were sent of a file of {total}");
    for node in [a, b, c, leecher] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leecher_serves_what_it_has_before_it_is_complete() {
    let world = World::new();
    let (seeder, first, second) =
        (world.node("alice").await, world.node("bob").await, world.node("carol").await);
    let data = noise(4, 24 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    seeder.engine.set_limits(Some(4 << 20), None);
    let mut holdings = first.engine.holdings();
    let mut middle = first.download(file_id(1), &manifest, &[&seeder]).await;
    // The announcer gets nothing or little at first, and everything at the end.
    let mut told = holdings.next().await.remove(0);
    assert!(told.wants_sources && matches!(told.what, Held::Bitfield(_)));
    until(&mut middle, |view| view.done_bytes >= 2 * PIECE as u64).await;
    // The third peer knows only the second, which is far from complete.
    let mut last = second.download(file_id(1), &manifest, &[&first]).await;
    let begun = until(&mut last, |view| view.done_bytes > 0).await;
    assert!(begun.done_bytes < data.len() as u64);
    assert!(!middle.borrow().state.is_final(), "the second had to be incomplete for this to prove anything");
    until_complete(&mut last).await;
    until_complete(&mut middle).await;
    assert!(std::fs::read(second.destination(&manifest)).unwrap() == data);
    assert!(first.engine.stats().uploaded_bytes >= data.len() as u64);
    while told.wants_sources {
        told = holdings.next().await.remove(0);
    }
    assert_eq!(told.what, Held::Complete);
    for node in [seeder, first, second] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_that_vanishes_midway_is_replaced_by_one_that_comes() {
    let world = World::new();
    let (first, second, leecher) =
        (world.node("alice").await, world.node("bob").await, world.node("carol").await);
    let data = noise(5, 32 * PIECE);
    let manifest = first.share(file_id(1), "f", &data).await;
    second.share(file_id(1), "f", &data).await;
    first.engine.set_limits(Some(8 << 20), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&first]).await;
    until(&mut view, |view| view.done_bytes >= 4 * PIECE as u64).await;
    let _dir = first.vanish();
    leecher.engine.sources(file_id(1), vec![second.source()], vec![]);
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    second.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_files_at_once_from_one_peer() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let mut views = Vec::new();
    for number in 1..=20 {
        let data = noise(number.into(), 3 * PIECE + usize::from(number));
        let manifest = seeder.share(file_id(number), &format!("f{number}"), &data).await;
        let view = leecher.download(file_id(number), &manifest, &[&seeder]).await;
        views.push((view, manifest, data));
    }
    for (view, manifest, data) in &mut views {
        until_complete(view).await;
        assert!(std::fs::read(leecher.destination(manifest)).unwrap() == *data);
    }
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_altered_on_disk_is_withdrawn_and_downloaded_from_another() {
    let world = World::new();
    let (altered, honest, leecher) =
        (world.node("alice").await, world.node("bob").await, world.node("carol").await);
    let data = noise(6, 24 * PIECE);
    let manifest = altered.share(file_id(1), "f", &data).await;
    honest.share(file_id(1), "f", &data).await;
    altered.engine.set_limits(Some(4 << 20), None);
    honest.engine.set_limits(Some(4 << 20), None);
    let mut holdings = altered.engine.holdings();
    assert_eq!(holdings.next().await[0].what, Held::Complete);
    let mut view = leecher.download(file_id(1), &manifest, &[&altered, &honest]).await;
    until(&mut view, |view| view.done_bytes >= 4 * PIECE as u64).await;
    let path = altered.dir.path().join("f");
    let mut other = data.clone();
    other[10 * PIECE..].reverse();
    std::fs::write(&path, &other).unwrap();
    assert_eq!(holdings.next().await[0].what, Held::Left);
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    eventually("the share is marked as changed", async || {
        let problem = altered.engine.shares()[0].problem.clone();
        problem.is_some_and(|problem| problem.reason == proto::reason::Reason::FileChanged)
    })
    .await;
    // When the content is right again, the file is offered again.
    std::fs::write(&path, &data).unwrap();
    assert_eq!(holdings.next().await[0].what, Held::Complete);
    assert_eq!(altered.engine.shares()[0].problem, None);
    // When the file is deleted, it is withdrawn without any request for it.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(holdings.next().await[0].what, Held::Left);
    for node in [altered, honest, leecher] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_and_leaving_ends_everything() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(7, 16 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    seeder.engine.set_limits(Some(1 << 20), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until(&mut view, |view| view.sources.iter().any(|source| source.state == SourceState::Sending)).await;
    leecher.engine.stop(file_id(1), true).await.unwrap();
    assert_eq!(until_final(&mut view).await.state, peer::engine::DownloadState::Stopped);
    assert_eq!(std::fs::read_dir(leecher.dir.path()).unwrap().count(), 0);
    eventually("the slot is free", async || seeder.engine.stats().uploads_active == 0).await;
    // After a logout nothing is shared. A new download works after the next login.
    leecher.engine.clear().await;
    seeder.engine.clear().await;
    assert!(seeder.engine.shares().is_empty());
    seeder.share(file_id(1), "f", &data).await;
    seeder.engine.set_limits(Some(0), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until_complete(&mut view).await;
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_eight_peers_gets_about_as_much_as_one_with_one() {
    let world = World::new();
    let seeder = world.node("alice").await;
    seeder.engine.set_limits(Some(4 << 20), None);
    let data = noise(18, 32 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    let mut greedy = Vec::new();
    for _ in 0..8 {
        let peer = world.node("bob").await;
        peer.download(file_id(1), &manifest, &[&seeder]).await;
        greedy.push(peer);
    }
    let modest = world.node("carol").await;
    let mut view = modest.download(file_id(1), &manifest, &[&seeder]).await;
    let before: u64 = greedy.iter().map(|peer| peer.engine.stats().downloaded_bytes).sum();
    let own = until(&mut view, |view| view.done_bytes >= 12 * PIECE as u64).await.done_bytes;
    let all: u64 = greedy.iter().map(|peer| peer.engine.stats().downloaded_bytes).sum();
    let theirs = all - before;
    assert!(
        own <= 2 * theirs && theirs <= 2 * own,
        "one peer got {own} bytes, the other user's eight {theirs}"
    );
    for node in greedy.into_iter().chain([seeder, modest]) {
        node.end().await;
    }
}
