//! Reads messages block by block, as the SHA-1 instructions need them.

use std::slice;

use proto::domain::Sha1;

/// The length of a block in bytes.
pub(super) const BLOCK: usize = 64;
pub(super) type Block = [u8; BLOCK];
/// The state before the first block (FIPS 180-4, 5.3.1).
pub(super) const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
/// The rest of a message.
pub(super) struct Lane<'a, T> {
    part: &'a [u8],
    parts: slice::Iter<'a, T>,
}

impl<'a, T: AsRef<[u8]>> Lane<'a, T> {
    pub(super) fn new(parts: &'a [T]) -> Self {
        Self { part: &[], parts: parts.iter() }
    }

    /// Takes a block that lies across parts.
    fn seam(&mut self) -> Block {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            if self.part.is_empty() {
                let Some(next) = self.parts.next() else { break };
                self.part = next.as_ref();
            }
            let (taken, rest) = self.part.split_at(self.part.len().min(BLOCK - filled));
            block[filled..filled + taken.len()].copy_from_slice(taken);
            filled += taken.len();
            self.part = rest;
        }
        block
    }

    /// Takes this number of blocks. The current part must have them.
    fn run(&mut self, blocks: usize) -> &'a [Block] {
        let (run, rest) = self.part.split_at(blocks * BLOCK);
        self.part = rest;
        run.as_chunks().0
    }
}

/// Passes all `blocks` of each lane to `compress`, the same number of each lane at a time, and then the
/// padding.
pub(super) fn feed<T: AsRef<[u8]>, const N: usize>(
    mut lanes: [Lane<'_, T>; N],
    blocks: usize,
    mut compress: impl FnMut([&[Block]; N]),
) {
    let mut left = blocks;
    while left > 0 {
        let run = lanes.iter().map(|lane| lane.part.len() / BLOCK).min().unwrap_or(0);
        if run == 0 {
            let seams = lanes.each_mut().map(Lane::seam);
            compress(seams.each_ref().map(slice::from_ref));
            left -= 1;
        } else {
            compress(lanes.each_mut().map(|lane| lane.run(run)));
            left -= run;
        }
    }
    // All messages have the same number of whole blocks, so their padding is the same (FIPS 180-4, 5.1.1).
    let mut padding = [0; BLOCK];
    padding[0] = 0x80;
    padding[BLOCK - 8..].copy_from_slice(&(blocks as u64 * BLOCK as u64 * 8).to_be_bytes());
    compress([slice::from_ref(&padding); N]);
}

pub(super) fn sha1_of_words(words: [i32; 5]) -> Sha1 {
    let mut hash = [0; 20];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
    hash.into()
}
