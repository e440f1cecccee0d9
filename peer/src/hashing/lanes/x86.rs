//! What x86-64 processors have for it.

mod avx512;
mod sha_ni;

use std::{array, slice};

use proto::domain::Sha1;

use super::sha1_of;

const BLOCK: usize = 64;
type Block = [u8; BLOCK];
/// The state before the first block (FIPS 180-4, 5.3.1).
const START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
/// From so many pieces on, sixteen lanes are the faster way, although some stay empty.
const WORTH_IT: usize = 5;

/// As [`super::width`].
pub(super) fn width() -> usize {
    match () {
        () if avx512::is_there() => avx512::LANES,
        () if sha_ni::is_there() => sha_ni::LANES,
        () => 1,
    }
}

/// As [`super::sha1_of_each`].
pub(super) fn sha1_of_each<T: AsRef<[u8]>>(messages: &[&[T]]) -> Vec<Sha1> {
    messages.chunks(width()).flat_map(sha1_of_some).collect()
}

/// Those that are alike in length, as pieces are, go together: at most as many as the width.
fn sha1_of_some<T: AsRef<[u8]>>(messages: &[&[T]]) -> Vec<Sha1> {
    let length = |parts: &[T]| parts.iter().map(|part| part.as_ref().len()).sum::<usize>();
    let whole_blocks =
        messages.iter().map(|parts| length(parts)).filter(|length| length.is_multiple_of(BLOCK));
    let common = whole_blocks.max();
    let fits = |parts: &[T]| Some(length(parts)) == common;
    let fitting: Vec<&[T]> = messages.iter().copied().filter(|parts| fits(parts)).collect();
    let mut together = together(&fitting, common.unwrap_or(0) / BLOCK).into_iter();
    let one = |parts: &[T]| match fits(parts) {
        true => together.next().unwrap_or_else(|| sha1_of(parts)),
        false => sha1_of(parts),
    };
    messages.iter().copied().map(one).collect()
}

/// The hashes of messages of `blocks` blocks each.
#[allow(unsafe_code, reason = "the compiler doesn't know that the processor was asked")]
fn together<T: AsRef<[u8]>>(messages: &[&[T]], blocks: usize) -> Vec<Sha1> {
    if messages.len() >= WORTH_IT && avx512::is_there() {
        // SAFETY: the processor has what is asked for.
        return unsafe { avx512::hash(filled(messages), blocks) }.into();
    }
    if !sha_ni::is_there() {
        return messages.iter().copied().map(sha1_of).collect();
    }
    let some = |messages: &[&[T]]| match messages {
        [one] => vec![sha1_of(one)],
        // SAFETY: the processor has what is asked for.
        [_, _] => unsafe { sha_ni::hash::<_, 2>(filled(messages), blocks) }.into(),
        // SAFETY: as above.
        _ => unsafe { sha_ni::hash::<_, { sha_ni::LANES }>(filled(messages), blocks) }.into(),
    };
    messages.chunks(sha_ni::LANES).flat_map(some).collect()
}

/// A lane for each message. Lanes that are left go along with the first.
fn filled<'a, T: AsRef<[u8]>, const N: usize>(messages: &[&'a [T]]) -> [Lane<'a, T>; N] {
    array::from_fn(|at| Lane::new(messages.get(at).or(messages.first()).copied().unwrap_or_default()))
}

/// What is left of a message.
struct Lane<'a, T> {
    part: &'a [u8],
    parts: slice::Iter<'a, T>,
}

impl<'a, T: AsRef<[u8]>> Lane<'a, T> {
    fn new(parts: &'a [T]) -> Self {
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

    /// Takes so many blocks, which the part has.
    fn run(&mut self, blocks: usize) -> &'a [Block] {
        let (run, rest) = self.part.split_at(blocks * BLOCK);
        self.part = rest;
        run.as_chunks().0
    }
}

/// Has `compress` take all `blocks` of each lane, equally many at a time, and then what pads the messages.
fn feed<T: AsRef<[u8]>, const N: usize>(
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
    // Messages of whole blocks are all padded alike (FIPS 180-4, 5.1.1).
    let mut padding = [0; BLOCK];
    padding[0] = 0x80;
    padding[BLOCK - 8..].copy_from_slice(&(blocks as u64 * BLOCK as u64 * 8).to_be_bytes());
    compress([slice::from_ref(&padding); N]);
}

fn sha1_of_words(words: [i32; 5]) -> Sha1 {
    let mut hash = [0; 20];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_be_bytes();
    }
    hash.into()
}
