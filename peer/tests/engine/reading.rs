//! Reading a file while it arrives.

use std::fs::{File, FileTimes};

use peer::engine::{Engine, EngineConfig, EngineError, Reader};
use proto::{domain::FileId, reason::Reason};
use testkit::{
    content::{PIECE, file_id, noise},
    node::{until, until_complete},
    wait::PATIENCE,
    world::World,
};
use tokio::time::timeout;

/// Reads up to the end.
async fn all(mut reader: Reader) -> Result<Vec<u8>, EngineError> {
    let mut read = Vec::new();
    while let Some(bytes) = timeout(PATIENCE, reader.next()).await.expect("the bytes come")? {
        assert!(!bytes.is_empty());
        read.extend_from_slice(&bytes);
    }
    Ok(read)
}

fn whole(engine: &Engine, file: FileId) -> Reader {
    engine.read(file, 0..u64::MAX).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_read_before_the_whole_is_there() {
    let world = World::new();
    let slow = EngineConfig { upload_limit: 4 << 20, ..EngineConfig::default() };
    let (seeder, leecher) = (world.node_with("alice", slow, None).await, world.node("bob").await);
    let data = noise(1, 40 * PIECE + 5);
    let manifest = seeder.share(file_id(1), "movie.mp4", &data).await;
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    // Far away first: a reader that goes elsewhere does not wait for what lies between.
    let mut far = leecher.engine.read(file_id(1), 32 * PIECE as u64 + 7..33 * PIECE as u64).unwrap();
    let bytes = timeout(PATIENCE, far.next()).await.unwrap().unwrap().expect("bytes");
    assert!(bytes == data[32 * PIECE + 7..33 * PIECE]);
    assert_eq!(far.next().await.unwrap(), None);
    let done = view.borrow().done_bytes;
    assert!(done < 12 * PIECE as u64, "{done} bytes had to come first");

    // All of it, while it arrives, by two readers.
    let (engine, other) = (leecher.engine.clone(), leecher.engine.clone());
    let (one, two) = tokio::join!(
        all(whole(&engine, file_id(1))),
        all(other.read(file_id(1), 20 * PIECE as u64..u64::MAX).unwrap())
    );
    assert!(one.unwrap() == data && two.unwrap() == data[20 * PIECE..]);
    // Half of the pieces were fetched for the readers at most, and no piece was fetched twice.
    until_complete(&mut view).await;
    assert_eq!(leecher.engine.stats().pieces_verified, 41);
    assert!(all(whole(&leecher.engine, file_id(1))).await.unwrap() == data);
    assert!(all(whole(&seeder.engine, file_id(1))).await.unwrap() == data);
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_changed_on_disk_is_not_read() {
    let world = World::new();
    let node = world.node("alice").await;
    let data = noise(3, 3 * PIECE);
    node.share(file_id(1), "f", &data).await;
    let path = node.dir.path().join("f");
    let mut reader = whole(&node.engine, file_id(1));
    assert!(reader.next().await.unwrap().unwrap() == data[..PIECE]);
    // One bit flips, and neither length nor time change.
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut damaged = data.clone();
    damaged[PIECE + 9] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(modified))
        .unwrap();
    let error = reader.next().await.expect_err("it is not what it was");
    assert_eq!(error.reason(), Reason::FileChanged, "{error}");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_ends_with_the_download() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    assert!(matches!(leecher.engine.read(file_id(1), 0..1), Err(EngineError::Unknown)));
    let manifest = seeder.share(file_id(1), "f", &noise(4, 8 * PIECE)).await;
    // Nobody is named who has it.
    let mut view = leecher.download(file_id(1), &manifest, &[]).await;
    until(&mut view, |view| view.missing > 0 || view.state.is_final()).await;
    let (engine, stopped) = (leecher.engine.clone(), leecher.engine.clone());
    let reading = tokio::spawn(async move { all(whole(&engine, file_id(1))).await });
    let nothing = all(leecher.engine.read(file_id(1), 5..5).unwrap()).await.unwrap();
    assert!(nothing.is_empty());
    stopped.stop(file_id(1), false).await.unwrap();
    let error = timeout(PATIENCE, reading).await.unwrap().unwrap().expect_err("it was stopped");
    assert_eq!(error.reason(), Reason::Stopped, "{error}");
    assert!(error.to_string().contains("peer resume-download g1 f"), "{error}");
    seeder.end().await;
    leecher.end().await;
}

/// A source whose copy is damaged at every other piece, though its size and times don't show it.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_of_a_source_are_never_read() {
    let world = World::new();
    let (rotten, honest, leecher) =
        (world.node("alice").await, world.node("bob").await, world.node("carol").await);
    let data = noise(3, 16 * PIECE);
    let manifest = honest.share(file_id(1), "f", &data).await;
    let mut damaged = data.clone();
    damaged.iter_mut().step_by(2 * PIECE).for_each(|byte| *byte ^= 4);
    rotten.share_damaged(file_id(1), &manifest, &damaged).await;
    let mut view = leecher.download(file_id(1), &manifest, &[&rotten]).await;
    let mut early = leecher.engine.read(file_id(1), 4 * PIECE as u64..5 * PIECE as u64).unwrap();
    tokio::select! {
        bytes = early.next() => panic!("{:?} bytes of a damaged piece", bytes.map(|bytes| bytes.map(|bytes| bytes.len()))),
        _ = until(&mut view, |view| view.sources.iter().any(|source| source.bad_pieces > 0)) => {}
    }
    leecher.engine.sources(file_id(1), vec![rotten.source(), honest.source()], vec![]);
    let (early, all_of_it) = tokio::join!(all(early), all(whole(&leecher.engine, file_id(1))));
    assert!(early.unwrap() == data[4 * PIECE..5 * PIECE] && all_of_it.unwrap() == data);
    until_complete(&mut view).await;
    for node in [rotten, honest, leecher] {
        node.end().await;
    }
}
