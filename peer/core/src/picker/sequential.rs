//! Picks pieces from the front to the back, for a file that is read while it is downloaded.

use domain::{Bitfield, PieceIndex};

use super::{Finds, Picker, Wanted, open_words, pieces};
use crate::Rng;

/// Picks the first open pieces of the file that the source has, in order.
#[derive(Clone, Copy, Debug)]
pub struct Sequential;

impl Picker for Sequential {
    fn pick(
        &self,
        wanted: &Wanted<'_>,
        source: &Bitfield,
        finds: &mut Finds,
        count: usize,
        _: &mut Rng,
        picks: &mut Vec<PieceIndex>,
    ) {
        let open = open_words(wanted, source, finds.first_word());
        let mut open = open.flat_map(|(at, bits)| pieces(wanted.layout, at, bits)).take(count);
        let first = open.next();
        finds.none_before(first, source);
        picks.extend(first.into_iter().chain(open));
    }
}
