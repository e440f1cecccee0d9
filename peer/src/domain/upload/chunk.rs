//! How much of a piece goes out at a time.

/// Most bytes of data in one chunk. Half a piece keeps the frame and its copies in the processor's cache.
pub const MAX_CHUNK: u32 = 256 << 10;
/// Least bytes of data in one chunk, unless the piece ends.
const MIN_CHUNK: u32 = 16 << 10;
/// Least bytes of a piece's first chunk.
const MIN_FIRST: u32 = 4 << 10;
/// Chunks in a second, at the rate at which bytes go out. What is on its way when a stream is dropped is lost.
const CHUNKS_A_SECOND: u64 = 100;
/// The same, were all chunks the first of their pieces. The other side hears of a piece when its first chunk is there,
/// and can only then tell a second sender of it to stop.
const FIRSTS_A_SECOND: u64 = 1_000;

/// Bytes of the next chunk of a piece of which so many bytes were sent, where `rate` bytes a second go out.
pub fn chunk_length(sent: u32, rate: u64) -> u32 {
    let (a_second, least) =
        if sent == 0 { (FIRSTS_A_SECOND, MIN_FIRST) } else { (CHUNKS_A_SECOND, MIN_CHUNK) };
    u32::try_from(rate / a_second).map_or(MAX_CHUNK, |length| length.clamp(least, MAX_CHUNK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_soon_out_and_the_first_of_a_piece_sooner() {
        let at = |mbit: u64| (chunk_length(0, mbit * 125_000), chunk_length(1, mbit * 125_000));
        assert_eq!(at(0), (4 << 10, 16 << 10));
        assert_eq!(at(20), (4 << 10, 25_000));
        assert_eq!(at(100), (12_500, 125_000));
        assert_eq!(at(10_000), (MAX_CHUNK, MAX_CHUNK));
    }
}
