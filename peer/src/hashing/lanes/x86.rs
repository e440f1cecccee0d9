//! SHA-1 of many messages at a time on x86-64 processors.

mod avx512;
mod block;
mod sha_ni;

use std::array;

use proto::domain::Sha1;

use self::block::{BLOCK, Lane};
use super::single::sha1_of;

/// From this number of pieces on, sixteen lanes are faster than four, even though some stay empty.
const WORTH_IT: usize = 5;

/// See [`super::width`].
pub(super) fn width() -> usize {
    match () {
        () if avx512::is_there() => avx512::LANES,
        () if sha_ni::is_there() => sha_ni::LANES,
        () => 1,
    }
}

/// See [`super::sha1_of_each`].
pub(super) fn sha1_of_each<T: AsRef<[u8]>>(messages: &[&[T]]) -> Vec<Sha1> {
    messages.chunks(width()).flat_map(sha1_of_some).collect()
}

/// Hashes at most [`width`] messages. Those of equal length are hashed together; pieces usually are of equal
/// length.
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
        // SAFETY: `is_there` has checked that the processor has these instructions.
        return unsafe { avx512::hash(filled(messages), blocks) }.into();
    }
    if !sha_ni::is_there() {
        return messages.iter().copied().map(sha1_of).collect();
    }
    let some = |messages: &[&[T]]| match messages {
        [one] => vec![sha1_of(one)],
        // SAFETY: `is_there` has checked that the processor has these instructions.
        [_, _] => unsafe { sha_ni::hash::<_, 2>(filled(messages), blocks) }.into(),
        // SAFETY: as above.
        _ => unsafe { sha_ni::hash::<_, { sha_ni::LANES }>(filled(messages), blocks) }.into(),
    };
    messages.chunks(sha_ni::LANES).flat_map(some).collect()
}

/// One lane for each message. Lanes without a message of their own hash the first one again.
fn filled<'a, T: AsRef<[u8]>, const N: usize>(messages: &[&'a [T]]) -> [Lane<'a, T>; N] {
    array::from_fn(|at| Lane::new(messages.get(at).or(messages.first()).copied().unwrap_or_default()))
}
