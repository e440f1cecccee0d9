//! Complete transfers of files.

use std::sync::atomic::Ordering;

use peer::engine::DownloadState;
use testkit::{
    content::{file_id, noise},
    node::{until, until_complete},
    world::World,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moves_from_one_peer_to_another() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(1, 5_000_000);
    let manifest = seeder.share(file_id(1), "movie.mp4", &data).await;
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    let end = until_complete(&mut view).await;
    assert_eq!(end.done_bytes, 5_000_000);
    assert_eq!(end.map, vec![255; 10]);
    assert!(end.had_source);
    let destination = leecher.destination(&manifest);
    assert_eq!(std::fs::read(&destination).unwrap(), data);
    assert!(!leecher.dir.path().join(".minitorrent").exists());
    // The leecher has become a seeder as well.
    let shares = leecher.engine.shares();
    assert_eq!((shares.len(), shares[0].done_bytes, shares[0].problem.clone()), (1, 5_000_000, None));
    assert_eq!(shares[0].stamp.unwrap().size(), 5_000_000);
    assert_eq!(seeder.engine.stats().uploaded_bytes, 5_000_000);
    assert_eq!(leecher.engine.stats().pieces_verified, 10);
    assert_eq!(leecher.tickets.issued.load(Ordering::SeqCst), 1);
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_and_tiny_files_move_as_well() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    for (number, length) in [(1, 0), (2, 1), (3, 524_287), (4, 524_288), (5, 524_289)] {
        let data = noise(number.into(), length);
        let manifest = seeder.share(file_id(number), &format!("f{number}"), &data).await;
        let mut spec = leecher.spec(file_id(number), &manifest);
        (spec.verify, spec.sequential) = (true, true);
        let mut view = leecher.engine.download(spec).await.unwrap();
        leecher.engine.sources(file_id(number), vec![seeder.source()], vec![]);
        until_complete(&mut view).await;
        assert_eq!(std::fs::read(leecher.destination(&manifest)).unwrap(), data);
    }
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_download_resumes_where_it_was() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(2, 40 * 524_288);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    leecher.engine.set_limits(None, Some(8 << 20));
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until(&mut view, |view| view.done_bytes >= 4 << 20).await;
    leecher.engine.stop(file_id(1), false).await.unwrap();
    let stopped = view.borrow().clone();
    assert_eq!(stopped.state, DownloadState::Stopped);
    assert!(leecher.engine.shares().is_empty());
    let before = leecher.engine.stats().pieces_verified;
    leecher.engine.set_limits(None, Some(0));
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until_complete(&mut view).await;
    assert_eq!(std::fs::read(leecher.destination(&manifest)).unwrap(), data);
    assert!(before >= 8, "{before}");
    assert_eq!(leecher.engine.stats().pieces_verified, 40, "no piece was fetched twice");
    seeder.end().await;
    leecher.end().await;
}
