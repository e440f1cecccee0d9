//! Which pieces the readers of a file wait for.

use std::ops::Range;

use domain::{PieceIndex, PieceLayout};

use crate::download::MAX_URGENT;

/// How many pieces ahead of a reader are urgent.
pub const WINDOW: u64 = 16;

/// The urgent pieces of these readers, the most urgent one first. A reader is the range of bytes that it still wants,
/// in order. The readers take turns, so that each of them gets its next piece soon.
pub fn urgent(layout: PieceLayout, readers: impl IntoIterator<Item = Range<u64>>) -> Vec<PieceIndex> {
    let windows: Vec<_> = readers.into_iter().map(|bytes| window(layout, bytes)).collect();
    let mut urgent = Vec::new();
    for ahead in 0..WINDOW {
        for window in &windows {
            let piece = window.start.checked_add(ahead).filter(|index| window.contains(index));
            let piece = piece.and_then(|index| layout.index(index));
            urgent.extend(piece.filter(|piece| !urgent.contains(piece)));
            if urgent.len() == MAX_URGENT {
                return urgent;
            }
        }
    }
    urgent
}

/// The pieces that have the next bytes of a reader.
fn window(layout: PieceLayout, bytes: Range<u64>) -> Range<u64> {
    let end = bytes.end.min(layout.length());
    if bytes.start >= end {
        return 0..0;
    }
    let piece = u64::from(domain::PIECE_LENGTH);
    let first = bytes.start / piece;
    first..end.div_ceil(piece).min(first.saturating_add(WINDOW))
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use domain::PIECE_LENGTH;

    use super::*;

    const PIECE: u64 = PIECE_LENGTH as u64;

    fn indices(pieces: u64, readers: impl IntoIterator<Item = Range<u64>>) -> Vec<u32> {
        let layout = PieceLayout::new(pieces * PIECE - 1).expect("a valid length");
        urgent(layout, readers).into_iter().map(PieceIndex::get).collect()
    }

    #[test]
    fn the_window_begins_at_the_reader_and_ends_where_it_stops() {
        let all: Vec<u32> = (0..16).collect();
        assert_eq!(indices(100, once(0..u64::MAX)), all);
        assert_eq!(indices(100, once(PIECE - 1..PIECE)), [0]);
        assert_eq!(indices(100, once(PIECE - 1..PIECE + 1)), [0, 1]);
        assert_eq!(indices(100, once(97 * PIECE..u64::MAX)), [97, 98, 99]);
        assert_eq!(indices(3, once(2 * PIECE..3 * PIECE)), [2]);
    }

    #[test]
    fn who_wants_nothing_has_no_window() {
        for nothing in [0..0, 5..5, 100 * PIECE..u64::MAX, u64::MAX..u64::MAX] {
            assert!(indices(100, once(nothing)).is_empty());
        }
        assert!(indices(100, []).is_empty());
    }

    #[test]
    fn readers_take_turns_and_share_what_is_the_same() {
        let urgent = indices(100, [50 * PIECE..53 * PIECE, 51 * PIECE..u64::MAX]);
        assert_eq!(urgent[..5], [50, 51, 52, 53, 54]);
        let many: Vec<_> = (0..40).map(|reader| reader * 2 * PIECE..u64::MAX).collect();
        let urgent = indices(1_000, many);
        assert_eq!(urgent.len(), MAX_URGENT);
        assert_eq!(urgent[..3], [0, 2, 4]);
    }
}
