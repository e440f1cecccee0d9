//! How much of a piece goes out at a time.

/// Most bytes of data in one chunk. Half a piece keeps the frame and its copies in the processor's cache.
pub const MAX_CHUNK: u32 = 256 << 10;
/// Least bytes of data in one chunk, unless the piece ends.
const MIN_CHUNK: u32 = 16 << 10;
/// How long a chunk may take on its way out. The other side hears of a piece when its first chunk is there, and can only
/// then tell a second sender of it to stop; and what is on its way when it does so is lost.
const CHUNKS_A_SECOND: u64 = 100;

/// Bytes of the next chunk of a piece, where `rate` bytes a second go out.
pub fn chunk_length(rate: u64) -> u32 {
    u32::try_from(rate / CHUNKS_A_SECOND).map_or(MAX_CHUNK, |length| length.clamp(MIN_CHUNK, MAX_CHUNK))
}
