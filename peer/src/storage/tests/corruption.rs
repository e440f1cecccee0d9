//! 1,000 unfinished files that something else changes. No wrong byte may appear under a final name.

use proto::domain::PIECE_LENGTH;
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rustix::fs::{Timespec, Timestamps};

use super::*;
use crate::domain::Rng;

/// Cases, and threads that share them.
const CASES: u64 = 1_000;
const THREADS: u64 = 4;
/// The most runs of a case. A case that needs more never ends.
const ROUNDS: u32 = 20;

/// What happens to a part.
#[derive(Clone, Copy, Debug)]
enum Damage {
    BitFlip,
    FourKibibytes,
    ZeroedPage,
    SwappedPieces,
    /// Another file of the same size takes its place.
    OtherPart,
    /// The part as it was at an earlier stop takes its place.
    OlderPart,
    CutShort,
    Nothing,
}

const DAMAGES: [Damage; 8] = [
    Damage::BitFlip,
    Damage::FourKibibytes,
    Damage::ZeroedPage,
    Damage::SwappedPieces,
    Damage::OtherPart,
    Damage::OlderPart,
    Damage::CutShort,
    Damage::Nothing,
];

fn times(path: &Path) -> Timestamps {
    let metadata = fs::metadata(path).unwrap();
    Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    }
}

/// Random bytes, as fast as an optimised build would make them.
fn noise(length: usize, rng: &mut Rng) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new().update(&rng.random::<u64>().to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

/// Damages the part, and restores the size and times that it had.
fn damage(case: &Case, what: Damage, older: Option<&[u8]>, rng: &mut Rng) {
    let path = case.part();
    let before = times(&path);
    let part = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let length = part.metadata().unwrap().len();
    let at = rng.random_range(0..length);
    match what {
        Damage::BitFlip => {
            let mut byte = [0];
            part.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << rng.random_range(0..8);
            part.write_all_at(&byte, at).unwrap();
        }
        Damage::FourKibibytes => {
            part.write_all_at(&noise(4096.min((length - at) as usize), rng), at).unwrap();
        }
        Damage::ZeroedPage => {
            let page = at / 4096 * 4096;
            part.write_all_at(&vec![0; 4096.min((length - page) as usize)], page).unwrap();
        }
        Damage::SwappedPieces if length >= 2 * PIECE as u64 => {
            let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
            part.read_exact_at(&mut a, 0).unwrap();
            part.read_exact_at(&mut b, PIECE as u64).unwrap();
            part.write_all_at(&b, 0).unwrap();
            part.write_all_at(&a, PIECE as u64).unwrap();
        }
        Damage::OtherPart => {
            fs::remove_file(&path).unwrap();
            fs::write(&path, noise(length as usize, rng)).unwrap();
        }
        Damage::OlderPart => {
            fs::remove_file(&path).unwrap();
            fs::write(&path, older.unwrap_or(&vec![7; length as usize])).unwrap();
        }
        Damage::CutShort => part.set_len(at).unwrap(),
        Damage::SwappedPieces | Damage::Nothing => {}
    }
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
    rustix::fs::utimensat(rustix::fs::CWD, &path, &before, rustix::fs::AtFlags::empty()).unwrap();
}

/// Writes to the part in place, as another process would, while it is being downloaded.
fn meddle(case: &Case, rng: &mut Rng) {
    let in_place = &DAMAGES[..4];
    damage(case, in_place[rng.random_range(0..in_place.len())], None, rng);
}

/// Downloads a part in several runs, with damage between them and perhaps during one. Checks the result.
fn run(seed: u64) -> u32 {
    let mut rng = Rng::seed_from_u64(seed);
    // Some cases have more pieces than a check of samples would cover.
    let most = if seed.is_multiple_of(40) { 70 } else { 4 };
    let length = rng.random_range((most / 2 * PIECE + 1)..most * PIECE);
    let data = noise(length, &mut rng);
    // In memory where possible: a sync costs nothing there.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let case = Case { dir, manifest: Arc::new(manifest("file", &data)), data };
    let pieces = u64::from(case.manifest.layout().count());
    let what = DAMAGES[rng.random_range(0..DAMAGES.len())];
    let meddling = rng.random_bool(0.3);
    let mut older = None;
    for round in 0..ROUNDS {
        let store = case.place().open().unwrap().with_sync(|_| Ok(()));
        let last = round >= 2;
        let mut order: Vec<u64> = (0..pieces).collect();
        order.shuffle(&mut rng);
        let mut meddled = !meddling || !last;
        let stop_after = if last { order.len() } else { rng.random_range(1..order.len()) };
        let fill = |rng: &mut Rng, order: &[u64], meddled: &mut bool| {
            for index in order {
                let piece = case.piece(*index);
                if !store.have().contains(piece) && !store.unverified().contains(piece) {
                    case.write(&store, [*index]);
                }
                if !*meddled && rng.random_bool(0.3) {
                    *meddled = true;
                    meddle(&case, rng);
                }
            }
        };
        // Arriving pieces and rechecked pieces come in any order.
        if rng.random_bool(0.5) {
            fill(&mut rng, &order[..stop_after], &mut meddled);
        }
        store.recheck(&mut |_, _| ControlFlow::Continue(()));
        fill(&mut rng, &order[..stop_after], &mut meddled);
        if last {
            match store.finish(&go_on) {
                Ok(_) => {
                    assert!(fs::read(case.destination()).unwrap() == case.data, "seed {seed}: wrong bytes");
                    return round;
                }
                Err(StoreError::Corrupt | StoreError::Incomplete | StoreError::Tampered(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        assert!(!case.destination().exists(), "seed {seed}");
        store.checkpoint(rng.random_bool(0.7)).unwrap();
        drop(store);
        if round < 4 {
            let before = fs::read(case.part()).unwrap();
            damage(&case, what, older.as_deref(), &mut rng);
            older = Some(before);
        }
    }
    panic!("seed {seed}: {what:?} is never got over");
}

#[test]
fn a_thousand_damaged_parts_give_no_wrong_byte() {
    assert_eq!(PIECE, PIECE_LENGTH as usize);
    let base: u64 =
        std::env::var("CORRUPTION_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("seeds {base}..{base}+{CASES}; again with CORRUPTION_SEED={base}");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for case in (thread..CASES).step_by(THREADS as usize) {
                    run(base.wrapping_add(case));
                }
            });
        }
    });
}
