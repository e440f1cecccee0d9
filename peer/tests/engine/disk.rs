//! Full disks, failing disks, and daemons that are killed.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, symlink},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use peer::{
    engine::{DownloadSpec, DownloadState, EngineConfig, EngineError},
    hashing::FileStamp,
    storage::{Opener, PieceReader, PieceStore, Progress, Rechecked, StoreError},
};
use proto::{
    domain::{Bitfield, PieceIndex},
    reason::Reason,
};
use testkit::{
    content::{PIECE, file_id, noise},
    node::{until, until_complete, until_final},
    wait::eventually,
    world::World,
};

/// Faults of a disk.
#[derive(Default)]
struct Faults {
    full: AtomicBool,
    /// The number of writes that succeeded.
    writes: AtomicU32,
    /// If set, reading pieces again waits for this.
    gate: Option<Gate>,
    /// The disk can't read this piece of a complete file.
    unreadable: Option<u64>,
    /// Writing panics.
    bad_write: AtomicBool,
    /// Reading pieces again panics.
    bad_recheck: AtomicBool,
    /// The downloads whose pieces are read again now, and the most at a time so far.
    rechecks: Mutex<(u32, u32)>,
}

/// Lets the pieces of an earlier run be read again one by one.
#[derive(Default)]
struct Gate {
    /// Pieces that may still be read.
    open: Mutex<u32>,
    opened: Condvar,
}

impl Gate {
    fn let_through(&self, pieces: u32) {
        *self.open.lock().unwrap() += pieces;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().unwrap();
        *self.opened.wait_while(open, |open| *open == 0).unwrap() -= 1;
    }
}

/// A store with faults.
struct Faulty {
    inner: Arc<dyn PieceStore>,
    faults: Arc<Faults>,
}

fn faulty(faults: &Arc<Faults>) -> Opener {
    let faults = faults.clone();
    Arc::new(move |place| Ok(Arc::new(Faulty { inner: Arc::new(place.open()?), faults: faults.clone() })))
}

/// The number of syncs that will still fail, in all stores that [`unsyncable`] opens. Only one test uses it.
static FAILING_SYNCS: AtomicU32 = AtomicU32::new(0);

/// The real store, on a disk whose syncs fail.
fn unsyncable() -> Opener {
    let sync = |file: &File| {
        let failing =
            FAILING_SYNCS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() { Err(io::ErrorKind::Other.into()) } else { file.sync_data() }
    };
    Arc::new(move |place| Ok(Arc::new(place.open()?.with_sync(sync))))
}

impl PieceReader for Faulty {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, into)
    }

    fn is_unchanged(&self, bytes: std::ops::Range<u64>) -> bool {
        self.inner.is_unchanged(bytes)
    }

    fn is_cached(&self, offset: u64, length: usize) -> bool {
        self.inner.is_cached(offset, length)
    }

    fn stamp(&self) -> Option<FileStamp> {
        self.inner.stamp()
    }
}

/// A complete file on a disk with faults.
struct FaultyReader {
    inner: Arc<dyn PieceReader>,
    faults: Arc<Faults>,
}

