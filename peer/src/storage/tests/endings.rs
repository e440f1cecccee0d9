//! A resume right after a stop, and changes that only a file's times show.

use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::storage::PieceReader as _;

#[test]
fn a_stopped_download_can_be_resumed_while_uploads_still_read_from_it() {
    let case = Case::new(3 * PIECE);
    let stopped = case.open().unwrap();
    case.write(&stopped, [1]);
    stopped.checkpoint(false).unwrap();
    assert!(matches!(case.place().open(), Err(StoreError::InUse)), "it still runs");
    stopped.checkpoint(true).unwrap();
    let resumed = case.open().unwrap();
    assert_eq!(case.had(&resumed), [1]);
    let mut read = vec![0; 100];
    stopped.read(PIECE as u64, &mut read).unwrap();
    assert!(read == case.data[PIECE..PIECE + 100]);
}

#[test]
fn times_that_change_while_the_whole_is_read_mean_another_read() {
    // A write through a memory mapping changes the times, and is no event.
    let case = Case::new(3 * PIECE);
    let store = case.open().unwrap();
    case.write(&store, 0..3);
    drop(fs::File::open(case.part()).unwrap());
    let (reads, touched) = (AtomicU64::new(0), AtomicU64::new(0));
    let touch = |done: u64| {
        if done >= case.data.len() as u64 {
            reads.fetch_add(1, Ordering::SeqCst);
        }
        // The first read is disturbed once.
        if touched.fetch_add(1, Ordering::SeqCst) == 0 {
            let now = fs::metadata(case.part()).unwrap().mtime() - 9;
            let times = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: now, tv_nsec: 0 },
                last_modification: rustix::fs::Timespec { tv_sec: now, tv_nsec: 0 },
            };
            let flags = rustix::fs::AtFlags::empty();
            rustix::fs::utimensat(rustix::fs::CWD, case.part(), &times, flags).unwrap();
        }
        ControlFlow::Continue(())
    };
    store.finish(&touch).unwrap();
    assert_eq!(reads.load(Ordering::SeqCst), 2);
    assert!(fs::read(case.destination()).unwrap() == case.data);
}
