//! Chooses the length of the next chunk of a piece.

use std::time::Duration;

/// The most bytes of data in a chunk. Half a piece keeps the frame and its copies in the processor's cache.
pub const MAX_CHUNK: u32 = 256 << 10;
/// The least bytes of data in a chunk, except at the end of a piece.
const MIN_CHUNK: u32 = 16 << 10;
/// The least bytes of data in a piece's first chunk.
const MIN_FIRST: u32 = 4 << 10;
/// The target number of chunks a second. Longer chunks would lose more data that is on its way when a stream
/// is dropped.
const CHUNKS_A_SECOND: u64 = 100;
/// The target if all chunks were the first of their pieces. The receiver learns of a piece from its first
/// chunk, and can only then tell a second sender of that piece to stop.
const FIRSTS_A_SECOND: u64 = 1_000;

/// A reader that takes a chunk faster than this gets longer ones.
const QUICK: Duration = Duration::from_millis(100);
/// A reader that needs longer than this for a chunk gets shorter ones.
const SLOW: Duration = Duration::from_secs(1);

/// The chunk length that suits a reader: at most what it takes in about a second. Progress is seen only chunk
/// by chunk, and a reader that takes none for long is given up.
#[derive(Clone, Copy, Debug)]
pub struct ReaderPace {
    most: u32,
}

impl Default for ReaderPace {
    fn default() -> Self {
        Self { most: MIN_CHUNK }
    }
}

impl ReaderPace {
    /// Notes that the reader needed this time for a chunk.
    pub fn took(&mut self, time: Duration) {
        if time < QUICK {
            self.most = (self.most * 4).min(MAX_CHUNK);
        } else if time > SLOW {
            self.most = (self.most / 2).max(MIN_FIRST);
        }
    }

    /// The most bytes of its next chunk.
    pub fn most(self) -> u32 {
        self.most
    }
}

/// The length in bytes of a piece's next chunk, after `sent` bytes of the piece. `rate` is the upload rate in
/// bytes a second.
pub fn chunk_length(sent: u32, rate: u64) -> u32 {
    let (a_second, least) =
        if sent == 0 { (FIRSTS_A_SECOND, MIN_FIRST) } else { (CHUNKS_A_SECOND, MIN_CHUNK) };
    u32::try_from(rate / a_second).map_or(MAX_CHUNK, |length| length.clamp(least, MAX_CHUNK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_what_it_takes_in_a_second() {
        let mut pace = ReaderPace::default();
        (0..5).for_each(|_| pace.took(Duration::from_millis(1)));
        assert_eq!(pace.most(), MAX_CHUNK);
        for rate in [300_000u32, 20_000, 2_000] {
            for _ in 0..20 {
                pace.took(Duration::from_secs_f64(f64::from(pace.most()) / f64::from(rate)));
            }
            assert!(pace.most() <= rate.max(MIN_FIRST), "{} at {rate} bytes a second", pace.most());
            assert!(pace.most() >= rate / 20, "{} at {rate} bytes a second", pace.most());
        }
    }

    #[test]
    fn a_chunk_is_soon_out_and_the_first_of_a_piece_sooner() {
        let at = |mbit: u64| (chunk_length(0, mbit * 125_000), chunk_length(1, mbit * 125_000));
        assert_eq!(at(0), (4 << 10, 16 << 10));
        assert_eq!(at(20), (4 << 10, 25_000));
        assert_eq!(at(100), (12_500, 125_000));
        assert_eq!(at(10_000), (MAX_CHUNK, MAX_CHUNK));
    }
}
