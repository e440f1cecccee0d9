//! Power cuts during an unfinished download. What no sync brought to the disk may be lost, page by page. A
//! checkpoint may claim only pieces that the disk has. The state that is written when a download is opened
//! after a crash also claims pieces that may have data. These count only after they were read.

use std::cell::RefCell;

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};

use super::{
    super::state::{State, Subject},
    *,
};
use crate::domain::Rng;

const SEEDS: u64 = 2_000;
const THREADS: u64 = 4;
const PAGE: usize = 4_096;
const PIECES: u64 = 3;

/// The disk under the part that this thread's store writes.
#[derive(Default)]
struct Disk {
    state_path: PathBuf,
    /// The part as the last sync left it, and as the one before did.
    synced: Vec<u8>,
    before: Vec<u8>,
    /// The state when the last sync began.
    state: Vec<u8>,
}

thread_local! {
    static DISK: RefCell<Disk> = RefCell::default();
}

/// Brings the part to the modelled disk.
fn sync(part: &fs::File) -> std::io::Result<()> {
    let mut now = vec![0; part.metadata()?.len() as usize];
    part.read_exact_at(&mut now, 0)?;
    DISK.with_borrow_mut(|disk| {
        disk.state = fs::read(&disk.state_path)?;
        disk.before = std::mem::replace(&mut disk.synced, now);
        Ok(())
    })
}

/// What a power cut leaves of a part: what was synced, and any of the pages that were written since.
fn torn(synced: &[u8], written: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut left = synced.to_vec();
    for (page, new) in left.chunks_mut(PAGE).zip(written.chunks(PAGE)) {
        if rng.random() {
            page.copy_from_slice(new);
        }
    }
    left
}

fn run(data: &[u8], manifest: &Arc<Manifest>, seed: u64) {
    let mut rng = Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let case = Case { dir, manifest: manifest.clone(), data: data.to_vec() };
    let subject = Subject { file: file_id(1), root: manifest.header().blake3, layout: manifest.layout() };
    for cuts in 0.. {
        let store = case.place().open().unwrap().with_sync(sync);
        let opened_with = store.unverified();
        let found = fs::read(case.part()).unwrap();
        DISK.set(Disk { state_path: case.state(), synced: found, ..Disk::default() });
        store.recheck(&mut |_, _| ControlFlow::Continue(()));
        let mut missing: Vec<u64> =
            (0..PIECES).filter(|index| !store.have().contains(case.piece(*index))).collect();
        missing.shuffle(&mut rng);
        let mut cut = None;
        for index in missing {
            case.write(&store, [index]);
            let (first_write, within) = (rng.random_range(0..4), rng.random());
            if first_write < 2 {
                store.checkpoint(rng.random()).unwrap();
            }
            if first_write == 1 && cuts < 4 {
                let written = fs::read(case.part()).unwrap();
                let state = fs::read(case.state()).unwrap();
                // The power goes within the checkpoint or after it.
                cut = Some(DISK.with_borrow(|disk| {
                    let (synced, state) =
                        if within { (&disk.before, disk.state.clone()) } else { (&disk.synced, state) };
                    (synced.clone(), torn(synced, &written, &mut rng), state)
                }));
                break;
            }
        }
        let Some((synced, part, state)) = cut else {
            store.finish(&go_on).unwrap();
            assert!(fs::read(case.destination()).unwrap() == data, "seed {seed}: wrong bytes");
            return;
        };
        let claims = State::decode(&state, &subject).expect("a state is replaced as a whole").claims;
        for piece in claims.iter(subject.layout).filter(|piece| !opened_with.contains(*piece)) {
            let range = subject.layout.range(piece);
            let range = range.start as usize..range.end as usize;
            assert!(synced[range.clone()] == data[range], "seed {seed}: {piece:?} is claimed, not synced");
        }
        drop(store);
        fs::write(case.part(), part).unwrap();
        fs::write(case.state(), state).unwrap();
    }
}

#[test]
fn a_checkpoint_claims_only_what_a_power_cut_leaves() {
    let data: Vec<u8> = (0..PIECES as usize * PIECE - 77).map(|at| (at / 97 + at) as u8 | 1).collect();
    let manifest = Arc::new(manifest("file", &data));
    let base: u64 = std::env::var("POWER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("seeds {base}..{base}+{SEEDS}; again with POWER_SEED={base}");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (data, manifest) = (&data, &manifest);
            scope.spawn(move || {
                for seed in (thread..SEEDS).step_by(THREADS as usize) {
                    run(data, manifest, base.wrapping_add(seed));
                }
            });
        }
    });
}
