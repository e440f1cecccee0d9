//! Positioned writes to an open file, without a seek and without copying, and what its reads would cost.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
};

use bytes::{Buf as _, Bytes};
use rustix::io::{Errno, ReadWriteFlags};

/// File systems that live in memory alone: tmpfs and ramfs.
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Slices in one write. The kernel takes 1,024.
const SLICES: usize = 64;

/// Writes the parts one after the other from `offset` on.
pub(super) fn write(file: &File, mut offset: u64, parts: &[Bytes]) -> io::Result<()> {
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

/// Whether the first and the last byte of the range are in the page cache: then what is between them most likely is.
pub(super) fn is_cached(file: &File, offset: u64, length: usize) -> bool {
    let probe = |at: u64| {
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT).is_ok()
    };
    length == 0 || (probe(offset) && probe(offset + length as u64 - 1))
}
