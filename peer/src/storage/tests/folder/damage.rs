//! Unfinished folders that something else changes, between two runs or during one. No wrong byte may appear under
//! the final name.

use std::path::Path;

use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::*;
use crate::domain::Rng;

/// Cases, and threads that share them.
const CASES: u64 = 300;
const THREADS: u64 = 4;
/// The most runs of a case. A case that needs more never ends.
const ROUNDS: u32 = 20;
/// The runs in which the folder is damaged.
const DAMAGED: u32 = 5;

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    BitFlip,
    ZeroedPage,
    CutShort,
    Longer,
    /// Another file of the same length takes its place.
    Replaced,
    Deleted,
}

const DAMAGES: [Damage; 6] = [
    Damage::BitFlip,
    Damage::ZeroedPage,
    Damage::CutShort,
    Damage::Longer,
    Damage::Replaced,
    Damage::Deleted,
];

/// The unfinished files: those of the tree that exist, and the part.
fn files(case: &Case) -> Vec<PathBuf> {
    let mut paths = vec![case.unfinished("tree"), case.unfinished("part")];
    let mut found = Vec::new();
    while let Some(path) = paths.pop() {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
            Ok(metadata) if metadata.is_file() => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Damages a file, and restores its times.
fn damage(path: &Path, rng: &mut Rng) {
    let metadata = fs::metadata(path).unwrap();
    let open = || fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = metadata.len();
    let at = rng.random_range(0..length.max(1));
    match DAMAGES.choose(rng).expect("there are some") {
        Damage::BitFlip if length > 0 => {
            let (file, mut byte) = (open(), [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << rng.random_range(0..8)], at).unwrap();
        }
        Damage::ZeroedPage if length > 0 => {
            let page = at / 4_096 * 4_096;
            open().write_all_at(&vec![0; 4_096.min((length - page) as usize)], page).unwrap();
        }
        Damage::CutShort => open().set_len(at).unwrap(),
        Damage::Longer => open().set_len(length + at + 1).unwrap(),
        Damage::Deleted => return fs::remove_file(path).unwrap(),
        Damage::BitFlip | Damage::ZeroedPage | Damage::Replaced => {
            fs::remove_file(path).unwrap();
            fs::write(path, noise(rng.random(), length as usize)).unwrap();
        }
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

fn random_entries(seed: u64, rng: &mut Rng) -> Vec<(pb::FolderEntry, Vec<u8>)> {
    // Some have a first file that is long enough for a watch.
    let long = seed.is_multiple_of(40).then(|| 33 * PIECE + rng.random_range(0..2_000));
    let lengths = long.into_iter().chain((0..rng.random_range(1..7)).map(|_| match rng.random_range(0..3) {
        0 => rng.random_range(0..3_000),
        1 => PIECE,
        _ => rng.random_range(PIECE / 2..3 * PIECE),
    }));
    let lengths: Vec<usize> = lengths.collect();
    let path = |number: usize| format!("{:02}/{number}", number / 2);
    lengths
        .iter()
        .enumerate()
        .map(|(number, length)| file(&path(number), &noise(rng.random(), *length)))
        .collect()
}

fn run(seed: u64) {
    let mut rng = Rng::seed_from_u64(seed);
    let entries = random_entries(seed, &mut rng);
    let mut case = Case::new(&entries);
    // In memory where possible: a sync costs nothing there.
    case.dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let pieces = case.manifest.layout().count() as usize;
    let meddling = rng.random_bool(0.3);
    for round in 0..ROUNDS {
        // What can't be gone on with is begun again, as a user would.
        let store = match case.place().open_store() {
            Ok(store) => store,
            Err(StoreError::Tampered(_)) => {
                discard(file_id(1), &case.destination()).unwrap();
                continue;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let most = if round < 2 { rng.random_range(0..pieces + 1) } else { usize::MAX };
        let filled = case.write_some(&*store, most);
        if round < DAMAGED && meddling {
            damage(files(&case).choose(&mut rng).expect("the part is there"), &mut rng);
        }
        match filled.and_then(|missing| if missing { Err(StoreError::Incomplete) } else { Ok(()) }) {
            Ok(()) => match store.finish(&go_on) {
                Ok(_) => {
                    for (entry, content) in &entries {
                        let found = fs::read(case.destination().join(&entry.path)).unwrap();
                        assert!(found == *content, "seed {seed}: wrong bytes in {}", entry.path);
                    }
                    return;
                }
                Err(StoreError::Corrupt | StoreError::Incomplete | StoreError::Tampered(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            },
            Err(StoreError::Corrupt | StoreError::Incomplete) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        assert!(!case.destination().exists(), "seed {seed}");
        let _ = store.checkpoint(rng.random_bool(0.7));
        drop(store);
        if round < DAMAGED
            && let Some(path) = files(&case).choose(&mut rng)
        {
            damage(path, &mut rng);
        }
    }
    panic!("seed {seed} is never got over");
}

#[test]
fn three_hundred_damaged_folders_give_no_wrong_byte() {
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
