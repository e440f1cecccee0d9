//! Disks that are full, that fail, and daemons that are killed.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use peer::{
    engine::{DownloadState, EngineConfig, EngineError},
    hashing::FileStamp,
    storage::{Opener, PieceReader, PieceStore, Progress, StoreError},
};
use proto::{
    domain::{Bitfield, PieceIndex},
    reason::Reason,
};

use crate::support::{World, file_id, noise, until, until_complete, until_final};

const PIECE: usize = 524_288;

/// What goes wrong with a disk.
#[derive(Default)]
struct Faults {
    full: AtomicBool,
    /// Writes that succeeded.
    writes: AtomicU32,
}

/// A disk on which things go wrong.
struct Faulty {
    inner: Arc<dyn PieceStore>,
    faults: Arc<Faults>,
}

fn faulty(faults: &Arc<Faults>) -> Opener {
    let faults = faults.clone();
    Arc::new(move |place, progress| {
        Ok(Arc::new(Faulty { inner: Arc::new(place.open(progress)?), faults: faults.clone() }))
    })
}

/// So many syncs fail from now on, of every store that [`unsyncable`] opens. One test's own.
static FAILING_SYNCS: AtomicU32 = AtomicU32::new(0);

/// The real store on a disk that does not take what it is given.
fn unsyncable() -> Opener {
    let sync = |file: &File| {
        let failing =
            FAILING_SYNCS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() { Err(io::ErrorKind::Other.into()) } else { file.sync_data() }
    };
    Arc::new(move |place, progress| Ok(Arc::new(place.open(progress)?.with_sync(sync))))
}

impl PieceReader for Faulty {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, into)
    }

    fn is_unchanged(&self) -> bool {
        self.inner.is_unchanged()
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        self.inner.is_cached(offset, length)
    }

    fn stamp(&self) -> Option<FileStamp> {
        self.inner.stamp()
    }
}

