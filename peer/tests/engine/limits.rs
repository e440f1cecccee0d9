//! The download limit, and how much the seeders send under it.

use testkit::{
    content::{PIECE, file_id, noise},
    node::{until, until_complete},
    world::World,
};

/// Returns the bytes that `seeders` seeders handed to their connections for a file of `pieces` pieces,
/// downloaded at `rate` bytes a second, and the file's length.
async fn sent_for(pieces: usize, seeders: usize, rate: u64) -> (u64, u64) {
    let world = World::new();
    let data = noise(1, pieces * PIECE - 7);
    let mut nodes = Vec::new();
    for number in 0..seeders {
        nodes.push(world.node(&format!("seeder-{number}")).await);
    }
    let manifest = nodes[0].share(file_id(1), "f", &data).await;
    for other in &nodes[1..] {
        other.share(file_id(1), "f", &data).await;
    }
    let leecher = world.node("leecher").await;
    leecher.engine.set_limits(None, Some(rate));
    let sources: Vec<_> = nodes.iter().collect();
    let mut view = leecher.download(file_id(1), &manifest, &sources).await;
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    let sent = nodes.iter().map(|node| node.engine.stats().uploaded_bytes).sum();
    for node in nodes {
        node.end().await;
    }
    leecher.end().await;
    (sent, data.len() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_limit_nothing_is_sent_twice_by_two_seeders() {
    let (sent, needed) = sent_for(6, 2, 1 << 20).await;
    assert!(sent as f64 <= needed as f64 * 1.02, "{sent} bytes were sent for {needed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_limit_nothing_is_sent_twice_by_eight_seeders() {
    let (sent, needed) = sent_for(20, 8, 3 << 20).await;
    assert!(sent as f64 <= needed as f64 * 1.02, "{sent} bytes were sent for {needed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_limit_a_seeder_sends_no_more_than_about_a_second_ahead() {
    let world = World::new();
    let data = noise(2, 24 * PIECE);
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    let rate = 1 << 20;
    leecher.engine.set_limits(None, Some(rate));
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    for pieces in 1..=3 {
        let done = until(&mut view, |view| view.done_bytes >= (pieces * PIECE) as u64).await.done_bytes;
        let ahead = seeder.engine.stats().uploaded_bytes.saturating_sub(done);
        // The bound is a second at the rate, plus the incomplete piece and what waits in the seeder.
        assert!(ahead <= rate + 2 * PIECE as u64, "{ahead} bytes were sent ahead");
    }
    leecher.engine.set_limits(None, Some(0));
    until_complete(&mut view).await;
    seeder.end().await;
    leecher.end().await;
}
