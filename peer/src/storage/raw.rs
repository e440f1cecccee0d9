//! Positioned writes to an open file, without a seek or a copy, and the probable cost of reads.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
};

use bytes::{Buf as _, Bytes};
use rustix::{
    fs::FallocateFlags,
    io::{Errno, ReadWriteFlags},
};

/// File systems that are kept in memory only: tmpfs and ramfs.
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The most slices in one write. The kernel's limit is 1,024.
const SLICES: usize = 64;

/// Writes the parts one after the other, starting at `offset`. A part of zeros becomes a hole, so that a sparse
/// file stays sparse.
pub(super) fn write(file: &File, mut offset: u64, parts: &[Bytes]) -> io::Result<()> {
    for run in parts.chunk_by(|one, next| is_zeros(one) == is_zeros(next)) {
        let length: u64 = run.iter().map(|part| part.len() as u64).sum();
        let is_hole = length > 0 && is_zeros(&run[0]) && punch(file, offset, length)?;
        if !is_hole {
            write_bytes(file, offset, run)?;
        }
        offset += length;
    }
    Ok(())
}

fn is_zeros(part: &[u8]) -> bool {
    // Most parts are no zeros in their first bytes already.
    part.iter().all(|byte| *byte == 0)
}

/// Makes a hole of the range, whatever is there. Returns false if the file system has no holes.
fn punch(file: &File, offset: u64, length: u64) -> io::Result<bool> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, offset, length) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn write_bytes(file: &File, mut offset: u64, parts: &[Bytes]) -> io::Result<()> {
    let mut left: std::collections::VecDeque<Bytes> =
        parts.iter().filter(|part| !part.is_empty()).cloned().collect();
    while !left.is_empty() {
        let slices: Vec<IoSlice<'_>> = left.iter().take(SLICES).map(|part| IoSlice::new(part)).collect();
        let mut written = match rustix::io::pwritev(file, &slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        offset += written as u64;
        while let Some(first) = left.front_mut() {
            if written < first.len() {
                first.advance(written);
                break;
            }
            written -= first.len();
            left.pop_front();
        }
    }
    Ok(())
}

/// Whether a file's data is always in memory.
pub(super) fn lives_in_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|stat| MEMORY.contains(&stat.f_type))
}

/// Whether the first and the last byte of the range are in the page cache. The bytes between them then most
/// likely are too.
pub(super) fn is_cached(file: &File, offset: u64, length: usize) -> bool {
    let probe = |at: u64| {
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT).is_ok()
    };
    length == 0 || (probe(offset) && probe(offset + length as u64 - 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn more_parts_than_one_write_takes_are_all_written() {
        let file = tempfile::tempfile().unwrap();
        let parts: Vec<Bytes> = (1..=150).map(|number| Bytes::from(vec![number; 7])).collect();
        assert!(parts.len() > 2 * SLICES);
        write(&file, 5, &parts).unwrap();
        let mut written = vec![0; 150 * 7];
        file.read_exact_at(&mut written, 5).unwrap();
        assert_eq!(written, parts.concat());
        assert_eq!(file.metadata().unwrap().len(), 5 + 150 * 7);
    }
}