impl PieceStore for Faulty {
    fn write(&self, piece: PieceIndex, parts: &[Bytes]) -> Result<(), StoreError> {
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full);
        }
        self.faults.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.write(piece, parts)
    }

    fn have(&self) -> Bitfield {
        self.inner.have()
    }

    fn checkpoint(&self, clean: bool) -> Result<(), StoreError> {
        self.inner.checkpoint(clean)
    }

    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError> {
        self.inner.verify(progress)
    }

    fn finish(&self) -> Result<Arc<dyn PieceReader>, StoreError> {
        self.inner.finish()
    }

    fn discard(&self) -> Result<(), StoreError> {
        self.inner.discard()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_pauses_one_download_and_it_goes_on_when_there_is_room() {
    let world = World::new();
    let faults = Arc::new(Faults::default());
    let config = EngineConfig { disk_retry: Duration::from_millis(200), ..EngineConfig::default() };
    let (seeder, leecher) =
        (world.node("alice").await, world.node_with("bob", config, Some(faulty(&faults))).await);
    let data = noise(12, 16 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    seeder.engine.set_limits(Some(8 << 20), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until(&mut view, |view| view.done_bytes >= 2 * PIECE as u64).await;
    faults.full.store(true, Ordering::SeqCst);
    let full = |view: &peer::engine::DownloadView| {
        view.state == DownloadState::Stalled
            && view.problem.as_ref().is_some_and(|problem| problem.reason == Reason::DiskFull)
    };
    let paused = until(&mut view, full).await;
    let kept = paused.done_bytes;
    assert!(kept >= 2 * PIECE as u64);
    assert_eq!(leecher.engine.shares()[0].done_bytes, kept, "what is there is still offered");
    faults.full.store(false, Ordering::SeqCst);
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    assert_eq!(faults.writes.load(Ordering::SeqCst), 16, "no piece was written twice");
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_survived_once_and_then_said() {
    let world = World::new();
    let (seeder, leecher) = (
        world.node("alice").await,
        world.node_with("bob", EngineConfig::default(), Some(unsyncable())).await,
    );
    let data = noise(13, 4 * PIECE);
    for (number, failures, state) in [(1, 1, DownloadState::Complete), (2, 2, DownloadState::Failed)] {
        let manifest = seeder.share(file_id(number), &format!("f{number}"), &data).await;
        FAILING_SYNCS.store(failures, Ordering::SeqCst);
        let mut view = leecher.download(file_id(number), &manifest, &[&seeder]).await;
        let end = until_final(&mut view).await;
        assert_eq!(end.state, state, "{end:?}");
        assert_eq!(leecher.destination(&manifest).exists(), state == DownloadState::Complete);
        assert_eq!(FAILING_SYNCS.load(Ordering::SeqCst), 0, "every failure was met");
    }
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_download_fetches_only_what_was_not_safe() {
    let world = World::new();
    let (seeder, killed) = (world.node("alice").await, world.node("bob").await);
    let data = noise(14, 48 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    killed.engine.set_limits(None, Some(3 << 20));
    let mut view = killed.download(file_id(1), &manifest, &[&seeder]).await;
    // Long enough for a checkpoint.
    let state = killed.dir.path().join(format!(".minitorrent/{}.state", file_id(1)));
    let empty = std::fs::metadata(killed.dir.path()).is_ok();
    assert!(empty);
    until(&mut view, |view| view.done_bytes >= 18 * PIECE as u64).await;
    let snapshot = tempfile::tempdir().unwrap();
    // What a crash leaves: the files as they are now, copied state first, so that the part is never older than it.
    let target = snapshot.path().join(".minitorrent");
    std::fs::create_dir(&target).unwrap();
    for name in [state.clone(), state.with_extension("part")] {
        std::fs::copy(&name, target.join(name.file_name().unwrap())).unwrap();
    }
    killed.engine.stop(file_id(1), false).await.unwrap();
    let leecher = world.node("carol").await;
    let mut spec = leecher.spec(file_id(1), &manifest);
    spec.destination = snapshot.path().join("f");
    let mut view = leecher.engine.download(spec).await.unwrap();
    leecher.engine.sources(file_id(1), vec![seeder.source()], vec![]);
    until_complete(&mut view).await;
    assert!(std::fs::read(snapshot.path().join("f")).unwrap() == data);
    let fetched = leecher.engine.stats().pieces_verified;
    assert!(fetched < 48, "the checkpoint counts: {fetched} were fetched");
    for node in [seeder, killed, leecher] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_refused_at_the_start_and_at_the_end() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(15, 4 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    let destination = leecher.destination(&manifest);
    std::fs::write(&destination, "mine").unwrap();
    let refused = leecher.engine.download(leecher.spec(file_id(1), &manifest)).await.unwrap_err();
    assert!(matches!(refused, EngineError::DestinationExists(_)), "{refused}");
    std::fs::remove_file(&destination).unwrap();
    let mut spec = leecher.spec(file_id(1), &manifest);
    for bad in ["/nowhere/at/all/f", "relative", "/", "/tmp/.minitorrent"] {
        spec.destination = bad.into();
        let refused = leecher.engine.download(spec.clone()).await.unwrap_err();
        assert!(matches!(refused, EngineError::BadDestination(..)), "{bad}: {refused}");
    }
    seeder.engine.set_limits(Some(1 << 20), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    let again = leecher.engine.download(leecher.spec(file_id(1), &manifest)).await.unwrap_err();
    assert!(matches!(again, EngineError::Running), "{again}");
    until(&mut view, |view| view.done_bytes > 0).await;
    std::fs::write(&destination, "mine").unwrap();
    let end = until_final(&mut view).await;
    assert_eq!((end.state, end.problem.unwrap().reason), (DownloadState::Failed, Reason::DestinationExists));
    assert_eq!(std::fs::read(&destination).unwrap(), b"mine");
    // Nothing is lost: with the name free, it is complete at once.
    std::fs::remove_file(&destination).unwrap();
    let fetched = leecher.engine.stats().pieces_verified;
    let mut view = leecher.download(file_id(1), &manifest, &[]).await;
    until_complete(&mut view).await;
    assert_eq!(leecher.engine.stats().pieces_verified, fetched);
    assert!(std::fs::read(&destination).unwrap() == data);
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_rename_and_the_end_is_taken_up() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(16, 2 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    std::fs::write(leecher.destination(&manifest), &data).unwrap();
    let traces = leecher.dir.path().join(".minitorrent");
    std::fs::create_dir(&traces).unwrap();
    std::fs::write(traces.join(format!("{}.state", file_id(1))), "whatever").unwrap();
    let mut view = leecher.download(file_id(1), &manifest, &[]).await;
    let end = until_complete(&mut view).await;
    assert_eq!(end.done_bytes, data.len() as u64);
    assert!(!traces.exists());
    assert_eq!(leecher.engine.shares()[0].done_bytes, data.len() as u64);
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_reads_the_whole_copy_again() {
    let world = World::new();
    let seeder = world.node("alice").await;
    let data = noise(17, 3 * PIECE);
    seeder.share(file_id(1), "f", &data).await;
    let go_on = |_| std::ops::ControlFlow::Continue(());
    seeder.engine.verify(file_id(1), go_on).await.unwrap();
    assert!(matches!(seeder.engine.verify(file_id(2), go_on).await, Err(EngineError::Unknown)));
    let stopped = seeder.engine.verify(file_id(1), |_| std::ops::ControlFlow::Break(())).await.unwrap_err();
    assert_eq!(stopped.reason(), Reason::Stopped);
    let mut other = data.clone();
    other[PIECE + 1] ^= 1;
    std::fs::write(seeder.dir.path().join("f"), &other).unwrap();
    let corrupt = seeder.engine.verify(file_id(1), go_on).await.unwrap_err();
    assert_eq!(corrupt.reason(), Reason::FileChanged);
    assert!(seeder.engine.shares()[0].problem.is_some());
    seeder.end().await;
}