impl PieceReader for FaultyReader {
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.faults.unreadable == Some(offset / PIECE as u64) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.inner.read(offset, into)
    }

    fn is_unchanged(&self, bytes: std::ops::Range<u64>) -> bool {
        self.inner.is_unchanged(bytes)
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
        assert!(!self.faults.bad_write.load(Ordering::SeqCst), "the test wants a panic");
        self.faults.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.write(piece, parts)
    }

    fn have(&self) -> Bitfield {
        self.inner.have()
    }

    fn wanted(&self) -> Bitfield {
        self.inner.wanted()
    }

    fn advance(&self) -> Result<bool, StoreError> {
        self.inner.advance()
    }

    fn unverified(&self) -> Bitfield {
        self.inner.unverified()
    }

    fn recheck(&self, tell: Rechecked<'_>) {
        assert!(!self.faults.bad_recheck.load(Ordering::SeqCst), "the test wants a panic");
        {
            let mut rechecks = self.faults.rechecks.lock().unwrap();
            rechecks.0 += 1;
            rechecks.1 = rechecks.1.max(rechecks.0);
        }
        self.inner.recheck(&mut |piece, good| {
            self.faults.gate.iter().for_each(Gate::pass);
            tell(piece, good)
        });
        self.faults.rechecks.lock().unwrap().0 -= 1;
    }

    fn checkpoint(&self, clean: bool) -> Result<(), StoreError> {
        self.inner.checkpoint(clean)
    }

    fn verify(&self, progress: Progress<'_>) -> Result<(), StoreError> {
        self.inner.verify(progress)
    }

    fn finish(&self, progress: Progress<'_>) -> Result<Arc<dyn PieceReader>, StoreError> {
        let inner = self.inner.finish(progress)?;
        Ok(Arc::new(FaultyReader { inner, faults: self.faults.clone() }))
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
async fn a_piece_that_the_disk_can_not_read_is_offered_no_more_and_the_others_are() {
    let world = World::new();
    let faults = Arc::new(Faults { unreadable: Some(3), ..Faults::default() });
    let failing = world.node_with("bob", EngineConfig::default(), Some(faulty(&faults))).await;
    let (seeder, leecher) = (world.node("alice").await, world.node("carol").await);
    let data = noise(20, 8 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    until_complete(&mut failing.download(file_id(1), &manifest, &[&seeder]).await).await;
    let mut view = leecher.download(file_id(1), &manifest, &[&failing]).await;
    until(&mut view, |view| view.done_bytes == 7 * PIECE as u64).await;
    eventually("the piece is not offered", async || {
        failing.engine.shares()[0].done_bytes == 7 * PIECE as u64
    })
    .await;
    assert_eq!(view.borrow().sources[0].bad_pieces, 0, "nothing wrong was sent");
    leecher.engine.sources(file_id(1), vec![failing.source(), seeder.source()], vec![]);
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    for node in [seeder, failing, leecher] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_failed_sync_fails_the_download() {
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
    // Waits until a checkpoint must have been written.
    let state = killed.dir.path().join(format!(".minitorrent/{}.state", file_id(1)));
    let empty = std::fs::metadata(killed.dir.path()).is_ok();
    assert!(empty);
    until(&mut view, |view| view.done_bytes >= 18 * PIECE as u64).await;
    let snapshot = tempfile::tempdir().unwrap();
    // A crash leaves the files as they are now. The state is copied first, so that the part file is never
    // older than it.
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
async fn pieces_of_an_earlier_run_are_verified_while_the_rest_arrives() {
    let world = World::new();
    let faults = Arc::new(Faults { gate: Some(Gate::default()), ..Faults::default() });
    let (seeder, leecher) = (
        world.node("alice").await,
        world.node_with("bob", EngineConfig::default(), Some(faulty(&faults))).await,
    );
    let data = noise(18, 24 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    seeder.engine.set_limits(Some(4 << 20), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until(&mut view, |view| view.done_bytes >= 10 * PIECE as u64).await;
    leecher.engine.stop(file_id(1), false).await.unwrap();
    let there = faults.writes.load(Ordering::SeqCst);
    assert!((10..24).contains(&there), "it was stopped in the middle: {there}");
    // One of those pieces becomes corrupt.
    let part = leecher.dir.path().join(format!(".minitorrent/{}.part", file_id(1)));
    let part_file = File::options().read(true).write(true).open(&part).unwrap();
    let is_there = |piece: &usize| {
        let mut found = vec![0; PIECE];
        part_file.read_exact_at(&mut found, (piece * PIECE) as u64).unwrap();
        found == data[piece * PIECE..(piece + 1) * PIECE]
    };
    let rotten = (0..24).find(is_there).unwrap();
    part_file.write_all_at(&[!data[rotten * PIECE + 9]], (rotten * PIECE + 9) as u64).unwrap();
    drop(part_file);
    seeder.engine.set_limits(Some(0), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    // Everything that was missing arrives, though nothing was read again yet. Only what arrived is offered.
    let arrived = u64::from(24 - there) * PIECE as u64;
    until(&mut view, |view| view.done_bytes == arrived).await;
    assert_eq!(leecher.engine.shares()[0].done_bytes, arrived);
    assert!(!leecher.destination(&manifest).exists());
    let gate = faults.gate.as_ref().unwrap();
    gate.let_through(there);
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    assert_eq!(faults.writes.load(Ordering::SeqCst), 24 + 1, "the rotten piece alone came again");
    assert_eq!(leecher.engine.shares()[0].done_bytes, data.len() as u64);
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_downloads_at_a_time_are_read_again_and_a_waiting_one_can_be_stopped() {
    let world = World::new();
    let faults = Arc::new(Faults { gate: Some(Gate::default()), ..Faults::default() });
    let (seeder, leecher) = (
        world.node("alice").await,
        world.node_with("bob", EngineConfig::default(), Some(faulty(&faults))).await,
    );
    let data = noise(20, 2 * PIECE);
    let mut manifests = Vec::new();
    for number in 1..=5 {
        let manifest = seeder.share(file_id(number), &format!("f{number}"), &data).await;
        // All was written by an earlier run, which ended before the file got its name.
        let traces = leecher.dir.path().join(".minitorrent");
        std::fs::create_dir_all(&traces).unwrap();
        let part = traces.join(format!("{}.part", file_id(number)));
        std::fs::write(&part, &data).unwrap();
        manifests.push(manifest);
    }
    let mut views = Vec::new();
    for (number, manifest) in (1..).zip(&manifests) {
        views.push(leecher.download(file_id(number), manifest, &[]).await);
        // The first two have their turns before the others start.
        let running = u32::from(number).min(2);
        eventually("it is read again", async || faults.rechecks.lock().unwrap().0 == running).await;
    }
    for view in &mut views {
        until(view, |view| view.state != DownloadState::Queued).await;
    }
    // Three wait for their turn. One of them is stopped.
    leecher.engine.stop(file_id(5), false).await.unwrap();
    faults.gate.as_ref().unwrap().let_through(100);
    for (number, view) in (1..).zip(&mut views) {
        let end = until_final(view).await;
        assert_eq!(end.state == DownloadState::Complete, number != 5, "{number}: {end:?}");
    }
    assert_eq!(faults.rechecks.lock().unwrap().1, 2, "never more at a time");
    seeder.end().await;
    leecher.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_the_download_with_a_cause() {
    let world = World::new();
    let faults = Arc::new(Faults::default());
    let (seeder, leecher) = (
        world.node("alice").await,
        world.node_with("bob", EngineConfig::default(), Some(faulty(&faults))).await,
    );
    let data = noise(21, 24 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    let failed = async || {
        let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
        let end = until_final(&mut view).await;
        let problem = end.problem.expect("a cause");
        assert_eq!((end.state, problem.reason), (DownloadState::Failed, Reason::Io), "{problem:?}");
        assert!(problem.message.contains("bug"), "{problem:?}");
    };
    faults.bad_write.store(true, Ordering::SeqCst);
    failed().await;
    faults.bad_write.store(false, Ordering::SeqCst);
    seeder.engine.set_limits(Some(4 << 20), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until(&mut view, |view| view.done_bytes >= 4 * PIECE as u64).await;
    leecher.engine.stop(file_id(1), false).await.unwrap();
    faults.bad_recheck.store(true, Ordering::SeqCst);
    failed().await;
    faults.bad_recheck.store(false, Ordering::SeqCst);
    seeder.engine.set_limits(Some(0), None);
    let mut view = leecher.download(file_id(1), &manifest, &[&seeder]).await;
    until_complete(&mut view).await;
    assert!(std::fs::read(leecher.destination(&manifest)).unwrap() == data);
    seeder.end().await;
    leecher.end().await;
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
async fn a_download_resumes_after_a_crash_between_rename_and_cleanup() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_swapped_for_a_link_is_not_followed() {
    let world = World::new();
    let (seeder, leecher) = (world.node("alice").await, world.node("bob").await);
    let data = noise(19, 8 * PIECE);
    let manifest = seeder.share(file_id(1), "f", &data).await;
    // Once before a source is known, and then while pieces arrive.
    for pieces in [0, 1, 3] {
        let [downloads, moved, elsewhere] = ["downloads", "moved", "elsewhere"]
            .map(|name| leecher.dir.path().join(format!("{pieces}-{name}")));
        std::fs::create_dir(&downloads).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        let spec =
            || DownloadSpec { destination: downloads.join("f"), ..leecher.spec(file_id(1), &manifest) };
        let mut view = leecher.engine.download(spec()).await.unwrap();
        leecher.engine.set_limits(None, Some(1 << 20));
        let sources = || leecher.engine.sources(file_id(1), vec![seeder.source()], vec![]);
        if pieces > 0 {
            sources();
        }
        until(&mut view, |view| view.done_bytes >= pieces * PIECE as u64).await;
        std::fs::rename(&downloads, &moved).unwrap();
        symlink(&elsewhere, &downloads).unwrap();
        sources();
        leecher.engine.set_limits(None, Some(0));
        let end = until_final(&mut view).await;
        assert_eq!((end.state, end.problem.unwrap().reason), (DownloadState::Failed, Reason::PathNotFound));
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        let refused = leecher.engine.download(spec()).await.unwrap_err();
        assert!(matches!(refused, EngineError::Displaced(..)), "{refused}");
        // When the directory is back in its place, the download continues, and nothing is lost.
        std::fs::remove_file(&downloads).unwrap();
        std::fs::rename(&moved, &downloads).unwrap();
        let mut view = leecher.engine.download(spec()).await.unwrap();
        sources();
        until_complete(&mut view).await;
        assert!(std::fs::read(downloads.join("f")).unwrap() == data);
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        leecher.engine.unshare(file_id(1));
    }
    seeder.end().await;
    leecher.end().await;
}
