//! What of an unfinished file is believed when it is taken up again.
//!
//! - No state, or a bad one: nothing; every piece is hashed. What is there is never deleted.
//! - A clean state: it is spot-checked.
//! - An unclean one (a crash): every piece that has data is hashed, so that what came since the last checkpoint is kept
//!   too; of large files only what was claimed last, and a sample.
//! - One of a part whose sync failed: what it claims is hashed, and nothing else believed.
//! - A claim that fails a spot check takes all others with it: every piece is hashed.

use std::{
    fs::File,
    io,
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use proto::domain::{Bitfield, Manifest, PIECE_LENGTH, PieceIndex, Sha1};
use rustix::fs::{SeekFrom, seek};
use sha1::Digest as _;

use super::state::State;

/// After a crash, files of up to so many bytes are hashed whole: a few seconds.
const REHASH_ALL: u64 = 4 << 30;
/// Pieces of a clean state that are hashed.
const SPOT_CHECKS: usize = 16;
/// Of those written last before a clean stop, so many are hashed as well.
const LAST_CHECKS: usize = 32;

/// Is told bytes hashed so far, and may break it off.
pub type Progress<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// The pieces in `part` that may be believed, given its state.
///
/// # Errors
/// What the disk says, and `Interrupted` when `progress` broke it off.
pub(super) fn believed(
    part: &File,
    manifest: &Manifest,
    state: Option<State>,
    progress: Progress<'_>,
) -> io::Result<Bitfield> {
    let layout = manifest.layout();
    let Some(state) = state else { return all(part, manifest, progress) };
    let claimed: Vec<PieceIndex> = state.have.iter(layout).collect();
    if state.lost {
        return check(part, manifest, &claimed, progress);
    }
    if !state.clean && layout.length() <= REHASH_ALL {
        return all(part, manifest, progress);
    }
    let recent: Vec<PieceIndex> =
        claimed.iter().copied().filter(|piece| !state.settled.contains(*piece)).collect();
    let (samples, recent) = if state.clean {
        (SPOT_CHECKS, &recent[recent.len().saturating_sub(LAST_CHECKS)..])
    } else {
        (claimed.len().div_ceil(100), &recent[..])
    };
    let mut picked: Vec<PieceIndex> = sample(&claimed, samples);
    picked.extend(recent);
    picked.sort_unstable();
    picked.dedup();
    let good = check(part, manifest, &picked, progress)?;
    if good.count() as usize == picked.len() { Ok(state.have) } else { all(part, manifest, progress) }
}

fn sample(pieces: &[PieceIndex], amount: usize) -> Vec<PieceIndex> {
    let amount = amount.min(pieces.len());
    rand::seq::index::sample(&mut rand::rng(), pieces.len(), amount)
        .into_iter()
        .map(|at| pieces[at])
        .collect()
}

fn all(part: &File, manifest: &Manifest, progress: Progress<'_>) -> io::Result<Bitfield> {
    let pieces = with_data(part, manifest);
    check(part, manifest, &pieces, progress)
}

/// All pieces but those that lie in a hole of a sparse file and so can't be right: a mostly empty part of a large file
/// would take minutes to read.
fn with_data(part: &File, manifest: &Manifest) -> Vec<PieceIndex> {
    let layout = manifest.layout();
    let zero_sha1 = Sha1::from(<[u8; 20]>::from(sha1::Sha1::digest(vec![0; PIECE_LENGTH as usize])));
    let mut data_until = 0;
    let mut hole_until = 0;
    let mut holds_data = |piece: PieceIndex| {
        let range = layout.range(piece);
        if range.start >= data_until && range.start >= hole_until {
            hole_until = match seek(part, SeekFrom::Data(range.start)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => layout.length(),
                Err(_) => 0,
            };
            data_until = seek(part, SeekFrom::Hole(hole_until)).unwrap_or(layout.length());
        }
        range.end > hole_until
    };
    let zeros = |piece: PieceIndex| {
        layout.piece_length(piece) < PIECE_LENGTH
            || manifest.pieces().get(piece.as_usize()).is_some_and(|hash| hash.sha1 == zero_sha1)
    };
    layout.indices().filter(|piece| holds_data(*piece) || zeros(*piece)).collect()
}

/// Those of the pieces that are what the manifest says, hashed on all cores.
pub(super) fn check(
    part: &File,
    manifest: &Manifest,
    pieces: &[PieceIndex],
    progress: Progress<'_>,
) -> io::Result<Bitfield> {
    let layout = manifest.layout();
    let good = Mutex::new(Bitfield::empty(layout));
    let failed: Mutex<Option<io::Error>> = Mutex::new(None);
    let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        let mut buffer = vec![0; PIECE_LENGTH as usize];
        while !stop.load(Ordering::Relaxed) {
            let Some(&piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let length = layout.piece_length(piece) as usize;
            let data = &mut buffer[..length];
            match part.read_exact_at(data, layout.offset(piece)) {
                Ok(()) if manifest.piece_matches(piece, data) => {
                    good.lock().unwrap_or_else(PoisonError::into_inner).insert(piece);
                }
                // Short: cut off, or never written that far.
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
            let bytes = done.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
            if progress(bytes).is_break() {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(io::ErrorKind::Interrupted.into());
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4).min(pieces.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(good.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
